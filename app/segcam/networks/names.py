"""The classes of a network of one's own: names, and colours where given, from a small file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segcam.classes import MAX_CLASSES, TABLES, ClassTable, voc_color
from segcam.errors import UsageError

_FORMS = 'Write one name a line, or JSON: ["road", ...] or [{"name": "road", "color": [128, 64, 128]}, ...].'


def read_names(source: str, count: int) -> ClassTable:
    """``count`` classes from the file ``source``, or the built-in table of that name.

    A file is text with one name a line (empty lines and lines that start with # don't count), or JSON: a list of
    names, or of objects with ``name`` and ``color`` [red, green, blue] 0..255, as in a model spec. Names without
    colours get PASCAL VOC's. Raises UsageError for another number of names, for one that occurs twice, and for a file
    that cannot be read.
    """
    table = TABLES[source] if source in TABLES and not Path(source).is_file() else _read(Path(source))
    if len(table) != count:
        raise UsageError(
            f"{source} names {len(table)} classes, the network has {count}",
            "Name every class once, in order.",
        )
    return table


def names_inside(metadata: Mapping[str, object], count: int) -> ClassTable | None:
    """``count`` classes as mmsegmentation notes them in its checkpoints (``meta``: ``CLASSES`` and ``PALETTE``; from
    1.0 on ``dataset_meta``: ``classes`` and ``palette``), or None where they are not there or don't fit.
    """
    meta = metadata.get("meta")
    for noted in (meta, meta.get("dataset_meta") if isinstance(meta, dict) else None):
        if not isinstance(noted, dict):
            continue
        given = {str(key).lower(): value for key, value in noted.items()}
        names, colors = given.get("classes"), given.get("palette")
        if not isinstance(names, list) or len(names) != count:
            continue
        rows = names
        if isinstance(colors, list) and len(colors) == count:
            rows = [{"name": name, "color": color} for name, color in zip(names, colors, strict=True)]
        try:
            return _table(rows)
        except (ValueError, KeyError, TypeError):
            continue
    return None


def _read(path: Path) -> ClassTable:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the class names {str(path)!r} are neither a readable text file ({error}) nor a built-in table",
            f"Built in: {', '.join(TABLES)}. {_FORMS}",
        ) from None
    try:
        rows = json.loads(text) if text.lstrip().startswith("[") else _lines(text)
        return _table(rows)
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"class names {path}: {error}", _FORMS) from None


def _table(rows: list[Any]) -> ClassTable:
    """Any: what JSON gave. Raises ValueError, KeyError or TypeError."""
    named = [_row(row, index) for index, row in enumerate(rows)]
    names = [name for name, _ in named]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not 1 <= len(names) <= MAX_CLASSES:
        raise ValueError(f"{twice[0]!r} occurs twice" if twice else f"{len(names)} names, expected 1 to {MAX_CLASSES}")
    return ClassTable(tuple(names), tuple(color for _, color in named))


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def _row(row: Any, index: int) -> tuple[str, tuple[int, int, int]]:
    """Any: what JSON gave."""
    name = row["name"] if isinstance(row, dict) else row
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"class {index} has the name {name!r}")
    if not isinstance(row, dict) or "color" not in row:
        return name.strip(), voc_color(index)
    red, green, blue = row["color"]
    if not all(type(value) is int and 0 <= value <= 255 for value in (red, green, blue)):
        raise ValueError(f"the colour of {name!r} is {row['color']!r}, expected three whole numbers 0..255")
    return name.strip(), (red, green, blue)
