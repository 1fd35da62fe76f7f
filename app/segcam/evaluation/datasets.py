"""Data sets: pictures with the class of each pixel, one by one and by number, behind one interface."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from segcam.classes import CAMVID, ClassTable
from segcam.config import nearest
from segcam.errors import SourceError, UsageError
from segcam.evaluation.folders import Pair, camvid_pairs, cityscapes_mapping, cityscapes_pairs, folder_pairs
from segcam.evaluation.labels import read_labels
from segcam.evaluation.mapping import LabelMapping, index_mapping, read_mapping
from segcam.frame import Frame
from segcam.sources.base import Warn
from segcam.sources.stills import read_still


@dataclass(frozen=True, eq=False)
class Sample:
    """A picture and its labels: (H, W) uint8, indices into the data set's classes, 255 ignored; None: has no labels."""

    name: str
    frame: Frame
    labels: NDArray[np.uint8] | None


@runtime_checkable
class Dataset(Protocol):
    """Pictures with labels, by number 0..len - 1. ``read`` is called by several threads at once and raises SourceError.

    ``classes`` is what the labels are indices into, without void classes; None: the network's own. ``renamed`` gives
    the network's class names that have another name here. Labels may be of another size than the picture, in the same
    proportions.
    """

    @property
    def description(self) -> str: ...

    @property
    def classes(self) -> ClassTable | None: ...

    @property
    def renamed(self) -> Mapping[str, str]: ...

    def __len__(self) -> int: ...

    def read(self, index: int) -> Sample: ...


class PairDataset:
    """Files: a picture and a label picture each. ``warn`` hears of damaged pictures, which are used."""

    def __init__(self, description: str, pairs: Sequence[Pair], mapping: LabelMapping, warn: Warn) -> None:
        self._description, self._pairs, self._mapping, self._warn = description, pairs, mapping, warn

    @property
    def description(self) -> str:
        return self._description

    @property
    def classes(self) -> ClassTable | None:
        return self._mapping.classes

    @property
    def renamed(self) -> Mapping[str, str]:
        return self._mapping.renamed

    def __len__(self) -> int:
        return len(self._pairs)

    def read(self, index: int) -> Sample:
        pair = self._pairs[index]
        begun = time.perf_counter()
        labels = read_labels(pair.labels, self._mapping)
        picture, complaint = read_still(pair.picture)
        if complaint:
            self._warn(
                f"{pair.picture}: the picture is damaged ({complaint}); it is used as far as it could be decoded"
            )
        height, width = picture.shape[:2]
        if not same_proportions((height, width), labels.shape[:2]):
            raise SourceError(
                f"{pair.picture} is {width}x{height}, but its labels {pair.labels} are "
                f"{labels.shape[1]}x{labels.shape[0]}",
                "Picture and labels must show the same part of the scene: see whether one of them was cropped.",
            )
        ready = time.perf_counter()
        frame = Frame(
            index, index, Fraction(1, 25), ready, self._description, width, height, "bgr24", (picture,),
            full_range=True, name=pair.name, decode_ms=(ready - begun) * 1e3,
        )  # fmt: skip
        return Sample(pair.name, frame, labels)


def same_proportions(first: tuple[int, int], second: tuple[int, int]) -> bool:
    """Whether two sizes (height, width) are those of one picture: some scale gives both sides of the smaller one when
    they are rounded."""
    small, large = sorted((first, second), key=lambda hw: hw[0] * hw[1])
    (low_y, high_y), (low_x, high_x) = (
        ((less - 0.5) / more, (less + 0.5) / more) for less, more in zip(small, large, strict=True)
    )
    return max(low_y, low_x) <= min(high_y, high_x)


@dataclass(frozen=True)
class Kind:
    """One kind of data set: ``make(what stands after the colon, mapping file or None, warn)``, how it is written, one
    line on it, and whether nothing need stand after the colon."""

    make: Callable[[str, Path | None, Warn], Dataset]
    grammar: str
    about: str
    bare: bool = False


def make_dataset(text: str, mapping: str = "", warn: Warn = lambda line: None) -> Dataset:
    """The data set that ``text`` names, its files listed and none of them read; ``mapping`` names a mapping file.

    Raises UsageError for what cannot be meant, SourceError where pictures or labels are missing.
    """
    name, colon, rest = text.partition(":")
    if not colon or name not in KINDS:
        known = "; ".join(kind.grammar for kind in KINDS.values())
        if Path(text).exists():
            raise UsageError(f"--dataset {text!r} doesn't say what kind of data set it is", f"Write one of: {known}")
        raise UsageError(f"there is no data set {text!r}", f"{nearest(name, KINDS)} Written: {known}")
    if not rest and not KINDS[name].bare:
        raise UsageError(f"--dataset {text!r} names no folder", f"Write: {KINDS[name].grammar}")
    return KINDS[name].make(rest, Path(mapping) if mapping else None, warn)


def _camvid(rest: str, mapping: Path | None, warn: Warn) -> Dataset:
    folder, split = _split(rest, "test")
    return _made("CamVid", split, camvid_pairs(folder, split, warn), index_mapping(CAMVID), mapping, warn)


def _cityscapes(rest: str, mapping: Path | None, warn: Warn) -> Dataset:
    folder, split = _split(rest, "val")
    pairs, numbers = cityscapes_pairs(folder, split, warn)
    return _made("Cityscapes", split, pairs, cityscapes_mapping(numbers), mapping, warn)


def _folder(rest: str, mapping: Path | None, warn: Warn) -> Dataset:
    parts = [part.strip() for part in rest.split(",")]
    if len(parts) not in (2, 3) or not all(parts):
        raise UsageError(
            f"folder:{rest} has {len(parts)} parts, expected 2 or 3 between commas", f"Write: {KINDS['folder'].grammar}"
        )
    if len(parts) == 3 and mapping is not None:
        raise UsageError(f"two mapping files are given: {parts[2]} and {mapping}", "Leave one of them out.")
    file = Path(parts[2]) if len(parts) == 3 else mapping
    found = index_mapping(None) if file is None else read_mapping(file)
    images, labels = Path(parts[0]).expanduser(), Path(parts[1]).expanduser()
    pairs = folder_pairs(images, labels, warn)
    return PairDataset(f"{images} with {labels} ({len(pairs)} images)", pairs, found, warn)


def _street(rest: str, mapping: Path | None, warn: Warn) -> Dataset:
    if mapping is not None:
        raise UsageError(f"a made-up street has its classes, and --mapping {mapping} is given", "Leave --mapping out.")
    # Drawing takes Numba's compiled kernels, which pictures in files do without.
    from segcam.evaluation.street import StreetDataset

    return StreetDataset(rest)


def _made(
    name: str, split: str, pairs: Sequence[Pair], own: LabelMapping, mapping: Path | None, warn: Warn
) -> PairDataset:
    found = own if mapping is None else read_mapping(mapping, own)
    return PairDataset(f"{name} {split} ({len(pairs)} images)", pairs, found, warn)


def _split(rest: str, default: str) -> tuple[Path, str]:
    """Folder and split of ``PATH[:SPLIT]``."""
    whole = Path(rest).expanduser()
    before, colon, split = rest.rpartition(":")
    if whole.is_dir() or not colon or not split or "/" in split or "\\" in split:
        return whole, default
    return Path(before).expanduser(), split


#: The kinds of data sets by what stands before the colon.
KINDS: dict[str, Kind] = {
    "camvid": Kind(_camvid, "camvid:PATH[:SPLIT]", "SPLIT/ and SPLITannot/ of the SegNet tutorial, 11 classes (test)"),
    "cityscapes": Kind(
        _cityscapes, "cityscapes:PATH[:SPLIT]", "leftImg8bit/SPLIT/ and gtFine/SPLIT/, 19 classes (val)"
    ),
    "folder": Kind(
        _folder, "folder:IMAGES,LABELS[,MAPPING]", "any two folders whose files have the same names but for their ends"
    ),
    "street": Kind(_street, "street:seed=9,frames=12", "a made-up street with exact labels, see --source", bare=True),
}
