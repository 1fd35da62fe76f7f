"""Why a file cannot be read, in words that help, from a look at its first bytes and its neighbours."""

from __future__ import annotations

import struct
from difflib import get_close_matches
from pathlib import Path

from segcam.errors import SourceError

_FFPROBE = "See what is in it with: ffprobe -hide_banner"


def quoted(path: str | Path) -> str:
    """A path as one word of a shell command."""
    import shlex

    return shlex.quote(str(path))


def missing_file(path: Path) -> SourceError:
    """No such file: names the nearest name in its folder, or says that the folder is not there."""
    folder = path.parent
    if not folder.is_dir():
        return SourceError(f"{path}: no such file, and no folder {folder}", f"Check the path; here is: {Path.cwd()}")
    names = sorted(entry.name for entry in folder.iterdir())
    near = get_close_matches(path.name, names, 1, 0.6)
    if not near:
        folded = get_close_matches(path.stem.lower(), [Path(name).stem.lower() for name in names], 1, 0.6)
        near = [name for name in names if folded and Path(name).stem.lower() == folded[0]][:1]
    return SourceError(
        f"{path}: no such file",
        f"Did you mean {folder / near[0]}?" if near else f"See what is there with: ls {quoted(folder)}",
    )


def unreadable_video(path: Path, reason: str) -> SourceError:
    """A file that FFmpeg does not open: empty, text, incomplete MP4, or just unknown."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(4096)
    except PermissionError:
        return SourceError(f"{path}: no permission to read it", f"Allow it with: chmod u+r {quoted(path)}")
    except OSError as error:
        return SourceError(f"{path}: cannot be read ({error.strerror})")
    if size == 0:
        return SourceError(f"{path}: the file is empty (0 bytes)", "Copy or record it again.")
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide") and b"moov" not in _mp4_boxes(path):
        return SourceError(
            f"{path}: an MP4 file without its index (no 'moov' box in {size} bytes): incomplete recording or copy",
            "Copy it again, or rebuild the index from a sound file of the same camera with untrunc.",
        )
    if _is_text(head):
        start = head.decode("utf-8", "replace").strip().splitlines()[0][:40]
        return SourceError(
            f"{path}: a text file (it starts with {start!r}), not a video", "Give a video or image file."
        )
    return SourceError(f"{path}: not a video or image that FFmpeg can read ({reason})", f"{_FFPROBE} {quoted(path)}")


def animated_webp(path: Path) -> SourceError:
    """FFmpeg finds the stream in such a file but decodes nothing of it."""
    return SourceError(
        f"{path}: an animated WebP picture, which FFmpeg does not decode",
        f"Turn it into a video first, for example with ImageMagick: magick {quoted(path)} out.mp4",
    )


def no_video_stream(name: str, kinds: list[str]) -> SourceError:
    """A container that opened but holds no video."""
    if not kinds:
        return SourceError(f"{name}: no video stream: the file holds no streams at all", "Copy or record it again.")
    found = ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))
    return SourceError(f"{name}: no video stream; found only: {found}", "Give a file that holds a picture.")


def _mp4_boxes(path: Path) -> list[bytes]:
    """Types of the top-level boxes, as far as their sizes make sense."""
    boxes: list[bytes] = []
    with path.open("rb") as file:
        end = file.seek(0, 2)
        position = 0
        while position + 8 <= end and len(boxes) < 10_000:
            file.seek(position)
            header = file.read(16)
            size = struct.unpack(">I", header[:4])[0]
            boxes.append(header[4:8])
            if size == 1 and len(header) == 16:
                size = struct.unpack(">Q", header[8:])[0]
            if size < 8:
                break
            position += size
    return boxes


def _is_text(head: bytes) -> bool:
    if b"\0" in head:
        return False
    try:
        # A character of several bytes may be cut at the end of the sample.
        head[:-3].decode("utf-8") if len(head) > 3 else head.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return bool(head.strip())
