"""Layouts: which picture goes with which labels, and what is said where something is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segcam.classes import CITYSCAPES
from segcam.errors import SourceError, UsageError
from segcam.evaluation.datasets import KINDS, Dataset, make_dataset, same_proportions
from segcam.evaluation.folders import cityscapes_mapping
from segcam.evaluation.mapping import IGNORED, UNKNOWN

Save = Callable[..., Path]
GREY = np.full((4, 8, 3), 90, np.uint8)
ROAD = np.full((4, 8), 7, np.uint8)


@pytest.fixture
def cityscapes(save: Save, tmp_path: Path) -> Path:
    for city, number in (("bonn", 10), ("aachen", 2), ("aachen", 1)):
        stem = f"{city}_{number:06d}_000019"
        save(f"leftImg8bit/val/{city}/{stem}_leftImg8bit.png", GREY)
        save(f"gtFine/val/{city}/{stem}_gtFine_labelIds.png", ROAD)
        save(f"gtFine/val/{city}/{stem}_gtFine_instanceIds.png", ROAD)
        save(f"gtFine/val/{city}/{stem}_gtFine_color.png", GREY)
    (tmp_path / "leftImg8bit" / "test").mkdir()
    return tmp_path


def test_cityscapes(cityscapes: Path) -> None:
    found = make_dataset(f"cityscapes:{cityscapes}")
    assert isinstance(found, Dataset)
    assert found.description == "Cityscapes val (3 images)"
    assert found.classes == CITYSCAPES
    samples = [found.read(index) for index in range(len(found))]
    assert [sample.name for sample in samples] == [
        "aachen_000001_000019_leftImg8bit.png",
        "aachen_000002_000019_leftImg8bit.png",
        "bonn_000010_000019_leftImg8bit.png",
    ]
    assert all(sample.labels is not None and (sample.labels == 0).all() for sample in samples)
    assert samples[0].frame.format == "bgr24"
    assert (samples[0].frame.width, samples[0].frame.height) == (8, 4)


def test_cityscapes_numbers() -> None:
    ids = cityscapes_mapping(True).ids
    assert (ids < len(CITYSCAPES)).sum() == 19
    assert [CITYSCAPES.names[ids[i]] for i in (7, 20, 24, 33)] == ["road", "traffic sign", "person", "bicycle"]
    assert (ids[[0, 1, 6, 9, 10, 14, 18, 29, 30, 255]] == IGNORED).all()
    assert (ids[34:255] == UNKNOWN).all()


def test_train_ids_where_there_are_no_label_ids(cityscapes: Path) -> None:
    for path in cityscapes.rglob("*_labelIds.png"):
        path.rename(path.with_name(path.name.replace("labelIds", "labelTrainIds")))
    labels = make_dataset(f"cityscapes:{cityscapes}").read(0).labels
    assert labels is not None
    assert (labels == 7).all(), "7 as a train id is the traffic sign"


def test_cityscapes_lacking_something(cityscapes: Path) -> None:
    with pytest.raises(SourceError, match="gtFine/test: there is no such folder") as caught:
        make_dataset(f"cityscapes:{cityscapes}:test")
    assert "splits: val" in caught.value.hint
    with pytest.raises(SourceError, match="leftImg8bit/val: there is no such folder") as caught:
        make_dataset(f"cityscapes:{cityscapes / 'gtFine'}")
    assert "PATH/gtFine/val/CITY" in caught.value.hint
    (cityscapes / "leftImg8bit/val/bonn/bonn_000010_000019_leftImg8bit.png").unlink()
    with pytest.raises(SourceError, match="1 of 3 labels have no picture") as caught:
        make_dataset(f"cityscapes:{cityscapes}")
    assert "bonn_000010_000019_leftImg8bit.png" in caught.value.hint
    for path in cityscapes.rglob("*_labelIds.png"):
        path.unlink()
    with pytest.raises(SourceError, match=r"found 2 pictures .* and 0 labels"):
        make_dataset(f"cityscapes:{cityscapes}")


def test_pictures_without_labels_are_left_out_with_a_word(cityscapes: Path) -> None:
    (cityscapes / "gtFine/val/bonn/bonn_000010_000019_gtFine_labelIds.png").unlink()
    said: list[str] = []
    assert len(make_dataset(f"cityscapes:{cityscapes}", warn=said.append)) == 2
    assert len(said) == 1
    assert "1 of 3 pictures have no labels" in said[0]


def test_camvid(save: Save, tmp_path: Path) -> None:
    save("test/b.jpg", GREY)
    save("testannot/b.png", ROAD)
    save("val/a.png", GREY)
    save("valannot/a.png", ROAD + 4)
    found = make_dataset(f"camvid:{tmp_path}")
    assert (found.description, len(found)) == ("CamVid test (1 images)", 1)
    assert found.classes is not None
    assert len(found.classes) == 11
    labels = make_dataset(f"camvid:{tmp_path}:val").read(0).labels
    assert labels is not None
    assert (labels == IGNORED).all(), "11 is unlabelled"
    with pytest.raises(SourceError, match="expected the folders train/ and trainannot/") as caught:
        make_dataset(f"camvid:{tmp_path}:train")
    assert "test, val" in caught.value.hint
    with pytest.raises(SourceError) as caught:
        make_dataset(f"camvid:{tmp_path / 'test'}")
    assert "PATH/testannot" in caught.value.hint


def test_a_folder_whose_name_has_a_colon(save: Save, tmp_path: Path) -> None:
    save("a:b/test/x.png", GREY)
    save("a:b/testannot/x.png", ROAD)
    assert len(make_dataset(f"camvid:{tmp_path / 'a:b'}")) == 1
    assert len(make_dataset(f"camvid:{tmp_path / 'a:b'}:test")) == 1


def test_folders_in_natural_order(save: Save, tmp_path: Path) -> None:
    for name in ("10", "9", "1"):
        save(f"i/{name}.png", GREY)
        save(f"l/{name}.png", ROAD)
    (tmp_path / "l" / "notes.txt").write_text("x")
    found = make_dataset(f"folder:{tmp_path / 'i'},{tmp_path / 'l'}")
    assert [found.read(i).name for i in range(3)] == ["1.png", "9.png", "10.png"]
    assert found.classes is None


def test_folders_that_do_not_fit(save: Save, tmp_path: Path) -> None:
    save("i/a.png", GREY)
    save("l/a.png", ROAD)
    save("l/b.png", ROAD)
    both = f"folder:{tmp_path / 'i'},{tmp_path / 'l'}"
    with pytest.raises(SourceError, match="1 of 2 label pictures have no picture") as caught:
        make_dataset(both)
    assert "b.png" in caught.value.message
    save("i/b.jpg", GREY)
    assert len(make_dataset(both)) == 2
    save("i/b.png", GREY)
    with pytest.raises(SourceError, match=r"b\.jpg and b\.png have the same name"):
        make_dataset(both)
    (tmp_path / "i" / "b.png").unlink()
    with pytest.raises(SourceError, match="there is no such folder"):
        make_dataset(f"folder:{tmp_path / 'i'},{tmp_path / 'none'}")
    (tmp_path / "e").mkdir()
    with pytest.raises(SourceError, match="no images in this folder"):
        make_dataset(f"folder:{tmp_path / 'i'},{tmp_path / 'e'}")


def test_sizes_that_do_not_fit(save: Save, tmp_path: Path) -> None:
    save("i/a.png", GREY)
    save("l/a.png", np.full((4, 6), 7, np.uint8))
    with pytest.raises(SourceError, match=r"a\.png is 8x4, but its labels .*a\.png are 6x4"):
        make_dataset(f"folder:{tmp_path / 'i'},{tmp_path / 'l'}").read(0)
    save("l/a.png", np.full((2, 4), 7, np.uint8))
    labels = make_dataset(f"folder:{tmp_path / 'i'},{tmp_path / 'l'}").read(0).labels
    assert labels is not None
    assert labels.shape == (2, 4), "of half the size, in the same proportions"


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ((360, 480), (360, 480), True),
        ((720, 960), (360, 480), True),
        ((1024, 2048), (513, 1025), True),
        ((1024, 2048), (1024, 2047), True),
        ((360, 480), (352, 480), False),
        ((1024, 2048), (1024, 1024), False),
        ((480, 360), (360, 480), False),
    ],
)
def test_proportions(first: tuple[int, int], second: tuple[int, int], same: bool) -> None:
    assert same_proportions(first, second) is same
    assert same_proportions(second, first) is same


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("camvd:x", "there is no data set 'camvd:x'", "Did you mean camvid?"),
        ("camvid", "there is no data set 'camvid'", "camvid:PATH[:SPLIT]"),
        (".", "doesn't say what kind", "folder:IMAGES,LABELS"),
        ("camvid:", "names no folder", "camvid:PATH[:SPLIT]"),
        ("folder:a", "has 1 parts", "folder:IMAGES,LABELS[,MAPPING]"),
        ("folder:a,b,c,d", "has 4 parts", ""),
        ("folder:a,", "has 2 parts", ""),
        ("folder:a,b,c.toml", "two mapping files", ""),
    ],
)
def test_what_cannot_be_meant(text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_dataset(text, "m.toml" if text.endswith("c.toml") else "")
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_every_kind_says_how_it_is_written() -> None:
    for name, kind in KINDS.items():
        assert kind.grammar.startswith(f"{name}:")
        assert kind.about
