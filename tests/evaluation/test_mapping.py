"""Mapping files: every form of an entry, and every way to get one wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from segcam.classes import CAMVID, CITYSCAPES
from segcam.errors import UsageError
from segcam.evaluation.mapping import IGNORED, UNKNOWN, LabelMapping, index_mapping, read_mapping


def toml(folder: Path, text: str, base: LabelMapping | None = None) -> LabelMapping:
    path = folder / "mapping.toml"
    path.write_text(text, encoding="utf-8")
    return read_mapping(path, base)


def test_names_make_a_table_in_their_order(tmp_path: Path) -> None:
    found = toml(tmp_path, '3 = "road"\n0 = "ignore"\n7 = "car"\n8 = "road"')
    assert found.classes is not None
    assert found.classes.names == ("road", "car")
    assert found.classes.colors[0] == CITYSCAPES.colors[0], "a known name has its known colour"
    assert found.ids[[3, 0, 7, 8, 255]].tolist() == [0, IGNORED, 1, 0, IGNORED]
    assert (found.ids == UNKNOWN).sum() == 256 - 5


def test_names_and_indices_of_a_table(tmp_path: Path) -> None:
    found = toml(tmp_path, 'classes = "cityscapes"\nother = "ignore"\n7 = "Road"\n24 = 11\n255 = "sky"')
    assert found.classes == CITYSCAPES
    assert found.ids[[7, 24, 255, 8]].tolist() == [0, 11, 10, IGNORED]
    assert found.colors[(128, 64, 128)] == 0, "its colours are known, too"
    assert found.other_color == IGNORED


@pytest.mark.parametrize("classes", ['"camvid"', '["sky", "road"]'])
def test_classes_alone_are_indices(tmp_path: Path, classes: str) -> None:
    found = toml(tmp_path, f"classes = {classes}")
    assert found.ids[:2].tolist() == [0, 1]
    assert (len(found.colors) > 0) == (classes == '"camvid"'), "nobody knows the colours of a list"
    assert found.ids[11] == (IGNORED if classes == '"camvid"' else UNKNOWN)


def test_indices_alone_count_the_networks_classes(tmp_path: Path) -> None:
    found = toml(tmp_path, '1 = 4\n2 = "ignore"')
    assert found.classes is None
    assert found.ids[:3].tolist() == [UNKNOWN, 4, IGNORED]


def test_colours(tmp_path: Path) -> None:
    found = toml(tmp_path, '"#80FF00" = "grass"\n"0, 0,7" = "water"\nother = "ignore"')
    assert dict(found.colors) == {(128, 255, 0): 0, (0, 0, 7): 1}
    assert found.other_color == IGNORED
    replaced = toml(tmp_path, 'classes = "camvid"\n"#000001" = "road"')
    assert dict(replaced.colors) == {(0, 0, 1): 3}, "given colours replace the table's"


def test_a_data_sets_own_meaning_is_laid_under(tmp_path: Path) -> None:
    own = index_mapping(CAMVID)
    found = toml(tmp_path, '7 = "ignore"\n12 = "car"\n[network]\nsidewalk = "pavement"', own)
    assert found.classes == own.classes
    assert found.ids[[0, 7, 11, 12, 13]].tolist() == [0, IGNORED, IGNORED, 8, UNKNOWN]
    assert found.renamed == {"sidewalk": "pavement"}
    assert own.ids[7] == 7, "the built-in meaning stays as it is"
    other = toml(tmp_path, 'classes = ["thing"]\n0 = "thing"', own)
    assert other.classes is not None
    assert (other.classes.names, other.ids[1]) == (("thing",), UNKNOWN), "other classes, other numbers"


def test_json_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text(json.dumps({"classes": "cityscapes", "7": "road", "network": {"street": "road"}}))
    found = read_mapping(path)
    assert found.ids[7] == 0
    assert found.renamed == {"street": "road"}
    assert found.origin == str(path)


def test_class_indices() -> None:
    found = index_mapping(None)
    assert found.ids[:UNKNOWN].tolist() == list(range(UNKNOWN))
    assert found.ids[255] == IGNORED
    camvid = index_mapping(CAMVID)
    assert camvid.classes is not None
    assert len(camvid.classes) == 11
    assert np.array_equal(camvid.ids[:11], np.arange(11))
    assert camvid.colors[CAMVID.colors[11]] == IGNORED


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("7 = ", "not valid TOML", ""),
        ("[[7]]", "expected a class name", ""),
        ("256 = 1", "'256' is neither a number 0..255", ""),
        ('raod = "x"', "'raod' is neither a number", '7 = "road"'),
        ('"#12345" = "x"', "'#12345' is neither", ""),
        ('"1,2,256" = "x"', "'1,2,256' is neither", ""),
        ('classes = "cityscape"', "no class table 'cityscape'", "camvid"),
        ("classes = 19", "classes is 19", ""),
        ('classes = ["a", "a"]', "no name twice", ""),
        ('classes = "cityscapes"\n7 = "rode"', "no class is called 'rode'", "'road'"),
        ('classes = "cityscapes"\n7 = 19', "7 is 19, expected a class name, an index 0..18", ""),
        ('classes = "cityscapes"\n7 = true', "7 is True", ""),
        ("7 = 254", "7 is 254", ""),
        ('7 = "road"\n8 = 1', "some classes are given by name, others by index", "classes ="),
        ('7 = "road"\nnetwork = 3', "network: expected", ""),
        ("7 = 1\n[network]\na = 'b'", "have no names", ""),
    ],
)
def test_slips(tmp_path: Path, text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        toml(tmp_path, text)
    assert message in caught.value.message
    assert str(tmp_path / "mapping.toml") in caught.value.message
    assert hint in caught.value.hint


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_mapping(tmp_path / "none.toml")
    (tmp_path / "m.json").write_text("[1]")
    with pytest.raises(UsageError, match="expected numbers or colours"):
        read_mapping(tmp_path / "m.json")
    (tmp_path / "m.json").write_text("{")
    with pytest.raises(UsageError, match="not valid JSON"):
        read_mapping(tmp_path / "m.json")
    (tmp_path / "m.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="cannot be read"):
        read_mapping(tmp_path / "m.toml")
