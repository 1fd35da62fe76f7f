"""The plan of one street: how it bends, how wide its parts are, what stands along it, who is on it. All by the seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from segcam.sources.street.dice import Dice
from segcam.sources.street.mesh import RGB, Mesh

#: Length of the pieces that a street is made in.
CHUNK_M = 48.0
#: How much of a piece's beginning a crossing takes: pavement, roadway, pavement.
CROSSING_M = (2.5, 11.5, 14.0)

DISTRICTS = ("city", "suburb", "park", "works")


@dataclass(frozen=True)
class Plan:
    """Widths in metres. The middle of the street is x = 0, traffic keeps right; ``half`` is where the kerb is."""

    seed: int
    bends: tuple[tuple[float, float, float], ...]
    hills: tuple[tuple[float, float, float], ...]
    lanes: int
    lane: float
    tram: float
    parking: float
    pavement: float
    verge: float
    district: str
    trees: float
    people: float
    traffic: float
    parked: float
    house: tuple[RGB, ...]
    asphalt: RGB
    paving: RGB
    cobbled: bool
    speed: float
    height: float
    pitch: float
    view: float

    @property
    def half(self) -> float:
        return self.tram + self.lanes * self.lane + self.parking

    @property
    def ego(self) -> float:
        """Where the camera drives: the middle of the outermost lane."""
        return self.tram + (self.lanes - 0.5) * self.lane

    def lane_at(self, number: int) -> float:
        """Middle of a lane, counted from the street's middle; negative numbers -1, -2 come towards the camera."""
        return math.copysign(self.tram + (abs(number) - 0.5) * self.lane, number)


@lru_cache(64)
def plan(seed: int) -> Plan:
    throw = Dice(seed, 1)
    wide = throw.chance(0.22)
    district = throw.pick(("city", "city", "city", "city", "city", "suburb", "suburb", "park", "works"))
    walls: list[RGB] = [
        (1.0, 0.95, 0.84), (0.96, 0.88, 0.70), (0.92, 0.80, 0.70), (0.86, 0.86, 0.86), (0.74, 0.55, 0.46),
        (0.70, 0.44, 0.36), (0.84, 0.86, 0.78), (0.78, 0.82, 0.88), (0.66, 0.62, 0.58), (1.0, 1.0, 0.97),
        (0.93, 0.72, 0.55), (0.58, 0.55, 0.56),
    ]  # fmt: skip
    verge = throw.pick((0.0, 0.0, 1.2, 1.8))
    gray = throw.between(0.85, 1.12)
    warm = throw.between(-0.04, 0.05)
    return Plan(
        seed=seed,
        bends=tuple((throw.between(0, 1) ** 2 * size, throw.between(0.8, 1.6) * span, throw.between(0, 6.28))
                    for size, span in ((9.0, 60.0), (3.0, 34.0))),
        hills=((throw.between(0, 1.0), throw.between(45, 90), throw.between(0, 6.28)),),
        lanes=2 if wide else 1,
        lane=throw.between(2.75, 3.35),
        tram=throw.pick((0.0, 0.0, 3.0)),
        parking=throw.pick((0.0, 2.1, 2.1)),
        pavement=verge + throw.between(2.4, 4.6),
        verge=verge,
        district=district,
        trees=throw.between(0.25, 0.9),
        people=throw.between(0.5, 1.5),
        traffic=throw.between(0.4, 1.2),
        parked=throw.between(0.25, 0.85),
        house=tuple(throw.pick(walls) for _ in range(7)),
        asphalt=(gray * (1 + warm), gray, gray * (1 - warm)),
        paving=tuple(throw.between(0.86, 1.08) * (1 + k * warm) for k in (1, 0, -1)),  # type: ignore[arg-type]
        cobbled=throw.chance(0.3),
        speed=throw.between(7.5, 13.0),
        height=throw.between(1.2, 1.5),
        pitch=math.radians(throw.between(-3.4, -0.9)),
        view=math.radians(throw.between(50, 60)),
    )  # fmt: skip


def district(street: Plan, chunk: int, side: int) -> str:
    """Mostly the street's own."""
    throw = Dice(street.seed, 2, chunk // 2, side)
    return street.district if throw.chance(0.55) else throw.pick(DISTRICTS)


def has_crossing(street: Plan, chunk: int) -> bool:
    """Every few pieces, never two in a row."""
    return (chunk + street.seed) % 2 == 0 and Dice(street.seed, 3, chunk).chance(0.6)


def middle(
    street: Plan, along: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """x and y of the street's middle, and its heading (radians, to the right)."""
    x, y, slope = np.zeros_like(along), np.zeros_like(along), np.zeros_like(along)
    for size, span, phase in street.bends:
        x += size * np.sin(along / span + phase)
        slope += size / span * np.cos(along / span + phase)
    for size, span, phase in street.hills:
        y += size * np.sin(along / span + phase)
    return x, y, np.arctan(slope)


def bent(street: Plan, mesh: Mesh, from_m: float) -> Mesh:
    """A piece made straight (z from 0 at ``from_m``) along the street's course, positions relative to its beginning."""
    geo = mesh.geo.copy()
    along = geo[..., 2].astype(np.float64) + from_m
    x, y, heading = middle(street, along)
    (x0,), (y0,), _ = middle(street, np.array([from_m]))
    cos, sin = np.cos(heading), np.sin(heading)
    across = geo[..., 0].astype(np.float64)
    geo[..., 0] = x - x0 + across * cos
    geo[..., 2] = geo[..., 2] - across * sin
    geo[..., 1] += (y - y0).astype(np.float32)
    right, ahead = geo[..., 3].copy(), geo[..., 5].copy()
    geo[..., 3], geo[..., 5] = cos * right + sin * ahead, cos * ahead - sin * right
    return Mesh(geo, mesh.mat)


def beginning(street: Plan, from_m: float) -> NDArray[np.float64]:
    """(3,) the point that ``bent`` is relative to."""
    (x,), (y,), _ = middle(street, np.array([from_m]))
    return np.array([x, y, from_m])
