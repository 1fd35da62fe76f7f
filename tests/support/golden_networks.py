"""Weights and pictures from a written recipe, and what the original networks made of them (tests/networks/goldens)."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from segcam.geometry import resize_axis, taps
from segcam.networks.architecture import NetworkOptions, checkpoint_tensors, expected_tensors

GOLDENS = Path(__file__).resolve().parents[1] / "networks" / "goldens"

#: On scores of standard deviation 1.3 to 5.5. The originals differ from themselves in float64 by up to 1.7e-4.
TOLERANCE = 5e-4

Weights = dict[str, NDArray[np.float32]]


def _draws(text: str) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=zlib.crc32(text.encode())))


def fill(key: str, shape: tuple[int, ...], recipe: Mapping[str, Any]) -> NDArray[np.float32]:
    """One tensor of a checkpoint, float32. ``recipe`` has ``gains`` (key to factor) and ``literal`` (key to values)."""
    if key in recipe["literal"]:
        return np.array(recipe["literal"][key], np.float32).reshape(shape)
    draws, leaf = _draws(key), key.rpartition(".")[2]
    if leaf == "weight" and len(shape) > 1:
        deviation = recipe["gains"].get(key, 1.0) * math.sqrt(2.0 / math.prod(shape[1:]))
        return (draws.standard_normal(shape) * deviation).astype(np.float32)
    if leaf in ("weight", "running_var"):
        return draws.uniform(0.5, 1.5, shape).astype(np.float32)
    assert leaf in ("bias", "running_mean"), key
    return (draws.standard_normal(shape) * 0.1).astype(np.float32)


def picture(height: int, width: int) -> NDArray[np.uint8]:
    """(height, width, 3) RGB: ramps and a wave, forty rectangles, noise. At least 2 x 2."""
    draws = _draws(f"image:{height}x{width}")
    y, x = np.indices((height, width), np.int64)
    period = 2 * (height + width) // 5
    phase = (x + 2 * y) % period
    wave = 255 * np.minimum(phase, period - phase) * 2 // period
    planes = np.stack([255 * x // (width - 1), 255 * y // (height - 1), np.minimum(wave, 255)], axis=-1)
    for _ in range(40):
        at_y, at_x, tall, wide, *colour = draws.random(7)
        top, left = int(at_y * height), int(at_x * width)
        bottom = top + 1 + int((0.03 + 0.30 * tall) * height)
        right = left + 1 + int((0.03 + 0.30 * wide) * width)
        planes[top:bottom, left:right] = [int(256 * part) for part in colour]
    planes += np.floor(draws.random(planes.shape) * 41).astype(np.int64) - 20
    return np.clip(planes, 0, 255).astype(np.uint8)


def network_input(height: int, width: int) -> NDArray[np.float32]:
    """The picture as the networks take it: (1, 3, height, width)."""
    mean, std = np.float32([123.675, 116.28, 103.53]), np.float32([58.395, 57.12, 57.375])
    return np.ascontiguousarray(((picture(height, width) - mean) / std).transpose(2, 0, 1)[None])


def enlarged(
    scores: NDArray[np.float32],
    size: tuple[int, int],
    rows: NDArray[np.integer] | slice = slice(None),
    columns: NDArray[np.integer] | slice = slice(None),
) -> NDArray[np.float32]:
    """(C, h, w) scores bilinearly at these rows and columns of ``size``."""
    y, x = (taps(n, m, resize_axis(n, m)) for n, m in zip(size, scores.shape[1:], strict=True))
    across = scores[:, :, x.first[columns]] * x.weight_first[columns]
    across += scores[:, :, x.second[columns]] * x.weight_second[columns]
    down = across[:, y.first[rows]] * y.weight_first[rows][:, None]
    return np.asarray(down + across[:, y.second[rows]] * y.weight_second[rows][:, None])


def run(model: onnx.ModelProto, runtime: str, picture_nchw: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, C, h, w) scores in float32 by "onnxruntime" or "openvino"."""
    if runtime == "onnxruntime":
        import onnxruntime

        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, {"input0": picture_nchw})[0])
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    return np.asarray(compiled([picture_nchw])[0])


@lru_cache(maxsize=1)
def recipes() -> dict[str, Any]:
    """goldens/weights.json: for each set of weights its network, recipe and checksums."""
    document: dict[str, Any] = json.loads((GOLDENS / "weights.json").read_text(encoding="utf-8"))
    return document


# PSPNet's are 187 MB: one set at a time.
@lru_cache(maxsize=1)
def golden_weights(name: str) -> Weights:
    """The filled tensors of a set in goldens/weights.json, proven by its checksum."""
    recipe = recipes()[name]
    made = {key: fill(key, shape, recipe) for key, shape in expected_tensors(options_of(name)).items()}
    crc = 0
    for tensor in made.values():
        crc = zlib.crc32(np.ascontiguousarray(tensor, "<f4").tobytes(), crc)
    assert crc == recipe["fill_crc32"], f"{name}: the weights are not those of the goldens"
    return made


def options_of(name: str, size: tuple[int, int] = (512, 1024), **options: Any) -> NetworkOptions:
    """The options of a set in goldens/weights.json."""
    recipe = recipes()[name]
    return NetworkOptions(recipe["model"], recipe["classes"], recipe.get("filters", 128), size, **options)


def keys_crc(options: NetworkOptions) -> int:
    """Checksum of all keys and shapes of a checkpoint, in order."""
    lines = (f"{key} {','.join(map(str, shape))}\n" for key, shape in checkpoint_tensors(options).items())
    return zlib.crc32("".join(lines).encode())


@dataclass(frozen=True)
class Golden:
    """Figures of one original on one picture; NAME.HxW[.omz].npz, documented in goldens/README.md."""

    weights: str
    size: tuple[int, int]
    form: str
    figures: dict[str, NDArray[Any]]

    @classmethod
    def read(cls, path: Path) -> Golden:
        weights, size, *form = path.name.removesuffix(".npz").split(".")
        height, width = map(int, size.split("x"))
        with np.load(path) as figures:
            return cls(weights, (height, width), form[0] if form else "torch", dict(figures))

    @property
    def options(self) -> NetworkOptions:
        return options_of(self.weights, self.size, adaptive_pool=self.form)

    def check(self, scores: NDArray[np.float32]) -> None:
        """Assert that (C, h, w) scores are the original's, and so its classes at full size."""
        golden = self.figures
        assert scores.shape == tuple(golden["shape"])
        near(scores[:, golden["scores_rows"]][:, :, golden["scores_columns"]], golden["scores"])
        full = enlarged(scores, self.size, golden["rows"], golden["columns"])
        near(full[:, ::6, ::6], golden["logits"])
        sure = ~np.unpackbits(golden["unsure"])[: golden["labels"].size].astype(bool)
        np.testing.assert_array_equal(full.argmax(0).ravel()[sure], golden["labels"].ravel()[sure])


def near(found: NDArray[np.floating], golden: NDArray[np.floating], atol: float = TOLERANCE) -> None:
    np.testing.assert_allclose(found, golden, rtol=0, atol=atol)
