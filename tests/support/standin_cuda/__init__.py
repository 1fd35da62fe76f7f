"""A CUDA driver for tests: one machine of host memory behind device addresses, with the faces of both bindings.

``install(monkeypatch)`` puts stand-ins for ``cuda.bindings.driver`` (cuda-python) and ``pycuda.driver`` into
``sys.modules``; both drive the same ``Machine``, as the real ones share a device. It refuses what a real driver refuses
(use without a current context, freed or foreign addresses, capture against the rules) and by default it is *lazy*:
queued work runs when something waits for it, so that code that forgets to wait reads stale bytes. Names, signatures,
enum values and error codes are compared with the real bindings by ``tests/kernels/cuda/test_standin_contract.py``.

What stands on it (a stand-in for TensorRT) uses::

    machine.bytes_at(address, nbytes)           -> writable memoryview; IllegalAddress where nothing (whole) is
    machine.enqueue(stream_handle, work, what)  -> queues a callable behind the stream's work; Refused if not allowed
    machine.require_context()                   -> the thread's current context; Refused("CUDA_ERROR_INVALID_CONTEXT")
    machine.allocate(nbytes) / machine.free(address)
    machine.pinned_at(address, nbytes)          -> the same for page-locked host memory
    machine.fail("cuMemAlloc", at=3)            -> the third call from now fails (any driver function, C name)
    machine.die("cuLaunchKernel", at=3)         -> and every call after it, as after an illegal address
    machine.calls, machine.counts               -> what was called, in order, and how often
    machine.leftovers()                         -> what was not freed, by kind; all 0 after a clean end
    machine.accidents                           -> what queued work raised
    machine.run()                               -> lets all queued work happen now
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from standin_cuda.machine import Call, IllegalAddress, Machine, Refused

if TYPE_CHECKING:
    import pytest

__all__ = ["Call", "IllegalAddress", "Machine", "Refused", "install"]


def install(
    monkeypatch: pytest.MonkeyPatch, which: tuple[str, ...] = ("cuda-python", "pycuda"), **options: Any
) -> Machine:
    """A fresh machine behind the bindings named in ``which``; the others are made to look not installed.

    ``options`` go to ``Machine`` (order, devices, memory_bytes, driver_version, compute_capability, name).
    """
    from standin_cuda.bindings_face import modules as cuda_python
    from standin_cuda.pycuda_face import modules as pycuda

    machine = Machine(**options)
    for kind, made in (("cuda-python", cuda_python(machine)), ("pycuda", pycuda(machine))):
        for name, module in made.items():
            put(monkeypatch, name, module if kind in which else None)
    return machine


def put(monkeypatch: pytest.MonkeyPatch, name: str, module: ModuleType | None) -> None:
    """``module`` under ``name``; None makes an import of it raise ModuleNotFoundError."""
    monkeypatch.setitem(sys.modules, name, module)  # type: ignore[arg-type]
