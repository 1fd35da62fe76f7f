"""Images, JSON lines and the null sink: what lies on disk afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from segcam.classes import CITYSCAPES, ClassTable
from segcam.errors import SinkError
from segcam.sinks.base import RunStats, StreamInfo
from segcam.sinks.factory import SinkOptions, make_sink
from segcam.sinks.jsonl import JsonLinesSink

APP = str(Path(__file__).resolve().parents[2] / "app")


@pytest.fixture
def write(info, controls):
    def write_all(spec, segmentations, stats=None, stream=info, **options):
        sink = make_sink(str(spec), SinkOptions(**options), controls, print)
        sink.open(stream, stats or RunStats())
        for segmentation in segmentations:
            sink.write(segmentation)
        sink.close()
        sink.close()
        return sink

    return write_all


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_labels_are_read_back_exactly(tmp_path, maker, write):
    segmentations = [maker().segmentation(i) for i in range(3)]
    segmentations[1].labels[0, :2] = (255, 254)
    sink = write(f"labels:{tmp_path}/out/deep", segmentations)
    assert names(tmp_path / "out" / "deep") == ["000000.png", "000001.png", "000002.png"]
    for segmentation in segmentations:
        path = tmp_path / "out" / "deep" / f"{segmentation.frame.index:06d}.png"
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert image.dtype == np.uint8 and image.shape == (48, 64)
        np.testing.assert_array_equal(image, segmentation.labels)
    assert "3 label id images (png)" in sink.description


def test_colors_are_those_of_the_table(tmp_path, maker, write):
    table = ClassTable(("red", "nothing", "blue"), ((255, 0, 0), (9, 9, 9), (0, 0, 250)), frozenset({1}))
    segmentation = maker().segmentation(0)
    segmentation.labels[...] = 0
    segmentation.labels[0, 1:4] = (1, 2, 255)
    write(f"colors:{tmp_path}/c.png", [segmentation], stream=StreamInfo("x", 64, 48, None, 1, False, table))
    image = cv2.imread(str(tmp_path / "c.png"))
    assert image[0, :4].tolist() == [[0, 0, 255], [0, 0, 0], [250, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("format", ["i420", "nv12", "bgr24"])
def test_overlay_images_are_the_overlay(tmp_path, maker, write, format):
    segmentation = maker(format=format, width=63, height=47).segmentation(4)
    write(tmp_path / "d", [segmentation])
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "d" / "000004.png")), segmentation.overlay.bgr())


def test_jpeg_quality_counts(tmp_path, maker, write):
    make = maker(format="bgr24")
    for quality in (30, 95):
        write(tmp_path / str(quality), [make.segmentation(0)], image_format="jpg", jpeg_quality=quality)
    small, large = (tmp_path / q / "000000.jpg" for q in ("30", "95"))
    assert small.read_bytes()[:2] == large.read_bytes()[:2] == b"\xff\xd8"
    assert small.stat().st_size < large.stat().st_size


def test_files_are_named_after_the_pictures(tmp_path, maker, write):
    make = maker()
    given = ["a.jpg", "b.v2.jpg", "a.png", "A.jpeg", "", "straße.jpg"]
    write(f"labels:{tmp_path}/d", [make.segmentation(i, name=name) for i, name in enumerate(given)])
    assert names(tmp_path / "d") == sorted(
        ["a.png", "b.v2.png", "a_000002.png", "A_000003.png", "000004.png", "straße.png"]
    )


def test_patterns(tmp_path, maker, write):
    write(f"labels:{tmp_path}/d/f_%04d_x.png", [maker().segmentation(i) for i in (0, 12)])
    assert names(tmp_path / "d") == ["f_0000_x.png", "f_0012_x.png"]


def test_a_second_frame_for_a_still_is_an_error(tmp_path, maker, write):
    with pytest.raises(SinkError, match="more than one frame") as caught:
        write(f"labels:{tmp_path}/one.png", [maker().segmentation(i) for i in range(2)])
    assert "one_%05d.png" in caught.value.hint
    image = cv2.imread(str(tmp_path / "one.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(image, maker().segmentation(0).labels)


def test_nothing_is_made_before_the_first_frame(tmp_path, write):
    for spec in (f"{tmp_path}/d/", f"{tmp_path}/e/x.jsonl", f"labels:{tmp_path}/f/%d.png"):
        assert "nothing written" in write(spec, []).description
    assert names(tmp_path) == []


@pytest.mark.parametrize("spec", ["{}/file/d/", "{}/file/x.jsonl", "labels:{}/file/x.png", "{}/file/"])
def test_a_file_in_the_way_is_found_before_the_run(tmp_path, write, spec):
    (tmp_path / "file").write_text("x")
    with pytest.raises(SinkError, match="not a folder"):
        write(spec.format(tmp_path), [])


def test_a_folder_in_the_way_of_a_still(tmp_path, write, info):
    from segcam.sinks.images import ImageSink

    with pytest.raises(SinkError, match="is a folder"):
        ImageSink(tmp_path, "overlay", "still", ".png").open(info, RunStats())


def test_a_full_disk_leaves_whole_images_only(tmp_path):
    code = """
import resource, sys
import numpy as np
from fractions import Fraction
from pathlib import Path
from segcam.classes import CITYSCAPES
from segcam.errors import SinkError
from segcam.frame import Frame, Segmentation
from segcam.sinks.base import RunStats, StreamInfo
from segcam.sinks.images import ImageSink
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
sink = ImageSink(Path(sys.argv[1]), "labels", "folder", ".png")
sink.open(StreamInfo("x", 400, 400, None, None, False, CITYSCAPES), RunStats())
try:
    for index, top in enumerate((1, 1, 256)):  # the last one can't be compressed below the limit
        labels = np.random.default_rng(0).integers(0, top, (400, 400)).astype(np.uint8)
        frame = Frame(index, index, Fraction(1), 0.0, "x", 400, 400, "bgr24", (np.zeros((400, 400, 3), np.uint8),))
        sink.write(Segmentation(frame, labels, None, np.zeros(19, np.int64), CITYSCAPES))
except SinkError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "d")],
        env={**os.environ, "PYTHONPATH": APP}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "000002.png failed" in done.stdout and "2 images before it are complete" in done.stdout, done.stderr
    assert names(tmp_path / "d") == ["000000.png", "000001.png"]


def test_json_lines(tmp_path, maker, write):
    make = maker()
    segmentation = make.segmentation(3, name="ü.jpg")
    segmentation.counts[...] = 0
    segmentation.counts[[0, 13]] = (1, 2)
    segmentation.timings_ms["odd"] = float("nan")
    sink = write(tmp_path / "a.jsonl", [make.segmentation(0), segmentation], RunStats(latency_ms=41.23456))
    text = (tmp_path / "a.jsonl").read_text(encoding="utf-8")
    assert text.endswith("}\n") and text.count("\n") == 2
    first, second = (json.loads(line) for line in text.splitlines())
    assert second == {
        "index": 3, "pts_s": 0.12, "source": "test", "name": "ü.jpg", "width": 64, "height": 48,
        "shares": {"road": 0.333333, "car": 0.666667}, "timings_ms": {"inference": 12.5}, "latency_ms": 41.235,
    }  # fmt: skip
    assert sum(first["shares"].values()) == pytest.approx(1, abs=1e-4)
    assert "2 lines" in sink.description


def test_json_lines_without_latency_or_pixels(tmp_path, maker, write):
    segmentation = maker().segmentation(0)
    segmentation.counts[...] = 0
    write(tmp_path / "a.jsonl", [segmentation], RunStats(latency_ms=float("nan")))
    record = json.loads((tmp_path / "a.jsonl").read_text())
    assert record["shares"] == {} and "latency_ms" not in record


def test_classes_of_the_same_name_are_added_up(tmp_path, maker, write):
    segmentation = maker().segmentation(0)
    segmentation.classes = ClassTable(("a", "b", "a"), ((0, 0, 0),) * 3)
    segmentation.counts = np.array([1, 2, 1])
    write(tmp_path / "a.jsonl", [segmentation])
    assert json.loads((tmp_path / "a.jsonl").read_text())["shares"] == {"a": 0.5, "b": 0.5}


def test_json_lines_are_in_the_file_at_once(tmp_path, info, maker):
    sink = JsonLinesSink(tmp_path / "a.jsonl")
    sink.open(info, RunStats())
    for index in range(3):
        sink.write(maker().segmentation(index))
        assert len((tmp_path / "a.jsonl").read_text().splitlines()) == index + 1
    sink.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, which Linux has")
def test_json_lines_on_a_full_disk(tmp_path, info, maker):
    (tmp_path / "a.jsonl").symlink_to("/dev/full")
    sink = JsonLinesSink(tmp_path / "a.jsonl")
    sink.open(info, RunStats())
    with pytest.raises(SinkError, match="No space left") as caught:
        sink.write(maker().segmentation(0))
    assert "0 lines are complete" in caught.value.hint
    sink.close()


def test_null_counts(maker, write, tmp_path):
    assert "2 frames" in write("null", [maker().segmentation(i) for i in range(2)]).description


def test_real_labels_survive(tmp_path, write, maker):
    data = Path(__file__).resolve().parents[3] / "shared" / "data"
    truth = data / "images" / "frankfurt_000001_058914_gtFine_labelTrainIds.png"
    if not truth.is_file():
        pytest.skip("needs ../shared/data, which is not part of the repository")
    labels = cv2.imread(str(truth), cv2.IMREAD_UNCHANGED)
    segmentation = maker().segmentation(0)
    segmentation.labels = labels
    write(f"labels:{tmp_path}/x.png", [segmentation])
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "x.png"), cv2.IMREAD_UNCHANGED), labels)
    write(f"colors:{tmp_path}/c.png", [segmentation])
    colors = cv2.imread(str(tmp_path / "c.png"))
    road = labels == CITYSCAPES.index("road")
    assert road.any() and (colors[road] == (128, 64, 128)).all()
    assert (colors[labels == 255] == 0).all()
