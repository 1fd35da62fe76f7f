"""From a checkpoint file through ``segcam.export`` to scores: the originals', with every rewrite."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
from checkpoint_files import save
from golden_networks import GOLDENS, Golden, golden_weights, network_input, picture, run

import segcam

#: PSPNet's weights are 187 MB, and its graph is plain; tests/networks proves it.
FILES = sorted(path for path in GOLDENS.glob("*.npz") if not path.name.startswith("pspnet"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize(("rewrite", "embed"), [("off", True), ("auto", False), ("on", True)])
def test_scores_are_the_originals(
    path: Path, rewrite: Literal["off", "auto", "on"], embed: bool, tmp_path: Path
) -> None:
    golden = Golden.read(path)
    checkpoint = save(tmp_path / "weights.safetensors", golden_weights(golden.weights), "safetensors")
    segcam.export(
        tmp_path / "net.onnx",
        golden.options.model,
        checkpoint=checkpoint,
        size=golden.size,
        rewrite=rewrite,
        embed_preprocessing=embed,
    )
    model = onnx.load(tmp_path / "net.onnx")
    raw = np.ascontiguousarray(picture(*golden.size)[..., ::-1].transpose(2, 0, 1)[None], np.float32)
    for runtime in ("onnxruntime", "openvino"):
        golden.check(run(model, runtime, raw if embed else network_input(*golden.size))[0])
