"""A made-up street as a data set: pictures whose class maps are exact."""

from __future__ import annotations

import time
from collections.abc import Mapping

from segcam.classes import CITYSCAPES, ClassTable
from segcam.errors import UsageError
from segcam.evaluation.datasets import Sample
from segcam.frame import Frame
from segcam.sources.street import Drive, parse_drive, render


class StreetDataset:
    """``seed=9,frames=12``, with ``weather``, ``size`` and ``rate`` as for ``--source street:``.

    Unless said otherwise 12 pictures of 2048x1024, a second apart: neighbouring frames of a video would say the same
    twice. Pictures are bgr24; nothing was lost in YUV. Raises UsageError.
    """

    classes: ClassTable | None = CITYSCAPES
    renamed: Mapping[str, str] = {}

    def __init__(self, text: str) -> None:
        self._spec = f"street:{text}"
        drive = parse_drive(text, self._spec, rate="1", frames="12")
        if drive.format.live or not drive.format.frames:
            wrong = "is live" if drive.format.live else "doesn't end"
            raise UsageError(f"data set {self._spec} {wrong}, and figures come at the end", "Write: street:frames=12")
        self._drive: Drive = drive

    @property
    def description(self) -> str:
        return f"{self._spec} (made-up street, {len(self)} images)"

    def __len__(self) -> int:
        return self._drive.format.frames

    def read(self, index: int) -> Sample:
        drive, form = self._drive, self._drive.format
        begun = time.perf_counter()
        rgb, labels = render(drive.seed, index, (form.height, form.width), weather=drive.weather, rate=form.rate)
        ready = time.perf_counter()
        name = f"street_{drive.seed}_{index:05d}"
        frame = Frame(
            index, index, 1 / form.rate, ready, self._spec, form.width, form.height, "bgr24", (rgb[..., ::-1].copy(),),
            full_range=True, name=name, decode_ms=(ready - begun) * 1e3,
        )  # fmt: skip
        return Sample(name, frame, labels)
