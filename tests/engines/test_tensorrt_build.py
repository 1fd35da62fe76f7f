"""Building plans: what comes out, what is refused and why, and Ctrl-C, on both kinds of TensorRT."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest
import typed_networks
from onnx import TensorProto
from plan_builds import Build, Recording, calls, header, refused

from segcam.engines import inspection
from segcam.engines.plan import PlanEngine
from segcam.engines.tensorrt_build import PlanOptions, Profile, Quiet
from segcam.kernels.cuda.driver import Driver

FP16 = PlanOptions(precision="fp16")
FP32 = PlanOptions(precision="fp32")
SEVERAL = Profile("input", (1, 3, 8, 16), (2, 3, 8, 16), (4, 3, 8, 16))


def test_a_plan_says_what_it_is_and_loads(tensorrt_face: Any, build: Build, driver: Driver) -> None:
    built = build(typed_networks.scores())
    assert [(t["name"], t["mode"], t["dtype"], t["shape"], t["profile"]) for t in built.tensors] == [
        ("input", "input", "float32", [1, 3, 8, 16], None),
        ("output", "output", "float32", [1, 5, 8, 16], None),
    ]
    assert built.precision_found == {"float16": 4}
    assert [layer["Name"] for layer in built.layers] == ["enter", "conv", "relu", "leave"]
    assert built.log == []
    PlanEngine(built.data, driver, "the plan").close()


def test_fp32_means_fp32(tensorrt_face: Any, build: Build) -> None:
    model = typed_networks.scores(TensorProto.FLOAT)
    assert build(model, FP32).precision_found == {"float32": 4}
    assert header(build(model, FP32).data)["flags"] == []
    assert header(build(model, FP32, tf32=True).data)["flags"] == ["TF32"]


@pytest.mark.tensorrt("10.0.1", "10.3.0", "10.16.1.11", "11.4.0.106")
def test_networks_are_strongly_typed_and_say_all_on_one_stream(tensorrt_face: Any, build: Build) -> None:
    found = header(build(typed_networks.scores()).data)
    assert (found["strong"], found["verbosity"], found["aux_streams"]) == (True, "DETAILED", 0)
    assert not set(found["flags"]) & {"FP16", "BF16", "INT8", "FP8"}


def test_a_range_of_shapes(tensorrt_face: Any, build: Build) -> None:
    built = build(typed_networks.scores(batch="n"), profiles=(SEVERAL,))
    assert built.tensors[0]["shape"] == [-1, 3, 8, 16]
    assert built.tensors[0]["profile"] == [[1, 3, 8, 16], [2, 3, 8, 16], [4, 3, 8, 16]]
    assert built.precision_found == {"float16": 4}


def test_bytes_in_and_labels_out(tensorrt_face: Any, build: Build) -> None:
    built = build(typed_networks.bytes_to_labels())
    assert [(t["dtype"], t["shape"]) for t in built.tensors] == [("uint8", [1, 8, 16, 3]), ("int64", [1, 8, 16])]
    assert built.precision_found["float16"] == 5


def test_a_quantized_network(tensorrt_face: Any, build: Build) -> None:
    assert build(typed_networks.quantized(), precision="int8").precision_found["int8"] >= 2


def test_the_inspector_may_give_names_alone(tensorrt_face: Any, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "layers_of", lambda trt, plan: [{"Name": "conv"}])
    built = build(typed_networks.scores())
    assert built.precision_found == {"float16": 3, "float32": 1}
    assert "names no types" in built.log[0]


def test_another_precision_than_the_one_asked_for_is_no_plan(
    tensorrt_face: Any, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(build, "fp16 was asked for, and the network has no float16", model=typed_networks.scores(TensorProto.FLOAT))
    assert calls(tensorrt_face, "Builder.build_serialized_network") == 0
    layers = [{"Name": "conv", "Outputs": [{"Name": "y", "Format/Datatype": "Float"}]}]
    monkeypatch.setattr(inspection, "layers_of", lambda trt, plan: layers)
    refused(build, "fp16 was asked for and not given", "0 % of the plan's layers", "1 float32")


# --- progress and Ctrl-C


def test_progress_is_one_bar_that_fills(tensorrt_face: Any, build: Build) -> None:
    progress = Recording()
    build(typed_networks.scores(), progress=progress)
    assert [stage[0] for stage in progress.stages] == ["parse", "parse", "build", "build"]
    assert "4 layers" in progress.stages[1][1]
    done = [step for step, _ in progress.steps]
    assert done == sorted(done) and done[0] == 0 and len(set(done)) > 8
    assert progress.steps[-1] == (1000, 1000)
    assert "Timing graph nodes" in progress.words


def test_ctrl_c_ends_a_build(tensorrt_face: Any, build: Build) -> None:
    heard = signal.getsignal(signal.SIGINT)

    def interrupt(phase: str, step: int) -> None:
        if phase == "Timing graph nodes":
            os.kill(os.getpid(), signal.SIGINT)
            # The main thread hears it, whatever this one does.
            threading.Event().wait(0.5)

    tensorrt_face.control.on_step = interrupt
    progress = Recording()
    with pytest.raises(KeyboardInterrupt):
        build(typed_networks.scores(), progress=progress)
    assert signal.getsignal(signal.SIGINT) is heard
    assert calls(tensorrt_face, "Runtime.deserialize_cuda_engine") == 0
    assert any("stopping" in words for words in progress.words)
    tensorrt_face.control.on_step = None
    assert build(typed_networks.scores()).data


def test_cancelling_from_another_thread(tensorrt_face: Any, build: Build) -> None:
    progress = Recording()
    tensorrt_face.control.on_step = lambda phase, step: setattr(progress, "stop", True)
    results: list[str] = []

    def body() -> None:
        try:
            build(typed_networks.scores(), progress=progress)
        except KeyboardInterrupt:
            results.append("cancelled")

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert results == ["cancelled"]


def test_what_progress_raises_comes_out(tensorrt_face: Any, build: Build) -> None:
    class Broken(Quiet):
        def step(self, done: int, total: int, words: str) -> None:
            raise OSError("the terminal is gone")

    with pytest.raises(OSError, match="the terminal is gone"):
        build(typed_networks.scores(), progress=Broken())
    assert tensorrt_face.control.callback_errors == []
