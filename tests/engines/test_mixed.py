"""The first layers of a bfloat16 network, in fp32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov
import pytest
from onnx import TensorProto, helper, numpy_helper

from segcam.engines import mixed
from segcam.engines.base import EngineOptions
from segcam.engines.openvino import OpenVinoEngine

DEPTH, CHANNELS, SIDE = 10, 16, 32


def chain(height: int | str = SIDE, residual: bool = False) -> bytes:
    """Ten convolutions of the same size behind each other, the sixth of them depthwise, and a ReLU after each.

    ``residual``: the second convolution is also added to the seventh and the ninth.
    """
    random = np.random.default_rng(0)
    nodes, weights, fed = [], [], "input"
    for i in range(DEPTH):
        group = CHANNELS if i == 5 else 1
        shape = (CHANNELS, CHANNELS // group if i else 3, 3, 3)
        values = random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        weights.append(numpy_helper.from_array(values.astype(np.float32), f"w{i}"))
        nodes.append(helper.make_node("Conv", [fed, f"w{i}"], [f"c{i}"], f"conv{i}", pads=[1] * 4, group=group))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"], f"relu{i}"))
        fed = f"r{i}"
        if residual and i in (6, 8):
            nodes.append(helper.make_node("Add", [fed, "c1"], [f"s{i}"], f"sum{i}"))
            fed = f"s{i}"
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, height, SIDE])
    made = helper.make_tensor_value_info(fed, TensorProto.FLOAT, [1, CHANNELS, height, SIDE])
    graph = helper.make_graph(nodes, "chain", [given], [made], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def run(core: ov.Core, network: ov.Model, hint: str) -> Any:
    picture = np.random.default_rng(1).standard_normal((1, 3, SIDE, SIDE)).astype(np.float32)
    return core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": hint})(picture)[0].astype(np.float64)


def test_layers_are_counted_from_the_input_up_to_the_share_of_multiplications(monkeypatch: pytest.MonkeyPatch) -> None:
    core = ov.Core()
    network = core.read_model(chain())
    pixels = SIDE * SIDE
    plain, first, depthwise = CHANNELS * CHANNELS * 9 * pixels, 3 * CHANNELS * 9 * pixels, CHANNELS * 9 * pixels
    work = [first, *[plain] * 4, depthwise, *[plain] * 4]
    for share in (0.0, first / sum(work) * 1.01, 0.15, 0.4, 0.9, 1.0):
        monkeypatch.setattr(mixed, "FIRST_SHARE", share)
        expected = sum(int(np.cumsum(work)[i] <= share * sum(work)) for i in range(DEPTH))
        assert mixed.keep_first_layers_fp32(core, network)[1] == expected


def test_a_network_of_open_size_stays_as_it_is() -> None:
    core = ov.Core()
    network = core.read_model(chain("height"))
    assert mixed.keep_first_layers_fp32(core, network) == (network, 0)


def test_what_is_kept_computes_as_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    core = ov.Core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no bfloat16")
    network = core.read_model(chain())
    exact = run(core, network, "f32")
    errors = []
    for share in (0.0, 0.5, 1.0):
        monkeypatch.setattr(mixed, "FIRST_SHARE", share)
        kept, count = mixed.keep_first_layers_fp32(core, network)
        np.testing.assert_array_equal(run(core, kept, "f32"), exact)
        errors.append(float(np.abs(run(core, kept, "bf16") - exact).mean()))
        assert (count == 0) == (share == 0)
    assert errors[0] > errors[1] > errors[2] == 0


@pytest.mark.parametrize(("share", "layers"), [(0.1, 1), (0.2, 1), (0.3, 2), (0.5, 3), (0.7, 6), (0.85, 7), (1.0, 10)])
def test_a_sum_is_never_of_two_precisions(monkeypatch: pytest.MonkeyPatch, share: float, layers: int) -> None:
    """OpenVINO refuses to run such a sum, or adds what it has not converted."""
    core = ov.Core()
    network = core.read_model(chain(residual=True))
    monkeypatch.setattr(mixed, "FIRST_SHARE", share)
    kept, count = mixed.keep_first_layers_fp32(core, network)
    exact = run(core, network, "f32")
    assert np.abs(run(core, kept, "bf16") - exact).max() < 0.05 * exact.std()
    # What is added to the ninth is not kept before that is.
    assert count == layers


def test_auto_says_how_many_and_bf16_keeps_none(tmp_path: Path) -> None:
    path = tmp_path / "chain.onnx"
    path.write_bytes(chain())
    if "BF16" not in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no bfloat16")
    lines = {}
    for precision in ("auto", "bf16", "fp32"):
        engine = OpenVinoEngine(path, EngineOptions(precision=precision), lambda line: None)  # type: ignore[arg-type]
        engine.activate()
        lines[precision] = engine.info.arithmetic
        engine.close()
    assert lines == {"auto": "bf16, the first 2 layers fp32", "bf16": "bf16", "fp32": "fp32"}
