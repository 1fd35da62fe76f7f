"""Cameras, as far as that goes without one: what is asked of the driver, and every way it can fail."""

from __future__ import annotations

import errno
import os
import sys
from fractions import Fraction
from pathlib import Path

import av
import pytest

from segcam.errors import SourceError, UsageError
from segcam.sources.base import SourceOptions
from segcam.sources.camera import CameraMedium, _CameraSource, is_camera
from segcam.sources.factory import make_source

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Video4Linux2 is Linux's")


@pytest.mark.parametrize(
    ("spec", "name", "options"),
    [
        ("0", "/dev/video0", {}),
        ("12", "/dev/video12", {}),
        ("/dev/video3", "/dev/video3", {}),
        ("camera:2", "/dev/video2", {}),
        ("camera:/dev/v4l/by-id/usb-cam", "/dev/v4l/by-id/usb-cam", {}),
        (
            "camera:0, size=1280x720,fps=29.97,format=mjpeg",
            "/dev/video0",
            {"video_size": "1280x720", "framerate": "2997/100", "input_format": "mjpeg"},
        ),
    ],
)
def test_what_is_asked_of_the_driver(spec, name, options):
    medium = CameraMedium(spec)
    assert is_camera(spec) and medium.name == name and medium.device_options() == options and medium.live


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("camera:", "names no camera"),
        ("camera:size=1x1", "names no camera"),
        ("camera:0,sise=640x480", "Did you mean 'size'"),
        ("camera:0,size=640", "WIDTHxHEIGHT"),
        ("camera:0,fps=fast", "fps"),
    ],
)
def test_wrong_settings(spec, says):
    with pytest.raises(UsageError, match=says):
        make_source(spec)


def test_start_and_loop_are_refused():
    for options in (SourceOptions(start_s=1), SourceOptions(loops=2)):
        with pytest.raises(UsageError):
            make_source("0", options)


@linux
def test_this_pyav_reads_v4l2():
    assert av.ContainerFormat("v4l2", "r").is_input


@linux
def test_no_such_camera_lists_those_there_are():
    with pytest.raises(SourceError) as caught:
        make_source("camera:9876").open()
    there = sorted(str(path) for path in Path("/dev").glob("video*"))
    assert "/dev/video9876: no such camera" in caught.value.message
    assert (there[0] if there else "no /dev/video*") in caught.value.message


@linux
def test_what_is_no_camera():
    with pytest.raises(SourceError, match="/dev/null: not a camera"):
        make_source("camera:/dev/null").open()


@pytest.mark.parametrize(
    ("code", "says", "hint"),
    [
        (errno.EACCES, "no permission", "usermod -aG video"),
        (errno.EBUSY, "in use by another program", "fuser -v /dev/video5"),
        (errno.ENODEV, "unplugged", "Plug"),
        (errno.EINVAL, "cannot be used with video_size=99x99", "v4l2-ctl --list-formats-ext -d /dev/video5"),
    ],
)
def test_drivers_refusals_are_explained(monkeypatch, code, says, hint):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code), "/dev/video5")

    monkeypatch.setattr(av, "open", refuse)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(SourceError) as caught:
        make_source("camera:5,size=99x99").open()
    assert says in caught.value.message and hint in caught.value.hint and "/dev/video5" in caught.value.message


def test_other_systems_are_told(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SourceError, match="Video4Linux2"):
        make_source("0").open()


def test_another_size_and_rate_than_asked_is_told(make_video, monkeypatch):
    """A recording stands in for the device: what the driver gives is what its file says."""
    path = make_video("a.mp4", 3)
    opened: list[dict[str, str]] = []
    real = av.open

    def device(file: str, mode: str, format: str, options: dict[str, str]) -> object:
        opened.append(options)
        assert (file, format) == ("/dev/video0", "v4l2")
        return real(str(path))

    monkeypatch.setattr(av, "open", device)
    monkeypatch.setattr(sys, "platform", "linux")
    warnings: list[str] = []
    medium = CameraMedium("camera:0,size=1280x720,fps=60")
    source = _CameraSource(medium, SourceOptions(every=2), warnings.append)
    info = source.open()
    assert opened == [{"video_size": "1280x720", "framerate": "60"}]
    assert (info.live, info.frames, info.rate_hz) == (True, None, Fraction(25, 2))
    assert len(warnings) == 2 and "gives 64x48, not 1280x720" in warnings[0] and "gives 25 frames" in warnings[1]
    assert source.read() is not None
    source.close()
