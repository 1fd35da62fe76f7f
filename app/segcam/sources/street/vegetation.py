"""Trees and bushes. A trunk is vegetation like its crown."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from segcam.sources.street.dice import Dice
from segcam.sources.street.mesh import CUTOUT, RGB, Builder, Mesh, Surface, merge, tube
from segcam.sources.street.textures import TEXTURE

VEGETATION = 8
#: Kinds of tree that are made; each is placed many times, turned and scaled.
KINDS = 10
_GREENS: tuple[RGB, ...] = (
    (0.62, 0.70, 0.45),
    (0.50, 0.62, 0.40),
    (0.72, 0.74, 0.46),
    (0.46, 0.56, 0.42),
    (0.80, 0.70, 0.42),
)


@lru_cache(KINDS)
def tree(kind: int) -> Mesh:
    """About 8 m high, at the origin."""
    throw = Dice(301, kind)
    slim = kind % 5 == 4
    trunk_m, radius = throw.between(2.2, 3.2), throw.between(0.13, 0.24)
    wide = throw.between(0.9, 1.2) if slim else throw.between(2.0, 3.1)
    tall = throw.between(2.8, 3.6) if slim else throw.between(2.2, 3.0)
    middle = trunk_m + tall * 0.8
    bark = Surface(TEXTURE["bark"], VEGETATION, (0.8, 0.74, 0.66))
    parts = [tube((0, -0.3, 0), (0, middle, 0), radius, bark, 7, radius * 0.5)]
    for _ in range(4):
        turn = throw.between(0, 2 * math.pi)
        end = (0.6 * wide * math.cos(turn), middle + throw.between(-0.3, 0.9), 0.6 * wide * math.sin(turn))
        parts.append(tube((0, trunk_m * 0.9, 0), end, radius * 0.45, bark, 5, radius * 0.2))
    parts.append(
        _crown(throw, (0.0, middle, 0.0), wide, tall, throw.pick(_GREENS), 30 if slim else 46, 1.25 if slim else 1.75)
    )
    return merge(parts)


@lru_cache(8)
def bush(kind: int) -> Mesh:
    """About 1.2 m high."""
    throw = Dice(302, kind)
    return _crown(throw, (0.0, 0.55, 0.0), 0.75, 0.6, throw.pick(_GREENS), 12, 0.9)


def _crown(
    throw: Dice, middle: tuple[float, float, float], wide: float, tall: float, green: RGB, count: int, size: float
) -> Mesh:
    """Clusters of leaves on and in an ellipsoid, lit as that ellipsoid would be, darker within and below."""
    geo = np.zeros((count * 2, 3, 8), np.float32)
    mat = np.zeros((count * 2, 6), np.float32)
    for n in range(count):
        # A spiral from pole to pole spreads them evenly.
        level = 1 - 2 * (n + 0.5) / count
        turn = n * 2.39996 + throw.between(-0.4, 0.4)
        depth = throw.between(0.5, 0.86)
        ring = math.sqrt(1 - level * level)
        out = np.array([ring * math.cos(turn), level, ring * math.sin(turn)])
        at = np.array(middle) + out * (wide * depth, tall * depth, wide * depth)
        half = size * throw.between(0.75, 1.15) * 0.5
        facing = throw.between(0, 2 * math.pi) if n % 3 else 0.0
        right = np.array([math.cos(facing), throw.between(-0.25, 0.25), math.sin(facing)]) * half
        up = np.array([throw.between(-0.3, 0.3), 1.0, throw.between(-0.3, 0.3)]) * half
        tone = (0.62 + 0.38 * (level + 1) / 2) * throw.between(0.82, 1.15) * (0.7 + 0.35 * depth)
        normal = out * 0.8 + np.array([0.0, 0.25, 0.0])
        normal /= np.linalg.norm(normal)
        corners = [at - right - up, at + right - up, at + right + up, at - right + up]
        uv = [(0, 1), (1, 1), (1, 0), (0, 0)]
        for half_face, order in enumerate(((0, 1, 2), (0, 2, 3))):
            for slot, corner in enumerate(order):
                geo[2 * n + half_face, slot] = (*corners[corner], *normal, *uv[corner])
            row = Surface(
                TEXTURE["leaves"], VEGETATION, (green[0] * tone, green[1] * tone, green[2] * tone), CUTOUT
            ).row()
            mat[2 * n + half_face] = row
    return Mesh(geo, mat)


def backdrop(build: Builder, radius: float, high: float, tint: RGB) -> None:
    """Far trees all around, at the end of the land."""
    sides = 24
    surface = Surface(TEXTURE["treeline"], VEGETATION, tint, CUTOUT)
    for n in range(sides):
        a, b = 2 * math.pi * n / sides, 2 * math.pi * (n + 1) / sides
        left, right = (radius * math.sin(a), radius * math.cos(a)), (radius * math.sin(b), radius * math.cos(b))
        corners = [(x, y, z) for (x, z), y in ((left, -3.0), (right, -3.0), (right, high), (left, high))]
        build.face(corners, [(n * 0.5, 1), (n * 0.5 + 0.5, 1), (n * 0.5 + 0.5, 0), (n * 0.5, 0)], surface)
