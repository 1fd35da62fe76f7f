"""People on foot and on two wheels: bodies of tubes, posed by the time; bicycles and motorcycles."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from segcam.sources.street.dice import Dice
from segcam.sources.street.mesh import CUTOUT, GLOSSY, NIGHT, RGB, Builder, Mesh, Surface, limbs, merge, tube
from segcam.sources.street.textures import TEXTURE

PERSON, RIDER, MOTORCYCLE, BICYCLE = 11, 12, 17, 18
_SKIN: tuple[RGB, ...] = ((0.90, 0.70, 0.58), (0.82, 0.60, 0.47), (0.62, 0.43, 0.32), (0.42, 0.28, 0.21))
_HAIR: tuple[RGB, ...] = ((0.10, 0.08, 0.07), (0.26, 0.17, 0.11), (0.48, 0.34, 0.2), (0.6, 0.6, 0.6))
_CLOTH: tuple[RGB, ...] = (
    (0.10, 0.10, 0.12), (0.14, 0.18, 0.30), (0.22, 0.24, 0.27), (0.55, 0.55, 0.54), (0.85, 0.84, 0.82),
    (0.62, 0.14, 0.14), (0.20, 0.36, 0.26), (0.75, 0.62, 0.30), (0.32, 0.24, 0.20), (0.30, 0.42, 0.60),
    (0.66, 0.40, 0.50),
)  # fmt: skip
_LEGS: tuple[RGB, ...] = (
    (0.10, 0.11, 0.14),
    (0.16, 0.20, 0.32),
    (0.30, 0.30, 0.30),
    (0.46, 0.40, 0.30),
    (0.08, 0.08, 0.08),
)

Joint = tuple[float, float, float]


class Limb(NamedTuple):
    start: Joint
    end: Joint
    wide: tuple[float, float]
    deep: tuple[float, float]
    tint: RGB


def _body(parts: list[Limb], label: int, fine: bool) -> Mesh:
    plain = TEXTURE["plain"]
    side = np.tile(np.array([[1.0, 0.02, 0.03]], np.float32), (len(parts), 1))
    return limbs(
        np.array([part.start for part in parts], np.float32),
        np.array([part.end for part in parts], np.float32),
        np.array([part.wide for part in parts], np.float32),
        np.array([part.deep for part in parts], np.float32),
        side,
        np.array([(*part.tint, plain, label, 0) for part in parts], np.float32),
        7 if fine else 5,
        fine,
    )


def walker(number: int, stride: float, fine: bool) -> Mesh:
    """Someone who walks along z, at the origin; ``stride`` is where in a step (radians). Who it is follows from
    ``number``."""
    # Sixteen moments of a step look smooth and can be kept.
    return _walker(number % 64, round(stride / (2 * math.pi) * 16) % 16, fine)


@lru_cache(1024)
def _walker(number: int, moment: int, fine: bool) -> Mesh:
    throw = Dice(341, number)
    tall = throw.between(1.55, 1.88) * (0.72 if throw.chance(0.08) else 1.0)
    stout = throw.between(0.9, 1.18)
    skin, hair = throw.pick(_SKIN), throw.pick(_HAIR)
    coat, trousers = throw.pick(_CLOTH), throw.pick(_LEGS)
    long_coat, skirt, bag = throw.chance(0.3), throw.chance(0.15), throw.chance(0.35)
    still = throw.chance(0.12)
    swing = 0.0 if still else math.sin(2 * math.pi * moment / 16)
    hip, neck = 0.52 * tall, 0.83 * tall
    w = 0.105 * tall * stout
    parts: list[Limb] = []
    for s in (-1, 1):
        lean = 0.42 * swing * s
        bend = 0.5 * max(0.0, -lean) + 0.06
        x = s * 0.052 * tall
        knee = (x, hip - 0.25 * tall * math.cos(lean), 0.25 * tall * math.sin(lean))
        foot = (x, knee[1] - 0.235 * tall * math.cos(lean - bend), knee[2] + 0.235 * tall * math.sin(lean - bend))
        shin = skin if skirt else trousers
        parts.append(
            Limb((x, hip, 0), knee, (0.052 * tall * stout, 0.036 * tall), (0.054 * tall, 0.038 * tall), trousers)
        )
        parts.append(Limb(knee, foot, (0.034 * tall, 0.024 * tall), (0.036 * tall, 0.026 * tall), shin))
        toe = (x, foot[1] - 0.012 * tall, foot[2] + 0.1 * tall)
        parts.append(Limb((x, foot[1] - 0.008, foot[2] - 0.03), toe, (0.03, 0.028), (0.03, 0.022), (0.08, 0.07, 0.07)))
        arm = -0.36 * swing * s
        shoulder = (s * w * 0.94, neck - 0.065 * tall, 0.0)
        elbow = (s * w * 1.12, shoulder[1] - 0.17 * tall * math.cos(arm), 0.17 * tall * math.sin(arm))
        hand = (
            s * w * 1.1,
            elbow[1] - 0.15 * tall * math.cos(arm + 0.35),
            elbow[2] + 0.15 * tall * math.sin(arm + 0.35),
        )
        parts.append(Limb(shoulder, elbow, (0.034 * tall, 0.026 * tall), (0.034 * tall, 0.026 * tall), coat))
        parts.append(Limb(elbow, hand, (0.026 * tall, 0.019 * tall), (0.026 * tall, 0.019 * tall), coat))
        parts.append(Limb(hand, (hand[0], hand[1] - 0.03 * tall, hand[2] + 0.02), (0.02, 0.02), (0.022, 0.018), skin))
    chest = (0.0, neck - 0.08 * tall, 0.01)
    parts.append(Limb((0, hip - 0.01, 0), chest, (w * 0.86, w * 1.02), (w * 0.62, w * 0.66), coat))
    parts.append(Limb(chest, (0, neck, 0), (w * 1.02, w * 0.5), (w * 0.66, w * 0.45), coat))
    if long_coat or skirt:
        parts.append(
            Limb(
                (0, hip - (0.2 if skirt else 0.15) * tall, 0),
                (0, hip + 0.04 * tall, 0),
                (w * 1.15, w * 0.9),
                (w * 0.9, w * 0.66),
                coat,
            )
        )
    parts.append(
        Limb((0, neck, 0), (0, neck + 0.05 * tall, 0.01), (0.03 * tall, 0.03 * tall), (0.03 * tall, 0.03 * tall), skin)
    )
    parts.extend(_head(neck + 0.055 * tall, 0.0, tall, skin, hair))
    if bag:
        color = throw.pick(_CLOTH)
        parts.append(
            Limb(
                (0.0, hip + 0.08 * tall, -w * 0.8),
                (0.0, neck - 0.04 * tall, -w * 0.85),
                (w * 0.75, w * 0.65),
                (w * 0.5, w * 0.36),
                color,
            )
        )
    return _body(parts, PERSON, fine)


def _head(y: float, z: float, tall: float, skin: RGB, hair: RGB, helmet: bool = False) -> list[Limb]:
    r = 0.048 * tall * (1.3 if helmet else 1.0)
    return [
        Limb((0, y + 0.022 * tall, z + 0.012), (0, y + 0.068 * tall, z + 0.012), (r * 0.9, r), (r, r * 1.1), skin),
        Limb(
            (0, y + 0.075 * tall, z - 0.006), (0, y + 0.092 * tall, z - 0.006), (r * 1.08, r * 0.9), (r * 1.22, r), hair
        ),
        Limb((0, y + 0.04 * tall, z - 0.02), (0, y + 0.07 * tall, z - 0.02), (r * 0.9, r), (r, r * 1.05), hair),
    ]


@lru_cache(512)
def _rider(number: int, moment: int, motor: bool) -> Mesh:
    """Sits on what ``bicycle`` or ``motorcycle`` draws; pedals on the former."""
    throw = Dice(343, number)
    skin, coat, trousers = throw.pick(_SKIN), throw.pick(_CLOTH), throw.pick(_LEGS)
    helmet = motor or throw.chance(0.5)
    hair = (
        throw.pick(((0.9, 0.9, 0.9), (0.12, 0.12, 0.13), (0.7, 0.12, 0.1), (0.2, 0.3, 0.6)))
        if helmet
        else throw.pick(_HAIR)
    )
    hip = (0.0, 0.86, -0.22) if motor else (0.0, 1.0, -0.24)
    chest = (0.0, hip[1] + 0.46, hip[2] + (0.2 if motor else 0.24))
    parts: list[Limb] = []
    for s in (-1, 1):
        turn = 2 * math.pi * moment / 16 + (math.pi if s > 0 else 0.0)
        foot = (s * 0.13, 0.3, 0.12) if motor else (s * 0.1, 0.3 + 0.16 * math.sin(turn), 0.02 + 0.16 * math.cos(turn))
        middle = (0.5 * (hip[1] + foot[1]), 0.5 * (hip[2] + foot[2]))
        reach = math.hypot(hip[1] - foot[1], hip[2] - foot[2])
        out = math.sqrt(max(0.004, 0.43**2 - (reach / 2) ** 2))
        ahead = ((hip[1] - foot[1]) / reach, (foot[2] - hip[2]) / reach)
        knee = (s * (0.17 if motor else 0.11), middle[0] + ahead[1] * out, middle[1] + ahead[0] * out)
        parts.append(Limb((s * 0.09, hip[1], hip[2]), knee, (0.085, 0.062), (0.085, 0.062), trousers))
        parts.append(Limb(knee, foot, (0.06, 0.042), (0.06, 0.045), trousers))
        parts.append(
            Limb(
                (foot[0], foot[1] - 0.03, foot[2] - 0.05),
                (foot[0], foot[1] - 0.04, foot[2] + 0.15),
                (0.045, 0.04),
                (0.045, 0.03),
                (0.08, 0.08, 0.08),
            )
        )
        shoulder = (s * 0.19, chest[1] + 0.06, chest[2])
        hand = (s * 0.27, 1.0, 0.42)
        elbow = (s * 0.28, 0.5 * (shoulder[1] + hand[1]) - 0.07, 0.5 * (shoulder[2] + hand[2]) - 0.03)
        parts.append(Limb(shoulder, elbow, (0.06, 0.045), (0.06, 0.045), coat))
        parts.append(Limb(elbow, hand, (0.045, 0.035), (0.045, 0.035), coat))
    parts.append(Limb(hip, chest, (0.16, 0.185), (0.12, 0.13), coat))
    parts.append(Limb(chest, (0, chest[1] + 0.13, chest[2] + 0.03), (0.185, 0.08), (0.13, 0.08), coat))
    parts.extend(_head(chest[1] + 0.17, chest[2] + 0.06, 1.72, hair if motor else skin, hair, helmet))
    return _body(parts, RIDER, True)


@lru_cache(16)
def bicycle(kind: int) -> Mesh:
    throw = Dice(345, kind)
    tint = throw.pick(((0.12, 0.12, 0.13), (0.6, 0.12, 0.1), (0.14, 0.3, 0.56), (0.7, 0.7, 0.72), (0.2, 0.42, 0.28)))
    frame, dark = (
        Surface(TEXTURE["plain"], BICYCLE, tint, GLOSSY),
        Surface(TEXTURE["plain"], BICYCLE, (0.09, 0.09, 0.1)),
    )
    hoop = Surface(TEXTURE["hoop"], BICYCLE, (1, 1, 1), CUTOUT)
    build, r = Builder(), 0.35
    for z in (-0.52, 0.54):
        build.quad((0, 0, z - r), (0, 0, z + r), (0, 2 * r, z + r), (0, 2 * r, z - r), hoop)
        tyre = [tube((0, r + r * 0.94 * math.sin(a), z + r * 0.94 * math.cos(a)),
                     (0, r + r * 0.94 * math.sin(a + 0.63), z + r * 0.94 * math.cos(a + 0.63)), 0.024, dark, 4)
                for a in (n * 0.6283 for n in range(10))]  # fmt: skip
        for part in tyre:
            build.add(part)
    crank, seat, head, grip = (0, 0.3, 0.02), (0, 0.92, -0.24), (0, 0.88, 0.36), (0, 1.02, 0.4)
    for a, b, radius in (
        (crank, seat, 0.022), (crank, head, 0.024), ((0, 0.82, -0.2), head, 0.022), (crank, (0, r, -0.52), 0.016),
        ((0, 0.8, -0.2), (0, r, -0.52), 0.014), (head, (0, r, 0.54), 0.02), (head, grip, 0.018),
    ):  # fmt: skip
        build.add(tube(a, b, radius, frame, 5))
    build.add(tube((-0.28, 1.02, 0.4), (0.28, 1.02, 0.4), 0.018, dark, 5))
    build.box((-0.07, 0.92, -0.36), (0.07, 0.98, -0.12), dark)
    if kind % 3 == 0:
        build.box((-0.17, 0.82, 0.46), (0.17, 1.06, 0.74), dark)
    if kind % 3 == 1:
        build.box((-0.06, 0.73, -0.82), (0.06, 0.76, -0.3), dark)
    return build.mesh()


@lru_cache(16)
def motorcycle(kind: int) -> Mesh:
    throw = Dice(347, kind)
    scooter = kind % 2 == 0
    tint = throw.pick(((0.1, 0.1, 0.11), (0.62, 0.1, 0.08), (0.15, 0.28, 0.55), (0.75, 0.75, 0.76), (0.85, 0.55, 0.1)))
    skin, dark = (
        Surface(TEXTURE["plain"], MOTORCYCLE, tint, GLOSSY),
        Surface(TEXTURE["plain"], MOTORCYCLE, (0.09, 0.09, 0.1)),
    )
    steel = Surface(TEXTURE["plain"], MOTORCYCLE, (0.5, 0.5, 0.52), GLOSSY)
    rim = Surface(TEXTURE["wheel"], MOTORCYCLE, (1, 1, 1), CUTOUT)
    build = Builder()
    r = 0.25 if scooter else 0.31
    for z in (-0.68, 0.72):
        for x in (-0.062, 0.062):
            build.quad((x, 0, z - r), (x, 0, z + r), (x, 2 * r, z + r), (x, 2 * r, z - r), rim)
        build.add(tube((-0.06, r, z), (0.06, r, z), r, dark, 12))
    build.box((-0.13, 0.72, -0.72), (0.13, 0.82, 0.08), dark)
    if scooter:
        build.box((-0.19, 0.3, -0.85), (0.19, 0.74, -0.2), skin)
        build.box((-0.2, 0.26, -0.25), (0.2, 0.34, 0.45), skin)
        build.quad((-0.22, 0.28, 0.42), (0.22, 0.28, 0.42), (0.17, 1.0, 0.3), (-0.17, 1.0, 0.3), skin)
        build.box((-0.16, 0.3, 0.4), (0.16, 0.95, 0.5), skin)
    else:
        build.box((-0.17, 0.28, -0.25), (0.17, 0.62, 0.32), steel)
        build.box((-0.15, 0.64, -0.08), (0.15, 0.94, 0.42), skin)
        build.box((-0.11, 0.66, -0.88), (0.11, 0.9, -0.5), skin)
        for s in (-1, 1):
            build.add(tube((s * 0.08, 0.95, 0.42), (s * 0.08, r, 0.72), 0.035, steel, 6))
        build.add(tube((0.16, 0.3, 0.1), (0.17, 0.36, -0.85), 0.05, steel, 6))
    build.box((-0.1, 0.86, 0.42), (0.1, 1.06, 0.56), skin)
    lamp = Surface(TEXTURE["plain"], MOTORCYCLE, (0.95, 0.95, 0.88), NIGHT)
    build.quad((0.08, 0.88, 0.57), (-0.08, 0.88, 0.57), (-0.08, 1.02, 0.57), (0.08, 1.02, 0.57), lamp)
    back = Surface(TEXTURE["plain"], MOTORCYCLE, (0.78, 0.06, 0.05), NIGHT)
    build.quad((-0.08, 0.62, -0.9), (0.08, 0.62, -0.9), (0.08, 0.72, -0.9), (-0.08, 0.72, -0.9), back)
    build.add(tube((-0.34, 1.02, 0.4), (0.34, 1.02, 0.4), 0.022, dark, 5))
    return build.mesh()


def cyclist(number: int, turn: float) -> Mesh:
    """A rider on a bicycle; ``turn`` of the pedals in radians."""
    return merge([bicycle(number % 16), _rider(number % 32, round(turn / (2 * math.pi) * 16) % 16, False)])


def motorcyclist(number: int) -> Mesh:
    return merge([motorcycle(number % 16), _rider(number % 32, 0, True)])
