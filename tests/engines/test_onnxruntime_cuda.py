"""ONNX Runtime on the GPU: the same answers as on the CPU, on our streams and addresses; never the CPU in silence."""

from __future__ import annotations

import gc
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import cv2
import driver_in_c
import numpy as np
import onnx
import pytest
import standin_ort_cuda
from cuda_shim import HostKernels, library, need_compiler
from cuda_shim.on_machine import put_kernels_on
from standin_cuda import Machine, install

import segcam
from segcam.cli.main import main
from segcam.engines.base import EngineOptions
from segcam.engines.factory import make_engine
from segcam.engines.onnxruntime_cuda import OnnxRuntimeCudaEngine, _first_line, missing_library
from segcam.errors import CudaError, EngineError, MissingDependencyError, UsageError
from segcam.gpu_engine import gpu_engine
from segcam.kernels.cuda.driver import open_driver

CUDA = EngineOptions(device="cuda:0")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return install(monkeypatch)


@pytest.fixture
def ort(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> standin_ort_cuda.OrtOnMachine:
    return standin_ort_cuda.install(monkeypatch, machine)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ort") / "small.onnx"
    segcam.export(path, "FastSCNN", size=(64, 128), init="random", warn=lambda line: None)
    return path


def make(path: Path, options: EngineOptions = CUDA, warn: Callable[[str], None] = pytest.fail) -> OnnxRuntimeCudaEngine:
    engine = make_engine(str(path), options, warn, "onnxruntime")
    assert isinstance(engine, OnnxRuntimeCudaEngine)
    return engine


def feed(engine: Any, slots: int) -> list[np.ndarray[Any, Any]]:
    """The outputs of so many slots, each with a picture of its own, all started before the first is waited for."""
    for slot in range(slots):
        fed = engine.input(slot)
        fed[...] = np.random.default_rng(slot).standard_normal(fed.shape).astype(fed.dtype)
        del fed
        engine.start(slot)
    return [engine.wait(slot).copy() for slot in range(slots)]


@pytest.mark.parametrize("seed", range(4))
def test_slots_answer_as_on_the_cpu(network: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Whatever the order is in which the streams' work happens; and nothing is left behind."""
    machine = install(monkeypatch, order=random.Random(seed) if seed else "lazy")
    face = standin_ort_cuda.install(monkeypatch, machine)
    engine = make(network, EngineOptions(device="cuda", requests=3))
    engine.activate()
    assert engine.info.line().startswith("small.onnx: 128x64 on ONNX Runtime ")
    assert (engine.info.device, engine.info.precision, engine.info.requests) == ("NVIDIA Stand-in", "fp32", 3)
    got = feed(engine, 3)
    assert engine.elapsed_ms(0) > 0
    # Each stream has a session of its own, none of them waits, and the first run is none of a frame's.
    assert len({session.stream for session in face.sessions}) == len(face.sessions) == 3
    assert {session.options["device_id"] for session in face.sessions} == {"0"}
    # fp32 is fp32.
    assert {session.options["use_tf32"] for session in face.sessions} == {"0"}
    engine.close()
    engine.close()
    gc.collect()
    assert not any(machine.leftovers().values()), machine.leftovers()
    cpu = make_engine(str(network), EngineOptions(requests=3), pytest.fail, "onnxruntime")
    cpu.activate()
    for one, other in zip(got, feed(cpu, 3), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    cpu.close()


def test_the_device_level_is_what_a_segmenter_needs(
    network: Path, machine: Machine, ort: standin_ort_cuda.OrtOnMachine
) -> None:
    """Between a caller's own addresses, on a caller's own stream."""
    driver = open_driver("cuda-python")
    engine = OnnxRuntimeCudaEngine(network, CUDA, pytest.fail, driver)
    engine.activate()
    assert engine.driver is driver and not engine.capturable
    assert (engine.input_dtype, engine.output_dtype) == ("float32", "float32")
    slot = engine.device_slot(1)
    picture = np.random.default_rng(5).standard_normal((1, 3, 64, 128)).astype(np.float32)
    with driver.current():
        run = engine.plan.execution((1, 3, 64, 128))
        assert (run.input_bytes, run.output_bytes) == (picture.nbytes, int(np.prod(run.output_shape)) * 4)
        stream, given, made = driver.stream(), driver.allocate(run.input_bytes), driver.allocate(run.output_bytes)
        result = np.empty(run.output_shape, np.float32)
        for on, fed, read, over in (
            (run, given.address, made.address, stream),
            (slot.execution, slot.input, slot.output, slot.stream),
        ):
            driver.upload(fed, picture, over)
            on.warm_up(over, fed, read)
            on.enqueue(over, fed, read)
            # Nothing has happened yet: whoever calls goes on.
            assert machine.streams.stream(over.handle).queue
            driver.download(result, read, over)
            over.synchronize()
            want = ort.sessions[0].inner.run(None, {engine.plan.input.name: picture})[0]
            np.testing.assert_array_equal(result, want)
        with pytest.raises(EngineError, match="another stream"):
            run.enqueue(slot.stream, given.address, made.address)
        with pytest.raises(CudaError, match="multiple of 256"):
            run.enqueue(stream, given.address + 4, made.address)
        run.close()
        run.close()
    with pytest.raises(EngineError, match="takes an input of 1x3x64x128, not 1x3x32x64"):
        engine.plan.execution((1, 3, 32, 64))
    engine.close()
    assert not driver.closed
    driver.close()


def test_fp16_is_converted_proven_and_said(network: Path, ort: standin_ort_cuda.OrtOnMachine) -> None:
    said: list[str] = []
    engine = make(network, EngineOptions(device="cuda", precision="fp16"), said.append)
    engine.activate()
    assert engine.info.precision == "fp16" and len(said) == 1 and "of fp32's labels" in said[0]
    inner = onnx.load_from_string(engine.plan._data)
    assert {10} <= {weight.data_type for weight in inner.graph.initializer}
    (got,) = feed(engine, 1)
    engine.close()
    fp32 = make(network)
    fp32.activate()
    (want,) = feed(fp32, 1)
    assert (got.argmax(1) == want.argmax(1)).mean() > 0.99 and not np.array_equal(got, want)
    fp32.close()


def test_a_network_in_halves_runs_as_it_is(network: Path, tmp_path: Path, ort: standin_ort_cuda.OrtOnMachine) -> None:
    from segcam.onnx_tools.precision import convert_precision

    path = tmp_path / "half.onnx"
    onnx.save(convert_precision(onnx.load(network), "fp16", keep_io=False).model, path)
    engine = make(path)
    engine.activate()
    assert engine.info.precision == "fp16" and engine.input_dtype == engine.output_dtype == "float16"
    assert np.isfinite(feed(engine, 2)[1]).all()
    engine.close()
    with pytest.raises(UsageError, match="is in halves"):
        make(path, EngineOptions(device="cuda", precision="fp32")).activate()


@pytest.mark.parametrize("output", ["scores_nhwc", "int64_nhw", "uint8_n1hw"])
@pytest.mark.parametrize(("layout", "dtype"), [("NCHW", "float16"), ("NHWC", "uint8")])
def test_other_inputs_and_outputs(
    brightest: Callable[..., Path], ort: standin_ort_cuda.OrtOnMachine, output: str, layout: str, dtype: str
) -> None:
    path = brightest(output=output, layout=layout, dtype=dtype)
    engine, cpu = make(path), make_engine(str(path), EngineOptions(), pytest.fail, "onnxruntime")
    for each in (engine, cpu):
        each.activate()
    for slot in range(2):
        engine.input(slot)[...] = cpu.input(slot)[...] = np.random.default_rng(slot).integers(
            0, 200, cpu.input(0).shape
        )
        engine.start(slot)
        cpu.start(slot)
        np.testing.assert_array_equal(engine.wait(slot), cpu.wait(slot))
    assert engine.info.output_layout == cpu.info.output_layout
    engine.close()
    cpu.close()


def test_never_the_cpu_in_silence(network: Path, machine: Machine, ort: standin_ort_cuda.OrtOnMachine) -> None:
    ort.loads = False
    engine = make(network)
    with pytest.raises(EngineError, match=r"cannot use CUDA here: .*libonnxruntime_providers_cuda.so"):
        engine.activate()
    gc.collect()
    assert not any(machine.leftovers().values()), machine.leftovers()
    ort.loads, ort.partly = True, True
    said: list[str] = []
    engine = make(network, warn=said.append)
    engine.activate()
    assert len(said) == 1 and "run on the CPU, with copies" in said[0]
    engine.close()


def test_what_is_missing_is_named(
    network: Path, monkeypatch: pytest.MonkeyPatch, ort: standin_ort_cuda.OrtOnMachine
) -> None:
    ort.compiled = False
    with pytest.raises(MissingDependencyError, match="on the CPU only") as caught:
        make(network).activate()
    assert "onnxruntime-gpu" in caught.value.hint
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match="not installed"):
        make(network).activate()


def test_libraries_are_loaded_once_and_print_nothing(
    network: Path,
    ort: standin_ort_cuda.OrtOnMachine,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From wherever Python imports CUDA's packages: ONNX Runtime looks beside itself only."""
    folders = [tmp_path / "site" / "nvidia" / name / "lib" for name in ("cu13", "cudnn")]
    for folder in folders:
        folder.mkdir(parents=True)
    monkeypatch.setattr(sys, "path", ["", *sys.path, str(tmp_path / "site"), str(tmp_path / "site"), "/nowhere"])
    for _ in range(2):
        engine = make(network)
        engine.activate()
        engine.close()
    mine = [place for place in ort.preloaded if place is None or place.startswith(str(tmp_path))]
    assert mine == [*map(str, folders), None] and ort.preloaded[-1] is None and capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        # As a session is refused where CUDA does not come up.
        (
            "/src/core/providers/cuda/cuda_execution_provider_info.cc:63 static Info Info::FromProviderOptions(const "
            "ProviderOptions&) [ONNXRuntimeError] : 1 : FAIL : utils.h:187 Parse Failed to parse provider option "
            '"device_id": CUDA failure 36: API call is not supported ; GPU=-1 \n',
            "CUDA failure 36: API call is not supported ; GPU=-1",
        ),
        ("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : out of memory\nmore", "out of memory"),
        ("plain", "plain"),
        ("", "ValueError"),
    ],
)
def test_what_onnxruntime_says_is_told_from_where_it_says_it(text: str, words: str) -> None:
    assert _first_line(ValueError(text)) == words


def test_a_library_that_is_missing_is_told_from_what_the_core_gives(tmp_path: Path) -> None:
    """Compiled for this: a part that needs the core's symbol, and one that needs a driver's."""
    compiler = driver_in_c.c_compiler()
    for symbol, missing in (("Provider_GetHost", ""), ("cuOfNoDriver", "undefined symbol: cuOfNoDriver"), ("", "")):
        package = tmp_path / f"with_{symbol}"
        library = package / "capi" / "libonnxruntime_providers_cuda.so"
        library.parent.mkdir(parents=True)
        source = f"int {symbol}(void); int f(void) {{ return {symbol}(); }}" if symbol else "int f;"
        command = [compiler, "-shared", "-fPIC", "-Wl,-z,now", "-x", "c", "-", "-o", str(library)]
        subprocess.run(command, input=source.encode(), check=True)
        found = missing_library(cast(ModuleType, SimpleNamespace(__file__=str(package / "__init__.py"))))
        assert missing in found and bool(missing) == bool(found), found
    nowhere = SimpleNamespace(__file__=str(tmp_path / "none" / "__init__.py"))
    assert "cannot open shared object file" in missing_library(cast(ModuleType, nowhere))


def test_bfloat16_is_refused(network: Path, ort: standin_ort_cuda.OrtOnMachine) -> None:
    with pytest.raises(UsageError, match="bf16 was asked for"):
        make(network, EngineOptions(device="cuda", precision="bf16")).activate()


@pytest.mark.parametrize("run", [1, 2, 3, 5])
def test_a_run_that_fails(network: Path, machine: Machine, ort: standin_ort_cuda.OrtOnMachine, run: int) -> None:
    """In the warm-up of either slot, or with a frame: the error says so, and what was taken is given back."""
    ort.fails_at = run
    engine = make(network, EngineOptions(device="cuda", requests=2))
    with pytest.raises(EngineError, match=r"failed while running small.onnx on the GPU: .*Conv node"):
        engine.activate()
        feed(engine, 1)
    engine.close()
    gc.collect()
    assert not any(machine.leftovers().values()), machine.leftovers()


def test_no_gpu(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    standin_ort_cuda.install(monkeypatch, install(monkeypatch, devices=0))
    with pytest.raises(CudaError):
        make(network).activate()


def test_a_gpu_named_without_tensorrt(
    network: Path, ort: standin_ort_cuda.OrtOnMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--device cuda:0 alone: ONNX Runtime's, and said; where it has no CUDA, how to get TensorRT."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    said: list[str] = []
    engine = gpu_engine(network, CUDA, "auto", said.append, said.append)
    assert isinstance(engine, OnnxRuntimeCudaEngine) and engine.info.device == "NVIDIA Stand-in"
    assert len(said) == 1 and said[0].startswith("TensorRT is not installed: ONNX Runtime runs")
    engine.close()
    assert gpu_engine(network, CUDA, "onnxruntime", said.append, said.append) is None
    ort.compiled = False
    with pytest.raises(MissingDependencyError, match="TensorRT"):
        gpu_engine(network, CUDA, "auto", said.append, said.append)


def test_a_run_from_end_to_end(
    network: Path, machine: Machine, ort: standin_ort_cuda.OrtOnMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """segcam on the GPU names every pixel as on the CPU, through the kernels and with live overlays."""
    need_compiler()
    put_kernels_on(machine, HostKernels(library()))
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        coarse = np.random.default_rng(number).integers(0, 256, (7, 9, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "pictures" / f"{number}.png"), cv2.resize(coarse, (90, 70)))
    command = ["-e", str(network), "-s", str(tmp_path / "pictures"), "--runtime", "onnxruntime"]
    more = ["--precision", "fp32", "--no-rewrite"]
    for device, folder in (("cuda:0", "gpu"), ("cpu", "cpu")):
        outputs = ["-o", f"labels:{tmp_path / folder}", "-o", f"{tmp_path / folder}-overlay/"]
        assert main([*command, *more, "--device", device, *outputs]) == 0
    assert ort.runs > 3
    names = [path.name for path in (tmp_path / "cpu").iterdir()]
    assert len(names) == 3
    for name in names:
        one, other = (cv2.imread(str(tmp_path / folder / name), cv2.IMREAD_UNCHANGED) for folder in ("gpu", "cpu"))
        assert (one != other).sum() <= 1, (one != other).sum()
    gc.collect()
    assert not any(machine.leftovers().values()), machine.leftovers()


def test_an_output_that_declares_no_size(
    network: Path, tmp_path: Path, ort: standin_ort_cuda.OrtOnMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where shapes cannot be inferred, a run on the CPU tells."""
    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", lambda model, **more: model)
    model = onnx.load(network)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, tmp_path / "open.onnx")
    engine = make(tmp_path / "open.onnx")
    engine.activate()
    assert engine.info.output_shape[:2] == (1, 19)
    engine.close()
