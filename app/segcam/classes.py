"""The only table of classes and colours. Legends, overlays, scores and files all read it.

Sources: Cityscapes ``cityscapesscripts/helpers/labels.py`` (train ids 0..18); PASCAL VOC 2012 development
kit (``VOClabelcolormap``); CamVid as reduced to 11 classes and "unlabelled" by the SegNet tutorial.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segcam.errors import UsageError

RGB = tuple[int, int, int]

#: A class map is uint8 and 255 marks "no class", so this many classes fit.
MAX_CLASSES = 255

_CITYSCAPES: tuple[tuple[str, RGB], ...] = (
    ("road", (128, 64, 128)),
    ("sidewalk", (244, 35, 232)),
    ("building", (70, 70, 70)),
    ("wall", (102, 102, 156)),
    ("fence", (190, 153, 153)),
    ("pole", (153, 153, 153)),
    ("traffic light", (250, 170, 30)),
    ("traffic sign", (220, 220, 0)),
    ("vegetation", (107, 142, 35)),
    ("terrain", (152, 251, 152)),
    ("sky", (70, 130, 180)),
    ("person", (220, 20, 60)),
    ("rider", (255, 0, 0)),
    ("car", (0, 0, 142)),
    ("truck", (0, 0, 70)),
    ("bus", (0, 60, 100)),
    ("train", (0, 80, 100)),
    ("motorcycle", (0, 0, 230)),
    ("bicycle", (119, 11, 32)),
)

#: The number that Cityscapes' own label pictures (``*_labelIds.png``) have for each class, by train id. The others of
#: their numbers 0..33 are ignored in scores.
CITYSCAPES_LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

# A list of 21 strings would take 21 lines.
_VOC_NAMES = (  # noqa: SIM905
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor"
).split()

_CAMVID: tuple[tuple[str, RGB], ...] = (
    ("sky", (128, 128, 128)),
    ("building", (128, 0, 0)),
    ("pole", (192, 192, 128)),
    ("road", (128, 64, 128)),
    ("pavement", (60, 40, 222)),
    ("tree", (128, 128, 0)),
    ("sign_symbol", (192, 128, 128)),
    ("fence", (64, 64, 128)),
    ("car", (64, 0, 128)),
    ("pedestrian", (64, 64, 0)),
    ("bicyclist", (0, 128, 192)),
    ("unlabelled", (0, 0, 0)),
)


def voc_color(index: int) -> RGB:
    """Colour of class ``index`` (0..255) in PASCAL VOC's bit-interleaved map; all 256 differ."""
    red = green = blue = 0
    for bit in range(8):
        red |= ((index >> (3 * bit)) & 1) << (7 - bit)
        green |= ((index >> (3 * bit + 1)) & 1) << (7 - bit)
        blue |= ((index >> (3 * bit + 2)) & 1) << (7 - bit)
    return red, green, blue


@dataclass(frozen=True)
class ClassTable:
    """Names and RGB colours (0..255) by class index, and the indices that mean "no class"."""

    names: tuple[str, ...]
    colors: tuple[RGB, ...]
    void: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if len(self.names) != len(self.colors):
            raise UsageError(f"{len(self.names)} class names but {len(self.colors)} colours")

    def __len__(self) -> int:
        return len(self.names)

    def colors_rgb(self) -> NDArray[np.uint8]:
        """(classes, 3) uint8, red first."""
        return np.array(self.colors, np.uint8).reshape(-1, 3)

    def index(self, name_or_index: str) -> int:
        """Index of a class given by name (case, space, - and _ don't matter) or by number.

        Raises UsageError with the nearest name.
        """
        folded = [_fold(name) for name in self.names]
        wanted = _fold(name_or_index)
        if wanted in folded:
            return folded.index(wanted)
        if wanted.isdecimal() and int(wanted) < len(self):
            return int(wanted)
        near = get_close_matches(wanted, folded, 1, 0.4)
        meant = f"Did you mean {self.names[folded.index(near[0])]!r}? " if near else ""
        raise UsageError(
            f"no class is called {name_or_index.strip()!r}", f"{meant}The classes are: {', '.join(self.names)}"
        )

    def visible(self, selection: str) -> NDArray[np.bool_]:
        """(classes,) bool: which classes are painted for a ``--classes`` selection.

        ``""`` is all but void, ``"road,car"`` only these, ``"-sky,-building"`` all but these and void.
        """
        parts = [part.strip() for part in selection.split(",") if part.strip()]
        hidden = [part for part in parts if part[0] in "-!"]
        if hidden and len(hidden) != len(parts):
            raise UsageError(
                f"--classes {selection!r} mixes classes to show and classes to hide",
                "Name only classes to show (road,car) or only classes to hide (-sky,-building).",
            )
        mask = np.full(len(self), not parts or bool(hidden))
        for part in parts:
            mask[self.index(part.lstrip("-!"))] = not hidden
        if not parts or hidden:
            mask[[index for index in self.void if index < len(self)]] = False
        return mask

    def with_palette(self, palette: str) -> ClassTable:
        """The same classes in the colours of a built-in table or of a palette file (see ``load_palette``).

        ``auto`` or ``""`` keeps the colours. Raises UsageError when there are fewer colours than classes.
        """
        if palette in ("", "auto"):
            return self
        colors = load_palette(palette, len(self))
        if len(colors) < len(self):
            raise UsageError(
                f"palette {palette!r} has {len(colors)} colours, the network has {len(self)} classes",
                "Give a file with one colour for each class, or --palette voc, which has 256.",
            )
        return replace(self, colors=tuple(colors[: len(self)]))


def _fold(name: str) -> str:
    return " ".join(name.strip().lower().replace("_", " ").replace("-", " ").split())


CITYSCAPES = ClassTable(tuple(n for n, _ in _CITYSCAPES), tuple(c for _, c in _CITYSCAPES))
VOC = ClassTable(tuple(_VOC_NAMES), tuple(voc_color(i) for i in range(len(_VOC_NAMES))))
CAMVID = ClassTable(tuple(n for n, _ in _CAMVID), tuple(c for _, c in _CAMVID), frozenset({11}))
TABLES: dict[str, ClassTable] = {"cityscapes": CITYSCAPES, "voc": VOC, "camvid": CAMVID}


def generic_table(count: int) -> ClassTable:
    """``count`` classes nobody has named: "class 0", "class 1", ... in VOC's colours."""
    return ClassTable(tuple(f"class {i}" for i in range(count)), tuple(voc_color(i) for i in range(count)))


def load_palette(palette: str, count: int) -> list[RGB]:
    """Colours of ``cityscapes``, ``voc``, ``camvid``, or of a file.

    A file is JSON (a list of [r, g, b], or of {"color": [r, g, b]}), or text with one ``r g b`` or ``#rrggbb`` a
    line (commas allowed, a name may follow, ``//`` and ``;`` start comments). Built-in tables are continued in VOC's
    colours when ``count`` asks for more. Raises UsageError.
    """
    if palette in TABLES:
        colors = list(TABLES[palette].colors)
        spare = (voc_color(i) for i in range(256))
        while len(colors) < count:
            candidate = next(spare)
            if candidate not in colors or len(colors) >= 256:
                colors.append(candidate)
        return colors
    path = Path(palette)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        near = get_close_matches(palette, TABLES, 1)
        raise UsageError(
            f"palette {palette!r} is neither a built-in table nor a readable text file ({error})",
            f"Did you mean {near[0]!r}?" if near else f"Built in: {', '.join(TABLES)}.",
        ) from None
    try:
        rows = json.loads(text) if text.lstrip().startswith(("[", "{")) else _text_rows(text)
        return [_rgb(row["color"] if isinstance(row, dict) else row) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"palette file {palette}: {error}", "Write one colour a line: 'red green blue' (0..255) or '#rrggbb'."
        ) from None


def _text_rows(text: str) -> list[Sequence[int]]:
    rows: list[Sequence[int]] = []
    for line in text.splitlines():
        words = line.split("//")[0].split(";")[0].replace(",", " ").split()
        if not words:
            continue
        if words[0].startswith("#"):
            digits = words[0][1:]
            if len(digits) != 6:
                raise ValueError(f"not a colour: {line.strip()!r}")
            rows.append([int(digits[i : i + 2], 16) for i in (0, 2, 4)])
        else:
            rows.append([int(word) for word in words[:3]])
    return rows


def _rgb(row: Sequence[int]) -> RGB:
    if len(row) != 3 or not all(isinstance(v, int) and 0 <= v <= 255 for v in row):
        raise ValueError(f"not a colour of three whole numbers 0..255: {row!r}")
    return int(row[0]), int(row[1]), int(row[2])
