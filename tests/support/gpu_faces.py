"""A GPU with TensorRT for tests: the stand-in driver and the stand-in TensorRT, in ``sys.modules`` for one test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest
import standin_cuda
from cuda_shim.on_machine import put_lazy_kernels_on
from standin_trt import FACES, Control, make_tensorrt

USUAL = ("10.3.0", "11.4.0.106")


@dataclass
class TensorRtFace:
    """One installed stand-in: ``trt`` is the module, ``machine`` the GPU, ``control`` faults and logs.

    ``problems_expected``: a test that provokes misuse on purpose sets it.
    """

    name: str
    monkeypatch: pytest.MonkeyPatch
    machine: Any = None
    control: Control = field(default_factory=Control)
    trt: ModuleType = field(default_factory=lambda: ModuleType("tensorrt"))
    problems_expected: bool = False

    @property
    def version(self) -> tuple[int, ...]:
        """(10, 3, 0)."""
        return tuple(int(part) for part in self.name.split("."))

    def install(self, version: str | None = None, /, **machine: Any) -> ModuleType:
        """Put a fresh TensorRT there, of another version where one is given: a plan meets a newer library, or,
        with ``machine`` options (compute_capability=(7, 5), name="Other"), another GPU.
        """
        self.name = version or self.name
        if machine or self.machine is None:
            self.machine = standin_cuda.install(self.monkeypatch, **machine)
            put_lazy_kernels_on(self.machine)
        self.trt = make_tensorrt(self.name, self.machine, self.control)
        self.monkeypatch.setitem(sys.modules, "tensorrt", self.trt)
        return self.trt


@pytest.fixture
def tensorrt_face(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[TensorRtFace]:
    """A TensorRT over a stand-in GPU, once for each of USUAL or of ``@pytest.mark.tensorrt("10.0.1", ...)``."""
    face = TensorRtFace(request.param, monkeypatch)
    face.install()
    yield face
    if not face.problems_expected:
        assert face.control.problems == []


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Runs a test that asks for ``tensorrt_face`` with each version; conftest's pytest_generate_tests calls it."""
    if "tensorrt_face" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("tensorrt")
        names = mark.args if mark else USUAL
        assert set(names) <= set(FACES), names
        metafunc.parametrize("tensorrt_face", names, indirect=True)
