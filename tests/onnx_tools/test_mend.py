"""Weights among the inputs, and bytes where TensorRT takes none."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from drafts import Draft, kinds, run_exactly
from onnx import TensorProto, helper

from segcam.errors import EngineError
from segcam.onnx_tools.check import random_inputs
from segcam.onnx_tools.mend import bytes_from_floats, cast_bytes_first, drop_weight_inputs


def bytes_in(*movers: str) -> onnx.ModelProto:
    """A uint8 NHWC picture through ``movers`` before the Cast that makes numbers of it."""
    draft = Draft((1, 8, 12, 3))
    draft.inputs[0].type.tensor_type.elem_type = TensorProto.UINT8
    x = "x"
    for kind in movers:
        if kind in ("Add", "Max"):
            x = draft.add(kind, [x, x if kind == "Add" else draft.constant(200, np.uint8)])
        else:
            x = draft.add(kind, [x], **({"perm": [0, 3, 1, 2]} if kind == "Transpose" else {}))
    x = draft.add("Cast", [x], to=TensorProto.FLOAT)
    if "Transpose" not in movers:
        x = draft.add("Transpose", [x], perm=[0, 3, 1, 2])
    return draft.model(draft.conv(x, 4, 3, 3))


def readers_of_bytes(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node if model.graph.input[0].name in node.input}


def test_weights_leave_the_list_of_inputs() -> None:
    draft = Draft(opset=11)
    model = draft.model(draft.conv("x", 4, 3, 3), weights_as_inputs=True)
    model.ir_version = 3
    wanted = run_exactly(model, {"x": random_inputs(model)["x"]})
    assert drop_weight_inputs(model) == 2
    assert [value.name for value in model.graph.input] == ["x"]
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_array_equal(run_exactly(model, random_inputs(model))[0], wanted[0])
    assert drop_weight_inputs(model) == 0


@pytest.mark.parametrize("movers", [("Transpose",), ("Identity", "Transpose")])
def test_a_cast_goes_before_what_moves_bytes(movers: tuple[str, ...]) -> None:
    model = bytes_in(*movers)
    made, words = cast_bytes_first(model)
    assert words == f"a Cast before the {movers[0]} that reads the input's bytes"
    assert readers_of_bytes(made) == {"Cast"}
    assert readers_of_bytes(model) == {movers[0]}
    fed = random_inputs(model)
    np.testing.assert_array_equal(run_exactly(made, fed)[0], run_exactly(model, fed)[0])


def test_what_is_right_already_stays() -> None:
    draft = Draft()
    for model in (bytes_in(), draft.model(draft.conv("x", 4, 3))):
        made, words = cast_bytes_first(model)
        assert made is model and words == ""


@pytest.mark.parametrize(
    ("kind", "why"), [("Add", "the scores differ by"), ("Max", "the graph does not hold: .*inconsistent type")]
)
def test_what_a_cast_in_front_would_change_is_refused(kind: str, why: str) -> None:
    """200 + 200 is 144 in bytes and 400 in floats; and a float has no maximum with a byte."""
    with pytest.raises(EngineError, match=f"{kind} 'n0' reads the bytes of the input 'x'.*{why}") as refused:
        cast_bytes_first(bytes_in(kind, "Transpose"))
    assert "first casts its picture" in refused.value.hint


def labels(to: int, before: int | None = None) -> onnx.ModelProto:
    draft = Draft()
    y = draft.add("ArgMax", [draft.conv("x", 4, 3)], axis=1)
    if before:
        y = draft.add("Cast", [y], to=before)
    model = Draft.model(draft, draft.add("Cast", [y], "labels", to=TensorProto.FLOAT))
    model.graph.node[-1].attribute[0].i = to
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("labels", to, [None] * 4))
    onnx.checker.check_model(model, full_check=True)
    return model


def test_bytes_that_come_out_were_floats() -> None:
    model = labels(TensorProto.UINT8)
    fed = random_inputs(model)
    wanted = run_exactly(model, fed)[0]
    assert bytes_from_floats(model) == 1
    onnx.checker.check_model(model, full_check=True)
    assert kinds(model)["Cast"] == 2
    found = run_exactly(model, fed)[0]
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, wanted)
    assert bytes_from_floats(model) == 0


@pytest.mark.parametrize("model", [labels(TensorProto.INT64), labels(TensorProto.UINT8, TensorProto.FLOAT16)])
def test_other_outputs_stay(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    assert bytes_from_floats(model) == 0
    assert model.SerializeToString() == before
