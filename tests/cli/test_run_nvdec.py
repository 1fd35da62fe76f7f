"""A whole run on a stand-in GPU: videos decoded there, their pictures segmented where they are."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from cuda_shim import compiler
from lossless import clip

Brightest = Callable[..., Path]

pytestmark = [
    pytest.mark.tensorrt("11.4.0.106"),
    pytest.mark.skipif(compiler() is None, reason="no C++ compiler: apt install g++, or name one in CXX"),
]


def pictures(folder: Path) -> list[np.ndarray]:
    return [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted(folder.iterdir())]


@pytest.mark.parametrize("decode", ["auto", "nvdec"])
def test_what_comes_out_is_what_the_cpus_decoder_gives(
    gpu: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str], decode: str
) -> None:
    assert gpu.run("--decode", "cpu", "-o", "labels:a", "-o", "a.jsonl", "-o", "a_painted/") == 0
    assert gpu.nvdec.opened == 0 and "(h264)" in capsys.readouterr().err
    assert gpu.run("--decode", decode, "-o", "labels:b", "-o", "b.jsonl", "-o", "b_painted/") == 0
    said = capsys.readouterr().err
    assert gpu.nvdec.opened >= 1 and not gpu.nvdec.brings_down
    assert "(h264, NVDEC)" in said and "warning" not in said
    for folder in ("{}", "{}_painted"):
        mine, other = pictures(tmp_path / folder.format("b")), pictures(tmp_path / folder.format("a"))
        assert len(mine) == 10
        assert all(np.array_equal(one, two) for one, two in zip(mine, other, strict=True))
    gc.collect()
    assert not gpu.nvdec.alive and gpu.nvdec.late == 0


def test_what_nvdec_cannot_is_said_once_and_runs(gpu: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    gpu.nvdec.rotation = 90
    assert gpu.run("-o", "null", "--loop", "3") == 0
    said = capsys.readouterr().err
    assert said.count("decoded on the CPU, because NVDEC cannot") == 1
    assert "done: 30 frames" in said


def test_what_was_said_on_opening_is_not_said_again(
    gpu: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = clip(tmp_path / "clip.h264", count=8)
    assert gpu.run("-o", "null", source=raw) == 0
    said = capsys.readouterr().err
    assert gpu.nvdec.opened == 1 and "(h264, NVDEC)" in said
    assert said.count("frames without a time") == 1


def test_a_source_that_is_no_video_is_not_for_nvdec(gpu: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.run("--decode", "nvdec", "--frames", "1", "-o", "null", source=Path("test:")) == 2
    assert "--decode nvdec: test: is no video file" in capsys.readouterr().err
    assert gpu.run("--frames", "1", "-o", "null", source=Path("test:")) == 0
    assert gpu.nvdec.opened == 0


def test_the_gpus_encoder_is_asked_for_where_the_network_is_on_a_gpu(
    gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from segcam.sinks import video

    asked: list[Any] = []

    def problem(encoder: Any, size: tuple[int, int]) -> str:
        asked.append((encoder.gpu, size))
        return "there is none"

    monkeypatch.setattr(video, "nvenc_problem", problem)
    assert gpu.run("-o", "a.mp4") == 0
    assert asked == [(0, (96, 64))]
    assert "encoded by x264, because NVENC cannot: there is none" in capsys.readouterr().err
    assert gpu.run("-o", "b.mp4", "--encode", "x264") == 0
    assert gpu.run("-o", "c.mp4", "--encode", "nvenc") == 1
    assert "--encode x264" in capsys.readouterr().err and len(asked) == 2
