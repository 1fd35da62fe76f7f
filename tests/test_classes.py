"""The table of classes, and what --classes and --palette make of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from segcam.classes import CAMVID, CITYSCAPES, TABLES, VOC, ClassTable, generic_table, load_palette, voc_color
from segcam.errors import UsageError


def test_cityscapes_is_cityscapes() -> None:
    assert len(CITYSCAPES) == 19
    assert len(set(CITYSCAPES.colors)) == 19
    assert CITYSCAPES.names[0] == "road"
    assert CITYSCAPES.names[18] == "bicycle"
    assert CITYSCAPES.colors[13] == (0, 0, 142)
    assert CITYSCAPES.colors_rgb().tolist()[12] == [255, 0, 0], "red first: rider is pure red"


def test_voc_colours() -> None:
    assert len(VOC) == 21
    assert VOC.colors[:3] == ((0, 0, 0), (128, 0, 0), (0, 128, 0))
    assert VOC.colors[VOC.index("person")] == (192, 128, 128)
    assert len({voc_color(i) for i in range(256)}) == 256


def test_camvids_last_class_is_none() -> None:
    assert CAMVID.void == {11}
    assert not CAMVID.visible("")[11]
    assert CAMVID.visible("")[:11].all()


@pytest.mark.parametrize("count", [1, 19, 21, 255])
def test_numbered_classes(count: int) -> None:
    table = generic_table(count)
    assert len(table) == count
    assert len(set(table.colors)) == count


@pytest.mark.parametrize("name", ["traffic light", "Traffic-Light", " TRAFFIC_LIGHT ", "traffic  light", "6"])
def test_a_class_by_any_spelling(name: str) -> None:
    assert CITYSCAPES.index(name) == 6


@pytest.mark.parametrize("name", ["rod", "19", "", "²", "٣٤٥"])
def test_an_unknown_class(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        CITYSCAPES.index(name)
    assert repr(name) in caught.value.message
    assert "bicycle" in caught.value.hint
    assert ("'road'" in caught.value.hint) == (name == "rod")


def test_visible() -> None:
    assert CITYSCAPES.visible("").all()
    assert np.flatnonzero(CITYSCAPES.visible("car, road,")).tolist() == [0, 13]
    assert np.flatnonzero(~CITYSCAPES.visible("-sky,!2")).tolist() == [2, 10]
    assert CAMVID.visible("unlabelled").tolist() == [False] * 11 + [True], "asked for by name"
    assert np.flatnonzero(~CAMVID.visible("-sky")).tolist() == [0, 11]
    with pytest.raises(UsageError, match="mixes"):
        CITYSCAPES.visible("road,-sky")
    with pytest.raises(UsageError, match="no class is called"):
        CITYSCAPES.visible("-")


def test_names_and_colours_go_together() -> None:
    with pytest.raises(UsageError, match="2 class names but 1 colours"):
        ClassTable(("a", "b"), ((0, 0, 0),))


@pytest.mark.parametrize("palette", sorted(TABLES))
@pytest.mark.parametrize("count", [1, 30, 255])
def test_built_in_palettes_suffice_for_all(palette: str, count: int) -> None:
    colors = load_palette(palette, count)
    assert len(colors) >= count
    assert len(set(colors)) == len(colors)
    assert generic_table(count).with_palette(palette).colors == tuple(colors[:count])


@pytest.mark.parametrize(
    "text",
    [
        "255 0 0\n0,128,255\n",
        "#ff0000\n#0080FF trailing name\n",
        "// comment\n255 0 0 road ; note\n\n0 128 255 car\n",
        "[[255, 0, 0], [0, 128, 255]]",
        json.dumps([{"color": [255, 0, 0], "name": "x"}, {"color": [0, 128, 255]}]),
    ],
)
def test_palette_files(tmp_path: Path, text: str) -> None:
    path = tmp_path / "p.txt"
    path.write_text(text, encoding="utf-8")
    assert load_palette(str(path), 2) == [(255, 0, 0), (0, 128, 255)]
    table = generic_table(2).with_palette(str(path))
    assert table.colors == ((255, 0, 0), (0, 128, 255))
    assert table.names == ("class 0", "class 1")
    with pytest.raises(UsageError, match="2 colours, the network has 3 classes"):
        generic_table(3).with_palette(str(path))


@pytest.mark.parametrize(
    "text",
    [
        "256 0 0",
        "1 2",
        "1 2 x",
        "#ff00",
        "#gg0000",
        "[[1, 2]]",
        "[[1, 2, 3.5]]",
        "[1, 2, 3]",
        '{"a": 1}',
        "[",
        "-1 0 0",
    ],
)
def test_bad_palette_files(tmp_path: Path, text: str) -> None:
    path = tmp_path / "p.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"p\.txt") as caught:
        load_palette(str(path), 1)
    assert "red green blue" in caught.value.hint


def test_a_palette_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_palette("cityscape", 19)
    assert caught.value.hint == "Did you mean 'cityscapes'?"
    (tmp_path / "image.png").write_bytes(b"\x89PNG\r\n\xff\xfe")
    for path in (tmp_path, tmp_path / "image.png", tmp_path / "missing.txt"):
        with pytest.raises(UsageError, match="neither a built-in table nor a readable text file"):
            load_palette(str(path), 19)


def test_auto_keeps_the_colours() -> None:
    assert CITYSCAPES.with_palette("auto") is CITYSCAPES
    assert CITYSCAPES.with_palette("") is CITYSCAPES
