"""What the numbers or colours of label pictures mean: a built-in meaning, or a mapping file.

A mapping file is TOML or JSON, one entry for each number or colour of the label pictures::

    classes = "cityscapes"      # a built-in table or a list of names; without it, the names below in their order
    7 = "road"                  # a number: a class's name, its index in `classes`, or "ignore"
    "#f423e8" = "sidewalk"      # a colour, also "244,35,232"
    other = "ignore"            # numbers and colours that are not named; without it they are an error

    [network]                   # the network's names that are other than those of the labels
    terrain = "vegetation"

The number 255 is ignored unless it is named. With ``classes`` and no numbers, label pictures hold indices into them,
or the colours of a built-in table.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcam.classes import RGB, TABLES, ClassTable, voc_color
from segcam.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: In a class map: no class, left out of all scores.
IGNORED = 255
#: In a mapping's table: a number that nobody has explained.
UNKNOWN = 254

_COLOR = re.compile(r"#([0-9a-fA-F]{6})|(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})", re.ASCII)
_WORDS = ("classes", "other", "network")


@dataclass(frozen=True, eq=False)
class LabelMapping:
    """From a label picture's numbers or colours to indices into ``classes`` (None: the network's own classes).

    ``ids`` is (256,) uint8: for each number a class index, IGNORED or UNKNOWN. ``colors`` has the same for RGB colours,
    and ``other_color`` for those not named. ``renamed`` gives the network's class names that have another name here.
    """

    classes: ClassTable | None
    ids: NDArray[np.uint8]
    colors: Mapping[RGB, int] = field(default_factory=dict)
    other_color: int = UNKNOWN
    renamed: Mapping[str, str] = field(default_factory=dict)
    origin: str = "built in"


def index_mapping(classes: ClassTable | None) -> LabelMapping:
    """Label pictures that hold class indices, or the classes' colours; void classes and 255 are ignored."""
    ids = np.full(256, UNKNOWN, np.uint8)
    ids[IGNORED] = IGNORED
    if classes is None:
        ids[:UNKNOWN] = np.arange(UNKNOWN)
        return LabelMapping(None, ids, origin="class indices")
    kept = without_void(classes)
    for index, name in enumerate(classes.names):
        ids[index] = IGNORED if index in classes.void else kept.names.index(name)
    colors = {color: int(ids[index]) for index, color in reversed(list(enumerate(classes.colors)))}
    return LabelMapping(kept, ids, colors)


def without_void(classes: ClassTable) -> ClassTable:
    """The classes of a table that mean something, in their order."""
    kept = [index for index in range(len(classes)) if index not in classes.void]
    return ClassTable(tuple(classes.names[i] for i in kept), tuple(classes.colors[i] for i in kept))


def read_mapping(path: Path, base: LabelMapping | None = None) -> LabelMapping:
    """The mapping in a file (see the module). ``base`` is what the data set says of itself: the file's entries go
    before it. Raises UsageError that names the file and the entry."""
    document = _document(path)
    network = document.pop("network", {})
    if not isinstance(network, dict) or not all(isinstance(name, str) for name in network.values()):
        raise UsageError(f"{path}: network: expected the network's names = names of the labels' classes", _HINT)
    other = document.pop("other", None)
    classes, base = _classes(path, document.pop("classes", None), base, document)
    if network and classes is None:
        raise UsageError(f"{path}: [network] renames classes, but the labels' classes have no names", _HINT)
    ids = np.full(256, UNKNOWN, np.uint8) if base is None else base.ids.copy()
    ids[IGNORED] = IGNORED
    colors: dict[RGB, int] = {} if base is None else dict(base.colors)
    other_color = UNKNOWN if base is None else base.other_color
    if other is not None:
        other_color = _value(path, "other", other, classes)
        ids[ids == UNKNOWN] = other_color
    if any(_color(key) for key in document) and base is not None:
        # Colours given by hand replace those of a table: half of each would be nobody's palette.
        colors = {}
    for key, value in document.items():
        color = _color(key)
        if color is not None:
            colors[color] = _value(path, key, value, classes)
        elif key.isascii() and key.isdecimal() and int(key) <= 255:
            ids[int(key)] = _value(path, key, value, classes)
        else:
            raise UsageError(f"{path}: {key!r} is neither a number 0..255, nor a colour, nor a known word", _HINT)
    return LabelMapping(classes, ids, colors, other_color, network, str(path))


_HINT = 'Entries are such as: 7 = "road"  "#804080" = "road"  0 = "ignore"  classes = "cityscapes"  other = "ignore"'


def _document(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the mapping {path} cannot be read: {error}", "Check the name after --mapping.") from None
    try:
        document = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except ValueError as error:  # of JSON and of TOML
        raise UsageError(
            f"{path}: not valid {'JSON' if path.suffix.lower() == '.json' else 'TOML'}: {error}", _HINT
        ) from None
    if not isinstance(document, dict):
        raise UsageError(f"{path}: expected numbers or colours with the class of each", _HINT)
    return document


def _classes(
    path: Path, asked: Any, base: LabelMapping | None, entries: Mapping[str, Any]
) -> tuple[ClassTable | None, LabelMapping | None]:
    """The table that the values mean, and the mapping that the entries are laid over."""
    if isinstance(asked, str) and asked not in TABLES:
        raise UsageError(f"{path}: there is no class table {asked!r}", f"Built in: {', '.join(TABLES)}.")
    listed = isinstance(asked, list) and bool(asked) and all(isinstance(name, str) for name in asked)
    if isinstance(asked, str) or listed:
        kept = index_mapping(TABLES[asked] if isinstance(asked, str) else _table(path, asked))
        if base is not None and kept.classes == base.classes:
            return base.classes, base
        # Colours of a built-in table are known to the world; those of a list are not. Numbers replace its indices.
        numbered = any(_color(key) is None for key in entries)
        ids = np.full(256, UNKNOWN, np.uint8) if numbered else kept.ids
        return kept.classes, replace(kept, ids=ids, colors=kept.colors if isinstance(asked, str) else {})
    if asked is not None:
        raise UsageError(f"{path}: classes is {asked!r}, expected a built-in table or a list of names", _HINT)
    if base is not None and base.classes is not None:
        return base.classes, base
    named = [value for value in entries.values() if isinstance(value, str) and value != "ignore"]
    if not named:
        return None, base
    if any(isinstance(value, int) for value in entries.values()):
        raise UsageError(
            f"{path}: some classes are given by name, others by index",
            'Say what the indices count: classes = "cityscapes", or a list of names.',
        )
    return _table(path, list(dict.fromkeys(named))), base


def _table(path: Path, names: list[str]) -> ClassTable:
    if len(names) > UNKNOWN - 1 or len(set(names)) < len(names):
        raise UsageError(f"{path}: {len(names)} classes, expected at most {UNKNOWN - 1}, no name twice", _HINT)
    known = {name: color for table in TABLES.values() for name, color in zip(table.names, table.colors, strict=True)}
    return ClassTable(tuple(names), tuple(known.get(name, voc_color(i + 1)) for i, name in enumerate(names)))


def _color(key: str) -> RGB | None:
    match = _COLOR.fullmatch(key.strip())
    if match is None:
        return None
    if match[1]:
        return int(match[1][:2], 16), int(match[1][2:4], 16), int(match[1][4:], 16)
    color = int(match[2]), int(match[3]), int(match[4])
    return color if max(color) <= 255 else None


def _value(path: Path, key: str, value: Any, classes: ClassTable | None) -> int:
    if value == "ignore":
        return IGNORED
    count = UNKNOWN if classes is None else len(classes)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < count:
        return value
    if isinstance(value, str) and classes is not None:
        try:
            return classes.index(value)
        except UsageError as error:
            raise UsageError(f"{path}: {key}: {error.message}", error.hint) from None
    raise UsageError(f'{path}: {key} is {value!r}, expected a class name, an index 0..{count - 1}, or "ignore"', _HINT)
