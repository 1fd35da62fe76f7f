"""The CUDA segmenter on the stand-in GPU: what comes out equals the CPU's, whatever goes in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_frames import on_cpu, picture, run, the_same, watch_downloads
from plans import plan_of

from segcam.controls import Controls
from segcam.frame import PixelFormat, Segmentation
from segcam.legend import Legend

Brightest = Callable[..., Path]
OnGpuOf = Callable[..., Any]
FORMATS: list[PixelFormat] = ["i420", "nv12", "bgr24"]


@pytest.mark.parametrize("format", FORMATS)
def test_it_gives_what_the_cpu_gives(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf, format: PixelFormat
) -> None:
    path = brightest()
    gpu = on_gpu(plan_of(tensorrt_face.trt, path))
    for size in ((24, 40), (48, 80), (25, 41), (1, 1), (3, 150)):
        frames = [picture(index, size, format, pad=index % 3) for index in range(5)]
        the_same(run(gpu.segmenter(), frames), on_cpu(path, frames))
    assert gpu.warnings == []


# Float labels are no TensorRT engine's; the session sees to those.
@pytest.mark.parametrize("output", ["scores_nchw", "scores_nhwc", "int64_nhw", "int32_n1hw", "int64_nhw1", "int32_hw"])
@pytest.mark.parametrize(("dtype", "layout", "color"), [("float32", "NCHW", "BGR"), ("uint8", "NHWC", "RGB")])
def test_every_kind_of_network(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf, output: str, dtype: str, layout: str, color: str
) -> None:
    path = brightest(output=output, dtype=dtype, layout=layout, color=color)
    gpu = on_gpu(plan_of(tensorrt_face.trt, path))
    frames = [picture(index, (30, 50), "nv12") for index in range(3)]
    the_same(run(gpu.segmenter(), frames), on_cpu(path, frames), differing=2e-3)


@pytest.mark.tensorrt("11.4.0.106")
@pytest.mark.parametrize("policy", ["stretch", "letterbox"])
@pytest.mark.parametrize("grid", [1, 2, 4])
def test_coarse_scores_and_letterboxes(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf, grid: int, policy: str
) -> None:
    path = brightest(input_hw=(64, 64), resize=policy, grid=grid)
    gpu = on_gpu(plan_of(tensorrt_face.trt, path))
    frames = [picture(index, (80, 160)) for index in range(3)]
    the_same(run(gpu.segmenter(), frames), on_cpu(path, frames))


@pytest.mark.parametrize("output", ["scores_nchw", "int64_nhw"])
def test_label_sizes(tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf, output: str) -> None:
    path = brightest(output=output)
    gpu = on_gpu(plan_of(tensorrt_face.trt, path))
    frames = [picture(index, (60, 100), fields=20) for index in range(3)]
    for size in ("network", (30, 50), (13, 11), (60, 100)):
        found = run(gpu.segmenter(label_size=size), frames)
        the_same(found, on_cpu(path, frames, label_size=size), differing=1e-3)
        assert (found[0].overlay is None) == (size != (60, 100))


@pytest.mark.parametrize("ignored", [255, -1, 256, 65535])
def test_ids_beyond_the_table_stay_clear_and_uncounted(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf, ignored: int
) -> None:
    import onnx

    path = brightest(output="int64_nhw")
    model = onnx.load(path)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0, ignored, 2]), "map"))
    model.graph.node.append(onnx.helper.make_node("Gather", ["map", "i"], ["o"]))
    model.graph.output[0].name = "o"
    onnx.save(model, path)
    gpu = on_gpu(plan_of(tensorrt_face.trt, path))
    frames = [picture(index, (24, 40), "bgr24") for index in range(2)]
    found = run(gpu.segmenter(), frames)
    the_same(found, on_cpu(path, frames), differing=0)
    assert set(np.unique(found[0].labels)) == {0, 2, 255}
    assert found[0].counts[1] == 0


def test_only_what_is_asked_for_comes_down(
    tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = brightest()
    gpu = on_gpu(plan_of(tensorrt_face.trt, path))
    frames = [picture(index, (48, 80)) for index in range(3)]
    wanted = on_cpu(path, frames)
    moved = watch_downloads(monkeypatch, tensorrt_face.machine)
    most = {(True, True): 1024 + 48 * 128 * 5 // 2 + 1024, (True, False): 1024 + 48 * 128}
    most |= {(False, True): 1024 + 48 * 128 * 3 // 2 + 1024, (False, False): 1024}
    for (labels, overlay), limit in most.items():
        found = run(gpu.segmenter(labels=labels, overlay=overlay), frames)
        assert 1 <= len(moved) <= 3
        assert all(pinned and nbytes <= limit for nbytes, pinned in moved)
        moved.clear()
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one.counts, other.counts)
            assert one.labels.shape == ((48, 80) if labels else (0, 0))
            assert (one.overlay is not None) == overlay
            if labels:
                np.testing.assert_array_equal(one.labels, other.labels)
            if overlay:
                for mine, theirs in zip(_painted(one), _painted(other), strict=True):
                    np.testing.assert_array_equal(mine, theirs)


def _painted(found: Segmentation) -> Any:
    assert found.overlay is not None
    return [plane.copy() for plane in found.overlay.planes]


@pytest.mark.parametrize("mask_only", [False, True])
def test_controls(tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf, mask_only: bool) -> None:
    """Opacity, class filter, legend: at once, for frames submitted from then on, also where graphs were captured."""
    path = brightest()
    gpu = on_gpu(plan_of(tensorrt_face.trt, path))
    decorate: Any = lambda visible: Legend(gpu.classes, visible)  # noqa: E731
    segmenter = gpu.segmenter(mask_only=mask_only, decorate=decorate)
    frames = [picture(index, (96, 160), "nv12") for index in range(6)]
    for alpha, visible, legend in (
        (0.5, (1, 1, 1), False), (1.0, (1, 1, 1), False), (0.3, (1, 0, 1), True), (0.3, (0, 0, 1), True),
        (0.0, (1, 1, 1), False),
    ):  # fmt: skip
        for controls in (gpu.controls, other := Controls(0.5, gpu.classes.visible(""))):
            controls.alpha, controls.visible, controls.legend = alpha, np.array(visible, bool), legend
        found = run(segmenter, frames)
        wanted = on_cpu(path, frames, other, mask_only=mask_only, decorate=decorate)
        for one, two in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one.labels, two.labels)
            for mine, theirs in zip(_painted(one), _painted(two), strict=True):
                np.testing.assert_array_equal(mine, theirs)


def test_sizes_and_formats_may_change_in_mid_stream(tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf) -> None:
    """More kinds of frame than launchers are kept for, growing and shrinking, in flight together: none is lost."""
    path = brightest()
    gpu = on_gpu(plan_of(tensorrt_face.trt, path), requests=3)
    sizes = [(24, 40), (48, 80), (1, 1), (7, 3), (25, 41), (24, 40), (120, 40), (2, 1)]
    frames = [picture(i, sizes[i // 2 % len(sizes)], FORMATS[i % 3], fields=2) for i in range(60)]
    the_same(run(gpu.segmenter(), frames), on_cpu(path, frames))
    assert gpu.warnings == []


@pytest.mark.parametrize("depth", [1, 2, 4, 0])
def test_order_and_arrays(tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf, depth: int) -> None:
    """Segmentations own their arrays until they are recycled, and then these are used again."""
    path = brightest()
    gpu = on_gpu(plan_of(tensorrt_face.trt, path), requests=4)
    segmenter = gpu.segmenter(depth=depth)
    assert segmenter.depth == (depth or 4)
    frames = [picture(index) for index in range(40)]
    wanted = on_cpu(path, frames)
    live: list[tuple[Segmentation, list[Any]]] = []
    addresses = set()
    for index, frame in enumerate(frames):
        if segmenter.pending == segmenter.depth:
            found = segmenter.collect()
            live.append((found, [found.labels.copy(), *_painted(found)]))
            addresses.add(found.labels.ctypes.data)
            for one, before in live:
                np.testing.assert_array_equal(one.labels, before[0])
                for plane, copy in zip(_painted(one), before[1:], strict=True):
                    np.testing.assert_array_equal(plane, copy)
            if len(live) > 3:
                segmenter.recycle(live.pop(index % 3)[0])
        segmenter.submit(frame)
    assert len(addresses) <= 8
    while segmenter.pending:
        found = segmenter.collect()
        np.testing.assert_array_equal(found.labels, wanted[found.frame.index].labels)
    assert not segmenter.ready()


def test_stages_are_timed_and_named(tensorrt_face: Any, brightest: Brightest, on_gpu: OnGpuOf) -> None:
    """In parts by what each took, as a graph in all; every eighth frame of a slot still runs in parts."""
    gpu = on_gpu(plan_of(tensorrt_face.trt, brightest()))
    parts = ["decode", "upload", "preprocess", "inference", "postprocess", "download", "host"]
    frames = [picture(index) for index in range(120)]
    names = [list(one.timings_ms) for one in run(gpu.segmenter(graphs=False), frames[:5])]
    assert names == [parts] * 5
    segmenter = gpu.segmenter()
    found = run(segmenter, frames)
    assert all(value >= 0 for one in found for value in one.timings_ms.values())
    assert found[0].timings_ms["inference"] > 0
    assert segmenter.graphs_used == (tensorrt_face.version >= (11,))
    if segmenter.graphs_used:
        whole = [index for index, one in enumerate(found) if list(one.timings_ms) == ["decode", "gpu", "host"]]
        assert len(whole) == 120 - 3 * (40 // 8)
        assert all(list(one.timings_ms) == parts for i, one in enumerate(found) if i not in whole)
