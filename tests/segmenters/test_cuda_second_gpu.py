"""A whole run on the second of two stand-in GPUs: decoder, network and encoder are all there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import standin_nvdec
import standin_nvenc
from cuda_shim import need_compiler
from lossless import clip, pictures
from plans import plan_of

from segcam.cli.main import main

Brightest = Callable[..., Path]


@pytest.mark.tensorrt("11.4.0.106")
def test_pictures_never_leave_it(
    tensorrt_face: Any, brightest: Brightest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    need_compiler()
    tensorrt_face.install(None, devices=2)
    machine, plan, video = tensorrt_face.machine, plan_of(tensorrt_face.trt, brightest()), clip(tmp_path / "clip.mp4")
    nvdec = standin_nvdec.install(monkeypatch, machine)
    nvenc = standin_nvenc.install(monkeypatch, machine)
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        assert main(["-e", str(plan), "-s", str(video), *words]) == 0
        return capsys.readouterr().err

    run("--decode", "cpu", "--encode", "x264", "--crf", "0", "-o", "first.mp4")
    downloads: list[int] = []
    download = machine.download

    def watched(host: memoryview, *more: Any) -> None:
        assert machine.require_context().device == 1
        downloads.append(host.nbytes)
        download(host, *more)

    monkeypatch.setattr(machine, "download", watched)
    machine.counts.clear()
    said = run("--device", "cuda:1", "-o", "second.mp4")
    assert "warning" not in said and "NVDEC" in said and "from the GPU's memory" in said
    assert downloads and max(downloads) <= 1024
    # Of each picture two planes that come from the decoder, and one that goes to the encoder.
    assert machine.counts["cuMemcpyDtoDAsync"] == 10 * 3
    assert nvdec.context == nvenc.machine.contexts[1].handle and nvenc.taken == nvenc.given_back > 0
    for mine, other in zip(pictures(Path("second.mp4")), pictures(Path("first.mp4")), strict=True):
        np.testing.assert_array_equal(mine, other)
