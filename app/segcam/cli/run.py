"""The main job: a source through a network into outputs."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal, cast

from segcam.cli import interrupts
from segcam.cli.progress import Progress
from segcam.config import Resolved
from segcam.errors import SegcamError, SinkError, UsageError
from segcam.metrics import Metrics
from segcam.pipeline import Pipeline
from segcam.queues import choose_policy
from segcam.report import NetworkRate
from segcam.session import Network, open_source, source_options
from segcam.settings import Settings
from segcam.sinks.base import RunStats, Sink, StreamInfo
from segcam.sinks.encoder import Encode
from segcam.sinks.factory import SinkOptions, check_outputs, make_sink
from segcam.sinks.files import check_writable
from segcam.sources.base import Source, SourceInfo
from segcam.sources.factory import make_source


def run(resolved: Resolved) -> int:
    """Run ``segcam`` with these settings; returns the exit code. Raises SegcamError kinds."""
    settings = resolved.settings
    asked = [name for name in settings.output if name.strip()]
    check_outputs(asked, settings.source)
    if settings.json not in ("", "-"):
        check_writable(Path(settings.json))
    warn_once = _once(warn)
    source = make_source(settings.source, source_options(settings), warn_once)
    try:
        info = open_source(source, say)
        if settings.decode == "nvdec" and not info.encoded:
            raise UsageError(
                f"--decode nvdec: {settings.source} is no video file or network stream, which NVDEC could decode",
                "Leave out --decode nvdec.",
            )
        network = Network.load(settings, warn, say)
    except BaseException:
        source.close()
        raise
    try:
        if network.gpu is not None and info.encoded and settings.decode != "cpu":
            # Opened before, so that a source that cannot be read is known before a network is built. Now it is known
            # as well that pictures may stay on the GPU.
            source.close()
            source = make_source(settings.source, source_options(settings, network.gpu), warn_once)
            info = open_source(source, say)
        outputs = asked or [_default_output(settings, info)]
        check_outputs(outputs, settings.source)
    except BaseException:
        source.close()
        network.close()
        raise
    job = Run(settings, source, info, outputs, network)
    try:
        interrupts.check()
        return job.go()
    finally:
        # What a thread that never came back still uses is left to the end of the process.
        if not job.abandoned:
            source.close()
            network.close()


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def warn(line: str) -> None:
    say(f"segcam: warning: {line}")


def _once(tell: Callable[[str], None]) -> Callable[[str], None]:
    """``tell`` without lines that it heard before."""
    heard: set[str] = set()

    def told(line: str) -> None:
        if line not in heard:
            heard.add(line)
            tell(line)

    return told


def _default_output(settings: Settings, info: SourceInfo) -> str:
    """What to do where no --output is given: a benchmark discards, a display shows, else a file beside you."""
    if settings.benchmark:
        return "null"
    from segcam.sinks.display import display_problem

    problem = display_problem()
    if problem is None:
        return "window"
    if info.live:
        raise SinkError(f"no window can be shown: {problem}", "Give an output: --output out.mp4")
    stem = Path(settings.source.rstrip("/")).stem.split(":")[0].replace("%", "").replace("*", "") or "segcam"
    name = f"{stem}_segcam{'/' if info.still and info.frames != 1 else '.png' if info.still else '.mp4'}"
    say(f"no window, since {problem}: writing {name} instead; --output chooses")
    return name


@dataclass
class Run:
    """A source, which is open, through a network into ``outputs`` and the sinks ``more``. What ``go`` has used is
    closed by the caller, unless ``abandoned`` says that a thread may still use it."""

    settings: Settings
    source: Source
    info: SourceInfo
    outputs: Sequence[str]
    network: Network
    more: Sequence[Sink] = ()
    abandoned: bool = False

    def go(self) -> int:
        """The exit code: 0, or 130 after an interruption. Raises SegcamError kinds."""
        settings, info, network = self.settings, self.info, self.network
        policy, why = choose_policy(cast(Literal["auto", "lossless", "newest"], settings.queue), info.live)
        stats = RunStats()
        # A clip of a few frames still gives a rate: two of them are always counted.
        warmup = settings.warmup if info.frames is None else min(settings.warmup, max(0, info.frames - 2))
        self.metrics = Metrics(warmup)
        options = SinkOptions(
            crf=settings.crf,
            preset=settings.preset,
            image_format=cast(Literal["png", "jpg"], settings.image_format),
            jpeg_quality=settings.jpeg_quality,
            hud=settings.hud,
            pace=len(self.outputs) == 1,
            encode=cast(Encode, settings.encode),
            gpu=network.gpu,
        )
        sinks = [*(make_sink(name, options, network.controls, warn) for name in self.outputs), *self.more]
        stream = StreamInfo(
            info.description, info.width, info.height, info.rate_hz, info.frames, info.live, network.classes,
            network.engine.info.line(),
        )  # fmt: skip
        say(network.engine.info.line())
        say(f"{_described(info)}; queue: {why}")
        opened: list[Sink] = []
        try:
            for sink in sinks:
                sink.open(stream, stats)
                opened.append(sink)
            depth = max(1, network.engine.info.requests - 1) if policy == "newest" else 0
            painted = [sink for sink in sinks if sink.needs_overlay]
            there = [sink for sink in painted if getattr(sink, "takes_device_overlays", False)]
            if there and len(there) < len(painted):
                say("pictures come down from the GPU before they are encoded: another output shows them, too")
            segmenter = network.segmenter(
                labels=any(sink.needs_labels for sink in sinks),
                overlay=bool(painted),
                resident=len(there) == len(painted),
                depth=depth,
            )
            before = self._network_rate() if settings.benchmark else None
        except BaseException:
            for sink in opened:
                sink.close()
            raise
        with Progress(settings.progress, info.frames, stats) as tick:
            pipeline = Pipeline(
                self.source, segmenter, sinks, network.controls, stats, self.metrics,
                policy=policy, queue_size=settings.queue_size, tick=tick, warn=warn,
            )  # fmt: skip
            begun = time.perf_counter()
            with _Interrupts(pipeline) as interrupts:
                try:
                    pipeline.run()
                except SegcamError:
                    if self.metrics.frames:
                        self._summary(sinks, time.perf_counter() - begun, "stopped after")
                    raise
                finally:
                    self.abandoned = bool(pipeline.abandoned)
            seconds = time.perf_counter() - begun
        self._summary(sinks, seconds, "interrupted after" if interrupts.count else "done:")
        self._report(policy, before)
        return 130 if interrupts.count else 0

    def _network_rate(self) -> NetworkRate:
        from segcam.bench import network_rate

        say("measuring the network by itself ...")
        return network_rate(self.network.engine)

    def report(self, policy: str = "lossless", network: NetworkRate | None = None) -> dict[str, Any]:
        """What was measured, as ``segcam.report`` has it."""
        from segcam import report

        info = self.info
        return report.build(
            self.network.engine.info,
            {
                "description": info.description,
                "width": info.width,
                "height": info.height,
                "rate_hz": float(info.rate_hz) if info.rate_hz else None,
                "live": info.live,
            },
            {
                "outputs": list(self.outputs),
                "queue": policy,
                "warmup": self.metrics.warmup,
                "alpha": self.settings.alpha,
                "load_s": round(self.network.load_s, 3),
            },
            self.metrics,
            network,
        )

    def _report(self, policy: str, before: NetworkRate | None) -> None:
        settings = self.settings
        if not (settings.benchmark or settings.json):
            return
        from segcam import report
        from segcam.bench import combined

        made = self.report(policy, combined(before, self._network_rate()) if before else None)
        if settings.benchmark:
            print(report.text(made), file=sys.stderr if settings.json == "-" else sys.stdout)
        if settings.json:
            report.write_json(made, settings.json)

    def _summary(self, sinks: Sequence[Sink], seconds: float, how: str) -> None:
        rate = f" ({self.metrics.frames / seconds:.1f} per second)" if seconds > 0 else ""
        say(f"{how} {self.metrics.frames} frames in {seconds:.1f} s{rate}")
        if self.metrics.dropped:
            say("dropped: " + ", ".join(f"{count} ({cause})" for cause, count in self.metrics.dropped.items()))
        for sink in sinks:
            say(f"  {sink.description}")


def _described(info: SourceInfo) -> str:
    rate = f", {float(info.rate_hz):.6g} frames/s" if info.rate_hz else ""
    frames = f", {info.frames} frames" if info.frames is not None else ""
    return f"{info.description}: {info.width}x{info.height}{rate}{frames}"


class _Interrupts:
    """Ctrl-C once (or SIGTERM) finishes in good order, twice quits at once."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._old: dict[int, Any] = {}
        self.count = 0

    def __enter__(self) -> _Interrupts:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._old[number] = signal.signal(number, self._on_signal)
            except ValueError:  # not the main thread: whoever runs us there handles signals
                break
        return self

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count == 1:
            say("\nfinishing what has been read ... (Ctrl-C again quits at once)")
            self._pipeline.stop()
        else:
            say("\nquit")
            os._exit(130)

    def __exit__(self, *exception: object) -> None:
        for number, old in self._old.items():
            signal.signal(number, old)
