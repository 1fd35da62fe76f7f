"""Pictures in red, green and blue, which the network of ``brightest`` names without a mistake, with their labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

Labels = NDArray[np.uint8]


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """``save("labels/a.png", array)``: writes it below ``tmp_path``; colours are red first."""

    def write(name: str, picture: NDArray[np.generic]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if picture.ndim == 3:
            picture = picture[:, :, [2, 1, 0, *range(3, picture.shape[2])]]
        assert cv2.imwrite(str(path), picture)
        return path

    return write


def painted(labels: Labels) -> NDArray[np.uint8]:
    """(H, W, 3) RGB: label 0 red, 1 green, 2 blue."""
    return (np.eye(3, dtype=np.uint8) * 200)[labels.clip(0, 2)]


@pytest.fixture
def make_pairs(save: Callable[..., Path], tmp_path: Path) -> Callable[..., str]:
    """``make_pairs([truth, ...], labels=[...])``: pictures of ``truth`` and label pictures (``truth``, unless given);
    returns what to write after --dataset."""

    def make(truth: Sequence[Labels], labels: Sequence[Labels] | None = None) -> str:
        for number, (seen, said) in enumerate(zip(truth, labels or truth, strict=True)):
            save(f"images/{number}.png", painted(seen))
            save(f"labels/{number}.png", said)
        return f"folder:{tmp_path / 'images'},{tmp_path / 'labels'}"

    return make


@pytest.fixture
def stripes() -> Callable[..., Labels]:
    """``stripes(shift=0, hw=(24, 40))``: a class map of three upright stripes, the first ``8 + shift`` wide."""

    def make(shift: int = 0, hw: tuple[int, int] = (24, 40)) -> Labels:
        columns = np.arange(hw[1])
        row = (columns >= 8 + shift).astype(np.uint8) + (columns >= 24)
        return np.repeat(row[None].astype(np.uint8), hw[0], 0)

    return make
