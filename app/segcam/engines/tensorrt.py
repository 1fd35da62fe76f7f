"""TensorRT plans as engines: pictures and scores in pinned host memory, the network on an NVIDIA GPU."""

from __future__ import annotations

import re
import shlex
import sys
import traceback
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segcam.engines.base import EngineInfo, EngineOptions
from segcam.engines.manifest import Manifest, Running, missing_plan, read_manifest, remarks, verify
from segcam.engines.model import scores_layout
from segcam.engines.plan import Execution, PlanEngine, PlanTensor, Shape, show
from segcam.engines.tensorrt_api import has_driver_library, load_tensorrt, numpy_dtype, version_words
from segcam.errors import EngineError, MissingDependencyError, UsageError
from segcam.onnx_tools.spec import ModelSpec, resolve_spec

if TYPE_CHECKING:
    from segcam.kernels.cuda.driver import DeviceMemory, Driver, Event, PinnedMemory, Stream

#: One runs while the other's picture goes up and its scores come down.
_REQUESTS = 2


@dataclass(eq=False)
class _Slot:
    """All that one frame in flight needs. Events: the network begins, it ends, its output has arrived."""

    execution: Execution
    stream: Stream
    given: DeviceMemory
    made: DeviceMemory
    given_host: PinnedMemory
    made_host: PinnedMemory
    begun: Event
    ended: Event
    arrived: Event

    # Made anew for each use: pinned memory stays for as long as there is a view of it.

    @property
    def input(self) -> NDArray[Any]:
        of = self.execution
        return self.given_host.array.view(numpy_dtype(of.plan.input.dtype)).reshape(of.input_shape)

    @property
    def output(self) -> NDArray[Any]:
        of = self.execution
        return self.made_host.array.view(numpy_dtype(of.plan.output.dtype)).reshape(of.output_shape)


class TensorRtEngine:
    """See ``engines.base.Engine``. Each slot has an execution, a stream and memory of its own, so that the copies of
    one frame overlap with the network on another.

    Calls may come from any thread, one at a time for each slot. ``driver`` is used and left open; None: one is opened
    by ``activate`` and closed by ``close``.
    """

    def __init__(
        self, path: Path, options: EngineOptions, warn: Callable[[str], None], driver: Driver | None = None
    ) -> None:
        self._path, self._options, self._warn, self._given_driver = path, options, warn, driver
        self._driver: Driver | None = None
        self._plan: PlanEngine | None = None
        self._spec: ModelSpec | None = None
        self._info: EngineInfo | None = None
        self._slots: list[_Slot] = []
        self._held = ExitStack()

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
            self._held.callback(_quietly, plan.close)
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

    def _open_driver(self) -> Driver:
        from segcam.kernels.cuda.driver import open_driver

        return open_driver(device=device_number(self._options.device), warn=self._warn)

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

    def _make_slots(self, plan: PlanEngine, shape: Shape) -> None:
        asked = self._options.requests
        for number in range(asked or _REQUESTS):
            with ExitStack() as made:
                try:
                    slot = self._make_slot(plan, shape, made)
                except BaseException as error:
                    _let_go(error)
                    if number == 0 or asked or not isinstance(error, EngineError):
                        raise
                    self._warn(f"{plan.name}: {number} frame in flight, there is no room for more ({error.message})")
                    return
                self._slots.append(slot)
                self._held.callback(made.pop_all().close)

    def _make_slot(self, plan: PlanEngine, shape: Shape, made: ExitStack) -> _Slot:
        driver = plan.driver

        def event() -> Event:
            event = driver.event()
            made.callback(_quietly, event.close)
            return event

        def memory(nbytes: int) -> DeviceMemory:
            memory = driver.allocate(nbytes)
            made.callback(_quietly, memory.close)
            return memory

        def pinned(nbytes: int) -> PinnedMemory:
            pinned = driver.pinned(nbytes)
            made.callback(_quietly, pinned.close)
            pinned.array.fill(0)
            return pinned

        execution = plan.execution(shape)
        made.callback(_quietly, execution.close)
        stream = driver.stream()
        made.callback(_quietly, stream.close)
        slot = _Slot(
            execution,
            stream,
            memory(execution.input_bytes),
            memory(execution.output_bytes),
            pinned(execution.input_bytes),
            pinned(execution.output_bytes),
            event(),
            event(),
            event(),
        )
        # Memory may only be given back when nothing runs on it any more: this comes first when all is undone.
        made.callback(_quietly, stream.synchronize)
        driver.upload(slot.given.address, slot.input, stream)
        execution.warm_up(stream, slot.given.address, slot.made.address)
        return slot

    @property
    def spec(self) -> ModelSpec:
        self._active()
        assert self._spec
        return self._spec

    @property
    def info(self) -> EngineInfo:
        self._active()
        assert self._info
        return self._info

    @property
    def plan(self) -> PlanEngine:
        """The loaded plan, for who has device memory of his own. Raises EngineError."""
        self._active()
        assert self._plan
        return self._plan

    def _active(self) -> Driver:
        if self._info is None or self._driver is None:
            raise EngineError(f"the engine {self._path.name} is not active", "Call activate() first.")
        return self._driver

    def input(self, slot: int) -> NDArray[Any]:
        self._active()
        return self._slots[slot].input

    def start(self, slot: int) -> None:
        driver, on = self._active(), self._slots[slot]
        with driver.current():
            driver.upload(on.given.address, on.input, on.stream)
            on.begun.record(on.stream)
            on.execution.enqueue(on.stream, on.given.address, on.made.address)
            on.ended.record(on.stream)
            driver.download(on.output, on.made.address, on.stream)
            on.arrived.record(on.stream)

    def ready(self, slot: int) -> bool:
        with self._active().current():
            return self._slots[slot].arrived.done()

    def wait(self, slot: int) -> NDArray[Any]:
        with self._active().current():
            self._slots[slot].arrived.synchronize()
        found = self._slots[slot].output
        assert self._plan and self._info
        if self._plan.output.dtype != "bfloat16" or self._info.output_layout == "NHWC":
            return found
        # Segcam's kernels read bfloat16 by pixels, not by planes: its numbers as float32, which holds them exactly.
        wide: NDArray[np.float32] = np.left_shift(found, 16, dtype=np.uint32).view(np.float32)
        return wide

    def elapsed_ms(self, slot: int) -> float:
        with self._active().current():
            return self._slots[slot].ended.ms_since(self._slots[slot].begun)

    def layer_times(self, runs: int = 20) -> list[tuple[str, float]]:
        """See ``PlanEngine.profile``, at the size that the engine runs at."""
        return self.plan.profile(self.info.input_shape, runs)

    def close(self) -> None:
        driver, self._driver = self._driver, None
        self._info = self._spec = self._plan = None
        _let_go(sys.exc_info()[1])
        self._slots = []
        held = self._held.pop_all()
        if driver is None:
            return
        with suppress(EngineError), driver.current():
            held.close()
        # Where the context is gone, so is everything in it; what Python holds of it is let go all the same.
        held.close()
        if driver is not self._given_driver:
            _quietly(driver.close)


def device_number(device: str) -> int:
    """Which GPU ``--device`` means: cuda:1, GPU.1 or 1; 0 where it says no number. Raises UsageError."""
    match = re.fullmatch(r"(?:|CPU|CUDA|GPU|AUTO)(?:(?:^|[:.])(\d+))?", device.strip().upper(), re.ASCII)
    if match is None:
        raise UsageError(f"--device {device!r} is no NVIDIA GPU", "Name it by number, such as --device cuda:0.")
    return int(match[1] or 0)


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


def _quietly(undo: Callable[[], None]) -> None:
    """What fails while things are given back would hide why they are."""
    with suppress(EngineError):
        undo()


def _let_go(error: BaseException | None) -> None:
    """The frames that an error on its way has been through hold streams and memory, which PyCUDA gives back when the
    last reference goes: before the context, not after."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
