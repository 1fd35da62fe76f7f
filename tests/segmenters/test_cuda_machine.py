"""Slots, graphs, orders and holds: the stand-in GPU runs queued work when somebody waits for it, or when it likes."""

from __future__ import annotations

import dataclasses
import gc
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_frames import Surface, on_cpu, picture, run, the_same
from plans import plan_of

from segcam.errors import CudaError, EngineError
from segcam.segmenters.cuda import CudaSegmenter

Brightest = Callable[..., Path]
OnGpuOf = Callable[..., Any]

TAKING = ("cuMemAlloc", "cuMemHostAlloc", "cuMemAllocHost", "cuModuleLoad", "cuStreamCreate", "cuEventCreate")
TAKING += ("cuMemFree", "cuMemFreeHost", "cuGraphInstantiate", "cuStreamBeginCapture")


def taken(machine: Any) -> dict[str, int]:
    return {name: count for name, count in machine.counts.items() if name.startswith(TAKING)}


@pytest.mark.parametrize("sizes", [[(24, 40)], [(24, 40), (48, 81)]])
def test_nothing_is_allocated_for_a_frame(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf, sizes: list[tuple[int, int]]
) -> None:
    gpu = on_gpu(plan_of(tensorrt_face.trt, brightest()))
    segmenter = gpu.segmenter()
    frames = [picture(index, sizes[index % len(sizes)]) for index in range(60)]
    run(segmenter, frames[:12])
    before = taken(tensorrt_face.machine)
    run(segmenter, frames[12:])
    assert taken(tensorrt_face.machine) == before


@pytest.mark.parametrize("seed", range(4))
def test_in_whatever_order_streams_come_on(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf, seed: int
) -> None:
    """Several in flight, two kinds of frame, host and device memory: a read before its time would be another frame."""
    path = brightest()
    tensorrt_face.install(None, order=random.Random(seed))
    plan = plan_of(tensorrt_face.trt, path)
    gpu = on_gpu(plan, requests=2)
    segmenter = gpu.segmenter()
    frames = [picture(index, [(24, 40), (30, 50)][index // 10 % 2], "nv12") for index in range(40)]
    surfaces = [Surface(gpu.engine.driver, tensorrt_face.machine, frame) for frame in frames[::2]]
    given = [surfaces[index // 2].take() if index % 2 == 0 else frame for index, frame in enumerate(frames)]
    the_same(run(segmenter, given), on_cpu(path, frames), differing=0)
    assert segmenter.graphs_used == (tensorrt_face.version >= (11,))
    for surface in surfaces:
        surface.close()


def test_frames_on_the_device_are_waited_for_and_held(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf
) -> None:
    """The decoder's work is still queued at submit, and a frame that nobody else holds stays as it is until read."""
    path = brightest()
    gpu = on_gpu(plan_of(tensorrt_face.trt, path))
    for size in ((24, 40), (25, 41)):
        frames = [picture(index, size, "nv12") for index in range(8)]
        wanted = on_cpu(path, frames)
        segmenter = gpu.segmenter()
        surfaces, found = [], []
        for frame in frames:
            if segmenter.pending == segmenter.depth:
                found.append(segmenter.collect())
            surfaces.append(Surface(gpu.engine.driver, tensorrt_face.machine, frame))
            segmenter.submit(surfaces[-1].take())
            gc.collect()
        while segmenter.pending:
            found.append(segmenter.collect())
        the_same(found, wanted, differing=0)
        assert all(one.overlay.device is None and one.overlay.format == "nv12" for one in found)
        assert sum(surface.downloads for surface in surfaces) == 0
        for surface in surfaces:
            surface.close()


def test_ten_bits_on_the_device(tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf) -> None:
    """Class maps come straight from them, overlays have 8 bits."""
    path = brightest()
    gpu = on_gpu(plan_of(tensorrt_face.trt, path))
    frames = [picture(index, (25, 41), "nv12") for index in range(3)]
    for overlay in (False, True):
        surfaces = [Surface(gpu.engine.driver, tensorrt_face.machine, frame, pad=26, ten_bits=True) for frame in frames]
        found = run(gpu.segmenter(overlay=overlay), [surface.take() for surface in surfaces])
        the_same(found, on_cpu(path, frames, overlay=overlay), differing=2e-3)
        assert [surface.downloads for surface in surfaces] == [0] * 3
        for surface in surfaces:
            surface.close()
    assert gpu.warnings == []


def test_frames_of_another_gpu_come_through_the_host(tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf) -> None:
    path = brightest()
    gpu = on_gpu(plan_of(tensorrt_face.trt, path))
    frame = picture(1, (24, 40), "nv12")
    surface = Surface(gpu.engine.driver, tensorrt_face.machine, frame)
    elsewhere = surface.take()
    elsewhere = dataclasses.replace(elsewhere, device=dataclasses.replace(elsewhere.device, gpu=1))
    the_same(run(gpu.segmenter(), [elsewhere]), on_cpu(path, [frame]), differing=0)
    assert surface.downloads == 1
    surface.close()


def test_a_surface_that_is_freed_too_early_is_an_error(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf
) -> None:
    gpu = on_gpu(plan_of(tensorrt_face.trt, brightest()))
    segmenter = gpu.segmenter()
    surface = Surface(gpu.engine.driver, tensorrt_face.machine, picture(0, (24, 40), "nv12"))
    frame = surface.take()
    surface.close()
    with pytest.raises(CudaError):
        segmenter.submit(frame)
    segmenter.submit(picture(1))
    assert segmenter.collect().frame.index == 1


@pytest.mark.tensorrt("10.3.0", "11.4.0.106")
def test_graphs(tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf) -> None:
    """One for each slot, of all its work, captured when it has run once; not captured where that is not asked for."""
    path = brightest()
    gpu = on_gpu(plan_of(tensorrt_face.trt, path))
    machine = tensorrt_face.machine
    frames = [picture(index) for index in range(10)]
    wanted = on_cpu(path, frames)
    plain, usual = gpu.segmenter(graphs=False), gpu.segmenter()
    the_same(run(plain, frames), wanted, differing=0)
    assert not plain.graphs_used and not machine.counts["cuStreamBeginCapture"]
    launched = machine.counts["cuLaunchKernel"]
    the_same(run(usual, frames), wanted, differing=0)
    if tensorrt_face.version >= (11,):
        assert usual.graphs_used
        assert machine.counts["cuGraphLaunch"] == 10 - 3
        assert machine.counts["cuStreamBeginCapture"] == 3
        # Three frames in parts, and three captures.
        assert machine.counts["cuLaunchKernel"] == launched + 2 * 6
    else:
        assert not usual.graphs_used
    assert gpu.warnings == []


def test_pycuda_has_the_graphs_of_cuda_python_beside_it(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf
) -> None:
    path = brightest()
    gpu = on_gpu(plan_of(tensorrt_face.trt, path), both=True)
    segmenter = gpu.segmenter()
    frames = [picture(index) for index in range(30)]
    the_same(run(segmenter, frames), on_cpu(path, frames), differing=0)
    assert gpu.engine.driver.name == "pycuda" and segmenter.graphs_used
    assert tensorrt_face.machine.counts["cuGraphLaunch"] > 10
    segmenter.close()


@pytest.mark.tensorrt("11.4.0.106")
def test_graphs_go_with_the_memory_that_they_know(tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf) -> None:
    """A stream that goes on in a larger size and comes back."""
    path = brightest()
    gpu = on_gpu(plan_of(tensorrt_face.trt, path))
    sizes = [(24, 40)] * 8 + [(60, 90)] + [(24, 40)] * 9 + [(60, 90)] * 8 + [(24, 40)] * 8
    frames = [picture(index, size) for index, size in enumerate(sizes)]
    segmenter = gpu.segmenter(depth=1)
    the_same(run(segmenter, frames), on_cpu(path, frames), differing=0)
    assert segmenter.graphs_used and tensorrt_face.machine.accidents == []


@pytest.mark.tensorrt("11.4.0.106")
def test_ever_new_sizes_are_not_captured(tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf) -> None:
    gpu = on_gpu(plan_of(tensorrt_face.trt, brightest()))
    segmenter = gpu.segmenter()
    run(segmenter, [picture(index, (24 + index, 40)) for index in range(20)])
    assert not tensorrt_face.machine.counts["cuStreamBeginCapture"]


@pytest.mark.tensorrt("11.4.0.106")
@pytest.mark.parametrize("cause", ["network", "cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate"])
def test_a_capture_that_fails_is_said_and_done_without(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf, cause: str
) -> None:
    path = brightest()
    if cause == "network":
        tensorrt_face.control.uncapturable = True
    gpu = on_gpu(plan_of(tensorrt_face.trt, path))
    if cause != "network":
        tensorrt_face.machine.fail(cause, error="CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")
    segmenter = gpu.segmenter()
    frames = [picture(index) for index in range(10)]
    the_same(run(segmenter, frames), on_cpu(path, frames), differing=0)
    assert not segmenter.graphs_used
    assert len(gpu.warnings) == 1 and "without a CUDA graph" in gpu.warnings[0]


def test_other_threads_may_allocate_meanwhile(tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf) -> None:
    """A decoder does, and its work must not end a capture of ours."""
    path = brightest()
    gpu = on_gpu(plan_of(tensorrt_face.trt, path))
    driver, stop = gpu.engine.driver, threading.Event()
    errors: list[BaseException] = []

    def decode() -> None:
        try:
            with driver.current():
                while not stop.is_set():
                    driver.allocate(512).close()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=decode)
    thread.start()
    try:
        frames = [picture(index) for index in range(30)]
        the_same(run(gpu.segmenter(), frames), on_cpu(path, frames), differing=0)
    finally:
        stop.set()
        thread.join()
    assert errors == [] and gpu.warnings == []


@pytest.mark.parametrize("at", [0, 1, 5])
def test_a_network_that_fails_at_a_frame(tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf, at: int) -> None:
    """Those in flight are still good, and the segmenter can go on."""
    path = brightest()
    gpu = on_gpu(plan_of(tensorrt_face.trt, path))
    segmenter = gpu.segmenter(graphs=False)
    frames = [picture(index) for index in range(10)]
    wanted = on_cpu(path, frames)
    tensorrt_face.control.fail("IExecutionContext.execute_async_v3", False, after=at, log="the reason")
    found = []
    failed = 0
    for frame in frames:
        if segmenter.pending == segmenter.depth:
            found.append(segmenter.collect())
        try:
            segmenter.submit(frame)
        except EngineError as error:
            assert "the reason" in str(error)
            failed += 1
    while segmenter.pending:
        found.append(segmenter.collect())
    assert failed == 1
    the_same(found, [one for one in wanted if one.frame.index != at], differing=0)


COPIES = ("cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuLaunchKernel", "cuEventRecord")


@pytest.mark.parametrize("call", COPIES)
def test_a_call_that_fails_is_raised_and_nothing_is_lost(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf, call: str
) -> None:
    path = brightest()
    gpu = on_gpu(plan_of(tensorrt_face.trt, path))
    segmenter = gpu.segmenter(graphs=False)
    frames = [picture(index) for index in range(4)]
    wanted = on_cpu(path, frames)
    run(segmenter, frames)
    segmenter.submit(frames[0])
    tensorrt_face.machine.fail(call)
    with pytest.raises(CudaError, match="CUDA_ERROR_UNKNOWN"):
        segmenter.submit(frames[1])
    the_same([segmenter.collect()], wanted[:1], differing=0)
    the_same(run(segmenter, frames), wanted, differing=0)


def life(gpu: Any, frames: list[Any]) -> None:
    segmenter = gpu.segmenter()
    try:
        run(segmenter, frames)
    finally:
        segmenter.close()


def test_whatever_fails_nothing_is_left(tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf) -> None:
    """Each of the driver's functions that a segmenter calls fails, the first time, in between, or the last."""
    gpu = on_gpu(plan_of(tensorrt_face.trt, brightest()))
    machine = tensorrt_face.machine
    frames = [picture(index, [(24, 40), (24, 40), (30, 50)][index // 2 % 3]) for index in range(8)]
    life(gpu, frames)
    gc.collect()
    before = machine.leftovers()
    machine.counts.clear()
    life(gpu, frames)
    freeing = ("Free", "Destroy", "Release", "Pop", "Unload")
    asked = {name: count for name, count in machine.counts.items() if not any(word in name for word in freeing)}
    raised = set()
    for name, count in asked.items():
        for at in sorted({1, count // 2 + 1, count}):
            machine.fail(name, at=at)
            try:
                life(gpu, frames)
            except CudaError:
                raised.add(name)
            machine.heal()
            gpu.made.clear()
            gc.collect()
            assert machine.leftovers() == before, (name, at, machine.leftovers(), before)
    assert {"cuMemAlloc", "cuMemHostAlloc", "cuEventCreate"} <= {name.removesuffix("_v2") for name in raised}
    assert not any("Capture" in name or "Instantiate" in name for name in raised)


def test_closing_twice_and_with_frames_in_flight(tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf) -> None:
    path = brightest()
    gpu = on_gpu(plan_of(tensorrt_face.trt, path))
    segmenter: CudaSegmenter = gpu.segmenter()
    segmenter.submit(picture())
    segmenter.close()
    segmenter.close()
    assert segmenter.pending == 0
    # The engine is still good for another, and for itself.
    frames = [picture(index) for index in range(4)]
    the_same(run(gpu.segmenter(), frames), on_cpu(path, frames), differing=0)
    gpu.engine.input(0)[...] = 51
    gpu.engine.start(0)
    np.testing.assert_allclose(gpu.engine.wait(0), 0.2, rtol=1e-5)


def test_several_segmenters_in_turn_on_one_engine(tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf) -> None:
    """As the Python API has them: graphs of one are good after another has run."""
    path = brightest()
    gpu = on_gpu(plan_of(tensorrt_face.trt, path))
    frames = [picture(index) for index in range(8)]
    wanted = {size: on_cpu(path, frames, label_size=size) for size in ("frame", "network")}
    segmenters = {size: gpu.segmenter(label_size=size) for size in wanted}
    for _ in range(3):
        for size, segmenter in segmenters.items():
            the_same(run(segmenter, frames), wanted[size], differing=0)


def test_one_thread_makes_it_another_uses_it_a_third_closes_it(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf
) -> None:
    path = brightest()
    gpu = on_gpu(plan_of(tensorrt_face.trt, path))
    frames = [picture(index) for index in range(6)]
    made: list[Any] = []
    steps: list[Callable[[], object]] = [
        lambda: made.append(gpu.segmenter()),
        lambda: made.append(run(made[0], frames)),
        lambda: made.append(made[0].close()),
    ]
    for step in steps:
        thread = threading.Thread(target=step)
        thread.start()
        thread.join()
    the_same(made[1], on_cpu(path, frames), differing=0)
