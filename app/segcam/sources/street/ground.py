"""Roadway, kerbs, pavements, verges and everything painted on them, for one piece of a street."""

from __future__ import annotations

from segcam.sources.street.course import CHUNK_M, CROSSING_M, Plan, has_crossing
from segcam.sources.street.dice import Dice
from segcam.sources.street.mesh import DECAL, WET, Builder, Surface
from segcam.sources.street.textures import TEXTURE

ROAD, SIDEWALK, TERRAIN = 0, 1, 9
KERB_M = 0.13
#: How far the land goes to both sides.
LAND_M = 160.0
_STEPS = 12
_SIDE_ROAD_M = 90.0


def ground(build: Builder, street: Plan, chunk: int) -> None:
    half, outer = street.half, street.half + street.pavement
    crossing = has_crossing(street, chunk)
    road = Surface(TEXTURE["asphalt"], ROAD, street.asphalt, WET)
    walk = Surface(TEXTURE["cobbles" if street.cobbled else "paving"], SIDEWALK, street.paving, WET)
    grass = Surface(TEXTURE["grass"], TERRAIN, (1, 1, 1), WET)
    edge = Surface(TEXTURE["curb"], SIDEWALK, (1, 1, 1), WET)
    for step in range(_STEPS):
        z0, z1 = CHUNK_M * step / _STEPS, CHUNK_M * (step + 1) / _STEPS
        _flat(build, road, -half, half, 0.0, z0, z1, 4.0)
        # Faces that meet along an edge in unequal steps may leave hairlines between them: nothing shines through.
        _flat(build, road, -half - 0.3, half + 0.3, -0.05, z0, z1, 4.0)
        for side in (-1, 1):
            _flat(build, grass, side * half, side * LAND_M, -0.06, z0, z1, 3.0)
    begin = CROSSING_M[2] if crossing else 0.0
    steps = max(1, round((CHUNK_M - begin) / 4))
    for step in range(steps):
        z0 = begin + (CHUNK_M - begin) * step / steps
        z1 = begin + (CHUNK_M - begin) * (step + 1) / steps
        for side in (-1, 1):
            _flat(build, walk, side * half, side * outer, KERB_M, z0, z1, 2.0)
            _kerb(build, edge, side, half, z0, z1)
            if street.verge:
                lawn = Surface(TEXTURE["grass"], TERRAIN, (1, 1, 1), WET | DECAL)
                x0, x1 = side * (half + 0.16), side * (half + street.verge)
                _flat(build, lawn, x0, x1, KERB_M + 0.004, z0, z1, 3.0)
            _flat(build, grass, side * outer, side * LAND_M, KERB_M - 0.02, z0, z1, 3.0)
            _flat(build, Surface(TEXTURE["curb"], SIDEWALK, (0.96, 0.96, 0.96), WET | DECAL),
                  side * half, side * (half + 0.16), KERB_M + 0.002, z0, z1, 1.0)  # fmt: skip
    if crossing:
        _crossing(build, street, road, walk, grass, edge)
    _marks(build, street, chunk, begin)
    _wear(build, street, chunk)


def _flat(
    build: Builder, surface: Surface, x0: float, x1: float, y: float, z0: float, z1: float, metres: float
) -> None:
    x0, x1 = min(x0, x1), max(x0, x1)
    build.quad(
        (x0, y, z0), (x1, y, z0), (x1, y, z1), (x0, y, z1), surface,
        (x0 / metres, -z1 / metres, x1 / metres, -z0 / metres),
    )  # fmt: skip


def _kerb(build: Builder, surface: Surface, side: int, half: float, z0: float, z1: float) -> None:
    x = side * half
    near, far = (z0, z1) if side < 0 else (z1, z0)
    build.quad((x, 0, near), (x, 0, far), (x, KERB_M, far), (x, KERB_M, near), surface, (near, 0, far, 0.25))


def _crossing(build: Builder, street: Plan, road: Surface, walk: Surface, grass: Surface, edge: Surface) -> None:
    half, outer = street.half, street.half + street.pavement
    first, second, end = CROSSING_M
    for side in (-1, 1):
        far = side * _SIDE_ROAD_M
        _flat(build, road, side * (half - 0.3), far, -0.004, first - 0.1, second + 0.1, 4.0)
        for z0, z1, rim in ((0.0, first, first), (second, end, second)):
            _flat(build, walk, side * half, far, KERB_M, z0, z1, 2.0)
            _kerb(build, edge, side, half, z0, z1)
            x0, x1 = min(side * half, far), max(side * half, far)
            facing = (x0, x1) if rim == second else (x1, x0)
            build.quad((facing[0], 0, rim), (facing[1], 0, rim), (facing[1], KERB_M, rim), (facing[0], KERB_M, rim),
                       edge, (0, 0, abs(x1 - x0), 0.25))  # fmt: skip
        _flat(build, grass, far, side * LAND_M, KERB_M - 0.02, 0.0, end, 3.0)
        for x in range(int(outer) + 8, int(_SIDE_ROAD_M), 6):
            middle = 0.5 * (first + second)
            _flat(build, _paint(), side * x, side * (x + 3.0), 0.004, middle - 0.07, middle + 0.07, 1.5)
        _flat(build, _paint(), side * (half + 1.2), side * (half + 1.6), 0.004, first + 0.2, second - 0.2, 1.5)


def _paint(tint: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Surface:
    return Surface(TEXTURE["paint"], ROAD, tint, WET | DECAL)


def _marks(build: Builder, street: Plan, chunk: int, begin: float) -> None:
    half, y = street.half, 0.004
    throw = Dice(street.seed, 11)
    yellow = throw.chance(0.15)
    tint = (1.0, 0.82, 0.35) if yellow else (1.0, 1.0, 1.0)
    solid = throw.chance(0.25)
    edge_lines = throw.chance(0.6)
    z = begin + 1.0
    while z < CHUNK_M - 3.2:
        for number in range(1, street.lanes):
            for side in (-1, 1):
                x = side * (street.tram + number * street.lane)
                _flat(build, _paint(), x - 0.06, x + 0.06, y, z, z + 3.0, 1.5)
        if not street.tram and not solid:
            _flat(build, _paint(tint), -0.06, 0.06, y, z, z + 3.0, 1.5)
        z += 6.0
    for step in range(6):
        z0, z1 = begin + (CHUNK_M - begin) * step / 6, begin + (CHUNK_M - begin) * (step + 1) / 6
        lines = [] if not solid or street.tram else [(-0.11, tint), (0.11, tint)]
        if edge_lines:
            lines += [(side * (half - street.parking - 0.2), (1.0, 1.0, 1.0)) for side in (-1, 1)]
        if street.tram:
            lines += [(side * street.tram, (1.0, 1.0, 1.0)) for side in (-1, 1)]
        for x, color in lines:
            _flat(build, _paint(color), x - 0.06, x + 0.06, y, z0, z1, 1.5)
    if street.tram:
        steel = Surface(TEXTURE["plain"], ROAD, (0.50, 0.50, 0.52), WET | DECAL)
        groove = Surface(TEXTURE["plain"], ROAD, (0.16, 0.16, 0.17), WET | DECAL)
        bed = Surface(TEXTURE["cobbles"], ROAD, (0.72, 0.70, 0.68), WET | DECAL)
        for step in range(_STEPS):
            z0, z1 = CHUNK_M * step / _STEPS, CHUNK_M * (step + 1) / _STEPS
            _flat(build, bed, -street.tram + 0.25, street.tram - 0.25, 0.003, z0, z1, 2.0)
            for side in (-1, 1):
                for rail in (-0.72, 0.72):
                    x = side * street.tram / 2 + rail
                    _flat(build, steel, x - 0.04, x + 0.04, 0.009, z0, z1, 1.0)
                    _flat(build, groove, x + 0.04, x + 0.085, 0.009, z0, z1, 1.0)
    if begin:
        _zebra(build, street, CROSSING_M[2] + 0.6)
        low, high = CROSSING_M[2] + 4.6, CROSSING_M[2] + 5.0
        _flat(build, _paint(), -half + street.parking, -street.tram, y, low, high, 1.5)
    elif has_crossing(street, chunk + 1):
        _zebra(build, street, CHUNK_M - 3.6)
        low, high = CHUNK_M - 5.0, CHUNK_M - 4.6
        _flat(build, _paint(), street.tram, half - street.parking, y, low, high, 1.5)
    elif Dice(street.seed, 12, chunk).chance(0.3):
        _zebra(build, street, CHUNK_M / 2)
    if Dice(street.seed, 13, chunk).chance(0.4):
        for side in (-1, 1):
            for number in range(1, street.lanes + 1):
                _arrow(build, side * street.lane_at(number), CHUNK_M * 0.7, side)


def _zebra(build: Builder, street: Plan, z: float) -> None:
    x = -street.half + 0.4
    while x < street.half - 0.5:
        _flat(build, _paint(), x, x + 0.5, 0.005, z, z + 3.0, 1.5)
        x += 1.0


def _arrow(build: Builder, x: float, z: float, side: int) -> None:
    paint = _paint()
    _flat(build, paint, x - 0.08, x + 0.08, 0.004, z - 1.6, z + 1.0, 1.5)
    tip, root = (z + 2.0, z + 0.9) if side > 0 else (z - 2.6, z - 1.5)
    corners = [(x - 0.32, 0.004, root), (x + 0.32, 0.004, root), (x, 0.004, tip)]
    build.face(corners if side > 0 else [corners[1], corners[0], corners[2]], [(0, 1), (1, 1), (0.5, 0)], paint)


def _wear(build: Builder, street: Plan, chunk: int) -> None:
    """Mended places, manholes, darker wheel tracks: all of them road."""
    throw = Dice(street.seed, 14, chunk)
    flags = WET | DECAL
    for _ in range(throw.whole(1, 4)):
        x, z = throw.between(-street.half, street.half - 2), throw.between(0, CHUNK_M - 8)
        tone = throw.between(0.8, 1.35)
        surface = Surface(TEXTURE["patch"], ROAD, (tone, tone, tone), flags)
        _flat(build, surface, x, min(street.half, x + throw.between(0.6, 2.4)), 0.002, z, z + throw.between(1, 7), 1.2)
    for _ in range(throw.whole(0, 3)):
        x, z = throw.between(-street.half + 1, street.half - 1), throw.between(1, CHUNK_M - 1)
        surface = Surface(TEXTURE["manhole"], ROAD, (1, 1, 1), flags)
        build.quad((x, 0.003, z), (x + 0.8, 0.003, z), (x + 0.8, 0.003, z + 0.8), (x, 0.003, z + 0.8), surface)
