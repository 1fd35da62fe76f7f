"""CUDA graphs through cuda-python, under the driver's rules for captures; PyCUDA has none and says so."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from standin_cuda import Machine, install

from segcam.errors import CudaError
from segcam.kernels.cuda.driver import Driver, open_driver


@pytest.fixture
def kind() -> str:
    return "cuda-python"


def test_a_graph_does_the_work_again(inside: Driver) -> None:
    stream, memory, up, down = inside.stream(), inside.allocate(4), inside.pinned(4), inside.pinned(4)
    with inside.capture(stream) as capture:
        inside.upload(memory.address, up.array, stream)
        inside.fill(memory.address, 9, 2, stream)
        inside.download(down.array, memory.address, stream)
        with pytest.raises(CudaError, match="before its block ends"):
            _ = capture.graph
    down.array[:] = 0
    stream.synchronize()
    assert not down.array.any(), "captured work does not run"
    for value in (1, 2):
        up.array[:] = value
        capture.graph.launch(stream)
        stream.synchronize()
        assert down.array.tolist() == [9, 9, value, value]
    capture.graph.close()
    capture.graph.close()
    with pytest.raises(CudaError, match="a graph was closed"):
        capture.graph.launch(stream)


def test_another_stream_joins(inside: Driver) -> None:
    one, two, memory = inside.stream(), inside.stream(), inside.allocate(4)
    fork, join = inside.event(timing=False), inside.event(timing=False)
    with inside.capture(one) as capture:
        fork.record(one)
        two.wait(fork)
        inside.fill(memory.address, 4, 4, two)
        join.record(two)
        one.wait(join)
    capture.graph.launch(one)
    back = np.empty(4, np.uint8)
    inside.download(back, memory.address, one)
    assert (back == 4).all()
    with pytest.raises(CudaError, match="CUDA_ERROR_STREAM_CAPTURE_UNJOINED"), inside.capture(one):
        fork.record(one)
        two.wait(fork)
        inside.fill(memory.address, 4, 4, two)
    two.synchronize()


FORBIDDEN: dict[str, Callable[[Driver, Any], Any]] = {
    "allocating": lambda driver, stream: driver.allocate(4),
    "pinning": lambda driver, stream: driver.pinned(4),
    "waiting for the stream": lambda driver, stream: stream.synchronize(),
    "asking the stream": lambda driver, stream: stream.idle(),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_spoils_a_capture_is_an_error_and_the_stream_lives_on(inside: Driver, what: str) -> None:
    stream, memory = inside.stream(), inside.allocate(4)
    with pytest.raises(CudaError, match="CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"), inside.capture(stream):
        FORBIDDEN[what](inside, stream)
    inside.fill(memory.address, 1, 4, stream)
    stream.synchronize()


def test_an_error_kept_quiet_still_spoils_the_capture(inside: Driver) -> None:
    stream = inside.stream()
    with (
        pytest.raises(CudaError, match="CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"),
        inside.capture(stream),
        pytest.raises(CudaError, match="CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"),
    ):
        inside.allocate(4)
    stream.synchronize()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_discards_the_capture(inside: Driver, machine: Machine, error: type[BaseException]) -> None:
    stream, memory = inside.stream(), inside.allocate(4)
    with pytest.raises(error), inside.capture(stream):
        inside.fill(memory.address, 1, 4, stream)
        raise error
    assert machine.leftovers()["graphs"] == 0
    stream.synchronize()


def test_other_threads_may_allocate_meanwhile(inside: Driver) -> None:
    """A decoder's thread does, at any time: a global capture would end with an error in both."""
    stream, memory = inside.stream(), inside.allocate(4)
    errors: list[BaseException] = []

    def decode() -> None:
        try:
            with inside.current():
                inside.allocate(16).close()
                inside.pinned(16).close()
        except BaseException as error:
            errors.append(error)

    with inside.capture(stream) as capture:
        inside.fill(memory.address, 1, 4, stream)
        thread = threading.Thread(target=decode)
        thread.start()
        thread.join(30)
    assert errors == [] and not thread.is_alive()
    capture.graph.launch(stream)
    stream.synchronize()


def test_pycuda_alone_has_no_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, ("pycuda",))
    driver = open_driver("pycuda")
    assert not driver.has_graphs
    with driver.current():
        stream = driver.stream()
        with pytest.raises(CudaError, match="pycuda has no CUDA graphs") as caught, driver.capture(stream):
            pass
        assert "cuda-bindings" in caught.value.hint
    driver.close()


def test_a_cuda_python_that_does_not_fit_the_driver_gives_pycuda_no_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = install(monkeypatch)
    machine.lacking.add("cuDriverGetVersion")
    driver = open_driver("pycuda")
    assert (driver.name, driver.has_graphs) == ("pycuda", False)
    driver.close()
