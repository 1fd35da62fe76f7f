"""Light and air: where the sun is, what colours it, the sky and the haze have."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from segcam.sources.street import shade as places
from segcam.sources.street.dice import Dice
from segcam.sources.street.textures import TEXTURE

_AUTO = ("day", "day", "day", "dusk", "rain", "overcast", "overcast")

Air = NDArray[np.float64]


def chosen(weather: str, seed: int) -> str:
    return Dice(seed, 51).pick(_AUTO) if weather == "auto" else weather


def air(weather: str, seed: int, time_s: float, speed: float) -> Air:
    """The ``air`` vector of ``shade`` for one of ``source.WEATHERS``."""
    throw = Dice(seed, 52)
    out = np.zeros(places.AIR_SIZE)
    azimuth = throw.between(0, 2 * math.pi)
    if weather == "day":
        height = throw.between(0.45, 1.1)
        sun, sky = (1.00, 0.92, 0.78), (0.60, 0.65, 0.74)
        zenith, horizon, haze = (0.30, 0.50, 0.84), (0.82, 0.89, 0.96), (0.74, 0.81, 0.88)
        density, exposure, clouds, shadow = (
            throw.between(0.0012, 0.003),
            throw.between(0.86, 1.06),
            throw.between(0.25, 0.6),
            0.92,
        )
        wet = night = 0.0
    elif weather == "dusk":
        height = throw.between(0.10, 0.22)
        sun, sky = (0.84, 0.52, 0.30), (0.52, 0.51, 0.60)
        zenith, horizon, haze = (0.20, 0.26, 0.48), (0.92, 0.66, 0.48), (0.48, 0.42, 0.44)
        density, exposure, clouds, shadow = (
            throw.between(0.002, 0.004),
            throw.between(0.95, 1.2),
            throw.between(0.3, 0.6),
            0.9,
        )
        wet, night = 0.0, throw.between(0.6, 1.0)
    elif weather == "rain":
        height = 1.35
        sun, sky = (0.24, 0.24, 0.25), (0.66, 0.68, 0.71)
        zenith, horizon, haze = (0.50, 0.53, 0.57), (0.66, 0.69, 0.71), (0.60, 0.63, 0.66)
        density, exposure, clouds, shadow = throw.between(0.005, 0.010), throw.between(0.82, 1.0), 0.85, 0.85
        wet, night = throw.between(0.35, 0.75), throw.pick((0.0, 0.0, 0.6))
    else:
        height = 1.3
        sun, sky = (0.36, 0.36, 0.36), (0.80, 0.82, 0.85)
        zenith, horizon, haze = (0.74, 0.77, 0.81), (0.90, 0.92, 0.93), (0.80, 0.82, 0.84)
        density, exposure, clouds, shadow = throw.between(0.002, 0.005), throw.between(0.86, 1.06), 0.75, 0.85
        wet = night = 0.0
    warm = throw.between(-0.05, 0.05)
    balance = np.array((1 + warm, 1.0, 1 - warm))
    starts = (places.SUN, places.SKYLIGHT, places.HAZE, places.ZENITH, places.HORIZON)
    for place, color in zip(starts, (sun, sky, haze, zenith, horizon), strict=True):
        out[place : place + 3] = np.array(color) * balance
    out[places.SUN_AT : places.SUN_AT + 3] = (
        math.cos(height) * math.sin(azimuth), math.sin(height), math.cos(height) * math.cos(azimuth)
    )  # fmt: skip
    out[places.DENSITY], out[places.EXPOSURE] = density, exposure
    out[places.VIGNETTE] = throw.between(0.12, 0.32)
    out[places.WETNESS], out[places.NIGHT], out[places.CLOUDS], out[places.SHADOW] = wet, night, clouds, shadow
    out[places.DRIFT] = throw.unit() + 0.003 * time_s
    out[places.BLUR_M] = speed / 90
    out[places.CLOUD_TEXTURE] = TEXTURE["clouds"]
    return out


def tone() -> NDArray[np.uint8]:
    """Light (256 steps to 1, up to 4) to 8 bits: straight up to 0.6, then bent towards white."""
    light = np.arange(1024) / 256
    bent = np.where(light < 0.6, light, 0.6 + 0.4 * (1 - np.exp(-(light - 0.6) / 0.4)))
    return np.asarray(np.round(bent * 255), np.uint8)
