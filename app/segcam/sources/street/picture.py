"""One moment of one street: a picture and its class map."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcam.sources.street import shade as places
from segcam.sources.street.course import CHUNK_M, Plan, beginning, bent, middle, plan
from segcam.sources.street.dice import Dice
from segcam.sources.street.lens import finished
from segcam.sources.street.mesh import Builder, Mesh
from segcam.sources.street.raster import COLUMNS, fill, project, project_shadows
from segcam.sources.street.scene import piece
from segcam.sources.street.shade import shade
from segcam.sources.street.source import check_weather
from segcam.sources.street.textures import bank
from segcam.sources.street.traffic import driven, moving
from segcam.sources.street.vegetation import backdrop
from segcam.sources.street.weather import air, chosen, tone

Picture = NDArray[np.uint8]

#: Pieces of the street that are drawn ahead of the camera's own.
_AHEAD = 6
#: What the shadow map covers, in metres from the camera: to both sides, back, ahead.
_SHADOW_SIDE_M, _SHADOW_BACK_M, _SHADOW_AHEAD_M = 30.0, 10.0, 80.0
#: Rows that are drawn at a time, at the least.
_BAND_ROWS = 32


def render(
    seed: int,
    index: int,
    size_hw: tuple[int, int],
    *,
    weather: str = "auto",
    rate: Fraction | float = 25,
    threads: int = 1,
    flat: bool = False,
) -> tuple[Picture, Picture]:
    """Frame ``index`` of the drive ``seed`` at ``rate`` frames per second: (H, W, 3) uint8 RGB, and (H, W) uint8
    classes, Cityscapes train ids 0..18.

    It follows from the arguments alone, whatever was rendered before and by however many ``threads``. ``flat`` gives
    the class as the colour instead of light and texture. Raises UsageError for an unknown weather.
    """
    check_weather(weather, "street")
    height, width = size_hw
    street = plan(seed)
    time_s = float(index / Fraction(rate))
    light = air(chosen(weather, seed), seed, time_s, street.speed)
    light[places.FLAT] = flat
    camera, place = _camera(street, time_s, height, width)
    mesh = _all(street, time_s, place)
    source = _scratch("source", (3 * len(mesh.geo),), np.int32)
    screen = _scratch("screen", (3 * len(mesh.geo), COLUMNS), np.float64)
    count = project(mesh.geo, mesh.mat, camera, light[places.SUN_AT : places.SUN_AT + 3], width, height, screen, source)
    texels, table = bank()
    shadows, sunlight = _shadows(mesh, light, place, 1024 if height > 600 else 640, threads)
    depth, shown = (
        _scratch("depth", (height, width), np.float32),
        _scratch("shown", (height, width), np.int32),
    )
    rgb, labels = np.empty((height, width, 3), np.uint8), np.empty((height, width), np.uint8)
    curve = _tone()

    def band(first: int, last: int) -> None:
        fill(screen, source, count, mesh.mat, texels, table, first, last, depth, shown)
        shade(
            screen, source, mesh.mat, texels, table, camera, light, shadows, sunlight, curve, first, last, shown, rgb,
            labels,
        )  # fmt: skip

    _in_bands(band, height, threads)
    if flat:
        return rgb, labels
    horizon = camera[11] + camera[9] * math.tan(math.asin(camera[7]))
    return finished(rgb, labels, light, horizon, seed, index), labels


def _in_bands(work: Callable[[int, int], None], rows: int, threads: int) -> None:
    """Calls ``work(first, last)`` for bands of rows, by so many threads."""
    step = max(_BAND_ROWS, -(-rows // (1 if threads == 1 else 6 * threads)))
    bands = [(first, min(first + step, rows)) for first in range(0, rows, step)]
    if threads == 1:
        work(0, rows)
    else:
        list(_pool(threads).map(lambda band: work(*band), bands))


_kept = threading.local()


def _scratch(name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    """An array that holds anything, this thread's own until it asks for ``name`` again: fresh memory for every frame
    comes from the system page by page, which takes a few percent of the drawing's time."""
    size = math.prod(shape)
    store = _kept.__dict__
    if name not in store or len(store[name]) < size or len(store[name]) > 4 * size + 4096:
        store[name] = np.empty(size + size // 4, dtype)
    return np.asarray(store[name][:size].reshape(shape))


@lru_cache(1)
def _tone() -> NDArray[np.uint8]:
    return tone()


@lru_cache(4)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "segcam: street")


@lru_cache(4)
def _far_trees(tint: tuple[float, float, float]) -> Mesh:
    build = Builder()
    backdrop(build, 292.0, 15.0, tint)
    return build.mesh()


def _camera(street: Plan, time_s: float, height: int, width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The ``camera`` vector of ``raster.project``, and where it is (3,)."""
    along = driven(street, time_s)
    throw = Dice(street.seed, 71)
    one, two, three = (throw.between(0, 6.28) for _ in range(3))
    (x, ahead_x), (y, ahead_y), (heading, _) = middle(street, np.array([along, along + 9.0]))
    at = street.ego + 0.12 * math.sin(0.6 * time_s + one)
    bounce = 0.012 * math.sin(9.1 * time_s + two) + 0.008 * math.sin(14.7 * time_s + three)
    place = np.array([x + at * math.cos(heading), y + street.height + bounce, along - at * math.sin(heading)])
    yaw = math.atan2(ahead_x - x, 9.0) + 0.012 * math.sin(0.5 * time_s + three)
    pitch = street.pitch + math.atan2(ahead_y - y, 9.0) + 0.0022 * math.sin(7.3 * time_s + one)
    roll = 0.006 * math.sin(0.9 * time_s + two) + 0.0015 * math.sin(8.3 * time_s + one)
    cos, sin = math.cos, math.sin
    forward = np.array([sin(yaw) * cos(pitch), sin(pitch), cos(yaw) * cos(pitch)])
    level = np.array([cos(yaw), 0.0, -sin(yaw)])
    raised = np.cross(forward, level)
    right = cos(roll) * level + sin(roll) * raised
    up = cos(roll) * raised - sin(roll) * level
    focal = 0.5 * width / math.tan(street.view / 2)
    return np.concatenate([right, up, forward, [focal, 0.5 * width, 0.5 * height]]), place


def _all(street: Plan, time_s: float, place: NDArray[np.float64]) -> Mesh:
    """Everything that may be seen, relative to the camera."""
    along = driven(street, time_s)
    first = math.floor((along - 6.0) / CHUNK_M)
    parts = [(piece(street, n), beginning(street, n * CHUNK_M) - place) for n in range(first, first + _AHEAD + 1)]
    parts.append((bent(street, moving(street, time_s), along), beginning(street, along) - place))
    tint = (0.8, 0.85, 0.8) if street.seed % 2 else (0.9, 0.8, 0.7)
    parts.append((_far_trees(tint), np.array([0.0, -street.height, 0.0])))
    geo = _scratch("geo", (sum(len(mesh.geo) for mesh, _ in parts), 3, 8), np.float32)
    at = 0
    for mesh, by in parts:
        # Whole rows at once: a strided sum of the positions alone takes longer.
        shift = np.zeros(8, np.float32)
        shift[:3] = by
        np.add(mesh.geo, shift, out=geo[at : at + len(mesh.geo)])
        at += len(mesh.geo)
    return Mesh(geo, np.concatenate([mesh.mat for mesh, _ in parts]))


def _shadows(
    mesh: Mesh, light: NDArray[np.float64], place: NDArray[np.float64], side: int, threads: int
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """How high each ray of the sun is blocked, plus 10 m, and how a point finds its ray."""
    sun = light[places.SUN_AT : places.SUN_AT + 3]
    scale_x, scale_z = side / (2 * _SHADOW_SIDE_M), side / (_SHADOW_BACK_M + _SHADOW_AHEAD_M)
    lean_x, lean_z = sun[0] / sun[1], sun[2] / sun[1]
    # The map's grid stays on the ground while the camera moves, or shadows would crawl.
    ground_x, ground_z = (place[0] - lean_x * place[1]) * scale_x, (place[2] - lean_z * place[1]) * scale_z
    # Seen from the camera the ground is about this much lower, and its shadows lie that much aside.
    low = -1.35
    shift_x = 0.5 * side + lean_x * low * scale_x
    shift_z = _SHADOW_BACK_M * scale_z + lean_z * low * scale_z
    shift_x -= (shift_x - ground_x) % 1.0
    shift_z -= (shift_z - ground_z) % 1.0
    sunlight = np.array([lean_x, lean_z, scale_x, shift_x, scale_z, shift_z, side, side])
    screen = _scratch("shadow screen", (len(mesh.geo), COLUMNS), np.float64)
    source = _scratch("shadow source", (len(mesh.geo),), np.int32)
    count = project_shadows(mesh.geo, sunlight, screen, source)
    depth = _scratch("shadow depth", (side, side), np.float32)
    shown = _scratch("shadow shown", (side, side), np.int32)
    texels, table = bank()

    def band(first: int, last: int) -> None:
        fill(screen, source, count, mesh.mat, texels, table, first, last, depth, shown)

    _in_bands(band, side, threads)
    return depth, sunlight
