"""Reading a label picture: numbers as they stand in the file, or colours by a palette."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcam.errors import SourceError
from segcam.evaluation.mapping import UNKNOWN, LabelMapping
from segcam.sources.stills import decode, read_bytes

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _PALETTE = 0, 3


def read_labels(path: Path, mapping: LabelMapping) -> NDArray[np.uint8]:
    """A label picture as (H, W) uint8: indices into ``mapping.classes``, 255 where it is to be ignored.

    8 and 16 bit grey and PNGs of 1 to 8 bits with a palette give numbers (a palette's colours are for people to look
    at); RGB and RGBA give colours, or numbers where all pixels are grey and the mapping knows no colours. Raises
    SourceError for what cannot be decoded, and for numbers or colours that the mapping doesn't have, which are listed.
    """
    import cv2

    data = read_bytes(path)
    scale = 1
    if data[:8].tobytes() == _SIGNATURE:
        data, scale = _numbers_as_grey(data)
    picture, complaint = decode(data, path, cv2.IMREAD_UNCHANGED)
    if complaint:
        raise SourceError(f"{path}: the label picture is damaged ({complaint})", "Copy or take it again.")
    if picture.dtype not in (np.uint8, np.uint16):
        raise SourceError(f"{path}: label pictures have 8 or 16 bits, this one is {picture.dtype}")
    if picture.ndim == 3 and picture.shape[2] == 1:
        picture = picture[:, :, 0]
    if picture.ndim == 3:
        grey = not mapping.colors and bool((picture[:, :, :1] == picture[:, :, 1:3]).all())
        if not grey:
            return _by_color(np.asarray(picture), path, mapping)
        picture = picture[:, :, 0]
    return _by_number(np.asarray(picture), scale, path, mapping)


def _by_number(picture: NDArray[Any], scale: int, path: Path, mapping: LabelMapping) -> NDArray[np.uint8]:
    if scale != 1:
        picture = picture // scale
    if picture.dtype != np.uint8:
        beyond = np.unique(picture[picture > 255])
        if beyond.size:
            raise _unknown(path, [str(number) for number in beyond], mapping)
        picture = picture.astype(np.uint8)
    labels: NDArray[np.uint8] = mapping.ids[picture]
    bad = labels == UNKNOWN
    if bad.any():
        raise _unknown(path, [str(number) for number in np.unique(picture[bad])], mapping)
    return labels


def _by_color(picture: NDArray[Any], path: Path, mapping: LabelMapping) -> NDArray[np.uint8]:
    if picture.dtype != np.uint8:
        raise SourceError(f"{path}: a colour picture of 16 bits, label colours have 8", "Save it with 8 bits.")
    if not mapping.colors:
        raise SourceError(
            f"{path}: a colour picture, and nothing says what its colours mean",
            'Give --mapping FILE with lines such as "#804080" = "road", or classes = "cityscapes" for that palette.',
        )
    codes = picture[:, :, 0].astype(np.int32)
    codes |= picture[:, :, 1].astype(np.int32) << 8
    codes |= picture[:, :, 2].astype(np.int32) << 16
    known = np.array([red << 16 | green << 8 | blue for red, green, blue in mapping.colors], np.int32)
    values = np.array(list(mapping.colors.values()), np.uint8)
    order = np.argsort(known)
    at = np.searchsorted(known[order], codes).clip(0, len(known) - 1)
    labels: NDArray[np.uint8] = values[order][at]
    labels[known[order][at] != codes] = mapping.other_color
    bad = labels == UNKNOWN
    if bad.any():
        raise _unknown(path, [f"#{code:06x}" for code in np.unique(codes[bad])], mapping)
    return labels


def _unknown(path: Path, found: list[str], mapping: LabelMapping) -> SourceError:
    some = ", ".join(found[:12]) + (f" and {len(found) - 12} more" if len(found) > 12 else "")
    kind = "colours" if found[0].startswith("#") else "numbers"
    return SourceError(
        f"{path}: the label picture has {kind} that nothing explains: {some} (mapping: {mapping.origin})",
        f'Name them in a --mapping FILE, or leave them out there: {kind[:-1]} = "ignore", or other = "ignore".',
    )


def _numbers_as_grey(data: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int]:
    """A PNG whose palette is taken off, so that decoding gives the numbers in it and not their colours, and what those
    come multiplied by: OpenCV stretches grey of less than 8 bits over 0..255. Other PNGs come back as they are."""
    if data.size < 33 or data[12:16].tobytes() != b"IHDR":
        return data, 1
    depth, kind = int(data[24]), int(data[25])
    scale = 255 // ((1 << depth) - 1) if depth < 8 else 1
    if kind != _PALETTE:
        return data, scale if kind == _GREY else 1
    content = data.tobytes()
    header = content[12:25] + bytes([_GREY]) + content[26:29]
    kept = [content[:8], content[8:12], header, struct.pack(">I", zlib.crc32(header))]
    at = 33
    while at + 12 <= len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        if content[at + 4 : at + 8] not in (b"PLTE", b"tRNS", b"bKGD", b"hIST", b"sPLT"):
            kept.append(content[at:end])
        at = end
    return np.frombuffer(b"".join(kept), np.uint8), scale
