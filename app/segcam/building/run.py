"""One build from end to end: load, simplify, cut the head, rewrite, precision; then TensorRT or the network itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segcam.building import store
from segcam.building.calibrate import check_source
from segcam.building.network import Typed, described, network_bytes, same_spec
from segcam.building.options import FOLDER, BuildOptions
from segcam.building.prepare import Loaded, Prepared, check, explained, load, prepare
from segcam.building.report import (
    Built,
    agreement_words,
    kept_words,
    read_report,
    report_path,
    report_text,
    trtexec_line,
)
from segcam.engines.inspection import network_types
from segcam.engines.manifest import manifest_path
from segcam.engines.plan_options import Progress
from segcam.errors import EngineError, UsageError
from segcam.zoo_engine import resolve_engine

if TYPE_CHECKING:
    import onnx

    from segcam.building.calibrate import Feeds
    from segcam.building.gpu import Gpu

Say = Callable[[str], None]

#: Fewer labels in common with fp32 than this are worth a warning. What is broken is an error, see ``fit_precision``.
_CLOSE = 0.999
#: The opset of the first DequantizeLinear that gives float16. TensorRT 10.0 reads up to 20.
_HALVES_FROM_INTEGERS = 19


def build(options: BuildOptions, progress: Progress, say: Say, warn: Say) -> Built:
    """Build what ``options`` ask for. ``say`` gets lines about what takes time or was chosen, ``warn`` those to mind.

    Raises UsageError, EngineError, SpecError, SourceError, ZooError, MissingDependencyError, CudaError; nothing is left
    half-written by any of them, nor by KeyboardInterrupt.
    """
    begun = time.monotonic()
    options.check()
    if options.output and not options.dry_run:
        store.check_output(options.output, 0)
    check_source(options.calibrate)
    size = _size(options)
    source = resolve_engine(options.onnx, size, say, offline=options.offline)
    gpu = _gpu(options)
    with gpu if gpu else nullcontext():
        progress.begin("load")
        with explained(source):
            loaded = load(source, options, warn)
        options = _with_precision(options, loaded.model, say)
        progress.end("load", _loaded_words(loaded))
        named = source == Path(options.onnx)
        output = options.output or FOLDER / _file_name(source.stem if named else options.onnx, options)
        _check_target(output, source, options)
        if not options.dry_run:
            store.check_output(output, source.stat().st_size)
        guard: AbstractContextManager[None] = nullcontext() if options.dry_run else store.building(output, say)
        with guard:
            job = Job(options, loaded, output, gpu, progress, say, warn, begun)
            with explained(source):
                return job.run()


def _size(options: BuildOptions) -> tuple[int, int] | None:
    """The size at which a network of the zoo is to be exported."""
    if options.shapes is None:
        return options.size
    best = options.shapes[1]
    return (best[2], best[3]) if best[1] == 3 else (best[1], best[2])


def _gpu(options: BuildOptions) -> Gpu | None:
    """TensorRT and the GPU, before anything takes time. Raises for what is missing."""
    if options.target == "onnx" or options.dry_run:
        return None
    from segcam.building.gpu import open_gpu

    return open_gpu(device=options.device)


def _with_precision(options: BuildOptions, model: onnx.ModelProto, say: Say) -> BuildOptions:
    """``options`` with a precision, said if it wasn't asked for; and the graph is what they say. Raises EngineError."""
    from segcam.onnx_tools.quantized import check_quantized, has_qdq

    if options.quantized:
        check_quantized(model, options.quantized)
        return options
    found = has_qdq(model)
    if found is None:
        _check_own_types(options, model)
        if not options.precisions:
            say("precision: fp16, the default; fp32 and bf16 are others")
        return options
    kind: Literal["int8", "fp8"] = "fp8" if found == "fp8" else "int8"
    if options.precisions:
        raise EngineError(
            f"the network is quantized to {found} already, and --{options.precision} was asked for",
            f"Give --{kind} (with --fp16 the rest becomes half precision), or the network before it was quantized.",
        )
    check_quantized(model, kind)
    say(f"precision: {kind}, to which the network is quantized; the rest as it is (--{kind} --fp16 converts that, too)")
    return replace(options, precisions=(kind,))


def _check_own_types(options: BuildOptions, model: onnx.ModelProto) -> None:
    """Raise EngineError for a network that was converted before, and to something else than is asked for."""
    for word, half in (("float16", "fp16"), ("bfloat16", "bf16")):
        if options.half != half and network_types(model).get(word):
            asked = f"--{options.precision} was asked for" if options.precisions else "fp16 is the default"
            raise EngineError(
                f"the network computes in {word} already, and {asked}",
                f"Give --{half}, or the network as it was in float32.",
            )


def _loaded_words(loaded: Loaded) -> str:
    shape = "x".join(map(str, loaded.input_shape))
    opened = f", open: {loaded.profile.line()}" if loaded.profile else ""
    return f"{len(loaded.model.graph.node)} nodes, input {shape}{opened}"


def _file_name(name: str, options: BuildOptions) -> str:
    return f"{name}_{options.precision_name}{'.onnx' if options.target == 'onnx' else '.plan'}"


def _check_target(output: Path, source: Path, options: BuildOptions) -> None:
    """Raise UsageError where ``output`` is the source, or something that no build made."""
    if output.exists() and source.exists() and output.samefile(source):
        raise UsageError(f"{output} is the network itself", "Give the output another name with --output.")
    if options.dry_run or options.force or not output.is_file():
        return
    record = report_path(output) if options.target == "onnx" else manifest_path(output)
    if not record.is_file():
        raise UsageError(
            f"{output} is there already, and build-engine did not write it",
            "Give another name with --output, or --force to overwrite it.",
        )


@dataclass(eq=False)
class Job:
    """One build, its output locked."""

    options: BuildOptions
    loaded: Loaded
    output: Path
    gpu: Gpu | None
    progress: Progress
    say: Say
    warn: Say
    begun: float

    def run(self) -> Built:
        if not self.options.force and not self.options.dry_run:
            there = self._already()
            if there is not None:
                return there
        prepared = prepare(self.loaded, self.options, self.warn, self.progress)
        feeds = self._feeds(prepared)
        check(self.progress)
        typed = self._typed(prepared, feeds)
        check(self.progress)
        if self.gpu:
            from segcam.building.gpu import build_with_tensorrt

            return build_with_tensorrt(self, self.gpu, prepared, typed, feeds)
        return self._network(prepared, typed)

    @property
    def source(self) -> str:
        """What to type after --onnx to get the same: the name of the zoo, or the file from anywhere."""
        given = Path(self.options.onnx)
        return str(given.absolute()) if self.loaded.path == given else self.options.onnx

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begun

    def flags(self) -> dict[str, Any]:
        return self.options.flags()

    def built(self, prepared: Prepared, typed: Typed, size: int, **more: Any) -> Built:
        """The outcome in words, but for what only a plan has."""
        return Built(
            path=self.output,
            source=self.source,
            precision=self.options.precision_name.replace("_", " and "),
            spec=prepared.spec,
            size=size,
            head=prepared.head,
            rewrites=prepared.rewrites,
            notes=prepared.notes,
            kept=typed.kept,
            agreement=agreement_words(typed.agreement) if typed.agreement else "",
            seconds=self.seconds,
            batch=self.loaded.profile.min[0] if self.loaded.profile else self.loaded.input_shape[0],
            **more,
        )

    def _already(self) -> Built | None:
        """What is at the output, if it is of the same source, flags and spec."""
        if self.gpu:
            from segcam.building.gpu import already_built

            spec = already_built(self.output, self.loaded, self.flags(), self.gpu)
        else:
            found = read_report(self.output)
            same = found and (found.get("source_sha256"), found.get("flags")) == (self.loaded.sha256, self.flags())
            spec = same_spec(found["spec"], self.loaded.spec, bool(found.get("head"))) if found and same else None
        if spec is None:
            return None
        precision = self.options.precision_name
        size = self.output.stat().st_size
        return Built(path=self.output, source=self.source, precision=precision, spec=spec, size=size, already=True)

    def _feeds(self, prepared: Prepared) -> Feeds | None:
        """Pictures, where something is to be compared."""
        if self.options.half is None and self.gpu is None:
            if self.options.calibrate:
                self.say("nothing is converted, so that nothing is compared: --calibrate is left out")
            return None
        from segcam.building.calibrate import calibration_feeds
        from segcam.building.options import CALIBRATION_FRAMES, STREET

        self.progress.begin("frames")
        if not self.options.calibrate:
            self.say(f"pictures to check with: {STREET}, a made-up street (--calibrate names others)")
        made = calibration_feeds(
            self.options.calibrate,
            prepared.spec,
            self.loaded.input_shape,
            self.warn,
            lambda done: self.progress.step(done, CALIBRATION_FRAMES, "frames"),
        )
        self.progress.end("frames", made.source)
        return made

    def _typed(self, prepared: Prepared, feeds: Feeds | None) -> Typed:
        """The network in the precision asked for, measured on ``feeds``."""
        self.progress.begin("precision")
        half = self.options.half
        if half is None:
            self.progress.end("precision", self.options.precision_name)
            return Typed(described(prepared.model, prepared.spec), None)
        from segcam.onnx_tools.precision import fit_precision

        assert feeds
        model = self._for_halves(prepared.model) if self.options.quantized else prepared.model
        fitted = fit_precision(model, half, feeds.feeds, feeds.source, channel_axis=prepared.channel_axis)
        share = fitted.agreement.labels_equal
        if share < _CLOSE:
            other = "" if self.options.calibrate else "; name pictures of its own kind with --calibrate"
            self.warn(f"{share:.2%} of the labels in {half} are those of fp32, on {feeds.source}{other}")
        stay = f", {kept_words(len(fitted.kept))}" if fitted.kept else ""
        self.progress.end("precision", f"{half}: {share:.3%} of the labels equal{stay}")
        return Typed(described(fitted.model, prepared.spec), prepared.model, dict(fitted.kept), fitted.agreement)

    def _for_halves(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """A quantized ``model`` at the opset from which on halves come out of its integers."""
        from segcam.onnx_tools.naming import raise_opset

        try:
            return raise_opset(model, _HALVES_FROM_INTEGERS)
        except EngineError as error:
            self.warn(f"what reads quantized values stays fp32: {error.message}")
            return model

    def _network(self, prepared: Prepared, typed: Typed) -> Built:
        """The prepared network as a file (unless this is a dry run), with its report and the line for trtexec."""
        data = network_bytes(typed.model)
        written = not self.options.dry_run
        tensorrt = self.options.target == "tensorrt"
        plan = self.output if tensorrt else self.output.with_suffix(".plan")
        network = self.output.with_suffix(".onnx") if tensorrt else self.output
        line = trtexec_line(network, plan, self.options, self.loaded.profile)
        if written:
            self.progress.begin("write")
            content = {
                "source": self.source,
                "source_sha256": self.loaded.sha256,
                "flags": self.flags(),
                "precision": self.options.precision_name,
                "head": prepared.head,
                "rewrites": list(prepared.rewrites),
                "notes": list(prepared.notes),
                "kept_fp32": typed.kept,
                "agreement": typed.agreement.as_json() if typed.agreement else None,
                "trtexec": line,
            }
            text = report_text(data, content, prepared.spec)
            store.write_pair(self.output, data, report_path(self.output), text)
            self.progress.end("write", str(self.output))
            beside = self.output.with_name(self.output.name + ".json")
            if beside.is_file():
                self.warn(
                    f"{beside} goes before the spec inside the network: remove it if it belongs to an earlier one"
                )
        return self.built(prepared, typed, len(data), written=written, trtexec=line)
