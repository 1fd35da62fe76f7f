"""TensorRT plans as engines: pictures and scores in pinned host memory, the network on an NVIDIA GPU."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np

from segcam.engines.base import EngineInfo
from segcam.engines.device import DeviceEngine, device_number, quietly
from segcam.engines.manifest import Manifest, Running, missing_plan, read_manifest, remarks, verify
from segcam.engines.model import scores_layout
from segcam.engines.plan import PlanEngine, PlanTensor, show
from segcam.engines.tensorrt_api import has_driver_library, load_tensorrt, numpy_dtype, version_words
from segcam.errors import EngineError, MissingDependencyError, UsageError
from segcam.onnx_tools.spec import ModelSpec, resolve_spec

__all__ = ["TensorRtEngine", "device_number"]


class TensorRtEngine(DeviceEngine[PlanEngine]):
    """See ``engines.device.DeviceEngine``."""

    def activate(self) -> None:
        """Raises EngineError, CudaError, MissingDependencyError, UsageError for options that the plan cannot follow.

        The manifest comes first: it says whether there is anything to load, and what to run where TensorRT is missing.
        """
        if self._info:
            return
        manifest = self._manifest()
        trt = self._load_tensorrt(manifest)
        try:
            driver = self._driver = self._given_driver or self._open_driver()
            running = Running.here(trt, driver.device)
            data = verify(manifest, self._path, running)
            for words in remarks(manifest, running):
                self._warn(f"{self._path.name}: {words}")
            # Only a plan that was built to run on other versions carries code for the host, and only that one may.
            plan = PlanEngine(data, driver, self._path.name, host_code=manifest.version_compatible)
            self._plan = plan
            self._held.callback(quietly, plan.close)
            _compare(plan.tensors, manifest, self._path)
            spec = self._spec_for(manifest)
            shape = plan.shape_for(self._options.size or (None if -1 not in plan.input.shape else spec.input.size))
            with driver.current():
                self._make_slots(plan, shape)
            hw = (shape[2], shape[3]) if spec.input.layout == "NCHW" else (shape[1], shape[2])
            self._spec = replace(spec, input=replace(spec.input, size=hw))
            output_shape = self._slots[0].execution.output_shape
            self._info = EngineInfo(
                model=self._path.name,
                runtime="TensorRT",
                version=version_words(trt),
                device=driver.device.name,
                precision=manifest.precision,
                threads=0,
                requests=len(self._slots),
                input_shape=shape,
                output_shape=output_shape,
                output_layout=scores_layout(output_shape, self._spec),
                head=manifest.head,
                spec=self._spec.origin,
                rewrites=manifest.rewrites,
            )
        except BaseException:
            self.close()
            raise

    def _load_tensorrt(self, manifest: Manifest) -> ModuleType:
        try:
            return load_tensorrt()
        except MissingDependencyError as error:
            if has_driver_library():
                raise
            raise MissingDependencyError(
                f"{self._path} is a TensorRT plan; {error.message}, and there is no NVIDIA driver here",
                f"Run the network that it was built from: segcam --engine {shlex.quote(manifest.source)}",
            ) from None

    def _manifest(self) -> Manifest:
        """The plan's manifest, where the options ask for nothing else than it offers."""
        path, options = self._path, self._options
        if not path.is_file():
            raise (
                EngineError(f"{path} is a folder, not a plan", "Name a .plan file.")
                if path.is_dir()
                else (missing_plan(path))
            )
        manifest = read_manifest(path)
        if options.precision not in ("auto", manifest.precision):
            raise UsageError(
                f"--precision {options.precision} was asked for, but {path.name} was built as {manifest.precision}: a "
                "plan's arithmetic is fixed",
                f"Leave --precision out, or build another: build-engine --onnx {manifest.source} --{options.precision}",
            )
        if not options.cut_head and manifest.head:
            self._warn(f"{path.name}: its head ({manifest.head}) was cut off when it was built, and stays off")
        return manifest

    def _spec_for(self, manifest: Manifest) -> ModelSpec:
        """The manifest's spec; colours, scaling and classes from the file of ``--spec`` where there is one, which knows
        nothing of how the plan's tensors are called and laid out."""
        own = manifest.model_spec
        if not self._options.spec:
            return own
        named = resolve_spec(self._path, {}, self._options.spec, self._warn)
        fed = own.input
        given = replace(named.input, name=fed.name, layout=fed.layout, dtype=fed.dtype, size=fed.size)
        return replace(named, input=given, output=own.output)

    def layer_times(self, runs: int = 20) -> list[tuple[str, float]]:
        """See ``PlanEngine.profile``, at the size that the engine runs at."""
        return self.plan.profile(self.info.input_shape, runs)


def _compare(tensors: tuple[PlanTensor, ...], manifest: Manifest, path: Path) -> None:
    """A manifest that is whole and yet of another plan is a fault of whoever wrote it, and must not feed the GPU."""
    found = {t.name: (t.mode, t.dtype, t.shape) for t in tensors}
    stated = {t["name"]: (t["mode"], t["dtype"], tuple(t["shape"])) for t in manifest.tensors}
    if found != stated:
        have, want = (
            ", ".join(f"{name} ({mode}, {dtype} {show(shape)})" for name, (mode, dtype, shape) in sorted(side.items()))
            for side in (found, stated)
        )
        raise EngineError(
            f"{path.name} has the tensors {have}, its manifest says {want}",
            "Build it again with build-engine --force.",
        )
    fed = manifest.model_spec.input
    given = next(t for t in tensors if t.mode == "input")
    if numpy_dtype(given.dtype) != np.dtype(fed.dtype):
        raise EngineError(
            f"{path.name} takes {given.dtype}, the spec in its manifest says {fed.dtype}",
            "Build it again with build-engine --force.",
        )
