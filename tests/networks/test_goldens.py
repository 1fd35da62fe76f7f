"""The networks compute what the originals compute: reduced golden outputs, both runtimes, no other files needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from golden_networks import GOLDENS, Golden, golden_weights, keys_crc, network_input, options_of, recipes, run

from segcam.networks.architecture import build, expected_tensors

FILES = sorted(GOLDENS.glob("*.npz"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scores_are_the_originals(path: Path) -> None:
    golden = Golden.read(path)
    model = build(golden.options, golden_weights(golden.weights))
    onnx.checker.check_model(model, full_check=True)
    fed = network_input(*golden.size)
    for runtime in ("onnxruntime", "openvino"):
        golden.check(run(model, runtime, fed)[0])


@pytest.mark.parametrize("name", sorted(recipes()))
def test_tensors_are_the_originals(name: str) -> None:
    assert keys_crc(options_of(name)) == recipes()[name]["keys_crc32"]


def test_every_set_of_weights_has_a_picture() -> None:
    assert {path.name.split(".")[0] for path in FILES} == recipes().keys()
    assert sum(path.stat().st_size for path in GOLDENS.iterdir()) < 1_000_000


@pytest.mark.parametrize(
    ("key", "change"),
    [
        # The gate's bias-free layer, a batch norm's variance as by another epsilon, one tap of a depthwise kernel.
        ("aspp_conv2.1.weight", lambda w: w * 1.01),
        ("trunk.block3.1.bn2.running_var", lambda v: v + 1e-3),
        ("trunk.block2.0.conv_dw.weight", lambda w: np.where(np.arange(25).reshape(5, 5) == 3, w * 1.05, w)),
    ],
)
def test_a_small_mistake_is_noticed(key: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    golden = Golden.read(GOLDENS / "small_f64.392x424.npz")
    weights = dict(golden_weights("small_f64"))
    weights[key] = change(weights[key]).astype(np.float32)
    scores = run(build(golden.options, weights), "onnxruntime", network_input(*golden.size))[0]
    with pytest.raises(AssertionError, match="Mismatched elements"):
        golden.check(scores)


@pytest.mark.parametrize("name", ["small_f64", "fast_scnn"])
@pytest.mark.parametrize("batch", [0, 3])
def test_a_batch_is_its_pictures(name: str, batch: int) -> None:
    size = (392, 424) if name == "small_f64" else (333, 517)
    golden = Golden.read(GOLDENS / f"{name}.{size[0]}x{size[1]}.npz")
    model = build(options_of(name, size, batch=batch), golden_weights(name))
    onnx.checker.check_model(model, full_check=True)
    first = network_input(*size)
    fed = np.concatenate([first[..., ::-1], first, first[..., ::-1, :]])
    for runtime in ("onnxruntime", "openvino"):
        scores = run(model, runtime, fed)
        assert len(scores) == 3
        golden.check(scores[1])
        assert np.abs(scores[0] - scores[1]).max() > 1
    if batch == 0:
        golden.check(run(model, "onnxruntime", first)[0])


def test_only_the_expected_tensors_are_read() -> None:
    options = options_of("small_f64", (392, 424))

    class Counting(dict[str, np.ndarray]):
        def get(self, key: str, default: object = None) -> object:  # type: ignore[override]
            read.append(key)
            return super().get(key, default)

    read: list[str] = []
    build(options, Counting(golden_weights("small_f64")))
    assert sorted(read) == sorted(expected_tensors(options))
