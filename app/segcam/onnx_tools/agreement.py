"""How far a network in halves agrees with the float32 one, every value of it really rounded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segcam.errors import EngineError
from segcam.onnx_tools.graph import attributes_of
from segcam.onnx_tools.probes import Feed, Probed
from segcam.onnx_tools.rounding import half_tensors, rounded, wide_feed, widened

if TYPE_CHECKING:
    import onnx

#: Outputs that name no classes (one channel, or less than three axes) agree where they differ by at most this share of
#: the reference's standard deviation.
_CLOSE = 0.01


@dataclass(frozen=True)
class Agreement:
    """A converted network beside its float32 reference, on ``frames`` frames from ``source`` (words for people).

    ``labels_equal``: share (0..1) of pixels whose highest-scoring class is the same one, or whose label is; of several
    outputs the worst. ``ties``: share of pixels (of that output) with another label where the reference's scores of the
    two classes are as good as equal, their difference at most a hundredth of ``spread``. ``largest_difference``: of
    scores, absolute; infinite where one is not finite. ``spread``: standard deviation of the reference's scores (of
    those that an ArgMax names classes by, where the output is labels). ``nonfinite``: number of tensors with values
    that are infinite or not a number though the reference's are finite.
    """

    labels_equal: float
    largest_difference: float
    spread: float
    nonfinite: int
    frames: int
    source: str
    ties: float = 0.0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def agreement(
    reference: onnx.ModelProto,
    converted: onnx.ModelProto,
    feeds: Sequence[Feed],
    source: str,
    *,
    channel_axis: int = 1,
) -> Agreement:
    """Run both on ``feeds``, which have the types of the reference's inputs. Raises EngineError where one cannot run,
    where their outputs have different shapes, and for no feeds.
    """
    return Judge(reference, feeds, source, channel_axis).judge(converted)[0]


def compare_outputs(
    wanted: Sequence[Sequence[NDArray[Any]]],
    made: Sequence[Sequence[NDArray[Any]]],
    source: str,
    *,
    nonfinite: int = 0,
    channel_axis: int = 1,
    named: Mapping[int, tuple[str, int]] | None = None,
) -> Agreement:
    """Outputs beside those of the reference, for each frame the list of them. Where output ``i`` is labels, ``named``
    may have the axis of its scores' classes: the scores then are further outputs, in its order.

    Raises EngineError where shapes differ, and for no frames.
    """
    if not wanted:
        raise EngineError("no frames to compare the networks on", "Give at least one.")
    named = named or {}
    scores = [one for frame in wanted for one in frame if _is_float(one) and one.size]
    spread = max((_spread(one) for one in scores), default=0.0)
    shares = []
    largest = 0.0
    for frame, others in zip(wanted, made, strict=True):
        for one, other in zip(frame, others, strict=True):
            if one.shape != other.shape:
                raise EngineError(f"an output is {other.shape}, the reference's {one.shape}", "Use --fp32.")
            largest = max(largest, _difference(one, other))
        own = len(frame) - len(named)
        ranked = {i: (frame[own + at], axis) for at, (i, (_, axis)) in enumerate(named.items())}
        shares.append([_shares(frame[i], others[i], ranked.get(i), channel_axis, spread) for i in range(own)])
    mean = np.mean(shares, axis=0)
    equal, ties = mean[int(np.argmin(mean[:, 0]))]
    return Agreement(float(equal), largest, spread, nonfinite, len(wanted), source, float(ties))


def _shares(
    one: NDArray[Any], other: NDArray[Any], ranked: tuple[NDArray[Any], int] | None, axis: int, spread: float
) -> tuple[float, float]:
    """Equal labels and ties of an output and the reference's ``one``; ``ranked`` has the scores behind labels."""
    if one.size == 0:
        return 1.0, 0.0
    if ranked is not None:
        scores, axis = ranked
        labels = other.reshape(np.take(scores, 0, axis).shape)
        return float(np.mean(one == other)), _ties(scores, labels, axis, spread)
    if _is_float(one) and one.ndim >= 3 and one.shape[axis] > 1:
        labels = other.argmax(axis)
        return float(np.mean(one.argmax(axis) == labels)), _ties(one, labels, axis, spread)
    close = one == other
    if _is_float(one):
        with np.errstate(invalid="ignore"):
            close |= np.abs(one.astype(np.float64) - other) <= _CLOSE * _spread(one)
    return float(np.mean(close)), 0.0


def _ties(scores: NDArray[Any], labels: NDArray[Any], axis: int, spread: float) -> float:
    chosen = np.take_along_axis(scores, np.expand_dims(labels.astype(np.int64), axis), axis)
    short = scores.max(axis, keepdims=True).astype(np.float64) - chosen
    return float(np.mean((short > 0) & (short <= _CLOSE * spread)))


class Judge:
    """The reference's outputs, computed once, to compare several conversions with."""

    def __init__(self, reference: onnx.ModelProto, feeds: Sequence[Feed], source: str, channel_axis: int = 1) -> None:
        # What has halves of its own is compared with itself in float32, and what really rounds takes float32, too.
        reference, feeds = widened(reference), [wide_feed(feed) for feed in feeds]
        self._feeds, self._source, self._axis = feeds, source, channel_axis
        self._named = _scores_behind(reference)
        probed = Probed(_with_outputs(reference, self._named), "unfinite")
        self._wanted: list[list[NDArray[Any]]] = []
        self._wild: set[str] = set()
        for feed in feeds:
            made, numbers = probed.run(feed)
            self._wanted.append(made)
            self._wild.update(name for name, value in numbers.items() if np.isnan(value))

    def judge(self, converted: onnx.ModelProto) -> tuple[Agreement, set[str]]:
        """The agreement, and the names of the tensors that are not finite (as the reference names them)."""
        whole = _with_outputs(rounded(converted), self._named)
        probed = Probed(whole, "unfinite", half_tensors(converted), exact=True)
        wild: set[str] = set()
        made: list[list[NDArray[Any]]] = []
        for feed in self._feeds:
            outputs, numbers = probed.run(feed)
            made.append(outputs)
            wild.update(_plain(name) for name, value in numbers.items() if np.isnan(value))
        wild -= self._wild
        found = compare_outputs(
            self._wanted, made, self._source, nonfinite=len(wild), channel_axis=self._axis, named=self._named
        )
        return found, wild


def _scores_behind(model: onnx.ModelProto) -> dict[int, tuple[str, int]]:
    """For outputs that are labels: the scores that an ArgMax names classes by, and the axis of the classes."""
    makers = {name: node for node in model.graph.node for name in node.output}
    found: dict[int, tuple[str, int]] = {}
    for i, output in enumerate(model.graph.output):
        node = makers.get(output.name)
        while node is not None and node.op_type in ("Cast", "Squeeze", "Unsqueeze", "Identity", "Reshape"):
            node = makers.get(node.input[0])
        if node is not None and node.op_type == "ArgMax" and node.input[0] in makers:
            found[i] = node.input[0], int(attributes_of(node).get("axis", 0))
    return found


def _with_outputs(model: onnx.ModelProto, named: dict[int, tuple[str, int]]) -> onnx.ModelProto:
    from onnx import helper

    made = type(model).FromString(model.SerializeToString())
    for name, _ in named.values():
        made.graph.output.append(helper.make_value_info(name, helper.make_tensor_type_proto(1, None)))
    return made


def _spread(scores: NDArray[Any]) -> float:
    finite = scores[np.isfinite(scores)]
    return float(np.std(finite.astype(np.float64))) if finite.size else 0.0


def _difference(one: NDArray[Any], other: NDArray[Any]) -> float:
    if one.size == 0 or not _is_float(one):
        return 0.0
    with np.errstate(invalid="ignore"):
        apart = np.abs(one.astype(np.float64) - other)
    # The same infinity twice, or not a number in both, is no difference.
    apart[(one == other) | (np.isnan(one) & np.isnan(other))] = 0.0
    largest = float(apart.max())
    return largest if np.isfinite(largest) else float("inf")


def _is_float(array: NDArray[Any]) -> bool:
    return np.issubdtype(array.dtype, np.floating)


def _plain(name: str) -> str:
    stem, _, ending = name.rpartition(".")
    return stem if ending in ("fp16", "bf16", "fp32") else name
