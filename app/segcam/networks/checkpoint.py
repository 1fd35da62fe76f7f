"""Reads the weights that others trained, without PyTorch and without running anything in the file.

Three formats: PyTorch's zip (1.6 and later), PyTorch's older row of pickles, and safetensors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from segcam.errors import CheckpointError
from segcam.networks.file import WeightsFile
from segcam.networks.inert import NumpyArray
from segcam.networks.safetensors import SafeTensors
from segcam.networks.tensors import Tensor
from segcam.networks.torch_legacy import BEGINNINGS, TorchLegacy
from segcam.networks.torch_zip import TorchZip
from segcam.networks.wrappers import find_state, plain_metadata

_KINDS = "Give the weights as .pt, .pth or .safetensors."
#: Beginnings of what people give by mistake, and what it is.
_MISTAKES = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "Fetch the file itself: git lfs pull."),
    (b"<", "a web page or XML, not weights", "Download the file again; look at what it says with: head"),
    (b"\x89HDF", "an HDF5 file, as Keras writes it", _KINDS),
    (b"\x1f\x8b", "compressed with gzip", "Unpack it with gunzip."),
    (b"\x93NUMPY", "one NumPy array", _KINDS),
    (b"{", "JSON, perhaps the index of weights in several files", "Give the weights as one file."),
    (b"\x08", "perhaps an ONNX network", "An ONNX file needs no checkpoint: give it to --engine as it is."),
)


@dataclass(frozen=True)
class Checkpoint:
    """``tensors``: the state dict, names without wrappers' prefixes, C-contiguous arrays in the file's types
    (bfloat16 and float8 as float32). ``wrapper`` and ``format`` are words for what it was wrapped in; ``metadata`` has
    the numbers and texts that stood around it (num_classes, epoch, meta, ...)."""

    tensors: dict[str, np.ndarray[Any, Any]]
    wrapper: str
    format: str
    metadata: dict[str, object] = field(default_factory=dict)


def read_checkpoint(path: Path) -> Checkpoint:
    """The weights in a file (.pt, .pth, .safetensors). Memory stays within a small multiple of the file's size.

    Raises CheckpointError, and nothing else, for a file that is missing, damaged, asks for more than data, or holds
    something else.
    """
    try:
        if not path.is_file():
            what = "it is a folder; a file is expected" if path.is_dir() else "there is no such file"
            raise CheckpointError(what, _KINDS)
        with WeightsFile(path) as file:
            return _read(file, path.suffix.lower())
    except CheckpointError as error:
        hint = error.hint or "The file is damaged or was not made by torch.save: download or save it again."
        raise CheckpointError(f"{path}: {error.message}", hint) from None
    except MemoryError:
        raise CheckpointError(f"{path}: there is not enough memory for its tensors") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None


def _read(file: WeightsFile, suffix: str) -> Checkpoint:
    start = file.bytes_at(0, min(file.size, 264))
    if not start:
        raise CheckpointError("it is empty", "Download it again.")
    archive: TorchZip | TorchLegacy | SafeTensors
    if start.startswith(b"PK\3\4"):
        archive, kind = TorchZip(file), "PyTorch"
    elif start.startswith(BEGINNINGS):
        archive, kind = TorchLegacy(file), "PyTorch before 1.6"
    elif suffix == ".safetensors" or start[8:9] == b"{":
        archive, kind = SafeTensors(file), "safetensors"
    else:
        raise _mistaken(start)
    found = find_state(archive.value)
    arrays = archive.read({name: value for name, value in found.state.items() if isinstance(value, Tensor)})
    # Several names may share one array.
    plain = {id(value): value.plain() for value in found.state.values() if isinstance(value, NumpyArray)}
    tensors = {name: arrays[name] if name in arrays else plain[id(value)] for name, value in found.state.items()}
    metadata = found.metadata
    if isinstance(archive, SafeTensors):
        metadata = plain_metadata(archive.metadata)
    return Checkpoint(tensors, found.words, kind, metadata)


def _mistaken(start: bytes) -> CheckpointError:
    if start[257:262] == b"ustar":
        return CheckpointError(
            "it is a tar, as the first PyTorch releases (before 0.1.10) wrote, or an archive around the file",
            "Unpack it, or load and save it with a PyTorch from 0.4 to 2.5.",
        )
    for beginning, what, hint in _MISTAKES:
        if start.lstrip().startswith(beginning):
            return CheckpointError(f"it is {what}", hint)
    return CheckpointError("it is neither a file of torch.save nor .safetensors", _KINDS)
