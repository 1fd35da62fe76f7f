"""An ONNX file that is checked before it has its name, and whole as soon as it has it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from segcam.errors import EngineError
from segcam.writing import whole_file

if TYPE_CHECKING:
    import onnx

#: What protobuf can hold in one message; more would need the weights in files of their own.
_LARGEST = 2**31 - 1


def checked_bytes(model: onnx.ModelProto) -> bytes:
    """``model`` as a file has it, after a check (every shape inferred, strictly); the same model gives the same bytes.

    Raises EngineError for a model beyond 2 GB, onnx's ValidationError or InferenceError where the check fails.
    """
    import onnx

    size = model.ByteSize()
    if size > _LARGEST:
        raise EngineError(
            f"the network takes {size / 2**30:.1f} GiB, one ONNX file holds at most 2",
            "Use fewer filters or classes, or halve its weights (--fp16).",
        )
    document = model.SerializeToString(deterministic=True)
    onnx.checker.check_model(document, full_check=True)
    return document


def save_model(model: onnx.ModelProto, path: Path) -> int:
    """Check ``model`` and write it to ``path``; returns the number of bytes.

    What was at ``path`` stays until the new file is complete. Raises as ``checked_bytes`` does, OSError where the file
    cannot be written.
    """
    document = checked_bytes(model)
    with whole_file(path) as temporary:
        temporary.write_bytes(document)
    return len(document)
