"""onnxsim where it is there, compared with the original; and the comparison itself."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import onnx
import pytest
from drafts import Draft, apart, kinds
from onnx import TensorProto, helper

from segcam.errors import EngineError
from segcam.onnx_tools.check import TOLERANCE, compare, difference, outputs, random_inputs
from segcam.onnx_tools.simplify import simplify


def untidy(**more: int) -> onnx.ModelProto:
    draft = Draft((1, 3, 8, 8), **more)
    y = draft.add("Identity", [draft.conv("x", 4, 3, 3)])
    model = draft.model(draft.add("Relu", [draft.add("Identity", [y])]))
    entry = model.metadata_props.add()
    entry.key, entry.value = "author", "somebody"
    return model


def test_what_a_simplifier_removes_is_gone_and_the_rest_is_the_same() -> None:
    pytest.importorskip("onnxsim")
    model = untidy()
    made = simplify(model)
    assert made.reason == ""
    assert kinds(made.model) == {"Conv": 1, "Relu": 1}
    assert [(e.key, e.value) for e in made.model.metadata_props] == [("author", "somebody")]
    assert apart(model, made.model).small


def test_without_onnxsim_the_model_stays_and_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxsim", None)
    model = untidy()
    made = simplify(model)
    assert made.model is model and "pip install onnxsim" in made.reason


@pytest.mark.parametrize("fault", ["raises", "another result", "does not run"])
def test_a_simplifier_that_fails_is_refused(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    def wrong(model: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
        if fault == "raises":
            raise RuntimeError("no shape for t0\nand more")
        made = untidy(seed=1 if fault == "another result" else 0)
        if fault == "does not run":
            del made.graph.initializer[:]
        return made, True

    fake = ModuleType("onnxsim")
    fake.simplify = wrong  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "onnxsim", fake)
    model = untidy()
    made = simplify(model)
    assert made.model is model
    assert {"raises": "no shape for t0", "another result": "differs", "does not run": "cannot run"}[
        fault
    ] in made.reason


def test_differences_are_measured_by_the_spread() -> None:
    one = [np.array([0.0, 10.0, 20.0], np.float32)]
    spread = float(np.std(one[0]))
    assert compare(one, one).largest == 0
    assert compare(one, [one[0] + np.float32(1)]).largest == pytest.approx(1 / spread)
    assert compare(one, [one[0] + np.float32(spread * TOLERANCE / 2)]).small
    assert not compare(one, [one[0] + np.float32(spread * TOLERANCE * 2)]).small


@pytest.mark.parametrize(
    "other",
    [
        [],
        [np.zeros((2, 2), np.float32)],
        [np.zeros(3, np.float64)],
        [np.array([0, np.nan, 1], np.float32)],
        [np.array([0, np.inf, 1], np.float32)],
    ],
)
def test_what_cannot_be_measured_is_never_small(other: list[np.ndarray]) -> None:  # type: ignore[type-arg]
    one = [np.array([0, 1, 2], np.float32)]
    assert not compare(one, other).small
    assert not compare([np.zeros(3, np.float32)], [np.full(3, np.nan, np.float32)]).small


def test_labels_count_what_differs() -> None:
    labels = np.zeros(20_000, np.int64)
    other = labels.copy()
    other[0] = 1
    assert compare([labels], [other]).largest == pytest.approx(1 / 20_000)
    other[:3] = 1
    assert not compare([labels], [other]).small


def test_inputs_fit_the_graph() -> None:
    draft = Draft(("n", 3, "h", "w"))
    model = draft.model(draft.conv("x", 4, 3), weights_as_inputs=True)
    assert {name: value.shape for name, value in random_inputs(model).items()} == {"x": (1, 3, 64, 64)}
    assert difference(model, model).largest == 0
    draft.inputs = [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 3, 4, 4])]
    draft.nodes = [helper.make_node("Cast", ["x"], ["t0"], to=TensorProto.FLOAT)]
    given = random_inputs(draft.model("t0"))["x"]
    assert given.dtype == np.uint8 and given.max() > 127


def test_a_graph_that_does_not_run_says_so() -> None:
    model = untidy()
    inputs = random_inputs(model)
    del model.graph.initializer[:]
    with pytest.raises(EngineError, match="cannot run"):
        outputs(model, inputs)
