"""Real clips through a real network: whole files come out, and the overlay is what blending in RGB would give."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import segcam
from segcam.frame import Frame

CLIPS = {
    "derived_cuts_3stills_2048x1024_60f.mp4": (60, 2048, 1024),
    "carnd_vehicle_test_video_1280x720.mp4": (38, 1280, 720),
    "derived_camvid_val_first_half_480x360_15fps_51f.mp4": (51, 480, 360),
}
MODEL = "espnet_cityscapes_1024x512.onnx"


def read(path: Path) -> dict[str, Any]:
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        times = [
            Fraction(picture.pts * picture.time_base.numerator, picture.time_base.denominator)
            for picture in container.decode(stream)
            if picture.pts is not None
        ]
        codec = stream.codec_context
        return {
            "times": times,
            "codec": codec.name,
            "size": (codec.width, codec.height),
            "format": codec.pix_fmt,
            "colors": tuple(
                int(value) for value in (codec.color_primaries, codec.color_trc, codec.colorspace, codec.color_range)
            ),
        }


@pytest.mark.slow
@pytest.mark.parametrize("clip", CLIPS)
def test_a_clip_becomes_a_whole_video(
    shared_data: Path, clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from segcam.cli.main import main

    monkeypatch.chdir(tmp_path)
    frames, width, height = CLIPS[clip]
    source = shared_data / "video" / clip
    arguments = ["-e", shared_data / "models" / MODEL, "-s", source, "-o", "out.mp4", "-o", "o.jsonl"]
    assert main([str(word) for word in (*arguments, "--precision", "auto")]) == 0
    said = capfd.readouterr()
    assert said.out == ""
    assert f"done: {frames} frames" in said.err
    made, given = read(tmp_path / "out.mp4"), read(source)
    assert len(made["times"]) == frames
    assert made["times"] == given["times"]
    assert (made["codec"], made["size"], made["format"]) == ("h264", (width, height), "yuv420p")
    # ITU-T H.273: 1 is BT.709 for primaries, transfer and matrix; AVColorRange 1 is limited.
    assert given["colors"][2:] == (1, 1)
    assert made["colors"] == (1, 1, 1, 1)
    records = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [record["index"] for record in records] == list(range(frames))
    assert all(sum(record["shares"].values()) == pytest.approx(1, abs=2e-5) for record in records)


_LUMA_WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}


def rgb_unclipped(frame: Frame) -> NDArray[np.float64]:
    """(H, W, 3) of limited-range I420, straight from BT.601/709, chroma from the nearest sample, values not clipped."""
    assert frame.format == "i420" and not frame.full_range
    kr, kb = _LUMA_WEIGHTS[frame.matrix]
    luma = (frame.planes[0].astype(np.float64) - 16) * 255 / 219
    blue, red = (
        ((plane.astype(np.float64) - 128) * 255 / 224).repeat(2, 0).repeat(2, 1)[: frame.height, : frame.width]
        for plane in frame.planes[1:]
    )
    r = luma + 2 * (1 - kr) * red
    b = luma + 2 * (1 - kb) * blue
    return np.stack([r, (luma - kr * r - kb * b) / (1 - kr - kb), b], 2)


def inside_classes(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(H, W) bool: pixels whose neighbours up to two steps away have the same label (a chroma sample spans two)."""
    padded = np.pad(labels, 2, mode="edge")
    height, width = labels.shape
    same = np.ones(labels.shape, np.bool_)
    for y in range(5):
        for x in range(5):
            same &= padded[y : y + height, x : x + width] == labels
    return same


@pytest.mark.slow
@pytest.mark.parametrize("clip", CLIPS)
def test_the_overlay_is_what_blending_in_rgb_gives(shared_data: Path, clip: str) -> None:
    """Before encoding. Blending is affine, so it commutes with the colour matrix as long as nothing is clipped: colours
    outside RGB's 0..255, which a video may hold, are kept where a program that goes through 8-bit RGB cuts them first.
    """
    alpha = 0.5
    over = {"unclipped": 0, "clipped": 0}
    worst = {"unclipped": 0.0, "clipped": 0.0}
    compared = outside = 0
    with segcam.Segmenter(shared_data / "models" / MODEL, alpha=alpha) as segmenter:
        shown = segmenter.classes.visible("")
        colors = segmenter.classes.colors_rgb().astype(np.float64)
        for result in segmenter.stream(shared_data / "video" / clip, every=6):
            assert result.overlay is not None
            source, found = rgb_unclipped(result.frame), rgb_unclipped(result.overlay).clip(0, 255)
            weight = (alpha * shown)[result.labels][..., None]
            inner = inside_classes(result.labels)
            compared += int(inner.sum())
            outside += int(((source < 0) | (source > 255)).any(2)[inner].sum())
            for name, base in (("unclipped", source), ("clipped", source.clip(0, 255))):
                wanted = ((1 - weight) * base + weight * colors[result.labels]).clip(0, 255)
                apart = np.abs(found - wanted).max(2)[inner]
                over[name] += int((apart > 2).sum())
                worst[name] = max(worst[name], float(apart.max()))
    print(
        f"{clip}: of {compared} pixels {outside} are outside RGB; more than 2 levels from the reference: "
        f"{over['unclipped']} (worst {worst['unclipped']:.2f}) if it keeps them, "
        f"{over['clipped']} (worst {worst['clipped']:.2f}) if it clips before the blend"
    )
    assert compared > 100_000
    assert over["unclipped"] == 0
