"""Triangles and how to build them: boxes, tubes, lofts.

Coordinates in metres: x to the right, y up, z along the road. A face's corners go bottom left, bottom right, top right,
top left as seen from its front.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Point = tuple[float, float, float]
RGB = tuple[float, float, float]
Box = tuple[float, float, float, float]

#: How a triangle is drawn (bits). CUTOUT: the texture's alpha says where it is there at all; otherwise alpha says how
#: much of the tint a texel takes. GLOWS: not lit. WINDOWS: dark texels may be lit rooms at night. GLOSSY: mirrors the
#: sky. DECAL: lies on another face and wins over it. WET: wears the rain's shine. NIGHT: glows after dark.
CUTOUT, GLOWS, WINDOWS, GLOSSY, DECAL, WET, NIGHT = 1, 2, 4, 8, 16, 32, 64


class Mesh(NamedTuple):
    """``geo`` (T, 3, 8) float32: position, normal, texture coordinates of three corners; ``mat`` (T, 6) float32: tint
    r, g, b (1: as painted), texture, class, flags."""

    geo: Array
    mat: Array


@dataclass(frozen=True)
class Surface:
    """What a face looks like, and what class it is."""

    texture: int
    label: int
    tint: RGB = (1.0, 1.0, 1.0)
    flags: int = 0

    def row(self) -> tuple[float, ...]:
        return (*self.tint, float(self.texture), float(self.label), float(self.flags))

    def tinted(self, tint: RGB) -> Surface:
        return replace(self, tint=tint)


EMPTY = Mesh(np.zeros((0, 3, 8), np.float32), np.zeros((0, 6), np.float32))


def merge(meshes: Iterable[Mesh]) -> Mesh:
    found = [mesh for mesh in meshes if len(mesh.geo)]
    if not found:
        return EMPTY
    return Mesh(np.concatenate([m.geo for m in found]), np.concatenate([m.mat for m in found]))


def moved(mesh: Mesh, x: float, y: float, z: float, turn: float = 0.0, scale: float = 1.0) -> Mesh:
    """Scaled, then turned about the upright axis (radians, positive to the right), then shifted."""
    geo = mesh.geo.copy()
    cos, sin = np.float32(math.cos(turn)), np.float32(math.sin(turn))
    for first in (0, 3):
        right, ahead = geo[..., first].copy(), geo[..., first + 2].copy()
        geo[..., first], geo[..., first + 2] = cos * right + sin * ahead, cos * ahead - sin * right
    if scale != 1.0:
        geo[..., :3] *= np.float32(scale)
    geo[..., :3] += np.array((x, y, z), np.float32)
    return Mesh(geo, mesh.mat)


def painted(mesh: Mesh, old: RGB, new: RGB) -> Mesh:
    """The faces of tint ``old`` in ``new``."""
    mat = mesh.mat.copy()
    mat[np.all(mat[:, :3] == np.array(old, np.float32), 1), :3] = new
    return Mesh(mesh.geo, mat)


class Builder:
    """Collects faces, then makes them one mesh."""

    def __init__(self) -> None:
        self._rows: list[float] = []
        self._surfaces: list[tuple[float, ...]] = []
        self._meshes: list[Mesh] = []

    def add(self, mesh: Mesh) -> None:
        self._meshes.append(mesh)

    def quad(self, a: Point, b: Point, c: Point, d: Point, surface: Surface, uv: Box = (0, 0, 1, 1)) -> None:
        """``uv`` is (left, top, right, bottom) of the texture, whose rows go down."""
        u0, v0, u1, v1 = uv
        self.face((a, b, c, d), ((u0, v1), (u1, v1), (u1, v0), (u0, v0)), surface)

    def face(self, corners: Sequence[Point], uv: Sequence[tuple[float, float]], surface: Surface) -> None:
        """A flat convex face of three or more corners."""
        a, b, d = corners[0], corners[1], corners[-1]
        px, py, pz = d[0] - a[0], d[1] - a[1], d[2] - a[2]
        qx, qy, qz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
        nx, ny, nz = py * qz - pz * qy, pz * qx - px * qz, px * qy - py * qx
        size = math.sqrt(nx * nx + ny * ny + nz * nz) or 1.0
        normal = (nx / size, ny / size, nz / size)
        row = surface.row()
        for n in range(1, len(corners) - 1):
            for at in (0, n, n + 1):
                self._rows.extend((*corners[at], *normal, *uv[at]))
            self._surfaces.append(row)

    def box(
        self,
        low: Point,
        high: Point,
        surface: Surface,
        top: Surface | None = None,
        metres: float = 0.0,
        sides: str = "lrfbt",
    ) -> None:
        """An upright box. ``metres`` of wall to one repeat of the texture (0: once a face); ``sides`` of left, right,
        front (towards the viewer), back, top, under."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        if metres:
            across, tall, deep = (x1 - x0) / metres, (y1 - y0) / metres, (z1 - z0) / metres
        else:
            across = tall = deep = 1.0
        if "f" in sides:
            self.quad((x0, y0, z0), (x1, y0, z0), (x1, y1, z0), (x0, y1, z0), surface, (0, 0, across, tall))
        if "b" in sides:
            self.quad((x1, y0, z1), (x0, y0, z1), (x0, y1, z1), (x1, y1, z1), surface, (0, 0, across, tall))
        if "l" in sides:
            self.quad((x0, y0, z1), (x0, y0, z0), (x0, y1, z0), (x0, y1, z1), surface, (0, 0, deep, tall))
        if "r" in sides:
            self.quad((x1, y0, z0), (x1, y0, z1), (x1, y1, z1), (x1, y1, z0), surface, (0, 0, deep, tall))
        if "t" in sides:
            self.quad((x0, y1, z0), (x1, y1, z0), (x1, y1, z1), (x0, y1, z1), top or surface, (0, 0, across, deep))
        if "u" in sides:
            self.quad((x0, y0, z1), (x1, y0, z1), (x1, y0, z0), (x0, y0, z0), surface, (0, 0, across, deep))

    def mesh(self) -> Mesh:
        own = Mesh(
            np.array(self._rows, np.float32).reshape(-1, 3, 8), np.array(self._surfaces, np.float32).reshape(-1, 6)
        )
        return merge([own, *self._meshes])


def limbs(
    start: Array, end: Array, wide: Array, deep: Array, side: Array, mat: Array, around: int, round_ends: bool
) -> Mesh:
    """Tubes from ``start`` to ``end`` (n, 3), elliptical: ``wide`` and ``deep`` (n, 2) are half-widths at both ends,
    along ``side`` (n, 3) and across it. ``mat`` (n, 6) as in Mesh."""
    axis = end - start
    length = np.maximum(np.linalg.norm(axis, axis=1, keepdims=True), 1e-6)
    axis = axis / length
    right = side - (side * axis).sum(1, keepdims=True) * axis
    right = right / np.maximum(np.linalg.norm(right, axis=1, keepdims=True), 1e-6)
    ahead = np.cross(axis, right)
    if round_ends:
        along = np.array([-1.0, -0.55, 1.0, 1.55], np.float32)
        share = np.array([0.12, 1.0, 1.0, 0.12], np.float32)
        which = np.array([0, 0, 1, 1])
        shift = np.array([-0.95, -0.4, 0.4, 0.95], np.float32)
    else:
        along, share = np.array([0.0, 1.0], np.float32), np.ones(2, np.float32)
        which, shift = np.array([0, 1]), np.zeros(2, np.float32)
    angle = np.arange(around) * (2 * math.pi / around)
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    wide_at, deep_at = wide[:, which] * share, deep[:, which] * share
    base = start[:, None] * (which == 0)[None, :, None] + end[:, None] * (which == 1)[None, :, None]
    base = base + axis[:, None] * (shift * np.minimum(wide[:, which], deep[:, which]))[..., None]
    out = right[:, None] * cos[None, :, None], ahead[:, None] * sin[None, :, None]
    ring = base[:, :, None] + out[0][:, None] * wide_at[:, :, None, None] + out[1][:, None] * deep_at[:, :, None, None]
    normal = np.broadcast_to((out[0] + out[1])[:, None], ring.shape)
    count, rings = ring.shape[:2]
    texture = np.empty((count, rings, around, 2), np.float32)
    texture[..., 0] = np.arange(around) / around
    texture[..., 1] = (along - along[0])[None, :, None] / (along[-1] - along[0])
    vertex = np.concatenate([ring, normal, texture], -1)
    after = np.roll(vertex, -1, 2)
    low, high = slice(0, rings - 1), slice(1, rings)
    first = np.stack([vertex[:, low], after[:, low], after[:, high]], -2)
    second = np.stack([vertex[:, low], after[:, high], vertex[:, high]], -2)
    geo = np.stack([first, second], 3).reshape(-1, 3, 8).astype(np.float32)
    return Mesh(geo, np.repeat(mat.astype(np.float32), (rings - 1) * around * 2, 0))


def tube(
    start: Point, end: Point, radius: float, surface: Surface, around: int = 6, end_radius: float | None = None
) -> Mesh:
    """One round tube."""
    radii = np.array([[radius, radius if end_radius is None else end_radius]], np.float32)
    first, last = np.array([start], np.float32), np.array([end], np.float32)
    side = np.array([[0.0, 0.0, 1.0] if abs(end[0] - start[0]) > abs(end[2] - start[2]) else [1.0, 0, 0]], np.float32)
    return limbs(first, last, radii, radii, side, np.array([surface.row()], np.float32), around, False)
