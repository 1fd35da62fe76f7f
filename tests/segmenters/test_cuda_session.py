"""Which segmenter a network gets, and a whole run of `segcam --engine x.plan` on the stand-in GPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from cuda_frames import on_cpu, picture, run, the_same
from plans import plan_of

import segcam
from segcam.config import from_arguments
from segcam.segmenters.cpu import CpuSegmenter
from segcam.segmenters.cuda import CudaSegmenter
from segcam.session import Network

Brightest = Callable[..., Path]


def network(path: Path, warnings: list[str], **settings: Any) -> Network:
    return Network.load(from_arguments({"engine": str(path), **settings}), warnings.append, lambda line: None)


def test_plans_are_segmented_on_the_gpu(tensorrt_face: Any, brightest: Brightest) -> None:
    path = brightest()
    warnings: list[str] = []
    found = network(plan_of(tensorrt_face.trt, path), warnings)
    assert found.gpu is not None and found.gpu.device.name == "NVIDIA Stand-in"
    segmenter = found.segmenter()
    assert isinstance(segmenter, CudaSegmenter)
    frames = [picture(index) for index in range(6)]
    the_same(run(segmenter, frames), on_cpu(path, frames), differing=0)
    found.close()
    found.close()
    assert warnings == []
    leftovers = tensorrt_face.machine.leftovers()
    assert not any(leftovers.values()), leftovers


def test_other_engines_are_segmented_by_the_processor(brightest: Brightest) -> None:
    found = network(brightest(), [], runtime="onnxruntime")
    assert found.gpu is None
    assert isinstance(found.segmenter(), CpuSegmenter)
    found.close()


@pytest.mark.parametrize("error", ["CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "CUDA_ERROR_NO_BINARY_FOR_GPU"])
def test_kernels_that_the_driver_does_not_take(tensorrt_face: Any, brightest: Brightest, error: str) -> None:
    """The network stays on the GPU, the rest goes to the processor, with one line that says why."""
    path = brightest()
    for name in ("cuModuleLoadData", "cuModuleLoadDataEx"):
        tensorrt_face.machine.fail(name, at=2, error=error)
    warnings: list[str] = []
    found = network(plan_of(tensorrt_face.trt, path), warnings)
    segmenter = found.segmenter()
    assert found.gpu is None and isinstance(segmenter, CpuSegmenter)
    assert len(warnings) == 1 and error in warnings[0] and "by the processor" in warnings[0]
    frames = [picture(index) for index in range(3)]
    the_same(run(segmenter, frames), on_cpu(path, frames), differing=0)
    found.close()
    leftovers = tensorrt_face.machine.leftovers()
    assert not any(leftovers.values()), leftovers


def test_outputs_that_the_kernels_do_not_read(tensorrt_face: Any, brightest: Brightest) -> None:
    path = brightest(output="float_nhw")
    warnings: list[str] = []
    found = network(plan_of(tensorrt_face.trt, path), warnings)
    segmenter = found.segmenter()
    assert isinstance(segmenter, CpuSegmenter)
    assert len(warnings) == 1 and "labels are float32" in warnings[0]
    frames = [picture(index) for index in range(3)]
    the_same(run(segmenter, frames), on_cpu(path, frames), differing=0)
    found.close()


@pytest.mark.tensorrt("11.4.0.106")
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_half_precision_scores(tensorrt_face: Any, brightest: Brightest, dtype: str) -> None:
    """As a fully converted export has them; the processor reads the same numbers."""
    path = brightest(dtype=dtype)
    model = onnx.load(path)
    model.graph.node.append(onnx.helper.make_node("Cast", ["s"], ["half"], to=onnx.TensorProto.FLOAT16))
    model.graph.output[0].name = "half"
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    onnx.save(model, path)
    found = network(plan_of(tensorrt_face.trt, path), [])
    frames = [picture(index, (48, 90)) for index in range(3)]
    the_same(run(found.segmenter(), frames), on_cpu(path, frames), differing=2e-3)
    found.close()


def test_the_python_api_on_a_plan(tensorrt_face: Any, brightest: Brightest) -> None:
    """Class maps of several sizes in turn, streams that are left early, results that are kept."""
    path = brightest()
    pictures = [np.random.default_rng(seed).integers(0, 256, (30, 50, 3), np.uint8) for seed in range(4)]
    with segcam.Segmenter(path, runtime="onnxruntime", precision="fp32") as cpu:
        sizes: list[Any] = ["frame", "network", (13, 17)]
        wanted = {size: cpu.predict(pictures, size=size) for size in sizes}
    with segcam.Segmenter(plan_of(tensorrt_face.trt, path)) as gpu:
        for _ in range(2):
            for size in sizes:
                for mine, theirs in zip(gpu.predict(pictures, size=size), wanted[size], strict=True):
                    assert (mine == theirs).mean() > 0.999
            kept = []
            for result in gpu.stream("test:size=80x64,frames=9"):
                kept.append(result)
                if len(kept) == 5:
                    break
            assert len({one.labels.ctypes.data for one in kept}) == 5
    leftovers = tensorrt_face.machine.leftovers()
    assert not any(leftovers.values()), leftovers


def command(*words: object) -> int:
    from segcam.cli.main import main

    return main([str(word) for word in words])


def test_a_run_from_the_command_line(
    tensorrt_face: Any, brightest: Brightest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Video, class maps and records are those of the processor's run."""
    monkeypatch.chdir(tmp_path)
    path = brightest()
    plan = plan_of(tensorrt_face.trt, path)
    # The test pattern has yellow and grey, where channels are as bright as each other.
    Path("pictures").mkdir()
    for index in range(25):
        cv2.imwrite(f"pictures/{index:02}.png", picture(index, (64, 96), "bgr24").planes[0])
    outputs, painted = [], []
    for name, words in (("gpu", ["-e", plan]), ("cpu", ["-e", path, "--runtime", "onnxruntime"])):
        made = ["-o", f"{name}.mp4", "-o", f"{name}/", "-o", f"{name}.jsonl", "--precision", "auto"]
        assert command(*words, "-s", "pictures/", *made, "--json", f"{name}_report.json") == 0
        records = [json.loads(line) for line in Path(f"{name}.jsonl").read_text().splitlines()]
        outputs.append([(record["index"], record["shares"]) for record in records])
        pages = [cv2.imread(str(page), cv2.IMREAD_UNCHANGED) for page in sorted(Path(name).glob("*.png"))]
        painted.append(np.stack(pages).astype(int))
    assert len(outputs[0]) == 25
    for (index, mine), (other, theirs) in zip(*outputs, strict=True):
        assert index == other and mine == pytest.approx(theirs, abs=2e-4)
    assert (np.abs(painted[0] - painted[1]) <= 1).mean() > 0.9999
    stages = json.loads(Path("gpu_report.json").read_text())["stages_ms"]
    assert {"decode", "upload", "preprocess", "inference", "postprocess", "download", "host"} <= set(stages)
    leftovers = tensorrt_face.machine.leftovers()
    assert not any(leftovers.values()), leftovers


@pytest.mark.parametrize("frame", [0, 7])
def test_a_run_whose_network_fails(
    tensorrt_face: Any, brightest: Brightest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str], frame: int,
) -> None:  # fmt: skip
    """An error that says why, exit 1, the frames before it in a whole file, nothing left on the GPU."""
    import av

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(CudaSegmenter, "_graph", lambda *any: None)
    plan = plan_of(tensorrt_face.trt, brightest())
    # Each slot has run once before the first frame.
    tensorrt_face.control.fail(
        "IExecutionContext.execute_async_v3", False, after=3 + frame, times=-1, log="the GPU fell off the bus"
    )
    assert command("-e", plan, "-s", "test:size=96x64,frames=25", "-o", "out.mp4") == 1
    said = capfd.readouterr().err
    assert "the GPU fell off the bus" in said and "Traceback" not in said
    if frame:
        with av.open("out.mp4") as container:
            assert sum(1 for _ in container.decode(video=0)) == frame
    leftovers = tensorrt_face.machine.leftovers()
    assert not any(leftovers.values()), leftovers
