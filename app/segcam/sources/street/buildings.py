"""Houses, blocks of flats, halls, and the walls, fences and hedges that stand before them."""

from __future__ import annotations

from segcam.sources.street.dice import Dice
from segcam.sources.street.mesh import CUTOUT, GLOSSY, RGB, WINDOWS, Builder, Surface
from segcam.sources.street.textures import TEXTURE

BUILDING, WALL, FENCE, VEGETATION = 2, 3, 4, 8
_FLOOR_M = 3.0
_ROOFS: tuple[RGB, ...] = ((0.62, 0.34, 0.26), (0.48, 0.30, 0.26), (0.36, 0.36, 0.40), (0.52, 0.46, 0.42))


def block(build: Builder, throw: Dice, side: int, x: float, z0: float, z1: float, tint: RGB, floors: int) -> None:
    """Flats or offices from z0 to z1, their front at ``x`` metres from the middle, on side -1 or 1."""
    deep = throw.between(10, 14)
    front = Surface(TEXTURE[f"front{throw.whole(0, 7)}"], BUILDING, tint, WINDOWS)
    darker: RGB = tuple(part * throw.between(0.7, 1.0) for part in tint)  # type: ignore[assignment]
    base_tint = throw.pick((tint, darker, (0.62, 0.60, 0.58)))
    base = Surface(TEXTURE[f"shops{throw.whole(0, 2)}"], BUILDING, base_tint, WINDOWS)
    ground_m = throw.between(3.2, 4.2)
    high = ground_m + floors * _FLOOR_M
    bays = max(2, round((z1 - z0) / throw.between(2.6, 3.8)))
    start, row = throw.whole(0, 3) / 4, throw.whole(0, 3) / 4
    across = (start, start + bays / 4)
    _front(build, base, side, x, z0, z1, -1.0, 0.0, (across[0], row + 0.24, across[1], row + 0.25))
    _front(build, base, side, x, z0, z1, 0.0, ground_m, (across[0], row, across[1], row + 0.25))
    _front(build, front, side, x, z0, z1, ground_m, high, (across[0], 0.0, across[1], floors / 4))
    inner, outer = min(side * x, side * (x + deep)), max(side * x, side * (x + deep))
    ends = throw.whole(1, 3) / 4
    for z, facing in ((z0, -1), (z1, 1)):
        a, b = (inner, outer) if facing < 0 else (outer, inner)
        build.quad(
            (a, -1, z), (b, -1, z), (b, ground_m, z), (a, ground_m, z), Surface(TEXTURE["plaster"], BUILDING, base_tint)
        )
        build.quad(
            (a, ground_m, z), (b, ground_m, z), (b, high, z), (a, high, z), front, (0.0, 0.0, ends + 0.25, floors / 4)
        )
    _roof(build, throw, side, x, z0, z1, high, deep, tint)
    trim: RGB = tuple(min(1.05, part * 1.1 + 0.05) for part in tint)  # type: ignore[assignment]
    ledge = Surface(TEXTURE["plaster"], BUILDING, trim)
    if throw.chance(0.7):
        _bar(build, ledge, side, x, 0.25, z0, z1, high - 0.35, high)
    if throw.chance(0.6):
        _bar(build, ledge, side, x, 0.16, z0, z1, ground_m - 0.15, ground_m + 0.1)
    if throw.chance(0.4):
        _balconies(build, throw, side, x, z0, z1, ground_m, floors, bays)
    if throw.chance(0.35):
        color = throw.pick(((0.62, 0.16, 0.14), (0.16, 0.34, 0.24), (0.85, 0.78, 0.62), (0.2, 0.28, 0.5)))
        _awning(build, side, x, z0 + 1.0, min(z1 - 1.0, z0 + throw.between(4, 8)), color)


def _front(
    build: Builder, surface: Surface, side: int, x: float, z0: float, z1: float, y0: float, y1: float,
    uv: tuple[float, float, float, float],
) -> None:  # fmt: skip
    a, b = (z0, z1) if side > 0 else (z1, z0)
    place = side * x
    # Seen from the street: the far end is on the left of a right-hand front.
    build.quad((place, y0, b), (place, y0, a), (place, y1, a), (place, y1, b), surface, uv)


def _bar(
    build: Builder, surface: Surface, side: int, x: float, out: float, z0: float, z1: float, y0: float, y1: float
) -> None:
    low, high = min(side * (x - out), side * x), max(side * (x - out), side * x)
    build.box((low, y0, z0), (high, y1, z1), surface, metres=4.0, sides="lrfbtu")


def _roof(
    build: Builder, throw: Dice, side: int, x: float, z0: float, z1: float, y: float, deep: float, tint: RGB
) -> None:
    color = throw.pick(_ROOFS)
    tiles = Surface(TEXTURE["roof"], BUILDING, color)
    near, far, ridge = side * (x - 0.4), side * (x + deep), side * (x + deep / 2)
    if throw.chance(0.55):
        top = y + throw.between(2.4, 4.2)
        a, b = (z0, z1) if side > 0 else (z1, z0)
        span = (z1 - z0) / 3
        build.quad((near, y - 0.1, b), (near, y - 0.1, a), (ridge, top, a), (ridge, top, b), tiles, (0, 0, span, 2))
        build.quad((far, y, a), (far, y, b), (ridge, top, b), (ridge, top, a), tiles, (0, 0, span, 2))
        build.quad(
            (near, y - 0.1, a),
            (near, y - 0.1, b),
            (side * x, y, b),
            (side * x, y, a),
            Surface(TEXTURE["plaster"], BUILDING, tint),
        )
        gable = Surface(TEXTURE["plaster"], BUILDING, tint)
        for z, facing in ((z0, -1), (z1, 1)):
            left, right = sorted((side * x, far), reverse=facing > 0)
            build.face([(left, y, z), (right, y, z), (ridge, top, z)], [(0, 1), (2, 1), (1, 0)], gable)
        for _ in range(throw.whole(0, 2)):
            z = throw.between(z0 + 1, z1 - 1.5)
            build.box((ridge - 0.35, top - 1.2, z), (ridge + 0.35, top + 0.9, z + 0.8),
                      Surface(TEXTURE["brick"], BUILDING, (0.8, 0.5, 0.42)), metres=3.0)  # fmt: skip
        if throw.chance(0.5):
            for n in range(int((z1 - z0) / 4.5)):
                _dormer(build, throw, side, x, z0 + 2 + n * 4.5, y + 0.4, tint, color)
        return
    low, high = min(near, far), max(near, far)
    build.box(
        (low, y, z0),
        (high, y + throw.between(0.2, 0.9), z1),
        Surface(TEXTURE["concrete"], BUILDING, tint),
        metres=4.0,
        sides="lrfbtu",
    )
    if throw.chance(0.4):
        middle = 0.5 * (z0 + z1)
        build.box((ridge - 1.5, y, middle - 1.5), (ridge + 1.5, y + 2.4, middle + 1.5),
                  Surface(TEXTURE["concrete"], BUILDING), metres=4.0)  # fmt: skip


def _dormer(build: Builder, throw: Dice, side: int, x: float, z: float, y: float, tint: RGB, roof: RGB) -> None:
    near, far = side * (x + 0.7), side * (x + 3.2)
    low, high = min(near, far), max(near, far)
    build.box((low, y, z), (high, y + 1.5, z + 1.5), Surface(TEXTURE["plaster"], BUILDING, tint),
              top=Surface(TEXTURE["roof"], BUILDING, roof))  # fmt: skip
    place = side * (x + 0.68)
    a, b = (z + 0.2, z + 1.3) if side > 0 else (z + 1.3, z + 0.2)
    glass = Surface(TEXTURE["plain"], BUILDING, (0.16, 0.18, 0.2), GLOSSY)
    build.quad((place, y + 0.2, b), (place, y + 0.2, a), (place, y + 1.3, a), (place, y + 1.3, b), glass)


def _balconies(
    build: Builder, throw: Dice, side: int, x: float, z0: float, z1: float, ground_m: float, floors: int, bays: int
) -> None:
    step = (z1 - z0) / bays
    rail = Surface(TEXTURE["plaster"], BUILDING, throw.pick(((0.92, 0.92, 0.9), (0.5, 0.52, 0.55), (0.7, 0.66, 0.6))))
    first = throw.whole(0, 1)
    for floor in range(floors):
        for bay in range(first, bays, 2):
            z, y = z0 + bay * step, ground_m + floor * _FLOOR_M
            low, high = min(side * (x - 1.1), side * x), max(side * (x - 1.1), side * x)
            build.box((low, y - 0.15, z + 0.3), (high, y + 0.95, z + step - 0.3), rail, metres=4.0, sides="lrfbu")


def _awning(build: Builder, side: int, x: float, z0: float, z1: float, color: RGB) -> None:
    a, b = (z0, z1) if side > 0 else (z1, z0)
    cloth = Surface(TEXTURE["plain"], BUILDING, color)
    near, far = side * (x - 1.3), side * x
    build.quad((near, 2.5, b), (near, 2.5, a), (far, 3.1, a), (far, 3.1, b), cloth)
    build.quad((near, 2.5, a), (near, 2.5, b), (far, 3.1, b), (far, 3.1, a), cloth)
    build.quad((near, 2.25, b), (near, 2.25, a), (near, 2.5, a), (near, 2.5, b), cloth)


def house(build: Builder, throw: Dice, side: int, x: float, z0: float, z1: float, tint: RGB) -> None:
    """One family's: two floors, a steep roof."""
    block(build, throw, side, x, z0, z1, tint, throw.whole(0, 1))


def hall(build: Builder, throw: Dice, side: int, x: float, z0: float, z1: float) -> None:
    """A factory or store: low, long, plain, with a gate."""
    tint = throw.pick(((0.82, 0.84, 0.86), (0.6, 0.66, 0.72), (0.85, 0.8, 0.7), (0.7, 0.5, 0.44)))
    skin = Surface(TEXTURE[throw.pick(("panels", "brick", "concrete"))], BUILDING, tint)
    high = throw.between(5.5, 9)
    low, far = min(side * x, side * (x + 16)), max(side * x, side * (x + 16))
    build.box((low, -1, z0), (far, high, z1), skin, metres=4.0)
    _front(
        build,
        Surface(TEXTURE["front3"], BUILDING, tint, WINDOWS),
        side,
        x - 0.02,
        z0 + 1,
        z1 - 1,
        high - 3.4,
        high - 0.6,
        (0, 0, (z1 - z0) / 12, 0.25),
    )
    z = throw.between(z0 + 1, max(z0 + 1.5, z1 - 6))
    gate = Surface(TEXTURE["panels"], BUILDING, (0.5, 0.52, 0.56))
    _front(build, gate, side, x - 0.04, z, min(z1, z + 4), 0, 3.4, (0, 0, 1, 1))


def border(build: Builder, throw: Dice, kind: str, side: int, x: float, z0: float, z1: float) -> None:
    """What parts a plot from the pavement: ``wall``, ``fence`` or ``hedge``."""
    if kind == "wall":
        high = throw.between(0.9, 2.6)
        stuff = TEXTURE[throw.pick(("brick", "stones", "concrete", "plaster"))]
        color = throw.pick(((1.0, 0.96, 0.9), (0.84, 0.6, 0.5), (0.9, 0.9, 0.9), (0.78, 0.74, 0.68)))
        skin = Surface(stuff, WALL, color)
        low, far = min(side * x, side * (x + 0.3)), max(side * x, side * (x + 0.3))
        build.box((low, -0.5, z0), (far, high, z1), skin, metres=3.0)
        cap = Surface(TEXTURE["curb"], WALL, (0.9, 0.88, 0.85))
        build.box((low - 0.06, high, z0), (far + 0.06, high + 0.1, z1), cap, metres=1.0)
        return
    if kind == "hedge":
        high = throw.between(0.9, 2.1)
        green = throw.pick(((0.62, 0.72, 0.5), (0.5, 0.64, 0.44), (0.72, 0.76, 0.5)))
        low, far = min(side * x, side * (x + 0.9)), max(side * x, side * (x + 0.9))
        build.box((low, -0.3, z0), (far, high, z1), Surface(TEXTURE["hedge"], VEGETATION, green), metres=1.7)
        bush = Surface(TEXTURE["leaves"], VEGETATION, green, CUTOUT)
        z = z0
        while z < z1 - 0.6:
            _front(build, bush, side, x - 0.05, z, z + 1.3, high - 0.75, high + 0.35, (0, 0, 1, 1))
            z += 0.75
        return
    name = throw.pick(("planks", "railing", "wire", "panels", "planks", "railing"))
    high = throw.between(1.0, 1.9)
    tints: dict[str, tuple[RGB, ...]] = {
        "planks": ((0.9, 0.72, 0.5), (0.95, 0.95, 0.92), (0.6, 0.45, 0.32)),
        "panels": ((0.8, 0.64, 0.46), (0.6, 0.62, 0.6), (0.7, 0.56, 0.42)),
    }
    tint = throw.pick(tints.get(name, ((0.14, 0.15, 0.16), (0.2, 0.3, 0.24), (0.42, 0.44, 0.46))))
    _front(build, Surface(TEXTURE[name], FENCE, tint, CUTOUT), side, x, z0, z1, 0.0, high, (0, 0, (z1 - z0) / 2, 1))
    if name in ("railing", "wire") and throw.chance(0.5):
        low, far = min(side * x, side * (x + 0.25)), max(side * x, side * (x + 0.25))
        build.box((low, -0.5, z0), (far, 0.45, z1), Surface(TEXTURE["stones"], WALL), metres=2.0)
