"""Overlays that stay on the GPU: where they lie, who holds them, and which come down after all."""

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
from cuda_frames import Surface, on_cpu, picture, run, the_same, watch_downloads
from plans import plan_of

from segcam.errors import CudaError
from segcam.frame import Frame, PixelFormat, Segmentation
from segcam.legend import Legend

Brightest = Callable[..., Path]
OnGpuOf = Callable[..., Any]


def lies(gpu: Any, overlay: Frame, machine: Any) -> list[np.ndarray]:
    """The planes at an overlay's addresses, read as NVENC reads them: from one address on, at one pitch."""
    on = overlay.device
    assert on is not None and (on.format, on.gpu, overlay.format, overlay.planes) == ("nv12", 0, "nv12", ())
    (y, uv), (pitch, also) = on.addresses, on.pitches
    assert pitch == also and uv == y + pitch * overlay.height and y % 256 == 0 == pitch % 256
    with gpu.engine.driver.current():
        block = np.frombuffer(bytes(machine.bytes_at(y, pitch * overlay.height * 3 // 2)), np.uint8)
    rows = block.reshape(-1, pitch)[:, : overlay.width]
    return [rows[: overlay.height], rows[overlay.height :].reshape(overlay.height // 2, overlay.width // 2, 2)]


def brought_down(found: list[Segmentation]) -> list[Segmentation]:
    for one in found:
        if one.overlay is not None:
            one.overlay = one.overlay.to_host()
    return found


@pytest.mark.parametrize("kind", ["nv12", "i420", "on the GPU", "ten bits"])
def test_they_are_the_cpus_in_nv12(tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf, kind: str) -> None:
    path = brightest()
    gpu = on_gpu(plan_of(tensorrt_face.trt, path))
    for size in ((24, 40), (48, 260), (2, 2)):
        format: PixelFormat = "i420" if kind == "i420" else "nv12"
        # In limited range, ten bits are four times eight.
        frames = [dataclasses.replace(picture(index, size, format), full_range=False) for index in range(6)]
        wanted = on_cpu(path, frames)
        surfaces = []
        if kind in ("on the GPU", "ten bits"):
            ten = kind == "ten bits"
            surfaces = [Surface(gpu.engine.driver, tensorrt_face.machine, one, ten_bits=ten) for one in frames]
            frames = [surface.take() for surface in surfaces]
        found = run(gpu.segmenter(resident=True), frames)
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one.labels, other.labels)
            y, uv = lies(gpu, one.overlay, tensorrt_face.machine)
            planes = other.overlay.planes
            chroma = planes[1] if len(planes) == 2 else np.stack(planes[1:], axis=-1)
            np.testing.assert_array_equal(y, planes[0])
            np.testing.assert_array_equal(uv, chroma)
            for mine, there in zip(one.overlay.to_host().planes, (y, uv), strict=True):
                np.testing.assert_array_equal(mine, there)
        for surface in surfaces:
            assert surface.downloads == 0
            surface.close()
        found.clear()
    assert gpu.warnings == []


@pytest.mark.parametrize("labels", [False, True])
def test_they_do_not_come_down(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf, labels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = on_gpu(plan_of(tensorrt_face.trt, brightest()))
    moved = watch_downloads(monkeypatch, tensorrt_face.machine)
    found = run(gpu.segmenter(labels=labels, resident=True), [picture(index, (48, 80), "nv12") for index in range(4)])
    assert all(one.overlay.device for one in found)
    assert moved and all(pinned and nbytes <= 1024 + 48 * 128 * labels for nbytes, pinned in moved)


@pytest.mark.parametrize("seed", range(4))
def test_they_stay_as_they_are_while_they_are_held(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf, seed: int
) -> None:
    """Queued work happens when it likes; overlays are let go in any order, in other threads."""
    path, rng = brightest(), random.Random(seed)
    tensorrt_face.install(None, order=random.Random(seed))
    gpu = on_gpu(plan_of(tensorrt_face.trt, path), requests=2)
    segmenter = gpu.segmenter(resident=True)
    frames = [picture(index, (24, 40), "nv12") for index in range(50)]
    wanted = on_cpu(path, frames)
    held: list[tuple[int, Frame]] = []
    most, places, done = 0, set(), 0

    def let_go() -> None:
        index, overlay = held.pop(rng.randrange(len(held)))
        y, uv = lies(gpu, overlay, tensorrt_face.machine)
        np.testing.assert_array_equal(y, wanted[index].overlay.planes[0])
        np.testing.assert_array_equal(uv, wanted[index].overlay.planes[1])
        boxes = [overlay]
        del overlay
        thread = threading.Thread(target=boxes.clear)
        thread.start()
        thread.join()

    def take() -> None:
        nonlocal most, done
        found = segmenter.collect()
        segmenter.recycle(found)
        held.append((done, found.overlay))
        done += 1
        places.add(found.overlay.device.addresses[0])
        most = max(most, len(held))
        while held and (len(held) > 5 or rng.random() < 0.4):
            let_go()

    for frame in frames:
        if segmenter.pending == segmenter.depth:
            take()
        segmenter.submit(frame)
    while segmenter.pending:
        take()
    while held:
        let_go()
    assert len(places) <= most + segmenter.depth + 1
    assert segmenter.graphs_used == (tensorrt_face.version >= (11,))


def test_nothing_is_allocated_for_a_frame(tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf) -> None:
    gpu = on_gpu(plan_of(tensorrt_face.trt, brightest()))
    segmenter = gpu.segmenter(resident=True)
    frames = [picture(index, (24, 40), "nv12") for index in range(60)]
    names = [name for name in tensorrt_face.machine.counts if "Alloc" in name or "Free" in name]
    for begin in (0, 12):
        before = {name: tensorrt_face.machine.counts[name] for name in names}
        for frame in frames[begin : begin + 12]:
            if segmenter.pending == segmenter.depth:
                segmenter.collect()
            segmenter.submit(frame)
        while segmenter.pending:
            segmenter.collect()
        changed = before != {name: tensorrt_face.machine.counts[name] for name in names}
        assert changed == (begin == 0)


def test_those_that_are_held_outlive_the_segmenter(tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf) -> None:
    gpu = on_gpu(plan_of(tensorrt_face.trt, brightest()))
    segmenter = gpu.segmenter(resident=True)
    found = run(segmenter, [picture(index, (24, 40), "nv12") for index in range(3)])
    before = [plane.copy() for plane in lies(gpu, found[1].overlay, tensorrt_face.machine)]
    segmenter.close()
    for mine, other in zip(lies(gpu, found[1].overlay, tensorrt_face.machine), before, strict=True):
        np.testing.assert_array_equal(mine, other)
    allocated = tensorrt_face.machine.allocated
    found.clear()
    gc.collect()
    assert tensorrt_face.machine.allocated < allocated


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda index: picture(index, (24, 40), "bgr24"), "pictures are BGR"),
        (lambda index: picture(index, (25, 40), "nv12"), "no odd sizes (40x25)"),
        (lambda index: picture(index, (24, 41), "i420"), "no odd sizes (41x24)"),
    ],
)
def test_what_nvenc_cannot_take_comes_down(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf, make: Any, why: str
) -> None:
    path = brightest()
    gpu = on_gpu(plan_of(tensorrt_face.trt, path))
    frames = [make(index) for index in range(4)]
    found = run(gpu.segmenter(resident=True), frames)
    assert all(one.overlay.device is None for one in found)
    the_same(found, on_cpu(path, frames), differing=0)
    (said,) = gpu.warnings
    assert "come down" in said and why in said


def test_legends_are_drawn_in_host_memory(tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf) -> None:
    path = brightest()
    gpu = on_gpu(plan_of(tensorrt_face.trt, path))
    decorate: Any = lambda visible: Legend(gpu.classes, visible)  # noqa: E731
    segmenter = gpu.segmenter(resident=True, decorate=decorate)
    frames = [picture(index, (96, 160), "nv12") for index in range(9)]
    found: list[Segmentation] = []
    for legend in (False, True, False):
        gpu.controls.legend = legend
        found += run(segmenter, frames[len(found) : len(found) + 3])
    assert [one.overlay.device is None for one in found] == [False] * 3 + [True] * 3 + [False] * 3
    (said,) = gpu.warnings
    assert "legend" in said
    plain = on_cpu(path, frames)
    for index in (0, 1, 2, 6, 7, 8):
        np.testing.assert_array_equal(found[index].overlay.to_host().planes[0], plain[index].overlay.planes[0])
    assert not np.array_equal(found[4].overlay.planes[0], plain[4].overlay.planes[0])


def test_other_sizes_than_the_first_come_down(tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf) -> None:
    """They are scaled for the encoder anyway; the source's or the file's sink says so."""
    path = brightest()
    gpu = on_gpu(plan_of(tensorrt_face.trt, path))
    sizes = [(24, 40), (48, 80), (24, 40), (30, 50), (24, 40)]
    frames = [picture(index, size, "nv12") for index, size in enumerate(sizes)]
    found = run(gpu.segmenter(resident=True), frames)
    assert [one.overlay.device is None for one in found] == [False, True, False, True, False]
    the_same(brought_down(found), on_cpu(path, frames), differing=0)
    assert gpu.warnings == []


@pytest.mark.parametrize("name", ["cuMemcpyDtoDAsync", "cuMemAlloc"])
def test_a_frame_that_fails_loses_no_surface(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf, name: str
) -> None:
    path = brightest()
    gpu = on_gpu(plan_of(tensorrt_face.trt, path), requests=2)
    segmenter = gpu.segmenter(resident=True)
    frames = [picture(index, (24, 40), "nv12") for index in range(4)]
    wanted = on_cpu(path, frames)
    if name == "cuMemAlloc":
        run(segmenter, frames[:1])
        kept = run(segmenter, frames[:1])
    else:
        kept = []
    tensorrt_face.machine.fail(name, 1, "CUDA_ERROR_OUT_OF_MEMORY", times=9)
    with pytest.raises(CudaError):
        kept += run(segmenter, frames * 3)
    tensorrt_face.machine.heal()
    while segmenter.pending:
        segmenter.collect()
    found = run(segmenter, frames)
    the_same(brought_down(found), wanted, differing=0)
