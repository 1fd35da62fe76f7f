"""A whole run on a stand-in GPU whose pictures are encoded there: from where they lie, or why not."""

from __future__ import annotations

import errno
import gc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import standin_nvenc
from cuda_frames import watch_downloads
from cuda_shim import compiler
from lossless import clip, pictures

from segcam.sinks import device_pictures

Brightest = Callable[..., Path]

pytestmark = [
    pytest.mark.tensorrt("11.4.0.106"),
    pytest.mark.skipif(compiler() is None, reason="no C++ compiler: apt install g++, or name one in CXX"),
]


@pytest.fixture(autouse=True)
def nvenc(gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU has an encoder as well."""
    gpu.nvenc = standin_nvenc.install(monkeypatch, gpu.machine)


def the_same(mine: Path, other: Path, count: int = 10) -> None:
    one, two = pictures(mine), pictures(other)
    assert len(one) == count
    for first, second in zip(one, two, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("decode", ["nvdec", "cpu"])
@pytest.mark.parametrize("delay", [0, 3])
def test_pictures_never_leave_the_gpu(
    gpu: SimpleNamespace,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    decode: str,
    delay: int,
) -> None:
    gpu.nvenc.delay = delay
    assert gpu.run("--decode", decode, "--encode", "x264", "--crf", "0", "-o", "x264.mp4") == 0
    capsys.readouterr()
    downloads = watch_downloads(monkeypatch, gpu.machine)
    assert gpu.run("--decode", decode, "-o", "nvenc.mp4", "-o", "counts.jsonl") == 0
    said = capsys.readouterr().err
    assert "warning" not in said and "NVENC p1 quality 23 from the GPU's memory" in said
    the_same(tmp_path / "nvenc.mp4", tmp_path / "x264.mp4")
    # One more for the encoder that only tries the first picture.
    assert gpu.nvenc.sessions == ["cuda", "cuda"] and gpu.nvenc.taken == gpu.nvenc.given_back == 11
    assert gpu.nvenc.uploaded == 0
    assert downloads and max(downloads) <= (1024, True)
    gc.collect()
    assert not device_pictures._lent and not gpu.nvdec.alive and gpu.nvdec.late == 0
    assert gpu.machine.allocated == 0


def test_what_another_output_looks_at_comes_down(
    gpu: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu.run("-o", "nvenc.mp4", "-o", "pictures/") == 0
    assert gpu.nvenc.sessions == ["nv12"] and gpu.nvenc.taken == 0
    said = capsys.readouterr().err
    assert "from the GPU's memory" not in said and "another output shows them" in said
    assert gpu.run("--encode", "x264", "--crf", "0", "-o", "x264.mp4") == 0
    the_same(tmp_path / "nvenc.mp4", tmp_path / "x264.mp4")
    assert len(list((tmp_path / "pictures").iterdir())) == 10


def test_the_legend_is_drawn_in_host_memory(
    gpu: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu.run("--legend", "-o", "nvenc.mp4") == 0
    said = capsys.readouterr().err
    assert said.count("come down from the GPU before they are encoded: the legend") == 1
    assert gpu.nvenc.sessions == ["nv12"]
    assert gpu.run("--legend", "--encode", "x264", "--crf", "0", "-o", "x264.mp4") == 0
    the_same(tmp_path / "nvenc.mp4", tmp_path / "x264.mp4")


@pytest.mark.parametrize("kind", ["FFmpeg's", "PyAV's"])
def test_an_nvenc_that_takes_nothing_from_there_gets_it_from_the_host(
    gpu: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    ffmpegs = av.error.ExternalError(542398533, "no such thing")
    gpu.nvenc.fails = ffmpegs if kind == "FFmpeg's" else ValueError("no such thing")
    assert gpu.run("-o", "nvenc.mp4") == 0
    said = capsys.readouterr().err
    line = "pictures come down from the GPU and go up again to NVENC: it does not take them from there"
    assert said.count(line) == 1 and "no such thing" in said
    assert gpu.nvenc.sessions == ["nv12"]
    # Its traceback holds a picture.
    gpu.nvenc.fails = None
    del ffmpegs
    gc.collect()
    assert not device_pictures._lent
    assert gpu.run("--encode", "x264", "--crf", "0", "-o", "x264.mp4") == 0
    the_same(tmp_path / "nvenc.mp4", tmp_path / "x264.mp4")


def test_an_old_pyav_is_named(
    gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(av.video.frame, "CudaContext", SimpleNamespace(device_id=0))
    assert gpu.run("-o", "nvenc.mp4") == 0
    said = capsys.readouterr().err
    assert said.count("PyAV") == 1 and "18.1" in said
    assert gpu.nvenc.sessions == ["nv12"]


def test_a_size_that_changes_is_scaled(
    gpu: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pictures of another size come from the host to the encoder, and those of the first one from the GPU again."""
    raw = tmp_path / "sizes.h264"
    parts = [clip(tmp_path / f"{i}.h264", size, 4) for i, size in enumerate([(96, 64), (128, 96), (96, 64)])]
    raw.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert gpu.run("-o", "nvenc.mp4", source=raw) == 0
    said = capsys.readouterr().err
    assert said.count("scaled to the first frame's 96x64") == 1
    assert gpu.nvenc.uploaded == 4 and gpu.nvenc.taken == gpu.nvenc.given_back == 9
    assert gpu.run("--encode", "x264", "--crf", "0", "-o", "x264.mp4", source=raw) == 0
    one, two = pictures(tmp_path / "nvenc.mp4"), pictures(tmp_path / "x264.mp4")
    assert len(one) == len(two) == 12
    for first, second in zip(one, two, strict=True):
        assert np.abs(first.astype(int) - second).max() <= 1


@pytest.mark.parametrize("what", ["the file", "the container"])
def test_a_file_that_cannot_begin_lets_go_of_the_gpu(
    gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    """The first picture has been tried out on the GPU by then."""
    from segcam.sinks import video

    def failing(*anything: Any, **more: Any) -> Any:
        raise av.error.OSError(errno.EIO, "broken")

    if what == "the file":
        monkeypatch.setattr(video, "OutputFile", failing)
    else:
        real = av.open
        monkeypatch.setattr(
            av, "open", lambda file, mode="r", **more: (failing if mode == "w" else real)(file, mode, **more)
        )
    assert gpu.run("-o", "nvenc.mp4") == 1
    assert "Traceback" not in capsys.readouterr().err
    gc.collect()
    assert gpu.nvenc.sessions == ["cuda"] and not device_pictures._lent
    # The decoder's own memory goes with the context.
    leftovers = {name: left for name, left in gpu.machine.leftovers().items() if name != "lost"}
    assert not any(leftovers.values()), leftovers


def test_an_encoder_that_breaks_down_ends_the_run_in_good_order(
    gpu: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu.nvenc.delay = 0
    encode, calls = standin_nvenc.Codec.encode, []

    def failing(codec: Any, picture: Any = None) -> Any:
        if picture is not None:
            calls.append(picture)
        if len(calls) == 6:
            calls.append(None)
            raise av.error.OSError(errno.EIO, "broken")
        return encode(codec, picture)

    monkeypatch.setattr(standin_nvenc.Codec, "encode", failing)
    assert gpu.run("-o", "nvenc.mp4") == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said and "nvenc.mp4" in said
    assert 1 <= len(pictures(tmp_path / "nvenc.mp4")) <= 5
    calls.clear()
    gc.collect()
    assert not device_pictures._lent
