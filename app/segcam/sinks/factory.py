"""From ``--output`` to a sink."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from segcam.controls import Controls
from segcam.errors import UsageError
from segcam.frame import Gpu
from segcam.settings import PRESETS
from segcam.sinks.base import Sink
from segcam.sinks.encoder import Encode
from segcam.sinks.images import ImageSink, Layout, Picture, is_pattern

_VIDEO = (".mp4", ".mkv", ".mov")
_IMAGES = (".png", ".jpg", ".jpeg")
_PICTURES = ("overlay", "colors", "labels")
_POSSIBLE = (
    "Possible are: video.mp4, .mkv or .mov; data.jsonl; folder/ (images); image.png or .jpg; frames/%05d.png; "
    "overlay:, colors: or labels: before a folder or image; window; null."
)


@dataclass(frozen=True)
class SinkOptions:
    """How results are written.

    ``crf`` (0 lossless .. 51 worst), ``preset`` and ``threads`` (0: automatic) are x264's; ``encode`` and ``gpu``
    choose NVENC, see ``VideoSink``. ``image_format`` is for folders; label ids are always PNG. ``hud``: frame rate and
    such in the window. ``pace``: the window waits so that a file plays no faster than real time; turn it off when
    something else is written as well. Raises UsageError.
    """

    crf: int = 23
    preset: str = "superfast"
    image_format: Literal["png", "jpg"] = "png"
    jpeg_quality: int = 95
    hud: bool = True
    threads: int = 0
    pace: bool = True
    encode: Encode = "auto"
    gpu: Gpu | None = None

    def __post_init__(self) -> None:
        _within("crf", self.crf, 0, 51)
        _within("jpeg_quality", self.jpeg_quality, 1, 100)
        _within("threads", self.threads, 0, 64)
        if self.preset not in PRESETS:
            raise UsageError(f"x264 has no preset {self.preset!r}", f"Its presets are: {', '.join(PRESETS)}.")
        if self.encode not in ("auto", "nvenc", "x264"):
            raise UsageError(f"there is no encoder {self.encode!r}", "Choose auto, nvenc or x264.")
        if self.image_format not in ("png", "jpg"):
            raise UsageError(f"images can't be written as {self.image_format!r}", "Choose png or jpg.")


def make_sink(spec: str, options: SinkOptions, controls: Controls, warn: Callable[[str], None]) -> Sink:
    """The sink that ``spec`` names; nothing is touched on disk yet.

    ``x.mp4``, ``.mkv``, ``.mov``: video. ``x.jsonl``: a line for each frame. ``null``. ``window``. ``folder/``, a
    folder that exists, or a name without suffix: overlay images. ``x.png``, ``x.jpg``: one still. ``dir/%05d.png``:
    numbered images. ``overlay:``, ``colors:`` or ``labels:`` before the last three chooses the
    picture. Raises UsageError.
    """
    if spec == "null":
        from segcam.sinks.null import NullSink

        return NullSink()
    if spec == "window":
        from segcam.sinks.window import WindowSink

        return WindowSink(controls, warn, hud=options.hud, pace=options.pace)
    picture, text = _split(spec)
    if not text.strip():
        raise UsageError(f"--output {spec!r} names no file or folder", _POSSIBLE)
    path, suffix = Path(text), Path(text).suffix.lower()
    if text.endswith(("/", os.sep)) or not suffix or path.is_dir():
        format_suffix = ".png" if picture == "labels" else f".{options.image_format}"
        return ImageSink(path, picture or "overlay", "folder", format_suffix, options.jpeg_quality)
    if suffix in _IMAGES:
        if picture == "labels" and suffix != ".png":
            raise UsageError(
                f"--output {spec!r}: JPEG changes label ids", f"Write labels:{path.with_suffix('.png')} instead."
            )
        layout: Layout = "pattern" if is_pattern(path.name) else "still"
        return ImageSink(path, picture or "overlay", layout, suffix, options.jpeg_quality)
    if picture is not None:
        raise UsageError(f"--output {spec!r}: {picture} can only go to images, not to a {suffix} file", _POSSIBLE)
    if suffix == ".jsonl":
        from segcam.sinks.jsonl import JsonLinesSink

        return JsonLinesSink(path)
    if suffix in _VIDEO:
        from segcam.sinks.video import VideoSink

        return VideoSink(
            path, warn, crf=options.crf, preset=options.preset, threads=options.threads, encode=options.encode,
            gpu=options.gpu,
        )  # fmt: skip
    raise UsageError(f"--output {spec!r}: there is no output of type {suffix}", _POSSIBLE)


def check_outputs(specs: Sequence[str], source: str) -> None:
    """Raise UsageError if two outputs would write the same file or folder, or one would overwrite the source."""
    seen: dict[str, str] = {}
    for spec in specs:
        if spec == "null":
            continue
        path = "window" if spec == "window" else _split(spec)[1]
        key = spec if spec == "window" else os.path.normcase(os.path.realpath(path))
        if key in seen:
            raise UsageError(
                f"--output {seen[key]!r} and --output {spec!r} are the same place", "Give each output its own name."
            )
        seen[key] = spec
        if spec == "window" or not source:
            continue
        if _same(path, source):
            raise UsageError(
                f"--output {spec!r} is the source itself, which would be overwritten", "Choose another output."
            )
        images_are_read = any(sign in source for sign in "*?[%") or Path(source).suffix.lower() in _IMAGES
        if images_are_read and os.path.isdir(path) and _same(path, os.path.dirname(source) or "."):
            raise UsageError(
                f"--output {spec!r} is the folder of the pictures that are read, which could be overwritten",
                "Choose another folder.",
            )


def _split(spec: str) -> tuple[Picture | None, str]:
    prefix, colon, rest = spec.partition(":")
    if colon and prefix in _PICTURES:
        return cast(Picture, prefix), rest
    # One letter is a Windows drive; a longer word was meant as a picture or is a URL.
    if colon and re.fullmatch(r"[A-Za-z]{2,}", prefix) and not os.path.lexists(spec):
        raise UsageError(f"--output {spec!r}: {prefix}: is not an output", _POSSIBLE)
    return None, spec


def _same(path: str, source: str) -> bool:
    if os.path.exists(path) and os.path.exists(source):
        return os.path.samefile(path, source)
    # A camera ("0") or a URL is no file; a numbered pattern is one that doesn't exist under its own name.
    return "%" in source and os.path.realpath(path) == os.path.realpath(source)


def _within(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise UsageError(f"{name} is {value}, but must be {low} to {high}")
