"""Real networks on real pictures, against the class maps that ONNX Runtime gave for the original exports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import segcam

CITY, CAMVID = "espnet_cityscapes_1024x512", "espnet_camvid_480x360"
LEGACY, LARGE = CITY + "_legacy17", "espnet_cityscapes_2048x1024"
Load = Callable[..., segcam.Segmenter]


@pytest.fixture
def load(shared_data: Path) -> Load:
    def make(name: str, runtime: str = "auto", precision: str = "fp32") -> segcam.Segmenter:
        return segcam.Segmenter(
            shared_data / "models" / f"{name}.onnx",
            runtime=runtime,
            precision=precision,
            requests=2,  # type: ignore[arg-type]
        )

    return make


def _references(shared: Path, name: str) -> list[tuple[Path, NDArray[np.uint8]]]:
    found = []
    for path in sorted((shared / "models" / "reference").glob(f"*__{name}_argmax.png")):
        stem = path.name.split("__")[0].removeprefix("camvid_")
        folders = ("images", "camvid/test", "camvid/val")
        pictures = [p for folder in folders for p in (shared / folder).glob(f"{stem}.*") if p.suffix != ".txt"]
        assert len(pictures) == 1, f"{stem}: {pictures}"
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert labels is not None
        found.append((pictures[0], labels.astype(np.uint8)))
    return found


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
@pytest.mark.parametrize(("name", "count"), [(CITY, 7), (CAMVID, 3)])
def test_class_maps_equal_the_reference(shared_data: Path, load: Load, runtime: str, name: str, count: int) -> None:
    """At the network's size; a few pixels in ten thousand are ties that any change of arithmetic may flip."""
    references = _references(shared_data, name)
    assert len(references) == count
    with load(name, runtime) as network:
        for picture, labels in references:
            found = network.predict(picture, size="network")
            assert found.shape == labels.shape
            assert (found == labels).mean() >= 0.999, picture.name


def test_both_exports_of_one_network_agree(shared_data: Path, load: Load) -> None:
    picture = shared_data / "images" / "frankfurt_000000_000294_leftImg8bit.png"
    with load(CITY, "onnxruntime") as new, load(LEGACY, "onnxruntime") as old:
        assert (new.predict(picture) == old.predict(picture)).mean() >= 0.999


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_accuracy_on_a_labelled_picture(shared_data: Path, load: Load, runtime: str) -> None:
    truth = cv2.imread(
        str(shared_data / "images" / "frankfurt_000001_058914_gtFine_labelTrainIds.png"), cv2.IMREAD_UNCHANGED
    )
    assert truth is not None
    with load(CITY, runtime) as network:
        found = network.predict(shared_data / "images" / "frankfurt_000001_058914_leftImg8bit.png")
    assert found.shape == truth.shape == (1024, 2048)
    known = truth != 255
    assert (found == truth)[known].mean() >= 0.93


def test_auto_precision_says_the_same(shared_data: Path, load: Load) -> None:
    """All the pictures, and frames of all the videos."""
    for name, videos in ((CITY, ("derived_panzoom*", "derived_cuts*", "carnd*")), (CAMVID, ("derived_camvid*",))):
        with load(name, precision="auto") as quick, load(name) as exact:
            if quick.info.precision == "fp32":
                pytest.skip("auto is fp32 on this processor")
            images = [p for p in sorted((shared_data / "images").iterdir()) if "gtFine" not in p.name]
            assert len(images) == 7
            for picture in images if name == CITY else [p for p, _ in _references(shared_data, name)]:
                one, two = (network.predict(picture, size="network") for network in (quick, exact))
                assert (one == two).mean() >= 0.99, picture.name
            for pattern in videos:
                (path,) = (p for p in (shared_data / "video").glob(pattern) if p.suffix == ".mp4")
                found = [
                    [s.labels for s in network.stream(path, overlay=False, every=12, frames=3)]
                    for network in (quick, exact)
                ]
                assert len(found[0]) == len(found[1]) == 3
                same = [float((a == b).mean()) for a, b in zip(*found, strict=True)]
                assert min(same) >= 0.98, path.name
                assert sum(same) / len(same) >= 0.99, path.name
