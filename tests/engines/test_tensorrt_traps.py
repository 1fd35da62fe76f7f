"""Ten mistakes that are easily made without a GPU at hand; each test fails when its own is made.

Where the mistake is one of the source, the walk over the package's source stands for it
(``test_tensorrt_contract.py``), and the test here plants it into the package's own text. Where it is one of behaviour,
the package runs on the stand-in.
"""

from __future__ import annotations

import ast
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from api_contract import check
from api_contract.package import package_sources
from gpu_faces import TensorRtFace
from onnx import TensorProto, helper
from plan_networks import convs, pictures, reference, run_plan
from plans import plan_bytes, plan_of
from standin_trt.network import INetworkDefinition

from segcam.engines import tensorrt
from segcam.engines.base import EngineOptions
from segcam.engines.factory import make_engine
from segcam.engines.plan import PlanEngine
from segcam.engines.plan_options import PlanOptions, Quiet
from segcam.errors import EngineError, MissingDependencyError
from segcam.kernels.cuda.driver import Driver, open_driver
from segcam.onnx_tools.precision import agreement, convert_precision, fit_precision

Build = Callable[..., Any]
FP32 = PlanOptions(precision="fp32")


def planted(module: str, old: str, new: str) -> list[str]:
    """What the walk finds when ``old`` in a module of the package is replaced."""
    sources = package_sources()
    assert old in sources[module], f"{module} has no {old!r} any more: plant it elsewhere"
    sources[module] = sources[module].replace(old, new, 1)
    return [finding.text for finding in check(sources)]


# 1: a flag as the switch for fp16


def test_an_fp32_graph_is_never_an_fp16_plan(build: Build) -> None:
    with pytest.raises(EngineError, match="fp16"):
        build(convs(), PlanOptions(precision="fp16"))


@pytest.mark.tensorrt("10.3.0")
def test_what_was_built_counts_and_not_what_was_asked(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    half = convert_precision(convs(), "fp16").model
    assert build(half, PlanOptions(precision="fp16")).precision_found["float16"] > 0
    monkeypatch.setattr(INetworkDefinition, "strong", False)  # as if the network had been made without the flag
    with pytest.raises(EngineError, match="fp16"):
        build(half, PlanOptions(precision="fp16"))


def test_the_flag_is_found_in_the_source() -> None:
    old = "flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)"
    new = f"{old}\n            half = hasattr(trt.BuilderFlag, 'FP16')"
    assert any("hasattr is no guard" in text for text in planted("segcam.engines.tensorrt_build", old, new))


# 2: what 11 no longer has


@pytest.mark.parametrize(
    "line",
    [
        "network.get_input(0).dtype = trt.DataType.HALF",
        "network.get_layer(0).precision = trt.DataType.HALF",
        "trt.TacticSource.CUDNN",
        "trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH",
        "trt.BuilderFlag.FP16",
        "builder.platform_has_fast_fp16",
    ],
)
def test_the_stand_in_has_only_what_the_version_has(
    tensorrt_face: TensorRtFace, driver: Driver, build: Build, line: str
) -> None:
    trt = tensorrt_face.trt
    build(convs(), FP32)
    with driver.current():
        from segcam.engines.tensorrt_api import logger

        builder = trt.Builder(logger(trt))
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        assert trt.OnnxParser(network, logger(trt)).parse(convs().SerializeToString())
        scope = {"trt": trt, "network": network, "builder": builder}
        if tensorrt_face.version >= (11,):
            with pytest.raises(AttributeError):
                exec(line, scope)
        elif "precision" not in line:  # which the stand-in has no layers for
            exec(line, scope)
        del builder, network, scope


# 3: agreement that doesn't round


def test_an_overflow_is_seen_and_kept_out(driver: Driver, build: Build) -> None:
    model, feeds = convs(gain=1e5), pictures()
    careless = convert_precision(model, "fp16").model
    careless_agreement = agreement(model, careless, feeds, "made up")
    assert careless_agreement.nonfinite > 0
    fitted = fit_precision(model, "fp16", feeds, "made up")
    assert fitted.kept and fitted.agreement.nonfinite == 0 and fitted.agreement.labels_equal >= 0.999
    wrong = run_plan(build(careless, FP32).data, driver, feeds[0]["x"])
    right = run_plan(build(fitted.model, FP32).data, driver, feeds[0]["x"])
    expected = reference(model, feeds[0])
    assert not np.isfinite(wrong).all()
    assert np.mean(right.argmax(1) == expected.argmax(1)) >= 0.999


# 4: converters that break the graph, and buffers of an assumed type


def test_the_converter_keeps_inputs_outputs_and_casts_whole(build: Build) -> None:
    half = convert_precision(convs(fed=TensorProto.UINT8, dialect="bytes"), "fp16").model
    onnx.checker.check_model(half, full_check=True)
    built = build(half, PlanOptions(precision="fp16"))
    assert [tensor["dtype"] for tensor in built.tensors] == ["uint8", "float32"]


@pytest.mark.parametrize(("kind", "size"), [(TensorProto.FLOAT16, 2), (TensorProto.FLOAT, 4)])
def test_buffers_are_as_large_as_the_plans_types(
    tensorrt_face: TensorRtFace, driver: Driver, kind: int, size: int
) -> None:
    model = convs(kind)
    plan = PlanEngine(plan_bytes(tensorrt_face.trt, model), driver, "x.plan")
    execution = plan.execution(plan.input.shape)
    assert execution.output_bytes == size * prod(execution.output_shape)
    assert execution.input_bytes == size * prod(execution.input_shape)
    execution.close()
    plan.close()
    picture = pictures(1)[0]["x"].astype(helper.tensor_dtype_to_np_dtype(kind))
    run_plan(plan_bytes(tensorrt_face.trt, model), driver, picture)
    assert tensorrt_face.machine.accidents == []


# 5: bytes in, labels out


def test_bytes_have_to_be_cast_first(build: Build) -> None:
    model = convs(fed=TensorProto.UINT8, dialect="bytes")
    build(model, FP32)
    cast, transpose = model.graph.node[0], model.graph.node[1]
    transpose.input[0], transpose.output[0], cast.input[0], cast.output[0] = "x", "planes8", "planes8", "planes"
    swapped = onnx.ModelProto()
    swapped.CopyFrom(model)
    swapped.graph.node[0].CopyFrom(transpose)
    swapped.graph.node[1].CopyFrom(cast)
    with pytest.raises(EngineError, match=r"(?s)planes.*UINT8") as caught:
        build(swapped, FP32)
    assert "Cast" in caught.value.hint


def test_class_numbers_are_read_as_what_they_are(driver: Driver, build: Build) -> None:
    model = convs()
    model.graph.node.append(helper.make_node("ArgMax", ["y"], ["labels"], "argmax", axis=1, keepdims=0))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("labels", TensorProto.INT64, [1, 16, 24]))
    built = build(model, FP32)
    assert built.tensors[1]["dtype"] == "int64"
    feed = pictures(1)[0]
    assert np.mean(run_plan(built.data, driver, feed["x"]) == reference(model, feed)) >= 0.999


# 6: the progress monitor


def test_a_monitor_that_forgets_to_answer_is_found() -> None:
    found = planted(
        "segcam.engines.build_progress",
        "return monitoring.stepped(phase_name, step)",
        "monitoring.stepped(phase_name, step)",
    )
    assert any("may return None" in text for text in found)
    found = planted("segcam.engines.build_progress", "trt.IProgressMonitor.__init__(self)", "pass")
    assert any("doesn't call trt.IProgressMonitor.__init__" in text for text in found)


def test_what_is_raised_while_building_is_heard(tensorrt_face: TensorRtFace, build: Build) -> None:
    class Breaking(Quiet):
        def step(self, done: int, total: int, words: str) -> None:
            raise ZeroDivisionError("in the bar")

    with pytest.raises(ZeroDivisionError, match="in the bar"):
        build(convs(), FP32, Breaking())
    assert tensorrt_face.control.callback_errors == []  # TensorRT would have printed and forgotten it


# 7: None and False


@pytest.mark.parametrize(
    ("call", "answer", "words"),
    [
        ("Runtime.deserialize_cuda_engine", None, "could not load"),
        ("ICudaEngine.create_execution_context", None, "could not make room"),
        ("IExecutionContext.set_tensor_address", False, "could not take .* as the memory of"),
        ("IExecutionContext.execute_async_v3", False, "could not run"),
    ],
)
def test_a_quiet_failure_is_an_error_with_the_logs_words(
    tensorrt_face: TensorRtFace, driver: Driver, call: str, answer: object, words: str
) -> None:
    data = plan_bytes(tensorrt_face.trt, convs())
    tensorrt_face.control.fail(call, answer, log="the reason why")
    with pytest.raises(EngineError, match=f"(?s){words}.*the reason why"):
        run_plan(data, driver, pictures(1)[0]["x"])
    driver.close()  # with what the error left open


def test_an_answer_that_nobody_looks_at_is_found() -> None:
    sources = package_sources()["segcam.engines.plan"]
    old = next(line.strip() for line in sources.splitlines() if "context.set_tensor_address(" in line)
    found = planted("segcam.engines.plan", old, old.partition(" = ")[2])
    assert any("what it answers is dropped" in text for text in found)


# 8: CUDA graphs


def test_a_capture_needs_a_run_that_is_over(tensorrt_face: TensorRtFace, driver: Driver) -> None:
    if not driver.has_graphs:
        driver.close()
        driver = open_driver("cuda-python")
    plan = PlanEngine(plan_bytes(tensorrt_face.trt, convs()), driver, "x.plan")
    picture = pictures(1)[0]["x"]
    with driver.current():
        execution, stream = plan.execution(plan.input.shape), driver.stream()
        room = driver.allocate(execution.input_bytes), driver.allocate(execution.output_bytes)
        addresses = room[0].address, room[1].address
        with pytest.raises(EngineError, match="captur"), driver.capture(stream):
            execution.enqueue(stream, *addresses)
        execution.warm_up(stream, *addresses)
        others: list[BaseException] = []

        def allocate() -> None:
            try:
                with driver.current():
                    driver.allocate(64).close()
            except BaseException as error:
                others.append(error)

        with driver.capture(stream) as capture:
            execution.enqueue(stream, *addresses)
            thread = threading.Thread(target=allocate)  # as a decoder does meanwhile
            thread.start()
            thread.join()
        assert others == []
        driver.upload(addresses[0], picture, stream)
        capture.graph.launch(stream)
        out = np.empty(execution.output_shape, np.float32)
        driver.download(out, addresses[1], stream)
        stream.synchronize()
        np.testing.assert_allclose(out, reference(convs(), {"x": picture}), rtol=1e-4, atol=1e-4)
        capture.graph.close()
        execution.close()
        for held in (*room, stream):
            held.close()
    plan.close()
    driver.close()


# 9: contexts and threads


def test_nobody_makes_a_context_of_its_own() -> None:
    own = {"autoinit", "autoprimaryctx", "make_context", "cuCtxCreate", "cuCtxCreate_v3", "cuCtxCreate_v4"}
    for name, text in package_sources().items():
        for node in ast.walk(ast.parse(text)):
            assert getattr(node, "attr", getattr(node, "id", "")) not in own, f"{name}:{node.lineno}"
            imported = [one.name for one in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
            source = [node.module or ""] if isinstance(node, ast.ImportFrom) else imported
            assert not own & {part for one in imported for part in one.split(".")}, f"{name}:{node.lineno}"
            foreign = {"pycuda", "cuda"} & {one.partition(".")[0] for one in source}
            assert not foreign or name.startswith("segcam.kernels.cuda."), f"{name}:{node.lineno}"


def test_an_engine_goes_from_thread_to_thread(tensorrt_face: TensorRtFace, brightest: Callable[..., Path]) -> None:
    path = plan_of(tensorrt_face.trt, brightest())
    engine = make_engine(str(path), EngineOptions(), pytest.fail)

    def apart(work: Callable[[], Any]) -> Any:
        with ThreadPoolExecutor(1) as one:
            value = one.submit(work).result()
            # A thread that ends with a pushed context aborts the process; one that is released already is no matter.
            assert one.submit(lambda: [held for held in tensorrt_face.machine.stack if held.retained]).result() == []
        return value

    apart(engine.activate)
    engine.input(0)[:] = 1
    apart(lambda: engine.start(0))
    scores = apart(lambda: engine.wait(0).copy())
    apart(engine.close)
    assert scores.shape[1] == 3


# 10: plans are not portable


@pytest.mark.tensorrt("10.3.0")
def test_a_plan_of_another_library_or_gpu_is_refused_unread(
    tensorrt_face: TensorRtFace, brightest: Callable[..., Path]
) -> None:
    path = plan_of(tensorrt_face.trt, brightest())
    for version, machine, words in (
        ("11.4.0.106", {}, ("10.3.0", "11.4.0.106", "build-engine")),
        ("10.3.0", {"compute_capability": (7, 5), "name": "Another GPU"}, ("8.9", "7.5", "build-engine")),
    ):
        tensorrt_face.install(version, **machine)
        tensorrt_face.control.calls.clear()
        engine = make_engine(str(path), EngineOptions(), lambda line: None)
        with pytest.raises(EngineError) as caught:
            engine.activate()
        assert all(word in str(caught.value) + str(caught.value.hint) for word in words), caught.value
        assert "Runtime.deserialize_cuda_engine" not in tensorrt_face.control.calls


@pytest.mark.parametrize("driver_here", [True, False])
def test_without_the_library_the_error_says_what_to_do(
    tensorrt_face: TensorRtFace, brightest: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, driver_here: bool
) -> None:
    path = plan_of(tensorrt_face.trt, brightest())
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(tensorrt, "has_driver_library", lambda: driver_here)
    engine = make_engine(str(path), EngineOptions(), lambda line: None)
    with pytest.raises(MissingDependencyError, match="TensorRT is not installed") as caught:
        engine.activate()
    assert ("segcam[gpu]" in caught.value.hint or "JetPack" in caught.value.hint) == driver_here
    assert ("--engine net.onnx" in caught.value.hint) != driver_here
