"""Class names of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from segcam.classes import CAMVID, CITYSCAPES, voc_color
from segcam.errors import UsageError
from segcam.networks.names import names_inside, read_names


@pytest.mark.parametrize(
    ("text", "names", "colors"),
    [
        ("road\n\n# not a class\n side walk \n", ("road", "side walk"), (voc_color(0), voc_color(1))),
        ("\ufeffroad\r\nsky\r\n", ("road", "sky"), (voc_color(0), voc_color(1))),
        ('["road", "sky"]', ("road", "sky"), (voc_color(0), voc_color(1))),
        ('[{"name": "road", "color": [1, 2, 3]}, {"name": "sky"}]', ("road", "sky"), ((1, 2, 3), voc_color(1))),
    ],
    ids=["text", "from Windows", "list", "objects"],
)
def test_every_form(
    tmp_path: Path, text: str, names: tuple[str, ...], colors: tuple[tuple[int, int, int], ...]
) -> None:
    path = tmp_path / "names"
    path.write_text(text, encoding="utf-8", newline="")
    table = read_names(str(path), 2)
    assert (table.names, table.colors) == (names, colors)


def test_built_in_tables_keep_their_void() -> None:
    assert read_names("cityscapes", 19) is CITYSCAPES
    assert read_names("camvid", 12).void == CAMVID.void


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("road\nsky\ncar\n", "names 3 classes, the network has 2"),
        ("road\nroad\n", "'road' occurs twice"),
        ("", "0 names, expected 1 to 255"),
        ("\n".join(map(str, range(256))), "256 names"),
        ("[1, 2]", "class 0 has the name 1"),
        ('[{"color": [1, 2, 3]}]', "'name'"),
        ('[{"name": "road", "color": [1, 2]}]', "not enough values"),
        ('[{"name": "road", "color": [1, 2, 256]}]', "expected three whole numbers 0..255"),
        ('[{"name": "road", "color": [1, 2, true]}]', "expected three whole numbers 0..255"),
        ('["road"', "Expecting ',' delimiter"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "names.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match="names") as error:
        read_names(str(path), 2)
    assert message in error.value.message


def test_neither_file_nor_table() -> None:
    with pytest.raises(UsageError, match="neither a readable text file") as error:
        read_names("cityscape", 19)
    assert "Built in: cityscapes, voc, camvid" in error.value.hint


@pytest.mark.parametrize(
    ("metadata", "names", "first"),
    [
        ({"meta": {"CLASSES": ["road", "sky"], "PALETTE": [[1, 2, 3], [4, 5, 6]]}}, ("road", "sky"), (1, 2, 3)),
        ({"meta": {"CLASSES": ["road", "sky"]}}, ("road", "sky"), voc_color(0)),
        ({"meta": {"dataset_meta": {"classes": ["a", "b"], "palette": [[7, 8, 9], [1, 1, 1]]}}}, ("a", "b"), (7, 8, 9)),
    ],
)
def test_names_noted_in_a_checkpoint(metadata: dict[str, object], names: tuple[str, ...], first: object) -> None:
    table = names_inside(metadata, 2)
    assert table is not None
    assert (table.names, table.colors[0]) == (names, first)


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"meta": "x"},
        {"meta": {"CLASSES": ["road"]}},
        {"meta": {"CLASSES": ["road", "road"]}},
        {"meta": {"CLASSES": ["road", None]}},
        {"meta": {"CLASSES": ["road", "sky"], "PALETTE": [[1, 2], [3, 4]]}},
    ],
)
def test_notes_that_do_not_fit_are_passed_over(metadata: dict[str, object]) -> None:
    assert names_inside(metadata, 2) is None
