"""From a prepared ONNX graph to a TensorRT plan that is what it says.

One way for TensorRT 10 and 11: the graph carries its types (``onnx_tools.precision`` put them there), the network is
strongly typed, and no precision flag is ever set. What the builder then made is read from the plan, not the request.
"""

from __future__ import annotations

import time
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from segcam.engines import build_checks, inspection
from segcam.engines.build_progress import STEPS, Interrupt, Monitoring, make_monitor, run_apart
from segcam.engines.plan import PlanEngine
from segcam.engines.plan_options import BuiltPlan, PlanOptions, Profile, Progress, Quiet
from segcam.engines.tensorrt_api import check, created, failure, load_tensorrt, logger, version
from segcam.engines.timing_cache import TimingCache, cache_file
from segcam.errors import EngineError
from segcam.onnx_tools.graph import opset_of
from segcam.onnx_tools.save import save_model

if TYPE_CHECKING:
    import onnx
    import tensorrt as trt

    from segcam.kernels.cuda.driver import Driver

__all__ = ["BuiltPlan", "PlanOptions", "Profile", "Progress", "Quiet", "build_plan"]


def build_plan(
    model: onnx.ModelProto, options: PlanOptions, driver: Driver, progress: Progress, work: Path
) -> BuiltPlan:
    """Build a plan of ``model`` on ``driver``'s GPU, load it again, and see that it is what was asked for.

    ``model`` has one input and one output and the types that it is to compute in. ``work`` is a folder for files that
    are nobody's business afterwards; it is left as it was. ``progress`` sees the stages "parse" and "build".

    Takes minutes, in a thread of its own. Ctrl-C, or ``progress.cancelled``, ends it at TensorRT's next step with
    KeyboardInterrupt and no trace; a handler for SIGINT that was there before is there again. Raises EngineError with
    TensorRT's own words for whatever it doesn't take or build, and where a plan isn't in the precision asked for;
    MissingDependencyError and CudaError where TensorRT or CUDA are not to be had.
    """
    trt = load_tensorrt()
    build_checks.check_device(options, driver.device, trt)
    inspection.check_asked(options.precision, inspection.network_types(model))
    with Interrupt(progress.cancelled) as interrupt:
        build = _Build(trt, options, driver, progress, interrupt)
        built = run_apart(lambda: build.run(model, work), interrupt, build.tell_stopping)
        if interrupt.asked():
            raise KeyboardInterrupt
        return built


class _Build:
    """One build. All of TensorRT's calls come from the one thread that calls ``run``."""

    def __init__(
        self, trt: ModuleType, options: PlanOptions, driver: Driver, progress: Progress, interrupt: Interrupt
    ) -> None:
        self._trt, self._options, self._driver = trt, options, driver
        self._progress, self._interrupt = progress, interrupt
        self._monitoring = Monitoring(progress, interrupt.asked)
        self._log = logger(trt)
        self._mark = self._log.mark()

    def tell_stopping(self) -> None:
        self._monitoring.tell("stopping: TensorRT finishes the step that it is at")

    def run(self, model: onnx.ModelProto, work: Path) -> BuiltPlan:
        trt, progress = self._trt, self._progress
        with self._driver.current():
            progress.begin("parse")
            builder = created(lambda: trt.Builder(self._log), "builder", self._log)
            # Needed for strong typing on 10.x; 11.x knows nothing else and takes the flag without a word.
            flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
            network = check(builder.create_network(flags), "start a network", self._log, self._mark)
            parser = self._parser(network)
            self._parse(parser, model, work)
            inputs = {}
            for index in range(network.num_inputs):
                tensor = network.get_input(index)
                inputs[str(tensor.name)] = tuple(tensor.shape)
            build_checks.check_profiles(self._options.profiles, inputs)
            build_checks.check_dla(self._options, builder.num_DLA_cores, trt, inputs)
            progress.end("parse", f"{network.num_layers} layers")
            self._leave_if_asked()

            progress.begin("build")
            config = check(builder.create_builder_config(), "start a configuration", self._log, self._mark)
            cache = self._configure(builder, config)
            started = time.monotonic()
            data = self._serialized(builder, network, config)
            taken = time.monotonic() - started
            if cache:
                cache.save(config)
            self._leave_if_asked()
            notes = cache.notes if cache else []
            built = self._proved(data, inspection.network_types(model), taken, notes)
            progress.step(STEPS, STEPS, "done")
            progress.end("build", "; ".join([f"{taken:.0f} s", *notes]))
            return built

    def _leave_if_asked(self) -> None:
        if self._monitoring.failure:
            raise self._monitoring.failure
        if self._interrupt.asked():
            raise KeyboardInterrupt

    def _parser(self, network: trt.INetworkDefinition) -> trt.OnnxParser:
        trt = self._trt
        return trt.OnnxParser(network, self._log)

    def _parse(self, parser: trt.OnnxParser, model: onnx.ModelProto, work: Path) -> None:
        import onnx

        path = work / "parsed.onnx"
        try:
            # From a file: with the network in memory, parsers before 10.16 hold up every other thread of Python.
            save_model(model, path)
            if not parser.parse_from_file(str(path)):
                faults = build_checks.parse_faults(parser)
                raise build_checks.parse_error(
                    faults, opset_of(model), self._options.precision, self._trt, self._log, self._mark
                )
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            line = str(error).strip().splitlines()[0][:300]
            raise EngineError(
                f"the network is not valid ONNX: {line}", "Export it again, with opset 17 if the operators allow it."
            ) from None
        except OSError as error:
            raise EngineError(
                f"{path} cannot be written, which TensorRT is to read the network from: {error.strerror or error}",
                "Make room there, or choose another folder with --output.",
            ) from None
        finally:
            path.unlink(missing_ok=True)

    def _configure(self, builder: trt.Builder, config: trt.IBuilderConfig) -> TimingCache | None:
        trt, options = self._trt, self._options
        if options.workspace_bytes is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
        if options.optimization_level is not None:
            config.builder_optimization_level = options.optimization_level
        if not options.tf32:
            config.clear_flag(trt.BuilderFlag.TF32)
        # Without it the inspector has names alone, and nobody could say what the plan computes in.
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        # All of a network on the one stream that it is given: work in flight overlaps by slots, each with a stream, and
        # a CUDA graph of a slot has no forks to join.
        config.max_aux_streams = 0
        if options.hardware_compat == "ampere+":
            config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
        elif options.hardware_compat == "same-compute-capability":
            self._same_capability(config)
        if options.version_compat:
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        if options.dla is not None:
            config.default_device_type = trt.DeviceType.DLA
            config.DLA_core = options.dla
            config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
        for profile in options.profiles:
            self._add_profile(builder, config, profile)
        cache = None
        if options.timing_cache is not None:
            cache = TimingCache(cache_file(options.timing_cache, trt, self._driver.device))
            cache.attach(config)
        config.progress_monitor = make_monitor(trt, self._monitoring)
        return cache

    def _same_capability(self, config: trt.IBuilderConfig) -> None:
        trt = self._trt
        if version(trt) >= (10, 13):  # older ones were refused before anything began
            config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY

    def _add_profile(self, builder: trt.Builder, config: trt.IBuilderConfig, profile: Profile) -> None:
        made = check(builder.create_optimization_profile(), "make an optimization profile", self._log, self._mark)
        refused = f"TensorRT refuses the shapes {profile.line()} for the input {profile.input!r}"
        try:
            made.set_shape(profile.input, profile.min, profile.opt, profile.max)
        except ValueError as error:
            raise EngineError(f"{refused}: {error}", "Give other --shapes.") from None
        if not made or config.add_optimization_profile(made) < 0:
            raise failure(refused, self._log, self._mark)

    def _serialized(self, builder: trt.Builder, network: trt.INetworkDefinition, config: trt.IBuilderConfig) -> bytes:
        free, _ = self._driver.memory()
        mark = self._log.mark()
        plan = builder.build_serialized_network(network, config)
        self._leave_if_asked()
        if plan is None:
            raise build_checks.build_error(self._options, self._driver.device, free, self._trt, self._log, mark)
        return bytes(plan)

    def _proved(self, data: bytes, types: dict[str, int], taken: float, notes: list[str]) -> BuiltPlan:
        """The plan loaded again, as whoever runs it will, and what is found in it."""
        precision = self._options.precision
        plan = PlanEngine(data, self._driver, "the plan just built", host_code=self._options.version_compat)
        try:
            layers = inspection.layers_of(self._trt, plan)
            tensors: list[dict[str, Any]] = [tensor.entry() for tensor in plan.tensors]
        finally:
            plan.close()
        found = inspection.count_types(layers)
        if found:
            inspection.check_found(precision, types, found)
        else:
            # Layers by name alone: the types are then those that strong typing holds the builder to.
            notes.append("the inspector names no types: those of the strongly typed network are given")
            found = types
        log = [*notes, *self._log.since(self._mark)]
        return BuiltPlan(data, tensors, found, taken, layers, log)
