"""`segcam --engine x.plan`, its kernels run on the host: clips come out as the processor's fp32 path gives them."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import standin_nvdec
from numpy.typing import NDArray
from plans import plan_of

import segcam
from segcam.engines.base import EngineOptions
from segcam.engines.factory import make_engine
from segcam.frame import Segmentation
from segcam.geometry import fit
from segcam.kernels.cuda import reference
from segcam.kernels.cuda.picture import PictureKind
from segcam.segmenters.reading import class_map_axes, score_taps

CLIPS = {
    "derived_cuts_3stills_2048x1024_60f.mp4": "espnet_cityscapes_1024x512.onnx",
    "carnd_vehicle_test_video_1280x720.mp4": "espnet_cityscapes_1024x512.onnx",
    "derived_camvid_val_first_half_480x360_15fps_51f.mp4": "espnet_camvid_480x360.onnx",
}


def agreement(plan: Path, network: Path, source: str, **stream: Any) -> dict[str, float]:
    """Of a plan's class maps and overlays with the network's in fp32 on the processor: share of pixels that differ in
    class, levels that overlays are apart where classes agree all around, and the largest."""
    pixels = differing = painted = apart = 0
    largest = 0
    with segcam.Segmenter(plan) as gpu, segcam.Segmenter(network, runtime="onnxruntime", precision="fp32") as cpu:
        streams = gpu.stream(source, **stream), cpu.stream(source, **stream)
        for mine, theirs in zip(*streams, strict=True):
            agree = mine.labels == theirs.labels
            pixels += agree.size
            differing += int((~agree).sum())
            assert mine.counts.tolist() == np.bincount(mine.labels.ravel(), minlength=256)[: mine.counts.size].tolist()
            for levels in distances(mine, theirs, agree):
                painted += levels.size
                apart += int((levels > 1).sum())
                largest = max(largest, int(levels.max()))
    return {"pixels": pixels, "differing": differing / pixels, "painted": painted, "apart": apart, "largest": largest}


def distances(mine: Segmentation, theirs: Segmentation, agree: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Between the planes' samples of which all pixels are named alike."""
    assert mine.overlay is not None and theirs.overlay is not None
    found = []
    for one, other in zip(mine.overlay.planes, theirs.overlay.planes, strict=True):
        alike = agree
        if one.shape[:2] != agree.shape:
            even = np.pad(agree, [(0, n % 2) for n in agree.shape], mode="edge")
            alike = even[::2, ::2] & even[1::2, ::2] & even[::2, 1::2] & even[1::2, 1::2]
        found.append(np.abs(one.astype(np.int64) - other)[alike])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.tensorrt("11.4.0.106")
def test_shared_clips(tensorrt_face: Any, shared_data: Path, tmp_path: Path, clip: str) -> None:
    """Where they differ, two classes' scores are equal but for the rounding of the network's input and output, which
    the two paths compute in another order."""
    network = tmp_path / CLIPS[clip]
    shutil.copy(shared_data / "models" / CLIPS[clip], network)
    beside = Path(f"{CLIPS[clip]}.json")
    shutil.copy(shared_data / "models" / beside, tmp_path / beside)
    plan = plan_of(tensorrt_face.trt, network)
    found = agreement(plan, network, str(shared_data / "video" / clip), every=12)
    print(f"{clip}: {found}")
    assert found["pixels"] > 500_000
    assert found["differing"] <= 1e-4
    assert (found["apart"], found["largest"] <= 1) == (0, True)


@pytest.mark.tensorrt("11.4.0.106")
@pytest.mark.parametrize("size", ["128x64", "131x77"])
def test_a_drawn_street(tensorrt_face: Any, tmp_path: Path, size: str) -> None:
    """An untrained network, whose scores lie close together."""
    network = tmp_path / "net.onnx"
    segcam.export(network, "FastSCNN", size=(96, 128), init="random", warn=lambda line: None)
    found = agreement(plan_of(tensorrt_face.trt, network), network, f"street:size={size}", frames=4)
    assert found["pixels"] > 30_000
    assert found["differing"] <= 1e-3
    assert found["apart"] == 0


@pytest.mark.slow
@pytest.mark.tensorrt("10.3.0", "11.4.0.106")
def test_a_whole_run(
    tensorrt_face: Any, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from segcam.cli.main import main

    monkeypatch.chdir(tmp_path)
    for suffix in ("", ".json"):
        shutil.copy(shared_data / "models" / f"espnet_camvid_480x360.onnx{suffix}", tmp_path)
    plan = plan_of(tensorrt_face.trt, tmp_path / "espnet_camvid_480x360.onnx")
    clip = shared_data / "video" / "derived_camvid_val_first_half_480x360_15fps_51f.mp4"
    assert main(["-e", str(plan), "-s", str(clip), "-o", "out.mp4", "-o", "o.jsonl"]) == 0
    assert "done: 51 frames" in capfd.readouterr().err
    records = [json.loads(line) for line in Path("o.jsonl").read_text().splitlines()]
    assert [record["index"] for record in records] == list(range(51))
    assert tensorrt_face.machine.accidents == []
    assert not any(tensorrt_face.machine.leftovers().values())


@pytest.mark.slow
@pytest.mark.tensorrt("11.4.0.106")
def test_ten_bits_are_read_as_ten(
    tensorrt_face: Any, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From NVDEC; the processor, whose decoder's pictures become 8 bits first, names other pixels at boundaries."""
    from segcam.cli.main import main

    monkeypatch.chdir(tmp_path)
    for suffix in ("", ".json"):
        shutil.copy(shared_data / "models" / f"espnet_camvid_480x360.onnx{suffix}", tmp_path)
    network, clip = tmp_path / "espnet_camvid_480x360.onnx", shared_data / "broken" / "16_hevc_10bit.mp4"
    plan = plan_of(tensorrt_face.trt, network)
    standin_nvdec.install(monkeypatch, tensorrt_face.machine).sw_format = "p010le"
    assert main(["-e", str(plan), "-s", str(clip), "--frames", "3", "-o", "labels:found"]) == 0
    engine = make_engine(str(network), EngineOptions(precision="fp32", rewrite=False), print, "onnxruntime")
    engine.activate()
    fed, hw = engine.spec.input, engine.info.input_hw
    share: dict[str, list[float]] = {"p010": [], "nv12": []}
    with av.open(str(clip)) as container:
        for index, frame in zip(range(3), container.decode(video=0), strict=False):
            y, u, v = (np.frombuffer(plane, np.uint16).reshape(-1, plane.line_size // 2) for plane in frame.planes)
            size, half = (frame.height, frame.width), frame.width // 2
            planes: tuple[Any, ...] = (y[:, : size[1]] << 6, np.stack([u[:, :half], v[:, :half]], axis=-1) << 6)
            placement, deep = fit(size, hw, fed.resize), PictureKind("p010", *size, "bt709", False)
            found = cv2.imread(f"found/{index:06}.png", cv2.IMREAD_UNCHANGED)
            for format in ("p010", "nv12"):
                if format == "nv12":
                    planes = tuple(reference.eight_bits(deep, plane) for plane in planes)
                kind = dataclasses.replace(deep, format=format)
                engine.input(0)[...] = reference.preprocess(
                    kind, planes, placement, hw, fed.mean, fed.std, rgb=fed.color == "RGB"
                )
                engine.start(0)
                scores = engine.wait(0)[0]
                grid = scores.shape[-2:]
                axes = class_map_axes(size, "frame", size, placement, hw, grid, engine.spec.output)
                labels, _ = reference.class_map(scores, *score_taps(size, grid, axes))
                share[format].append(float((labels != found).mean()))
    engine.close()
    print(share)
    assert max(share["p010"]) <= 1e-4 < 1e-3 < min(share["nv12"])
