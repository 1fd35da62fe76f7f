"""Reading ahead: in order, bounded, and errors in their place."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest

from segcam.errors import SourceError, UsageError
from segcam.evaluation.datasets import Sample
from segcam.evaluation.feed import check_finite, dataset_samples, source_samples
from segcam.frame import Frame
from segcam.sources.base import SourceInfo


def frame(index: int, name: str = "") -> Frame:
    picture = np.zeros((2, 2, 3), np.uint8)
    return Frame(index, index, Fraction(1, 10), 0.0, "t", 2, 2, "bgr24", (picture,), name=name)


class Numbers:
    """A data set of ``count`` samples that counts how many it was asked for; ``bad`` raises."""

    description, classes, renamed = "numbers", None, {}  # a stand-in, made anew for each test

    def __init__(self, count: int, bad: int = -1) -> None:
        self.count, self.bad = count, bad
        self.asked: list[int] = []
        self.lock = threading.Lock()

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> Sample:
        with self.lock:
            self.asked.append(index)
        # Later ones are there earlier.
        time.sleep(0.003 if index % 2 == 0 else 0.0)
        if index == self.bad:
            raise SourceError(f"{index} is broken")
        return Sample(str(index), frame(index), np.zeros((2, 2), np.uint8))


@pytest.mark.parametrize(
    ("every", "frames", "wanted"),
    [(1, 0, list(range(20))), (3, 0, list(range(0, 20, 3))), (4, 2, [0, 4]), (1, 99, list(range(20))), (50, 0, [0])],
)
@pytest.mark.parametrize("threads", [1, 4])
def test_in_order(every: int, frames: int, wanted: list[int], threads: int) -> None:
    numbers = Numbers(20)
    assert [sample.name for sample in dataset_samples(numbers, every, frames, threads)] == [str(i) for i in wanted]
    assert sorted(numbers.asked) == wanted, "nothing is read that isn't wanted"


def test_only_a_few_are_read_ahead() -> None:
    numbers = Numbers(1000)
    samples = dataset_samples(numbers, threads=3)
    for _ in range(5):
        next(samples)
    time.sleep(0.05)
    assert len(numbers.asked) <= 5 + 4
    samples.close()  # type: ignore[attr-defined]
    assert len(numbers.asked) <= 5 + 4


def test_an_error_comes_after_what_came_before_it() -> None:
    numbers = Numbers(50, bad=7)
    seen = []
    with pytest.raises(SourceError, match="7 is broken"):
        for sample in dataset_samples(numbers, threads=4):
            seen.append(sample.name)
    assert seen == [str(i) for i in range(7)]
    assert len(numbers.asked) < 20


class Camera:
    """A source that gives ``count`` frames, then ends or raises, and must not be asked again."""

    def __init__(self, count: int, fails: bool = False) -> None:
        self.count, self.fails, self.given, self.over = count, fails, 0, False

    def open(self) -> SourceInfo:
        raise NotImplementedError

    def read(self) -> Frame | None:
        assert not self.over, "read after its end"
        if self.given == self.count:
            self.over = True
            if self.fails:
                raise SourceError("unplugged")
            return None
        self.given += 1
        return frame(self.given - 1, "" if self.given % 2 else "named.png")

    def interrupt(self) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize("fails", [False, True])
def test_a_source(fails: bool) -> None:
    def names() -> Iterator[str]:
        for sample in source_samples(Camera(5, fails)):
            assert sample.labels is None
            yield sample.name

    found = []
    if fails:
        with pytest.raises(SourceError, match="unplugged"):
            found.extend(names())
        return
    found.extend(names())
    assert found == ["frame 0 (0.00 s)", "named.png", "frame 2 (0.20 s)", "named.png", "frame 4 (0.40 s)"]


@pytest.mark.parametrize(
    ("live", "count", "description", "frames", "loops", "fine"),
    [
        (False, 10, "a.mp4", 0, 1, True),
        (False, None, "raw.h264", 0, 1, True),
        (True, None, "camera 0", 0, 1, False),
        (True, None, "camera 0", 30, 1, True),
        (False, None, "test: (test pattern)", 0, 1, False),
        (False, 20, "test:frames=20 (test pattern)", 0, 1, True),
        (False, None, "a.mp4", 0, 0, False),
        (False, 50, "a.mp4", 50, 0, True),
    ],
)
def test_figures_need_an_end(
    live: bool, count: int | None, description: str, frames: int, loops: int, fine: bool
) -> None:
    info = SourceInfo(description, 2, 2, None, count, live)
    if fine:
        check_finite(info, frames, loops)
        return
    with pytest.raises(UsageError, match="doesn't end") as caught:
        check_finite(info, frames, loops)
    assert "--frames" in caught.value.hint
