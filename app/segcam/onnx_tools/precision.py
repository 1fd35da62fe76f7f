"""From a float32 network to one in halves that is known to hold: measure, keep what would overflow, convert, check.

TensorRT 11 has no flag for float16: an engine computes in the types of its graph. So the graph is converted, and proven
before anything is built (``fit_precision``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from segcam.errors import EngineError
from segcam.onnx_tools.agreement import Agreement, Judge, agreement
from segcam.onnx_tools.casting import Converted, Half, convert_precision
from segcam.onnx_tools.naming import all_nodes, name_nodes
from segcam.onnx_tools.probes import Feed, magnitudes, whole_numbers
from segcam.onnx_tools.rounding import exposed, wide_feed, widened

if TYPE_CHECKING:
    import onnx

__all__ = [
    "Agreement",
    "Converted",
    "Fitted",
    "agreement",
    "block_list",
    "convert_precision",
    "exposed",
    "fit_precision",
    "magnitudes",
    "name_nodes",
]

#: float16 ends at 65504. What was seen on a few frames may be six times as large on others.
LIMIT = 1e4
_BF16_LIMIT = 1e37
#: Up to here float16 has every whole number, and bfloat16 every one up to 256.
_WHOLE: dict[Half, float] = {"fp16": 2048.0, "bf16": 256.0}
#: Share of labels that have to be those of float32.
WANTED: dict[Half, float] = {"fp16": 0.999, "bf16": 0.97}
_ROUNDS = 12
#: Where labels differ, such a share of the products is kept, from the picture on: what these round away reaches
#: everything behind them. With them the norms that no product has taken in, of whose constants halves keep little: on
#: one trained network (ESPNet, 2048x1024) 0.23 % of the labels differ, with the first twelfth kept 0.16 %, with the
#: norms 0.19 %, with both 0.06 %.
_FIRST = (1 / 12, 1 / 6, 1 / 3)
_NORMS = ("BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization")
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True, eq=False)
class Fitted:
    """``kept``: nodes that stay float32, by name, with the reason. ``magnitudes``: see ``magnitudes``."""

    model: onnx.ModelProto
    kept: dict[str, str]
    agreement: Agreement
    magnitudes: dict[str, float] = field(repr=False)


def block_list(
    model: onnx.ModelProto, magnitudes: Mapping[str, float], limit: float = LIMIT, whole: float = 2048.0
) -> dict[str, str]:
    """Nodes that have to stay float32, with the reason: those that make or read a tensor whose largest value is beyond
    ``limit``, and those that make whole numbers beyond ``whole`` which a Cast then reads as such.

    Names are those of ``name_nodes(model)``.
    """
    nodes = list(all_nodes(name_nodes(model).graph))
    counted = {node.input[0] for node in nodes if whole_numbers(node)}
    blocked: dict[str, str] = {}
    for node in nodes:
        for verb, names in (("makes", node.output), ("reads", node.input)):
            for name in names:
                value = magnitudes.get(name, 0.0)
                if not value <= limit:
                    blocked.setdefault(node.name, f"{verb} {name}, which reaches {value:.3g} (limit {limit:.3g})")
                elif value > whole and name in counted and (verb == "makes" or whole_numbers(node)):
                    blocked.setdefault(node.name, f"{verb} {name}, which is counted with and reaches {value:.3g}")
    return blocked


def fit_precision(
    model: onnx.ModelProto,
    to: Half,
    feeds: Sequence[Feed],
    source: str,
    *,
    keep_io: bool = True,
    channel_axis: int = 1,
    wanted: float | None = None,
) -> Fitted:
    """``model`` in halves that stays finite and gives float32's labels on ``feeds`` (from ``source``, for the report).

    Values are measured in float32, what is beyond LIMIT is kept, and the conversion is run really rounding. Where
    tensors still are not finite, what makes them first is kept too, until none is left. Where less than ``wanted``
    (WANTED) of the labels are equal, so are the norms and the first twelfth, sixth and then third of the products. If
    none of that gets there, ties count (``Agreement.ties``), which networks have that were not trained on such
    pictures, or not at all: the first of all these that then is good is taken. Raises EngineError where none is.
    """
    model = name_nodes(model)
    seen = magnitudes(widened(model), [wide_feed(feed) for feed in feeds])
    judge = Judge(model, feeds, source, channel_axis)
    keep = block_list(model, seen, LIMIT if to == "fp16" else _BF16_LIMIT, _WHOLE[to])
    floor = WANTED[to] if wanted is None else wanted

    def tried() -> Fitted:
        """With what is kept by now, and what has to be, too, for every tensor to be finite."""
        for _ in range(_ROUNDS):
            converted = convert_precision(model, to, keep=keep, keep_io=keep_io)
            found, wild = judge.judge(converted.model)
            more = _origins(model, wild, keep)
            if not more:
                break
            keep.update(more)
        return Fitted(converted.model, converted.kept, found, seen)

    made = [tried()]
    for share in _FIRST:
        found = made[-1].agreement
        if found.nonfinite or found.labels_equal >= floor:
            break
        more = _beginning(model, share, keep)
        if more:
            keep.update(more)
            made.append(tried())
    if made[-1].agreement.labels_equal >= floor:
        made = made[-1:]
    for fitted in made:
        if not fitted.agreement.nonfinite and fitted.agreement.labels_equal + fitted.agreement.ties >= floor:
            return fitted
    found = max((fitted.agreement for fitted in made), key=lambda one: (-one.nonfinite, one.labels_equal))
    what = (
        f"{found.nonfinite} tensors are not finite"
        if found.nonfinite
        else f"{found.labels_equal:.2%} of labels are float32's, expected {floor:.2%}"
    )
    other = "--bf16 or --fp32" if to == "fp16" else "--fp16 or --fp32"
    on = f"{found.frames} frame{'' if found.frames == 1 else 's'} ({source})"
    raise EngineError(f"the network does not hold in {to}: {what} on {on}", f"Use {other}.")


def _origins(model: onnx.ModelProto, wild: set[str], keep: Mapping[str, str]) -> dict[str, str]:
    """Nodes that make something not finite of what is finite, and those that read it."""
    nodes = list(all_nodes(model.graph))
    first = {name for node in nodes if not wild.intersection(node.input) for name in wild.intersection(node.output)}
    found: dict[str, str] = {}
    for node in nodes:
        for name in first.intersection((*node.output, *node.input)):
            if node.name not in keep:
                found[node.name] = f"{name} is not finite in halves"
    return found


def _beginning(model: onnx.ModelProto, share: float, keep: Mapping[str, str]) -> dict[str, str]:
    """The first nodes up to ``share`` of the products, and all norms, with the reason."""
    nodes = list(model.graph.node)
    products = [i for i, node in enumerate(nodes) if node.op_type in _PRODUCTS]
    end = products[int(len(products) * share)] if products else 0
    early = "lies in the beginning, whose rounding reaches everything behind it"
    reasons = {
        node.name: "is a norm, of whose constants halves keep little" for node in nodes if node.op_type in _NORMS
    }
    reasons.update(dict.fromkeys((node.name for node in nodes[:end]), early))
    return {name: reason for name, reason in reasons.items() if name not in keep}
