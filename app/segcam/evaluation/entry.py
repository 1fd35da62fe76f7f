"""How good a network is, and how far two agree: ``segcam eval`` and ``segcam.evaluate``."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from segcam.config import from_arguments
from segcam.errors import SourceError, UsageError
from segcam.evaluation.compare import AgainstLabels, Agreement, Comparison
from segcam.evaluation.datasets import Dataset, Sample, make_dataset
from segcam.evaluation.feed import check_finite, dataset_samples, source_samples
from segcam.evaluation.report import Report, write_report
from segcam.session import Network, source_options
from segcam.settings import Settings, parse_time
from segcam.sinks.files import check_writable
from segcam.sources.factory import make_source

if TYPE_CHECKING:
    from segcam.segmenters.base import Segmenter
    from segcam.segmenters.reading import LabelSize

Runtime = Literal["auto", "openvino", "onnxruntime"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]


def evaluate(
    engine: str | os.PathLike[str],
    dataset: str | Dataset = "",
    *,
    source: str | os.PathLike[str] = "",
    mapping: str | os.PathLike[str] = "",
    against: str | os.PathLike[str] = "",
    against_precision: Precision | Literal[""] = "",
    against_runtime: Runtime | Literal[""] = "",
    against_spec: str | os.PathLike[str] = "",
    against_size: tuple[int, int] | None = None,
    runtime: Runtime = "auto",
    precision: Precision = "auto",
    device: str = "CPU",
    threads: int = 0,
    requests: int = 0,
    cut_head: bool = True,
    rewrite: bool = True,
    size: tuple[int, int] | None = None,
    spec: str | os.PathLike[str] = "",
    start_s: float = 0.0,
    frames: int = 0,
    every: int = 1,
    output: str | os.PathLike[str] = "",
    tick: Callable[[int], None] = lambda done: None,
) -> Report:
    """Scores of a network on a data set, and with any ``against_...`` how far a second one gives the same classes.

    ``engine`` and ``against`` are ``.onnx`` files, names of the zoo or ``demo``, as for ``segcam.Segmenter``.
    ``dataset`` is what ``segcam eval --dataset`` takes (``camvid:PATH``), or an object that is a
    ``segcam.evaluation.datasets.Dataset``; without one, ``source`` gives pictures without labels. ``mapping`` names a
    file that says what the label pictures' numbers or colours mean. The second network is ``against``, or the same file
    with another precision or runtime. ``every`` and ``frames`` choose from either, ``start_s`` from a source. The class
    maps are compared at the labels' size (without labels: the picture's), the scores enlarged to it. ``output`` is a
    folder for report.json, confusion.png and worst.png. ``tick`` hears how many pictures are done. Raises UsageError,
    SourceError, SinkError and what loading a network raises; warns with UserWarning.
    """
    settings = from_arguments(
        {
            "engine": os.fspath(engine),
            "source": os.fspath(source),
            "runtime": runtime,
            "precision": precision,
            "device": device,
            "threads": threads,
            "requests": requests,
            "cut_head": cut_head,
            "rewrite": rewrite,
            "size": _size(size),
            "spec": os.fspath(spec),
            "start": f"{start_s:.6f}",
            "frames": frames,
            "every": every,
        }
    )
    other = other_settings(
        settings,
        engine=os.fspath(against),
        precision=against_precision,
        runtime=against_runtime,
        spec=os.fspath(against_spec),
        size=_size(against_size),
    )
    if isinstance(dataset, str):
        chosen = make_dataset(dataset, os.fspath(mapping), _warn) if dataset else None
    else:
        chosen = dataset
    folder = Path(output) if output else None
    say = logging.getLogger("segcam").info
    return Job(settings, chosen, other, folder, _warn, say, lambda total: nullcontext(tick)).run()


def other_settings(settings: Settings, **changes: str) -> Settings | None:
    """The second network's settings: the first one's, but for what is not empty in ``changes``; None without any.

    Another file doesn't take over the first one's spec and size. Raises UsageError for a second network that is the
    first one.
    """
    given = {name: value for name, value in changes.items() if value}
    if not given:
        return None
    own = asdict(settings)
    if given.get("engine", settings.engine) != settings.engine:
        own |= {"spec": "", "size": ""}
    try:
        other = from_arguments(own | given)
    except UsageError as error:
        raise UsageError(f"--against-{error.message}", error.hint) from None
    if other == settings:
        raise UsageError(
            "--against names the same network with the same settings: it would agree with itself",
            "Name another file, or another --against-precision or --against-runtime.",
        )
    return other


@dataclass(frozen=True, eq=False)
class Job:
    """One evaluation. ``warn`` hears what is odd, ``say`` what runs and what takes long; ``progress`` is entered with
    the number of pictures (None: unknown) and gives what hears how many are done. Raises UsageError when there is
    nothing to compare."""

    settings: Settings
    dataset: Dataset | None
    other: Settings | None
    output: Path | None
    warn: Callable[[str], None]
    say: Callable[[str], None] = lambda line: None
    progress: Callable[[int | None], AbstractContextManager[Callable[[int], None]]] = lambda total: nullcontext(_ignore)

    def __post_init__(self) -> None:
        if self.dataset is None and not self.settings.source:
            raise UsageError(
                "nothing to evaluate on: neither a data set nor a source is given",
                "Give --dataset camvid:PATH, or --source dashcam.mp4 with --against OTHER.onnx.",
            )
        if self.dataset is not None and self.settings.source:
            raise UsageError("a data set and a source are given", "Leave --source or --dataset out.")
        if self.dataset is None and self.other is None:
            raise UsageError(
                f"{self.settings.source} has no labels to compare with",
                "Give --dataset, or a second network with --against OTHER.onnx or --against-precision fp32.",
            )
        if self.dataset is not None and (parse_time(self.settings.start) or self.settings.loop != 1):
            raise UsageError("a data set has no time to start at and is not repeated", "Leave out --start and --loop.")

    def run(self) -> Report:
        """All pictures through the network or networks. Raises SegcamError kinds."""
        if self.output is not None:
            check_writable(self.output / "report.json")
        with closing(_Feed(self)) as feed:
            lanes: list[_Lane] = []
            try:
                for settings in filter(None, (self.settings, self.other)):
                    lanes.append(_Lane(Network.load(settings, self.warn, self.say)))
                    self.say(lanes[-1].network.engine.info.line())
                with self.progress(feed.total) as tick:
                    report, comparisons = self._compare(feed, lanes, tick)
            finally:
                for lane in lanes:
                    lane.network.close()
        return write_report(report, comparisons, self.output) if self.output is not None else report

    def _compare(self, feed: _Feed, lanes: list[_Lane], tick: Callable[[int], None]) -> tuple[Report, list[Comparison]]:
        names = _names(lanes)
        against_labels = [
            AgainstLabels(name, lane.network.classes, self.dataset.classes, dict(self.dataset.renamed))
            for name, lane in zip(names, lanes, strict=True)
            if self.dataset is not None
        ]
        agreement = (
            Agreement((names[0], names[1]), lanes[0].network.classes, lanes[1].network.classes) if self.other else None
        )
        begun, done = time.perf_counter(), 0
        for sample, maps in _class_maps(feed.samples, lanes):
            for comparison, found in zip(against_labels, maps, strict=False):
                if sample.labels is None:
                    raise SourceError(f"{feed.description}: {sample.name} came without labels")
                comparison.add(sample, sample.labels, found)
            if agreement is not None:
                agreement.add(sample, maps[0], maps[1])
            done += 1
            tick(done)
        seconds = time.perf_counter() - begun
        if not done:
            raise SourceError(f"{feed.description}: no pictures came")
        comparisons: list[Comparison] = [*against_labels, *([agreement] if agreement else [])]
        results = [comparison.result for comparison in comparisons]
        if against_labels and not results[0].scores.pixels:
            raise SourceError(
                f"{feed.description}: every pixel of the {done} label pictures is ignored",
                "A test split without public labels? Take val; or see what the --mapping leaves out.",
            )
        report = Report(
            data=feed.description,
            images=done,
            seconds=seconds,
            engines=tuple(lane.network.engine.info for lane in lanes),
            labels=tuple(results[: len(against_labels)]),
            agreement=results[-1] if agreement else None,
        )
        return report, comparisons


class _Feed:
    """The samples of a job, how many are announced, and what gives them."""

    def __init__(self, job: Job) -> None:
        settings, self._source = job.settings, None
        if job.dataset is not None:
            self.description = job.dataset.description
            total = -(-len(job.dataset) // settings.every)
            self.total: int | None = min(total, settings.frames) if settings.frames else total
            self.samples: Iterator[Sample] = dataset_samples(
                job.dataset, settings.every, settings.frames, settings.decode_threads
            )
            return
        source = make_source(settings.source, source_options(settings), job.warn)
        try:
            info = source.open()
            check_finite(info, settings.frames, settings.loop)
        except BaseException:
            source.close()
            raise
        self._source, self.description, self.total = source, info.description, info.frames
        self.samples = source_samples(source)

    def close(self) -> None:
        if self._source is not None:
            self._source.interrupt()
        self.samples.close()  # type: ignore[attr-defined]  # both are generators
        if self._source is not None:
            self._source.close()


class _Lane:
    """One network with its segmenters by size of the class map. Only one of them may have frames in flight."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._segmenters: dict[LabelSize, Segmenter] = {}

    def segmenter(self, size: LabelSize) -> Segmenter:
        if size not in self._segmenters:
            self._segmenters[size] = self.network.segmenter(overlay=False, label_size=size)
        return self._segmenters[size]


def _class_maps(samples: Iterator[Sample], lanes: list[_Lane]) -> Iterator[tuple[Sample, list[NDArray[np.uint8]]]]:
    """Each sample with every network's class map at the labels' size, which is used again after the next step."""
    flying: deque[Sample] = deque()
    size: LabelSize = "frame"

    def collect() -> Iterator[tuple[Sample, list[NDArray[np.uint8]]]]:
        results = [lane.segmenter(size).collect() for lane in lanes]
        yield flying.popleft(), [result.labels for result in results]
        for lane, result in zip(lanes, results, strict=True):
            lane.segmenter(size).recycle(result)

    for sample in samples:
        wanted = _label_size(sample)
        while flying and (wanted != size or len(flying) == min(lane.segmenter(size).depth for lane in lanes)):
            yield from collect()
        size = wanted
        for lane in lanes:
            lane.segmenter(size).submit(sample.frame)
        flying.append(sample)
    while flying:
        yield from collect()


def _label_size(sample: Sample) -> LabelSize:
    if sample.labels is None or sample.labels.shape == (sample.frame.height, sample.frame.width):
        return "frame"
    return sample.labels.shape[0], sample.labels.shape[1]


def _names(lanes: list[_Lane]) -> list[str]:
    """What to call the networks: by file, and where that is the same, by what differs."""
    infos = [lane.network.engine.info for lane in lanes]
    names = [info.model for info in infos]
    if len(set(names)) < len(names):
        names = [f"{info.model} ({info.runtime}, {info.precision})" for info in infos]
    if len(set(names)) < len(names):
        names = [f"{name} ({letter})" for name, letter in zip(names, "AB", strict=False)]
    return names


def _size(size: tuple[int, int] | None) -> str:
    return f"{size[0]},{size[1]}" if size else ""


def _ignore(done: int) -> None:
    """What hears of the progress where nobody does."""


def _warn(line: str) -> None:
    warnings.warn(line, UserWarning, stacklevel=2)
