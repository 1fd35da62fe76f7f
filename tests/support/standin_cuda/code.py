"""Modules and kernels of the stand-in machine: PTX is read for names, parameters and what it asks of the driver;
the kernels themselves are Python functions that a test registers by name."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from standin_cuda.words import Refused

if TYPE_CHECKING:
    from standin_cuda.machine import Machine

#: The newest PTX version that the driver of each CUDA version takes (PTX ISA, "Release Notes").
_NEWEST_PTX = {(12, 0): (8, 0), (12, 4): (8, 4), (12, 8): (8, 7), (12, 9): (8, 8), (13, 0): (9, 0), (13, 1): (9, 1)}
_SIZES = {"8": 1, "16": 2, "32": 4, "64": 8}
Triple = tuple[int, int, int]

#: A kernel's frame in PTX, as a compiler writes it; the work itself is a Python function that a test registers.
SCALE_PTX = b"""//
.version 8.0
.target sm_70
.address_size 64
.visible .entry scale(
	.param .u64 scale_param_0,
	.param .u32 scale_param_1,
	.param .f32 scale_param_2,
	.param .u16 scale_param_3,
	.param .u8 scale_param_4
)
{
	ret;
}
"""


@dataclass
class Module:
    """Kernel names with the sizes in bytes of their parameters."""

    entries: dict[str, list[int]]
    context: int
    functions: list[int] = field(default_factory=list)


class Code:
    """What is loaded. A handle of a function is good as long as its module is loaded."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.modules: dict[int, Module] = {}
        self.functions: dict[int, tuple[str, list[int]]] = {}

    def load(self, image: bytes) -> int:
        context = self.machine.require_context()
        self.machine.streams.unsafe_in_capture()
        text = image.partition(b"\0")[0].decode("utf-8", "replace")
        version = re.search(r"^\s*\.version\s+(\d+)\.(\d+)", text, re.MULTILINE)
        target = re.search(r"^\s*\.target\s+sm_(\d+)", text, re.MULTILINE)
        if version is None or target is None:
            raise Refused(
                "CUDA_ERROR_INVALID_IMAGE" if not text.lstrip().startswith("//") else "CUDA_ERROR_INVALID_PTX"
            )
        newest = max((ptx for cuda, ptx in _NEWEST_PTX.items() if cuda <= self.machine.driver_version), default=(7, 8))
        if (int(version[1]), int(version[2])) > newest:
            raise Refused("CUDA_ERROR_UNSUPPORTED_PTX_VERSION")
        major, minor = self.machine.compute_capability
        if int(target[1]) > major * 10 + minor:
            raise Refused("CUDA_ERROR_NO_BINARY_FOR_GPU")
        entries = {}
        for name, parameters in re.findall(r"\.entry\s+(\w+)\s*\(([^)]*)\)", text):
            entries[name] = [
                _SIZES[bits] for bits in re.findall(r"\.param\s+(?:\.align\s+\d+\s+)?\.[usfb](\d+)", parameters)
            ]
        if not entries:
            raise Refused("CUDA_ERROR_INVALID_PTX")
        handle = self.machine.new_handle()
        self.modules[handle] = Module(entries, context.handle)
        return handle

    def unload(self, handle: int) -> None:
        self.machine.require_context()
        self.machine.streams.unsafe_in_capture()
        if handle not in self.modules:
            raise Refused("CUDA_ERROR_INVALID_HANDLE")
        for function in self.modules.pop(handle).functions:
            del self.functions[function]

    def function(self, module: int, name: str) -> int:
        self.machine.require_context()
        if module not in self.modules:
            raise Refused("CUDA_ERROR_INVALID_HANDLE")
        if name not in self.modules[module].entries:
            raise Refused("CUDA_ERROR_NOT_FOUND")
        handle = self.machine.new_handle()
        self.functions[handle] = (name, self.modules[module].entries[name])
        self.modules[module].functions.append(handle)
        return handle

    def sizes(self, function: int) -> list[int]:
        self.machine.require_context()
        if function not in self.functions:
            raise Refused("CUDA_ERROR_INVALID_HANDLE")
        return self.functions[function][1]

    def launch(self, function: int, grid: Triple, block: Triple, shared: int, stream: int, args: list[bytes]) -> None:
        """Queues a kernel; ``args`` are its parameters' bytes."""
        sizes = self.sizes(function)
        name = self.functions[function][0]
        threads = block[0] * block[1] * block[2]
        if min(*grid, *block) < 1 or max(grid[1:]) > 65535 or threads > 1024 or block[2] > 64 or shared > 48 << 10:
            raise Refused("CUDA_ERROR_INVALID_VALUE")
        if [len(arg) for arg in args] != sizes:
            raise Refused("CUDA_ERROR_INVALID_VALUE")

        def run() -> None:
            self.machine.kernels[name](self.machine, grid, block, args)

        self.machine.enqueue(stream, run, name)

    def forget(self, context: int) -> None:
        for handle in [handle for handle, module in self.modules.items() if module.context == context]:
            for function in self.modules.pop(handle).functions:
                del self.functions[function]
