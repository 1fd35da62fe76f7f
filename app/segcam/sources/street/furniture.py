"""What stands on the pavement: lamp posts, traffic lights, signs, bollards."""

from __future__ import annotations

from functools import lru_cache

from segcam.sources.street.dice import Dice
from segcam.sources.street.mesh import CUTOUT, GLOWS, NIGHT, RGB, Builder, Mesh, Surface, merge, tube
from segcam.sources.street.plates import SIGNS
from segcam.sources.street.textures import TEXTURE

FENCE, POLE, LIGHT, SIGN = 4, 5, 6, 7
_STEEL: tuple[RGB, ...] = ((0.50, 0.52, 0.54), (0.36, 0.40, 0.38), (0.26, 0.28, 0.30), (0.62, 0.63, 0.62))


def _pole(tint: RGB) -> Surface:
    return Surface(TEXTURE["plain"], POLE, tint)


@lru_cache(8)
def lamp(kind: int) -> Mesh:
    """A street lamp whose arm reaches over the road, to the left (-x)."""
    throw = Dice(311, kind)
    steel, high = _pole(throw.pick(_STEEL)), throw.between(5.5, 8.5)
    reach = throw.between(0.9, 2.2)
    glass = Surface(TEXTURE["plain"], POLE, (1.0, 0.92, 0.72), NIGHT)
    parts = [tube((0, 0, 0), (0, high, 0), 0.09, steel, 8, 0.06), tube((0, 0, 0), (0, 0.9, 0), 0.13, steel, 8)]
    parts.append(tube((0, high, 0), (-reach, high + 0.35, 0), 0.05, steel))
    build = Builder()
    build.box((-reach - 0.7, high + 0.27, -0.14), (-reach, high + 0.40, 0.14), steel, sides="lrfbt")
    build.box((-reach - 0.66, high + 0.22, -0.11), (-reach - 0.05, high + 0.28, 0.11), glass, sides="lrfbu")
    return merge([*parts, build.mesh()])


def _head(build: Builder, x: float, y: float, z: float, lit: int) -> None:
    """Three lamps in a box; the lamps look back along the road (-z)."""
    dark = Surface(TEXTURE["plain"], LIGHT, (0.11, 0.12, 0.12))
    build.box((x - 0.2, y, z - 0.1), (x + 0.2, y + 1.05, z + 0.12), dark, sides="lrbtu")
    face = Surface(TEXTURE[f"lamps{lit}"], LIGHT, (1, 1, 1), GLOWS)
    build.quad(
        (x - 0.2, y, z - 0.1), (x + 0.2, y, z - 0.1), (x + 0.2, y + 1.05, z - 0.1), (x - 0.2, y + 1.05, z - 0.1), face
    )
    for level in (0.3, 0.62, 0.94):
        build.box((x - 0.14, y + level, z - 0.26), (x + 0.14, y + level + 0.025, z - 0.1), dark, sides="lrftu")


@lru_cache(16)
def traffic_light(lit: int, arm: bool) -> Mesh:
    """Stands right of the road; with an arm a second head hangs over the lane."""
    steel = _pole(_STEEL[0 if arm else 2])
    build = Builder()
    _head(build, 0.0, 2.3, -0.16, lit)
    parts = [tube((0, 0, 0), (0, 5.6 if arm else 3.5, 0), 0.085, steel, 8)]
    if arm:
        parts.append(tube((0, 5.5, 0), (-4.2, 5.7, 0), 0.06, steel))
        _head(build, -3.9, 4.85, -0.16, lit)
    return merge([*parts, build.mesh()])


@lru_cache(32)
def sign(kind: int, second: int) -> Mesh:
    """A sign on a post, and another below it (``second`` from 0 on)."""
    throw = Dice(313, kind, second)
    high = throw.between(2.5, 3.1)
    parts = [tube((0, 0, 0), (0, high, 0), 0.035, _pole(_STEEL[3]), 6)]
    build = Builder()
    top = high
    for which in (kind, second):
        if which < 0:
            continue
        half = 0.38
        for z, left, tint in ((-0.05, -half, (1.0, 1.0, 1.0)), (-0.035, half, (0.42, 0.43, 0.44))):
            plate = Surface(TEXTURE[f"sign{which % SIGNS}"], SIGN, tint, CUTOUT)
            build.quad((left, top - 2 * half, z), (-left, top - 2 * half, z), (-left, top, z), (left, top, z), plate)
        top -= 2 * half + 0.05
    return merge([*parts, build.mesh()])


@lru_cache(4)
def guide(kind: int) -> Mesh:
    """Boards with names on two posts, or one small board on one."""
    build = Builder()
    parts = []
    if kind % 2:
        for x in (-0.9, 0.9):
            parts.append(tube((x, 0, 0), (x, 3.4, 0), 0.05, _pole(_STEEL[3]), 6))
        tint, (low, high, half) = ((1.0, 0.94, 0.4), (0.5, 0.66, 1.0))[kind // 2 % 2], (2.1, 3.4, 1.2)
    else:
        parts.append(tube((0, 0, 0), (0, 2.9, 0), 0.035, _pole(_STEEL[3]), 6))
        tint, (low, high, half) = ((0.55, 0.66, 1.0), (1.0, 1.0, 1.0))[kind // 2 % 2], (2.5, 2.85, 0.6)
    build.quad(
        (-half, low, -0.06),
        (half, low, -0.06),
        (half, high, -0.06),
        (-half, high, -0.06),
        Surface(TEXTURE["board"], SIGN, tint),
    )
    back = Surface(TEXTURE["plain"], SIGN, (0.45, 0.46, 0.47))
    build.quad((half, low, -0.05), (-half, low, -0.05), (-half, high, -0.05), (half, high, -0.05), back)
    return merge([*parts, build.mesh()])


@lru_cache(4)
def bollard(kind: int) -> Mesh:
    tint = ((0.3, 0.31, 0.33), (0.75, 0.74, 0.7), (0.24, 0.2, 0.18), (0.62, 0.16, 0.14))[kind]
    return merge(
        [
            tube((0, 0, 0), (0, 0.85, 0), 0.06, _pole(tint), 8),
            tube((0, 0.85, 0), (0, 0.9, 0), 0.075, _pole(tint), 8, 0.04),
        ]
    )


@lru_cache(2)
def mast(kind: int) -> Mesh:
    """Holds a tram's wire; its arm reaches to the left (-x)."""
    steel = _pole(_STEEL[kind])
    return merge([tube((0, 0, 0), (0, 7.0, 0), 0.12, steel, 8, 0.09), tube((0, 6.4, 0), (-6.5, 6.6, 0), 0.04, steel)])


@lru_cache(4)
def rail(kind: int) -> Mesh:
    """Two metres of a fence that keeps people on the pavement, along z."""
    tint = ((0.55, 0.57, 0.58), (0.2, 0.32, 0.26), (0.78, 0.16, 0.14), (0.16, 0.17, 0.19))[kind]
    steel = Surface(TEXTURE["plain"], FENCE, tint)
    bars = Surface(TEXTURE["railing"], FENCE, tint, CUTOUT)
    build = Builder()
    build.quad((0, 0.12, 0), (0, 0.12, 2), (0, 1.0, 2), (0, 1.0, 0), bars)
    parts = [tube((0, 0, z), (0, 1.08, z), 0.035, steel, 6) for z in (0.0, 1.0)]
    return merge([*parts, tube((0, 1.04, 0), (0, 1.04, 2), 0.032, steel, 6), build.mesh()])
