"""The kernels as the package carries them: PTX for compute capability 7.0, which any driver from CUDA 12.0 on compiles.

``scripts/build_ptx.py`` makes it from the sources beside it; its first line says from which.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Literal

from segcam.errors import CudaError

KernelFile = Literal["preprocess", "postprocess"]
KERNEL_FILES: tuple[KernelFile, ...] = ("preprocess", "postprocess")

#: What a PTX file made from a source of this hash begins with.
SOURCE_LINE = "// segcam source sha256 "


#: What a kernel's source may include.
HEADERS = ("common.cuh", "painting.cuh", "scores.cuh")


def source_hash(name: KernelFile) -> str:
    """Of a kernel's source and the headers, whatever the line ends are."""
    digest = hashlib.sha256()
    for file in (*HEADERS, f"{name}.cu"):
        text = (resources.files("segcam.kernels.cuda") / file).read_text(encoding="utf-8")
        digest.update(text.encode())
    return digest.hexdigest()


def read_ptx(name: KernelFile) -> bytes:
    """For ``Driver.load_module``. Raises CudaError where the installation lacks it."""
    try:
        return (resources.files("segcam.kernels.cuda") / f"{name}.ptx").read_bytes()
    except OSError as error:
        raise CudaError(
            f"the GPU kernel {name}.ptx is missing from this installation ({error})",
            "Install Segcam again: pip install --force-reinstall --no-deps segcam",
        ) from None
