"""A TensorRT plan on the GPU: loaded, its tensors looked at, run between two device addresses.

Plans that this package makes have one picture in and one map of scores or labels out, at a fixed size or, by
optimization profiles, at several. Everything here needs the driver's context: ``with driver.current():``.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from segcam.engines.tensorrt_api import check, created, dtype_word, failure, load_tensorrt, logger, numpy_dtype
from segcam.errors import CudaError, EngineError

if TYPE_CHECKING:
    import tensorrt as trt

    from segcam.kernels.cuda.driver import Driver, Stream

Shape = tuple[int, ...]

#: What TensorRT asks of the address of a tensor (NvInferRuntime.h, IExecutionContext::setTensorAddress).
ALIGNMENT = 256


@dataclass(frozen=True)
class PlanTensor:
    """An input or output of a plan. ``dtype`` is NumPy's word (or "bfloat16"), ``shape`` has -1 for open axes,
    ``profiles`` are (smallest, preferred, largest) shapes, one for each profile, () for what isn't open."""

    name: str
    mode: Literal["input", "output"]
    dtype: str
    shape: Shape
    format: str
    profiles: tuple[tuple[Shape, Shape, Shape], ...] = ()

    @property
    def words(self) -> str:
        return f"{self.name} ({self.dtype} {show(self.shape)})"

    def entry(self) -> dict[str, Any]:
        """As manifests keep it."""
        profile = [list(shape) for shape in self.profiles[0]] if self.profiles else None
        return {
            "name": self.name,
            "mode": self.mode,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "format": self.format,
            "profile": profile,
        }


def show(shape: Shape) -> str:
    """A shape in words: "1x3x?x?"."""
    return "x".join("?" if n < 0 else str(n) for n in shape)


def read_tensors(trt: ModuleType, engine: trt.ICudaEngine, name: str) -> tuple[PlanTensor, ...]:
    """Inputs and outputs of a loaded plan, which ``name`` names in errors.

    Raises EngineError for tensors that cannot be given by address: not on the device, or not linear in memory.
    """
    found = []
    for index in range(engine.num_io_tensors):
        tensor = engine.get_tensor_name(index)
        given = engine.get_tensor_mode(tensor) == trt.TensorIOMode.INPUT
        shape = tuple(engine.get_tensor_shape(tensor))
        if engine.get_tensor_location(tensor) != trt.TensorLocation.DEVICE:
            raise EngineError(
                f"{name}: its tensor {tensor!r} lies in host memory: sizes depend on what is in it",
                "Export the network with a fixed size, and build it again.",
            )
        form = engine.get_tensor_format(tensor)
        if form != trt.TensorFormat.LINEAR:
            raise EngineError(
                f"{name}: its tensor {tensor!r} is laid out as {form.name}, expected LINEAR",
                "Build it again with build-engine, which leaves formats as they are.",
            )
        profiles = []
        if given and -1 in shape:
            for k in range(engine.num_optimization_profiles):
                least, best, most = (tuple(dims) for dims in engine.get_tensor_profile_shape(tensor, k))
                profiles.append((least, best, most))
        word = dtype_word(engine.get_tensor_dtype(tensor))
        found.append(PlanTensor(tensor, "input" if given else "output", word, shape, "linear", tuple(profiles)))
    return tuple(found)


class PlanEngine:
    """A plan, loaded. Executions of it share its weights; ``close`` it after all of them.

    ``data`` is trusted: the caller has checked it against its manifest, or has just built it. ``host_code`` lets a
    version-compatible plan load the runtime that it carries. Raises EngineError with TensorRT's own words where it
    refuses the plan, and for plans with other inputs and outputs than one each; CudaError where CUDA doesn't work.
    """

    def __init__(self, data: bytes, driver: Driver, name: str, *, host_code: bool = False) -> None:
        self.name, self.driver = name, driver
        self._trt = load_tensorrt()
        self.log = logger(self._trt)
        self._runtime: trt.Runtime | None = None
        self._engine: trt.ICudaEngine | None = None
        self.tensors: tuple[PlanTensor, ...] = ()
        with driver.current():
            try:
                self._load(self._trt, data, host_code)
            except BaseException:
                self.close()
                raise

    def _load(self, trt: ModuleType, data: bytes, host_code: bool) -> None:
        mark = self.log.mark()
        runtime = created(lambda: trt.Runtime(self.log), "runtime", self.log)
        self._runtime = runtime
        if host_code:
            runtime.engine_host_code_allowed = True
        engine = check(runtime.deserialize_cuda_engine(data), f"load {self.name}", self.log, mark)
        self._engine = engine
        self.tensors = read_tensors(trt, engine, self.name)
        self.input = self._only("input", "one picture")
        self.output = self._only("output", "one map of scores or labels")
        numpy_dtype(self.input.dtype)
        numpy_dtype(self.output.dtype)

    def _only(self, mode: str, expected: str) -> PlanTensor:
        found = [tensor for tensor in self.tensors if tensor.mode == mode]
        if len(found) != 1:
            words = ", ".join(tensor.words for tensor in found) or "none"
            raise EngineError(
                f"{self.name} has {len(found)} {mode}s ({words}), expected {expected}",
                "Build it from its ONNX file with build-engine, which leaves one of each.",
            )
        return found[0]

    @property
    def engine(self) -> trt.ICudaEngine:
        """TensorRT's own object. Raises EngineError after ``close``."""
        if self._engine is None:
            raise EngineError(f"the plan {self.name} is closed", "Load it again.")
        return self._engine

    def shape_for(self, size: tuple[int, int] | None) -> Shape:
        """The shape of the input for one picture of ``size`` (height, width); None: as the first profile prefers.

        Raises EngineError where the plan doesn't take that, with what it takes.
        """
        shape = self.input.shape
        if len(shape) != 4:
            raise EngineError(f"{self.name}: its input is {self.input.words}, expected 4 dimensions (NCHW or NHWC)")
        first, last = (1, 3) if shape[3] == 3 and shape[1] != 3 else (2, 4)
        preferred = self.input.profiles[0][1] if self.input.profiles else shape
        wanted = (1, *preferred[1:first], *(size or preferred[first:last]), *preferred[last:])
        self.profile_for(wanted)
        return wanted

    def profile_for(self, shape: Shape) -> int:
        """The first profile that takes an input of ``shape``. Raises EngineError where none does."""
        own = self.input.shape
        if len(shape) == len(own) and all(have in (-1, want) for have, want in zip(own, shape, strict=True)):
            if not self.input.profiles:
                return 0
            for number, (least, _, most) in enumerate(self.input.profiles):
                if all(a <= n <= b for a, n, b in zip(least, shape, most, strict=True)):
                    return number
        takes = " or ".join(f"{show(least)} to {show(most)}" for least, _, most in self.input.profiles) or show(own)
        raise EngineError(
            f"{self.name} takes an input of {takes}, not {show(shape)}",
            "Build it for one picture of that size: build-engine with --size HEIGHT,WIDTH, or --shapes MIN:OPT:MAX.",
        )

    def execution(self, shape: Shape) -> Execution:
        """Something that runs the plan on inputs of ``shape``. Raises EngineError."""
        with self.driver.current():
            return Execution(self, shape)

    def profile(self, shape: Shape, runs: int = 20) -> list[tuple[str, float]]:
        """Mean milliseconds of each layer over ``runs`` runs on a picture of zeros, in the order they ran.

        Layers are timed one after the other, so that their sum is more than the network's own time. Raises EngineError.
        """
        from segcam.engines.layer_times import layer_times

        return layer_times(self, shape, runs)

    def close(self) -> None:
        """Give the plan's memory back; again is fine."""
        with self.driver.current():
            # An engine needs its runtime until it is gone.
            self._engine = None
            self._runtime = None


class Execution:
    """One run of a plan at a time, on inputs of one shape. Used by one thread at a time, which any thread may be."""

    def __init__(self, plan: PlanEngine, shape: Shape) -> None:
        self.plan, self.input_shape = plan, shape
        self._log = plan.log
        mark = self._log.mark()
        self._addresses: tuple[int, int] | None = None
        self._context: trt.IExecutionContext | None = check(
            plan.engine.create_execution_context(), f"make room to run {plan.name}", self._log, mark
        )
        try:
            self.output_shape = self._set_shape(shape, mark)
        except BaseException:
            self._context = None
            raise

    @property
    def context(self) -> trt.IExecutionContext:
        """TensorRT's own object. Raises EngineError after ``close``."""
        if self._context is None:
            raise EngineError(f"an execution of {self.plan.name} is closed", "Load the plan again.")
        return self._context

    @property
    def input_bytes(self) -> int:
        return prod(self.input_shape) * numpy_dtype(self.plan.input.dtype).itemsize

    @property
    def output_bytes(self) -> int:
        return prod(self.output_shape) * numpy_dtype(self.plan.output.dtype).itemsize

    def _set_shape(self, shape: Shape, mark: int) -> Shape:
        plan, context = self.plan, self.context
        number = plan.profile_for(shape)
        if number:
            stream = plan.driver.stream()
            try:
                done = context.set_optimization_profile_async(number, int(stream.handle))
                check(done, f"take profile {number} of {plan.name}", self._log, mark)
                stream.synchronize()
            finally:
                stream.close()
        if -1 in plan.input.shape:
            done = context.set_input_shape(plan.input.name, shape)
            check(done, f"set the input of {plan.name} to {show(shape)}", self._log, mark)
        unknown = context.infer_shapes()
        if unknown:
            raise failure(f"the sizes of {', '.join(unknown)} of {plan.name} are not known", self._log, mark)
        made = tuple(context.get_tensor_shape(plan.output.name))
        if -1 in made:
            raise EngineError(
                f"{plan.name}: the size of its output {plan.output.name!r} ({show(made)}) depends on the picture",
                "Export the network without operators such as NonZero, and build it again.",
            )
        return made

    def enqueue(self, stream: Stream, input_address: int, output_address: int) -> None:
        """Run on ``stream``, from one device address to another, without waiting. ``input_bytes`` are read and
        ``output_bytes`` written there, C-contiguous; the memory must live until the stream has come past this.

        The first run takes memory and time, and cannot be captured into a CUDA graph: see ``warm_up``. Raises
        EngineError, for an address that isn't a multiple of 256 as well.
        """
        context, mark = self.context, self._log.mark()
        if self._addresses != (input_address, output_address):
            self._addresses = None
            for tensor, address in ((self.plan.input, input_address), (self.plan.output, output_address)):
                if address <= 0 or address % ALIGNMENT:
                    raise CudaError(
                        f"the device address {address:#x} for {tensor.name!r} is not a multiple of {ALIGNMENT}",
                        "Give each tensor memory of its own.",
                    )
                done = context.set_tensor_address(tensor.name, address)
                check(done, f"take {address:#x} as the memory of {tensor.name!r}", self._log, mark)
            self._addresses = (input_address, output_address)
        check(context.execute_async_v3(int(stream.handle)), f"run {self.plan.name}", self._log, mark)

    def warm_up(self, stream: Stream, input_address: int, output_address: int) -> None:
        """Run once and wait, so that what a first run does is done. What lies at the input may be anything finite."""
        self.enqueue(stream, input_address, output_address)
        stream.synchronize()

    def close(self) -> None:
        """Give its memory back; nothing of it may be running any more. Again is fine."""
        if self._context is not None:
            with self.plan.driver.current():
                self._context = None
