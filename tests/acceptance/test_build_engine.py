"""``build-engine`` on the networks that Segcam knows and on trained ones: its plans name what the originals name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segcam
from segcam.building.options import BuildOptions
from segcam.building.report import Built
from segcam.building.run import build
from segcam.engines.manifest import read_manifest
from segcam.engines.plan_options import Quiet

#: (model, options of segcam.export). LR-ASPP's pooling windows want 385 pixels.
EXPORTS: dict[str, tuple[str, dict[str, Any]]] = {
    "MobileV3Small": ("MobileV3Small", {"num_filters": 64, "size": (392, 400)}),
    "MobileV3Large": ("MobileV3Large", {"num_filters": 64, "size": (392, 400)}),
    "FastSCNN": ("FastSCNN", {"size": (96, 128)}),
    "PSPNet": ("PSPNet", {"size": (72, 72), "head": "labels", "embed_preprocessing": True}),
    "FastSCNN, halves stored": ("FastSCNN", {"size": (96, 128), "fp16": True, "head": "logits", "rewrite": "off"}),
}
#: Pictures of their own kind.
SHARED = {
    "espnet_camvid_480x360": "camvid/val/*.*",
    "espnet_cityscapes_1024x512": "images/city_*.jpg",
    "espnet_cityscapes_1024x512_legacy17": "images/city_*.jpg",
    "espnet_cityscapes_2048x1024": "images/frankfurt_*_leftImg8bit.png",
}


def plan_of(source: Path, calibrate: str, said: list[str]) -> Built:
    options = BuildOptions(onnx=str(source), precisions=("fp16",), calibrate=calibrate)
    return build(options, Quiet(), said.append, said.append)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def equal(one: Path, two: Path, pictures: list[Any]) -> float:
    """Share of pixels in which a plan and a network in fp32 name the same class."""
    shares = []
    with segcam.Segmenter(one) as plan, segcam.Segmenter(two, runtime="onnxruntime", precision="fp32") as network:
        for picture in pictures:
            shares.append(float((plan.predict(picture) == network.predict(picture)).mean()))
    return float(np.mean(shares))


@pytest.mark.slow
@pytest.mark.tensorrt("10.3.0")
@pytest.mark.parametrize("name", EXPORTS)
def test_every_network_of_the_zoo(own_folder: Path, tensorrt_face: Any, name: str) -> None:
    model, options = EXPORTS[name]
    source = own_folder / "net.onnx"
    segcam.export(source, model, init="random", warn=lambda line: None, **options)
    said: list[str] = []
    built = plan_of(source, "random", said)
    manifest = read_manifest(built.path)
    assert (manifest.tensorrt, manifest.kept_fp32) == (tensorrt_face.name, {})
    pictures = [np.random.default_rng(seed).integers(0, 256, (40, 48, 3), np.uint8) for seed in range(2)]
    # Weights that nobody trained leave pixels whose classes are as good as equal.
    assert equal(built.path, source, pictures) >= 0.99, said


# What the versions of TensorRT differ in, small networks show (tests/building); these take minutes each.
@pytest.mark.slow
@pytest.mark.tensorrt("11.4.0.106")
@pytest.mark.parametrize("name", SHARED)
def test_trained_networks_on_real_pictures(shared_data: Path, tensorrt_face: Any, name: str) -> None:
    seen, unseen = sorted(shared_data.glob(SHARED[name]))[:2]
    source = shared_data / "models" / f"{name}.onnx"
    said: list[str] = []
    built = plan_of(source, str(seen), said)
    assert equal(built.path, source, [unseen]) >= 0.999, said
    agreement = read_manifest(built.path).agreement
    assert agreement is not None and agreement["labels_equal"] >= 0.999
