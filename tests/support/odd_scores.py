"""Scores of every kind that a class map has to get right: smooth ones, ties, the ends of float32, what isn't finite."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SCORE_KINDS = ["smooth", "noise", "quantised", "equal", "close", "huge", "denormal", "tiny_lead", "specials"]
SCORE_KINDS += ["all_nan", "signed_zero", "minus_inf", "plus_inf"]


def make_scores(kind: str, classes: int, height: int, width: int, seed: int) -> NDArray[np.float32]:
    """(classes, height, width) float32 of one of ``SCORE_KINDS``."""
    random = np.random.default_rng(seed)
    noise = random.standard_normal((classes, height, width)).astype(np.float32)
    shape = noise.shape
    if kind == "smooth":
        ramp = np.linspace(-3, 3, height)[:, None] * random.standard_normal((classes, 1, 1))
        return (ramp + np.linspace(-3, 3, width) * random.standard_normal((classes, 1, 1)) + noise * 0.05).astype(
            np.float32
        )
    if kind == "quantised":
        return np.asarray(np.round(noise * 2) / 2, np.float32)
    if kind == "equal":
        return np.full(shape, random.standard_normal(), np.float32)
    if kind == "close":
        # Neighbouring floats: roundings of the interpolation decide.
        return np.asarray(np.float32(1.7) + random.integers(-3, 4, shape) * np.spacing(np.float32(1.7)), np.float32)
    if kind == "tiny_lead":
        lead = np.float32(2.0) ** -random.integers(14, 24, (1, height, width))
        base = np.full(shape, np.float32(random.uniform(-50, 50)), np.float32)
        base[random.integers(0, classes)] *= np.float32(1) + lead[0].astype(np.float32)
        return base
    if kind == "huge":
        return np.asarray(
            np.sign(noise) * random.choice([3.4028235e38, 3.4028233e38, 3e38, 1e38, 1.0], shape), np.float32
        )
    if kind == "denormal":
        return np.asarray(random.integers(-4, 5, shape) * np.float32(1.4e-45), np.float32)
    if kind == "signed_zero":
        return np.where(noise > 0, np.float32(0.0), np.float32(-0.0))
    if kind == "specials":
        odd = random.random(shape) < 0.08
        noise[odd] = random.choice(
            np.array([np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e-40], np.float32), int(odd.sum())
        )
    if kind in ("minus_inf", "plus_inf"):
        noise[random.random(shape) < random.choice([0.3, 0.9, 1.0])] = -np.inf if kind == "minus_inf" else np.inf
    if kind == "all_nan":
        noise[random.random(shape) < 0.6] = np.nan
    return noise
