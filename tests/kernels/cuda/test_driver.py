"""The CUDA driver through both libraries: memory, order, time, kernels, on the stand-in GPU."""

from __future__ import annotations

import random
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from standin_cuda import IllegalAddress, Machine, install
from standin_cuda.code import SCALE_PTX

from segcam.errors import CudaError
from segcam.kernels.cuda.driver import Driver, open_driver


def test_the_gpu_says_what_it_is(driver: Driver, kind: str) -> None:
    device = driver.device
    assert (device.index, device.name, device.compute_capability) == (0, "NVIDIA Stand-in", (8, 9))
    assert (device.memory_bytes, device.driver_version) == (8 << 30, (13, 0))
    assert (driver.name, driver.has_graphs) == (kind, True)
    with driver.current():
        memory = driver.allocate(1 << 20)
        assert driver.memory() == ((8 << 30) - (1 << 20), 8 << 30)
        memory.close()
        assert driver.memory() == (8 << 30, 8 << 30)


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "int64"])
def test_an_array_goes_up_and_comes_down(driver: Driver, dtype: str) -> None:
    given_array = np.arange(2 * 3 * 5).reshape(2, 3, 5).astype(dtype)
    with driver.current():
        stream, memory = driver.stream(), driver.allocate(given_array.nbytes)
        assert memory.address % 256 == 0
        driver.upload(memory.address, given_array, stream)
        back = np.empty_like(given_array)
        driver.download(back, memory.address, stream)
        assert np.array_equal(back, given_array)
        part = np.empty(5, dtype)
        driver.download(part, memory.address + 25 * part.itemsize, stream)
        assert np.array_equal(part, given_array[1, 2])


def test_only_waiting_makes_pinned_bytes_good(driver: Driver) -> None:
    with driver.current():
        stream, memory = driver.stream(), driver.allocate(16)
        up, down = driver.pinned(16), driver.pinned(16)
        assert (up.array.dtype, up.array.shape, up.nbytes) == (np.uint8, (16,), 16)
        up.array[:], down.array[:] = 7, 0
        driver.upload(memory.address, up.array, stream)
        driver.download(down.array, memory.address, stream)
        assert not down.array.any()
        stream.synchronize()
        assert (down.array == 7).all()
        driver.upload(memory.address, up.array, stream)
        up.array[:] = 8
        driver.download(down.array, memory.address, stream)
        stream.synchronize()
        assert (down.array == 8).all(), "a pinned array is read when the copy runs"


def test_pageable_bytes_are_taken_at_the_call(driver: Driver) -> None:
    with driver.current():
        stream, memory = driver.stream(), driver.allocate(16)
        array = np.full(16, 7, np.uint8)
        driver.upload(memory.address, array, stream)
        array[:] = 8
        driver.download(array, memory.address, stream)
        assert (array == 7).all()


def test_pinned_memory_is_never_write_combined(driver: Driver, machine: Machine) -> None:
    with driver.current():
        driver.pinned(10)
    assert [flags & 4 for flags in machine.pinned_flags] == [0]


def test_copy_and_fill(driver: Driver) -> None:
    with driver.current():
        stream, one, two = driver.stream(), driver.allocate(8), driver.allocate(8)
        driver.fill(one.address, 3, 8, stream)
        driver.fill(two.address, 9, 8, stream)
        driver.copy(two.address + 2, one.address, 4, stream)
        back = np.empty(8, np.uint8)
        driver.download(back, two.address, stream)
        assert back.tolist() == [9, 9, 3, 3, 3, 3, 9, 9]
        driver.copy(two.address, one.address, 0, stream)
        driver.fill(two.address, 1, 0, stream)
        driver.upload(two.address, np.empty(0, np.float32), stream)


def test_a_stream_waits_for_an_event_of_another(driver: Driver) -> None:
    with driver.current():
        first, second, memory = driver.stream(), driver.stream(), driver.allocate(4)
        event, back = driver.event(timing=False), driver.pinned(4)
        assert event.done(), "never recorded"
        driver.fill(memory.address, 5, 4, first)
        event.record(first)
        assert not event.done()
        second.wait(event)
        driver.download(back.array, memory.address, second)
        second.synchronize()
        assert back.array.tolist() == [5] * 4
        assert event.done() and first.idle() and second.idle()


def test_without_the_event_the_bytes_are_stale(driver: Driver) -> None:
    with driver.current():
        first, second, memory = driver.stream(), driver.stream(), driver.allocate(4)
        back = driver.pinned(4)
        driver.fill(memory.address, 5, 4, first)
        driver.download(back.array, memory.address, second)
        second.synchronize()
        assert back.array.tolist() != [5] * 4
        first.synchronize()


def test_asking_again_and_again_ends(driver: Driver) -> None:
    with driver.current():
        stream, memory, event = driver.stream(), driver.allocate(4), driver.event()
        for value in range(5):
            driver.fill(memory.address, value, 4, stream)
        event.record(stream)
        asked = [event.done() for _ in range(8)]
        assert asked == sorted(asked) and asked[-1] and not asked[0]
        assert stream.idle()


def test_events_tell_milliseconds(driver: Driver) -> None:
    with driver.current():
        stream, memory = driver.stream(), driver.allocate(4)
        start, end, untimed = driver.event(), driver.event(), driver.event(timing=False)
        start.record(stream)
        for value in range(3):
            driver.fill(memory.address, value, 4, stream)
        end.record(stream)
        untimed.record(stream)
        with pytest.raises(CudaError, match="timing"):
            end.ms_since(start)
        end.synchronize()
        assert end.ms_since(start) == pytest.approx(1.0)
        stream.synchronize()
        with pytest.raises(CudaError, match="without timing"):
            untimed.ms_since(start)


def test_an_event_on_the_default_stream(driver: Driver, machine: Machine) -> None:
    with driver.current():
        stream, memory, event = driver.stream(), driver.allocate(4), driver.event(timing=False)
        machine.enqueue(0, lambda: machine.bytes_at(memory.address, 4).__setitem__(slice(None), b"1234"))
        event.record(None)
        stream.wait(event)
        back = np.empty(4, np.uint8)
        driver.download(back, memory.address, stream)
        assert back.tobytes() == b"1234"


def test_a_kernel_gets_its_arguments(driver: Driver, machine: Machine) -> None:
    seen: list[Any] = []

    def scale(gpu: Machine, grid: tuple[int, ...], block: tuple[int, ...], args: list[bytes]) -> None:
        address, count, factor = (struct.unpack(form, arg)[0] for form, arg in zip("QIf", args, strict=False))
        seen.append((grid, block, count, factor, args[3], args[4]))
        values = np.frombuffer(gpu.bytes_at(address, 4 * count), np.float32)
        values *= factor

    machine.kernels["scale"] = scale
    with driver.current():
        module, stream, memory = driver.load_module(SCALE_PTX), driver.stream(), driver.allocate(16)
        function = module.function("scale")
        driver.upload(memory.address, np.arange(4, dtype=np.float32), stream)
        arguments = (memory.address, np.uint32(4), np.float32(2.5), np.float16(1.5), np.bool_(True))
        driver.launch(function, (4, 2, 1), (32, 8, 1), arguments, stream)
        assert seen == []
        back = np.empty(4, np.float32)
        driver.download(back, memory.address, stream)
    assert back.tolist() == [0, 2.5, 5, 7.5]
    assert seen == [((4, 2, 1), (32, 8, 1), 4, 2.5, np.float16(1.5).tobytes(), b"\1")]


@pytest.mark.parametrize("argument", [1.5, True, None, "x", np.zeros(3)])
def test_arguments_without_a_size_are_refused(driver: Driver, argument: Any) -> None:
    with driver.current():
        function = driver.load_module(SCALE_PTX).function("scale")
        with pytest.raises(CudaError, match=r"argument 1 of scale is a \w+: NumPy scalars"):
            driver.launch(function, (1, 1, 1), (1, 1, 1), [0, argument], driver.stream())


def test_kernels_that_the_driver_cannot_take(driver: Driver) -> None:
    with driver.current():
        with pytest.raises(CudaError, match="CUDA_ERROR_UNSUPPORTED_PTX_VERSION") as caught:
            driver.load_module(SCALE_PTX.replace(b".version 8.0", b".version 99.0"))
        assert "525" in caught.value.hint
        with pytest.raises(CudaError, match="CUDA_ERROR_NO_BINARY_FOR_GPU"):
            driver.load_module(SCALE_PTX.replace(b"sm_70", b"sm_100"))
        module = driver.load_module(SCALE_PTX)
        with pytest.raises(CudaError, match=r"looking for kernel nothing: .*CUDA_ERROR_NOT_FOUND"):
            module.function("nothing")
        function = module.function("scale")
        module.close()
        with pytest.raises(CudaError, match="scale is used after its module was closed"):
            driver.launch(function, (1, 1, 1), (1, 1, 1), [], driver.stream())


def test_arrays_that_cannot_be_copied(driver: Driver) -> None:
    with driver.current():
        stream, memory = driver.stream(), driver.allocate(64)
        with pytest.raises(CudaError, match="not C-contiguous"):
            driver.upload(memory.address, np.zeros((4, 4))[:, ::2], stream)
        fixed = np.zeros(4, np.uint8)
        fixed.flags.writeable = False
        with pytest.raises(CudaError, match="read-only"):
            driver.download(fixed, memory.address, stream)
        driver.upload(memory.address, fixed, stream)


@pytest.mark.parametrize("nbytes", [0, -1])
def test_no_memory_is_no_memory(driver: Driver, nbytes: int) -> None:
    with driver.current():
        for make in (driver.allocate, driver.pinned):
            with pytest.raises(CudaError, match="cannot be allocated"):
                make(nbytes)


def test_addresses_that_are_not_there(driver: Driver, machine: Machine) -> None:
    with driver.current():
        stream, memory = driver.stream(), driver.allocate(16)
        old = memory.address
        for address, nbytes in ((old + 1, 16), (old + 16, 1), (old - 1, 4), (0, 4), (old, 17)):
            with pytest.raises(CudaError, match="CUDA_ERROR_INVALID_VALUE"):
                driver.upload(address, np.zeros(nbytes, np.uint8), stream)
        memory.close()
        with pytest.raises(CudaError, match="CUDA_ERROR_INVALID_VALUE"):
            driver.fill(old, 0, 4, stream)
        with pytest.raises(IllegalAddress):
            machine.bytes_at(old, 1)


@given(seed=st.integers(0, 2**32), kind=st.sampled_from(["cuda-python", "pycuda"]), depth=st.integers(1, 4))
def test_events_hold_in_any_order_of_the_streams(seed: int, kind: Any, depth: int) -> None:
    """A ring of slots over three streams (copy in, work, copy out) gives every frame its own bytes."""
    with pytest.MonkeyPatch.context() as patch:
        machine = install(patch, order=random.Random(seed))
        driver = open_driver(kind)
        with driver.current():
            streams = [driver.stream() for _ in range(3)]
            slots = [
                (driver.allocate(4), driver.pinned(4), driver.pinned(4), [driver.event(False) for _ in range(3)])
                for _ in range(depth)
            ]
            seen = []
            for frame in range(7 + depth):
                memory, given_bytes, made, events = slots[frame % depth]
                if frame >= depth:
                    events[2].synchronize()
                    seen.append(made.array.tolist())
                given_bytes.array[:] = frame
                driver.upload(memory.address, given_bytes.array, streams[0])
                events[0].record(streams[0])
                streams[1].wait(events[0])
                address = memory.address

                def double(address: int = address) -> None:
                    machine.bytes_at(address, 4)[:] = bytes(2 * value for value in machine.bytes_at(address, 4))

                machine.enqueue(streams[1].handle, double)
                events[1].record(streams[1])
                streams[2].wait(events[1])
                driver.download(made.array, memory.address, streams[2])
                events[2].record(streams[2])
            assert seen == [[2 * frame] * 4 for frame in range(7)]
        del made, given_bytes, slots
        driver.close()
        assert not any(machine.leftovers().values()), machine.leftovers()
        assert machine.accidents == []
