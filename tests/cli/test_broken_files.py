"""Bad and unusual inputs through the command: made here, and those of ../shared/data/broken where they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from av.error import FFmpegError

Run = Callable[..., Any]
MakeClip = Callable[..., Path]
ReadVideo = Callable[[Path], Any]


def refused(segcam_here: Run, source: Path, words: str, *arguments: str) -> None:
    """One line naming the file and what is wrong with it, exit 1, and nothing under any output's name."""
    kept = source.parent / "kept.mp4"
    kept.write_bytes(b"a good result of yesterday")
    before = sorted(source.parent.iterdir())
    done = segcam_here("-s", source, "-o", "new.mp4", "-o", kept, "-o", "new.jsonl", "-o", "labels:new", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    errors = [line for line in done.stderr.splitlines() if line.startswith("segcam: error: ")]
    assert len(errors) == 1
    assert source.name in errors[0]
    assert words in errors[0]
    assert "Traceback" not in done.stderr
    assert kept.read_bytes() == b"a good result of yesterday"
    assert sorted(source.parent.iterdir()) == before
    kept.unlink()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_an_empty_file(segcam_here: Run, tmp_path: Path) -> None:
    (tmp_path / "in.mp4").touch()
    refused(segcam_here, tmp_path / "in.mp4", "the file is empty (0 bytes)")


def test_text_that_is_called_mp4(segcam_here: Run, tmp_path: Path) -> None:
    (tmp_path / "in.mp4").write_text("Dear reader,\nthis is no video.\n" * 50)
    refused(segcam_here, tmp_path / "in.mp4", "a text file (it starts with 'Dear reader,'), not a video")


def test_an_mp4_without_its_index(segcam_here: Run, make_clip: MakeClip) -> None:
    clip = make_clip(count=30)
    data = clip.read_bytes()
    clip.write_bytes(data[: data.rindex(b"moov") - 4])
    refused(segcam_here, clip, "without its index")


def test_sound_alone(segcam_here: Run, tmp_path: Path) -> None:
    import av

    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    refused(segcam_here, path, "no video stream; found only: 1 audio")


def test_no_such_file(segcam_here: Run, make_clip: MakeClip, tmp_path: Path) -> None:
    make_clip("ride.mp4")
    done = segcam_here("-s", "rid.mp4", "-o", "new.mp4")
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["segcam: error: rid.mp4: no such file", "  Did you mean ride.mp4?"]
    assert not (tmp_path / "new.mp4").exists()


def test_a_start_behind_the_end(segcam_here: Run, make_clip: MakeClip) -> None:
    refused(segcam_here, make_clip(), "is behind the end", "--start", "5")


def test_a_file_cut_in_the_middle_gives_what_it_has_and_says_so(
    segcam_here: Run, make_clip: MakeClip, read_video: ReadVideo, tmp_path: Path
) -> None:
    clip = make_clip(count=40, container={"movflags": "+faststart"}, options={"bf": "0"})
    data = clip.read_bytes()
    clip.write_bytes(data[: data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2])
    done = segcam_here("-s", clip, "-o", "out.mp4", "-o", "o.jsonl", "-o", "labels:l")
    assert done.returncode == 1
    records = lines(tmp_path / "o.jsonl")
    assert 5 <= len(records) < 40
    assert [record["index"] for record in records] == list(range(len(records)))
    assert len(read_video(tmp_path / "out.mp4").pictures) == len(list((tmp_path / "l").iterdir())) == len(records)
    assert f"announces 40 frames in all, only {len(records)} could be read" in done.stderr
    assert f"stopped after {len(records)} frames" in done.stderr
    assert "done:" not in done.stderr


@pytest.mark.parametrize("size", [(97, 65), (98, 65), (97, 64)])
def test_odd_sizes_are_whole_in_images_and_padded_in_video(
    segcam_here: Run, make_clip: MakeClip, read_video: ReadVideo, tmp_path: Path, size: tuple[int, int]
) -> None:
    clip = make_clip("odd.mkv", count=5, size=size, pix_fmt="yuv444p")
    done = segcam_here("-s", clip, "-o", "out.mp4", "-o", "labels:l")
    assert done.returncode == 0
    width, height = size
    even = (width + width % 2, height + height % 2)
    assert read_video(tmp_path / "out.mp4").size == even
    assert f"{width}x{height} is written as {even[0]}x{even[1]}" in done.stderr
    assert cv2.imread(str(tmp_path / "l" / "000000.png"), cv2.IMREAD_UNCHANGED).shape == (height, width)


def test_ten_bits_look_like_eight(segcam_here: Run, make_clip: MakeClip, tmp_path: Path) -> None:
    lossless = {"qp": "0"}
    for name, pix_fmt in (("eight.mkv", "yuv420p"), ("ten.mkv", "yuv420p10le")):
        try:
            make_clip(name, count=2, pix_fmt=pix_fmt, options=lossless)
        except (FFmpegError, ValueError) as error:  # PyAV's x264 may be built for 8 bits only
            if pix_fmt == "yuv420p":
                raise
            pytest.skip(f"this x264 does not write {pix_fmt}: {error}")
        assert segcam_here("-s", name, "-o", f"overlay:{Path(name).stem}").returncode == 0
    eight, ten = (cv2.imread(str(tmp_path / name / "000001.png")).astype(int) for name in ("eight", "ten"))
    assert np.abs(eight - ten).max() <= 6
    assert np.abs((eight - ten).mean()) < 0.7, "scaled, not cut off"


def test_a_change_of_size_on_the_way(
    segcam_here: Run, make_clip: MakeClip, read_video: ReadVideo, tmp_path: Path
) -> None:
    """Two MPEG-TS files end to end. Label maps keep each frame's own size, the video its first one's, with a line."""
    small = make_clip("a.ts", count=5, size=(96, 64))
    large = make_clip("b.ts", count=5, size=(160, 96), pts=range(5, 10))
    (tmp_path / "in.ts").write_bytes(small.read_bytes() + large.read_bytes())
    done = segcam_here("-s", "in.ts", "-o", "out.mp4", "-o", "labels:l", "-o", "o.jsonl")
    assert done.returncode == 0
    sizes = [(record["width"], record["height"]) for record in lines(tmp_path / "o.jsonl")]
    assert sizes == [(96, 64)] * 5 + [(160, 96)] * 5
    labels = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED).shape for path in sorted((tmp_path / "l").iterdir())]
    assert labels == [(64, 96)] * 5 + [(96, 160)] * 5
    video = read_video(tmp_path / "out.mp4")
    assert {picture.shape for picture in video.pictures} == {(64, 96, 3)}
    assert len(video.pictures) == 10
    assert done.stderr.count("size changed to 160x96") == 1


def with_display_turn(clip: Path) -> None:
    """Writes a quarter turn into the track header of an MP4 (ISO 14496-12, 8.3.2)."""
    data = bytearray(clip.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 4 * 4 + 4 + 8 + 4 * 2
    assert data[at : at + 4] == b"\x00\x01\x00\x00"
    fixed = [0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000]
    data[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in fixed)
    clip.write_bytes(data)


def test_a_turned_video_comes_out_upright(
    segcam_here: Run, make_clip: MakeClip, read_video: ReadVideo, tmp_path: Path
) -> None:
    clip = make_clip(count=3)
    assert segcam_here("-s", clip, "-o", "plain/", "--alpha", "0").returncode == 0
    with_display_turn(clip)
    done = segcam_here("-s", clip, "-o", "out.mp4", "-o", "turned/", "--alpha", "0")
    assert done.returncode == 0
    assert "64x96" in done.stderr
    assert read_video(tmp_path / "out.mp4").size == (64, 96)
    plain, turned = (cv2.imread(str(tmp_path / name / "000001.png")) for name in ("plain", "turned"))
    np.testing.assert_array_equal(turned, np.rot90(plain, -1))


def test_one_pixel(segcam_here: Run, read_video: ReadVideo, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "dot.png"), np.array([[[200, 10, 10]]], np.uint8))
    done = segcam_here("-s", "dot.png", "-o", "labels:l", "-o", "colors:dot_colors.png", "-o", "dot.mp4")
    assert done.returncode == 0
    assert cv2.imread(str(tmp_path / "l" / "dot.png"), cv2.IMREAD_UNCHANGED).tolist() == [[2]], "blue is the car"
    assert read_video(tmp_path / "dot.mp4").size == (2, 2)


def test_a_folder_with_one_bad_picture_goes_on_without_it(segcam_here: Run, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", "c.png"):
        cv2.imwrite(str(folder / name), np.full((20, 30, 3), 90, np.uint8))
    (folder / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"no picture" * 9)
    done = segcam_here("-s", folder, "-o", "labels:out")
    assert done.returncode == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]
    warned = [line for line in done.stderr.splitlines() if "warning" in line]
    assert len(warned) == 1
    assert "b.png" in warned[0]


@pytest.fixture
def broken(shared_data: Path) -> Path:
    return shared_data / "broken"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("01_moov_missing.mp4", "without its index"),
        ("03_zero_bytes.mp4", "the file is empty (0 bytes)"),
        ("04_text_file.mp4", "a text file"),
        ("15_zero_frames.mp4", "without a single frame"),
        ("15b_no_tracks.mp4", "no video stream"),
        ("17_audio_only.mp4", "no video stream; found only: 1 audio"),
    ],
)
def test_shared_files_without_anything_usable(
    segcam_here: Run, broken: Path, tmp_path: Path, name: str, words: str
) -> None:
    copy = tmp_path / name
    copy.write_bytes((broken / name).read_bytes())
    refused(segcam_here, copy, words)


@pytest.mark.parametrize(
    ("name", "frames", "size"),
    [
        ("06_resolution_change.ts", 40, (640, 360)),
        ("07_odd_853x481_h264_yuv444.mp4", 20, (853, 481)),
        ("07b_odd_853x481_vp9_yuv420.webm", 20, (853, 481)),
        ("08_1x1.png", 1, (1, 1)),
        ("09_gray.png", 1, (640, 360)),
        ("10_16bit_rgb.png", 1, (640, 360)),
        ("11_rgba.png", 1, (640, 360)),
        ("12_cmyk.jpg", 1, (1280, 720)),
        ("13_exif_orientation_6.jpg", 1, (1280, 720)),
        ("14_variable_frame_rate.mp4", 17, None),
        ("16_hevc_10bit.mp4", 24, (960, 540)),
        ("18_display_matrix_rotate90.mp4", None, (640, 360)),
        ("19_png_named_jpg.jpg", 1, None),
    ],
)
def test_shared_files_that_are_only_unusual(
    segcam_here: Run,
    broken: Path,
    read_video: ReadVideo,
    tmp_path: Path,
    name: str,
    frames: int | None,
    size: tuple[int, int] | None,
) -> None:
    done = segcam_here("-s", broken / name, "-o", "out.mp4", "-o", "o.jsonl", "-o", "labels:l")
    assert (done.returncode, done.stdout) == (0, "")
    records = lines(tmp_path / "o.jsonl")
    video = read_video(tmp_path / "out.mp4")
    assert len(records) == len(video.pictures) == len(list((tmp_path / "l").iterdir())) > 0
    if frames is not None:
        assert len(records) == frames
    if size is not None:
        assert (records[0]["width"], records[0]["height"]) == size
        assert cv2.imread(str(sorted((tmp_path / "l").iterdir())[0]), cv2.IMREAD_UNCHANGED).shape == size[::-1]
        assert video.size == (size[0] + size[0] % 2, size[1] + size[1] % 2)
        assert ("is written as" in done.stderr) == (video.size != size)


def test_shared_variable_rate_keeps_its_times(
    segcam_here: Run, broken: Path, read_video: ReadVideo, tmp_path: Path
) -> None:
    name = "14_variable_frame_rate.mp4"
    assert segcam_here("-s", broken / name, "-o", "out.mp4").returncode == 0
    wanted, found = read_video(broken / name).times_s, read_video(tmp_path / "out.mp4").times_s
    assert found == wanted
    assert {b - a for a, b in pairwise(found)} == {Fraction(n, 1000) for n in (40, 160, 200, 320)}


def test_shared_file_cut_in_the_middle(segcam_here: Run, broken: Path, read_video: ReadVideo, tmp_path: Path) -> None:
    done = segcam_here("-s", broken / "02_cut_in_middle.mp4", "-o", "out.mp4", "-o", "o.jsonl")
    assert done.returncode == 1
    found = len(lines(tmp_path / "o.jsonl"))
    assert 12 <= found < 36
    assert len(read_video(tmp_path / "out.mp4").pictures) == found
    assert f"announces 36 frames in all, only {found} could be read" in done.stderr


def test_shared_damaged_picture_is_used_with_a_warning(segcam_here: Run, broken: Path, tmp_path: Path) -> None:
    done = segcam_here("-s", broken / "05_flipped_bytes.jpg", "-o", "labels:l")
    assert done.returncode == 0
    assert "warning: " in done.stderr and "the picture is damaged" in done.stderr
    assert len(list((tmp_path / "l").iterdir())) == 1
