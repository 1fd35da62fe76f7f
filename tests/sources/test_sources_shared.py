"""The behaviour that ../shared/data/broken/README.md asks for, on those very files, and the real clips."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest

from segcam.errors import SegcamError, SourceError, SourceTruncatedError
from segcam.sources.base import SourceOptions
from segcam.sources.factory import make_source


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("01_moov_missing.mp4", "incomplete"),
        ("03_zero_bytes.mp4", "empty"),
        ("04_text_file.mp4", "text file"),
        ("15_zero_frames.mp4", "without a single frame"),
        ("15b_no_tracks.mp4", "no video stream"),
        ("17_audio_only.mp4", "no video stream; found only: 1 audio"),
    ],
)
def test_unusable_files_are_refused_in_one_line(shared, capfd, name, says):
    with pytest.raises(SourceError, match=says) as caught:
        make_source(str(shared / "broken" / name)).open()
    assert name in caught.value.message and caught.value.hint and "\n" not in caught.value.message
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "count", "sizes", "form"),
    [
        ("06_resolution_change.ts", 40, [(640, 360), (960, 540)], "i420"),
        ("07_odd_853x481_h264_yuv444.mp4", 20, [(853, 481)], "i420"),
        ("07b_odd_853x481_vp9_yuv420.webm", 20, [(853, 481)], "i420"),
        ("08_1x1.png", 1, [(1, 1)], "bgr24"),
        ("09_gray.png", 1, [(640, 360)], "bgr24"),
        ("10_16bit_rgb.png", 1, [(640, 360)], "bgr24"),
        ("11_rgba.png", 1, [(640, 360)], "bgr24"),
        ("12_cmyk.jpg", 1, [(1280, 720)], "bgr24"),
        ("13_exif_orientation_6.jpg", 1, [(1280, 720)], "bgr24"),
        ("14_variable_frame_rate.mp4", 17, [(640, 360)], "i420"),
        ("16_hevc_10bit.mp4", 24, [(960, 540)], "i420"),
        ("18_display_matrix_rotate90.mp4", 20, [(640, 360)], "i420"),
        ("19_png_named_jpg.jpg", 1, [(320, 180)], "bgr24"),
    ],
)
def test_unusual_files_are_read_whole_and_in_silence(shared, read_all, capfd, name, count, sizes, form):
    warnings: list[str] = []
    got = read_all(make_source(str(shared / "broken" / name), warn=warnings.append))
    assert len(got) == count and list(dict.fromkeys((f.width, f.height) for f in got)) == sizes
    assert {f.format for f in got} == {form} and warnings == [] and capfd.readouterr() == ("", "")


def test_cut_in_the_middle(shared, read_all):
    errors: list[SegcamError] = []
    got = read_all(make_source(str(shared / "broken/02_cut_in_middle.mp4"), warn=lambda _: None), errors=errors)
    # Thirteen frames in a row and one more that was stored before the cut although it is shown later.
    assert [round(f.time_s * 25) for f in got] == [*range(13), 16]
    assert isinstance(errors[0], SourceTruncatedError) and "announces 36 frames" in str(errors[0])


def test_flipped_bytes(shared, read_all):
    warnings: list[str] = []
    (frame,) = read_all(make_source(str(shared / "broken/05_flipped_bytes.jpg"), warn=warnings.append))
    assert (frame.width, frame.height) == (1280, 720)
    assert len(warnings) == 1 and "damaged" in warnings[0]


def test_variable_rate_steps(shared, read_all):
    got = read_all(make_source(str(shared / "broken/14_variable_frame_rate.mp4")))
    steps = {round((b.time_s - a.time_s) * 1000) for a, b in pairwise(got)}
    assert steps == {40, 160, 200, 320}


def test_turned_like_opencv_turns_it(shared, read_all):
    path = str(shared / "broken/18_display_matrix_rotate90.mp4")
    frame = read_all(make_source(path), 1)[0]
    _, turned = cv2.VideoCapture(path).read()
    luma = cv2.cvtColor(turned, cv2.COLOR_BGR2YUV_I420)[:360].astype(float)
    assert np.abs(frame.planes[0] - luma).mean() < 3


def test_real_clip_with_the_audio_in_front(shared, read_all):
    path = shared / "video/carnd_vehicle_test_video_1280x720.mp4"
    source = make_source(str(path), SourceOptions(start_s=0.48, every=5))
    info = source.open()
    source.close()
    got = read_all(make_source(str(path), SourceOptions(start_s=0.48, every=5)))
    assert [round(f.time_s * 25) for f in got] == [12, 17, 22, 27, 32, 37] and info.frames == len(got)
    assert {(f.matrix, f.full_range, f.format) for f in got} == {("bt709", False, "i420")}


def test_a_folder_with_every_kind_of_picture(shared, read_all):
    got = read_all(make_source(str(shared / "broken"), warn=lambda _: None))
    assert [f.name[:2] for f in got] == ["05", "08", "09", "10", "11", "12", "13", "19"]
