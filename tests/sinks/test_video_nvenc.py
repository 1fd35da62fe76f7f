"""Who encodes video files: NVENC where it can, else x264, and what is said about it."""

from __future__ import annotations

import errno
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest

from segcam.errors import SinkError
from segcam.settings import PRESETS
from segcam.sinks import device_pictures
from segcam.sinks import encoder as encoder_module
from segcam.sinks import video as video_module
from segcam.sinks.base import RunStats, StreamInfo
from segcam.sinks.encoder import Encoder, nvenc_problem
from segcam.sinks.video import VideoSink


class Gpu:
    """Number ``index``; nothing is done on it."""

    def __init__(self, index: int) -> None:
        self.device = SimpleNamespace(index=index)


def write(path: Path, info: StreamInfo, maker: Any, said: list[str], **options: Any) -> VideoSink:
    sink = VideoSink(path, said.append, **options)
    sink.open(info, RunStats())
    for i in range(5):
        sink.write(maker.segmentation(i))
    sink.close()
    return sink


@pytest.fixture
def nvenc(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, str]]]:
    """An NVENC that can: x264 does its work. What streams were asked for."""
    asked: list[tuple[str, dict[str, str]]] = []
    real = av.open

    class Container:
        def __init__(self, container: Any) -> None:
            self._real = container

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

        def __enter__(self) -> Any:
            return self._real

        def __exit__(self, *exception: object) -> None:
            self._real.close()

        def add_stream(self, codec: str, *, rate: Fraction, options: dict[str, str]) -> Any:
            asked.append((codec, options))
            return self._real.add_stream("libx264", rate=rate, options={"bf": options["bf"], "g": options["g"]})

    monkeypatch.setattr(av, "open", lambda *args, **more: Container(real(*args, **more)))
    monkeypatch.setattr(video_module, "nvenc_problem", lambda encoder, size: None)
    monkeypatch.setattr(device_pictures, "why_not", lambda: "")
    return asked


@pytest.mark.parametrize(("options", "codec"), [
    ({"encode": "auto"}, "libx264"),
    ({"encode": "auto", "gpu": Gpu(1)}, "h264_nvenc"),
    ({"encode": "nvenc"}, "h264_nvenc"),
    ({"encode": "x264", "gpu": Gpu(1)}, "libx264"),
])  # fmt: skip
def test_who_encodes(tmp_path, info, maker, read_video, nvenc, options, codec):
    said: list[str] = []
    sink = write(tmp_path / "a.mp4", info, maker(), said, crf=20, preset="medium", **options)
    ((found, given),) = nvenc
    assert found == codec and not said
    assert (given["bf"], given["g"]) == ("0", "50")
    if codec == "h264_nvenc":
        assert {
            "preset": "p4",
            "rc": "vbr",
            "cq": "20",
            "b": "0",
            "gpu": "1" if "gpu" in options else "0",
        }.items() <= given.items()
        assert "H.264 NVENC p4 quality 20" in sink.description
    else:
        assert given["crf"] == "20" and given["preset"] == "medium"
        assert "H.264 medium crf 20" in sink.description
    assert read_video(tmp_path / "a.mp4").times_s == [Fraction(i, 25) for i in range(5)]


def test_the_size_that_is_tried_is_even(tmp_path, info, monkeypatch):
    tried: list[Any] = []
    monkeypatch.setattr(video_module, "nvenc_problem", lambda encoder, size: tried.append((encoder, size)))
    odd = StreamInfo("test", 53, 37, Fraction(25), None, False, info.classes)
    VideoSink(tmp_path / "a.mp4", print, encode="nvenc", gpu=Gpu(2)).open(odd, RunStats())
    assert tried == [(Encoder("h264_nvenc", 23, "superfast", 2), (54, 38))]


def test_lossless_is_lossless():
    options = Encoder("h264_nvenc", 0, "slow").options(Fraction(25))
    assert options["tune"] == "lossless" and "cq" not in options
    assert Encoder("libx264", 0, "slow").options(Fraction(25))["crf"] == "0"


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_has_one_of_nvencs(preset):
    given = Encoder("h264_nvenc", 23, preset).options(Fraction(25))["preset"]
    assert given[0] == "p" and 1 <= int(given[1]) <= 7


def open_nvenc(options: dict[str, str]) -> int | None:
    """The errno with which FFmpeg's NVENC refuses these options, None if it doesn't. Options come before drivers."""
    context = av.CodecContext.create("h264_nvenc", "w")
    context.width, context.height, context.pix_fmt, context.time_base = 256, 128, "nv12", Fraction(1, 25)
    context.options = options
    try:
        context.open()
    except av.FFmpegError as error:
        return error.errno
    return None


@pytest.mark.parametrize("crf", [0, 23])
def test_ffmpeg_has_the_options_that_are_set(crf):
    given = Encoder("h264_nvenc", crf, "medium").options(Fraction(25))
    assert open_nvenc(given) != errno.EINVAL
    for name in given:
        assert open_nvenc({**given, name: "nonsense"}) == errno.EINVAL, name
    assert open_nvenc({**given, "no_such_option": "nonsense"}) != errno.EINVAL
    assert {"nv12", "yuv420p"} <= {format.name for format in av.Codec("h264_nvenc", "w").video_formats or ()}


# --- this machine, whatever it has


@pytest.fixture
def problem() -> str:
    found = nvenc_problem(Encoder("h264_nvenc", 23, "medium"), (256, 128))
    if found is None:
        pytest.skip("this machine has an NVENC")
    return found


def test_without_nvenc_x264_takes_over_and_it_is_said(tmp_path, info, maker, read_video, problem):
    said: list[str] = []
    sink = write(tmp_path / "a.mp4", info, maker(), said, gpu=Gpu(0))
    assert len(said) == 1 and "a.mp4: encoded by x264, because NVENC cannot: " in said[0]
    assert "H.264 superfast crf 23" in sink.description
    quiet: list[str] = []
    write(tmp_path / "b.mp4", info, maker(), quiet)
    assert not quiet and (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_nvenc_by_name_is_an_error_without_it(tmp_path, info, problem):
    with pytest.raises(SinkError, match="NVENC cannot encode it") as caught:
        VideoSink(tmp_path / "a.mp4", print, encode="nvenc").open(info, RunStats())
    assert "--encode x264" in caught.value.hint
    assert not (tmp_path / "a.mp4").exists()


@pytest.mark.parametrize(("error", "reason"), [
    (av.error.PermissionError(1, "Operation not permitted"), "driver, or its encoder library, is not here"),
    (av.error.ExternalError(-542398533, "Generic error in an external library"), "data-centre GPUs have none"),
    (av.error.NotImplementedError(errno.ENOSYS, "Function not implemented"), "driver is too old"),
    (av.error.ArgumentError(errno.EINVAL, "Invalid argument"), "none for 256x128"),
    (None, "built without it"),
])  # fmt: skip
def test_the_reason_is_named(monkeypatch, error, reason):
    class Context:
        def open(self) -> None:
            raise error

    def create(name: str, mode: str) -> Context:
        if error is None:
            raise av.codec.codec.UnknownCodecError(name)
        return Context()

    monkeypatch.setattr(av, "CodecContext", type("CodecContext", (), {"create": staticmethod(create)}))
    assert reason in str(encoder_module.nvenc_problem(Encoder("h264_nvenc", 23, "medium"), (256, 128)))
