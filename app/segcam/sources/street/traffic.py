"""What moves in a street, as a function of the time alone: whoever asks for a moment gets the same one."""

from __future__ import annotations

import math
from collections.abc import Iterator

from segcam.sources.street.course import CHUNK_M, CROSSING_M, Plan, has_crossing
from segcam.sources.street.dice import Dice
from segcam.sources.street.ground import KERB_M
from segcam.sources.street.mesh import Mesh, merge, moved
from segcam.sources.street.people import cyclist, motorcyclist, walker
from segcam.sources.street.vehicles import bus, car, lorry, tram

#: How far ahead vehicles and people are drawn.
_FAR_M, _WALKERS_M, _FINE_M = 190.0, 85.0, 22.0
_ABOUT = math.pi
_START_M = 30.0


def driven(street: Plan, time_s: float) -> float:
    """Metres along the street where the camera is."""
    return _START_M + street.speed * time_s + 2.0 * math.sin(0.21 * time_s + street.seed % 7)


def moving(street: Plan, time_s: float) -> Mesh:
    """Everything that moves, z from the camera's place along the street on."""
    here = driven(street, time_s)
    meshes = [
        *_queue(street, time_s), *_flows(street, time_s, here), *_trams(street, time_s, here),
        *_cyclists(street, time_s, here), *_walkers(street, time_s, here), *_crossers(street, time_s, here),
    ]  # fmt: skip
    return merge(meshes)


def _slots(origin: float, spacing: float, low: float, high: float) -> Iterator[int]:
    """Numbers of the places at origin + number * spacing that lie between low and high."""
    yield from range(math.ceil((low - origin) / spacing), math.floor((high - origin) / spacing) + 1)


def _vehicle(throw: Dice) -> Mesh:
    kind = throw.unit()
    if kind < 0.66:
        return car(throw.whole(0, 4), throw.whole(0, 14))
    if kind < 0.77:
        return lorry(throw.whole(0, 7), throw.whole(0, 14))
    if kind < 0.88:
        return bus(throw.whole(0, 15))
    return motorcyclist(throw.whole(0, 31))


def _queue(street: Plan, time_s: float) -> Iterator[Mesh]:
    """Who drives ahead in the camera's own lane."""
    place = 0.0
    for n in range(5):
        throw = Dice(street.seed, 31, n)
        place += throw.between(16, 42) if n else throw.between(16, 50)
        if throw.chance(street.traffic * 0.65):
            gap = place + 2.5 * math.sin(0.17 * time_s + n + street.seed)
            yield moved(_vehicle(throw), street.ego + throw.between(-0.2, 0.2), 0, gap)


def _flows(street: Plan, time_s: float, here: float) -> Iterator[Mesh]:
    """The other lanes: each has one speed."""
    lanes = [*range(1, street.lanes), *range(-street.lanes, 0)]
    for lane in lanes:
        throw = Dice(street.seed, 32, lane)
        ahead = lane > 0
        speed = street.speed * throw.between(0.82, 1.12) if ahead else -street.speed * throw.between(0.85, 1.15)
        spacing = throw.between(19, 34)
        origin = speed * time_s
        for slot in _slots(origin, spacing, here - 16, here + _FAR_M):
            one = Dice(street.seed, 33, lane, slot)
            if one.chance(street.traffic * 0.55):
                z = origin + slot * spacing + one.between(-2.5, 2.5) - here
                yield moved(
                    _vehicle(one), street.lane_at(lane) + one.between(-0.25, 0.25), 0, z, 0.0 if ahead else _ABOUT
                )


def _trams(street: Plan, time_s: float, here: float) -> Iterator[Mesh]:
    if not street.tram:
        return
    for side in (-1, 1):
        throw = Dice(street.seed, 34, side)
        speed = side * street.speed * throw.between(0.6, 0.95)
        spacing, origin = throw.between(120, 210), speed * time_s + throw.between(0, 60)
        for slot in _slots(origin, spacing, here - 25, here + _FAR_M):
            kind = Dice(street.seed, 35, side, slot).whole(0, 15)
            yield moved(
                tram(kind), side * street.tram / 2, 0, origin + slot * spacing - here, 0.0 if side > 0 else _ABOUT
            )


def _cyclists(street: Plan, time_s: float, here: float) -> Iterator[Mesh]:
    x = street.half - street.parking - 0.45
    for side in (-1, 1):
        throw = Dice(street.seed, 36, side)
        speed, spacing = side * throw.between(3.6, 5.5), throw.between(14, 24)
        origin = speed * time_s
        for slot in _slots(origin, spacing, here + 1, here + 0.8 * _WALKERS_M):
            one = Dice(street.seed, 37, side, slot)
            if one.chance(0.24 + 0.16 * street.people):
                number, z = one.whole(0, 511), origin + slot * spacing + one.between(-4, 4) - here
                mesh = cyclist(number, 1.7 * time_s * 2 + number)
                yield moved(mesh, side * (x + one.between(-0.25, 0.15)), 0, z, 0.0 if side > 0 else _ABOUT)


def _walkers(street: Plan, time_s: float, here: float) -> Iterator[Mesh]:
    width = street.pavement - street.verge
    for lane in range(6):
        side, row = (-1 if lane % 2 else 1), lane // 2
        throw = Dice(street.seed, 38, lane)
        way = throw.pick((-1, 1))
        speed, spacing = way * throw.between(1.1, 1.6), throw.between(3.5, 6.0)
        x = street.half + street.verge + width * (0.42, 0.66, 0.9)[row] - 0.1
        origin = speed * time_s
        for slot in _slots(origin, spacing, here + 1.5, here + _WALKERS_M):
            one = Dice(street.seed, 39, lane, slot)
            if not one.chance(0.2 * street.people):
                continue
            z = origin + slot * spacing + one.between(-0.8, 0.8) - here
            for n in range(2 if one.chance(0.25) else 1):
                number = one.whole(0, 63)
                mesh = walker(number, 5.6 * time_s * abs(speed) / 1.4 + number, z < _FINE_M)
                aside = one.between(-0.2, 0.2) + 0.6 * n
                yield moved(
                    mesh, side * (x - aside), KERB_M, z + 0.1 * n, (0.0 if way > 0 else _ABOUT) + one.between(-0.1, 0.1)
                )


def _crossers(street: Plan, time_s: float, here: float) -> Iterator[Mesh]:
    """People on the zebra crossings; they are over before the camera is there."""
    first = math.floor(here / CHUNK_M)
    for chunk in range(first, first + 3):
        if has_crossing(street, chunk):
            zebra = chunk * CHUNK_M + CROSSING_M[2] + 2.1
        elif has_crossing(street, chunk + 1):
            zebra = (chunk + 1) * CHUNK_M - 2.1
        else:
            continue
        arrival = (zebra - _START_M) / street.speed
        for n in range(5):
            one = Dice(street.seed, 40, chunk, n)
            if not one.chance(0.6 * street.people):
                continue
            side, speed = one.pick((-1, 1)), one.between(1.2, 1.7)
            over = street.half + 0.6
            begun = arrival - 2 * over / speed - one.between(2.2, 7.0)
            walked = min(max((time_s - begun) * speed, 0.0), 2 * over)
            x, going = side * (walked - over), 0.0 < walked < 2 * over
            number = one.whole(0, 63)
            z = zebra + one.between(-1.2, 1.2) - here
            if 1.0 < z < _WALKERS_M:
                stride = 5.6 * walked / 1.4 + number if going else 0.0
                yield moved(
                    walker(number, stride, z < _FINE_M),
                    x,
                    0.0 if abs(x) < street.half else KERB_M,
                    z,
                    side * 0.5 * _ABOUT,
                )
