"""The adapter and the stand-in beside PyCUDA's real face, which is recorded: PyCUDA is built from source with a CUDA
toolkit, so that no test can fetch it. Recorded from the docstrings of PyCUDA 2026.1, built against CUDA 13.0.
"""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from standin_cuda import Machine, pycuda_face

#: Functions, and methods after their class; parameters behind | may be left out. ``self`` is not named.
FUNCTIONS = {
    "init": "|flags",
    "get_driver_version": "",
    "mem_get_info": "",
    "mem_alloc": "arg1",
    "memcpy_htod_async": "dest src |stream",
    "memcpy_dtoh_async": "dest src |stream",
    "memcpy_dtod_async": "dest src size |stream",
    "memset_d8_async": "dest data size |stream",
    "module_from_buffer": "buffer |options message_handler",
    "pagelocked_empty": "shape dtype |order mem_flags",
    "Device": "arg1",
    "Device.count": "",
    "Device.name": "",
    "Device.compute_capability": "",
    "Device.total_memory": "",
    "Device.retain_primary_context": "",
    "Context.push": "",
    "Context.pop": "",
    "Context.detach": "",
    "Context.synchronize": "",
    "Stream": "|flags",
    "Stream.synchronize": "",
    "Stream.is_done": "",
    "Stream.wait_for_event": "arg1",
    "Event": "|flags",
    "Event.record": "|stream",
    "Event.query": "",
    "Event.synchronize": "",
    "Event.time_since": "arg1",
    "DeviceAllocation.free": "",
    "PagelockedHostAllocation.free": "",
    "Module.get_function": "name",
}
#: What is no function: properties, numbers, exceptions.
OTHERS = {
    "Stream.handle",
    "event_flags.DEFAULT",
    "event_flags.DISABLE_TIMING",
    "host_alloc_flags.PORTABLE",
    "Error",
    "MemoryError",
    "LogicError",
    "RuntimeError",
    "LaunchError",
}
#: Read by the adapter of things that aren't PyCUDA's: arrays and its own.
ELSEWHERE = {"base", "ctypes", "data", "float16", "uint16", "uint8", "bool_", "generic", "view", "it", "empty"}
#: What the adapter takes PyCUDA's things from.
HOLDERS = re.compile(r"self\._cuda\b|cuda\b|device\b|\w+\.it\b|memory\b|self\._context\b|flags\b")


@pytest.fixture
def face(machine: Machine) -> Any:
    return pycuda_face.modules(machine)["pycuda.driver"]


def adapter(repository: Path) -> ast.ClassDef:
    tree = ast.parse((repository / "app/segcam/kernels/cuda/pycuda_driver.py").read_text("utf-8"))
    return next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "PyCudaApi")


def test_the_adapter_uses_nothing_else(repository: Path) -> None:
    known = {part for name in FUNCTIONS.keys() | OTHERS for part in name.split(".")}
    own = {node.name for node in ast.walk(adapter(repository)) if isinstance(node, ast.FunctionDef)}
    used = {
        node.attr
        for node in ast.walk(adapter(repository))
        if isinstance(node, ast.Attribute) and HOLDERS.match(ast.unparse(node.value))
    }
    assert {"mem_alloc", "retain_primary_context", "wait_for_event", "free", "DISABLE_TIMING"} <= used
    assert used - known - ELSEWHERE - own == set()


def test_calls_have_the_arguments_that_pycuda_takes(repository: Path) -> None:
    counted = 0
    for node in ast.walk(adapter(repository)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("self._cuda."):
            name = ast.unparse(node.func).removeprefix("self._cuda.")
            needed, _, more = FUNCTIONS[name].partition("|")
            every = [*needed.split(), *more.split()]
            assert len(needed.split()) <= len(node.args) <= len(every), ast.unparse(node)
            assert {keyword.arg for keyword in node.keywords} <= set(every[len(node.args) :]), ast.unparse(node)
            counted += 1
    assert counted > 10


@pytest.mark.parametrize("name", sorted(FUNCTIONS.keys() - {"PagelockedHostAllocation.free"}))
def test_the_stand_in_takes_what_pycuda_takes(face: Any, name: str) -> None:
    holder, _, method = name.rpartition(".")
    thing = getattr(getattr(face, holder) if holder else face, method)
    parameters = [one for one in inspect.signature(thing).parameters.values() if one.name != "self"]
    needed, _, more = FUNCTIONS[name].partition("|")
    assert len([one for one in parameters if one.default is one.empty]) == len(needed.split())
    # Boost's arg1 has no name to call it by; of what may be left out, the stand-in has what the adapter gives.
    assert [one.name for one in parameters][: len(needed.split())] == needed.split() or "arg1" in needed
    assert {one.name for one in parameters[len(needed.split()) :]} <= set(more.split())


def test_errors_are_of_the_same_family(face: Any) -> None:
    for name in ("MemoryError", "LogicError", "RuntimeError", "LaunchError"):
        assert issubclass(getattr(face, name), face.Error)
        assert not issubclass(getattr(face, name), (OSError, RuntimeError, MemoryError))
