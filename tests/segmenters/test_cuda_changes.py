"""What changes in mid-stream: pictures' colours and sizes, the controls; what was made for those before goes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_frames import Surface, on_cpu, picture, run, the_same, watch_downloads
from plans import plan_of

from segcam.frame import ColorMatrix, Frame
from segcam.legend import Legend
from segcam.segmenters import cuda

Brightest = Callable[..., Path]
OnGpuOf = Callable[..., Any]

COLORS: list[tuple[ColorMatrix, bool]] = [("bt601", True), ("bt709", False), ("bt601", False), ("bt709", True)]


@pytest.mark.parametrize("where", ["host", "GPU"])
def test_matrix_and_range_may_change_in_mid_stream(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf, where: str
) -> None:
    """At the same size, each picture in flight beside one of other colours."""
    path = brightest()
    gpu = on_gpu(plan_of(tensorrt_face.trt, path))
    frames: list[Frame] = []
    for index in range(16):
        matrix, full_range = COLORS[index // 2 % 4 if index < 8 else index % 4]
        made = picture(index // 4, (24, 40), "nv12")
        frames.append(dataclasses.replace(made, index=index, matrix=matrix, full_range=full_range))
    wanted = on_cpu(path, frames)
    # Else nothing would be shown: the same samples are other colours.
    assert not np.array_equal(wanted[8].overlay.planes[1], wanted[9].overlay.planes[1])
    surfaces = []
    if where == "GPU":
        surfaces = [Surface(gpu.engine.driver, tensorrt_face.machine, frame) for frame in frames]
        frames = [surface.take() for surface in surfaces]
    the_same(run(gpu.segmenter(), frames), wanted, differing=0)
    for surface in surfaces:
        surface.close()


def test_rows_that_do_not_begin_at_whole_words_come_through_the_host(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf
) -> None:
    path = brightest()
    gpu = on_gpu(plan_of(tensorrt_face.trt, path))
    frame = picture(1, (24, 40), "nv12")
    surface = Surface(gpu.engine.driver, tensorrt_face.machine, frame)
    odd = surface.take()
    odd = dataclasses.replace(odd, device=dataclasses.replace(odd.device, pitches=(41, 41)))
    the_same(run(gpu.segmenter(), [odd]), on_cpu(path, [frame]), differing=0)
    assert surface.downloads == 1
    surface.close()


def test_what_was_made_for_other_pictures_goes(tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf) -> None:
    """A stream that goes through more sizes than are kept, time and again, takes no more memory for it."""
    gpu = on_gpu(plan_of(tensorrt_face.trt, brightest()), requests=1)
    segmenter = gpu.segmenter()
    sizes = [(24 + 2 * number, 40) for number in range(7)]
    used = []
    for _ in range(4):
        run(segmenter, [picture(index, size) for index, size in enumerate(sizes)])
        used.append((tensorrt_face.machine.allocated, tensorrt_face.machine.pinned))
    assert used[1:] == [used[1]] * 3


@pytest.mark.tensorrt("11.4.0.106")
def test_graphs_of_other_pictures_go(tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf) -> None:
    """One for each slot at most, and none of launchers that are not there any more."""
    gpu = on_gpu(plan_of(tensorrt_face.trt, brightest()), requests=2)
    machine, segmenter = tensorrt_face.machine, gpu.segmenter()
    largest, other = (60, 90), (24, 40)
    for size in (largest, other, largest, other):
        run(segmenter, [picture(index, size) for index in range(8)])
        assert machine.leftovers()["graphs"] == 2
    run(segmenter, [picture(index, (24 + index, 40)) for index in range(1, 6)])
    assert machine.leftovers()["graphs"] == 0
    assert machine.counts["cuGraphInstantiate"] == 8


def test_colours_are_made_once(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For each kind of picture, until the controls change."""
    gpu = on_gpu(plan_of(tensorrt_face.trt, brightest()))
    made: list[Any] = []
    make = cuda.color_table

    def watched(colors: Any, *arguments: Any, **more: Any) -> Any:
        made.append(colors)
        return make(colors, *arguments, **more)

    monkeypatch.setattr(cuda, "color_table", watched)
    segmenter = gpu.segmenter()
    frames = [picture(index, (24, 40), ("nv12", "bgr24")[index % 2]) for index in range(8)]
    run(segmenter, frames)
    assert made == [("bt601", True), None]
    gpu.controls.alpha = 0.25
    run(segmenter, frames)
    assert made == [("bt601", True), None] * 2


@pytest.mark.tensorrt("11.4.0.106")
def test_a_graph_is_a_frames_work_and_nothing_else(tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf) -> None:
    gpu = on_gpu(plan_of(tensorrt_face.trt, brightest()), requests=2)
    run(gpu.segmenter(), [picture(index) for index in range(6)])
    captured = [[node.what for node in graph.nodes] for graph in tensorrt_face.machine.streams.graphs.values()]
    assert len(captured) == 2
    for names in captured:
        kinds = [name.split("_")[0] for name in names]
        assert [kinds.count(kind) for kind in ("upload", "preprocess", "postprocess", "download", "record")] == [
            1, 1, 1, 1, 0,
        ], names  # fmt: skip
        assert (kinds[0], kinds[-1]) == ("upload", "download") and len(kinds) <= 6, names


def test_what_came_down_before_does_not_when_overlays_stay_again(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pinned memory has room for it then."""
    gpu = on_gpu(plan_of(tensorrt_face.trt, brightest()))
    decorate: Any = lambda visible: Legend(gpu.classes, visible)  # noqa: E731
    segmenter = gpu.segmenter(labels=False, resident=True, decorate=decorate)
    frames = [picture(index, (48, 80), "nv12") for index in range(4)]
    gpu.controls.legend = True
    run(segmenter, frames)
    gpu.controls.legend = False
    moved = watch_downloads(monkeypatch, tensorrt_face.machine)
    run(segmenter, frames)
    assert moved and set(moved) == {(1024, True)}


@pytest.mark.parametrize("where", ["host", "GPU"])
def test_stages_are_no_longer_than_the_frame(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf, where: str
) -> None:
    """By the stand-in's clock, which goes on by a quarter of a millisecond with each piece of work."""
    gpu = on_gpu(plan_of(tensorrt_face.trt, brightest()), requests=1)
    machine, segmenter = tensorrt_face.machine, gpu.segmenter()
    for index in range(20):
        frame = picture(index, (24, 40), "nv12")
        surface = Surface(gpu.engine.driver, machine, frame)
        begun = machine.streams.clock
        segmenter.submit(surface.take() if where == "GPU" else frame)
        found = segmenter.collect()
        on_gpu_ms = [ms for stage, ms in found.timings_ms.items() if stage not in ("decode", "host")]
        assert 0 < sum(on_gpu_ms) <= machine.streams.clock - begun, (index, found.timings_ms)
        surface.close()


def test_the_oldest_frame_is_asked_for(tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf) -> None:
    """``ready`` says yes when ``collect`` need not wait, and not before."""
    gpu = on_gpu(plan_of(tensorrt_face.trt, brightest()), requests=2)
    machine, segmenter = tensorrt_face.machine, gpu.segmenter()
    assert not segmenter.ready()
    for index in range(2):
        segmenter.submit(picture(index))
    asked = 0
    while not segmenter.ready():
        asked += 1
        assert asked < 100
    assert asked > 0
    done = len(machine.streams.history)
    assert segmenter.collect().frame.index == 0
    assert len(machine.streams.history) == done
    segmenter.collect()


@pytest.mark.parametrize("order", ["alternating", "in rows"])
def test_kinds_that_take_turns_leave_each_other_their_memory(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf, order: str
) -> None:
    """One that stays on the GPU needs more memory there, one that comes down more of the host's."""
    gpu = on_gpu(plan_of(tensorrt_face.trt, brightest()))
    machine, segmenter = tensorrt_face.machine, gpu.segmenter(labels=False, resident=True)
    sizes = [(48, 80), (24, 40)] * 2 if order == "alternating" else [(48, 80)] * 4 + [(24, 40)] * 4
    frames = [picture(index, size, "nv12") for index, size in enumerate(sizes * 2)]
    for _ in range(2):
        run(segmenter, frames)
    before = {name: count for name, count in machine.counts.items() if "Alloc" in name}
    for _ in range(2):
        run(segmenter, frames)
    assert before == {name: count for name, count in machine.counts.items() if "Alloc" in name}


@pytest.mark.tensorrt("11.4.0.106")
def test_graphs_go_with_the_memory_of_larger_pictures(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf
) -> None:
    """Also where what comes down is as large as before."""
    path = brightest()
    gpu = on_gpu(plan_of(tensorrt_face.trt, path))
    frames = [picture(index, (60, 90) if index == 6 else (24, 40)) for index in range(14)]
    arguments: dict[str, Any] = {"label_size": "network", "overlay": False}
    segmenter = gpu.segmenter(depth=1, **arguments)
    the_same(run(segmenter, frames), on_cpu(path, frames, **arguments), differing=0)
    assert segmenter.graphs_used and tensorrt_face.machine.accidents == []


@pytest.mark.tensorrt("11.4.0.106")
def test_networks_that_cannot_be_captured_are_not(tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf) -> None:
    path = brightest()
    gpu = on_gpu(plan_of(tensorrt_face.trt, path))
    gpu.engine.capturable = False
    segmenter = gpu.segmenter()
    frames = [picture(index) for index in range(6)]
    the_same(run(segmenter, frames), on_cpu(path, frames), differing=0)
    assert not segmenter.graphs_used and not tensorrt_face.machine.counts["cuStreamBeginCapture"]
    assert gpu.warnings == []


def test_each_slot_runs_an_execution_of_its_own(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT's contexts must not be used by two streams at a time: their memory is one."""
    gpu = on_gpu(plan_of(tensorrt_face.trt, brightest()), requests=3)
    kind = type(gpu.engine.device_slot(0).execution)
    enqueue, used = kind.enqueue, set()

    def watched(execution: Any, stream: Any, *more: Any) -> None:
        used.add((id(execution), stream.handle, *more))
        enqueue(execution, stream, *more)

    monkeypatch.setattr(kind, "enqueue", watched)
    run(gpu.segmenter(), [picture(index) for index in range(12)])
    for column in zip(*used, strict=True):
        assert len(set(column)) == len(used) == 3, used


def test_frames_of_the_host_do_not_wait_for_the_decoder(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf
) -> None:
    """Whose work is on the default stream, which others wait for where they are not made otherwise."""
    gpu = on_gpu(plan_of(tensorrt_face.trt, brightest()))
    machine, segmenter = tensorrt_face.machine, gpu.segmenter()
    frames = [picture(index) for index in range(6)]
    run(segmenter, frames)
    decoded: list[str] = []
    with gpu.engine.driver.current():
        machine.enqueue(0, lambda: decoded.append("late"), "decode")
    run(segmenter, frames)
    assert decoded == []
    machine.run()
    assert decoded == ["late"]
