"""onnxsim, where it is installed: shapes computed, constants folded, pads and norms merged into convolutions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from segcam.errors import SegcamError
from segcam.onnx_tools.check import difference

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, eq=False)
class Simplified:
    """``reason`` says why ``model`` is the given one: onnxsim is missing or failed, or its result differs; else ""."""

    model: onnx.ModelProto
    reason: str = ""


def simplify(model: onnx.ModelProto) -> Simplified:
    """``model`` through onnxsim, compared with the original on random input and refused if it differs.

    ``model`` itself is not changed, and its metadata stays. Never raises for what onnxsim makes of a graph.
    """
    try:
        import onnxsim
    except ImportError:
        return Simplified(model, "onnxsim is not installed (pip install onnxsim)")
    try:
        made, _ = onnxsim.simplify(model)
    except Exception as error:  # onnxsim raises whatever its C++ part does
        return Simplified(
            model, f"onnxsim failed: {(str(error).strip().splitlines() or [type(error).__name__])[0][:300]}"
        )
    try:
        found = difference(model, made)
    except SegcamError as error:
        return Simplified(model, error.message)
    if not found.small:
        return Simplified(model, f"onnxsim's result differs by {found.largest:.2g} of the scores' spread")
    # onnxsim notes its own settings there.
    del made.metadata_props[:]
    made.metadata_props.extend(model.metadata_props)
    return Simplified(made)
