"""The TensorRT stand-in itself: what it runs, and what it refuses as the real library does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from gpu_faces import TensorRtFace
from onnx import TensorProto, helper, numpy_helper


def scaled(kind: int = TensorProto.FLOAT, shape: tuple[int | str, ...] = (1, 4), opset: int = 17) -> onnx.ModelProto:
    """y = x * 3 + x, in ``kind``."""
    three = numpy_helper.from_array(np.array(3, helper.tensor_dtype_to_np_dtype(kind)), "three")
    nodes = [
        helper.make_node("Mul", ["x", "three"], ["m"], "times"),
        helper.make_node("Add", ["m", "x"], ["y"], "plus"),
    ]
    sides = [helper.make_tensor_value_info(name, kind, shape) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "scaled", sides[:1], sides[1:], [three])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


class Desk:
    """TensorRT in use: a logger, a pushed context, a stream."""

    def __init__(self, face: TensorRtFace) -> None:
        trt = self.trt = face.trt
        self.face, self.machine = face, face.machine

        class Log(trt.ILogger):
            def __init__(self) -> None:
                super().__init__()
                self.lines: list[str] = []

            def log(self, severity: Any, msg: str) -> None:
                self.lines.append(msg)

        self.log = Log()
        self.machine.initialized = True
        self.machine.stack.append(self.machine.retain(0))
        self.stream = self.machine.streams.create(1)

    def network(self, model: onnx.ModelProto, flags: int | None = None) -> tuple[Any, Any, Any, bool]:
        """(builder, network, parser, whether the parser took it)."""
        strong = 1 << int(self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        builder = self.trt.Builder(self.log)
        network = builder.create_network(strong if flags is None else flags)
        parser = self.trt.OnnxParser(network, self.log)
        return builder, network, parser, parser.parse(model.SerializeToString())

    def plan(self, model: onnx.ModelProto, **settings: Any) -> Any:
        builder, network, _, parsed = self.network(model)
        assert parsed, self.log.lines
        config = builder.create_builder_config()
        for name, value in settings.items():
            setattr(config, name, value)
        return builder.build_serialized_network(network, config)

    def context(self, model: onnx.ModelProto) -> Any:
        return self.trt.Runtime(self.log).deserialize_cuda_engine(self.plan(model)).create_execution_context()

    def place(self, context: Any, x: np.ndarray) -> tuple[int, int]:
        """x uploaded, and room for y; both known to the context."""
        addresses = self.machine.allocate(x.nbytes), self.machine.allocate(x.nbytes)
        self.machine.bytes_at(addresses[0], x.nbytes)[:] = x.tobytes()
        assert context.set_tensor_address("x", addresses[0]) and context.set_tensor_address("y", addresses[1])
        return addresses

    def read(self, address: int, like: np.ndarray) -> np.ndarray:
        return np.frombuffer(bytes(self.machine.bytes_at(address, like.nbytes)), like.dtype).reshape(like.shape)


@pytest.fixture
def desk(tensorrt_face: TensorRtFace) -> Desk:
    return Desk(tensorrt_face)


def test_a_plan_runs_on_its_stream(desk: Desk) -> None:
    x = np.array([[1, -2, 3, 4]], np.float32)
    context = desk.context(scaled())
    _, y = desk.place(context, x)
    assert context.execute_async_v3(desk.stream)
    assert not np.array_equal(desk.read(y, x), x * 4)  # nobody has waited
    desk.machine.streams.synchronize(desk.stream)
    assert np.array_equal(desk.read(y, x), x * 4)


def test_halves_round_and_overflow(desk: Desk) -> None:
    x = np.array([[1.0009765625, 30000, -30000, 2049 / 2]], np.float16)
    context = desk.context(scaled(TensorProto.FLOAT16))
    _, y = desk.place(context, x)
    assert context.execute_async_v3(desk.stream)
    desk.machine.streams.synchronize(desk.stream)
    with np.errstate(over="ignore"):
        expected = (x * np.float16(3)) + x
    assert np.array_equal(desk.read(y, x), expected)
    assert np.isinf(expected[0, 1]) and np.isinf(expected[0, 2])


def test_nothing_works_without_a_current_context(desk: Desk) -> None:
    desk.face.problems_expected = True
    plan = desk.plan(scaled())
    context = desk.context(scaled())
    desk.place(context, np.ones((1, 4), np.float32))
    engine = context.engine
    runtime = desk.trt.Runtime(desk.log)
    builder, network, _, _ = desk.network(scaled())
    desk.machine.stack.pop()
    for make in (desk.trt.Builder, desk.trt.Runtime):
        with pytest.raises(TypeError, match="factory function returned nullptr"):
            make(desk.log)
    assert builder.build_serialized_network(network, builder.create_builder_config()) is None
    assert runtime.deserialize_cuda_engine(plan) is None
    assert engine.create_execution_context() is None
    assert context.execute_async_v3(desk.stream) is False
    assert len(desk.face.control.problems) == 6
    desk.machine.stack.append(desk.machine.contexts[0])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda data: data[:40], "Unexpected end"),
        (lambda data: b"\x08\x08" + data, "Magic tag does not match"),
        (lambda data: b"", "Magic tag does not match"),
    ],
)
def test_damaged_plans_are_none(desk: Desk, change: Any, text: str) -> None:
    assert desk.trt.Runtime(desk.log).deserialize_cuda_engine(change(bytes(desk.plan(scaled())))) is None
    assert any(text in line for line in desk.log.lines)


@pytest.mark.tensorrt("10.3.0")
def test_plans_are_for_one_version_and_one_gpu(tensorrt_face: TensorRtFace) -> None:
    desk = Desk(tensorrt_face)
    plan, compatible = bytes(desk.plan(scaled())), desk.trt.HardwareCompatibilityLevel.AMPERE_PLUS
    ampere = bytes(desk.plan(scaled(), hardware_compatibility_level=compatible))
    lean = bytes(desk.plan(scaled(), flags=1 << int(desk.trt.BuilderFlag.VERSION_COMPATIBLE)))
    tensorrt_face.control.compute_capability = (9, 0)
    runtime = desk.trt.Runtime(desk.log)
    assert runtime.deserialize_cuda_engine(plan) is None
    assert "incompatible device, expecting compute 9.0 got compute 8.9" in desk.log.lines[-2]
    assert runtime.deserialize_cuda_engine(ampere) is not None
    tensorrt_face.control.compute_capability = None
    tensorrt_face.install("11.4.0.106", name="Another")
    newer = Desk(tensorrt_face)
    runtime = newer.trt.Runtime(newer.log)
    assert runtime.deserialize_cuda_engine(plan) is None
    assert "Current Version: 11, Serialized Engine Version: 10" in newer.log.lines[-2]
    assert runtime.deserialize_cuda_engine(lean) is None
    assert "host code is not allowed" in newer.log.lines[-2]
    runtime.engine_host_code_allowed = True
    assert runtime.deserialize_cuda_engine(lean) is not None
    assert "different models of devices" in newer.log.lines[-1]


def test_dynamic_shapes_need_a_profile_and_keep_to_it(desk: Desk) -> None:
    builder, network, _, parsed = desk.network(scaled(shape=("n", 4)))
    assert parsed
    config = builder.create_builder_config()
    assert builder.build_serialized_network(network, config) is None
    assert "no optimization profile" in desk.log.lines[-1]
    profile = builder.create_optimization_profile()
    assert not profile and config.add_optimization_profile(profile) == -1
    with pytest.raises(ValueError, match="inconsistent"):
        profile.set_shape("x", (2, 4), (1, 4), (3, 4))
    profile.set_shape("x", (1, 4), (2, 4), (3, 4))
    assert profile and config.add_optimization_profile(profile) == 0
    engine = desk.trt.Runtime(desk.log).deserialize_cuda_engine(builder.build_serialized_network(network, config))
    assert [tuple(one) for one in engine.get_tensor_profile_shape("x", 0)] == [(1, 4), (2, 4), (3, 4)]
    context = engine.create_execution_context()
    assert tuple(context.get_tensor_shape("y")) == (-1, 4) and context.infer_shapes() == ["x"]
    desk.place(context, np.ones((3, 4), np.float32))
    assert not context.execute_async_v3(desk.stream)
    assert not context.set_input_shape("x", (4, 4)) and not context.set_input_shape("x", (2, 5))
    assert not context.set_input_shape("y", (2, 4))
    with pytest.raises(TypeError):
        context.set_input_shape("x", np.array([2, 4]))
    assert context.set_input_shape("x", [2, 4]) and context.infer_shapes() == []
    assert tuple(context.get_tensor_shape("y")) == (2, 4) and context.execute_async_v3(desk.stream)


def test_addresses_have_to_be_set_and_aligned(desk: Desk) -> None:
    context = desk.context(scaled())
    assert not context.execute_async_v3(desk.stream)
    address = desk.machine.allocate(1024)
    assert not context.set_tensor_address("x", address + 16)
    assert not context.set_tensor_address("z", address)
    assert context.set_tensor_address("x", address) and not context.execute_async_v3(desk.stream)
    assert "for tensor y" in desk.log.lines[-1]


def test_a_freed_address_is_an_accident(desk: Desk) -> None:
    context = desk.context(scaled())
    x, _ = desk.place(context, np.ones((1, 4), np.float32))
    desk.machine.free(x)
    assert context.execute_async_v3(desk.stream)
    with pytest.raises(Exception, match="ILLEGAL_ADDRESS"):
        desk.machine.streams.synchronize(desk.stream)
    assert not context.execute_async_v3(desk.stream)


@pytest.mark.parametrize("answer", [True, None, False, "raise"])
def test_a_build_goes_on_while_its_monitor_says_true(desk: Desk, answer: Any, capfd: pytest.CaptureFixture) -> None:
    class Monitor(desk.trt.IProgressMonitor):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[tuple[Any, ...]] = []

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.seen.append((phase_name, parent_phase))

        def step_complete(self, phase_name: str, step: int) -> Any:
            if answer == "raise":
                raise KeyboardInterrupt
            return answer

        def phase_finish(self, phase_name: str) -> None:
            self.seen.append((phase_name,))

    monitor = Monitor()
    plan = desk.plan(scaled(), progress_monitor=monitor)
    assert (plan is not None) == (answer is True)
    assert monitor.seen[0] == ("Building Engine", None) and monitor.seen[-1] == ("Building Engine",)
    assert ("KeyboardInterrupt" in capfd.readouterr().err) == (answer == "raise")


def test_timing_caches_are_for_one_device(desk: Desk) -> None:
    config = desk.trt.Builder(desk.log).create_builder_config()
    assert config.create_timing_cache(b"nonsense") is None
    cache = config.create_timing_cache(b"")
    data = bytes(cache.serialize())
    desk.face.control.compute_capability = (7, 5)
    other = config.create_timing_cache(data)
    assert not config.set_timing_cache(other, ignore_mismatch=False)
    assert config.set_timing_cache(other, ignore_mismatch=True)


def test_types_are_the_graphs_on_11_and_writable_before(desk: Desk) -> None:
    _, network, _, _ = desk.network(scaled())
    if desk.face.version >= (11,):
        with pytest.raises(AttributeError):
            network.get_input(0).dtype = desk.trt.DataType.HALF
        with pytest.raises(AttributeError):
            _ = desk.trt.BuilderFlag.FP16
    else:
        network.get_input(0).dtype = desk.trt.DataType.HALF
        builder = desk.trt.Builder(desk.log)
        assert builder.build_serialized_network(network, builder.create_builder_config()) is None
        config = builder.create_builder_config()
        config.set_flag(desk.trt.BuilderFlag.FP16)
        builder, network, _, _ = desk.network(scaled())
        assert builder.build_serialized_network(network, config) is None
        assert "not allowed in a strongly typed network" in desk.log.lines[-1]


@pytest.mark.tensorrt("10.3.0")
def test_weak_typing_forgets_the_types_of_the_graph(tensorrt_face: TensorRtFace) -> None:
    desk = Desk(tensorrt_face)
    builder, network, _, _ = desk.network(scaled(TensorProto.FLOAT16), flags=0)
    config = builder.create_builder_config()
    config.profiling_verbosity = desk.trt.ProfilingVerbosity.DETAILED
    engine = desk.trt.Runtime(desk.log).deserialize_cuda_engine(builder.build_serialized_network(network, config))
    told = engine.create_engine_inspector().get_engine_information(desk.trt.LayerInformationFormat.JSON)
    assert "FP16" not in told and "FP32" in told


@pytest.mark.tensorrt("10.0.1", "10.16.1.11", "11.4.0.106")
def test_the_inspector_speaks_as_its_version(tensorrt_face: TensorRtFace) -> None:
    desk = Desk(tensorrt_face)
    trt = desk.trt
    for verbosity, kind in ((trt.ProfilingVerbosity.DETAILED, dict), (trt.ProfilingVerbosity.LAYER_NAMES_ONLY, str)):
        engine = trt.Runtime(desk.log).deserialize_cuda_engine(desk.plan(scaled(), profiling_verbosity=verbosity))
        told = json.loads(engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON))
        assert len(told["Layers"]) == 2 and isinstance(told["Layers"][0], kind)
        assert ("I/O Tensors" in told) == (tensorrt_face.version >= (11,)) != ("Bindings" in told)


def test_the_parser_says_what_it_does_not_take(desk: Desk, tmp_path: Path) -> None:
    odd = scaled()
    odd.graph.node[0].op_type = "Frobnicate"
    _, _, parser, parsed = desk.network(odd)
    assert not parsed and parser.num_errors == 1
    error = parser.get_error(0)
    assert (error.node(), error.node_name(), error.node_operator()) == (0, "times", "Frobnicate")
    assert "Plugin not found" in error.desc() and error.code() == desk.trt.ErrorCode.UNSUPPORTED_NODE
    assert not desk.network(scaled(opset=8))[3]
    newest = 25 if desk.face.version >= (11,) else 20
    assert desk.network(scaled(opset=min(newest, onnx.defs.onnx_opset_version())))[3]
    onnx.save(scaled(), tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0, location="w.bin")
    data = (tmp_path / "m.onnx").read_bytes()
    for path, taken in ((None, False), (str(tmp_path / "m.onnx"), True)):
        parser = desk.trt.OnnxParser(desk.trt.Builder(desk.log).create_network(0), desk.log)
        assert parser.parse(data, path) is taken
    with pytest.raises(TypeError):
        parser.parse_from_file(tmp_path / "m.onnx")
    assert not parser.parse_from_file(str(tmp_path / "absent.onnx"))


def test_two_threads_in_one_context_are_a_problem(desk: Desk) -> None:
    import threading

    desk.face.problems_expected = True
    context = desk.context(scaled())
    desk.place(context, np.ones((1, 4), np.float32))
    behind, inside, leave = context._t, threading.Event(), threading.Event()
    enqueue = behind._enqueue
    behind._enqueue = lambda stream: (inside.set(), leave.wait(10), enqueue(stream))[2]

    def other() -> None:
        desk.machine.stack.append(desk.machine.contexts[0])
        context.execute_async_v3(desk.stream)

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(10)
    assert context.execute_async_v3(desk.stream) is False
    leave.set()
    thread.join()
    assert desk.face.control.problems == ["one execution context used by two threads at once"]


def test_faults_come_where_they_were_ordered(desk: Desk) -> None:
    desk.face.control.fail("ICudaEngine.num_io_tensors", 7, log="broken", after=1)
    engine = desk.trt.Runtime(desk.log).deserialize_cuda_engine(desk.plan(scaled()))
    assert [engine.num_io_tensors, engine.num_io_tensors, engine.num_io_tensors] == [2, 7, 2]
    assert desk.log.lines[-1] == "broken"
    desk.face.control.fail("Builder.create_network", RuntimeError("no"))
    with pytest.raises(RuntimeError, match="no"):
        desk.network(scaled())
