"""Which picture belongs to which label picture, in the layouts that data sets come in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segcam.classes import CITYSCAPES, CITYSCAPES_LABEL_IDS
from segcam.errors import SourceError
from segcam.evaluation.mapping import IGNORED, UNKNOWN, LabelMapping, index_mapping
from segcam.sources.base import Warn
from segcam.sources.diagnose import quoted
from segcam.sources.images import folder_images, natural_key
from segcam.sources.stills import IMAGE_SUFFIXES

#: Cityscapes' own numbers of all their classes go up to this one.
_LAST_LABEL_ID = 33


@dataclass(frozen=True)
class Pair:
    name: str
    picture: Path
    labels: Path


def folder_pairs(images: Path, labels: Path, warn: Warn) -> list[Pair]:
    """Pictures and label pictures of the same name but for what follows the last dot, in natural order.

    Pictures without labels are left out with one warning. Raises SourceError for labels without a picture, for two
    files of the same name, and where there is nothing.
    """
    for folder in (images, labels):
        if not folder.is_dir():
            raise SourceError(
                f"{folder}: there is no such folder", f"See what is there with: ls {quoted(folder.parent)}"
            )
    pictures = _by_stem(folder_images(images))
    found = _by_stem(folder_images(labels))
    alone = [path for stem, path in found.items() if stem not in pictures]
    if alone:
        raise SourceError(
            f"{labels}: {len(alone)} of {len(found)} label pictures have no picture of the same name in {images}; "
            f"the first: {alone[0].name}",
            f"A label picture is called as its picture but for the ending, such as {next(iter(pictures))}.png",
        )
    _warn_unlabelled([path for stem, path in pictures.items() if stem not in found], len(pictures), warn)
    return [Pair(path.name, path, found[stem]) for stem, path in pictures.items() if stem in found]


def camvid_pairs(folder: Path, split: str, warn: Warn) -> list[Pair]:
    """``SPLIT/`` and ``SPLITannot/``, as the SegNet tutorial has CamVid (480x360). Raises SourceError."""
    images, labels = folder / split, folder / f"{split}annot"
    if not (images.is_dir() and labels.is_dir()):
        found = [entry.name for entry in _folders(folder) if (folder / f"{entry.name}annot").is_dir()]
        raise SourceError(
            f"{folder}: expected the folders {split}/ and {split}annot/",
            f"There are the splits: {', '.join(found)}"
            if found
            else _layout("camvid:PATH with PATH/test, PATH/testannot"),
        )
    return folder_pairs(images, labels, warn)


def cityscapes_pairs(folder: Path, split: str, warn: Warn) -> tuple[list[Pair], bool]:
    """``leftImg8bit/SPLIT/CITY/*_leftImg8bit.png`` with the ``*_gtFine_labelIds.png`` of ``gtFine/SPLIT/CITY/``.

    Where none of these are there, ``*_gtFine_labelTrainIds.png`` are taken. True: the labels are ``labelIds``.
    Raises SourceError.
    """
    images, truth = folder / "leftImg8bit" / split, folder / "gtFine" / split
    for part in (images, truth):
        if not part.is_dir():
            splits = [entry.name for entry in _folders(part.parent)]
            raise SourceError(
                f"{part}: there is no such folder",
                f"There are the splits: {', '.join(splits)}"
                if splits
                else _layout("cityscapes:PATH with PATH/leftImg8bit/val/CITY and PATH/gtFine/val/CITY"),
            )
    pictures = {
        path.name.rpartition("_leftImg8bit")[0]: path
        for path in sorted(images.rglob("*_leftImg8bit.*"), key=lambda path: natural_key(str(path)))
        if path.suffix.lower() in IMAGE_SUFFIXES
    }
    for ending in ("labelIds", "labelTrainIds"):
        tail = f"_gtFine_{ending}.png"
        found = {path.name.removesuffix(tail): path for path in truth.rglob(f"*{tail}")}
        if found:
            break
    if not pictures or not found:
        raise SourceError(
            f"{folder}: found {len(pictures)} pictures *_leftImg8bit.png in {images} and {len(found)} labels "
            f"*_gtFine_labelIds.png in {truth}",
            "Unpack leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip into one folder.",
        )
    alone = sorted(stem for stem in found if stem not in pictures)
    if alone:
        raise SourceError(
            f"{found[alone[0]]}: {len(alone)} of {len(found)} labels have no picture in {images}; this is the first",
            f"Expected {images}/CITY/{alone[0]}_leftImg8bit.png",
        )
    _warn_unlabelled([path for stem, path in pictures.items() if stem not in found], len(pictures), warn)
    return [
        Pair(path.name, path, found[stem]) for stem, path in pictures.items() if stem in found
    ], ending == "labelIds"


def cityscapes_mapping(numbers: bool) -> LabelMapping:
    """Train ids of Cityscapes' own numbers (``numbers``), or of pictures that hold train ids already."""
    plain = index_mapping(CITYSCAPES)
    if not numbers:
        return plain
    ids = np.full(256, UNKNOWN, np.uint8)
    ids[: _LAST_LABEL_ID + 1] = IGNORED
    ids[IGNORED] = IGNORED
    ids[list(CITYSCAPES_LABEL_IDS)] = np.arange(len(CITYSCAPES))
    return LabelMapping(plain.classes, ids, plain.colors, origin="Cityscapes label ids")


def _by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        if path.stem in found:
            raise SourceError(
                f"{path.parent}: {found[path.stem].name} and {path.name} have the same name but for the ending",
                "Move one of them away: it isn't clear which one is meant.",
            )
        found[path.stem] = path
    return found


def _warn_unlabelled(paths: list[Path], total: int, warn: Warn) -> None:
    if paths:
        warn(f"{len(paths)} of {total} pictures have no labels and are left out; the first: {paths[0]}")


def _folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []


def _layout(words: str) -> str:
    return f"The layout is: {words}"
