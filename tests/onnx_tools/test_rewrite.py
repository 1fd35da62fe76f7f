"""rewrite(): which passes run, what is kept, what the metadata says; spelled-out hard-swish; an opened graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from drafts import Draft, apart, kinds
from onnx import TensorProto, helper

from segcam.onnx_tools.graph import opset_of
from segcam.onnx_tools.rewrite import BY_RUNTIME, EVERYWHERE, METADATA_KEY, PASSES, passes, rewrite, rewrites_of
from segcam.onnx_tools.rewrite.net import Net


def two_layers(**more: Any) -> onnx.ModelProto:
    draft = Draft((1, 8, 8, 8), **more)
    return draft.model(draft.conv(draft.conv("x", 16, 8), 4, 16))


def swish(draft: Draft, x: str, form: str) -> str:
    three, zero, six = (draft.constant(value) for value in (3.0, 0.0, 6.0))
    clip = draft.add("Clip", [draft.add("Add", [x, three] if form != "turned" else [three, x]), zero, six])
    if form == "product first":
        return draft.add("Div", [draft.add("Mul", [clip, x]), six])
    if form == "sixth":
        return draft.add("Mul", [draft.add("Mul", [clip, draft.constant(1 / 6)]), x])
    if form == "gate":
        return draft.add("Mul", [x, draft.add("HardSigmoid", [x], alpha=1 / 6, beta=0.5)])
    return draft.add("Mul", [x, draft.add("Div", [clip, six])])


@pytest.mark.parametrize("form", ["plain", "turned", "product first", "sixth", "gate"])
@pytest.mark.parametrize("opset", [11, 13, 17])
def test_spelled_out_hard_swish_becomes_one_operator(form: str, opset: int) -> None:
    draft = Draft((1, 4, 6, 6), opset=opset)
    up = draft.resize(swish(draft, draft.conv("x", 6, 4), form), (1, 6, 9, 12))
    model = draft.model(draft.add("Relu", [up]))
    made = rewrite(model, ["activations"])
    assert made.done == ["activations"]
    assert kinds(made.model) == {"Conv": 1, "HardSwish": 1, "Resize": 1, "Relu": 1}
    assert opset_of(made.model) == max(opset, 14)
    assert apart(model, made.model).small


def test_what_is_not_quite_hard_swish_stays() -> None:
    draft = Draft((1, 4, 6, 6))
    relu6 = draft.add("Clip", [draft.add("Add", ["x", draft.constant(3.0)]), draft.constant(0.0), draft.constant(6.0)])
    other = draft.add("Mul", [draft.conv("x", 4, 4), draft.add("Div", [relu6, draft.constant(6.0)])])
    seventh = draft.add("Mul", ["x", draft.add("Div", [relu6, draft.constant(7.0)])])
    gate = draft.add("Mul", ["x", draft.add("HardSigmoid", ["x"], alpha=0.2, beta=0.5)])
    assert rewrite(draft.model(other, seventh, gate), ["activations"]).done == []


def test_an_opset_that_cannot_be_raised_stays() -> None:
    draft = Draft((1, 4, 6, 6), opset=11)
    # Softmax took another axis by default before opset 13.
    model = draft.model(draft.add("Softmax", [swish(draft, "x", "plain")]))
    assert rewrite(model, ["activations"]).done == []


def test_metadata_names_what_was_done_and_nothing_is_done_twice() -> None:
    model = two_layers()
    entry = model.metadata_props.add()
    entry.key, entry.value = "author", "somebody"
    made = rewrite(model)
    assert made.done == ["linear"] and made.refused == {}
    assert {e.key: e.value for e in made.model.metadata_props} == {"author": "somebody", METADATA_KEY: "linear"}
    assert rewrites_of(made.model) == ["linear"] and rewrites_of(model) == []
    assert rewrite(made.model).model is made.model
    # A file that claims to have been through a rewrite is taken at its word.
    entry.key, entry.value = METADATA_KEY, "linear, pools"
    assert rewrite(model).done == []


def test_the_given_model_is_not_changed() -> None:
    model = two_layers()
    before = model.SerializeToString(deterministic=True)
    assert rewrite(model).done
    assert model.SerializeToString(deterministic=True) == before


def test_runtimes_get_their_own_passes() -> None:
    for names in (EVERYWHERE, *BY_RUNTIME.values()):
        order = [list(PASSES).index(name) for name in names]
        assert order == sorted(order)
        assert set(EVERYWHERE) <= set(names)
    assert rewrite(two_layers(), runtime="openvino").done == ["linear"]
    with pytest.raises(KeyError):
        rewrite(two_layers(), ["no such rewrite"])


def spoil(net: Net) -> int:
    net.replace("t1", net.add("Mul", ["t0", net.constant("much", np.float32(1.001))], net.shapes["t1"], "spoiled"))
    return 1


def test_a_rewrite_that_changes_the_result_is_refused_and_those_before_it_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draft = Draft((1, 8, 8, 8))
    t0 = draft.conv("x", 4, 8, 3)
    t1 = draft.add("Relu", [t0], "t1")
    model = draft.model(draft.conv(draft.conv(draft.add("Relu", [t1]), 16, 4), 4, 16))
    monkeypatch.setitem(passes.PASSES, "spoil", lambda net, runtime: spoil(net))
    made = rewrite(model, ["linear", "spoil"])
    assert made.done == ["linear"]
    assert list(made.refused) == ["spoil"] and "differ" in made.refused["spoil"]
    assert apart(model, made.model).small
    trusted = rewrite(model, ["linear", "spoil"], check=False)
    assert trusted.done == ["linear", "spoil"]
    assert not apart(model, trusted.model).small


def test_what_cannot_be_compared_is_refused() -> None:
    draft = Draft((1, 8, 8, 8))
    y = draft.conv(draft.conv("x", 16, 8), 4, 16)
    draft.inputs.append(helper.make_tensor_value_info("names", TensorProto.STRING, [1]))
    draft.add("Identity", ["names"])
    made = rewrite(draft.model(y))
    assert made.done == [] and list(made.refused) == ["linear"]


def test_weights_stored_as_half_are_constants() -> None:
    draft = Draft((1, 8, 8, 8))
    y = "x"
    for outputs, inputs in ((16, 8), (4, 16)):
        stored = draft.constant(draft.normal(outputs, inputs, 1, 1), np.float16)
        y = draft.add("Conv", [y, draft.add("Cast", [stored], to=TensorProto.FLOAT)])
    model = draft.model(y)
    made = rewrite(model)
    assert made.done == ["linear"] and kinds(made.model) == {"Conv": 1}
    assert apart(model, made.model).small


def test_an_opened_graph_that_nobody_edits_is_the_same() -> None:
    draft = Draft((1, 3, 8, 8), opset=11)
    shape = draft.add("Shape", ["x"])
    rows = draft.add("Gather", [shape, draft.constant([2, 3], "int64")])
    twice = draft.add("Mul", [rows, draft.constant([2, 2], "int64")])
    sizes = draft.add("Concat", [draft.constant([1, 5], "int64"), twice], axis=0)
    empty = [draft.constant([]), draft.constant([])]
    y = draft.add("Resize", [draft.conv("x", 5, 3), *empty, sizes], mode="linear")
    model = draft.model(draft.add("Relu", [y]), weights_as_inputs=True)
    net = Net(model)
    made = net.model()
    assert [i.name for i in made.graph.input] == ["x"]
    assert kinds(made) == {"Conv": 1, "Resize": 1, "Relu": 1}
    assert net.shape4(y) == (1, 5, 16, 16)
    assert apart(model, made).small
