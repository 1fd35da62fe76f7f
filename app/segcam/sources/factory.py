"""From what a person writes after --source to the class that reads it."""

from __future__ import annotations

import logging
from pathlib import Path
from urllib.parse import unquote, urlsplit

from segcam.errors import UsageError
from segcam.sources.base import Source, SourceOptions, Warn
from segcam.sources.diagnose import missing_file
from segcam.sources.select import check_options
from segcam.sources.urls import NETWORK_SCHEMES, redact_url, url_scheme

_DEFAULT = SourceOptions()
_HEAD_BYTES = 4096


def log_warning(message: str) -> None:
    """The warn callback of those who give none: a warning of the logger ``segcam.sources``."""
    logging.getLogger("segcam.sources").warning(message)


def make_source(spec: str, options: SourceOptions = _DEFAULT, warn: Warn = log_warning) -> Source:
    """The source that ``spec`` names; nothing is opened but, for an existing file, its first 4 KB.

    ==============================================  ==========================================================
    ``test:`` ``test:size=640x480,rate=25,live=1``  test pattern (``synthetic.SyntheticSource``)
    ``street:`` ``street:seed=7,weather=rain``      made-up street (``street.StreetSource``)
    ``rtsp:// http:// https:// udp:// srt:// ...``  network stream
    ``0`` ``/dev/video0`` ``camera:0,fps=30``       camera (a file that is called 0 is ``./0``)
    an existing folder                              its images in natural order
    an existing file                                by its content: a picture, else a video; animations are videos
    ``frame_%05d.png``                              numbered pictures
    ``shots/*.jpg``                                 glob; ``**`` goes into folders
    ==============================================  ==========================================================

    Raises UsageError for what cannot be meant, SourceError for a file that is not there or a folder, glob or pattern
    without pictures.
    """
    check_options(options)
    if not spec.strip():
        raise UsageError("--source is empty", "Give a video, image, folder, camera (0), address, street: or test:")
    scheme = url_scheme(spec)
    if spec == "test" or spec.startswith("test:"):
        from segcam.sources.synthetic import SyntheticSource

        return SyntheticSource(spec if ":" in spec else "test:", options)
    if spec == "street" or spec.startswith("street:"):
        from segcam.sources.street import StreetSource

        return StreetSource(spec if ":" in spec else "street:", options)
    if scheme in NETWORK_SCHEMES:
        from segcam.sources.network import url_source

        return url_source(spec, options, warn)
    if scheme and scheme != "file":
        raise UsageError(
            f"source {redact_url(spec)!r}: addresses of the kind {scheme}:// are not supported",
            f"Supported: {', '.join(name + '://' for name in NETWORK_SCHEMES)}, and files by their path.",
        )
    from segcam.sources.camera import camera_source, is_camera

    if is_camera(spec):
        return camera_source(spec, options, warn)
    return _from_path(unquote(urlsplit(spec).path) if scheme else spec, options, warn)


def _from_path(spec: str, options: SourceOptions, warn: Warn) -> Source:
    from segcam.sources.images import (
        ImageSource,
        folder_images,
        glob_images,
        is_numbered,
        numbered_images,
        single_image,
    )
    from segcam.sources.stills import is_still

    path = Path(spec).expanduser()
    if path.is_dir():
        return ImageSource(str(path), folder_images(path), options, warn)
    if path.exists():
        if is_still(_head(path)):
            return ImageSource(str(path), single_image(path), options, warn)
        from segcam.sources.medium import FileMedium
        from segcam.sources.video import VideoSource

        return VideoSource(FileMedium(path), options, warn)
    if is_numbered(spec):
        return ImageSource(str(path), numbered_images(str(path), warn), options, warn, sequence=True)
    if any(char in spec for char in "*?["):
        return ImageSource(str(path), glob_images(str(path)), options, warn)
    raise missing_file(path)


def _head(path: Path) -> bytes:
    """The file's beginning; empty where it cannot be read, which the class that opens it explains."""
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError:
        return b""
