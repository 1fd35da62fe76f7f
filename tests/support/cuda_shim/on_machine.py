"""The host's kernels behind the stand-in driver: a launch there computes."""

from __future__ import annotations

import ctypes
import functools
import re
import struct
import sys

from standin_cuda import IllegalAddress, Machine

from cuda_shim import HostKernels, compiler, library
from segcam.kernels.cuda.ptx import KERNEL_FILES, read_ptx

Triple = tuple[int, int, int]


def put_kernels_on(machine: Machine, kernels: HostKernels) -> None:
    """Every kernel of the package's PTX."""
    for name in kernel_names():
        machine.kernels[name] = functools.partial(_run, kernels, name)


def _run(kernels: HostKernels, name: str, machine: Machine, grid: Triple, block: Triple, args: list[bytes]) -> None:
    kernels.launch_bytes(name, grid, block, [_on_host(machine, value) for value in args])


def _on_host(machine: Machine, value: bytes) -> bytes:
    """A device address as that of the host's memory behind it; all else as it is."""
    if len(value) != 8:
        return value
    (address,) = struct.unpack("<Q", value)
    try:
        memory = machine.bytes_at(address, 1)
    except IllegalAddress:
        return value
    return struct.pack("<Q", ctypes.addressof(ctypes.c_char.from_buffer(memory)))


def put_lazy_kernels_on(machine: Machine) -> None:
    """As ``put_kernels_on``, compiled when the first is launched. Where there is no compiler, the machine's driver
    refuses the package's kernels, as an old one does."""
    if compiler() is None:
        for name in ("cuModuleLoadData", "cuModuleLoadDataEx"):
            machine.fail(name, error="CUDA_ERROR_UNSUPPORTED_PTX_VERSION", times=sys.maxsize)
        return

    def launch(name: str, machine: Machine, grid: Triple, block: Triple, args: list[bytes]) -> None:
        _run(_compiled(), name, machine, grid, block, args)

    for name in kernel_names():
        machine.kernels[name] = functools.partial(launch, name)


@functools.cache
def _compiled() -> HostKernels:
    return HostKernels(library())


@functools.cache
def kernel_names() -> tuple[str, ...]:
    """Of all kernels in the package's PTX."""
    entries = [re.findall(r"\.visible \.entry (\w+)\(", read_ptx(file).decode()) for file in KERNEL_FILES]
    return tuple(name for names in entries for name in names)
