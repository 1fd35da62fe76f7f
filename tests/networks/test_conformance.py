"""The complete golden outputs of the original networks, where they are beside the checkout."""

from __future__ import annotations

import dataclasses
import json
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from golden_networks import TOLERANCE, Weights, enlarged, fill, near, network_input, picture, run

from segcam.networks.architecture import NetworkOptions, build, checkpoint_tensors

NETWORKS = {
    "fastseg_small_f64": NetworkOptions("MobileV3Small", num_filters=64),
    "fastseg_small_f128": NetworkOptions("MobileV3Small", num_filters=128),
    "fastseg_large_f128": NetworkOptions("MobileV3Large", num_filters=128),
    "fast_scnn": NetworkOptions("FastSCNN"),
    "pspnet_r50_d8_voc12": NetworkOptions("PSPNet", num_classes=21),
}
CASES = [
    *((name, size, "torch") for name in list(NETWORKS)[:3] for size in ((392, 424), (544, 1056))),
    *(("fast_scnn", size, "torch") for size in ((256, 512), (512, 1024))),
    *(("pspnet_r50_d8_voc12", size, "torch") for size in ((256, 256), (512, 512))),
    ("pspnet_r50_d8_voc12", (512, 512), "omz"),
]


@pytest.fixture(scope="module")
def conformance(shared_data: Path) -> Path:
    return shared_data.parent / "conformance"


# PSPNet's weights are 187 MB: one set at a time.
@lru_cache(maxsize=1)
def weights(folder: Path) -> Weights:
    recipe = json.loads((folder / "fill.json").read_text(encoding="utf-8"))
    crcs = json.loads((folder / "fill_crc32.json").read_text(encoding="utf-8"))
    shapes = {key: shape for key, shape in checkpoint_tensors(NETWORKS[folder.name]).items() if key in crcs}
    made = {key: fill(key, shape, recipe) for key, shape in shapes.items()}
    assert {key: zlib.crc32(np.ascontiguousarray(w, "<f4").tobytes()) for key, w in made.items()} == crcs
    return made


@pytest.mark.parametrize("name", NETWORKS)
def test_keys_in_order(name: str, conformance: Path) -> None:
    keys = json.loads((conformance / name / "keys.json").read_text(encoding="utf-8"))
    assert [[key, list(shape)] for key, shape in checkpoint_tensors(NETWORKS[name]).items()] == [k[:2] for k in keys]


@pytest.mark.parametrize(("name", "size", "form"), CASES, ids=lambda value: str(value).replace(", ", "x").strip("()"))
def test_scores_and_classes(name: str, size: tuple[int, int], form: str, conformance: Path) -> None:
    options = dataclasses.replace(NETWORKS[name], size=size, adaptive_pool=form)
    with np.load(conformance / name / ("golden.npz" if form == "torch" else "golden_omz_export.npz")) as entries:
        prefix = f"{size[0]}x{size[1]}."
        golden = {key.removeprefix(prefix): entries[key] for key in entries.files if key.startswith(prefix)}
    assert zlib.crc32(picture(*size).tobytes()) == golden["image_crc32"]
    model = build(options, weights(conformance / name))
    onnx.checker.check_model(model, full_check=True)
    sure = np.unpackbits(golden["unsure"])[: size[0] * size[1]].reshape(size) == 0
    for runtime in ("onnxruntime", "openvino"):
        scores = run(model, runtime, network_input(*size))[0]
        if "lowres" in golden:
            near(scores, golden["lowres"])
        if "lowres_grid" in golden:
            near(scores[:, 1::4, 1::4], golden["lowres_grid"])
        if "lowres_q" in golden:
            step = golden["lowres_step"][:, None, None]
            near(scores, golden["lowres_q"] * step, TOLERANCE + step.max() / 2)
        full = enlarged(scores, size)
        near(full[:, golden["rows"]][:, :, golden["cols"]], golden["logits_grid"])
        differing = int((full.argmax(0)[sure] != golden["argmax"][sure]).sum())
        assert differing == 0
