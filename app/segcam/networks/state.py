"""A state dict against what a network wants; and random weights where there are none."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from segcam.errors import CheckpointError, UsageError
from segcam.networks.words import dims, listed, shown

Arrays = Mapping[str, np.ndarray[Any, Any]]
Shapes = Mapping[str, tuple[int, ...]]

#: Where the networks have their classifier: (classes, channels, 1, 1).
_CLASSIFIERS = ("last.weight", "decode_head.conv_seg.weight")
_SIZE_THAT_ALL_TAKE = (512, 512)

#: More names than any of the networks has: a stranger's file may hold a million.
_LISTED = 1000
#: Layers without an activation behind them, and those of them whose output is added to what came before.
_LINEAR = re.compile(
    r"last\.|conv_seg\.|conv_up1\.|convs[24]\.|\.downsample\.|\.depthwise_conv\.|\.conv_(lower|higher)_res\."
)
_ADDED = re.compile(r"\.conv_pwl\.|\.conv3\.|\.conv\.2\.conv\.")


def match_state(
    tensors: Arrays, expected: Shapes, idle: Shapes, network: str
) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """The tensors that ``network`` (its name for people) wants, float32, in the order of ``expected``.

    ``idle`` are tensors that may be there and are not used; their shapes are not looked at. Raises CheckpointError with
    all that is missing, unexpected or misshapen, or for values that no trained network has: integers, complex numbers,
    NaN, infinities, negative variances.
    """
    missing = [name for name in expected if name not in tensors]
    unexpected = [name for name in tensors if name not in expected and name not in idle]
    misshapen = {
        name: (tensors[name].shape, shape)
        for name, shape in expected.items()
        if name in tensors and tensors[name].shape != shape
    }
    if missing or unexpected or misshapen:
        shapes = [f"{name} {dims(found)} instead of {dims(wanted)}" for name, (found, wanted) in misshapen.items()]
        parts = [
            f"\n  {len(names)} {what}: {listed(names, _LISTED)}"
            for names, what in ((missing, "missing"), (unexpected, "unexpected"), (shapes, "of another shape"))
            if names
        ]
        raise CheckpointError(
            f"the checkpoint's {len(tensors)} tensors are not those of {network} ({len(expected)} needed):"
            + "".join(parts),
            _hint(tensors, missing, misshapen),
            missing=missing,
            unexpected=unexpected,
            misshapen=misshapen,
        )
    wrong = [f"{name} ({tensors[name].dtype})" for name in expected if tensors[name].dtype.kind != "f"]
    if wrong:
        raise CheckpointError(
            f"{network} wants floating-point weights; the checkpoint has {listed(wrong)}",
            "A quantised network cannot be exported; give the checkpoint that it was made from.",
        )
    matched = {name: _finite(name, tensors[name]) for name in expected}
    for name, values in matched.items():
        if name.endswith("running_var") and values.size and values.min() < 0:
            raise CheckpointError(f"{shown(name)} has a negative variance ({values.min():g})", "The file is damaged.")
    return matched


def fitting_options(tensors: Arrays) -> dict[str, str | int] | None:
    """The network whose tensors these are: ``{"model": ..., "num_classes": ...}`` and, where it has such,
    ``num_filters``; None where they are no known network's."""
    from segcam.networks.architecture import MODELS, NetworkOptions, expected_tensors

    for classifier in _CLASSIFIERS:
        weight = tensors.get(classifier)
        if weight is None or weight.ndim != 4:
            continue
        filters = classifier == "last.weight"
        for model in MODELS:
            found: dict[str, str | int] = {"model": model, "num_classes": weight.shape[0]}
            if filters:
                found["num_filters"] = weight.shape[1]
            try:
                options = NetworkOptions(
                    model, weight.shape[0], weight.shape[1] if filters else 128, _SIZE_THAT_ALL_TAKE
                )
                wanted = expected_tensors(options)
            except UsageError:
                continue
            if all(name in tensors and tensors[name].shape == shape for name, shape in wanted.items()):
                return found
    return None


def random_state(expected: Shapes, seed: int) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Untrained weights of a plausible scale for every tensor; the same for the same name, shape and seed (0..2**32-1).

    Convolutions are normal with variance 2/fan_in (He et al. 2015, arXiv:1502.01852), 1/fan_in where no activation
    follows and 0.5/fan_in where a sum does; batch norms are near the identity. So nothing vanishes, and nothing comes
    near the end of half precision.
    """
    return {name: _random(name, shape, seed) for name, shape in expected.items()}


def _random(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    random = np.random.Generator(np.random.Philox(key=(seed & 0xFFFFFFFF) << 32 | zlib.crc32(name.encode())))
    leaf = name.rpartition(".")[2]
    if len(shape) > 1:
        gain = 0.5 if _ADDED.search(name) else 1.0 if _LINEAR.search(name) else 2.0
        values = random.standard_normal(shape) * math.sqrt(gain / math.prod(shape[1:]))
    elif leaf in ("running_var", "weight"):
        values = random.uniform(0.8, 1.25, shape)
    else:
        values = random.standard_normal(shape) * 0.1
    return values.astype(np.float32)


def _finite(name: str, values: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    with np.errstate(over="ignore"):
        floats = values.astype(np.float32, copy=False)
    if not np.isfinite(floats).all():
        what = "NaN" if np.isnan(floats).any() else "infinities"
        raise CheckpointError(
            f"{shown(name)} has {what} among its {floats.size:,} values",
            "The training diverged or the file is damaged; give another checkpoint.",
        )
    return floats


def _hint(tensors: Arrays, missing: list[str], misshapen: Mapping[str, tuple[Any, Any]]) -> str:
    fits = fitting_options(tensors)
    if fits is not None:
        flags = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in fits.items())
        return f"These are the tensors of another network: {flags}"
    if not missing and all(found == (*wanted[:2], 1, 1) for found, wanted in misshapen.values()) and misshapen:
        return (
            "This looks like a checkpoint of mmsegmentation before June 2021 (pull request 606), whose pyramid ends in "
            "a 1x1 convolution; give a later one."
        )
    return "Give the checkpoint of this network, or name the checkpoint's with --model, --num-filters, --num-classes."
