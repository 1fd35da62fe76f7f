"""A made-up street as a data set: pictures whose class maps are exact."""

from __future__ import annotations

import time
from collections.abc import Mapping

from segcam.classes import CITYSCAPES, ClassTable
from segcam.errors import UsageError
from segcam.evaluation.datasets import Sample
from segcam.frame import Frame
from segcam.sources.settings import parse_whole
from segcam.sources.street import Drive, parse_drive, render

#: Drives are entered at so many different places, as those that networks are trained on are.
_ENTRIES = 16


class StreetDataset:
    """``seed=9,frames=12``, with ``weather``, ``size`` and ``rate`` as for ``--source street:``, and ``drives``: of how
    many drives the pictures are, by turns, their seeds counted on from ``seed``. The first picture of a drive is that
    after seed modulo 16 seconds, the next ones follow a second apart (with ``rate=1``).

    Unless said otherwise each of 12 pictures at 2048x1024 is of a drive of its own: many classes are rare in any one
    street, so that figures of one say little about another. ``drives=1`` is one street. Pictures are bgr24; nothing was
    lost in YUV. Raises UsageError.
    """

    classes: ClassTable | None = CITYSCAPES
    renamed: Mapping[str, str] = {}

    def __init__(self, text: str) -> None:
        self._spec = f"street:{text}"
        parts = [part for part in text.split(",") if part.strip()]
        counts = [part.partition("=")[2].strip() for part in parts if part.partition("=")[0].strip() == "drives"]
        rest = ",".join(part for part in parts if part.partition("=")[0].strip() != "drives")
        if len(counts) > 1:
            raise UsageError(f"data set {self._spec}: drives is given twice", "Write: street:drives=1")
        drive = parse_drive(rest, self._spec, rate="1", frames="12")
        if drive.format.live or not drive.format.frames:
            wrong = "is live" if drive.format.live else "doesn't end"
            raise UsageError(f"data set {self._spec} {wrong}, and figures come at the end", "Write: street:frames=12")
        self._drive: Drive = drive
        self._drives = parse_whole(counts[0], "drives", self._spec, 10**6) if counts else drive.format.frames
        if not self._drives:
            raise UsageError(f"data set {self._spec}: drives is 0", "Write: street:drives=1")

    @property
    def description(self) -> str:
        return f"{self._spec} (made-up street, {len(self)} images)"

    def __len__(self) -> int:
        return self._drive.format.frames

    def read(self, index: int) -> Sample:
        drive, form = self._drive, self._drive.format
        turn, further = divmod(index, self._drives)
        seed = drive.seed + further
        number = seed % _ENTRIES + turn
        begun = time.perf_counter()
        rgb, labels = render(seed, number, (form.height, form.width), weather=drive.weather, rate=form.rate)
        ready = time.perf_counter()
        name = f"street_{seed}_{number:05d}"
        frame = Frame(
            index, index, 1 / form.rate, ready, self._spec, form.width, form.height, "bgr24", (rgb[..., ::-1].copy(),),
            full_range=True, name=name, decode_ms=(ready - begun) * 1e3,
        )  # fmt: skip
        return Sample(name, frame, labels)
