"""Who decodes: NVDEC where it can, else the CPU, and what is said about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from standin_nvdec import StandinNvdec, busy

from segcam.errors import SegcamError, SourceError
from segcam.frame import Frame
from segcam.kernels.cuda.driver import Driver
from segcam.sources import nvdec as nvdec_module
from segcam.sources.base import SourceOptions
from segcam.sources.factory import make_source

Maker = Callable[..., Path]
ReadAll = Callable[..., list[Frame]]


def options(gpu: Driver, **more: Any) -> SourceOptions:
    return SourceOptions(gpu=gpu, **more)


class Case:
    """Why a stream is decoded on the CPU: what to set on the stand-in, and the word that says so."""

    def __init__(self, word: str, size: tuple[int, int] = (64, 48), **attributes: Any) -> None:
        self.word, self.size, self.attributes = word, size, attributes


CASES = {
    "turned": Case("turned (here by 90 degrees)", rotation=90),
    "4:4:4": Case("yuv444p", sw_format="yuv444p"),
    "odd height": Case("its pictures come with a rim (64x48)", size=(64, 47)),
    "odd width": Case("its pictures come with a rim (54x38)", size=(53, 38)),
    "refused": Case("this GPU does not take it (yuv420p, 64x48)", refuse=0),
    "no decoder": Case("its codec (ffv1) knows nothing of NVDEC", hwaccel=False),
    "no driver": Case("Operation not permitted", fails=av.error.PermissionError(1, "Operation not permitted")),
    "other flags": Case("Operation not supported", fails=OSError(95, "Operation not supported")),
    "full": Case("the GPU's memory is full", full=0),
    "nothing comes": Case("it gave no picture of 3 packets", decodes_nothing=True),
}


@pytest.mark.parametrize("name", CASES)
def test_the_cpu_takes_over_and_it_is_said_once(
    make_video: Maker, read_all: ReadAll, gpu: Driver, nvdec: StandinNvdec, name: str
) -> None:
    case, said = CASES[name], []
    path = make_video("a.mkv", busy(case.size, 3), size=case.size, codec="ffv1")
    plain = read_all(make_source(str(path), SourceOptions(loops=2)))
    for attribute, value in case.attributes.items():
        setattr(nvdec, attribute, value)
    got = read_all(make_source(str(path), options(gpu, loops=2), said.append))
    (line,) = said
    assert line.startswith(f"{path}: decoded on the CPU, because NVDEC cannot: ") and case.word in line
    assert len(got) == 6 and nvdec.opened <= 1
    for mine, other in zip(got, plain, strict=True):
        assert mine.device is None and mine.format == other.format
        assert all(np.array_equal(a, b) for a, b in zip(mine.planes, other.planes, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_nvdec_by_name_is_an_error_where_it_cannot(
    make_video: Maker, gpu: Driver, nvdec: StandinNvdec, name: str
) -> None:
    case = CASES[name]
    path = make_video("a.mkv", busy(case.size, 3), size=case.size, codec="ffv1")
    for attribute, value in case.attributes.items():
        setattr(nvdec, attribute, value)
    source = make_source(str(path), options(gpu, decode="nvdec"))
    with pytest.raises(SourceError) as caught:
        source.open()
    assert "NVDEC cannot decode it" in caught.value.message and case.word in caught.value.message
    assert caught.value.hint.endswith("et the CPU decode: --decode cpu.")


def test_a_broken_file_is_not_blamed_on_the_gpu(gpu: Driver, nvdec: StandinNvdec, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(bytes(2000))
    said: list[str] = []
    with pytest.raises(SourceError) as caught:
        make_source(str(path), options(gpu, decode="nvdec"), said.append).open()
    assert "NVDEC" not in caught.value.message and not said


def test_pictures_that_change_their_kind_come_down(
    make_video: Maker, read_all: ReadAll, gpu: Driver, nvdec: StandinNvdec, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video("a.mkv", busy((64, 48), 4), codec="ffv1")
    plain = read_all(make_source(str(path)))
    said: list[str] = []
    source = make_source(str(path), options(gpu, threads=1), said.append)
    source.open()
    first = source.read()
    nvdec.rotation = 90
    second = source.read()
    assert first is not None and second is not None
    assert first.device is not None and second.device is None
    nvdec.refuse = 0
    third = source.read()
    assert third is not None and third.device is None
    assert np.array_equal(third.bgr(), plain[2].bgr())
    source.close()
    assert len(said) == 2 and "some pictures are brought down from the GPU" in said[0]
    assert said[1] == f"{path}: some pictures are decoded on the CPU, the first of 64x48"


def test_memory_that_is_full_in_mid_stream_is_said(
    make_video: Maker, read_all: ReadAll, gpu: Driver, nvdec: StandinNvdec
) -> None:
    """Those packets are not damaged."""
    path, said, errors = make_video("a.mkv", busy((64, 48), 6), codec="ffv1"), list[str](), list[SegcamError]()
    nvdec.full = 4
    got = read_all(make_source(str(path), options(gpu), said.append), errors=errors)
    assert len(got) == 4 and not said
    assert [error.message for error in errors] == [f"{path}: the GPU's memory is full"]
    assert errors[0].hint == "Let the CPU decode: --decode cpu."


def test_a_damaged_tail_is_read_again_on_the_cpu(
    make_video: Maker, read_all: ReadAll, gpu: Driver, nvdec: StandinNvdec
) -> None:
    path = make_video("a.ts", 12, options={"g": "4"})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    plain_errors: list[Any] = []
    errors: list[Any] = []
    plain = read_all(make_source(str(path)), errors=plain_errors)
    got = read_all(make_source(str(path), options(gpu)), errors=errors)
    assert [frame.pts for frame in got] == [frame.pts for frame in plain]
    assert [str(error) for error in errors] == [str(error) for error in plain_errors]


def test_auto_is_the_cpu_where_the_network_is(make_video: Maker, read_all: ReadAll, nvdec: StandinNvdec) -> None:
    said: list[str] = []
    got = read_all(make_source(str(make_video("a.mp4", 2)), SourceOptions(), said.append))
    assert nvdec.opened == 0 and not said and got[0].device is None


def test_what_is_not_a_video_stays_as_it_is(
    gpu: Driver, nvdec: StandinNvdec, tmp_path: Path, read_all: ReadAll
) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    source = make_source(str(tmp_path / "a.png"), options(gpu))
    assert not source.open().encoded
    frame = source.read()
    assert frame is not None and frame.device is None and nvdec.opened == 0


def test_by_name_without_a_network_on_the_gpu_pictures_come_down(
    make_video: Maker, read_all: ReadAll, nvdec: StandinNvdec
) -> None:
    path = make_video("a.mkv", busy((64, 48), 3), codec="ffv1")
    got = read_all(make_source(str(path), SourceOptions(decode="nvdec")))
    assert nvdec.opened == 1 and len(got) == 3
    for mine, other in zip(got, read_all(make_source(str(path))), strict=True):
        assert mine.device is None and mine.format == "nv12"
        assert np.array_equal(mine.bgr(), other.bgr())
    nvdec.refuse = 0
    with pytest.raises(SourceError, match="does not take it"):
        make_source(str(path), SourceOptions(decode="nvdec")).open()


# --- what is missing


def test_this_machine_can_or_says_why(make_video: Maker, read_all: ReadAll) -> None:
    """No stand-in: with a GPU it decodes, without one the error names the reason and the way out."""
    path = make_video("a.mp4", 3)
    missing = nvdec_module.why_not()
    if missing is None:
        pytest.skip("NVIDIA's driver and its video library are here")
    with pytest.raises(SourceError) as caught:
        make_source(str(path), SourceOptions(decode="nvdec")).open()
    assert missing[0] in caught.value.message and missing[1] in caught.value.hint
    assert "--decode cpu" in caught.value.hint


def test_without_a_driver_ffmpeg_refuses_and_the_cpu_decodes(
    make_video: Maker, read_all: ReadAll, gpu: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real ``av.open`` with the real accelerator."""
    if nvdec_module.has_library("libcuda.so.1"):
        pytest.skip("NVIDIA's driver is here")
    monkeypatch.setattr(nvdec_module, "why_not", lambda: None)
    said: list[str] = []
    got = read_all(make_source(str(make_video("a.mp4", 3)), options(gpu), said.append))
    assert len(got) == 3 and len(said) == 1 and "FFmpeg cannot use the GPU (Operation not permitted)" in said[0]


def test_a_codec_that_nvdec_lacks_is_found_out_without_a_gpu(
    make_video: Maker, read_all: ReadAll, gpu: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real ``av.open`` with the real accelerator: it opens, and says of the decoder that it is a plain one."""
    monkeypatch.setattr(nvdec_module, "why_not", lambda: None)
    said: list[str] = []
    path = make_video("a.mkv", 3, codec="ffv1")
    got = read_all(make_source(str(path), options(gpu, loops=2), said.append))
    assert len(got) == 6 and len(said) == 1 and "its codec (ffv1) knows nothing of NVDEC" in said[0]


@pytest.mark.parametrize(
    ("missing", "reason", "hint"),
    [
        ("pyav", "cannot keep pictures on the GPU, 18 and newer can", "pip install 'av>=18'"),
        ("build", "built without it", "pip install"),
        ("libcuda.so.1", "no NVIDIA driver", "--gpus all"),
        ("libnvcuvid.so.1", "libnvcuvid.so.1", "NVIDIA_DRIVER_CAPABILITIES=compute,utility,video"),
        ("nothing", "", ""),
    ],
)
def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, missing: str, reason: str, hint: str) -> None:
    frame = type("VideoFrame", (), {} if missing == "pyav" else {"sw_format": None})
    monkeypatch.setattr(av, "VideoFrame", frame)
    monkeypatch.setattr("av.codec.hwaccel.hwdevices_available", lambda: [] if missing == "build" else ["cuda"])
    monkeypatch.setattr(nvdec_module, "has_library", lambda name: name != missing)
    monkeypatch.setattr("sys.platform", "linux")
    found = nvdec_module.why_not()
    if missing == "nothing":
        assert found is None
    else:
        assert found is not None and reason in found[0] and hint in found[1]


def test_the_real_pyav_has_what_is_used() -> None:
    from av.codec.hwaccel import HWAccel

    assert HWAccel("cuda", device="1", is_hw_owned=True, options={"primary_ctx": "0"}).is_hw_owned
    picture = av.VideoFrame(64, 48, "nv12")
    assert picture.planes[0].buffer_ptr > 0 and picture.planes[0].line_size >= 64
    if tuple(map(int, av.__version__.split(".")[:1])) >= (18,):
        assert picture.sw_format is None
