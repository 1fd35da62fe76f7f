"""Video files: times, pixels, colours, sizes."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from segcam.errors import SinkError
from segcam.frame import LUMA_WEIGHTS
from segcam.sinks.base import RunStats, StreamInfo
from segcam.sinks.video import VideoSink

LOSSLESS = {"crf": 0, "preset": "ultrafast"}


def write(path, info, segmentations, warnings=None, **options):
    warnings = [] if warnings is None else warnings
    sink = VideoSink(path, warnings.append, **options)
    sink.open(info, RunStats())
    for segmentation in segmentations:
        sink.write(segmentation)
    sink.close()
    return sink


def boxes(path):
    """Names of the top-level boxes of an MP4 file."""
    data, names, at = path.read_bytes(), [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        names.append(data[at + 4 : at + 8].decode())
        at += size
    return names


TIME_BASES = {
    "ts": (Fraction(1, 90000), 3003, 126000),
    "ntsc": (Fraction(1001, 30000), 1, 7),
    "mp4": (Fraction(1, 15360), 512, 100),
    "micro": (Fraction(1, 1_000_000), 33_367, 12_345),
    "milli": (Fraction(1, 1000), 40, 0),
    "coarse": (Fraction(1, 25), 3, 1),
}


@pytest.mark.parametrize("name", TIME_BASES)
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_times_are_those_of_the_source(tmp_path, info, maker, read_video, suffix, name):
    time_base, step, first = TIME_BASES[name]
    make = maker(time_base=time_base)
    # Variable rate: every third gap is a quarter longer.
    pts = list(itertools.accumulate((step + (i % 3 == 0) * (step // 4) for i in range(40)), initial=first))
    path = tmp_path / f"a{suffix}"
    write(path, info, (make.segmentation(i, p) for i, p in enumerate(pts)))
    expected = [p * time_base for p in pts]
    got = read_video(path).times_s
    assert len(got) == len(expected)
    if suffix == ".mkv":  # counts milliseconds
        assert max(abs(a - b) for a, b in zip(got, expected, strict=True)) <= Fraction(1, 1000)
    else:
        assert got == expected


def test_finer_time_bases_than_mp4_can_hold_are_rounded_to_microseconds(tmp_path, info, maker, read_video):
    make = maker(time_base=Fraction(1, 10**12))
    write(tmp_path / "a.mp4", info, (make.segmentation(i, i * 40 * 10**9 + 1) for i in range(5)))
    assert read_video(tmp_path / "a.mp4").times_s == [Fraction(40 * i, 1000) for i in range(5)]


def test_later_frames_with_another_time_base_are_rescaled(tmp_path, info, maker, read_video, warnings_list):
    fine, coarse = maker(time_base=Fraction(1, 1000)), maker(time_base=Fraction(1, 25))
    write(tmp_path / "a.mp4", info, [fine.segmentation(0, 0), coarse.segmentation(1, 1), fine.segmentation(2, 80)],
          warnings_list)  # fmt: skip
    assert read_video(tmp_path / "a.mp4").times_s == [0, Fraction(1, 25), Fraction(2, 25)]
    assert warnings_list == []


def test_times_that_do_not_grow_move_by_a_tick_and_are_told(tmp_path, info, maker, read_video, warnings_list):
    make = maker(time_base=Fraction(1, 1000))
    pts = [0, 40, 40, 30, 80]
    write(tmp_path / "a.mp4", info, (make.segmentation(i, p) for i, p in enumerate(pts)), warnings_list)
    assert [t * 1000 for t in read_video(tmp_path / "a.mp4").times_s] == [0, 40, 41, 42, 80]
    assert len(warnings_list) == 2
    assert "frame 2" in warnings_list[0]
    assert "2 frames" in warnings_list[1]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_negative_times_are_shifted_to_zero_and_told(tmp_path, info, maker, read_video, warnings_list, suffix):
    make = maker(time_base=Fraction(1, 1000))
    write(tmp_path / f"a{suffix}", info, (make.segmentation(i, i * 40 - 80) for i in range(5)), warnings_list)
    assert [t * 1000 for t in read_video(tmp_path / f"a{suffix}").times_s] == [0, 40, 80, 120, 160]
    assert len(warnings_list) == 1 and "-0.080 s" in warnings_list[0]


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_finished_file_is_an_ordinary_indexed_one(tmp_path, info, maker, read_video, suffix):
    path = tmp_path / f"a{suffix}"
    write(path, info, (maker().segmentation(i) for i in range(100)))
    assert "moov" in boxes(path) and "moof" not in boxes(path)
    decoded = read_video(path)
    assert decoded.announced_frames == 100
    assert decoded.duration_s == pytest.approx(4.0, abs=0.001)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_players_can_jump(tmp_path, info, maker, suffix):
    import av

    path = tmp_path / f"a{suffix}"
    # The same picture again and again, or x264 would put key frames where pictures change.
    write(path, info, (maker().segmentation(0, pts=i) for i in range(150)))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        container.seek(int(5.2 / stream.time_base), stream=stream)
        picture = next(container.decode(stream))
        # There is a key frame every two seconds, so the jump lands at most that far before.
        assert picture.pts is not None
        assert 3.1 < float(picture.pts * stream.time_base) <= 5.2


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("format", ["i420", "nv12"])
@pytest.mark.parametrize("threads", [1, 4])
def test_planes_reach_the_encoder_unchanged(tmp_path, info, maker, read_video, suffix, format, threads):
    make = maker(width=98, height=50, format=format)
    path = tmp_path / f"a{suffix}"
    write(path, info, (make.segmentation(i) for i in range(30)), threads=threads, **LOSSLESS)
    for index, (y, u, v) in enumerate(read_video(path).planes):
        source = make.frame(index).planes
        expected = source if format == "i420" else (source[0], source[1][:, :, 0], source[1][:, :, 1])
        for got, wanted in zip((y, u, v), expected, strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_bgr_becomes_bt709_rounded_to_nearest(tmp_path, info, maker, read_video):
    make = maker(format="bgr24", matrix="bt601", full_range=True)  # which say nothing about BGR
    write(tmp_path / "a.mp4", info, [make.segmentation(0)], **LOSSLESS)
    decoded = read_video(tmp_path / "a.mp4")
    assert decoded.colors == (1, 1, 1, 1)
    blue, green, red = (make.frame(0).planes[0][:, :, c].astype(float) / 255 for c in range(3))
    kr, kb = LUMA_WEIGHTS["bt709"]
    luma = kr * red + (1 - kr - kb) * green + kb * blue

    def halved(plane):
        return plane.reshape(24, 2, 32, 2).mean((1, 3))

    exact = (
        16 + 219 * luma,
        128 + 224 * halved((blue - luma) / (2 * (1 - kb))),
        128 + 224 * halved((red - luma) / (2 * (1 - kr))),
    )
    for got, wanted in zip(decoded.planes[0], exact, strict=True):
        error = got - wanted
        assert np.abs(error).max() < 0.75  # 0.5 is exact rounding; truncation reaches 1
        assert abs(error.mean()) < 0.1  # truncation is at -0.5


@pytest.mark.parametrize("format", ["i420", "nv12"])
@pytest.mark.parametrize(
    ("matrix", "full_range", "codes"),
    [
        ("bt601", False, (6, 6, 6, 1)),
        ("bt709", False, (1, 1, 1, 1)),
        ("bt709", True, (1, 1, 1, 2)),
        ("bt2020", False, (9, 14, 9, 1)),
    ],
)
def test_colors_are_declared_as_the_source_declares_them(
    tmp_path, info, maker, read_video, format, matrix, full_range, codes
):
    make = maker(format=format, matrix=matrix, full_range=full_range)
    for suffix in (".mp4", ".mkv"):
        write(tmp_path / f"a{suffix}", info, (make.segmentation(i) for i in range(3)))
        assert read_video(tmp_path / f"a{suffix}").colors == codes


@pytest.mark.parametrize("format", ["i420", "nv12", "bgr24"])
def test_odd_sizes_repeat_the_last_column_and_row(tmp_path, info, maker, read_video, warnings_list, format):
    make = maker(width=63, height=49, format=format)
    write(tmp_path / "a.mp4", info, (make.segmentation(i) for i in range(3)), warnings_list, **LOSSLESS)
    decoded = read_video(tmp_path / "a.mp4")
    assert decoded.size == (64, 50)
    luma = decoded.planes[2][0]
    np.testing.assert_array_equal(luma[:, 63], luma[:, 62])
    np.testing.assert_array_equal(luma[49], luma[48])
    if format != "bgr24":
        np.testing.assert_array_equal(luma[:49, :63], make.frame(2).planes[0])
    assert len(warnings_list) == 1 and "63x49 is written as 64x50" in warnings_list[0]


def test_frames_of_another_size_are_scaled_and_told_once(tmp_path, info, maker, read_video, warnings_list):
    small, large = maker(), maker(width=128, height=96)
    write(tmp_path / "a.mp4", info, [small.segmentation(0), large.segmentation(1), large.segmentation(2)],
          warnings_list, **LOSSLESS)  # fmt: skip
    decoded = read_video(tmp_path / "a.mp4")
    assert decoded.size == (64, 48) and len(decoded.times_s) == 3
    expected = large.frame(1).planes[0].reshape(48, 2, 64, 2).mean((1, 3))
    assert np.abs(decoded.planes[1][0] - expected).mean() < 2
    assert len(warnings_list) == 1 and "128x96 at frame 1" in warnings_list[0]


def test_frames_of_another_format_or_matrix_keep_their_look(tmp_path, info, maker, read_video):
    grey = np.full((48, 64, 3), 128, np.uint8)
    first = maker().segmentation(0)
    bgr = maker(format="bgr24").segmentation(1)
    bgr.overlay = bgr.frame.with_planes((grey,))
    full = maker(full_range=True).segmentation(2)
    full.overlay = full.frame.with_planes(
        (np.full((48, 64), 128, np.uint8), np.full((24, 32), 128, np.uint8), np.full((24, 32), 128, np.uint8))
    )
    write(tmp_path / "a.mp4", info, [first, bgr, full], **LOSSLESS)
    for planes in read_video(tmp_path / "a.mp4").planes[1:]:
        # Mid grey, 128 of 255, is 16 + 219 * 128 / 255 in limited range.
        for plane, level in zip(planes, (126, 128, 128), strict=True):
            assert np.abs(plane.astype(int) - level).max() <= 1


def test_nothing_is_touched_before_the_first_frame(tmp_path, info):
    old = tmp_path / "old.mp4"
    old.write_bytes(b"precious")
    for path in (old, tmp_path / "new" / "a.mp4"):
        sink = write(path, info, [])
        sink.close()
        assert "nothing written" in sink.description
    assert old.read_bytes() == b"precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["old.mp4"]


def test_folders_are_made_and_an_old_file_is_replaced(tmp_path, info, maker, read_video):
    path = tmp_path / "a" / "b" / "x.MP4"
    for count in (30, 3):
        sink = write(path, info, (maker().segmentation(i) for i in range(count)))
        sink.close()
        assert len(read_video(path).times_s) == count
    assert "3 frames, 64x48" in sink.description


def test_a_folder_in_the_way_is_an_error(tmp_path, info):
    (tmp_path / "a.mp4").mkdir()
    with pytest.raises(SinkError, match="is a folder"):
        VideoSink(tmp_path / "a.mp4", print).open(info, RunStats())


def test_unknown_rate_still_gives_a_file(tmp_path, maker, read_video):
    from segcam.classes import CITYSCAPES

    live = StreamInfo("rtsp://camera", 64, 48, None, None, True, CITYSCAPES)
    write(tmp_path / "a.mkv", live, (maker().segmentation(i) for i in range(3)))
    assert len(read_video(tmp_path / "a.mkv").times_s) == 3


def test_real_street_video(tmp_path, read_video):
    data = Path(__file__).resolve().parents[3] / "shared" / "data"
    clip = data / "video" / "carnd_vehicle_test_video_1280x720.mp4"
    if not clip.is_file():
        pytest.skip("needs ../shared/data, which is not part of the repository")
    import av

    from segcam.classes import CITYSCAPES
    from segcam.frame import Frame, Segmentation

    def segmentations():
        with av.open(str(clip)) as container:
            for index, picture in enumerate(itertools.islice(container.decode(video=0), 20)):
                planes = tuple(
                    np.frombuffer(p, np.uint8).reshape(-1, p.line_size)[: p.height, : p.width] for p in picture.planes
                )
                frame = Frame(index, picture.pts, picture.time_base, 0.0, "x", 1280, 720, "i420", planes)
                originals.append((frame.pts * frame.time_base, planes[0].copy()))
                yield Segmentation(frame, planes[0], frame, np.zeros(19, np.int64), CITYSCAPES)

    originals: list[tuple[Fraction, np.ndarray]] = []
    info = StreamInfo("x", 1280, 720, Fraction(25), None, False, CITYSCAPES)
    write(tmp_path / "a.mp4", info, segmentations())
    decoded = read_video(tmp_path / "a.mp4")
    assert decoded.times_s == [time for time, _ in originals]
    for planes, (_, luma) in zip(decoded.planes, originals, strict=True):
        assert np.mean((planes[0].astype(float) - luma) ** 2) < 10  # 38 dB
