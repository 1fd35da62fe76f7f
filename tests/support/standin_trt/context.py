"""Running: the execution context behind the face."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from standin_cuda import Refused

from standin_trt import texts
from standin_trt.behind import Behind, World

ALIGNMENT = 256  # of NvInferRuntime.h


class IExecutionContext(Behind):
    """Shapes, addresses, enqueue. Not for two threads at once, and not to be captured before it has run plainly."""

    def __init__(self, world: World, engine: Any, managed: bool) -> None:
        super().__init__(world)
        self._engine, self.managed = engine, managed
        self.name = ""
        self.profiler: Any = None
        self.enqueue_emits_profile = True
        self.active_optimization_profile = 0
        self.nvtx_verbosity = engine.profiling_verbosity
        self.debug_sync = False
        self.persistent_cache_limit = 0
        self._device_memory = 0
        self.shapes = {one["name"]: tuple(one["shape"]) for one in engine.tensors.values() if one["input"]}
        self.addresses: dict[str, int] = {}
        self.warm = False  # a plain run since the shapes last changed is over: only then can a graph be captured
        self._pending: list[tuple[str, float]] = []
        self._busy = threading.Lock()

    @property
    def engine(self) -> Any:
        """Its engine."""
        return self._engine

    @property
    def device_memory(self) -> int:
        """10.0: only to be set."""
        return self._device_memory

    @device_memory.setter
    def device_memory(self, value: int) -> None:
        self._device_memory = value

    def set_device_memory(self, memory: int, size: int) -> None:
        """For USER_MANAGED contexts."""
        if size < self._engine.device_memory_size_v2 or memory % ALIGNMENT:
            self.world.log(
                "ERROR", f"Error Code 3: device memory of {size} bytes at {memory:#x} is too small or not aligned"
            )
            return
        self._device_memory = memory

    def set_input_shape(self, name: str, shape: Any) -> bool:
        """False, with the reason in the log, for what the engine doesn't take."""
        wanted, tensor = tuple(shape), self._engine.known(name)
        if tensor is None or not tensor["input"]:
            self._say(f"setInputShape: {name} is not an input tensor")
            return False
        declared = tensor["shape"]
        if len(wanted) != len(declared) or any(
            own not in (-1, given) for own, given in zip(declared, wanted, strict=True)
        ):
            self._say(texts.SHAPE_STATIC.format(name=name, wanted=list(wanted), declared=declared))
            return False
        profiles = self._engine.header["profiles"]
        if profiles and name in profiles[self.active_optimization_profile]:
            low, _, high = profiles[self.active_optimization_profile][name]
            if not all(a <= given <= b for a, given, b in zip(low, wanted, high, strict=True)):
                self._say(
                    texts.SHAPE_RANGE.format(
                        wanted=list(wanted), name=name, index=self.active_optimization_profile, low=low, high=high
                    )
                )
                return False
        if self.shapes[name] != wanted:
            self.shapes[name], self.warm = wanted, False
        return True

    def get_tensor_shape(self, name: str) -> Any:
        """With -1 while an input's shape is open, or where only the data tell."""
        tensor = self._engine.known(name)
        if tensor is None:
            return self.world.dims([])
        if tensor["input"]:
            return self.world.dims(self.shapes[name])
        if any(-1 in shape for shape in self.shapes.values()):
            return self.world.dims(tensor["shape"])
        return self.world.dims(self._engine.runner.shape(name, self.shapes))

    def get_tensor_strides(self, name: str) -> Any:
        """Of a dense tensor, in elements."""
        shape, out, step = tuple(self.get_tensor_shape(name)), [], 1
        for size in reversed(shape):
            out.insert(0, step)
            step *= size
        return self.world.dims(out)

    @property
    def all_binding_shapes_specified(self) -> bool:
        """Whether every input has one."""
        return not any(-1 in shape for shape in self.shapes.values())

    def infer_shapes(self) -> list[str]:
        """The inputs whose shapes are still open."""
        return [name for name, shape in self.shapes.items() if -1 in shape]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        """False for an unknown name or an address that isn't aligned."""
        if self._engine.known(name) is None:
            return False
        if memory % ALIGNMENT:
            self._say(f"setTensorAddress: address {memory:#x} of {name} is not aligned to {ALIGNMENT} bytes")
            return False
        self.addresses[name] = memory
        return True

    def get_tensor_address(self, name: str) -> int:
        """0 while there is none."""
        self._engine.known(name)
        return self.addresses.get(name, 0)

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        """Its shapes have to be set again."""
        if not 0 <= profile_index < self._engine.num_optimization_profiles:
            self._say(f"optimization profile {profile_index} does not exist")
            return False
        if profile_index != self.active_optimization_profile:
            self.active_optimization_profile, self.warm = profile_index, False
            for name in self.shapes:
                self.shapes[name] = tuple(self._engine.tensors[name]["shape"])
        return True

    def set_aux_streams(self, aux_streams: list[int]) -> None:
        """As many as the engine has are used."""

    def report_to_profiler(self) -> bool:
        """Hand over what an enqueue without profile kept back."""
        if self.profiler is None:
            return False
        self._emit()
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        """Queue one run on the stream."""
        return self._alone(lambda: self._enqueue(stream_handle))

    def execute_v2(self, bindings: list[int]) -> bool:
        """One run at once, addresses in the order of the tensors."""

        def run() -> bool:
            for name, address in zip(self._engine.tensors, bindings, strict=True):
                if not self.set_tensor_address(name, address):
                    return False
            if not self._enqueue(0):
                return False
            self.world.machine.streams.synchronize(0)
            return True

        return self._alone(run)

    def _alone(self, work: Callable[[], bool]) -> bool:
        if not self._busy.acquire(blocking=False):
            self.world.control.problems.append("one execution context used by two threads at once")
            self._say("execution contexts are not thread-safe")
            return False
        try:
            return work()
        finally:
            self._busy.release()

    def _enqueue(self, stream: int) -> bool:
        world, engine, machine = self.world, self._engine, self.world.machine
        if not world.current("execute_async_v3"):
            return False
        if any(-1 in shape for shape in self.shapes.values()):
            self._say(f"Not all shapes of input tensors are set: {self.infer_shapes()}")
            return False
        lacking = [name for name in engine.tensors if not self.addresses.get(name)]
        if lacking:
            self._say(texts.NO_ADDRESS.format(name=lacking[0]))
            return False
        if self.managed and not self._device_memory:
            self._say("The context has no device memory: call setDeviceMemory before enqueue")
            return False
        if stream == 0:
            world.log(
                "WARNING",
                texts.DEFAULT_STREAM,
            )
        try:
            capture = machine.streams.stream(stream).capture
        except Refused as refused:
            world.control.problems.append(f"execute_async_v3 on stream {stream:#x}: {refused}")
            self._say("Cuda Runtime (invalid resource handle)", 1)
            return False
        if capture is not None and (not self.warm or engine.header["uncapturable"] or self.profiler is not None):
            capture.invalid = True
            self._say(texts.CAPTURING, 1)
            return False
        try:
            machine.enqueue(stream, self._work(dict(self.addresses), dict(self.shapes)), f"TensorRT {engine.name}")
        except Refused as refused:
            self._say(f"Cuda Runtime ({refused})", 1)
            return False
        if self.profiler is not None:
            self._pending = [(layer["name"], 0.25) for layer in engine.header["layers"]]
            if self.enqueue_emits_profile:
                machine.streams.synchronize(stream)
                self._emit()
        return True

    def _emit(self) -> None:
        for name, ms in self._pending:
            self.world.guarded(self.profiler.report_layer_time, name, ms)
        self._pending = []

    def _work(self, addresses: dict[str, int], shapes: dict[str, tuple[int, ...]]) -> Callable[[], None]:
        """One run as the machine will do it: everything is read and written when the stream gets there."""
        engine, machine = self._engine, self.world.machine

        def work() -> None:
            feeds = {
                name: engine.runner.array(
                    name, machine.bytes_at(addresses[name], engine.nbytes(name, shape), ALIGNMENT), shape
                )
                for name, shape in shapes.items()
            }
            for name, value in engine.runner(feeds).items():
                data = value.tobytes()
                machine.bytes_at(addresses[name], len(data), ALIGNMENT)[:] = data
            if shapes == self.shapes:
                self.warm = True

        return work

    def _say(self, text: str, code: int = 3) -> None:
        self.world.log("ERROR", f"[executionContext.cpp::enqueueV3] Error Code {code}: {text}")
