"""Plans as engines: loaded with their manifest, run in several slots, closed without a trace, whatever fails."""

from __future__ import annotations

import dataclasses
import gc
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from plans import plan_bytes, plan_of, write_plan

from segcam.classes import ClassTable
from segcam.controls import Controls
from segcam.engines import tensorrt
from segcam.engines.base import EngineOptions
from segcam.engines.factory import make_engine
from segcam.engines.manifest import manifest_path, read_manifest
from segcam.engines.model import prepare
from segcam.engines.tensorrt import TensorRtEngine, device_number
from segcam.errors import CudaError, EngineError, MissingDependencyError, UsageError
from segcam.frame import Frame
from segcam.segmenters.cpu import CpuSegmenter

Brightest = Callable[..., Path]
OPTIONS = EngineOptions()


@pytest.fixture(autouse=True)
def nothing_is_left(tensorrt_face: Any) -> Iterator[None]:
    yield
    gc.collect()
    assert not any(tensorrt_face.machine.leftovers().values()), tensorrt_face.machine.leftovers()


def opened(path: Path, options: EngineOptions = OPTIONS, **changes: Any) -> TensorRtEngine:
    warnings: list[str] = []
    engine = TensorRtEngine(path, dataclasses.replace(options, **changes), warnings.append)
    engine.activate()
    assert not warnings
    return engine


def fails(path: Path, kind: type[Exception], *words: str, **changes: Any) -> None:
    """It doesn't open, for a reason with all ``words`` in it, and is as it was."""
    engine = TensorRtEngine(path, dataclasses.replace(OPTIONS, **changes), lambda line: None)
    with pytest.raises(kind) as caught:
        engine.activate()
    for word in words:
        assert word in str(caught.value)
    with pytest.raises(EngineError, match="not active"):
        _ = engine.info


def test_a_plan_is_an_engine(tensorrt_face: Any, brightest: Brightest) -> None:
    path = plan_of(tensorrt_face.trt, brightest(), rewrites=("merge",), head="Resize")
    engine = make_engine(str(path), OPTIONS, pytest.fail)
    assert isinstance(engine, TensorRtEngine)
    for use in (lambda: engine.info, lambda: engine.spec, lambda: engine.start(0)):
        with pytest.raises(EngineError, match="not active"):
            use()
    engine.activate()
    engine.activate()
    info = engine.info
    assert (info.runtime, info.version) == ("TensorRT", tensorrt_face.name)
    assert (info.device, info.precision, info.requests) == (tensorrt_face.machine.name, "fp32", 3)
    assert (info.input_shape, info.output_shape) == ((1, 3, 24, 40), (1, 3, 24, 40))
    assert (info.head, info.rewrites) == ("Resize", ("merge",))
    assert info.line().startswith(f"net.plan: 40x24 on TensorRT {tensorrt_face.name} (NVIDIA Stand-in, fp32, 3 in")
    assert (engine.spec.input.name, engine.spec.input.size) == ("picture", (24, 40))
    engine.input(1)[...] = 51
    engine.start(1)
    np.testing.assert_allclose(engine.wait(1), 0.2, rtol=1e-6)
    assert engine.ready(1) and engine.elapsed_ms(1) >= 0
    assert engine.layer_times(2) == [(name, 0.25) for name, _ in engine.layer_times(1)]
    engine.start(0)
    engine.close()
    engine.close()
    engine.activate()
    engine.input(0)[...] = 255
    engine.start(0)
    np.testing.assert_allclose(engine.wait(0), 1, rtol=1e-6)
    engine.close()


def test_several_in_flight_keep_apart(tensorrt_face: Any, brightest: Brightest) -> None:
    engine = opened(plan_of(tensorrt_face.trt, brightest(grid=8)), requests=3)
    assert engine.info.requests == 3 and engine.info.output_shape == (1, 3, 3, 5)
    for round_ in range(3):
        for slot in range(3):
            engine.input(slot)[...] = 10 * slot + round_
            engine.start(slot)
        # Nothing has happened yet, and the engine doesn't say it has.
        assert not any(engine.ready(slot) for slot in range(3))
        for slot in (2, 0, 1):
            np.testing.assert_allclose(engine.wait(slot), (10 * slot + round_) / 255, rtol=1e-5)
    engine.close()


@pytest.mark.parametrize(
    ("dtype", "layout", "output"),
    [
        *(("float32", "NCHW", f"{kind}_nchw") for kind in ("scores", "FLOAT16", "BFLOAT16")),
        *(("uint8", "NHWC", f"{kind}_nhwc") for kind in ("scores", "FLOAT16", "BFLOAT16")),
        *(("float16", "NCHW", output) for output in ("scores_nchw", "int64_nhw", "int32_n1hw", "UINT8_nhw")),
    ],
)
def test_what_comes_out_is_what_the_network_says(
    tensorrt_face: Any, brightest: Brightest, dtype: str, layout: str, output: str
) -> None:
    kind, _, shape = output.partition("_")
    # Whole numbers become bytes by way of float: TensorRT has no cast from int64 to uint8.
    made = {"FLOAT16": "scores", "BFLOAT16": "scores", "UINT8": "float"}.get(kind, kind)
    source = brightest(output=f"{made}_{shape}", dtype=dtype, layout=layout)
    if made != kind:
        model = onnx.shape_inference.infer_shapes(onnx.load(source))
        last = model.graph.output[0]
        model.graph.node.append(helper.make_node("Cast", [last.name], ["cast"], to=TensorProto.DataType.Value(kind)))
        last.name, last.type.tensor_type.elem_type = "cast", TensorProto.DataType.Value(kind)
        onnx.save(model, source)
    engine = opened(plan_of(tensorrt_face.trt, source))
    assert engine.input(0).dtype == dtype
    shade = np.random.default_rng(3).integers(0, 255, (24, 40, 3)).astype(np.uint8)
    frame = Frame(0, 0, Fraction(1, 25), 0.0, "t", 40, 24, "bgr24", (shade,))
    classes = engine.spec.classes
    assert isinstance(classes, ClassTable)
    segmenter = CpuSegmenter(engine, classes, Controls(0.5, classes.visible("")), overlay=False)
    segmenter.submit(frame)
    found = segmenter.collect()
    expected = shade[..., ::-1].argmax(-1)
    # bfloat16 tells 256 values from 254 no more.
    assert (found.labels == expected).mean() > (0.95 if kind == "BFLOAT16" else 0.99)
    engine.close()


def test_an_open_size_is_chosen(tensorrt_face: Any, brightest: Brightest) -> None:
    prepared = prepare(brightest(), OPTIONS, print)
    for axis in (2, 3):
        prepared.proto.graph.input[0].type.tensor_type.shape.dim[axis].Clear()
    profile = {"picture": ((1, 3, 8, 8), (1, 3, 16, 32), (1, 3, 64, 64))}
    data = plan_bytes(tensorrt_face.trt, prepared.proto, [profile])
    path = write_plan(tensorrt_face.trt, brightest().with_suffix(".plan"), data, prepared.spec)
    for size, hw in ((None, (24, 40)), ((8, 64), (8, 64))):
        engine = opened(path, size=size)
        assert engine.info.input_hw == engine.spec.input.size == hw
        engine.input(0)[...] = 51
        engine.start(0)
        np.testing.assert_allclose(engine.wait(0), np.full((1, 3, *hw), 0.2), rtol=1e-5)
        engine.close()
    fails(path, EngineError, "1x3x8x8 to 1x3x64x64, not 1x3x8x65", size=(8, 65))
    fails(plan_of(tensorrt_face.trt, brightest()), EngineError, "1x3x24x40, not 1x3x8x8", size=(8, 8))


def test_options_that_a_plan_cannot_follow(tensorrt_face: Any, brightest: Brightest) -> None:
    path = plan_of(tensorrt_face.trt, brightest(), head="Resize")
    fails(path, UsageError, "fp16 was asked for, but net.plan was built as fp32", "--onnx net.onnx", precision="fp16")
    fails(path, UsageError, "'NPU' is no NVIDIA GPU", device="NPU")
    fails(path, CudaError, "GPU 1", device="cuda:1")
    opened(path, precision="fp32", device="cuda:0").close()
    warnings: list[str] = []
    engine = TensorRtEngine(path, EngineOptions(cut_head=False), warnings.append)
    engine.activate()
    engine.close()
    assert len(warnings) == 1 and "Resize" in warnings[0]
    with pytest.raises(UsageError, match="openvino cannot run"):
        make_engine(str(path), OPTIONS, print, "openvino")
    with pytest.raises(UsageError, match="is not a TensorRT plan"):
        make_engine(str(path.with_suffix(".onnx")), OPTIONS, print, "tensorrt")
    with pytest.raises(EngineError, match="there is no file"):
        make_engine("nothing.onnx", OPTIONS, print, "tensorrt")


@pytest.mark.parametrize(
    ("text", "number"), [("", 0), ("CPU", 0), ("cuda", 0), ("cuda:2", 2), ("GPU.1", 1), ("3", 3), ("AUTO", 0)]
)
def test_devices(text: str, number: int) -> None:
    assert device_number(text) == number


@pytest.mark.parametrize("text", ["cuda:x", "cuda:-1", "NPU", "HETERO:GPU,CPU", "cuda1"])
def test_no_devices(text: str) -> None:
    with pytest.raises(UsageError):
        device_number(text)


def test_a_named_spec_says_colours_and_classes(tensorrt_face: Any, brightest: Brightest) -> None:
    path = plan_of(tensorrt_face.trt, brightest())
    other = brightest(name="other", spec="beside", color="BGR")
    engine = opened(path, spec=str(other.with_name("other.onnx.json")))
    assert engine.spec.input.color == "BGR" and engine.spec.input.name == "picture"
    assert engine.spec.output.name == read_manifest(path).model_spec.output.name
    assert engine.info.spec.endswith("other.onnx.json")
    engine.close()


def test_another_version_or_gpu_is_refused_before_the_plan_is_loaded(tensorrt_face: Any, brightest: Brightest) -> None:
    path = plan_of(tensorrt_face.trt, brightest())
    first, other = tensorrt_face.name, "10.16.1.11"
    tensorrt_face.install(other)
    tensorrt_face.control.calls.clear()
    fails(path, EngineError, "built with", "running with", first, other, "build-engine --onnx net.onnx")
    tensorrt_face.install(first, compute_capability=(7, 5))
    fails(path, EngineError, "compute capability 8.9, and this is 7.5")
    assert not [call for call in tensorrt_face.control.calls if "deserialize" in call]


def test_another_model_of_gpu_is_said(tensorrt_face: Any, brightest: Brightest) -> None:
    path = plan_of(tensorrt_face.trt, brightest())
    tensorrt_face.machine.name = "Other"
    warnings: list[str] = []
    engine = TensorRtEngine(path, OPTIONS, warnings.append)
    engine.activate()
    engine.close()
    assert len(warnings) == 1 and "tuned on NVIDIA Stand-in, this is Other" in warnings[0]


def test_version_compatible_plans_run_on_newer_ones_only(tensorrt_face: Any, brightest: Brightest) -> None:
    trt = tensorrt_face.trt
    prepared = prepare(brightest(), OPTIONS, print)
    data = plan_bytes(trt, prepared.proto, flags=["VERSION_COMPATIBLE"])
    path = write_plan(trt, brightest().with_suffix(".plan"), data, prepared.spec, version_compatible=True)
    opened(path).close()
    tensorrt_face.install("10.0.1")
    fails(path, EngineError, "and newer ones, and this is 10.0.1")
    if tensorrt_face.version < (11,) and trt.__version__ == "10.3.0":
        tensorrt_face.install("11.4.0.106")
        opened(path).close()


def test_a_manifest_that_lies_about_the_plan(tensorrt_face: Any, brightest: Brightest) -> None:
    trt = tensorrt_face.trt
    path = plan_of(trt, brightest())
    manifest = read_manifest(path)
    tensors = [{**manifest.tensors[0], "dtype": "float16"}, manifest.tensors[1]]
    dataclasses.replace(manifest, tensors=tensors).write(manifest_path(path))
    fails(path, EngineError, "picture (input, float32 1x3x24x40)", "picture (input, float16 1x3x24x40)")
    spec = {**manifest.spec, "input": {**manifest.spec["input"], "dtype": "uint8"}}
    dataclasses.replace(manifest, spec=spec).write(manifest_path(path))
    fails(path, EngineError, "takes float32, the spec in its manifest says uint8")
    dataclasses.replace(manifest, tensorrt="10.0.1" if trt.__version__ != "10.0.1" else "11.0").write(
        manifest_path(path)
    )
    fails(path, EngineError, "running with")


def test_files_that_are_none(tensorrt_face: Any, brightest: Brightest, tmp_path: Path) -> None:
    path = plan_of(tensorrt_face.trt, brightest())
    path.write_bytes(path.read_bytes()[:-1])
    fails(path, EngineError, "is cut off")
    manifest_path(path).unlink()
    fails(path, EngineError, "has no manifest", "build-engine --onnx")
    path.write_bytes(path.with_suffix(".onnx").read_bytes())
    fails(path, EngineError, "is an ONNX network")
    fails(tmp_path / "nett.plan", EngineError, "there is no file", f"Did you mean {path}")
    fails(tmp_path, EngineError, "is a folder")


def test_without_tensorrt(tensorrt_face: Any, brightest: Brightest, monkeypatch: pytest.MonkeyPatch) -> None:
    path = plan_of(tensorrt_face.trt, brightest())
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(tensorrt, "has_driver_library", lambda: True)
    fails(path, MissingDependencyError, "segcam[gpu]")
    monkeypatch.setattr(tensorrt, "has_driver_library", lambda: False)
    fails(path, MissingDependencyError, "no NVIDIA driver here", "segcam --engine net.onnx")


def test_without_cuda(tensorrt_face: Any, brightest: Brightest) -> None:
    path = plan_of(tensorrt_face.trt, brightest())
    tensorrt_face.machine.fail("cuInit", error="CUDA_ERROR_NO_DEVICE", times=9)
    fails(path, CudaError)
    tensorrt_face.machine.heal()
    tensorrt_face.control.cuda_fails = True
    fails(path, CudaError, "error: 35", "update")


def test_calls_from_any_thread(tensorrt_face: Any, brightest: Brightest) -> None:
    path = plan_of(tensorrt_face.trt, brightest())
    engine = TensorRtEngine(path, OPTIONS, pytest.fail)
    found: list[Any] = []

    def work() -> None:
        for value in (51, 102):
            engine.input(0)[...] = value
            engine.start(0)
            found.append((engine.ready(0), engine.wait(0).copy(), engine.elapsed_ms(0)))

    for step in (engine.activate, work, engine.close):
        thread = threading.Thread(target=step)
        thread.start()
        thread.join()
    assert [float(output.mean()) for _, output, _ in found] == pytest.approx([0.2, 0.4])


def test_no_room_for_a_second_frame_is_said(tensorrt_face: Any, brightest: Brightest) -> None:
    path = plan_of(tensorrt_face.trt, brightest())
    for requests, warned in ((0, 1), (2, 0)):
        tensorrt_face.control.fail("ICudaEngine.create_execution_context", None, after=1, log="out of memory")
        warnings: list[str] = []
        engine = TensorRtEngine(path, EngineOptions(requests=requests), warnings.append)
        if requests:
            with pytest.raises(EngineError, match="out of memory"):
                engine.activate()
        else:
            engine.activate()
            assert engine.info.requests == 1
            engine.input(0)[...] = 51
            engine.start(0)
            np.testing.assert_allclose(engine.wait(0), 0.2, rtol=1e-5)
        assert len(warnings) == warned
        engine.close()


def life(path: Path) -> None:
    """All that an engine is used for, and its end whatever happens."""
    engine = TensorRtEngine(path, EngineOptions(requests=2), lambda line: None)
    try:
        engine.activate()
        for slot in range(2):
            engine.start(slot)
        for slot in range(2):
            engine.ready(slot)
            engine.wait(slot)
            engine.elapsed_ms(slot)
    finally:
        engine.close()


def test_whatever_fails_nothing_is_left(
    tensorrt_face: Any, brightest: Brightest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the driver's functions fails, the first time or the last; each call to TensorRT answers None or False."""
    if tensorrt_face.version >= (11,):
        # One face with each of the two libraries.
        for module in ("pycuda", "pycuda.driver"):
            monkeypatch.setitem(sys.modules, module, None)
    machine, control = tensorrt_face.machine, tensorrt_face.control
    path = plan_of(tensorrt_face.trt, brightest())
    machine.counts.clear()
    control.calls.clear()
    life(path)
    asked = Counter(control.calls)
    freeing = ("Free", "Destroy", "Release", "Pop", "Unload")
    driver_calls = {name: count for name, count in machine.counts.items() if not any(f in name for f in freeing)}
    assert {"cuMemAlloc", "cuStreamCreate", "cuEventRecord"} <= {name.partition("_v")[0] for name in driver_calls}
    raised = set()
    # The last one gives the context itself back, which is the driver's own business.
    driver_calls["cuCtxPushCurrent"] -= 1
    for name, count in driver_calls.items():
        for at in sorted({1, count}):
            machine.fail(name, at=at, error="CUDA_ERROR_UNKNOWN")
            try:
                life(path)
            except CudaError as error:
                assert "CUDA_ERROR_UNKNOWN" in str(error), (name, at)
                raised.add(name)
            machine.heal()
            gc.collect()
            assert not any(machine.leftovers().values()), (name, at, machine.leftovers())
    # What fails while all is given back is nobody's error; each of these calls is needed before as well.
    assert raised >= set(driver_calls) - {"cuCtxSynchronize", "cuDriverGetVersion"}
    tried = 0
    answers = {"deserialize_cuda_engine": None, "create_execution_context": None}
    answers |= dict.fromkeys(("set_tensor_address", "execute_async_v3"), False)
    for call in sorted(asked):
        if call.rpartition(".")[2] not in answers:
            continue
        for after in range(asked[call]):
            control.fail(call, answers[call.rpartition(".")[2]], after=after, log="the reason")
            with pytest.raises(EngineError, match="the reason"):
                life(path)
            gc.collect()
            assert not any(machine.leftovers().values()), (call, after, machine.leftovers())
            tried += 1
    assert tried == 11
    life(path)
