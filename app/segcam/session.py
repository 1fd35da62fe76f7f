"""From settings to the parts of a run: what the command line, the benchmark and the Python API share."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from segcam.classes import ClassTable
from segcam.controls import Controls
from segcam.engines.base import Engine, EngineOptions
from segcam.engines.factory import Runtime, make_engine
from segcam.errors import UsageError
from segcam.gpu_engine import gpu_engine
from segcam.settings import Settings, parse_time
from segcam.sources.base import Source, SourceInfo, SourceOptions
from segcam.zoo_engine import resolve_engine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from segcam.segmenters.cpu import CpuSegmenter, LabelSize


def parse_size(text: str) -> tuple[int, int] | None:
    """(height, width) of ``512,1024`` (also ``512x1024``); None for "". Raises UsageError."""
    if not text.strip():
        return None
    match = re.fullmatch(r"\s*(\d+)\s*[,x]\s*(\d+)\s*", text, re.ASCII)
    if match is None or 0 in (int(match[1]), int(match[2])):
        raise UsageError(f"--size {text!r} is not a size", "Give HEIGHT,WIDTH in pixels, such as --size 512,1024.")
    return int(match[1]), int(match[2])


def engine_options(settings: Settings) -> EngineOptions:
    return EngineOptions(
        precision=settings.precision,  # type: ignore[arg-type]  # one of its choices: Settings are checked
        device=settings.device,
        threads=settings.threads,
        requests=settings.requests,
        cut_head=settings.cut_head,
        rewrite=settings.rewrite,
        spec=settings.spec,
        size=parse_size(settings.size),
    )


def source_options(settings: Settings) -> SourceOptions:
    return SourceOptions(
        start_s=parse_time(settings.start),
        every=settings.every,
        frames=settings.frames,
        loops=settings.loop,
        threads=settings.decode_threads,
    )


@contextmanager
def said_if_slow(say: Callable[[str], None], line: str) -> Iterator[None]:
    """``say`` hears ``line`` if what is done inside takes longer than a moment."""
    timer = threading.Timer(1.5, say, [line])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def compiled_kernels(say: Callable[[str], None]) -> Iterator[None]:
    """Import the CPU kernels, which compiles them the first time; ``say`` so when it takes longer than a moment."""
    with said_if_slow(say, "compiling Segcam's kernels for this machine, once (10 to 30 seconds) ..."):
        import segcam.kernels.cpu.blend
        import segcam.kernels.cpu.color
        import segcam.kernels.cpu.labels
        import segcam.kernels.cpu.preprocess  # noqa: F401  # importing is compiling
    yield


def open_source(source: Source, say: Callable[[str], None]) -> SourceInfo:
    """``source.open()``; what draws streets is compiled there the first time, and ``say`` hears so."""
    from segcam.sources.street import StreetSource

    line = "compiling what draws streets for this machine, once (10 to 20 seconds) ..."
    with said_if_slow(say, line) if isinstance(source, StreetSource) else nullcontext():
        return source.open()


@dataclass
class Network:
    """An active engine with its classes and the controls of its overlay. ``close`` gives everything back."""

    engine: Engine
    classes: ClassTable
    controls: Controls
    settings: Settings
    load_s: float

    @classmethod
    def load(cls, settings: Settings, warn: Callable[[str], None], say: Callable[[str], None]) -> Network:
        """Read, prepare and compile the network that the settings name. Raises SegcamError kinds."""
        begun = time.perf_counter()
        options = engine_options(settings)
        path = resolve_engine(settings.engine, options.size, say, offline=settings.offline)
        runtime = cast(Runtime, settings.runtime)
        engine = gpu_engine(path, options, runtime, say, warn) or make_engine(str(path), options, warn, runtime)
        engine.activate()
        try:
            with compiled_kernels(say):
                from segcam.segmenters.cpu import count_classes

            count = count_classes(engine)
            classes = engine.spec.class_table(count).with_palette(settings.palette)
            controls = Controls(settings.alpha, classes.visible(settings.classes), settings.legend)
        except BaseException:
            engine.close()
            raise
        return cls(engine, classes, controls, settings, time.perf_counter() - begun)

    def segmenter(self, *, overlay: bool = True, label_size: LabelSize = "frame", depth: int = 0) -> CpuSegmenter:
        """A segmenter on this network; only one may have frames in flight at a time."""
        from segcam.legend import Legend
        from segcam.segmenters.cpu import CpuSegmenter

        return CpuSegmenter(
            self.engine,
            self.classes,
            self.controls,
            overlay=overlay,
            mask_only=self.settings.mask_only,
            decorate=lambda visible: Legend(self.classes, visible),
            label_size=label_size,
            depth=depth,
        )

    def close(self) -> None:
        self.engine.close()
