"""Frames in, segmentations out: in order, of each frame's own size, with arrays that nobody else writes to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from segcam.controls import Controls
from segcam.engines.base import Engine, EngineOptions
from segcam.engines.factory import make_engine
from segcam.errors import EngineError, SpecError
from segcam.frame import Frame, PixelFormat, Segmentation
from segcam.segmenters.cpu import CpuSegmenter
from segcam.segmenters.reading import count_classes

Brightest = Callable[..., Path]
#: Red, green and blue as I420 code values (BT.601, full range) and as BGR.
YUV = {0: (76, 85, 255), 1: (150, 44, 21), 2: (29, 255, 107)}
BGR = {0: (0, 0, 255), 1: (0, 255, 0), 2: (255, 0, 0)}


def frame_of(
    colors: NDArray[np.integer[Any]], format: PixelFormat = "i420", index: int = 0, size: tuple[int, int] | None = None
) -> Frame:
    """A frame of class colours: ``colors`` (rows, cols) of 0, 1, 2, each field enlarged to fill ``size``."""
    height, width = size or (24, 40)
    rows, cols = colors.shape
    grid = colors[np.arange(height) * rows // height][:, np.arange(width) * cols // width]
    if format == "bgr24":
        planes: tuple[NDArray[np.uint8], ...] = (np.array([BGR[i] for i in range(3)], np.uint8)[grid],)
    else:
        table = np.array([YUV[i] for i in range(3)], np.uint8)
        y, u, v = table[grid][..., 0], table[grid[::2, ::2]][..., 1], table[grid[::2, ::2]][..., 2]
        planes = (y.copy(), u.copy(), v.copy()) if format == "i420" else (y.copy(), np.stack([u, v], axis=-1))
    for plane in planes:
        plane.flags.writeable = False
    return Frame(index, index, Fraction(1, 25), 0.0, "t", width, height, format, planes, "bt601", True)


@pytest.fixture
def load() -> Iterator[Callable[..., tuple[CpuSegmenter, Controls, Engine]]]:
    """``load(path, requests=3, runtime="onnxruntime", warn=..., **segmenter arguments)``."""
    engines: list[Engine] = []

    def make(path: Path, requests: int = 3, runtime: Any = "onnxruntime", **arguments: Any) -> Any:
        engine = make_engine(
            str(path), EngineOptions(precision="fp32", threads=1, requests=requests), lambda line: None, runtime
        )
        engine.activate()
        engines.append(engine)
        classes = engine.spec.class_table(count_classes(engine))
        controls = Controls(0.5, classes.visible(""))
        return CpuSegmenter(engine, classes, controls, **arguments), controls, engine

    yield make
    for engine in engines:
        engine.close()


Load = Callable[..., tuple[CpuSegmenter, Controls, Engine]]


def one(segmenter: CpuSegmenter, frame: Frame) -> Segmentation:
    segmenter.submit(frame)
    return segmenter.collect()


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("format", ["i420", "nv12", "bgr24"])
@pytest.mark.parametrize("color", ["RGB", "BGR"])
def test_red_is_red(brightest: Brightest, load: Load, runtime: str, format: PixelFormat, color: str) -> None:
    segmenter, _, _ = load(brightest(color=color), runtime=runtime)
    colors = np.array([[0, 1], [2, 0]])
    for size in ((24, 40), (48, 80), (25, 41)):
        found = one(segmenter, frame_of(colors, format, size=size))
        assert found.labels.shape == size
        height, width = size
        corners = found.labels[[2, 2, height - 3, height - 3], [2, width - 3, 2, width - 3]]
        assert corners.tolist() == [0, 1, 2, 0]
        assert found.counts.tolist() == np.bincount(found.labels.ravel(), minlength=3).tolist()
        assert found.overlay is not None
        assert found.overlay.format == format


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("output", ["scores_nchw", "scores_nhwc", "int64_nhw", "int32_n1hw", "uint8_nhw1", "int64_hw"])
def test_every_kind_of_network(
    brightest: Brightest, load: Load, runtime: str, dtype: str, layout: str, output: str
) -> None:
    segmenter, _, engine = load(brightest(dtype=dtype, layout=layout, output=output), runtime=runtime)
    assert engine.spec.output.kind == ("logits" if output.startswith("scores") else "labels")
    colors = np.random.default_rng(0).integers(0, 3, (24, 40))
    found = one(segmenter, frame_of(colors, "bgr24"))
    np.testing.assert_array_equal(found.labels, colors)
    assert found.counts.tolist() == np.bincount(colors.ravel(), minlength=3).tolist()


def test_scores_channels_last_without_a_spec(brightest: Brightest, load: Load) -> None:
    """Nobody has said how many classes: the proportions tell."""
    segmenter, _, _ = load(brightest(output="scores_nhwc", spec=""))
    colors = np.random.default_rng(0).integers(0, 3, (24, 40))
    np.testing.assert_array_equal(one(segmenter, frame_of(colors, "bgr24")).labels, colors)


@pytest.mark.parametrize("depth", [1, 2, 3, 0])
@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_order_is_kept(brightest: Brightest, load: Load, runtime: str, depth: int) -> None:
    segmenter, _, _ = load(brightest(), runtime=runtime, depth=depth)
    assert segmenter.depth == (depth or 3)
    random = np.random.default_rng(1)
    sent, got = [], []

    def take() -> None:
        found = segmenter.collect()
        got.append(found.frame.index)
        np.testing.assert_array_equal(found.labels, sent[found.frame.index])
        segmenter.recycle(found)

    for index in range(25):
        sent.append(random.integers(0, 3, (24, 40)))
        if segmenter.pending == segmenter.depth:
            take()
        segmenter.submit(frame_of(sent[-1], "bgr24", index))
    assert segmenter.pending == segmenter.depth
    while segmenter.pending:
        take()
    assert got == list(range(25))
    assert not segmenter.ready()


def test_sizes_and_formats_may_change_in_mid_stream(brightest: Brightest, load: Load) -> None:
    """More kinds of frame than plans are kept for, in flight together: every class map has its own frame's size."""
    segmenter, _, _ = load(brightest())
    random = np.random.default_rng(2)
    sizes = [(24, 40), (48, 80), (1, 1), (7, 3), (25, 41), (24, 40), (120, 40), (2, 1)]
    formats: list[PixelFormat] = ["i420", "bgr24", "nv12"]
    frames = [frame_of(random.integers(0, 3, (1, 1)), formats[i % 3], i, sizes[i % len(sizes)]) for i in range(40)]
    alone = []
    for frame in frames:
        found = one(segmenter, frame)
        assert found.labels.shape == (frame.height, frame.width)
        assert found.overlay is not None
        assert [p.shape for p in found.overlay.planes] == [p.shape for p in frame.planes]
        alone.append((found.labels, [p.copy() for p in found.overlay.planes]))
    together: list[Segmentation] = []
    for frame in frames:
        if segmenter.pending == segmenter.depth:
            together.append(segmenter.collect())
        segmenter.submit(frame)
    while segmenter.pending:
        together.append(segmenter.collect())
    for found, (labels, planes), frame in zip(together, alone, frames, strict=True):
        assert found.frame is frame
        np.testing.assert_array_equal(found.labels, labels)
        assert found.overlay is not None
        for plane, want in zip(found.overlay.planes, planes, strict=True):
            np.testing.assert_array_equal(plane, want)


def test_results_own_their_arrays_until_they_are_recycled(brightest: Brightest, load: Load) -> None:
    segmenter, _, _ = load(brightest())
    random = np.random.default_rng(3)
    live: dict[int, tuple[Segmentation, NDArray[np.uint8], list[NDArray[np.uint8]]]] = {}
    addresses = set()
    for index in range(60):
        found = one(segmenter, frame_of(random.integers(0, 3, (6, 8)), "i420", index))
        assert found.overlay is not None
        for other, labels, planes in live.values():
            np.testing.assert_array_equal(other.labels, labels)
            assert other.overlay is not None
            for mine, plane, before in zip(found.overlay.planes, other.overlay.planes, planes, strict=True):
                assert not np.shares_memory(mine, plane)
                np.testing.assert_array_equal(plane, before)
            assert not np.shares_memory(found.labels, other.labels)
        live[index] = found, found.labels.copy(), [p.copy() for p in found.overlay.planes]
        addresses.add(found.labels.ctypes.data)
        if len(live) > 4:
            segmenter.recycle(live.pop(random.choice(list(live)))[0])
    assert len(addresses) <= 8, "recycled arrays are used again"
    for source in (frame_of(np.zeros((2, 2), int)).planes,):
        assert all(not plane.flags.writeable for plane in source)


def test_frames_are_not_written_to_and_overlays_are_their_own(brightest: Brightest, load: Load) -> None:
    segmenter, _, _ = load(brightest())
    frame = frame_of(np.array([[0, 1, 2]]))
    before = [p.copy() for p in frame.planes]
    found = one(segmenter, frame)
    assert found.overlay is not None
    for plane, old, painted in zip(frame.planes, before, found.overlay.planes, strict=True):
        np.testing.assert_array_equal(plane, old)
        assert not np.shares_memory(plane, painted)
    assert found.overlay.index == frame.index


@pytest.mark.parametrize("output", ["scores_nchw", "int64_nhw"])
def test_label_sizes(brightest: Brightest, load: Load, output: str) -> None:
    path = brightest(output=output)
    colors = np.array([[0, 1], [2, 0]])
    frame = frame_of(colors, "bgr24", size=(60, 100))
    for size, want in (("network", (24, 40)), ("frame", (60, 100)), ((30, 50), (30, 50)), ((13, 11), (13, 11))):
        segmenter, _, _ = load(path, label_size=size, overlay=False)
        found = one(segmenter, frame)
        assert found.labels.shape == want
        assert found.overlay is None
        rows, cols = want[0] // 4, want[1] // 4
        quarters = found.labels[[rows, rows, -rows, -rows], [cols, -cols, cols, -cols]]
        assert quarters.tolist() == [0, 1, 2, 0]
        assert found.counts.sum() == want[0] * want[1]


def test_a_class_map_of_another_size_leaves_no_overlay_out_quietly(brightest: Brightest, load: Load) -> None:
    """An overlay needs labels of the frame's size; asked for both at the frame's size, there is one."""
    path = brightest()
    segmenter, _, _ = load(path, label_size=(24, 40))
    assert one(segmenter, frame_of(np.zeros((1, 1), int))).overlay is not None
    assert one(segmenter, frame_of(np.zeros((1, 1), int), size=(48, 80))).overlay is None


@pytest.mark.parametrize("grid", [1, 2, 4])
@pytest.mark.parametrize("policy", ["stretch", "letterbox"])
def test_coarse_scores_and_letterboxes_land_where_they_belong(
    brightest: Brightest, load: Load, grid: int, policy: str
) -> None:
    """A bright field in a wide picture comes back where it was, within what the network's grid can resolve."""
    path = brightest(input_hw=(64, 64), resize=policy)
    if grid > 1:
        # Mean over fields, whose centres are where half-pixel sampling expects them.
        model = onnx.load(path)
        pool = onnx.helper.make_node("AveragePool", ["s"], ["o"], kernel_shape=[grid, grid], strides=[grid, grid])
        model.graph.node.append(pool)
        model.graph.output[0].name = "o"
        onnx.save(model, path)
    segmenter, _, _ = load(path)
    colors = np.zeros((8, 16), int)
    colors[2:5, 10:14] = 2
    frame = frame_of(colors, "bgr24", size=(80, 160))
    found = one(segmenter, frame).labels
    rows, cols = np.nonzero(found == 2)
    reach = 2.5 * grid
    assert rows.min() == pytest.approx(20, abs=reach)
    assert rows.max() == pytest.approx(49, abs=reach)
    assert cols.min() == pytest.approx(100, abs=reach)
    assert cols.max() == pytest.approx(139, abs=reach)
    assert (rows.min() + rows.max()) / 2 == pytest.approx(34.5, abs=1.5)
    assert (cols.min() + cols.max()) / 2 == pytest.approx(119.5, abs=1.5)


def _painted(found: Segmentation) -> NDArray[np.int64]:
    assert found.overlay is not None
    return found.overlay.planes[0].astype(np.int64)


def test_controls_take_effect_at_once(brightest: Brightest, load: Load) -> None:
    segmenter, controls, _ = load(brightest(), depth=2)
    colors = np.random.default_rng(5).integers(0, 3, (24, 40))
    shade = (np.array([BGR[i] for i in range(3)], np.uint8) // 2)[colors]
    frame = Frame(0, 0, Fraction(1, 25), 0.0, "t", 40, 24, "bgr24", (shade,))
    full = np.array([BGR[i] for i in range(3)])[colors]
    found = one(segmenter, frame)
    np.testing.assert_array_equal(found.labels, colors)
    assert np.abs(_painted(found) - (shade * 0.5 + full * 0.5)).max() <= 1
    # In flight when the opacity changes: painted as it is when collected.
    segmenter.submit(frame)
    controls.alpha = 1.0
    np.testing.assert_array_equal(_painted(segmenter.collect()), full)
    controls.visible = np.array([True, False, True])
    found = one(segmenter, frame)
    np.testing.assert_array_equal(_painted(found)[colors == 1], shade[colors == 1])
    np.testing.assert_array_equal(_painted(found)[colors != 1], full[colors != 1])
    np.testing.assert_array_equal(found.labels, colors)
    controls.alpha = 0.0
    np.testing.assert_array_equal(_painted(one(segmenter, frame)), shade)


def test_mask_only(brightest: Brightest, load: Load) -> None:
    segmenter, controls, _ = load(brightest(), mask_only=True)
    colors = np.random.default_rng(5).integers(0, 3, (24, 40))
    controls.visible = np.array([True, False, True])
    found = one(segmenter, frame_of(colors, "bgr24"))
    want = np.array([BGR[i] for i in range(3)])[colors]
    want[colors == 1] = 0
    np.testing.assert_array_equal(_painted(found), want)


def test_void_classes_stay_clear(brightest: Brightest, load: Load) -> None:
    path = brightest(spec="beside")
    beside = path.with_name(path.name + ".json")
    document = json.loads(beside.read_text("utf-8"))
    document["output"]["void"] = [1]
    beside.write_text(json.dumps(document), encoding="utf-8")
    segmenter, controls, _ = load(path)
    controls.alpha = 1.0
    colors = np.random.default_rng(5).integers(0, 3, (24, 40))
    shade = (np.array([BGR[i] for i in range(3)], np.uint8) // 3)[colors]
    found = one(segmenter, Frame(0, 0, Fraction(1, 25), 0.0, "t", 40, 24, "bgr24", (shade,)))
    np.testing.assert_array_equal(found.labels, colors)
    np.testing.assert_array_equal(_painted(found)[colors == 1], shade[colors == 1])
    assert found.counts[1] == (colors == 1).sum()


@pytest.mark.parametrize(
    ("ignored", "dtype"),
    [
        (255, np.int64),
        (-1, np.int64),
        (256, np.int64),
        (65535, np.int64),
        (-1, np.int8),
        (-1, np.int32),
        (255, np.uint8),
    ],
)
def test_ids_beyond_the_table_stay_clear_and_uncounted(
    brightest: Brightest, load: Load, ignored: int, dtype: type[np.integer]
) -> None:
    """A network of labels may say 255, or anything else, for "ignore"; 256 must not become class 0."""
    path = brightest(output="int64_nhw")
    model = onnx.load(path)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0, ignored, 2], dtype), "map"))
    model.graph.node.append(onnx.helper.make_node("Gather", ["map", "i"], ["o"]))
    model.graph.output[0].name = "o"
    model.graph.output[0].type.tensor_type.elem_type = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    onnx.save(model, path)
    segmenter, _, _ = load(path)
    colors = np.random.default_rng(5).integers(0, 3, (24, 40))
    frame = frame_of(colors, "bgr24")
    found = one(segmenter, frame)
    np.testing.assert_array_equal(found.labels, np.array([0, 255, 2])[colors])
    assert found.counts.tolist() == [(colors == 0).sum(), 0, (colors == 2).sum()]
    np.testing.assert_array_equal(_painted(found)[colors == 1], frame.planes[0][colors == 1])


def test_outputs_that_are_no_class_map(brightest: Brightest, load: Load) -> None:
    path = brightest()
    model = onnx.load(path)
    for nodes, words in (
        ([("GlobalAveragePool", ["s"], {}), ("Flatten", ["n0"], {})], "expected 1xCxHxW"),
        ([("Concat", ["s"] * 100, {"axis": 1})], "at most 255"),
        ([("Concat", ["s", "s"], {"axis": 1})], "3 classes, the network has 6"),
    ):
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        for i, (kind, inputs, attributes) in enumerate(nodes):
            changed.graph.node.append(onnx.helper.make_node(kind, inputs, [f"n{i}"], **attributes))
        changed.graph.output[0].name = f"n{len(nodes) - 1}"
        onnx.save(changed, path)
        with pytest.raises((EngineError, SpecError), match=words) as caught:
            load(path)
        assert caught.value.hint


def test_timings_name_the_stages(brightest: Brightest, load: Load) -> None:
    segmenter, _, _ = load(brightest())
    found = one(segmenter, frame_of(np.zeros((1, 1), int)))
    assert list(found.timings_ms) == ["decode", "preprocess", "inference", "postprocess"]
    assert all(value >= 0 for value in found.timings_ms.values())
