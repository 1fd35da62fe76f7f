"""Figures that others measured on real data, with another program."""

from __future__ import annotations

from pathlib import Path

import pytest

import segcam


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_camvid_test_split(shared_data: Path, runtime: str) -> None:
    report = segcam.evaluate(
        shared_data / "models" / "espnet_camvid_480x360.onnx",
        f"camvid:{shared_data / 'camvid'}",
        precision="fp32",
        runtime=runtime,  # type: ignore[arg-type]
    )
    assert report.images == 233
    assert report.miou == pytest.approx(0.572, abs=0.002)
    assert report.pixel_accuracy == pytest.approx(0.858, abs=0.002)


def test_cityscapes_still(shared_data: Path, tmp_path: Path) -> None:
    name = "frankfurt_000001_058914"
    for folder, ending in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_labelTrainIds")):
        place = tmp_path / folder / "val" / "frankfurt"
        place.mkdir(parents=True)
        (place / f"{name}_{ending}.png").symlink_to(shared_data / "images" / f"{name}_{ending}.png")
    report = segcam.evaluate(
        shared_data / "models" / "espnet_cityscapes_1024x512.onnx", f"cityscapes:{tmp_path}", precision="fp32"
    )
    assert report.pixel_accuracy == pytest.approx(0.9402, abs=0.0002)
    assert report.scores.miou_occurring == pytest.approx(0.5168, abs=0.0005)


def test_two_runtimes_on_footage(shared_data: Path) -> None:
    """In the same arithmetic two runtimes name nearly every pixel alike."""
    model = shared_data / "models" / "espnet_camvid_480x360.onnx"
    clip = shared_data / "video" / "derived_camvid_val_first_half_480x360_15fps_51f.mp4"
    report = segcam.evaluate(
        model, source=clip, frames=6, every=8, precision="fp32", runtime="openvino", against_runtime="onnxruntime"
    )
    assert report.images == 6
    assert report.agreement is not None
    assert report.pixel_accuracy > 0.9995
    assert report.agreement.per_image.minimum > 0.999
