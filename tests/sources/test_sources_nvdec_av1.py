"""AV1 on NVDEC: another decoder in the stead of the stream's own, which tells it how pictures are to be shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from standin_nvdec import StandinNvdec

from segcam.errors import SegcamError, SourceError
from segcam.frame import Frame
from segcam.kernels.cuda.driver import Driver
from segcam.sources import nvdec as nvdec_module
from segcam.sources.base import SourceOptions
from segcam.sources.factory import make_source
from segcam.sources.twin import Twin, sequence_header

ReadAll = Callable[..., list[Frame]]
Make = Callable[..., Path]


@pytest.fixture
def make_av1(make_video: Callable[..., Path]) -> Make:
    def make(name: str = "a.mp4", frames: int = 6, **more: Any) -> Path:
        if "libsvtav1" not in av.codecs_available:
            pytest.skip("this PyAV has no encoder libsvtav1")
        return make_video(name, frames, codec="libsvtav1", options={"preset": "12"}, **more)

    return make


def test_pictures_stay_on_the_gpu(make_av1: Make, read_all: ReadAll, gpu: Driver, nvdec: StandinNvdec) -> None:
    path, said = make_av1(color=(1, 2)), list[str]()
    plain = read_all(make_source(str(path), SourceOptions(loops=2)))
    source = make_source(str(path), SourceOptions(gpu=gpu, loops=2), said.append)
    assert source.open().description.endswith("(av1, NVDEC)")
    source.close()
    nvdec.opened = nvdec.plain = 0
    got = read_all(make_source(str(path), SourceOptions(gpu=gpu, loops=2), said.append))
    # The CPU decodes the first picture of each round only.
    assert len(got) == len(plain) == 12 and nvdec.opened == nvdec.plain == 2 and not said
    for mine, other in zip(got, plain, strict=True):
        assert mine.device is not None
        for name in ("index", "pts", "time_base", "width", "height", "matrix", "full_range"):
            assert getattr(mine, name) == getattr(other, name), name
        assert (mine.matrix, mine.full_range) == ("bt709", True)
        assert np.array_equal(mine.to_host().planes[0], other.planes[0])


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "refused": ("this GPU does not take it (yuv420p, 64x48)", {"refuse": 0}),
    "no decoder": ("the decoder of its codec (libdav1d) knows nothing of NVDEC", {"hwaccel": False}),
    "no driver": ("Operation not permitted", {"fails": av.error.PermissionError(1, "Operation not permitted")}),
    "full": ("the GPU's memory is full", {"full": 0}),
    "nothing comes": ("it gave no picture of 6 packets", {"decodes_nothing": True}),
}


@pytest.mark.parametrize("name", CASES)
def test_libdav1d_takes_over_and_it_is_said_once(
    make_av1: Make, read_all: ReadAll, gpu: Driver, nvdec: StandinNvdec, name: str
) -> None:
    (word, attributes), said = CASES[name], list[str]()
    path = make_av1()
    plain = read_all(make_source(str(path), SourceOptions(loops=2)))
    for attribute, value in attributes.items():
        setattr(nvdec, attribute, value)
    got = read_all(make_source(str(path), SourceOptions(gpu=gpu, loops=2), said.append))
    (line,) = said
    assert line.startswith(f"{path}: decoded on the CPU, because NVDEC cannot: ") and word in line
    assert len(got) == 12 and all(frame.device is None for frame in got)
    for mine, other in zip(got, plain, strict=True):
        assert mine.pts == other.pts
        assert all(np.array_equal(a, b) for a, b in zip(mine.planes, other.planes, strict=True))
    with pytest.raises(SourceError) as caught:
        make_source(str(path), SourceOptions(gpu=gpu, decode="nvdec")).open()
    assert "NVDEC cannot decode it" in caught.value.message and word in caught.value.message


@pytest.mark.parametrize("fault", ["refused", "no device"])
def test_what_fails_at_a_later_sequence_is_decoded_on_the_cpu(
    make_av1: Make, read_all: ReadAll, gpu: Driver, nvdec: StandinNvdec, tmp_path: Path, fault: str
) -> None:
    """With what was not given yet, once."""
    parts = [make_av1("1.obu"), make_av1("2.obu", size=(96, 64))]
    path = tmp_path / "both.obu"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    plain, said = read_all(make_source(str(path))), list[str]()
    source = make_source(str(path), SourceOptions(gpu=gpu), said.append)
    source.open()
    got = [source.read() for _ in range(3)]
    if fault == "refused":
        nvdec.refuse = 6
    else:
        nvdec.fails = OSError(12, "no memory for a device")
    while (frame := source.read()) is not None:
        got.append(frame)
    source.close()
    assert [frame and (frame.pts, frame.width) for frame in got] == [(frame.pts, frame.width) for frame in plain]
    assert [frame is not None and frame.device is not None for frame in got] == [True] * 6 + [False] * 6
    words = "does not take it (yuv420p, 96x64)" if fault == "refused" else "cannot use the GPU (no memory for a device)"
    assert len(said) == 1 and words in said[0]


def test_memory_that_is_full_in_mid_stream_is_said(
    make_av1: Make, read_all: ReadAll, gpu: Driver, nvdec: StandinNvdec
) -> None:
    errors, nvdec.full = list[SegcamError](), 4
    path = make_av1()
    assert len(read_all(make_source(str(path), SourceOptions(gpu=gpu)), errors=errors)) == 4
    assert [error.message for error in errors] == [f"{path}: the GPU's memory is full"]


def test_without_a_driver_the_real_one_refuses_and_libdav1d_decodes(
    make_av1: Make, read_all: ReadAll, gpu: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FFmpeg opens the container: its own decoder is the first that asks for the GPU."""
    if nvdec_module.has_library("libcuda.so.1"):
        pytest.skip("NVIDIA's driver is here")
    monkeypatch.setattr(nvdec_module, "why_not", lambda: None)
    said: list[str] = []
    got = read_all(make_source(str(make_av1()), SourceOptions(gpu=gpu), said.append))
    assert len(got) == 6 and len(said) == 1 and "FFmpeg cannot use the GPU (Operation not permitted)" in said[0]


def test_nothing_is_given_before_it_is_known_how_to_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def picture(number: int) -> Any:
        return SimpleNamespace(number=number, width=64, height=48, colorspace=number, color_range=1, rotation=0)

    plain: Any = SimpleNamespace(decode=lambda packet: [picture(5)] if packet[0] else [])
    fast = SimpleNamespace(width=64, height=48, is_open=True, decode=lambda packet: [picture(packet[0])])
    monkeypatch.setattr(Twin, "_create", lambda self: fast)
    anything: Any = None
    twin, packets = Twin(plain, anything, anything), [bytes([number]) for number in (0, 0, 2, 0, 3)]
    given: list[Any] = [twin.decode(packet) for packet in packets]  # type: ignore[arg-type]
    assert [[(one.number, one.colorspace) for one in some] for some in given] == [[], [], [(2, 5)], [(0, 5)], [(3, 5)]]


# --- sequence headers


def test_the_header_of_a_sequence_is_in_its_first_packet(make_av1: Make) -> None:
    found = {}
    for name, size in (("a.mp4", (64, 48)), ("b.obu", (64, 48)), ("c.obu", (96, 64))):
        with av.open(str(make_av1(name, size=size))) as container:
            found[name], *others = [sequence_header(memoryview(packet)) for packet in container.demux(video=0)]
        assert len(found[name]) >= 8 and others == [b""] * 6
    assert found["a.mp4"] == found["b.obu"] != found["c.obu"]


@given(st.binary(max_size=12), st.integers(0, 15), st.booleans(), st.integers(0, 3))
def test_it_is_found_behind_others(said: bytes, other: int, extended: bool, padding: int) -> None:
    """Sizes are written in as many bytes as somebody likes."""

    def unit(kind: int, data: bytes) -> bytes:
        size = bytes([len(data) | (128 if padding else 0)]) + b"\x80" * (padding - 1) + b"\0" * bool(padding)
        return bytes([kind << 3 | extended << 2 | 2]) + b"\x20" * extended + size + data

    packet = unit(2, b"") + (unit(other, b"xyz") if other != 1 else b"") + unit(1, said) + unit(6, b"frame")
    assert sequence_header(memoryview(packet)) == said
    assert sequence_header(memoryview(packet[: packet.rindex(said + unit(6, b"frame"))] + said)) == said
    last = bytes([1 << 3 | extended << 2]) + b"\x20" * extended + said
    assert sequence_header(memoryview(last)) == said


@given(st.binary(max_size=64))
def test_damaged_packets_have_none_or_some(data: bytes) -> None:
    assert sequence_header(memoryview(data)) in data
