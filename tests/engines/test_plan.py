"""A plan between two device addresses: loading, shapes, addresses, and every None and False of TensorRT's."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from plans import plan_bytes

from segcam.engines.plan import PlanEngine
from segcam.errors import CudaError, EngineError
from segcam.kernels.cuda.driver import Driver, open_driver


def network(
    shape: list[int | None],
    operators: str = "Relu",
    inputs: int = 1,
    outputs: int = 1,
    kinds: tuple[int, int] = (TensorProto.FLOAT, TensorProto.FLOAT),
) -> onnx.ModelProto:
    """``operators`` in a row behind the (first of the) ``inputs``."""
    nodes = []
    names = [f"x{i}" for i in range(inputs)]
    last = "x0"
    if inputs > 1:
        nodes.append(helper.make_node("Sum", names, ["sum"]))
        last = "sum"
    for number, operator in enumerate(operators.split()):
        attributes = {"to": kinds[1]} if operator == "Cast" else {}
        nodes.append(helper.make_node(operator, [last], [f"t{number}"], name=f"n{number}", **attributes))
        last = f"t{number}"
    for number in range(outputs):
        nodes.append(helper.make_node("Identity", [last], [f"y{number}"], name=f"out{number}"))
    given = [helper.make_tensor_value_info(name, kinds[0], shape) for name in names]
    made = [helper.make_tensor_value_info(f"y{i}", kinds[1], shape) for i in range(outputs)]
    graph = helper.make_graph(nodes, "net", given, made)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def driver(tensorrt_face: Any) -> Iterator[Driver]:
    driver = open_driver()
    yield driver
    driver.close()
    gc.collect()
    assert not any(tensorrt_face.machine.leftovers().values()), tensorrt_face.machine.leftovers()


def run(plan: PlanEngine, picture: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """One run on ``picture``, with memory of its own."""
    driver = plan.driver
    with driver.current():
        stream = driver.stream()
        execution = plan.execution(picture.shape)
        given, made = driver.allocate(execution.input_bytes), driver.allocate(execution.output_bytes)
        driver.upload(given.address, picture, stream)
        execution.enqueue(stream, given.address, made.address)
        assert execution.output_bytes % 4 == 0
        found = np.empty(execution.output_shape, np.float32)
        driver.download(found, made.address, stream)
        stream.synchronize()
        for thing in (execution, given, made, stream):
            thing.close()
            thing.close()
    return found


def test_a_plan_runs_between_two_addresses(tensorrt_face: Any, driver: Driver) -> None:
    plan = PlanEngine(plan_bytes(tensorrt_face.trt, network([1, 3, 4, 8])), driver, "net.plan")
    assert (plan.input.words, plan.output.words) == ("x0 (float32 1x3x4x8)", "y0 (float32 1x3x4x8)")
    assert plan.input.entry() == {
        "name": "x0",
        "mode": "input",
        "dtype": "float32",
        "shape": [1, 3, 4, 8],
        "format": "linear",
        "profile": None,
    }
    picture = np.random.default_rng(1).normal(size=(1, 3, 4, 8)).astype(np.float32)
    np.testing.assert_array_equal(run(plan, picture), np.maximum(picture, 0))
    plan.close()
    plan.close()
    with pytest.raises(EngineError, match=r"net.plan is closed"):
        plan.execution((1, 3, 4, 8))


def test_what_holds_memory_goes_while_the_context_is_current(tensorrt_face: Any, driver: Driver) -> None:
    plan = PlanEngine(plan_bytes(tensorrt_face.trt, network([1, 3, 4, 8])), driver, "net.plan")
    execution = plan.execution((1, 3, 4, 8))
    gone = []

    def going(what: str) -> None:
        tensorrt_face.machine.require_context()  # what this raises would be printed, and the list stay short
        gone.append(what)

    weakref.finalize(execution.context, going, "context")
    weakref.finalize(plan.engine, going, "engine")
    # In a thread where nobody has made the context current before.
    with ThreadPoolExecutor(1) as apart:
        apart.submit(execution.close).result()
        apart.submit(plan.close).result()
    assert gone == ["context", "engine"]


def test_open_sizes_go_by_the_profiles(tensorrt_face: Any, driver: Driver) -> None:
    profiles = [
        {"x0": ((1, 3, 4, 8), (1, 3, 8, 16), (2, 3, 8, 16))},
        {"x0": ((1, 3, 16, 8), (1, 3, 16, 8), (1, 3, 32, 64))},
    ]
    data = plan_bytes(tensorrt_face.trt, network([None, 3, None, None]), profiles)
    plan = PlanEngine(data, driver, "net.plan")
    assert plan.input.words == "x0 (float32 ?x3x?x?)"
    assert plan.input.entry()["profile"] == [[1, 3, 4, 8], [1, 3, 8, 16], [2, 3, 8, 16]]
    assert plan.shape_for(None) == (1, 3, 8, 16)
    assert plan.shape_for((5, 9)) == (1, 3, 5, 9)
    for shape, number in (((1, 3, 5, 9), 0), ((2, 3, 8, 16), 0), ((1, 3, 20, 20), 1)):
        assert plan.profile_for(shape) == number
        picture = np.random.default_rng(number).normal(size=shape).astype(np.float32)
        np.testing.assert_array_equal(run(plan, picture), np.maximum(picture, 0))
    for shape in ((1, 3, 3, 8), (1, 3, 9, 16), (2, 3, 16, 8), (1, 4, 8, 16), (1, 3, 8)):
        with pytest.raises(EngineError, match="takes an input of 1x3x4x8 to 2x3x8x16 or 1x3x16x8 to 1x3x32x64, not"):
            plan.profile_for(shape)
    plan.close()


def test_a_fixed_size_is_fixed_and_a_batch_is_one(tensorrt_face: Any, driver: Driver) -> None:
    plan = PlanEngine(plan_bytes(tensorrt_face.trt, network([1, 3, 4, 8])), driver, "net.plan")
    assert plan.shape_for(None) == plan.shape_for((4, 8)) == (1, 3, 4, 8)
    with pytest.raises(EngineError, match="takes an input of 1x3x4x8, not 1x3x4x9") as caught:
        plan.shape_for((4, 9))
    assert "--size" in caught.value.hint
    plan.close()
    plan = PlanEngine(plan_bytes(tensorrt_face.trt, network([2, 3, 4, 8])), driver, "net.plan")
    with pytest.raises(EngineError, match="takes an input of 2x3x4x8, not 1x3x4x8"):
        plan.shape_for(None)
    plan.close()
    plan = PlanEngine(plan_bytes(tensorrt_face.trt, network([1, 4, 8, 3])), driver, "net.plan")
    assert plan.shape_for((4, 8)) == (1, 4, 8, 3)
    plan.close()
    plan = PlanEngine(plan_bytes(tensorrt_face.trt, network([3, 4])), driver, "net.plan")
    with pytest.raises(EngineError, match="expected 4 dimensions"):
        plan.shape_for(None)
    plan.close()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (network([1, 3, 4, 8], inputs=2), r"2 inputs \(x0 \(float32 1x3x4x8\), x1 .*expected one picture"),
        (network([1, 3, 4, 8], outputs=2), r"2 outputs \(y0 .*, y1 .*expected one map"),
    ],
)
def test_one_input_and_one_output(tensorrt_face: Any, driver: Driver, model: onnx.ModelProto, words: str) -> None:
    with pytest.raises(EngineError, match=words) as caught:
        PlanEngine(plan_bytes(tensorrt_face.trt, model), driver, "net.plan")
    assert "build-engine" in caught.value.hint


def test_tensors_that_cannot_be_given_by_address(tensorrt_face: Any, driver: Driver) -> None:
    trt, control = tensorrt_face.trt, tensorrt_face.control
    half = network([1, 8, 4, 8], kinds=(TensorProto.FLOAT16, TensorProto.FLOAT16))
    data = plan_bytes(trt, half, formats={"x0": "HWC8"})
    with pytest.raises(EngineError, match="'x0' is laid out as HWC8, expected LINEAR"):
        PlanEngine(data, driver, "net.plan")
    data = plan_bytes(trt, network([1, 3, 4, 8]))
    control.fail("ICudaEngine.get_tensor_location", trt.TensorLocation.HOST)
    with pytest.raises(EngineError, match="'x0' lies in host memory"):
        PlanEngine(data, driver, "net.plan")


def test_sizes_that_depend_on_the_picture(tensorrt_face: Any, driver: Driver) -> None:
    plan = PlanEngine(plan_bytes(tensorrt_face.trt, network([1, 3, 4, 8])), driver, "net.plan")
    tensorrt_face.control.fail("IExecutionContext.get_tensor_shape", tensorrt_face.trt.Dims([3, -1]))
    with pytest.raises(EngineError, match=r"its output 'y0' \(3x\?\) depends on the picture") as caught:
        plan.execution((1, 3, 4, 8))
    assert "NonZero" in caught.value.hint
    plan.close()


def test_other_types_than_pictures_and_scores(tensorrt_face: Any, driver: Driver) -> None:
    data = plan_bytes(tensorrt_face.trt, network([1, 3, 4, 8]))
    tensorrt_face.control.fail("ICudaEngine.get_tensor_dtype", tensorrt_face.trt.DataType.FP8)
    with pytest.raises(EngineError, match="float8_e4m3fn"):
        PlanEngine(data, driver, "net.plan")


@pytest.mark.parametrize("offset", [1, 2, 128])
def test_addresses_are_aligned(tensorrt_face: Any, driver: Driver, offset: int) -> None:
    plan = PlanEngine(plan_bytes(tensorrt_face.trt, network([1, 3, 4, 8])), driver, "net.plan")
    with driver.current():
        execution = plan.execution((1, 3, 4, 8))
        memory, stream = driver.allocate(4096), driver.stream()
        with pytest.raises(CudaError, match=f"{memory.address + offset:#x} for 'x0' is not a multiple of 256"):
            execution.enqueue(stream, memory.address + offset, memory.address)
        with pytest.raises(CudaError, match=r"0x0 for 'y0'"):
            execution.enqueue(stream, memory.address, 0)
        # A multiple of 256 within other memory is fine, and is taken after a refusal.
        execution.enqueue(stream, memory.address, memory.address + 2048)
        stream.synchronize()
        execution.close()
    with pytest.raises(EngineError, match="closed"):
        execution.enqueue(stream, memory.address, memory.address)
    plan.close()


CALLS: dict[str, tuple[Any, str]] = {
    "Runtime.deserialize_cuda_engine": (None, "could not load net.plan"),
    "ICudaEngine.create_execution_context": (None, "could not make room to run net.plan"),
    "IExecutionContext.set_optimization_profile_async": (False, "could not take profile 1 of net.plan"),
    "IExecutionContext.set_input_shape": (False, "could not set the input of net.plan to 1x3x16x8"),
    "IExecutionContext.infer_shapes": (["x0"], "the sizes of x0 of net.plan are not known"),
    "IExecutionContext.set_tensor_address": (False, "as the memory of 'x0'"),
    "IExecutionContext.execute_async_v3": (False, "could not run net.plan"),
}


@pytest.mark.parametrize("call", CALLS)
def test_each_none_and_false_is_an_error_with_the_log(tensorrt_face: Any, driver: Driver, call: str) -> None:
    profiles = [
        {"x0": ((1, 3, 4, 8), (1, 3, 4, 8), (1, 3, 4, 8))},
        {"x0": ((1, 3, 16, 8), (1, 3, 16, 8), (1, 3, 16, 8))},
    ]
    data = plan_bytes(tensorrt_face.trt, network([1, 3, None, 8]), profiles)
    answer, words = CALLS[call]
    tensorrt_face.control.fail(call, answer, log="Error Code 2: OutOfMemory (Requested size was 7 bytes.)")
    with pytest.raises(EngineError) as caught:
        run(PlanEngine(data, driver, "net.plan"), np.zeros((1, 3, 16, 8), np.float32))
    assert words in caught.value.message
    assert "ERROR: Error Code 2: OutOfMemory" in caught.value.message
    assert "nvidia-smi" not in caught.value.message and caught.value.hint


def test_the_library_s_own_refusals(tensorrt_face: Any, driver: Driver) -> None:
    data = plan_bytes(tensorrt_face.trt, network([1, 3, 4, 8]))
    for wrong, words, hint in (
        (b"\x08\x08" + data, "Magic tag does not match", "no TensorRT plan"),
        (data[:-9], "Unexpected end", "build-engine"),
    ):
        with pytest.raises(EngineError, match=words) as caught:
            PlanEngine(wrong, driver, "net.plan")
        assert hint in caught.value.hint


def test_only_a_version_compatible_plan_may_run_code_of_its_own(tensorrt_face: Any, driver: Driver) -> None:
    data = plan_bytes(tensorrt_face.trt, network([1, 3, 4, 8]), flags=["VERSION_COMPATIBLE"])
    with pytest.raises(EngineError, match="host code"):
        PlanEngine(data, driver, "net.plan")
    PlanEngine(data, driver, "net.plan", host_code=True).close()


def test_layer_times(tensorrt_face: Any, driver: Driver) -> None:
    plan = PlanEngine(plan_bytes(tensorrt_face.trt, network([1, 3, 4, 8], "Relu Abs")), driver, "net.plan")
    before = tensorrt_face.machine.allocated
    assert plan.profile((1, 3, 4, 8), runs=3) == [("n0", 0.25), ("n1", 0.25), ("out0", 0.25)]
    assert tensorrt_face.machine.allocated == before
    tensorrt_face.control.fail("IExecutionContext.execute_async_v3", False, after=2)
    with pytest.raises(EngineError, match="could not run"):
        plan.profile((1, 3, 4, 8), runs=3)
    assert tensorrt_face.machine.allocated == before
    plan.close()


def test_a_warm_plan_can_be_captured(tensorrt_face: Any) -> None:
    driver = open_driver("cuda-python")
    data = plan_bytes(tensorrt_face.trt, network([1, 3, 4, 8]))
    plan = PlanEngine(data, driver, "net.plan")
    with driver.current():
        stream = driver.stream()
        execution = plan.execution((1, 3, 4, 8))
        given, made = driver.allocate(execution.input_bytes), driver.allocate(execution.output_bytes)
        with pytest.raises(EngineError, match="could not run"), driver.capture(stream):
            execution.enqueue(stream, given.address, made.address)
        driver.fill(given.address, 0, given.nbytes, stream)
        execution.warm_up(stream, given.address, made.address)
        with driver.capture(stream) as capture:
            execution.enqueue(stream, given.address, made.address)
        picture = np.arange(96, dtype=np.float32).reshape(1, 3, 4, 8)
        driver.upload(given.address, picture, stream)
        capture.graph.launch(stream)
        found = np.empty_like(picture)
        driver.download(found, made.address, stream)
        stream.synchronize()
        np.testing.assert_array_equal(found, picture)
        execution.close()
    plan.close()
    driver.close()
