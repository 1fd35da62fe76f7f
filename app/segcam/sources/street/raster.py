"""From triangles to which triangle each pixel shows: clipping, projection, depth test. Compiled by Numba, without GIL.

A pixel belongs to a triangle that its centre lies in. An edge that two triangles share is computed from the same ends
in the same order for both, so that there are neither gaps nor doubles between them.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

GEO = types.Array(types.float32, 3, "C", readonly=True)
MAT = types.Array(types.float32, 2, "C", readonly=True)
F64_IN = types.Array(types.float64, 1, "C", readonly=True)
F64_GRID = types.Array(types.float64, 2, "C")
F32_GRID = types.Array(types.float32, 2, "C")
I32_GRID = types.Array(types.int32, 2, "C")
I32_LIST = types.Array(types.int32, 1, "C")
U8_IN = types.Array(types.uint8, 1, "C", readonly=True)
I32_TABLE = types.Array(types.int32, 2, "C", readonly=True)

#: Columns of a screen triangle: x, y of three corners from top to bottom, then planes (a, b, c: value a x + b y + c) of
#: 1 / depth, and of u, v, skylight and sunlight over depth, then the mip level for its cut-out.
PLANES = 6
COLUMNS = 22
NEAREST_M = 0.25
#: What a decal's 1 / depth is raised by in the depth test.
_DECAL = 1.004


@njit(nogil=True, cache=True, error_model="numpy")
def _plane(x: NDArray, y: NDArray, f0: float, f1: float, f2: float, det: float, out: NDArray, at: int) -> None:  # type: ignore[type-arg]
    a = ((f1 - f0) * (y[2] - y[0]) - (f2 - f0) * (y[1] - y[0])) / det
    b = ((x[1] - x[0]) * (f2 - f0) - (x[2] - x[0]) * (f1 - f0)) / det
    out[at], out[at + 1], out[at + 2] = a, b, f0 - a * x[0] - b * y[0]


@njit(nogil=True, cache=True, error_model="numpy")
def _emit(x: NDArray, y: NDArray, value: NDArray, out: NDArray, source: NDArray, count: int, triangle: int) -> int:  # type: ignore[type-arg]
    """Writes one screen triangle of corners x, y and values (3, 5); returns the new count."""
    for _ in range(2):
        for n in range(2):
            if y[n] > y[n + 1]:
                y[n], y[n + 1] = y[n + 1], y[n]
                x[n], x[n + 1] = x[n + 1], x[n]
                for k in range(5):
                    value[n, k], value[n + 1, k] = value[n + 1, k], value[n, k]
    if math.ceil(y[0] - 0.5) >= math.ceil(y[2] - 0.5):
        return count
    det = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])
    if abs(det) < 1e-9 or count >= len(out):
        return count
    row = out[count]
    for n in range(3):
        row[2 * n], row[2 * n + 1] = x[n], y[n]
    for k in range(5):
        _plane(x, y, value[0, k], value[1, k], value[2, k], det, row, PLANES + 3 * k)
    texels = (value[1, 1] / value[1, 0] - value[0, 1] / value[0, 0]) * (
        value[2, 2] / value[2, 0] - value[0, 2] / value[0, 0]
    ) - (value[2, 1] / value[2, 0] - value[0, 1] / value[0, 0]) * (
        value[1, 2] / value[1, 0] - value[0, 2] / value[0, 0]
    )
    row[21] = 0.5 * np.log2(max(abs(texels / det), 1e-12))
    source[count] = triangle
    return count + 1


@njit(
    [types.int64(GEO, MAT, F64_IN, F64_IN, types.float64, types.float64, F64_GRID, I32_LIST)],
    nogil=True,
    cache=True,
    error_model="numpy",
)
def project(
    geo: NDArray[np.float32],
    mat: NDArray[np.float32],
    camera: NDArray[np.float64],
    sun: NDArray[np.float64],
    width: float,
    height: float,
    out: NDArray[np.float64],
    source: NDArray[np.int32],
) -> int:
    """Screen triangles of ``geo`` (T, 3, 8), whose positions are relative to the camera; returns how many.

    What is turned away is left out, but for cut-outs, which have two sides.

    ``camera``: right, up, forward (9), focal length in pixels, centre x, y. ``sun`` points to the sun.
    """
    value, clipped = np.empty((4, 8)), np.empty((5, 8))
    x, y, five = np.empty(3), np.empty(3), np.empty((3, 5))
    focal, middle_x, middle_y = camera[9], camera[10], camera[11]
    reach_x, reach_y = width / focal, height / focal
    count = 0
    for triangle in range(len(geo)):
        turned = 0
        for n in range(3):
            facing = 0.0
            for k in range(3):
                facing += geo[triangle, n, k] * geo[triangle, n, 3 + k]
            turned += facing > 0.0
        if turned == 3 and not int(mat[triangle, 5]) & 1:
            continue
        nearest = farthest = 0.0
        for n in range(3):
            px, py, pz = geo[triangle, n, 0], geo[triangle, n, 1], geo[triangle, n, 2]
            value[n, 0] = camera[0] * px + camera[1] * py + camera[2] * pz
            value[n, 1] = camera[3] * px + camera[4] * py + camera[5] * pz
            value[n, 2] = camera[6] * px + camera[7] * py + camera[8] * pz
            depth = value[n, 2]
            nearest = depth if n == 0 else min(nearest, depth)
            farthest = depth if n == 0 else max(farthest, depth)
        if farthest < NEAREST_M:
            continue
        left = right = above = below = True
        for n in range(3):
            depth = max(value[n, 2], 0.0) * 0.75
            left &= value[n, 0] < -reach_x * depth
            right &= value[n, 0] > reach_x * depth
            above &= value[n, 1] > reach_y * depth
            below &= value[n, 1] < -reach_y * depth
        if left or right or above or below:
            continue
        for n in range(3):
            nx, ny, nz = geo[triangle, n, 3], geo[triangle, n, 4], geo[triangle, n, 5]
            value[n, 3], value[n, 4] = geo[triangle, n, 6], geo[triangle, n, 7]
            value[n, 5] = 0.76 + 0.24 * ny
            value[n, 6] = max(0.0, nx * sun[0] + ny * sun[1] + nz * sun[2])
        corners = 0
        if nearest >= NEAREST_M:
            for n in range(3):
                for k in range(7):
                    clipped[n, k] = value[n, k]
            corners = 3
        else:
            for n in range(3):
                m = (n + 1) % 3
                here, there = value[n, 2], value[m, 2]
                if here >= NEAREST_M:
                    for k in range(7):
                        clipped[corners, k] = value[n, k]
                    corners += 1
                if (here >= NEAREST_M) != (there >= NEAREST_M):
                    part = (NEAREST_M - here) / (there - here)
                    for k in range(7):
                        clipped[corners, k] = value[n, k] + part * (value[m, k] - value[n, k])
                    clipped[corners, 2] = NEAREST_M
                    corners += 1
        for fan in range(1, corners - 1):
            for n in range(3):
                at = 0 if n == 0 else fan + n - 1
                inverse = 1.0 / clipped[at, 2]
                x[n] = middle_x + focal * clipped[at, 0] * inverse
                y[n] = middle_y - focal * clipped[at, 1] * inverse
                five[n, 0] = inverse
                for k in range(4):
                    five[n, k + 1] = clipped[at, 3 + k] * inverse
            count = _emit(x, y, five, out, source, count, triangle)
    return count


@njit([types.int64(GEO, F64_IN, F64_GRID, I32_LIST)], nogil=True, cache=True, error_model="numpy")
def project_shadows(
    geo: NDArray[np.float32], sunlight: NDArray[np.float64], out: NDArray[np.float64], source: NDArray[np.int32]
) -> int:
    """Triangles as the sun throws them on the plane y = 0 of the shadow map; 1 / depth is replaced by height + 10.

    ``sunlight``: x and z of the sun's direction over its y, then texels per metre and offset for x, and for z, and the
    map's sides.
    """
    x, y, five = np.empty(3), np.empty(3), np.empty((3, 5))
    lean_x, lean_z, scale_x, shift_x, scale_z, shift_z, width, height = sunlight
    count = 0
    for triangle in range(len(geo)):
        for n in range(3):
            px, py, pz = geo[triangle, n, 0], geo[triangle, n, 1], geo[triangle, n, 2]
            x[n] = (px - lean_x * py) * scale_x + shift_x
            y[n] = (pz - lean_z * py) * scale_z + shift_z
            five[n, 0] = py + 10.0
            five[n, 1], five[n, 2] = geo[triangle, n, 6] * five[n, 0], geo[triangle, n, 7] * five[n, 0]
            five[n, 3] = five[n, 4] = 0.0
        if max(x[0], x[1], x[2]) < 0 or min(x[0], x[1], x[2]) > width:
            continue
        if max(y[0], y[1], y[2]) < 0 or min(y[0], y[1], y[2]) > height:
            continue
        count = _emit(x, y, five, out, source, count, triangle)
    return count


@njit(
    [types.void(F64_GRID, I32_LIST, types.int64, MAT, U8_IN, I32_TABLE, types.int64, types.int64, F32_GRID, I32_GRID)],
    nogil=True,
    cache=True,
    error_model="numpy",
)
def fill(
    screen: NDArray[np.float64],
    source: NDArray[np.int32],
    count: int,
    mat: NDArray[np.float32],
    texels: NDArray[np.uint8],
    table: NDArray[np.int32],
    first: int,
    last: int,
    depth: NDArray[np.float32],
    shown: NDArray[np.int32],
) -> None:
    """Rows ``first`` to ``last`` - 1 of ``depth`` (1 / metres, 0: nothing) and ``shown`` (screen triangle, -1)."""
    width = depth.shape[1]
    for row in range(first, last):
        for column in range(width):
            depth[row, column] = 0.0
            shown[row, column] = -1
    for n in range(count):
        x0, y0, x1, y1, x2, y2 = screen[n, 0], screen[n, 1], screen[n, 2], screen[n, 3], screen[n, 4], screen[n, 5]
        begin, end = max(math.ceil(y0 - 0.5), first), min(math.ceil(y2 - 0.5), last)
        if begin >= end:
            continue
        flags = int(mat[source[n], 5])
        cutout = flags & 1
        raised = _DECAL if flags & 16 else 1.0
        a, b, c = screen[n, 6] * raised, screen[n, 7] * raised, screen[n, 8] * raised
        bits, at, size = 0, 0, 0
        if cutout:
            texture = int(mat[source[n], 3])
            bits = table[texture, 0]
            level = max(0, min(bits, int(screen[n, 21] + bits + 0.3)))
            at, bits = table[texture, 1 + level], bits - level
            size = 1 << bits
        for row in range(begin, end):
            yc = row + 0.5
            long = x0 + (yc - y0) * (x2 - x0) / (y2 - y0)
            short = x0 + (yc - y0) * (x1 - x0) / (y1 - y0) if yc < y1 else x1 + (yc - y1) * (x2 - x1) / (y2 - y1)
            left = max(math.ceil(min(long, short) - 0.5), 0)
            right = min(math.ceil(max(long, short) - 0.5), width)
            near = a * (left + 0.5) + b * yc + c
            for column in range(left, right):
                if near > depth[row, column]:
                    there = True
                    if cutout:
                        xc = column + 0.5
                        over = raised / near
                        u = (screen[n, 9] * xc + screen[n, 10] * yc + screen[n, 11]) * over
                        v = (screen[n, 12] * xc + screen[n, 13] * yc + screen[n, 14]) * over
                        i, j = math.floor(u * size) & (size - 1), math.floor(v * size) & (size - 1)
                        there = texels[at + ((j << bits) + i) * 4 + 3] > 110
                    if there:
                        depth[row, column] = near
                        shown[row, column] = n
                near += a
