"""Video files: planes, times, selection, and everything that can be wrong with them."""

from __future__ import annotations

import gc
import os
import struct
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from segcam.errors import SourceError, SourceTruncatedError, UsageError
from segcam.sources.base import SourceOptions
from segcam.sources.factory import make_source


def number_of(frame) -> int:
    return (int(frame.planes[0][0, 0]) - 16) // 8


def random_420(size: tuple[int, int], count: int = 3):
    rng = np.random.default_rng(5)
    width, height = size
    shapes = [(height, width), (-(-height // 2), -(-width // 2)), (-(-height // 2), -(-width // 2))]
    return [tuple(rng.integers(0, 256, shape, np.uint8) for shape in shapes) for _ in range(count)]


@pytest.mark.parametrize("size", [(64, 48), (53, 37), (1, 1)])
def test_planes_are_the_decoders_bytes(make_video, read_all, size):
    frames = random_420(size)
    path = make_video("a.mkv", frames, size=size, codec="ffv1")
    got = read_all(make_source(str(path)))
    assert len(got) == 3
    for frame, planes in zip(got, frames, strict=True):
        assert (frame.format, frame.width, frame.height) == ("i420", *size)
        for mine, theirs in zip(frame.planes, planes, strict=True):
            assert mine.dtype == np.uint8 and np.array_equal(mine, theirs)


def test_planes_are_views_that_outlive_the_source_and_refuse_writing(make_video, read_all):
    frames = random_420((53, 37), 6)
    path = make_video("a.mkv", frames, size=(53, 37), codec="ffv1")
    got = read_all(make_source(str(path)))
    gc.collect()
    for frame, planes in zip(got, frames, strict=True):
        assert frame.owner is not None and not frame.planes[0].flags.owndata
        assert np.array_equal(frame.planes[0], planes[0]) and np.array_equal(frame.planes[2], planes[2])
        with pytest.raises(ValueError):
            frame.planes[0][0, 0] = 1


def test_nv12_stays_nv12(make_video, read_all):
    rng = np.random.default_rng(1)
    luma, pairs = rng.integers(0, 256, (48, 64), np.uint8), rng.integers(0, 256, (24, 32, 2), np.uint8)
    path = make_video("a.nut", [(luma, pairs)], codec="rawvideo", pix_fmt="nv12")
    (frame,) = read_all(make_source(str(path)))
    assert frame.format == "nv12" and frame.planes[1].shape == (24, 32, 2)
    assert np.array_equal(frame.planes[0], luma) and np.array_equal(frame.planes[1], pairs)


@pytest.mark.parametrize(
    ("color", "size", "expected"),
    [
        ((1, 1), (64, 48), ("bt709", False)),
        ((6, 1), (64, 48), ("bt601", False)),
        ((5, 2), (64, 48), ("bt601", True)),
        ((9, 1), (64, 48), ("bt2020", False)),
        (None, (64, 48), ("bt601", False)),
        (None, (64, 720), ("bt709", False)),
    ],
)
def test_matrix_and_range_as_declared(make_video, read_all, color, size, expected):
    path = make_video("a.mp4", 2, size=size, color=color)
    frame = read_all(make_source(str(path)))[0]
    assert (frame.matrix, frame.full_range) == expected


def test_video_is_found_behind_the_audio(make_video, read_all):
    path = make_video("a.mp4", 5, audio_first=True)
    with av.open(str(path)) as container:
        assert container.streams[0].type == "audio"
    assert [number_of(frame) for frame in read_all(make_source(str(path)))] == [0, 1, 2, 3, 4]


def test_variable_times_are_kept(make_video, read_all):
    times = [0, 40, 200, 240, 560, 600]
    path = make_video("a.mkv", 6, codec="ffv1", pts=times, time_base=Fraction(1, 1000))
    got = read_all(make_source(str(path)))
    assert [frame.pts * frame.time_base * 1000 for frame in got] == times
    assert all(type(frame.time_base) is Fraction and type(frame.pts) is int for frame in got)


def test_info_says_what_is_announced(make_video):
    path = make_video("a.mp4", 12)
    source = make_source(str(path), SourceOptions(every=5, loops=2))
    info = source.open()
    source.close()
    assert (info.width, info.height, info.rate_hz, info.frames) == (64, 48, Fraction(5), 6)
    assert not info.live and not info.still and "a.mp4" in info.description


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
@pytest.mark.parametrize(("start_s", "first"), [(0.0, 0), (0.2, 5), (0.6, 15), (0.63, 16), (0.76, 19)])
def test_start_is_exact_whatever_the_container(make_video, read_all, suffix, start_s, first):
    # B-frames and a keyframe only every eighth frame: a seek lands before, or (TS) behind the wanted time.
    options = {"g": "8", "bf": "2", "preset": "medium"} if suffix != "avi" else {"g": "8"}
    codec = "libx264" if suffix != "avi" else "ffv1"
    path = make_video(f"a.{suffix}", 20, codec=codec, options=options)
    got = read_all(make_source(str(path), SourceOptions(start_s=start_s)))
    assert [number_of(frame) for frame in got] == list(range(first, 20))


def test_start_every_frames_and_loop_together(make_video, read_all):
    path = make_video("a.mp4", 10)
    options = SourceOptions(start_s=0.08, every=3, frames=7, loops=0)
    source = make_source(str(path), options)
    got = read_all(source)
    assert [number_of(frame) for frame in got] == [2, 5, 8, 2, 5, 8, 2]
    assert [frame.index for frame in got] == list(range(7))
    # A round is 8 frames long, the two that --every leaves out after the last one included.
    assert [frame.time_s for frame in got] == pytest.approx([n / 25 for n in (2, 5, 8, 10, 13, 16, 18)])


def test_announced_equals_given(make_video, read_all):
    path = make_video("a.mp4", 10)
    for options in (
        SourceOptions(every=3),
        SourceOptions(start_s=0.08, every=4),
        SourceOptions(loops=3, frames=25),
        SourceOptions(frames=4),
        SourceOptions(loops=0, frames=33),
    ):
        source = make_source(str(path), options)
        announced = source.open().frames
        source.close()
        assert announced == len(read_all(make_source(str(path), options)))


def test_endless_loop_keeps_neither_files_nor_memory(make_video):
    path = make_video("a.mp4", 2)
    source = make_source(str(path), SourceOptions(loops=0))
    assert source.open().frames is None

    def resident_pages() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    last, settled, opened = -1, 0, 0
    for count in range(600):
        frame = source.read()
        assert frame is not None and frame.index == count and frame.pts > last
        last = frame.pts
        if count == 200:
            gc.collect()
            settled, opened = resident_pages(), len(os.listdir("/proc/self/fd"))
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == opened
    # 200 rounds of a leak of one decoder (some 100 kB) would be 20 MB.
    assert resident_pages() - settled < 8_000_000 // os.sysconf("SC_PAGE_SIZE")
    source.close()
    source.close()
    assert source.read() is None


def test_start_behind_the_end(make_video):
    path = make_video("a.mp4", 10)
    with pytest.raises(SourceError, match=r"--start 5 s is behind the end \(it lasts 0.40 s\)"):
        make_source(str(path), SourceOptions(start_s=5)).open()
    raw = make_video("a.h264", 10)
    with pytest.raises(SourceError, match="behind the end"):
        make_source(str(raw), SourceOptions(start_s=5)).open()


def test_raw_stream_without_times_or_count(make_video, read_all):
    path = make_video("a.h264", 8)
    got = read_all(make_source(str(path)))
    assert [number_of(frame) for frame in got] == list(range(8))
    assert all(b.pts > a.pts for a, b in pairwise(got))


def test_interrupt_ends_reading(make_video):
    source = make_source(str(make_video("a.mp4", 10)))
    source.open()
    assert source.read() is not None
    source.interrupt()
    assert source.read() is None
    source.close()


@pytest.mark.parametrize("threads", [1, 4])
def test_more_threads_change_nothing(make_video, read_all, threads):
    path = make_video("a.mp4", 15, options={"bf": "2", "preset": "medium"})
    got = read_all(make_source(str(path), SourceOptions(threads=threads)))
    assert [number_of(frame) for frame in got] == list(range(15))


def test_size_change_in_mid_stream(make_video, read_all):
    first, second = make_video("a.ts", 4), make_video("b.ts", 4, size=(96, 80))
    both = first.with_name("c.ts")
    both.write_bytes(first.read_bytes() + second.read_bytes())
    got = read_all(make_source(str(both)))
    assert [(f.width, f.height) for f in got] == [(64, 48)] * 4 + [(96, 80)] * 4
    assert all(f.planes[0].shape == (f.height, f.width) for f in got)


_MATRICES = {
    90: (0, 1, -1, 0),
    180: (-1, 0, 0, -1),
    270: (0, -1, 1, 0),
}


def turn_file(path: Path, degrees: int) -> None:
    """Writes a display matrix that turns clockwise into the track header, which PyAV 17 cannot."""
    a, b, c, d = _MATRICES[degrees]
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    one = 1 << 16
    struct.pack_into(">9i", data, at, a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_display_rotation_is_applied(make_video, read_all, degrees):
    planes = random_420((64, 48), 1)
    path = make_video("a.mp4", planes)
    turn_file(path, degrees)
    source = make_source(str(path))
    info = source.open()
    frame = source.read()
    source.close()
    assert (info.width, info.height) == ((48, 64) if degrees != 180 else (64, 48)) == (frame.width, frame.height)
    for mine, stored in zip(frame.planes, planes[0], strict=True):
        assert np.array_equal(mine, np.rot90(stored, -degrees // 90)) and mine.flags.c_contiguous


def packet_places(path: Path) -> list[tuple[int, int]]:
    with av.open(str(path)) as container:
        return [(p.pos, p.size) for p in container.demux(container.streams.video[0]) if p.size]


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("bad", [6, 17])
def test_a_damaged_packet_is_left_out_and_told(make_video, read_all, capfd, threads, bad):
    path = make_video("a.mp4", 20, options={"g": "1"})
    place, size = packet_places(path)[bad]
    data = bytearray(path.read_bytes())
    data[place : place + size] = b"\xff" * size
    path.write_bytes(data)
    warnings: list[str] = []
    got = read_all(make_source(str(path), SourceOptions(threads=threads), warnings.append))
    assert [number_of(frame) for frame in got] == [n for n in range(20) if n != bad]
    assert len(warnings) == 1 and "1 damaged packet was left out" in warnings[0] and "a.mp4" in warnings[0]
    assert capfd.readouterr() == ("", "")


def test_damaged_first_frames_are_left_out(make_video, read_all):
    path = make_video("a.mp4", 10, options={"g": "1"})
    data = bytearray(path.read_bytes())
    for place, size in packet_places(path)[:3]:
        data[place : place + size] = b"\xff" * size
    path.write_bytes(data)
    warnings: list[str] = []
    got = read_all(make_source(str(path), warn=warnings.append))
    assert [number_of(frame) for frame in got] == list(range(3, 10))
    assert "3 damaged packets were left out, the first near 0.00 s" in warnings[0]


def test_nothing_decodable(make_video):
    path = make_video("a.mp4", 6, options={"g": "1"})
    data = bytearray(path.read_bytes())
    for place, size in packet_places(path):
        data[place : place + size] = b"\xff" * size
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"a\.mp4: none of its 6 video packets can be decoded"):
        make_source(str(path), warn=lambda _: None).open()


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("start_s", [0.0, 0.2])
def test_cut_file_gives_all_it_has_then_says_so(make_video, read_all, capfd, threads, inside, start_s):
    path = make_video("a.mp4", 20, options={"g": "5", "movflags": "+faststart"})
    head = make_video("b.mp4", 20, options={"g": "5"})
    data = _index_first(head.read_bytes())
    path.write_bytes(data)
    place, size = packet_places(path)[12]
    path.write_bytes(data[: place + (size // 2 if inside else 0)])
    errors: list[SourceError] = []
    options = SourceOptions(threads=threads, start_s=start_s)
    got = read_all(make_source(str(path), options, lambda _: None), errors=errors)
    assert [number_of(frame) for frame in got] == list(range(round(start_s * 25), 12))
    assert len(errors) == 1 and isinstance(errors[0], SourceTruncatedError)
    assert "incomplete or damaged" in str(errors[0]) and "a.mp4" in str(errors[0])
    if not start_s:
        assert "announces 20 frames in all, only 12 could be read" in str(errors[0])
    assert capfd.readouterr() == ("", "")


def _index_first(data: bytes) -> bytes:
    """The same MP4 with ``moov`` before ``mdat``: its chunk offsets move by moov's length."""
    boxes, at = {}, 0
    while at < len(data):
        size = struct.unpack_from(">I", data, at)[0]
        boxes[data[at + 4 : at + 8]] = data[at : at + size]
        at += size
    moov = bytearray(boxes[b"moov"])
    table = moov.index(b"stco") + 8
    count = struct.unpack_from(">I", moov, table)[0]
    for n in range(count):
        where = table + 4 + 4 * n
        struct.pack_into(">I", moov, where, struct.unpack_from(">I", moov, where)[0] + len(moov))
    rest = b"".join(box for kind, box in boxes.items() if kind not in (b"moov", b"ftyp"))
    return boxes[b"ftyp"] + bytes(moov) + rest


def test_mp4_without_index(make_video):
    path = make_video("a.mp4", 5)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4])
    with pytest.raises(SourceError, match="without its index"):
        make_source(str(path)).open()


def test_files_that_are_no_video(tmp_path, make_video):
    empty, text, noise = tmp_path / "e.mp4", tmp_path / "t.mp4", tmp_path / "n.mp4"
    empty.write_bytes(b"")
    text.write_text("Grüße, this is no video\n" * 50, encoding="utf-8")
    noise.write_bytes(np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes())
    for path, says in ((empty, "empty"), (text, "text file"), (noise, "not a video or image")):
        with pytest.raises(SourceError, match=says) as caught:
            make_source(str(path)).open()
        assert path.name in str(caught.value)


def test_audio_only(tmp_path):
    path = tmp_path / "a.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(SourceError, match="no video stream; found only: 1 audio"):
        make_source(str(path)).open()


def test_missing_file_names_its_neighbour(make_video):
    path = make_video("dashcam_evening.mp4", 2)
    with pytest.raises(SourceError) as caught:
        make_source(str(path.with_name("dashcam_evenng.mp4")))
    assert "no such file" in caught.value.message and "dashcam_evening.mp4" in caught.value.hint


@pytest.mark.parametrize(
    "options",
    [
        SourceOptions(start_s=-1),
        SourceOptions(start_s=float("nan")),
        SourceOptions(every=0),
        SourceOptions(frames=-1),
        SourceOptions(loops=-1),
        SourceOptions(threads=-1),
    ],
)
def test_senseless_options_are_refused(options):
    with pytest.raises(UsageError):
        make_source("test:", options)
