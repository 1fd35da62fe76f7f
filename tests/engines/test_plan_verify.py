"""A plan run beside its graph: the same network passes, another one is found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
import typed_networks
from onnx import TensorProto, numpy_helper
from plan_builds import Build

from segcam.engines.plan_options import Profile
from segcam.engines.plan_verify import expected_outputs, refuse_wrong, verify_plan
from segcam.errors import CudaError, EngineError
from segcam.kernels.cuda.driver import Driver
from segcam.onnx_tools.agreement import Agreement

Pictures = list[np.ndarray[Any, Any]]


def pictures(*shape: int, dtype: Any = np.float32, count: int = 2) -> Pictures:
    random = np.random.default_rng(0)
    if dtype == np.uint8:
        return [random.integers(0, 256, shape, np.uint8) for _ in range(count)]
    return [random.standard_normal(shape).astype(dtype) for _ in range(count)]


def checked(model: onnx.ModelProto, data: bytes, feeds: Pictures, driver: Driver) -> Agreement:
    return verify_plan(data, feeds, expected_outputs(model, feeds), driver, "noise")


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16], ids=["fp32", "fp16"])
def test_a_plan_computes_what_its_network_does(tensorrt_face: Any, build: Build, driver: Driver, kind: int) -> None:
    model = typed_networks.scores(kind)
    precision = "fp32" if kind == TensorProto.FLOAT else "fp16"
    found = checked(model, build(model, precision=precision).data, pictures(1, 3, 8, 16), driver)
    assert found.labels_equal > 0.99
    assert found.largest_difference < 1e-2 * found.spread
    assert (found.nonfinite, found.frames, found.source) == (0, 2, "noise")
    refuse_wrong(found, "fp32" if kind == TensorProto.FLOAT else "fp16")


def test_labels_out_of_bytes(tensorrt_face: Any, build: Build, driver: Driver) -> None:
    model = typed_networks.bytes_to_labels()
    found = checked(model, build(model).data, pictures(1, 8, 16, 3, dtype=np.uint8), driver)
    assert found.labels_equal > 0.99
    assert (found.largest_difference, found.spread) == (0.0, 0.0)


def test_any_shape_that_the_plan_takes(tensorrt_face: Any, build: Build, driver: Driver) -> None:
    model = typed_networks.scores(batch="n")
    profile = Profile("input", (1, 3, 8, 16), (2, 3, 8, 16), (4, 3, 8, 16))
    data = build(model, profiles=(profile,)).data
    feeds = [*pictures(1, 3, 8, 16, count=1), *pictures(3, 3, 8, 16, count=1)]
    assert checked(model, data, feeds, driver).labels_equal > 0.99
    with pytest.raises(EngineError, match="5x3x8x16"):
        verify_plan(data, pictures(5, 3, 8, 16), pictures(5, 5, 8, 16), driver, "noise")


def test_another_network_is_found(tensorrt_face: Any, build: Build, driver: Driver) -> None:
    model, other = typed_networks.scores(), typed_networks.scores()
    weights = numpy_helper.to_array(other.graph.initializer[0])
    other.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(weights[::-1]), "w"))
    found = checked(model, build(other).data, pictures(1, 3, 8, 16), driver)
    with pytest.raises(EngineError, match=r"does not compute what its network does: \d+\.\d\d % .*noise") as caught:
        refuse_wrong(found, "fp16")
    assert "not kept" in caught.value.hint


def test_scores_that_are_not_finite_are_found(tensorrt_face: Any, build: Build, driver: Driver) -> None:
    model, overflowing = typed_networks.scores(), typed_networks.scores()
    huge = numpy_helper.to_array(model.graph.initializer[0]).astype(np.float32) * 30000
    overflowing.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.clip(huge, -65504, 65504).astype(np.float16), "w")
    )
    found = checked(model, build(overflowing).data, pictures(1, 3, 8, 16), driver)
    assert found.nonfinite == 2
    assert found.largest_difference == np.inf
    with pytest.raises(EngineError, match="not finite in 2 of 2 frames"):
        refuse_wrong(found, "fp16")


def test_networks_without_a_clear_winner_are_not_refused() -> None:
    ties = Agreement(0.9, 0.01, 1.0, 0, 1, "noise")
    refuse_wrong(ties, "fp16")
    rough = Agreement(0.999, 0.4, 1.0, 0, 1, "noise")
    refuse_wrong(rough, "fp16")
    with pytest.raises(EngineError):
        refuse_wrong(replace(ties, largest_difference=0.4), "fp16")
    labels = Agreement(0.9, 0.0, 0.0, 0, 1, "noise")
    with pytest.raises(EngineError):
        refuse_wrong(labels, "fp16")


def test_what_does_not_fit_is_an_error(tensorrt_face: Any, build: Build, driver: Driver) -> None:
    data = build(typed_networks.scores()).data
    with pytest.raises(EngineError, match="no frames"):
        verify_plan(data, [], [], driver, "noise")
    with pytest.raises(EngineError, match="float64"):
        verify_plan(data, pictures(1, 3, 8, 16, dtype=np.float64), pictures(1, 5, 8, 16), driver, "noise")
    with pytest.raises(EngineError, match="1x5x8x16, its network 1x5x4x4"):
        verify_plan(data, pictures(1, 3, 8, 16), pictures(1, 5, 4, 4), driver, "noise")


@pytest.mark.parametrize(
    "call", ["cuMemAlloc", "cuStreamCreate", "cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuStreamSynchronize"]
)
def test_whatever_fails_nothing_is_left(tensorrt_face: Any, build: Build, driver: Driver, call: str) -> None:
    data = build(typed_networks.scores()).data
    said = []
    for at in (1, 2):
        tensorrt_face.machine.fail(call, at=at)
        try:
            verify_plan(data, pictures(1, 3, 8, 16), pictures(1, 5, 8, 16), driver, "noise")
        except CudaError as error:
            said.append(error.message)  # not the error: with its traceback it keeps what failed alive
    assert said
