"""The host's kernels behind the stand-in driver: a launch there computes."""

from __future__ import annotations

import ctypes
import functools
import re
import struct

from standin_cuda import IllegalAddress, Machine

from cuda_shim import HostKernels
from segcam.kernels.cuda.ptx import KERNEL_FILES, read_ptx

Triple = tuple[int, int, int]


def put_kernels_on(machine: Machine, kernels: HostKernels) -> None:
    """Every kernel of the package's PTX."""
    for file in KERNEL_FILES:
        for name in re.findall(r"\.visible \.entry (\w+)\(", read_ptx(file).decode()):
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
