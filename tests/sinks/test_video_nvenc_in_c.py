"""The real FFmpeg encoding "on a GPU": PyAV's own NVENC path over a driver and an NVENC in C. Pictures of the host.

What the stand-ins cannot show: which NVENC FFmpeg makes of our options, and what it says where there is none. NVENC in
C loses nothing: what is decoded from the file is what it was given.
"""

from __future__ import annotations

import re
from pathlib import Path

import nvenc_in_c_runs
import pytest
from nvenc_in_c_runs import Run, after

from segcam.settings import PRESETS

# Fixtures are found by being here.
libraries, run = nvenc_in_c_runs.libraries, nvenc_in_c_runs.run


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("form", ["nv12", "i420"])
def test_pictures_of_the_host_arrive_as_they_are(run: Run, tmp_path: Path, suffix: str, form: str) -> None:
    program = """
assert nvenc_problem(Encoder("h264_nvenc", 23, "superfast"), SIZE) is None
made = sink(path, said, encode="nvenc")
assert not made.takes_device_overlays
for number in range(60):
    write(made, host_frame(number, form=sys.argv[2]))
made.close()
assert not said and "60 frames, 150x54, H.264 NVENC p1 quality 23, " in made.description, (said, made.description)
check(path, list(range(60)))
"""
    lines = after(run(program, tmp_path / f"a.{suffix}", form), "nvenc session")
    assert lines[0] == "nvenc session on context 1"  # one of its own
    assert "150x54 p1 tuning 1, 25/1 Hz, mode 1 qp 0 quality 23 bit rate 0, gop 50 interval 1 lookahead 0" in lines[1]
    assert sum(" from its own " in line for line in lines) == 60


def test_odd_sizes_become_even_ones(run: Run, tmp_path: Path) -> None:
    program = """
size = (151, 55)
made = sink(path, said, size, encode="nvenc")
for number in range(3):
    write(made, host_frame(number, size))
made.close()
found = decoded(path)
assert list(found) == [0, 1, 2]
for number, (y, u, v) in found.items():
    wanted = planes(number, size)
    assert y.shape == (56, 152) and (y[:55, :151] == wanted[0]).all() and (y[:55, 151] == wanted[0][:, 150]).all()
    assert (u == wanted[1]).all() and (v == wanted[2]).all()
"""
    run(program, tmp_path / "a.mp4")


def test_colours_are_in_the_stream_itself(run: Run, tmp_path: Path) -> None:
    """Players believe what H.264 says before what the container says."""
    program = """
import av
made = sink(path, said, encode="nvenc")
write(made, dataclasses.replace(host_frame(0), matrix="bt601", full_range=True))
made.close()
with av.open(path) as container:
    packet = next(container.demux(video=0))
    codec = av.CodecContext.create("h264", "r")
    codec.extradata = container.streams.video[0].codec_context.extradata
    (picture,) = codec.decode(packet) + codec.decode(None)
    print(picture.colorspace, picture.color_range)
    assert picture.colorspace in (5, 6) and picture.color_range == 2
"""
    run(program, tmp_path / "a.mp4")


@pytest.mark.parametrize("preset", PRESETS)
def test_no_preset_keeps_more_than_one_picture_back(run: Run, tmp_path: Path, preset: str) -> None:
    """The best of NVENC's presets look ahead, by which a file would lag and the GPU's memory would be held. One picture
    is encoded while the next is made."""
    program = """
made = sink(path, said, encode="nvenc", preset=sys.argv[2])
for number in range(3):
    write(made, host_frame(number))
    note(f"written {number}")
made.close()
check(path, [0, 1, 2])
"""
    lines = run(program, tmp_path / "a.mp4", preset)
    order = [line.split(" at ")[0] for line in lines if re.match(r"nvenc (encode|fetch)|written", line)]
    assert order == [
        "nvenc encode 0", "written 0", "nvenc encode 1", "nvenc fetch 0", "written 1", "nvenc encode 2",
        "nvenc fetch 1", "written 2", "nvenc fetch 2",
    ]  # fmt: skip


def test_the_best_quality_is_lossless(run: Run, tmp_path: Path) -> None:
    program = """
made = sink(path, said, encode="nvenc", crf=0, preset="medium")
write(made, host_frame(0))
made.close()
"""
    (started,) = [line for line in after(run(program, tmp_path / "a.mp4"), "nvenc session") if " start " in line]
    assert " p4 tuning 4, " in started and " mode 0 qp 0 " in started


REFUSALS = {
    "none": "this GPU has none for 150x54 (data-centre GPUs have none at all",
    "old": "NVIDIA's driver is too old for the NVENC of PyAV",
    "nothing": "NVIDIA's driver, or its encoder library, is not here",
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_where_nvenc_cannot_x264_does_and_it_is_said(run: Run, libraries: Path, tmp_path: Path, kind: str) -> None:
    program = """
driver = open_driver("cuda-python")
made = sink(path, said, gpu=driver)
assert not made.takes_device_overlays
for number in range(3):
    write(made, host_frame(number))
made.close()
assert len(said) == 1 and f"encoded by x264, because NVENC cannot: {sys.argv[2]}" in said[0], said
assert "H.264 superfast crf 23" in made.description and list(decoded(path)) == [0, 1, 2]
try:
    sink(path, said, encode="nvenc", gpu=driver)
except SinkError as error:
    assert "NVENC cannot encode it" in error.message and sys.argv[2] in error.message, error.message
else:
    raise AssertionError
driver.close()
"""
    env = {"NVENC_IN_C": kind}
    if kind == "nothing":
        only_cuda = tmp_path / "cuda"
        only_cuda.mkdir()
        (only_cuda / "libcuda.so.1").write_bytes((libraries / "libcuda.so.1").read_bytes())
        env["LD_LIBRARY_PATH"] = str(only_cuda)
    lines = run(program, tmp_path / "a.mp4", REFUSALS[kind], refused=kind == "none", **env)
    assert sum("REFUSED: a GPU without an encoder" in line for line in lines) == (2 if kind == "none" else 0)
