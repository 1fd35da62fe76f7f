"""From settings to the parts of a run: what the command line, the benchmark and the Python API share."""

from __future__ import annotations

import re
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from segcam.classes import ClassTable
from segcam.controls import Controls
from segcam.engines.base import Engine, EngineOptions
from segcam.engines.factory import Runtime, make_engine
from segcam.errors import CudaError, UsageError
from segcam.frame import Gpu
from segcam.gpu_engine import gpu_engine
from segcam.settings import Settings, parse_time
from segcam.sources.base import Decode, Source, SourceInfo, SourceOptions
from segcam.zoo_engine import resolve_engine

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from segcam.kernels.cuda.driver import Driver
    from segcam.segmenters.base import Segmenter
    from segcam.segmenters.cuda_work import Kernels
    from segcam.segmenters.reading import LabelSize


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


def source_options(settings: Settings, gpu: Gpu | None = None) -> SourceOptions:
    """What the settings say about the source. ``gpu``: of the network that the pictures go to, ``Network.gpu``."""
    return SourceOptions(
        start_s=parse_time(settings.start),
        every=settings.every,
        frames=settings.frames,
        loops=settings.loop,
        threads=settings.decode_threads,
        decode=cast(Decode, settings.decode),
        gpu=gpu,
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


def gpu_kernels(engine: Engine, say: Callable[[str], None], warn: Callable[[str], None]) -> Kernels | None:
    """The kernels that prepare and read an active engine's pictures on the GPU, where it runs there.

    None for engines that don't; and, with the reason to ``warn``, where the kernels don't fit the network or the GPU's
    driver cannot load them: then the processor does their work.
    """
    from segcam.engines.device import DeviceEngine

    if not isinstance(engine, DeviceEngine):
        return None
    from segcam.segmenters.cuda_work import Kernels, unsupported

    instead = "pictures are prepared and painted by the processor, not the GPU"
    reason = unsupported(engine)
    if reason:
        warn(f"{instead}: {reason}")
        return None
    try:
        with said_if_slow(say, "preparing Segcam's kernels for this GPU, once (some seconds) ..."):
            return Kernels(engine.driver)
    except CudaError as error:
        hint = f" {error.hint}" if error.hint else ""
        warn(f"{instead}: {error.message.rstrip('.')}.{hint}")
        return None


@dataclass
class Network:
    """An active engine with its classes and the controls of its overlay. ``close`` gives everything back.

    ``kernels`` are there where pictures are prepared and painted on the GPU."""

    engine: Engine
    classes: ClassTable
    controls: Controls
    settings: Settings
    load_s: float
    kernels: Kernels | None = None
    warn: Callable[[str], None] = lambda line: None
    _segmenters: weakref.WeakSet[Segmenter] = field(default_factory=weakref.WeakSet, init=False, repr=False)

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
            from segcam.segmenters.reading import count_classes

            count = count_classes(engine)
            classes = engine.spec.class_table(count).with_palette(settings.palette)
            controls = Controls(settings.alpha, classes.visible(settings.classes), settings.legend)
            kernels = gpu_kernels(engine, say, warn)
            if kernels is None:
                with compiled_kernels(say):
                    pass
        except BaseException:
            engine.close()
            raise
        return cls(engine, classes, controls, settings, time.perf_counter() - begun, kernels, warn)

    @property
    def gpu(self) -> Driver | None:
        """The CUDA driver that frames in device memory may come from; None where they must be in the host's."""
        from segcam.engines.device import DeviceEngine

        return self.engine.driver if self.kernels and isinstance(self.engine, DeviceEngine) else None

    def segmenter(
        self,
        *,
        labels: bool = True,
        overlay: bool = True,
        resident: bool = False,
        label_size: LabelSize = "frame",
        depth: int = 0,
        graphs: bool = True,
    ) -> Segmenter:
        """A segmenter on this network; only one may have frames in flight at a time. It is closed with the network.

        Without ``labels`` its segmentations may lack the class map. ``resident``: overlays stay on the GPU, if it is
        there that they are made. ``graphs`` False: no CUDA graphs.
        """
        from segcam.engines.device import DeviceEngine
        from segcam.legend import Legend

        def legend(visible: NDArray[np.bool_]) -> Legend:
            return Legend(self.classes, visible)

        made: Segmenter
        if self.kernels and isinstance(self.engine, DeviceEngine):
            from segcam.segmenters.cuda import CudaSegmenter

            made = CudaSegmenter(
                self.engine, self.kernels, self.classes, self.controls, labels=labels, overlay=overlay,
                resident=resident, mask_only=self.settings.mask_only, decorate=legend, label_size=label_size,
                depth=depth, graphs=graphs, warn=self.warn,
            )  # fmt: skip
        else:
            from segcam.segmenters.cpu import CpuSegmenter

            made = CpuSegmenter(
                self.engine, self.classes, self.controls, overlay=overlay, mask_only=self.settings.mask_only,
                decorate=legend, label_size=label_size, depth=depth,
            )  # fmt: skip
        self._segmenters.add(made)
        return made

    def close(self) -> None:
        for segmenter in list(self._segmenters):
            segmenter.close()
        if self.kernels:
            self.kernels.close()
        self.engine.close()
