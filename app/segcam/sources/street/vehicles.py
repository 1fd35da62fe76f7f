"""Cars, vans, lorries, buses, trams: shells lofted over cross-sections, at the origin, heading along z."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from segcam.sources.street.dice import Dice
from segcam.sources.street.mesh import CUTOUT, DECAL, GLOSSY, NIGHT, RGB, Builder, Mesh, Surface, merge, painted, tube
from segcam.sources.street.textures import TEXTURE

CAR, TRUCK, BUS, TRAIN = 13, 14, 15, 16
#: Stands for the paint in templates.
_PAINT: RGB = (0.125, 0.25, 0.5)
PAINTS: tuple[RGB, ...] = (
    (0.10, 0.10, 0.11), (0.16, 0.17, 0.18), (0.30, 0.31, 0.33), (0.52, 0.54, 0.56), (0.72, 0.73, 0.74),
    (0.92, 0.92, 0.91), (0.92, 0.92, 0.91), (0.10, 0.16, 0.34), (0.16, 0.28, 0.52), (0.55, 0.07, 0.08),
    (0.68, 0.12, 0.10), (0.12, 0.26, 0.18), (0.76, 0.60, 0.20), (0.50, 0.40, 0.30), (0.12, 0.12, 0.14),
)  # fmt: skip

#: A section: z, height of the sill's top edge (belt), of the top, half-width at the belt and at the top; then what
#: follows it up to the next section: "g" glass or "p" paint above the belt, and on top.
Section = tuple[float, float, float, float, float, str, str]

_HATCH: tuple[Section, ...] = (
    (-2.05, 0.80, 0.86, 0.78, 0.74, "p", "p"), (-1.98, 0.92, 1.02, 0.84, 0.74, "p", "g"),
    (-1.62, 0.94, 1.42, 0.86, 0.60, "g", "p"), (-0.55, 0.93, 1.47, 0.87, 0.62, "p", "p"),
    (-0.47, 0.93, 1.47, 0.87, 0.62, "g", "p"), (0.30, 0.92, 1.44, 0.87, 0.61, "g", "g"),
    (1.05, 0.90, 0.97, 0.86, 0.76, "p", "p"), (1.75, 0.78, 0.83, 0.84, 0.72, "p", "p"),
    (2.05, 0.62, 0.66, 0.76, 0.66, "p", "p"),
)  # fmt: skip
_SALOON: tuple[Section, ...] = (
    (-2.30, 0.78, 0.82, 0.80, 0.74, "p", "p"), (-2.22, 0.94, 1.00, 0.86, 0.76, "p", "p"),
    (-1.62, 0.95, 1.03, 0.88, 0.76, "p", "g"), (-0.95, 0.94, 1.40, 0.89, 0.61, "g", "p"),
    (-0.30, 0.93, 1.43, 0.89, 0.62, "p", "p"), (-0.22, 0.93, 1.43, 0.89, 0.62, "g", "p"),
    (0.42, 0.92, 1.39, 0.89, 0.61, "g", "g"), (1.18, 0.90, 0.96, 0.88, 0.78, "p", "p"),
    (1.95, 0.78, 0.83, 0.86, 0.74, "p", "p"), (2.30, 0.62, 0.66, 0.78, 0.68, "p", "p"),
)  # fmt: skip
_ESTATE: tuple[Section, ...] = (
    (-2.30, 0.80, 0.86, 0.80, 0.76, "p", "p"), (-2.25, 0.95, 1.02, 0.87, 0.78, "p", "g"),
    (-2.00, 0.96, 1.44, 0.88, 0.64, "g", "p"), (-1.05, 0.95, 1.50, 0.89, 0.66, "p", "p"),
    (-0.97, 0.95, 1.50, 0.89, 0.66, "g", "p"), (-0.10, 0.94, 1.50, 0.89, 0.66, "p", "p"),
    (-0.02, 0.94, 1.50, 0.89, 0.66, "g", "p"), (0.50, 0.93, 1.44, 0.89, 0.64, "g", "g"),
    (1.22, 0.92, 0.98, 0.88, 0.78, "p", "p"), (1.95, 0.82, 0.87, 0.86, 0.76, "p", "p"),
    (2.28, 0.64, 0.68, 0.80, 0.70, "p", "p"),
)  # fmt: skip
_JEEP: tuple[Section, ...] = (
    (-2.20, 0.95, 1.00, 0.84, 0.80, "p", "p"), (-2.15, 1.06, 1.14, 0.92, 0.84, "p", "g"),
    (-1.90, 1.07, 1.66, 0.94, 0.72, "g", "p"), (-0.75, 1.06, 1.72, 0.95, 0.74, "p", "p"),
    (-0.66, 1.06, 1.72, 0.95, 0.74, "g", "p"), (0.35, 1.05, 1.68, 0.95, 0.73, "g", "g"),
    (1.05, 1.03, 1.12, 0.94, 0.84, "p", "p"), (1.85, 0.98, 1.03, 0.93, 0.82, "p", "p"),
    (2.20, 0.80, 0.84, 0.86, 0.78, "p", "p"),
)  # fmt: skip
_VAN: tuple[Section, ...] = (
    (-2.55, 1.15, 2.05, 0.94, 0.86, "p", "p"), (-2.50, 1.15, 2.10, 0.95, 0.87, "p", "p"),
    (0.55, 1.15, 2.12, 0.95, 0.87, "p", "p"), (0.70, 1.13, 2.10, 0.95, 0.86, "g", "p"),
    (1.35, 1.10, 1.95, 0.95, 0.78, "g", "g"), (1.95, 1.06, 1.16, 0.93, 0.80, "p", "p"),
    (2.45, 0.92, 0.98, 0.90, 0.78, "p", "p"), (2.60, 0.72, 0.76, 0.84, 0.74, "p", "p"),
)  # fmt: skip
_BODIES = (_HATCH, _SALOON, _ESTATE, _JEEP, _VAN)
_WHEELS = ((-1.25, 1.30, 0.31), (-1.38, 1.42, 0.32), (-1.36, 1.42, 0.32), (-1.32, 1.36, 0.37), (-1.60, 1.72, 0.34))
CARS = len(_BODIES)


def _loft(build: Builder, sections: Sequence[Section], label: int, sill: float) -> None:
    paint = Surface(TEXTURE["plain"], label, _PAINT, GLOSSY)
    door = Surface(TEXTURE["doors"], label, _PAINT, GLOSSY)
    glass = Surface(TEXTURE["plain"], label, (0.085, 0.10, 0.115), GLOSSY)
    first, last = sections[0][0], sections[-1][0]
    for here, then in pairwise(sections):
        z0, belt0, top0, wide0, narrow0, side_kind, top_kind = here
        z1, belt1, top1, wide1, narrow1 = then[:5]
        u0, u1 = (z0 - first) / (last - first), (z1 - first) / (last - first)
        low0, low1 = wide0 * 0.93, wide1 * 0.93
        upper, top = (glass if side_kind == "g" else paint), (glass if top_kind == "g" else paint)
        edge0, edge1 = top0 - 0.035, top1 - 0.035
        for s in (-1, 1):
            strips = (
                ((low0, sill, low1, sill), (wide0, 0.62 * belt0, wide1, 0.62 * belt1), door, (1.0, 0.5)),
                (
                    (wide0, 0.62 * belt0, wide1, 0.62 * belt1),
                    (wide0 - 0.02, belt0, wide1 - 0.02, belt1),
                    door,
                    (0.5, 0.0),
                ),
                (
                    (wide0 - 0.02, belt0, wide1 - 0.02, belt1),
                    (narrow0 + 0.03, edge0, narrow1 + 0.03, edge1),
                    upper,
                    (0.0, 0.0),
                ),
                (
                    (narrow0 + 0.03, edge0, narrow1 + 0.03, edge1),
                    (narrow0 - 0.05, top0, narrow1 - 0.05, top1),
                    paint,
                    (0.0, 0.0),
                ),
            )
            for (xa0, ya0, xa1, ya1), (xb0, yb0, xb1, yb1), skin, (v0, v1) in strips:
                a, b = (s * xa0, ya0, z0), (s * xa1, ya1, z1)
                c, d = (s * xb1, yb1, z1), (s * xb0, yb0, z0)
                corners = [a, b, c, d] if s > 0 else [b, a, d, c]
                uv = [(u0, v0), (u1, v0), (u1, v1), (u0, v1)]
                build.face(corners, uv if s > 0 else [uv[1], uv[0], uv[3], uv[2]], skin)
        n0, n1 = narrow0 - 0.05, narrow1 - 0.05
        build.quad((-n0, top0, z0), (n0, top0, z0), (n1, top1, z1), (-n1, top1, z1), top)
    for z, belt, high, wide, narrow, back in ((*sections[0][:5], True), (*sections[-1][:5], False)):
        low = wide * 0.93
        right = (
            (low, sill),
            (wide, 0.62 * belt),
            (wide - 0.02, belt),
            (narrow + 0.03, high - 0.035),
            (narrow - 0.05, high),
        )
        ring = [(-low, sill, z), *((x, y, z) for x, y in right), *((-x, y, z) for x, y in right[:0:-1])]
        build.face(ring if back else ring[::-1], [(0.5, 0.2)] * len(ring), paint)
    under = Surface(TEXTURE["plain"], label, (0.05, 0.05, 0.05))
    build.quad((-0.8, sill, last), (0.8, sill, last), (0.8, sill, first), (-0.8, sill, first), under)


def wheel_pair(build: Builder, z: float, radius: float, half: float, label: int, texture: str = "wheel") -> None:
    """Two wheels of one axle with dark arches above."""
    rim = Surface(TEXTURE[texture], label, (1, 1, 1), CUTOUT | DECAL)
    arch = Surface(TEXTURE["arch"], label, (1, 1, 1), CUTOUT)
    tyre = Surface(TEXTURE["plain"], label, (0.07, 0.07, 0.075))
    for s in (-1, 1):
        for size, x, skin in ((radius * 1.16, s * (half + 0.012), arch), (radius, s * (half + 0.02), rim)):
            near, far = (z - size, z + size) if s > 0 else (z + size, z - size)
            low = radius - size + (0.03 if skin is arch else 0.0)
            build.quad((x, low, near), (x, low, far), (x, low + 2 * size, far), (x, low + 2 * size, near), skin)
        build.add(tube((s * (half - 0.2), radius, z), (s * (half + 0.015), radius, z), radius, tyre, 12))


def _plate(build: Builder, x0: float, x1: float, y0: float, y1: float, z: float, ahead: bool, skin: Surface) -> None:
    a, b = (x1, x0) if ahead else (x0, x1)
    build.quad((a, y0, z), (b, y0, z), (b, y1, z), (a, y1, z), skin)


def _ends(build: Builder, sections: Sequence[Section], label: int) -> None:
    """Lights, number plates, bumpers, grille."""
    back, front = sections[0], sections[-1]
    red = Surface(TEXTURE["plain"], label, (0.78, 0.06, 0.05), NIGHT)
    lamp = Surface(TEXTURE["plain"], label, (0.95, 0.95, 0.88), NIGHT)
    number = Surface(TEXTURE["plain"], label, (0.92, 0.92, 0.88))
    dark = Surface(TEXTURE["plain"], label, (0.10, 0.10, 0.105))
    grille = Surface(TEXTURE["grille"], label)
    z, belt, wide = back[0] - 0.015, back[1], back[3]
    for s in (-1, 1):
        low, high = sorted((s * (wide - 0.02), s * (wide - 0.30)))
        _plate(build, low, high, belt - 0.16, belt + 0.06, z - 0.01, False, red)
        low, high = sorted((s * (front[3] - 0.03), s * (front[3] - 0.36)))
        _plate(build, low, high, front[1] - 0.12, front[1] + 0.03, front[0] + 0.02, True, lamp)
    _plate(build, -0.26, 0.26, belt - 0.20, belt - 0.09, z, False, number)
    _plate(build, -0.26, 0.26, 0.36, 0.47, front[0] + 0.03, True, number)
    _plate(build, -0.42, 0.42, front[1] - 0.13, front[1], front[0] + 0.015, True, grille)
    build.box((-wide, 0.26, back[0] - 0.06), (wide, 0.44, back[0] + 0.2), dark, sides="lrft")
    build.box((-front[3], 0.22, front[0] - 0.2), (front[3], 0.36, front[0] + 0.05), dark, sides="lrbt")


@lru_cache(CARS)
def _car(kind: int) -> Mesh:
    build = Builder()
    sections = _BODIES[kind]
    _loft(build, sections, CAR, 0.26)
    _ends(build, sections, CAR)
    rear, fore, radius = _WHEELS[kind]
    half = sections[3][3] * 0.985
    for z in (rear, fore):
        wheel_pair(build, z, radius, half, CAR)
    mirror = Surface(TEXTURE["plain"], CAR, _PAINT, GLOSSY)
    z = next(section[0] for section in reversed(sections) if section[6] == "g") + 0.25
    for s in (-1, 1):
        low, high = sorted((s * (half - 0.02), s * (half + 0.17)))
        build.box((low, sections[3][1] + 0.0, z), (high, sections[3][1] + 0.13, z + 0.1), mirror)
    return build.mesh()


@lru_cache(256)
def car(kind: int, color: int) -> Mesh:
    return painted(_car(kind % CARS), _PAINT, PAINTS[color % len(PAINTS)])


@lru_cache(64)
def lorry(kind: int, color: int) -> Mesh:
    """A cab with a box, a tank or a tipper behind it."""
    throw = Dice(331, kind)
    paint = PAINTS[color % len(PAINTS)]
    build = Builder()
    length, high = throw.between(5.2, 8.5), throw.between(2.9, 3.6)
    cab = Surface(TEXTURE["plain"], TRUCK, paint, GLOSSY)
    dark = Surface(TEXTURE["plain"], TRUCK, (0.09, 0.09, 0.10))
    glass = Surface(TEXTURE["plain"], TRUCK, (0.085, 0.10, 0.115), GLOSSY)
    front = length / 2 + 1.9
    cab_high = min(high, throw.between(2.5, 3.0))
    build.box((-1.15, 0.55, length / 2 + 0.15), (1.15, cab_high, front), cab)
    _plate(build, -1.05, 1.05, 1.55, cab_high - 0.3, front + 0.01, True, glass)
    _plate(build, -0.8, 0.8, 0.7, 1.35, front + 0.012, True, Surface(TEXTURE["grille"], TRUCK))
    build.box((-1.15, 0.35, front - 0.3), (1.15, 0.65, front + 0.08), dark)
    for s in (-1, 1):
        x = s * 1.16
        near, far = (front - 1.3, front - 0.35) if s > 0 else (front - 0.35, front - 1.3)
        build.quad((x, 1.5, near), (x, 1.5, far), (x, cab_high - 0.35, far), (x, cab_high - 0.35, near), glass)
        low, top = sorted((s * 0.75, s * 1.08))
        _plate(
            build, low, top, 0.66, 0.88, front + 0.09, True, Surface(TEXTURE["plain"], TRUCK, (0.95, 0.95, 0.88), NIGHT)
        )
        _plate(
            build,
            low,
            top,
            0.78,
            0.98,
            -length / 2 - 0.02,
            False,
            Surface(TEXTURE["plain"], TRUCK, (0.78, 0.06, 0.05), NIGHT),
        )
    load = throw.pick(
        ((0.96, 0.96, 0.95), (0.30, 0.42, 0.62), (0.72, 0.22, 0.16), (0.86, 0.74, 0.36), (0.5, 0.55, 0.5))
    )
    box = Surface(TEXTURE["crate"], TRUCK, load)
    if kind % 4 == 3:
        low = throw.between(1.7, 2.2)
        build.box((-1.2, 0.95, -length / 2), (1.2, low, length / 2), Surface(TEXTURE["plain"], TRUCK, load))
        build.box((-1.1, low, -length / 2 + 0.4), (1.1, low + 0.3, length / 2 - 0.5), Surface(TEXTURE["soil"], TRUCK))
    else:
        build.box((-1.22, 0.95, -length / 2), (1.22, high, length / 2), box)
        for x in (-0.02, 0.6, -0.6):
            _plate(
                build,
                x,
                x + 0.035,
                1.0,
                high - 0.05,
                -length / 2 - 0.01,
                False,
                Surface(TEXTURE["plain"], TRUCK, (0.3, 0.3, 0.32)),
            )
    build.box((-0.9, 0.55, -length / 2), (0.9, 0.95, length / 2 + 0.2), dark)
    _plate(build, -1.15, 1.15, 0.45, 0.62, -length / 2 - 0.015, False, dark)
    for z in (front - 1.0, -length / 2 + 1.0, -length / 2 + 2.1):
        wheel_pair(build, z, 0.48, 1.14, TRUCK)
    return build.mesh()


def _coach(
    build: Builder, texture: str, label: int, paint: RGB, z0: float, z1: float, high: float, half: float, sill: float
) -> None:
    """One long body with a band of windows; its ends are glass above."""
    side = Surface(TEXTURE[texture], label, paint, GLOSSY)
    roof = Surface(TEXTURE["plain"], label, tuple(0.5 * part + 0.4 for part in paint), GLOSSY)  # type: ignore[arg-type]
    skin = Surface(TEXTURE["plain"], label, paint, GLOSSY)
    glass = Surface(TEXTURE["plain"], label, (0.09, 0.105, 0.12), GLOSSY)
    parts = max(1, round((z1 - z0) / 6))
    for s in (-1, 1):
        x = s * half
        near, far = (z0, z1) if s > 0 else (z1, z0)
        build.quad((x, sill, near), (x, sill, far), (x, high - 0.2, far), (x, high - 0.2, near), side, (0, 0, parts, 1))
        top = s * (half - 0.18)
        build.quad((x, high - 0.2, near), (x, high - 0.2, far), (top, high, far), (top, high, near), roof)
    build.quad(
        (-half + 0.18, high, z0), (half - 0.18, high, z0), (half - 0.18, high, z1), (-half + 0.18, high, z1), roof
    )
    for z, ahead in ((z0, False), (z1, True)):
        _plate(build, -half, half, sill, high - 0.2, z, ahead, skin)
        _plate(build, -half + 0.18, half - 0.18, high - 0.2, high, z, ahead, roof)
        out = 0.012 if ahead else -0.012
        _plate(build, -half + 0.1, half - 0.1, sill + 0.36 * (high - sill), high - 0.55, z + out, ahead, glass)
        _plate(
            build,
            -0.7,
            0.7,
            high - 0.5,
            high - 0.24,
            z + out,
            ahead,
            Surface(TEXTURE["plain"], label, (0.95, 0.62, 0.12), NIGHT),
        )
        color = (0.95, 0.95, 0.88) if ahead else (0.78, 0.06, 0.05)
        for s in (-1, 1):
            low, top_x = sorted((s * (half - 0.5), s * (half - 0.12)))
            _plate(
                build,
                low,
                top_x,
                sill + 0.3,
                sill + 0.55,
                z + out,
                ahead,
                Surface(TEXTURE["plain"], label, color, NIGHT),
            )


#: Towns paint the two apart, and at a distance little else tells them apart.
_BUSES: tuple[RGB, ...] = ((0.80, 0.14, 0.12), (0.92, 0.92, 0.9), (0.2, 0.5, 0.34))
_TRAMS: tuple[RGB, ...] = ((0.86, 0.74, 0.16), (0.16, 0.32, 0.62), (0.9, 0.5, 0.14))


@lru_cache(16)
def bus(kind: int) -> Mesh:
    throw = Dice(333, kind)
    length = throw.between(10.5, 12.5)
    build = Builder()
    _coach(build, "bus", BUS, _BUSES[kind % len(_BUSES)], -length / 2, length / 2, throw.between(3.0, 3.3), 1.27, 0.32)
    for z in (-length / 2 + 3.0, length / 2 - 2.6):
        wheel_pair(build, z, 0.48, 1.26, BUS)
    return build.mesh()


@lru_cache(16)
def tram(kind: int) -> Mesh:
    throw = Dice(335, kind)
    build = Builder()
    paint = _TRAMS[kind % len(_TRAMS)]
    joint = Surface(TEXTURE["plain"], TRAIN, (0.12, 0.12, 0.13))
    length, parts = throw.between(8.0, 9.5), throw.whole(2, 4)
    start = -parts * length / 2
    for part in range(parts):
        z0 = start + part * length
        _coach(build, "tram", TRAIN, paint, z0, z0 + length - 0.5, 3.35, 1.2, 0.28)
        build.box((-0.8, 0.1, z0 + 1.2), (0.8, 0.4, z0 + length - 1.6), joint)
        if part:
            build.box((-1.1, 0.35, z0 - 0.5), (1.1, 3.2, z0), joint)
        build.box(
            (-0.6, 3.35, z0 + 2), (0.6, 3.65, z0 + length - 2.5), Surface(TEXTURE["plain"], TRAIN, (0.55, 0.56, 0.57))
        )
    steel = Surface(TEXTURE["plain"], TRAIN, (0.2, 0.2, 0.21))
    arms = [
        tube((0, 3.5, 1.5), (0, 4.5, 0.4), 0.04, steel),
        tube((0, 4.5, 0.4), (0, 5.4, 1.4), 0.04, steel),
        tube((-0.7, 5.4, 1.4), (0.7, 5.4, 1.4), 0.04, steel),
    ]
    return merge([build.mesh(), *arms])
