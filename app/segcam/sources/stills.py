"""Decoding one image file, and hearing what its decoder has to say about it."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segcam.errors import SourceError

#: What a folder or glob is searched for. A file named on its own goes by its content.
_SUFFIX_LIST = ".avif .bmp .dib .gif .jp2 .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .ras .sr .tif .tiff .webp"
IMAGE_SUFFIXES = frozenset(_SUFFIX_LIST.split())

# How libjpeg, libpng, libtiff and OpenCV's logger begin a line about a damaged picture.
_DECODER_LINE = re.compile(
    r"(Corrupt JPEG|Premature end|Invalid (SOS|JPEG|component|crop|progressive)|Unsupported (JPEG|marker)"
    r"|Inconsistent prog|Warning: unknown JFIF|Extraneous|libpng |TIFF|\[ ?(ERROR|WARN|INFO|FATAL):)"
)
_LOG_PREFIX = re.compile(r"^\[ ?\w+:\d+@[\d.]+\] global \S+ |^libpng (error|warning): ")
_redirected = threading.Lock()


def is_still(head: bytes) -> bool:
    """Whether a file that begins with ``head`` (some 4 KB) is a picture that OpenCV reads, and not an animation."""
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return b"acTL" not in head
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return not (head[12:16] == b"VP8X" and len(head) > 20 and head[20] & 2)
    if head[:2] == b"\xff\xd8":
        return True
    if head[:2] == b"BM" and len(head) >= 18:
        return int.from_bytes(head[14:18], "little") in (12, 40, 52, 56, 64, 108, 124)
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace():
        return True
    return head[:4] in (b"II*\0", b"MM\0*") or head[:12] in (b"\0\0\0\x0cjP  \r\n\x87\n",)


@contextmanager
def _decoder_messages() -> Iterator[list[str]]:
    """Lines that native decoders print on stderr meanwhile; lines of other threads are passed on afterwards.

    libjpeg has no other way to say that a picture is damaged: OpenCV returns it as if nothing were wrong.
    """
    lines: list[str] = []
    with _redirected:
        try:
            kept = os.dup(2)
        except OSError:  # no stderr (a service, pythonw): nothing to hear
            yield lines
            return
        with tempfile.TemporaryFile() as caught:
            os.dup2(caught.fileno(), 2)
            try:
                yield lines
            finally:
                os.dup2(kept, 2)
                os.close(kept)
                caught.seek(0)
                for line in caught.read().decode("utf-8", "replace").splitlines(keepends=True):
                    if _DECODER_LINE.match(line):
                        lines.append(_LOG_PREFIX.sub("", line).strip())
                    elif line.strip():
                        os.write(2, line.encode())


def read_still(path: Path) -> tuple[NDArray[np.uint8], str]:
    """A picture as (H, W, 3) uint8, 0..255, blue first, contiguous; and what its decoder complained of, or "".

    EXIF turns are applied, alpha is dropped, gray is spread over three channels, 16 bits become 8 by 255/65535
    rounded to nearest (OpenCV itself cuts the lower byte off), floating point 0..1 likewise by 255, CMYK becomes RGB.

    A JPEG with damaged data is used: its complaint ("Corrupt JPEG data ...") is returned. Damage that happens to decode
    cannot be noticed, in no format; WebP tells of none at all. Raises SourceError for what cannot be decoded.
    """
    import cv2

    image, complaint = decode(read_bytes(path), path, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    return np.ascontiguousarray(_eight_bits(image, path)), complaint


def read_bytes(path: Path) -> NDArray[np.uint8]:
    """A file's content. Raises SourceError, for an empty file too."""
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        hint = f"Allow it with: chmod u+r {path}" if isinstance(error, PermissionError) else ""
        raise SourceError(f"{path}: cannot be read ({error.strerror})", hint) from None
    if not data.size:
        raise SourceError(f"{path}: the file is empty (0 bytes)", "Copy or take it again.")
    return data


def decode(data: NDArray[np.uint8], path: Path, flags: int) -> tuple[NDArray[np.generic], str]:
    """A picture as OpenCV's ``imdecode`` gives it with ``flags``, and its decoder's complaint as ``read_still`` has it.

    ``path`` is where it came from, for the SourceError that is raised for what cannot be decoded.
    """
    import cv2

    image: NDArray[np.generic] | None
    with _decoder_messages() as messages:
        try:
            image = cv2.imdecode(data, flags)
        except cv2.error as error:
            image = None
            messages.append(str(error.err))
    complaint = "; ".join(dict.fromkeys(messages))
    if image is None:
        found = f" ({complaint})" if complaint else ""
        raise SourceError(f"{path}: not a picture that can be decoded{found}", "Copy or take it again.")
    return image, complaint


def _eight_bits(image: NDArray[np.generic], path: Path) -> NDArray[np.uint8]:
    if image.dtype == np.uint8:
        return image.view(np.uint8)
    if image.dtype == np.uint16:
        # (v * 255 + 32895) >> 16 is v / 257 rounded to nearest for all 65536 values.
        wide: NDArray[np.uint32] = image.astype(np.uint32) * 255 + 32895
        return (wide >> 16).astype(np.uint8)
    if image.dtype in (np.float32, np.float64):
        scaled = np.nan_to_num(image.astype(np.float64), nan=0.0, posinf=1.0, neginf=0.0).clip(0, 1) * 255
        rounded: NDArray[np.uint8] = np.rint(scaled).astype(np.uint8)
        return rounded
    raise SourceError(
        f"{path}: samples of type {image.dtype} are not supported", "Save it with 8 or 16 bits a channel."
    )
