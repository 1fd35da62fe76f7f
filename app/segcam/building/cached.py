"""Plans that a run builds for itself: once for each network, kind of run, TensorRT and GPU."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from segcam.building.gpu import open_gpu
from segcam.building.options import BuildOptions
from segcam.building.prepare import file_sha256
from segcam.engines.base import EngineOptions
from segcam.engines.device import device_number
from segcam.engines.manifest import PLAN_SUFFIXES, Manifest, Running, read_manifest, unusable, verify
from segcam.errors import EngineError, UsageError
from segcam.networks import cache

Say = Callable[[str], None]
_FOLDER = "engines"


def cached_plan(onnx: Path, options: EngineOptions, say: Say, warn: Say) -> Path:
    """See ``segcam.building.cached_plan``. ``say`` hears of a build, and why an earlier plan is not good any more."""
    asked = _asked(onnx, options)
    asked.check()
    source = file_sha256(onnx)
    with open_gpu(device=asked.device) as gpu:
        running = gpu.running
    plan = cache.root() / _FOLDER / _name(onnx, asked, source, running)
    if plan.is_file():
        with suppress(EngineError):
            verify(read_manifest(plan), plan, running)
            return plan
    cache.folder(_FOLDER)
    say(_why(plan, onnx, asked, source, running))

    from segcam.building.run import build

    return build(_to(plan, asked), _Lines(say), say, warn).path


def _asked(onnx: Path, options: EngineOptions) -> BuildOptions:
    if not onnx.is_file():
        # The words for a file that isn't there, or isn't one.
        from segcam.engines.model import read_model

        read_model(onnx)
    if options.precision not in ("auto", "fp16", "fp32", "bf16"):
        raise UsageError(f"--precision {options.precision} is nothing that a plan can be built in", "Use auto.")
    return BuildOptions(
        onnx=str(onnx),
        precisions=() if options.precision == "auto" else (options.precision,),
        size=options.size,
        head="cut" if options.cut_head else "keep",
        rewrite=options.rewrite,
        spec=options.spec,
        device=device_number(options.device),
    )


def _to(plan: Path, asked: BuildOptions) -> BuildOptions:
    return replace(asked, output=plan, force=plan.exists())


def _name(onnx: Path, asked: BuildOptions, source: str, running: Running) -> str:
    specs = [Path(asked.spec)] if asked.spec else [onnx.with_name(onnx.name + ".json")]
    spec = [hashlib.sha256(path.read_bytes()).hexdigest() for path in specs if path.is_file()]
    key = json.dumps([source, spec, asked.flags(), running.tensorrt, running.gpu, running.compute_capability])
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    return f"{onnx.stem[:60]}-{asked.precision_name}-{digest}.plan"


def _why(plan: Path, onnx: Path, asked: BuildOptions, source: str, running: Running) -> str:
    """Why a plan is built, in a line: there was none, or what has changed since the last one of this kind."""
    once = f"building a TensorRT plan of {onnx.name} for {running.gpu}, once: this takes minutes ..."
    if plan.exists():
        return f"{plan.name} is damaged: {once}"
    earlier = [manifest for manifest in _earlier(plan.parent, onnx) if manifest.flags == asked.flags()]
    if not earlier:
        return once
    of_this = [manifest for manifest in earlier if manifest.source_sha256 == source]
    if not of_this:
        return f"{onnx.name} has changed since its plan was built: {once}"
    elsewhere = [unusable(manifest, running) for manifest in of_this]
    if all(elsewhere):
        return f"the plan of {onnx.name} that is there does not run here ({elsewhere[0]}): {once}"
    tuned = [manifest.gpu for manifest in of_this if not unusable(manifest, running)]
    if running.gpu not in tuned:
        return f"the plan of {onnx.name} that is there was tuned on {tuned[0]}: {once}"
    return f"the spec of {onnx.name} is another than its plan was built with: {once}"


def _earlier(folder: Path, onnx: Path) -> list[Manifest]:
    """Of plans of this file, whatever it held then; newest first."""
    found = []
    for path in folder.iterdir():
        if path.suffix in PLAN_SUFFIXES and path.name.startswith(onnx.stem[:60]):
            with suppress(EngineError):
                manifest = read_manifest(path)
                if manifest.source == str(onnx.absolute()):
                    found.append(manifest)
    return sorted(found, key=lambda manifest: manifest.built_at, reverse=True)


class _Lines:
    """Progress of a build that nobody asked to watch: a line for each stage that takes long."""

    _SHOWN = ("precision", "build", "verify")

    def __init__(self, say: Say) -> None:
        self._say = say

    def begin(self, stage: str) -> None:
        pass

    def step(self, done: int, total: int, words: str) -> None:
        pass

    def end(self, stage: str, words: str) -> None:
        if stage in self._SHOWN:
            self._say(f"  {stage}: {words}")

    def cancelled(self) -> bool:
        return False
