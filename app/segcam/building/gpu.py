"""The part of a build that needs TensorRT and a GPU: from a network in its final types to a plan with its manifest."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

from segcam.building import store
from segcam.building.network import Typed, same_spec
from segcam.building.prepare import Loaded, Prepared, check
from segcam.building.report import Built
from segcam.engines.manifest import Manifest, Running, manifest_path, read_manifest, verify
from segcam.engines.plan_options import BuiltPlan, PlanOptions
from segcam.engines.tensorrt_api import load_tensorrt
from segcam.errors import CudaError, EngineError, MissingDependencyError
from segcam.onnx_tools.spec import ModelSpec, dump_spec

if TYPE_CHECKING:
    from segcam.building.calibrate import Feeds
    from segcam.building.options import BuildOptions
    from segcam.building.run import Job
    from segcam.kernels.cuda.driver import Driver

_WITHOUT = "Without TensorRT: --target onnx writes the network prepared for it."


@dataclass(frozen=True, eq=False)
class Gpu:
    """TensorRT and an open driver; a context manager that closes the driver."""

    trt: ModuleType
    driver: Driver
    running: Running

    def __enter__(self) -> Gpu:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.driver.close()

    @property
    def words(self) -> str:
        capability = ".".join(map(str, self.running.compute_capability))
        return f"{self.running.gpu} (compute capability {capability}), TensorRT {self.running.tensorrt}"


def open_gpu(hint: str = _WITHOUT, device: int = 0) -> Gpu:
    """TensorRT and GPU number ``device``. Raises MissingDependencyError or CudaError, with ``hint`` as another way."""
    from segcam.kernels.cuda.driver import open_driver

    try:
        trt = load_tensorrt()
        driver = open_driver(device=device)
    except (MissingDependencyError, CudaError) as error:
        error.hint = "\n  ".join(words for words in (error.hint, hint) if words)
        raise
    try:
        return Gpu(trt, driver, Running.here(trt, driver.device))
    except BaseException:
        driver.close()
        raise


def already_built(plan: Path, loaded: Loaded, flags: dict[str, Any], gpu: Gpu) -> ModelSpec | None:
    """The spec of ``plan`` if it is of this source, spec and flags and runs here; else None."""
    if not plan.is_file():
        return None
    with suppress(EngineError):
        manifest = read_manifest(plan)
        if (manifest.source_sha256, manifest.flags) == (loaded.sha256, flags):
            verify(manifest, plan, gpu.running)
            return same_spec(manifest.spec, loaded.spec, bool(manifest.head))
    return None


def build_with_tensorrt(job: Job, gpu: Gpu, prepared: Prepared, typed: Typed, feeds: Feeds | None) -> Built:
    """Parse, build, verify, write. Raises EngineError with TensorRT's own words."""
    from segcam.engines.tensorrt_build import build_plan

    options, progress = job.options, job.progress
    profiles = (job.loaded.profile,) if job.loaded.profile else ()
    asked = PlanOptions(
        precision=options.precision,
        profiles=profiles,
        workspace_bytes=options.workspace,
        optimization_level=options.optimization_level,
        timing_cache=options.timings(job.output.absolute().parent),
        hardware_compat=options.hardware_compat,
        version_compat=options.version_compat,
        dla=options.dla,
    )
    with store.work_folder(job.output) as work:
        made = build_plan(typed.model, asked, gpu.driver, progress, work)
    check(progress)
    progress.begin("verify")
    assert feeds
    proof = _proof(made, options, prepared, typed, feeds, gpu)
    progress.end("verify", proof)
    check(progress)

    progress.begin("write")
    running = gpu.running
    manifest = Manifest(
        plan_sha256=hashlib.sha256(made.data).hexdigest(),
        plan_bytes=len(made.data),
        source=job.source,
        source_sha256=job.loaded.sha256,
        gpu=running.gpu,
        compute_capability=running.compute_capability,
        tensorrt=running.tensorrt,
        cuda=running.cuda,
        driver=running.driver,
        precision_asked=options.precision,
        precision_found=made.precision_found,
        tensors=made.tensors,
        spec=json.loads(dump_spec(prepared.spec)),
        flags=job.flags(),
        rewrites=prepared.rewrites,
        head=prepared.head,
        kept_fp32=typed.kept,
        agreement=typed.agreement.as_json() if typed.agreement else None,
        build_s=round(made.build_s, 3),
        built_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        version_compatible=options.version_compat,
        hardware_compatible=options.hardware_compat or "",
    )
    store.write_pair(job.output, made.data, manifest_path(job.output), manifest.document())
    progress.end("write", str(job.output))
    return job.built(prepared, typed, len(made.data), found=made.precision_found, proof=proof, machine=gpu.words)


def _proof(made: BuiltPlan, options: BuildOptions, prepared: Prepared, typed: Typed, feeds: Feeds, gpu: Gpu) -> str:
    """The plan run beside its network on every picture, in words. Raises EngineError for a plan that is another."""
    from segcam.engines.plan_verify import expected_outputs, refuse_wrong, verify_plan

    pictures = [feed[prepared.spec.input.name] for feed in feeds.feeds]
    found = verify_plan(
        made.data,
        pictures,
        expected_outputs(typed.model, pictures),
        gpu.driver,
        feeds.source,
        host_code=options.version_compat,
        channel_axis=prepared.channel_axis,
    )
    refuse_wrong(found, options.precision)
    return f"{found.labels_equal:.3%} of the labels are those of the network that it was built from"
