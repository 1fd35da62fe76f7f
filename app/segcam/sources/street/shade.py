"""From which triangle each pixel shows to its colour and class: texture, sun and shadow, sky, haze. Numba, no GIL."""

from __future__ import annotations

import math

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from segcam.sources.street.raster import F32_GRID, F64_GRID, F64_IN, I32_GRID, I32_LIST, I32_TABLE, MAT, U8_IN

RGB_OUT = types.Array(types.uint8, 3, "C")
LABELS_OUT = types.Array(types.uint8, 2, "C")

#: Places in the ``air`` vector, three numbers each for colours and directions. Colours are 0..1 and may exceed it.
SUN, SKYLIGHT, HAZE, ZENITH, HORIZON, SUN_AT = 0, 3, 6, 9, 12, 15
(DENSITY, EXPOSURE, VIGNETTE, WETNESS, NIGHT, CLOUDS, DRIFT, BLUR_M, CLOUD_TEXTURE, SHADOW, FLAT) = range(18, 29)
AIR_SIZE = 29

_SKY = 10


@njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _texel(texels, table, texture, lod, u, v):  # type: ignore[no-untyped-def]
    """Sample of the mip level nearest to ``lod``, bilinear where texels are larger than pixels: red, green, blue, alpha
    in 0..255."""
    bits = table[texture, 0]
    level = min(max(int(lod + bits + 0.5), 0), bits)
    at = table[texture, 1 + level]
    bits -= level
    size = 1 << bits
    if level > 0:
        a = at + (((math.floor(v * size) & (size - 1)) << bits) + (math.floor(u * size) & (size - 1))) * 4
        return np.float32(texels[a]), np.float32(texels[a + 1]), np.float32(texels[a + 2]), np.float32(texels[a + 3])
    x, y = u * size - 0.5, v * size - 0.5
    fx, fy = math.floor(x), math.floor(y)
    px, py = np.float32(x - fx), np.float32(y - fy)
    x0, y0 = int(fx) & (size - 1), int(fy) & (size - 1)
    x1, y1 = (x0 + 1) & (size - 1), (y0 + 1) & (size - 1)
    a, b = at + ((y0 << bits) + x0) * 4, at + ((y0 << bits) + x1) * 4
    c, d = at + ((y1 << bits) + x0) * 4, at + ((y1 << bits) + x1) * 4
    one = np.float32(1)
    wa, wb, wc, wd = (one - px) * (one - py), px * (one - py), (one - px) * py, px * py
    red = texels[a] * wa + texels[b] * wb + texels[c] * wc + texels[d] * wd
    green = texels[a + 1] * wa + texels[b + 1] * wb + texels[c + 1] * wc + texels[d + 1] * wd
    blue = texels[a + 2] * wa + texels[b + 2] * wb + texels[c + 2] * wc + texels[d + 2] * wd
    return red, green, blue, texels[a + 3] * wa + texels[b + 3] * wb + texels[c + 3] * wc + texels[d + 3] * wd


@njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _lit(shadows, sunlight, x, y, z, slack):  # type: ignore[no-untyped-def]
    """Share of the sun that reaches a point, from the four nearest places of the shadow map."""
    sx = (x - sunlight[0] * y) * sunlight[2] + sunlight[3] - 0.5
    sz = (z - sunlight[1] * y) * sunlight[4] + sunlight[5] - 0.5
    if not (0 <= sx < shadows.shape[1] - 1 and 0 <= sz < shadows.shape[0] - 1):
        return np.float32(1)
    i, j = int(sx), int(sz)
    px, pz = np.float32(sx - i), np.float32(sz - j)
    level = np.float32(y + 10.0 + slack)
    one, none = np.float32(1), np.float32(0)
    a = one if shadows[j, i] <= level else none
    b = one if shadows[j, i + 1] <= level else none
    c = one if shadows[j + 1, i] <= level else none
    d = one if shadows[j + 1, i + 1] <= level else none
    near, far = a + (b - a) * px, c + (d - c) * px
    return near + (far - near) * pz


@njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _sky(texels, table, air, dx, dy, dz):  # type: ignore[no-untyped-def]
    """Colour of the sky in a direction (any length)."""
    size = math.sqrt(dx * dx + dy * dy + dz * dz)
    up = max(dy / size, 0.0)
    high = math.sqrt(up) * 1.1
    high = min(high, 1.0)
    to_sun = max((dx * air[SUN_AT] + dy * air[SUN_AT + 1] + dz * air[SUN_AT + 2]) / size, 0.0)
    glow = to_sun * to_sun
    glow = glow * glow * glow
    over = 0.055 / (up + 0.07)
    u, v = dx / size * over * 2.2 + air[DRIFT], dz / size * over * 2.2
    shape, light, _, _ = _texel(texels, table, int(air[CLOUD_TEXTURE]), -9.0, u, v)
    cover = (shape / 255.0 - (1.0 - air[CLOUDS])) * 3.0
    cover = min(max(cover, 0.0), 1.0) * min(up * 14.0, 1.0)
    red = air[HORIZON] + (air[ZENITH] - air[HORIZON]) * high
    green = air[HORIZON + 1] + (air[ZENITH + 1] - air[HORIZON + 1]) * high
    blue = air[HORIZON + 2] + (air[ZENITH + 2] - air[HORIZON + 2]) * high
    tone = 0.72 + 0.4 * light / 255.0
    red += (tone * (0.55 * air[HORIZON] + 0.45 * air[SKYLIGHT] + 0.25 * air[SUN]) - red) * cover
    green += (tone * (0.55 * air[HORIZON + 1] + 0.45 * air[SKYLIGHT + 1] + 0.25 * air[SUN + 1]) - green) * cover
    blue += (tone * (0.55 * air[HORIZON + 2] + 0.45 * air[SKYLIGHT + 2] + 0.25 * air[SUN + 2]) - blue) * cover
    return red + glow * 0.35 * air[SUN], green + glow * 0.3 * air[SUN + 1], blue + glow * 0.25 * air[SUN + 2]


@njit(
    [
        types.void(
            F64_GRID, I32_LIST, MAT, U8_IN, I32_TABLE, F64_IN, F64_IN, F32_GRID, F64_IN, U8_IN,
            types.int64, types.int64, I32_GRID, RGB_OUT, LABELS_OUT,
        )
    ],
    nogil=True,
    cache=True,
    error_model="numpy",
)  # fmt: skip
def shade(
    screen: NDArray[np.float64],
    source: NDArray[np.int32],
    mat: NDArray[np.float32],
    texels: NDArray[np.uint8],
    table: NDArray[np.int32],
    camera: NDArray[np.float64],
    air: NDArray[np.float64],
    shadows: NDArray[np.float32],
    sunlight: NDArray[np.float64],
    tone: NDArray[np.uint8],
    first: int,
    last: int,
    shown: NDArray[np.int32],
    rgb: NDArray[np.uint8],
    labels: NDArray[np.uint8],
) -> None:
    """Rows ``first`` to ``last`` - 1 of the picture and the class map. ``tone`` maps light (256 steps to 1, up to 4) to
    8 bits."""
    width, height = shown.shape[1], shown.shape[0]
    focal, middle_x, middle_y = camera[9], camera[10], camera[11]
    rim = air[VIGNETTE] * 4.0 / (width * width + height * height)
    haze_r, haze_g, haze_b = np.float32(air[HAZE]), np.float32(air[HAZE + 1]), np.float32(air[HAZE + 2])
    night, shadowed, plain = air[NIGHT], air[SHADOW] > 0, air[FLAT] > 0
    # One place of the shadow map spans this much height on an upright face.
    lean = max(math.sqrt(sunlight[0] * sunlight[0] + sunlight[1] * sunlight[1]), 0.2)
    slack = 0.05 + 1.5 / (min(sunlight[2], sunlight[4]) * lean)
    weak, one, none, top = np.float32(1 - air[SHADOW]), np.float32(1), np.float32(0), np.float32(1023)
    haze = np.empty(1024, np.float32)
    for n in range(1024):
        haze[n] = 1.0 - math.exp(-air[DENSITY] * 0.5 * (n + 0.5))
    shade_here, again = one, False
    previous = -2
    flags = texture = label = 0
    tint_r = tint_g = tint_b = np.float32(1)
    a0 = a1 = a2 = a3 = a4 = s0 = s1 = s2 = s3 = s4 = lod = 0.0
    # Kept in registers: after each byte that is written, arrays would have to be read anew.
    rx, ry, rz, ux_, uy_, uz_ = camera[0], camera[1], camera[2], camera[3], camera[4], camera[5]
    fx, fy, fz = camera[6], camera[7], camera[8]
    exposure, blur = air[EXPOSURE] * 256.0, air[BLUR_M] * focal * 0.25
    sun_r, sun_g, sun_b = np.float32(air[SUN]), np.float32(air[SUN + 1]), np.float32(air[SUN + 2])
    sky_r, sky_g, sky_b = np.float32(air[SKYLIGHT]), np.float32(air[SKYLIGHT + 1]), np.float32(air[SKYLIGHT + 2])
    rim_r, rim_g, rim_b = np.float32(air[HORIZON]), np.float32(air[HORIZON + 1]), np.float32(air[HORIZON + 2])
    for row in range(first, last):
        yc = row + 0.5
        ray_y = (middle_y - yc) / focal
        down = (yc - 0.5 * height) * (yc - 0.5 * height)
        previous = -2
        for column in range(width):
            which = shown[row, column]
            xc = column + 0.5
            ray_x = (xc - middle_x) / focal
            dx = rx * ray_x + ux_ * ray_y + fx
            dy = ry * ray_x + uy_ * ray_y + fy
            dz = rz * ray_x + uz_ * ray_y + fz
            rim_light = np.float32((1.0 - rim * (down + (xc - 0.5 * width) * (xc - 0.5 * width))) * exposure)
            if which < 0:
                label = _SKY
                above_r, above_g, above_b = _sky(texels, table, air, dx, dy, dz)
                red, green, blue = np.float32(above_r), np.float32(above_g), np.float32(above_b)
                previous = which
            else:
                again = which == previous
                if not again:
                    triangle = source[which]
                    tint_r, tint_g, tint_b = mat[triangle, 0], mat[triangle, 1], mat[triangle, 2]
                    texture, label = int(mat[triangle, 3]), int(mat[triangle, 4])
                    flags = int(mat[triangle, 5])
                    s0, s1, s2 = screen[which, 6], screen[which, 9], screen[which, 12]
                    s3, s4 = screen[which, 15], screen[which, 18]
                    a0 = s0 * xc + screen[which, 7] * yc + screen[which, 8]
                    a1 = s1 * xc + screen[which, 10] * yc + screen[which, 11]
                    a2 = s2 * xc + screen[which, 13] * yc + screen[which, 14]
                    a3 = s3 * xc + screen[which, 16] * yc + screen[which, 17]
                    a4 = s4 * xc + screen[which, 19] * yc + screen[which, 20]
                else:
                    a0, a1, a2, a3, a4 = a0 + s0, a1 + s1, a2 + s2, a3 + s3, a4 + s4
                z = 1.0 / a0
                u, v = a1 * z, a2 * z
                if not again or (column & 7) == 0:
                    ux, uy = (s1 - u * s0) * z, (screen[which, 10] - u * screen[which, 7]) * z
                    vx, vy = (s2 - v * s0) * z, (screen[which, 13] - v * screen[which, 7]) * z
                    lod = 0.5 * np.log2(max(abs(ux * vy - uy * vx), 1e-14)) + 0.15
                    if flags & 32:
                        # What streaks past the camera is soft within its own face; its edges stay where they are.
                        lod += np.log2(1.0 + blur * (abs(ray_x) + abs(ray_y)) * a0)
                    previous = which
                red, green, blue, alpha = _texel(texels, table, texture, lod, u, v)
                part = one if flags & 1 else alpha * np.float32(1 / 255)
                scale = np.float32(1 / 255)
                red *= scale * (one + (tint_r - one) * part)
                green *= scale * (one + (tint_g - one) * part)
                blue *= scale * (one + (tint_b - one) * part)
                if not (flags & 2) and not (flags & 64 and night > 0.3):
                    skylight, sun = np.float32(a3 * z), np.float32(a4 * z)
                    if shadowed and sun > 0.001:
                        if not (again and column & 1):
                            shade_here = _lit(shadows, sunlight, dx * z, dy * z, dz * z, 0.06 if flags & 32 else slack)
                        sun *= weak + (one - weak) * shade_here
                        skylight *= np.float32(0.86) + np.float32(0.14) * shade_here
                    glass = flags & 4 and alpha < 100
                    if glass:
                        cell = math.floor(u * 4) * 7919 + math.floor(v * 4) * 104729 + int(tint_r * 9973)
                        cell = (cell * 2654435761) & 0xFFFFFFFF
                        throw = (cell >> 12) & 1023
                        mirror = np.float32(0.08 + 0.10 * (throw & 255) / 255.0)
                        red += mirror * rim_r
                        green += mirror * rim_g
                        blue += mirror * rim_b
                    red *= sky_r * skylight + sun_r * sun
                    green *= sky_g * skylight + sun_g * sun
                    blue *= sky_b * skylight + sun_b * sun
                    if glass and night > 0.3 and throw < 400:
                        warm = np.float32(night * (0.55 + 0.45 * (throw & 127) / 127.0))
                        red, green, blue = red + warm, green + warm * np.float32(0.78), blue + warm * np.float32(0.45)
                    if flags & 8:
                        mirror = np.float32(0.06) + np.float32(0.8) * max(none, skylight - np.float32(0.80))
                        red += mirror * rim_r
                        green += mirror * rim_g
                        blue += mirror * rim_b
                far = haze[min(int(z * 2.0), 1023)]
                if flags & 2 or (flags & 64 and night > 0.3):
                    far *= np.float32(0.5)
                red += (haze_r - red) * far
                green += (haze_g - green) * far
                blue += (haze_b - blue) * far
            labels[row, column] = label
            if plain:
                rgb[row, column, 0] = rgb[row, column, 1] = rgb[row, column, 2] = label
            else:
                rgb[row, column, 0] = tone[int(min(max(red * rim_light, none), top))]
                rgb[row, column, 1] = tone[int(min(max(green * rim_light, none), top))]
                rgb[row, column, 2] = tone[int(min(max(blue * rim_light, none), top))]
