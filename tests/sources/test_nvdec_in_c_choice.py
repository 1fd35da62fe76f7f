"""What the real FFmpeg makes of streams that NVDEC does not take, and that NVDEC in C refuses what NVDEC refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import nvdec_in_c_runs
import pytest
from av.bitstream import BitStreamFilterContext
from nvdec_in_c_runs import LET_GO, Run, write

# Fixtures are found by being here.
libraries, run = nvdec_in_c_runs.libraries, nvdec_in_c_runs.run

UNFIT: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "codec": ("a.mp4", "does not take it (yuv420p, 64x48)", {"codec": "libx264", "size": (64, 48)}, "h264"),
    "too small": ("a.mp4", "does not take it (yuv420p, 64x64)", {"codec": "libx265", "size": (64, 64)}, ""),
    "h264 10 bits": (
        "a.mp4",
        "does not take it (yuv420p10le, 64x48)",
        {"codec": "libx264", "size": (64, 48), "pix_fmt": "yuv420p10le"},
        "",
    ),
    "4:2:2": (
        "a.mp4",
        "does not take it (yuv422p, 64x48)",
        {"codec": "libx264", "size": (64, 48), "pix_fmt": "yuv422p"},
        "",
    ),
    "cut at the left": ("a.mp4", "come with a rim (64x48)", {"codec": "libx264", "size": (64, 48), "cut": True}, ""),
    "odd size": ("a.webm", "come with a rim (162x132)", {"codec": "libvpx-vp9", "size": (161, 131)}, ""),
}


def cut_off(path: Path, filters: str) -> Path:
    """A copy whose stream says, as that filter writes it, which part of each picture is to be shown."""
    copy = path.with_stem("cut")
    with av.open(str(path)) as source, av.open(str(copy), "w") as target:
        stream = source.streams.video[0]
        out = target.add_stream_from_template(stream)
        cutter = BitStreamFilterContext(filters, stream, out)
        for packet in source.demux(stream):
            for cut in cutter.filter(packet if packet.size else None):
                cut.stream = out
                target.mux(cut)
    return copy


@pytest.mark.parametrize("name", UNFIT)
def test_what_nvdec_does_not_take_is_decoded_on_the_cpu(run: Run, tmp_path: Path, name: str) -> None:
    """No frame is lost, it is said once; an error where NVDEC was asked for by name."""
    file, words, how, refuses = UNFIT[name]
    how = dict(how)
    cut = how.pop("cut", False)
    path = write(tmp_path / file, how.pop("codec"), how.pop("size"), **how)
    if cut:
        path = cut_off(path, "h264_metadata=crop_left=8:crop_top=4")
    program = """
import numpy as np
plain, _ = read_all(loops=2)
gpu = open_driver("cuda-python")
frames, info = read_all(gpu=gpu, loops=2)
assert times(frames) == times(plain) and len(frames) == 24 and "NVDEC" not in info.description
for mine, other in zip(frames, plain, strict=True):
    assert mine.device is None and mine.format == other.format
    assert all(np.array_equal(a, b) for a, b in zip(mine.planes, other.planes, strict=True))
(line,) = said
assert line.startswith(f"{path}: decoded on the CPU, because NVDEC cannot: ") and sys.argv[2] in line, line
source = make_source(path, SourceOptions(gpu=gpu, decode="nvdec"), said.append)
try:
    source.open()
    raise AssertionError("opened")
except SourceError as error:
    assert "NVDEC cannot decode it" in error.message and sys.argv[2] in error.message, error
    assert error.hint == "Let the CPU decode: --decode cpu."
assert current_context() is None and len(said) == 1
gpu.close()
assert gpu.released
"""
    run(program, path, words, NVDEC_REFUSES=refuses)


@pytest.mark.parametrize("decode", ["auto", "nvdec"])
def test_the_gpu_is_let_go_of_where_the_cpu_takes_over(run: Run, tmp_path: Path, decode: str) -> None:
    """A rim shows after NVDEC's first picture, so that there is a decoder to be rid of."""
    path = write(tmp_path / "a.webm", "libvpx-vp9", (161, 131))
    program = """
gpu = open_driver("cuda-python")
kept, decode = [], sys.argv[2]
try:
    source, _ = open_(gpu=gpu, decode=decode)
    kept.append(source.read())
except SourceError as error:
    kept.append(error)
"""
    run(program + LET_GO, path, decode)


def test_by_name_without_a_network_on_the_gpu_pictures_come_down(run: Run, tmp_path: Path) -> None:
    """FFmpeg then makes a context of its own."""
    path = write(tmp_path / "a.mp4", "libx265", (160, 144), "yuv420p10le")
    program = """
frames, info = read_all(decode="nvdec")
assert info.description.endswith(", NVDEC)") and len(frames) == 12 and not said
for frame, seed in zip(frames, seeds(path), strict=True):
    assert frame.device is None
    check_host(frame, seed, 10)
"""
    run(program, path)


@pytest.mark.parametrize(
    ("name", "on_gpu", "lines"),
    [
        ("02_cut_in_middle.mp4", True, 0),
        ("06_resolution_change.ts", True, 0),
        ("07b_odd_853x481_vp9_yuv420.webm", False, 1),
        ("14_variable_frame_rate.mp4", True, 0),
        ("16_hevc_10bit.mp4", True, 0),
        ("18_display_matrix_rotate90.mp4", False, 1),
    ],
)
def test_real_clips_have_the_frames_that_they_have_on_the_cpu(
    run: Run, shared: Path, name: str, on_gpu: bool, lines: int
) -> None:
    """Damaged and odd ones, with the same errors; ``lines``: how many more are said."""
    program = """
def read(**options):
    said.clear()
    frames, error = [], None
    source, _ = open_(**options)
    try:
        while (frame := source.read()) is not None:
            frames.append(frame)
    except SourceError as caught:
        error = str(caught)
    source.close()
    return times(frames), error, [frame.device is not None for frame in frames], len(said)
gpu = open_driver("cuda-python")
plain, mine = read(), read(gpu=gpu)
assert mine[:2] == plain[:2] and len(mine[0]) >= 10, (mine[:2], plain[:2])
assert mine[2][0] == bool(int(sys.argv[2])) and mine[3] - plain[3] == int(sys.argv[3]), (mine[2:], said)
gpu.close()
assert gpu.released
"""
    run(program, shared / "broken" / name, int(on_gpu), lines)


# --- what the rest stands on


def test_ffmpeg_refuses_the_primary_context_once_it_is_active(run: Run, tmp_path: Path) -> None:
    """Why ``Nvdec.accelerator`` asks for the current context."""
    path = write(tmp_path / "a.mp4", "libx264", (64, 48))
    program = """
import av, errno
from av.codec.hwaccel import HWAccel
gpu = open_driver("cuda-python")
with gpu.current():
    try:
        av.open(path, hwaccel=HWAccel("cuda", is_hw_owned=True))
        raise AssertionError("opened")
    except OSError as error:
        assert error.errno == errno.ENOTSUP, error
gpu.close()
"""
    run(program, path)


def test_nvdec_in_c_refuses_what_nvdec_refuses(run: Run, tmp_path: Path) -> None:
    """Without that the tests above would prove little."""
    program = """
import ctypes, struct
nvdec, gpu = ctypes.CDLL("libnvcuvid.so.1"), open_driver("cuda-python")
def wish(codec, width, height, surfaces=4, outputs=1):
    start = struct.pack("QQQii6Q8xiiQQQ", width, height, surfaces, codec, 1, *[0] * 6, 0, 0, width, height, outputs)
    return ctypes.create_string_buffer(start + bytes(200))
def order(index, bits, tile=(0, 0)):
    data, offsets = ctypes.create_string_buffer(bits), struct.pack("II", *tile)
    offsets = ctypes.create_string_buffer(offsets)
    addresses = [ctypes.addressof(thing) for thing in (data, offsets)]
    head = struct.pack("6iI4xQI4xQ", 4, 3, index, 0, 0, 0, len(bits), addresses[0], 1, addresses[1])
    return ctypes.create_string_buffer(head + bytes(5000)), data, offsets
handle, address, pitch = ctypes.c_void_p(), ctypes.c_ulonglong(), ctypes.c_uint()
def create(*arguments):
    return nvdec.cuvidCreateDecoder(ctypes.byref(handle), wish(*arguments))
def decode(index, bits, tile=(0, 0)):
    made = order(index, bits, tile)
    return nvdec.cuvidDecodePicture(handle, made[0])
def map_(index):
    return nvdec.cuvidMapVideoFrame64(handle, index, ctypes.byref(address), ctypes.byref(pitch), bytes(300))
assert create(4, 64, 48) == 201
with gpu.current():
    assert [create(*bad) for bad in ((4, 32, 32), (8, 64, 48), (1, 64, 48), (4, 8192, 48))] == [801] * 4
    assert create(4, 64, 48, 33) == create(4, 64, 48, 4, 0) == 1
    assert create(4, 64, 48) == 0
    slice_ = bytes([0, 0, 1, 0x65, 1, 2, 3])
    assert decode(4, slice_) == decode(-1, slice_) == decode(0, slice_[1:]) == map_(2) == 1
    assert decode(2, slice_) == 0 and map_(2) == 0
    first = ctypes.string_at(address.value, 8)
    assert map_(2) == 205
assert nvdec.cuvidUnmapVideoFrame64(handle, address) == map_(2) == 201
with gpu.current():
    assert nvdec.cuvidDestroyDecoder(handle) == 1
    assert nvdec.cuvidUnmapVideoFrame64(handle, address) == 0
    assert ctypes.string_at(address.value, 8) == bytes([0xEE]) * 8 != first
    assert nvdec.cuvidUnmapVideoFrame64(handle, address) == 1
    assert nvdec.cuvidDestroyDecoder(handle) == 0
    assert create(11, 64, 64) == 801 and create(11, 160, 144) == 0
    assert decode(0, bytes(9), (0, 10)) == decode(0, bytes(9), (3, 3)) == 1 and decode(0, bytes(9), (0, 9)) == 0
    assert nvdec.cuvidDestroyDecoder(handle) == 0
gpu.close()
"""
    assert sum("REFUSED" in line for line in run(program, "", refused=True)) == 19
