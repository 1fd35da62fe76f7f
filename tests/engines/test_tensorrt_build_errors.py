"""What TensorRT refuses to parse or to build, and what a GPU cannot do: said in its words, with what to do next."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import typed_networks
from onnx import TensorProto, helper
from plan_builds import Build, calls, header, refused

from segcam.engines.tensorrt_build import PlanOptions, Profile, Quiet, build_plan
from segcam.errors import EngineError, MissingDependencyError
from segcam.kernels.cuda.driver import Driver, open_driver

FP16 = PlanOptions(precision="fp16")
FP32 = PlanOptions(precision="fp32")
SEVERAL = Profile("input", (1, 3, 8, 16), (2, 3, 8, 16), (4, 3, 8, 16))


# --- what the parser refuses


def test_every_fault_of_the_parser_is_told_with_its_node(tensorrt_face: Any, build: Build) -> None:
    float32 = TensorProto.FLOAT
    nodes = [
        helper.make_node("Cast", ["input"], ["h"], "halves", to=TensorProto.FLOAT16),
        helper.make_node("Frob", ["h"], ["a"], "first", domain="org.example"),
        helper.make_node("Knit", ["a"], ["b"], "second", domain="org.example"),
        helper.make_node("Cast", ["b"], ["output"], "leave", to=float32),
    ]
    model = typed_networks.model(nodes, (float32, [1, 3, 8, 16]), (float32, [1, 3, 8, 16]), {})
    model.opset_import.append(helper.make_opsetid("org.example", 1))
    error = refused(
        build, "2 faults", "node 1 'first' (Frob)", "node 2 'second' (Knit)", "Plugin not found", model=model
    )
    assert "no Frob" in error.hint
    assert ".cpp:" in error.message


def test_bytes_may_only_be_cast(tensorrt_face: Any, build: Build) -> None:
    nodes = [
        helper.make_node("Transpose", ["input"], ["t"], "planes", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["t"], ["h"], "enter", to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["h"], ["output"], "leave", to=TensorProto.FLOAT),
    ]
    model = typed_networks.model(nodes, (TensorProto.UINT8, [1, 8, 16, 3]), (TensorProto.FLOAT, [1, 3, 8, 16]), {})
    error = refused(build, "UINT8", "'planes' (Transpose)", model=model)
    assert "Cast, then Transpose" in error.hint


def test_a_zero_point_that_is_not_zero(tensorrt_face: Any, build: Build) -> None:
    model = typed_networks.quantized()
    for tensor in model.graph.initializer:
        if tensor.name == "zero":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(3, np.int8), "zero"))
    error = refused(build, "zero point", "'quantize' (QuantizeLinear)", model=model, precision="int8")
    assert "symmetrically" in error.hint


@pytest.mark.tensorrt("10.0.1", "10.3.0")
def test_an_opset_that_is_too_new(tensorrt_face: Any, build: Build) -> None:
    model = typed_networks.scores()
    model.opset_import[0].version = 21
    error = refused(build, "opset 21", model=model)
    assert "opset 17" in error.hint


def test_an_opset_that_is_too_old(tensorrt_face: Any, build: Build) -> None:
    model = typed_networks.scores()
    model.opset_import[0].version = 8
    assert "opset 17" in refused(build, "opset 8", model=model).hint


def test_a_parser_that_gives_no_reason(tensorrt_face: Any, build: Build) -> None:
    tensorrt_face.control.fail("OnnxParser.parse_from_file", False, log="the network is odd")
    refused(build, "could not parse the network", "the network is odd")


def test_a_graph_that_is_no_valid_onnx(tensorrt_face: Any, build: Build) -> None:
    model = typed_networks.scores()
    model.graph.node[1].attribute[0].ints[:] = [1, 1, 1]
    refused(build, "not valid ONNX", model=model)
    assert calls(tensorrt_face, "OnnxParser.parse_from_file") == 0


def test_no_room_for_the_network(tensorrt_face: Any, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(model: onnx.ModelProto, path: Path) -> int:
        path.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("segcam.engines.tensorrt_build.save_model", full)
    refused(build, "cannot be written", "No space left on device")


# --- what the builder refuses


def test_no_plan_is_an_error_in_the_builders_words(tensorrt_face: Any, build: Build) -> None:
    tensorrt_face.control.fail("Builder.build_serialized_network", None, log="Error Code 9: something broke")
    refused(build, "built no plan on", "Error Code 9: something broke")


def test_too_little_workspace(tensorrt_face: Any, build: Build) -> None:
    tensorrt_face.control.workspace_needed = 2**26
    error = refused(build, "insufficient workspace", workspace_bytes=2**24)
    assert "--workspace 16M" in error.hint
    assert build(typed_networks.scores(), workspace_bytes=2**27).data


def test_too_little_memory(tensorrt_face: Any, build: Build) -> None:
    tensorrt_face.control.fail(
        "Builder.build_serialized_network", None, log="Error Code 1: Cuda Runtime (out of memory)"
    )
    assert "MiB of the GPU's" in refused(build, "out of memory").hint


@pytest.mark.parametrize(
    "call",
    [
        "Builder.create_network",
        "Builder.create_builder_config",
        "Runtime.deserialize_cuda_engine",
        "ICudaEngine.create_engine_inspector",
    ],
)
def test_every_none_is_an_error(tensorrt_face: Any, build: Build, call: str) -> None:
    tensorrt_face.control.fail(call, None, log="it did not work")
    refused(build, "TensorRT could not", "it did not work")


def test_cuda_that_does_not_start(tensorrt_face: Any, build: Build) -> None:
    tensorrt_face.control.cuda_fails = True
    refused(build, "could not start its builder", "CUDA")


def test_without_tensorrt(driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    with pytest.raises(MissingDependencyError, match="TensorRT"):
        build_plan(typed_networks.scores(), FP16, driver, Quiet(), tmp_path)


# --- shapes, hardware, DLA


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        (Profile("image", (1, 3, 8, 16), (1, 3, 8, 16), (1, 3, 8, 16)), ("'image'", "has: input")),
        (Profile("input", (1, 3, 8), (1, 3, 8), (1, 3, 8)), ("min has 3 dimensions",)),
        (Profile("input", (2, 3, 8, 16), (1, 3, 8, 16), (4, 3, 8, 16)), ("2, 1, 4 on axis 0", "?x3x8x16")),
        (Profile("input", (0, 3, 8, 16), (1, 3, 8, 16), (4, 3, 8, 16)), ("0, 1, 4 on axis 0",)),
        (Profile("input", (1, 3, 8, 16), (1, 3, 9, 16), (1, 3, 9, 16)), ("axis 2 is fixed at 8",)),
    ],
)
def test_shapes_that_do_not_fit(tensorrt_face: Any, build: Build, profile: Profile, words: tuple[str, ...]) -> None:
    refused(build, *words, model=typed_networks.scores(batch="n"), profiles=(profile,))


def test_open_axes_need_shapes(tensorrt_face: Any, build: Build) -> None:
    error = refused(build, "'input' is ?x3x?x16", model=typed_networks.scores(batch="n", hw=("h", 16)))
    assert "--shapes" in error.hint


def test_shapes_that_tensorrt_refuses(tensorrt_face: Any, build: Build) -> None:
    model = typed_networks.scores(batch="n")
    tensorrt_face.control.fail("IBuilderConfig.add_optimization_profile", -1, log="not today")
    refused(build, "refuses the shapes 1x3x8x16:2x3x8x16:4x3x8x16", "not today", model=model, profiles=(SEVERAL,))
    tensorrt_face.control.fail("IOptimizationProfile.set_shape", ValueError("inconsistent"))
    refused(build, "refuses the shapes", "inconsistent", model=model, profiles=(SEVERAL,))


@pytest.mark.parametrize(
    ("capability", "precision", "works"),
    [((5, 2), "fp16", False), ((6, 1), "fp16", False), ((7, 5), "fp16", True), ((7, 5), "bf16", False),
     ((8, 6), "fp8", False), ((7, 5), "int8", True), ((6, 0), "int8", False), ((5, 2), "fp32", True)],
)  # fmt: skip
def test_what_a_gpu_computes_in(
    tensorrt_face: Any, tmp_path: Path, capability: tuple[int, int], precision: Any, works: bool
) -> None:
    tensorrt_face.install(compute_capability=capability)
    model = {"fp32": typed_networks.scores(TensorProto.FLOAT), "int8": typed_networks.quantized()}.get(precision)
    driver = open_driver()
    try:
        options = PlanOptions(precision=precision)
        if works:
            assert build_plan(model or typed_networks.scores(), options, driver, Quiet(), tmp_path).data
            return
        with pytest.raises(
            EngineError, match=rf"compute capability {capability[0]}\.{capability[1]}.*{precision}"
        ) as caught:
            build_plan(model or typed_networks.scores(), options, driver, Quiet(), tmp_path)
        assert "--fp32" in caught.value.hint
    finally:
        driver.close()


@pytest.mark.tensorrt("10.3.0", "10.16.1.11", "11.4.0.106")
def test_plans_for_other_hardware_and_versions(tensorrt_face: Any, build: Build) -> None:
    model = typed_networks.scores()
    found = header(build(model, hardware_compat="ampere+", version_compat=True).data)
    assert found["hardware"] == "AMPERE_PLUS"
    assert "VERSION_COMPATIBLE" in found["flags"]
    if tensorrt_face.version >= (10, 13):
        found = header(build(model, hardware_compat="same-compute-capability").data)
        assert found["hardware"] == "SAME_COMPUTE_CAPABILITY"
    else:
        refused(build, "10.3.0 has no", "10.13 and newer", hardware_compat="same-compute-capability")


def test_the_dla(tensorrt_face: Any, build: Build) -> None:
    refused(build, "sees no DLA cores", dla=0)
    tensorrt_face.control.dla_cores = 2
    assert "GPU_FALLBACK" in header(build(typed_networks.scores(), dla=1).data)["flags"]
    refused(build, "--dla 2", "sees 2 DLA cores", dla=2)
    refused(build, "fp16 and int8 only", model=typed_networks.scores(TensorProto.FLOAT), precision="fp32", dla=0)
    refused(build, "one size", model=typed_networks.scores(batch="n"), profiles=(SEVERAL,), dla=0)
    refused(build, "no other hardware", dla=0, hardware_compat="ampere+")
