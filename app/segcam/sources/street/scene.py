"""One street, piece by piece: what stands still in it."""

from __future__ import annotations

from functools import lru_cache

from segcam.sources.street.buildings import block, border, hall, house
from segcam.sources.street.course import CHUNK_M, CROSSING_M, Plan, bent, district, has_crossing
from segcam.sources.street.dice import Dice
from segcam.sources.street.furniture import bollard, guide, lamp, mast, rail, sign, traffic_light
from segcam.sources.street.ground import KERB_M, ground
from segcam.sources.street.mesh import WET, Builder, Mesh, Surface, moved
from segcam.sources.street.people import bicycle, motorcycle
from segcam.sources.street.plates import SIGNS
from segcam.sources.street.textures import TEXTURE
from segcam.sources.street.vegetation import KINDS, bush, tree
from segcam.sources.street.vehicles import bus, car, lorry

_TERRAIN, _SIDEWALK = 9, 1
_QUARTER = 1.5707963


@lru_cache(48)
def piece(street: Plan, chunk: int) -> Mesh:
    """Everything that stands between chunk * CHUNK_M and the next, relative to ``course.beginning``."""
    build = Builder()
    ground(build, street, chunk)
    begin = CROSSING_M[2] if has_crossing(street, chunk) else 0.0
    for side in (-1, 1):
        _plots(build, street, chunk, side, begin)
        _pavement(build, street, chunk, side, begin)
        if street.parking:
            _parked(build, street, chunk, side, begin)
    if begin:
        _corner(build, street, chunk)
    return bent(street, build.mesh(), chunk * CHUNK_M)


def _plots(build: Builder, street: Plan, chunk: int, side: int, begin: float) -> None:
    kind = district(street, chunk, side)
    throw = Dice(street.seed, 21, chunk, side)
    edge = street.half + street.pavement
    z = begin
    while z < CHUNK_M - 1:
        wide = throw.between(9, 19)
        end = CHUNK_M if CHUNK_M - (z + wide) < 8 else z + wide
        tint = throw.pick(street.house)
        if kind == "city" and not throw.chance(0.12):
            setback = throw.pick((0.0, 0.0, 0.0, 0.6))
            if setback:
                _paved(build, street, side, edge, edge + setback, z, end)
            block(build, throw, side, edge + setback, z, end, tint, throw.whole(3, 6))
        elif kind == "works":
            _yard(build, throw, side, edge, z, end, ("wall", "fence", "fence"))
            if throw.chance(0.75):
                hall(build, throw, side, edge + throw.between(4, 10), z + 1, end - 1)
        elif kind == "suburb":
            deep = throw.between(3.5, 7)
            _yard(build, throw, side, edge, z, end, ("wall", "fence", "hedge", "hedge"))
            gap = throw.between(1.0, 2.5)
            house(build, throw, side, edge + deep, z + gap, end - gap, tint)
            _trees(build, throw, side, edge + 1.5, edge + deep - 0.5, z, end, throw.whole(0, 1), 0.5, 0.9)
            _bushes(build, throw, side, edge + 0.9, edge + deep, z, end, throw.whole(0, 4))
        else:
            _yard(build, throw, side, edge, z, end, ("fence", "hedge", "wall", "none"))
            _trees(build, throw, side, edge + 2, edge + 16, z, end, throw.whole(2, 5), 0.8, 1.35)
            _bushes(build, throw, side, edge + 1, edge + 9, z, end, throw.whole(1, 6))
        z = end
    back = edge + throw.between(20, 34)
    if throw.chance(0.9):
        block(build, throw, side, back, begin + 1, CHUNK_M - 2, throw.pick(street.house), throw.whole(2, 6))
    _trees(build, throw, side, edge + 15, back + 10, begin, CHUNK_M, throw.whole(1, 4), 0.9, 1.4)


def _paved(build: Builder, street: Plan, side: int, x0: float, x1: float, z0: float, z1: float) -> None:
    low, high = min(side * x0, side * x1), max(side * x0, side * x1)
    surface = Surface(TEXTURE["paving"], _SIDEWALK, street.paving, WET)
    y = KERB_M + 0.005
    build.quad((low, y, z0), (high, y, z0), (high, y, z1), (low, y, z1), surface, (low / 2, z0 / 2, high / 2, z1 / 2))


def _yard(build: Builder, throw: Dice, side: int, x: float, z0: float, z1: float, kinds: tuple[str, ...]) -> None:
    kind = throw.pick(kinds)
    if kind == "none":
        return
    gate = throw.between(1.2, 3.0) if throw.chance(0.5) else 0.0
    border(build, throw, kind, side, x + 0.05, z0 + gate, z1)


def _trees(
    build: Builder, throw: Dice, side: int, x0: float, x1: float, z0: float, z1: float, count: int, low: float,
    high: float,
) -> None:  # fmt: skip
    for _ in range(count):
        x, z = throw.between(x0, max(x0 + 0.1, x1)), throw.between(z0 + 1, max(z0 + 1.1, z1 - 1))
        build.add(
            moved(tree(throw.whole(0, KINDS - 1)), side * x, 0.1, z, throw.between(0, 6.28), throw.between(low, high))
        )


def _bushes(build: Builder, throw: Dice, side: int, x0: float, x1: float, z0: float, z1: float, count: int) -> None:
    for _ in range(count):
        x, z = throw.between(x0, x1), throw.between(z0, z1)
        build.add(moved(bush(throw.whole(0, 7)), side * x, 0.08, z, throw.between(0, 6.28), throw.between(0.6, 1.5)))


def _pavement(build: Builder, street: Plan, chunk: int, side: int, begin: float) -> None:
    """Trees, lamps, signs, bollards and parked bicycles along the kerb."""
    throw = Dice(street.seed, 22, chunk, side)
    # Arms reach to the left; on the left side of the street everything is turned about.
    turn, kerb = (0.0 if side > 0 else 2 * _QUARTER), street.half + 0.45
    strip = throw.between(9, 13)
    leafy = Dice(street.seed, 23, side).chance(street.trees)
    sort = Dice(street.seed, 24, side).whole(0, KINDS - 1)
    z = begin + 2.5
    while z < CHUNK_M - 2:
        if leafy and throw.chance(0.85):
            size = throw.between(0.75, 1.1)
            build.add(moved(tree(sort), side * (kerb + 0.3), KERB_M, z, throw.between(0, 6.28), size))
            x0, x1 = sorted((side * (kerb - 0.25), side * (kerb + 0.85)))
            pit = Surface(TEXTURE["grass" if throw.chance(0.5) else "soil"], _TERRAIN, (1, 1, 1), WET)
            y = KERB_M + 0.006
            build.quad((x0, y, z - 0.7), (x1, y, z - 0.7), (x1, y, z + 0.7), (x0, y, z + 0.7), pit, (0, 0, 0.4, 0.5))
        z += strip
    for z in (begin + 6.0, begin + 29.0):
        if z < CHUNK_M - 2:
            if street.tram and throw.chance(0.5):
                build.add(moved(mast(street.seed % 2), side * kerb, KERB_M, z, turn))
            else:
                build.add(moved(lamp(street.seed % 8), side * kerb, KERB_M, z, turn))
    for _ in range(throw.whole(1, 4)):
        z = throw.between(begin + 1, CHUNK_M - 1)
        # Signs face the traffic of their side.
        which, below = throw.whole(0, SIGNS - 1), (throw.whole(0, SIGNS - 1) if throw.chance(0.3) else -1)
        build.add(moved(sign(which, below), side * kerb, KERB_M, z, turn + throw.between(-0.15, 0.15)))
    if throw.chance(0.45):
        build.add(moved(guide(throw.whole(0, 3)), side * (kerb + 0.8), KERB_M, throw.between(begin, CHUNK_M - 2), turn))
    if throw.chance(0.3):
        start, kind = throw.between(begin, CHUNK_M - 12), throw.whole(0, 3)
        for n in range(throw.whole(3, 7)):
            build.add(moved(bollard(kind), side * (kerb - 0.1), KERB_M, start + 1.6 * n))
    if throw.chance(0.22):
        start = throw.between(begin + 1, CHUNK_M - 14)
        for n in range(throw.whole(3, 6)):
            build.add(moved(rail(street.seed % 4), side * (kerb - 0.2), KERB_M, start + 2.0 * n))
    if throw.chance(0.5):
        start, lean = throw.between(begin, CHUNK_M - 8), throw.between(0.9, 1.57)
        for n in range(throw.whole(2, 6)):
            if throw.chance(0.8):
                at = side * (kerb + 0.75 + throw.between(-0.1, 0.1))
                build.add(
                    moved(bicycle(throw.whole(0, 15)), at, KERB_M, start + 0.75 * n, lean + throw.between(-0.1, 0.1))
                )
    if throw.chance(0.55):
        start = throw.between(begin, CHUNK_M - 6)
        for n in range(throw.whole(1, 4)):
            at = side * (kerb + 0.7)
            build.add(moved(motorcycle(throw.whole(0, 15)), at, KERB_M, start + 1.1 * n, throw.between(0.7, 1.2)))


def _parked(build: Builder, street: Plan, chunk: int, side: int, begin: float) -> None:
    throw = Dice(street.seed, 25, chunk, side)
    z = begin + (6.0 if begin else 0.5)
    last = CHUNK_M - (7.0 if has_crossing(street, chunk + 1) else 1.0)
    x = side * (street.half - 1.05)
    turn = 0.0 if side > 0 else 2 * _QUARTER
    while z < last - 5.0:
        kind = throw.unit()
        long = 5.3
        if throw.chance(street.parked):
            skew = turn + throw.between(-0.03, 0.03)
            if kind < 0.86:
                build.add(moved(car(throw.whole(0, 4), throw.whole(0, 14)), x, 0, z + 2.5, skew))
            elif kind < 0.91 and z < last - 11:
                long = 11.0
                build.add(moved(lorry(throw.whole(0, 7), throw.whole(0, 14)), x, 0, z + 5.0, skew))
            else:
                long = 2.4
                for n in range(2):
                    build.add(moved(motorcycle(throw.whole(0, 15)), x, 0, z + 0.5 + 1.2 * n, skew + 0.9))
        z += long + throw.between(0.2, 1.4)


def _corner(build: Builder, street: Plan, chunk: int) -> None:
    """Traffic lights at a crossing, and who waits in the side streets."""
    throw = Dice(street.seed, 26, chunk)
    lit, arm = throw.pick((0, 1, 2, 2)), throw.chance(0.5)
    kerb = street.half + 0.5
    if throw.chance(0.85):
        build.add(moved(traffic_light(lit, arm), kerb, KERB_M, 0.8))
        build.add(moved(traffic_light(lit, False), -kerb, KERB_M, 0.9))
        build.add(moved(traffic_light(lit, False), kerb, KERB_M, CROSSING_M[2] - 0.6))
        build.add(moved(traffic_light(lit, arm), -kerb, KERB_M, CROSSING_M[2] - 0.6, 2 * _QUARTER))
        build.add(moved(traffic_light(2 - lit, False), -kerb, KERB_M, 1.4, _QUARTER))
    else:
        build.add(moved(sign(throw.pick((2, 3, 5)), -1), kerb, KERB_M, 0.8))
    middle = 0.5 * (CROSSING_M[0] + CROSSING_M[1])
    for side in (-1, 1):
        x = street.half + 4.6
        for _ in range(throw.whole(0, 3)):
            kind = throw.unit()
            if kind < 0.72:
                mesh, long = car(throw.whole(0, 4), throw.whole(0, 14)), 6.3
            elif kind < 0.84:
                mesh, long = lorry(throw.whole(0, 7), throw.whole(0, 14)), 12.0
            else:
                mesh, long = bus(throw.whole(0, 15)), 14.0
            build.add(moved(mesh, side * (x + long / 2 - 2.5), 0, middle + side * 2.2, -side * _QUARTER))
            x += long
