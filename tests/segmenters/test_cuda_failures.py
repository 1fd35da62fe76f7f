"""Calls of the driver that fail under frames in flight: the others stay whole, and the slots come back."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_frames import on_cpu, picture, run, the_same
from plans import plan_of

from segcam.errors import CudaError
from segcam.segmenters.cuda_work import Kernels

Brightest = Callable[..., Path]
OnGpuOf = Callable[..., Any]


@pytest.mark.parametrize("graphs", [False, True])
def test_what_a_failed_frame_had_queued_meets_no_other(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf, graphs: bool
) -> None:
    """It fails behind its last copy: the surface that this writes to is the next frame's, in another stream."""
    path = brightest()
    gpu = on_gpu(plan_of(tensorrt_face.trt, path), requests=2)
    machine, segmenter = tensorrt_face.machine, gpu.segmenter(resident=True, graphs=graphs)
    frames = [picture(index, (24, 40), "nv12") for index in range(8)]
    wanted = on_cpu(path, frames)
    for frame in frames[:6]:
        # One surface in all.
        segmenter.submit(frame)
        segmenter.collect()
    gc.collect()
    # Pictures on the GPU: begun, the five stages where these are timed, arrived.
    machine.fail("cuEventRecord", at=2 if segmenter.graphs_used else 7)
    copies = machine.counts["cuMemcpyDtoDAsync"]
    # The error's traceback would hold the surface.
    try:
        segmenter.submit(frames[6])
    except CudaError as error:
        said = error.name
    assert (said, machine.counts["cuMemcpyDtoDAsync"]) == ("CUDA_ERROR_UNKNOWN", copies + 1)
    gc.collect()
    segmenter.submit(frames[7])
    found = segmenter.collect()
    machine.run()
    for mine, other in zip(found.overlay.to_host().planes, wanted[7].overlay.planes, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_what_a_lost_result_had_queued_meets_no_other(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf
) -> None:
    """The wait for it fails, and its surface is the next frame's."""
    path = brightest()
    gpu = on_gpu(plan_of(tensorrt_face.trt, path), requests=2)
    machine, segmenter = tensorrt_face.machine, gpu.segmenter(resident=True)
    frames = [picture(index, (24, 40), "nv12") for index in range(8)]
    wanted = on_cpu(path, frames)
    for frame in frames[:6]:
        segmenter.submit(frame)
        segmenter.collect()
    gc.collect()
    segmenter.submit(frames[6])
    machine.fail("cuEventSynchronize")
    try:
        segmenter.collect()
    except CudaError as error:
        said = error.name
    assert said == "CUDA_ERROR_UNKNOWN"
    gc.collect()
    segmenter.submit(frames[7])
    found = segmenter.collect()
    machine.run()
    for mine, other in zip(found.overlay.to_host().planes, wanted[7].overlay.planes, strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.tensorrt("11.4.0.106")
@pytest.mark.parametrize("call", ["cuMemcpyHtoDAsync", "cuLaunchKernel", "cuEventRecord"])
def test_a_frame_that_failed_was_no_warm_up(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf, call: str
) -> None:
    """What has not run is not captured: the driver may load a kernel when it is launched first."""
    gpu = on_gpu(plan_of(tensorrt_face.trt, brightest()), requests=1)
    machine, segmenter = tensorrt_face.machine, gpu.segmenter()
    # Two uploads are the launchers' tables, and the first event is no part of the work.
    machine.fail(call, at=3 if call == "cuMemcpyHtoDAsync" else 2)
    with pytest.raises(CudaError):
        segmenter.submit(picture(0))
    run(segmenter, [picture(1)])
    assert not machine.counts["cuStreamBeginCapture"]
    run(segmenter, [picture(2)])
    assert machine.counts["cuStreamBeginCapture"] == machine.counts["cuGraphLaunch"] == 1


@pytest.mark.parametrize("call", ["cuEventSynchronize", "cuEventElapsedTime"])
def test_a_result_that_is_lost_gives_its_slot_back(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf, call: str
) -> None:
    path = brightest()
    gpu = on_gpu(plan_of(tensorrt_face.trt, path), requests=2)
    segmenter = gpu.segmenter()
    frames = [picture(index) for index in range(6)]
    wanted = on_cpu(path, frames)
    for number in range(3):
        segmenter.submit(frames[0])
        segmenter.submit(frames[1])
        tensorrt_face.machine.fail(call)
        with pytest.raises(CudaError, match="CUDA_ERROR_UNKNOWN"):
            segmenter.collect()
        the_same([segmenter.collect()], wanted[1:2], differing=0)
        assert segmenter.pending == 0, number
    the_same(run(segmenter, frames), wanted, differing=0)


@pytest.mark.parametrize("at", [1, 2])
def test_where_there_is_no_memory_for_larger_pictures_smaller_ones_go_on(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf, at: int
) -> None:
    """The first block is what goes up, the second what comes down."""
    path = brightest()
    gpu = on_gpu(plan_of(tensorrt_face.trt, path), requests=1)
    segmenter = gpu.segmenter()
    frames = [picture(index) for index in range(6)]
    wanted = on_cpu(path, frames)
    the_same(run(segmenter, frames), wanted, differing=0)
    tensorrt_face.machine.fail("cuMemHostAlloc", at, "CUDA_ERROR_OUT_OF_MEMORY")
    with pytest.raises(CudaError, match="CUDA_ERROR_OUT_OF_MEMORY"):
        segmenter.submit(picture(6, (120, 160)))
    the_same(run(segmenter, frames), wanted, differing=0)
    large = [picture(6, (120, 160))]
    the_same(run(segmenter, large), on_cpu(path, large), differing=0)


@pytest.mark.tensorrt("11.4.0.106")
def test_memory_is_given_back_when_nothing_uses_it_any_more(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver's own waiting, which it does and does not promise, is not counted on."""
    gpu = on_gpu(plan_of(tensorrt_face.trt, brightest()), requests=1)
    machine, segmenter = tensorrt_face.machine, gpu.segmenter()
    run(segmenter, [picture(index) for index in range(3)])
    segmenter.submit(picture())
    queued = []

    def watched(free: Callable[[int], None]) -> Callable[[int], None]:
        def freed(address: int) -> None:
            queued.append(sum(len(stream.queue) for stream in machine.streams.streams.values()))
            free(address)

        return freed

    monkeypatch.setattr(machine, "free", watched(machine.free))
    monkeypatch.setattr(machine, "free_pinned", watched(machine.free_pinned))
    assert any(stream.queue for stream in machine.streams.streams.values())
    segmenter.close()
    assert queued and not any(queued)


@pytest.mark.tensorrt("10.3.0")
def test_what_an_error_holds_is_given_back_while_it_is_handled(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf
) -> None:
    """PyCUDA's objects go with their last reference, and the error's traceback has some."""
    gpu = on_gpu(plan_of(tensorrt_face.trt, brightest()))
    machine, frames = tensorrt_face.machine, [picture(index) for index in range(4)]
    before = machine.leftovers()
    for call in ("cuEventRecord", "cuMemHostAlloc", "cuMemcpyHtoDAsync", "cuEventSynchronize", "cuEventCreate"):
        machine.fail(call, at=2)
        try:
            run(gpu.segmenter(), frames)
        except CudaError:
            for segmenter in gpu.made:
                segmenter.close()
            assert machine.leftovers() == before, call
        else:
            raise AssertionError(call)


def test_kernels_of_which_some_do_not_load_leave_none(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf
) -> None:
    """The network goes on, beside the processor."""
    gpu = on_gpu(plan_of(tensorrt_face.trt, brightest()))
    machine = tensorrt_face.machine
    before = machine.leftovers()
    for name in ("cuModuleLoadData", "cuModuleLoadDataEx"):
        machine.fail(name, at=2)
    with pytest.raises(CudaError):
        Kernels(gpu.engine.driver)
    assert machine.leftovers() == before


def test_an_overlay_that_is_brought_down_leaves_nothing(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf
) -> None:
    """Whether that works or fails."""
    gpu = on_gpu(plan_of(tensorrt_face.trt, brightest()))
    machine = tensorrt_face.machine
    (found,) = run(gpu.segmenter(resident=True), [picture(0, (24, 40), "nv12")])
    before, known = machine.leftovers(), len(gpu.engine.driver._open)
    down = found.overlay.to_host()
    assert (machine.leftovers(), len(gpu.engine.driver._open)) == (before, known)
    for call in ("cuMemcpyDtoHAsync", "cuStreamSynchronize"):
        machine.fail(call)
        with pytest.raises(CudaError):
            found.overlay.to_host()
        gc.collect()
        assert machine.leftovers() == before
    for mine, other in zip(found.overlay.to_host().planes, down.planes, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_closing_gives_back_the_overlays_that_nobody_holds(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf
) -> None:
    gpu = on_gpu(plan_of(tensorrt_face.trt, brightest()))
    before = tensorrt_face.machine.leftovers()
    segmenter = gpu.segmenter(resident=True)
    found = run(segmenter, [picture(index, (24, 40), "nv12") for index in range(4)])
    found.clear()
    gc.collect()
    segmenter.close()
    assert tensorrt_face.machine.leftovers() == before
