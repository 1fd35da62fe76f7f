"""One picture, a folder of them, a glob, or a numbered sequence."""

from __future__ import annotations

import glob
import math
import re
import threading
import time
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from segcam.errors import SourceError
from segcam.frame import Frame
from segcam.sources.base import SourceInfo, SourceOptions, Warn
from segcam.sources.diagnose import missing_file, quoted
from segcam.sources.select import announced_frames, check_options, given_rate, refuse_seeking
from segcam.sources.stills import IMAGE_SUFFIXES, read_still

#: The clock that stills are numbered by, and the rate of a numbered sequence.
STILLS_HZ = Fraction(25)

_NUMBER = re.compile(r"%(0?)(\d*)d")


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Sorts ``frame2`` before ``frame10``."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name.lower())]


def folder_images(folder: Path) -> list[Path]:
    """Image files of a folder (not of folders inside), in natural order. Raises SourceError when there is none."""
    files = [entry for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith(".")]
    images = _images(files)
    if not images:
        found = f"{len(files)} other files" if files else "nothing"
        raise SourceError(
            f"{folder}: no images in this folder (found {found})", f"See what is there with: ls {quoted(folder)}"
        )
    return images


def glob_images(pattern: str) -> list[Path]:
    """Image files that match ``pattern`` in natural order. Raises SourceError when there is none."""
    files = [path for path in map(Path, glob.glob(pattern, recursive=True)) if path.is_file()]
    images = _images(files)
    if not images:
        what = f"{len(files)} files match, none is an image" if files else "nothing matches"
        raise SourceError(f"{pattern}: {what}", f"See what is there with: ls {quoted(Path(pattern).parent)}")
    return images


def is_numbered(spec: str) -> bool:
    """Whether the file name holds one ``%d`` or ``%05d``."""
    return len(_NUMBER.findall(Path(spec).name)) == 1


def numbered_images(spec: str, warn: Warn) -> list[Path]:
    """Files of a pattern like ``frame_%05d.png`` from the lowest number on; gaps are stepped over with one warning.

    Raises SourceError when no file fits.
    """
    pattern = Path(spec)
    match = _NUMBER.search(pattern.name)
    assert match is not None
    before, after = pattern.name[: match.start()], pattern.name[match.end() :]
    width = int(match.group(2) or 0)
    found: dict[int, Path] = {}
    for entry in pattern.parent.iterdir() if pattern.parent.is_dir() else ():
        digits = entry.name[len(before) : len(entry.name) - len(after)]
        if entry.name != before + digits + after or not re.fullmatch(r"[0-9]+", digits):
            continue
        if digits == (f"{int(digits):0{width}d}" if match.group(1) else f"{int(digits):{width}d}".strip()):
            found[int(digits)] = entry
    if not found:
        raise SourceError(
            f"{spec}: no file has a name of that form", f"See what is there with: ls {quoted(pattern.parent)}"
        )
    numbers = sorted(found)
    missing = numbers[-1] - numbers[0] + 1 - len(numbers)
    if missing:
        gap = next(a + 1 for a, b in pairwise(numbers) if b != a + 1)
        warn(f"{spec}: {missing} numbers between {numbers[0]} and {numbers[-1]} have no file, the first is {gap}")
    return [found[number] for number in numbers]


def single_image(path: Path) -> list[Path]:
    """The one file. Raises SourceError when it is not there."""
    if not path.exists():
        raise missing_file(path)
    return [path]


class ImageSource:
    """Pictures as bgr24 frames, one after another; ``Frame.name`` is the file's name.

    Files that cannot be decoded are left out with a warning each; when none is left, or when the only file is bad,
    that is a SourceError. Damaged JPEGs are used with a warning (see ``stills.read_still``). Frame times count 1/25 s
    by place, bad files included. Unless ``sequence``, frames are unrelated stills: no rate, and --start is refused.
    """

    def __init__(
        self, name: str, paths: list[Path], options: SourceOptions, warn: Warn, *, sequence: bool = False
    ) -> None:
        check_options(options)
        if not sequence:
            refuse_seeking(options, name)
        self._name = name
        self._paths = paths
        self._options = options
        self._warn = warn
        self._sequence = sequence
        # As for videos, half a tick early still counts.
        self._first = math.ceil(Fraction(options.start_s) * STILLS_HZ - Fraction(1, 2)) if options.start_s else 0
        self._stop = threading.Event()
        self._bad: set[Path] = set()
        self._warned: set[Path] = set()
        self._place = 0
        self._given = 0
        self._primed: Frame | None = None
        self._is_open = False

    def open(self) -> SourceInfo:
        if self._first >= len(self._paths):
            lasts_s = float(len(self._paths) / STILLS_HZ)
            raise SourceError(
                f"{self._name}: --start {self._options.start_s:g} s is behind the end ({lasts_s:.2f} s at 25 Hz)",
                f"Give --start between 0 and {lasts_s:.2f}.",
            )
        self._is_open = True
        self._primed = self._next()
        if self._primed is None:
            self.close()
            raise SourceError(f"{self._name}: stopped before its first picture")
        frames = announced_frames(len(self._paths) - self._first, self._options)
        many = "1 image" if len(self._paths) == 1 else f"{len(self._paths)} images"
        return SourceInfo(
            description=f"{self._name} ({many})",
            width=self._primed.width,
            height=self._primed.height,
            rate_hz=given_rate(STILLS_HZ, self._options) if self._sequence else None,
            frames=frames,
            live=False,
            still=not self._sequence,
        )

    def read(self) -> Frame | None:
        if self._stop.is_set() or not self._is_open:
            return None
        if self._primed is not None:
            frame, self._primed = self._primed, None
            return frame
        return self._next()

    def interrupt(self) -> None:
        self._stop.set()

    def close(self) -> None:
        self._is_open = False
        self._primed = None

    def _next(self) -> Frame | None:
        options = self._options
        in_round = len(self._paths) - self._first
        asked_s = time.perf_counter()
        while not self._stop.is_set():
            if options.frames and self._given >= options.frames:
                return None
            played, place = divmod(self._place, -(-in_round // options.every))
            if options.loops and played >= options.loops:
                return None
            self._place += 1
            number = self._first + place * options.every
            frame = self._load(self._paths[number], number + played * in_round, asked_s)
            if frame is not None:
                return frame
        return None

    def _load(self, path: Path, pts: int, asked_s: float) -> Frame | None:
        if path in self._bad:
            return None
        try:
            image, complaint = read_still(path)
        except SourceError as error:
            if len(self._paths) == 1:
                raise
            self._bad.add(path)
            wanted = set(self._paths[self._first :: self._options.every])
            if self._bad >= wanted:
                raise SourceError(
                    f"{self._name}: none of its {len(wanted)} images can be decoded; the last one: {error.message}",
                    "Look at one of them in an image viewer.",
                ) from None
            self._warn(f"{error.message}; left out")
            return None
        if complaint and path not in self._warned:
            self._warned.add(path)
            self._warn(f"{path}: the picture is damaged ({complaint}); it is used as far as it could be decoded")
        ready_s = time.perf_counter()
        frame = Frame(
            index=self._given,
            pts=pts,
            time_base=1 / STILLS_HZ,
            captured_at_s=ready_s,
            source_id=self._name,
            width=image.shape[1],
            height=image.shape[0],
            format="bgr24",
            planes=(image,),
            full_range=True,
            name=path.name,
            decode_ms=(ready_s - asked_s) * 1000,
        )
        self._given += 1
        return frame


def _images(files: list[Path]) -> list[Path]:
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    return sorted(images, key=lambda path: natural_key(str(path)))
