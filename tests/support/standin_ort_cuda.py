"""ONNX Runtime with a CUDA provider, for tests: sessions of the real one on the CPU, their runs queued on the stand-in
machine's streams, bound to its memory by the real I/O binding. Everything else is the real module's, and so are the
signatures."""

from __future__ import annotations

import inspect
import sys
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime as real
import pytest
from standin_cuda import Machine

CUDA = "CUDAExecutionProvider"


class OrtOnMachine(ModuleType):
    """``compiled`` False: a package for the CPU; ``loads`` False: CUDA's libraries are missing; ``partly``: an operator
    has no CUDA kernel; ``fails_at``: that run (1 is the first) fails. ``sessions`` are those made for CUDA."""

    def __init__(self, machine: Machine) -> None:
        super().__init__("onnxruntime")
        self.machine = machine
        self.compiled = self.loads = True
        self.partly = False
        self.fails_at = 0
        self.runs = 0
        self.preloaded: list[str | None] = []
        self.sessions: list[Session] = []
        self.__file__ = "/nowhere/onnxruntime/__init__.py"

    def __getattr__(self, name: str) -> Any:
        return getattr(real, name)

    def get_available_providers(self) -> list[str]:
        return [CUDA, "CPUExecutionProvider"] if self.compiled else ["CPUExecutionProvider"]

    def preload_dlls(self, **more: Any) -> None:
        inspect.signature(real.preload_dlls).bind(**more)
        self.preloaded.append(more.get("directory"))
        print("Failed to load libnothing.so")

    def InferenceSession(self, data: Any, options: Any = None, **more: Any) -> Any:
        inspect.signature(real.InferenceSession).bind(data, options, **more)
        names = [name if isinstance(name, str) else name[0] for name in more.get("providers", [])]
        if CUDA not in names:
            return real.InferenceSession(data, options, **more)
        assert names == [CUDA] and more["enable_fallback"] == 0
        strict = (
            options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1" if _is_set(options) else False
        )
        if strict and (self.partly or not self.loads):
            raise RuntimeError(
                "[ONNXRuntimeError] : 1 : FAIL : This session contains graph nodes that are assigned to the default "
                "CPU EP, but fallback to CPU EP has been explicitly disabled by the user."
            )
        self.sessions.append(Session(self, data, more["providers"][0][1]))
        return self.sessions[-1]


def _is_set(options: Any) -> bool:
    try:
        options.get_session_config_entry("session.disable_cpu_ep_fallback")
    except RuntimeError:
        return False
    return True


class Session:
    def __init__(self, face: OrtOnMachine, data: bytes, options: dict[str, str]) -> None:
        self.face, self.options = face, options
        assert all(isinstance(value, str) for value in options.values())
        self.stream = int(options["user_compute_stream"])
        face.machine.require_context()
        face.machine.streams.stream(self.stream)
        self.inner = real.InferenceSession(data, providers=["CPUExecutionProvider"])

    def get_providers(self) -> list[str]:
        return [CUDA, "CPUExecutionProvider"] if self.face.loads else ["CPUExecutionProvider"]

    def io_binding(self) -> Binding:
        return Binding(self)

    def run_with_iobinding(self, binding: Binding, options: Any) -> None:
        face = self.face
        assert options.get_run_config_entry("disable_synchronize_execution_providers") == "1"
        face.runs += 1
        if face.runs == face.fails_at:
            raise RuntimeError("[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Conv node")
        calls = dict(binding.calls)

        def run() -> None:
            inner = self.inner.io_binding()
            for name, (tensor, dtype, shape, address) in calls.items():
                count = int(np.prod(shape)) * np.dtype(dtype).itemsize
                memory = np.frombuffer(face.machine.bytes_at(address, count, 256), np.uint8)
                getattr(inner, name)(tensor, "cpu", 0, dtype, shape, memory.ctypes.data)
            self.inner.run_with_iobinding(inner, options)

        face.machine.enqueue(self.stream, run, "onnxruntime")


class Binding:
    """``calls`` are what was bound, by the method's name."""

    def __init__(self, session: Session) -> None:
        self._real, self._device = session.inner.io_binding(), session.options["device_id"]
        self.calls: dict[str, tuple[str, Any, list[int], int]] = {}

    def bind_input(self, *arguments: Any, **more: Any) -> None:
        self._bind("bind_input", *arguments, **more)

    def bind_output(self, *arguments: Any, **more: Any) -> None:
        self._bind("bind_output", *arguments, **more)

    def _bind(self, method: str, *arguments: Any, **more: Any) -> None:
        given = inspect.signature(getattr(self._real, method)).bind(*arguments, **more).arguments
        assert (given["device_type"], str(given["device_id"])) == ("cuda", self._device)
        self.calls[method] = (given["name"], given["element_type"], given["shape"], given["buffer_ptr"])


def install(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> OrtOnMachine:
    """In place of ``onnxruntime`` for one test."""
    face = OrtOnMachine(machine)
    monkeypatch.setitem(sys.modules, "onnxruntime", face)
    return face
