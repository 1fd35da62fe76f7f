"""1x1 layers merge, move below enlargements and split over concatenations; what only looks like it stays."""

from __future__ import annotations

from typing import Any

import pytest
from drafts import Draft, apart, kinds
from hypothesis import given, settings
from hypothesis import strategies as st

from segcam.onnx_tools.check import TOLERANCE
from segcam.onnx_tools.rewrite import rewrite

MODES = ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel")


def linear(model: Any) -> Any:
    return rewrite(model, ["linear"], check=False)


def pyramid_stage(
    draft: Draft,
    small: tuple[int, int],
    large: tuple[int, int],
    *,
    wide: int = 24,
    mode: str = "half_pixel",
    by: str = "sizes",
    batch: int = 1,
) -> str:
    """relu(W [up(Y y); V s]) as fastseg's head has it, y of size ``small`` and s of ``large``."""
    y = draft.conv("x", 16, 3, 3, pads=[1, 1, 1, 1])
    y = draft.add("Relu", [draft.resize(y, (batch, 16, *small), by="sizes", mode="nearest")])
    s = draft.conv(draft.resize("x", (batch, 3, *large), mode="nearest"), 8, 3, 3, pads=[1, 1, 1, 1])
    s = draft.add("Relu", [s])
    inner = draft.conv(y, wide, 16)
    up = draft.resize(
        inner, (batch, wide, *large), by=by, source=(batch, wide, *small), coordinate_transformation_mode=mode
    )
    skip = draft.conv(s, 32, 8, bias=False)
    both = draft.add("Concat", [up, skip], axis=1)
    return draft.add("Relu", [draft.conv(both, wide, wide + 32)])


@settings(max_examples=40, deadline=None)
@given(
    small=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    times=st.tuples(st.sampled_from([1.0, 1.5, 2.0, 3.0]), st.sampled_from([1.0, 2.0, 2.4])),
    mode=st.sampled_from(MODES),
    wide=st.sampled_from([1, 8, 24, 33]),
    batch=st.integers(1, 3),
    opset=st.sampled_from([11, 13, 17]),
    listed=st.booleans(),
)
def test_a_stage_of_a_head_is_the_same_below_its_enlargement(
    small: tuple[int, int], times: tuple[float, float], mode: str, wide: int, batch: int, opset: int, listed: bool
) -> None:
    large = (int(small[0] * times[0]), int(small[1] * times[1]))
    draft = Draft((batch, 3, *small), opset=opset)
    model = draft.model(pyramid_stage(draft, small, large, wide=wide, mode=mode, batch=batch), weights_as_inputs=listed)
    made = linear(model)
    assert made.done == ["linear"]
    assert "Concat" not in kinds(made.model)
    assert apart(model, made.model).largest < TOLERANCE


def test_the_large_product_runs_on_the_small_picture() -> None:
    draft = Draft((1, 3, 8, 8))
    model = draft.model(pyramid_stage(draft, (8, 8), (16, 16)))
    before, after = kinds(model), kinds(linear(model).model)
    assert before["Conv"] == 5
    # Two 3x3 layers stay; one 1x1 layer on the small picture and one on the skip are left of three.
    assert after == {"Conv": 4, "Resize": 3, "Relu": 3, "Add": 1}


@pytest.mark.parametrize("by", ["sizes", "scales"])
def test_enlargements_by_sizes_and_by_scales_move(by: str) -> None:
    draft = Draft((1, 3, 8, 8))
    model = draft.model(pyramid_stage(draft, (8, 8), (16, 24), by=by))
    made = linear(model)
    assert made.done and "Concat" not in kinds(made.model)
    assert apart(model, made.model).small


def test_rows_of_layers_merge_and_their_biases_with_them() -> None:
    draft = Draft((2, 3, 9, 11))
    x = "x"
    for outputs, inputs in ((16, 3), (4, 16), (12, 4), (5, 12)):
        x = draft.conv(x, outputs, inputs)
    model = draft.model(x)
    made = linear(model)
    assert kinds(made.model) == {"Conv": 1}
    assert apart(model, made.model).small


def test_a_narrow_middle_is_cheaper_than_the_product() -> None:
    draft = Draft((1, 64, 9, 11))
    model = draft.model(draft.conv(draft.conv("x", 1, 64), 64, 1))
    assert linear(model).done == []


@pytest.mark.parametrize("batch", [1, 3])
def test_an_open_batch_stays_open(batch: int) -> None:
    draft = Draft(("n", 3, 8, 8))
    y = draft.conv(draft.add("Relu", [draft.conv("x", 16, 3)]), 24, 16)
    up = draft.resize(y, (1, 24, 16, 16), by="scales", source=(1, 24, 8, 8))
    model = draft.model(draft.conv(up, 8, 24))
    made = linear(model)
    assert made.done == ["linear"]
    assert apart(model, made.model, batch).small


def look_alike(kind: str) -> tuple[Draft, str, list[str]]:
    """A graph in which a 1x1 layer over an enlargement must stay where it is (or must not be merged)."""
    draft = Draft((1, 4, 8, 8))
    y = draft.add("Relu", [draft.conv("x", 24, 4)])
    more: dict[str, Any] = {}
    if kind in ("nearest", "cubic"):
        more = {"mode": kind}
    if kind == "crop":
        more = {"coordinate_transformation_mode": "tf_crop_and_resize"}
        roi = draft.constant([0, 0, -0.2, 0, 1, 1, 0.8, 1])
        sizes = draft.constant([1, 24, 16, 16], "int64")
        up = draft.add("Resize", [y, roi, "", sizes], mode="linear", extrapolation_value=3.0, **more)
    elif kind == "shrinks":
        up = draft.resize(y, (1, 24, 4, 4))
    elif kind == "channels":
        up = draft.resize(y, (1, 24, 8, 8), by="scales", source=(1, 12, 8, 8))
        return draft, draft.conv(up, 8, 48), []
    else:
        up = draft.resize(y, (1, 24, 16, 16), **more)
    extra: list[str] = []
    if kind == "grouped":
        last = draft.conv(up, 8, 24, groups=2)
    elif kind == "strided":
        last = draft.conv(up, 8, 24, strides=[2, 2])
    elif kind == "padded":
        last = draft.conv(up, 8, 24, pads=[1, 1, 1, 1])
    elif kind == "3x3":
        last = draft.conv(up, 8, 24, 3)
    else:
        last = draft.conv(up, 8, 24)
    if kind == "output":
        extra = [up]
    if kind == "read twice":
        last = draft.add("Add", [last, draft.conv(draft.add("Sigmoid", [up]), 8, 24)])
    return draft, last, extra


@pytest.mark.parametrize(
    "kind",
    [
        "nearest", "cubic", "crop", "shrinks", "channels", "grouped", "strided", "padded", "3x3", "output",
        "read twice",
    ],
)  # fmt: skip
def test_what_only_looks_alike_is_left_alone(kind: str) -> None:
    draft, last, extra = look_alike(kind)
    model = draft.model(last, *extra)
    made = linear(model)
    assert made.done == [] and made.model is model


def test_weights_that_others_read_too_stay_for_them() -> None:
    draft = Draft((1, 4, 8, 8))
    y = draft.add("Relu", [draft.conv("x", 24, 4)])
    shared = draft.constant(draft.normal(24, 24, 1, 1))
    first = draft.add("Conv", [y, shared])
    up = draft.resize(first, (1, 24, 16, 16))
    last = draft.add("Conv", [up, shared])
    other = draft.add("Relu", [draft.add("Conv", [y, shared])])
    model = draft.model(last, other)
    made = linear(model)
    assert made.done == ["linear"]
    assert shared in {i.name for i in made.model.graph.initializer}
    assert apart(model, made.model).small


def test_weights_that_are_computed_are_left_alone() -> None:
    draft = Draft((1, 4, 8, 8))
    up = draft.resize(draft.add("Relu", [draft.conv("x", 24, 4)]), (1, 24, 16, 16))
    weight = draft.add("Reshape", [draft.mean(draft.conv("x", 240, 4)), draft.constant([10, 24, 1, 1], "int64")])
    model = draft.model(draft.add("Conv", [up, weight]))
    assert linear(model).done == []


def test_what_a_subgraph_reads_keeps_its_name() -> None:
    from onnx import TensorProto, helper

    draft = Draft((1, 4, 8, 8))
    y = draft.add("Relu", [draft.conv("x", 24, 4)])
    up = draft.resize(draft.conv(y, 24, 24), (1, 24, 16, 16))
    branch = helper.make_graph(
        [helper.make_node("Identity", [up], ["inner"])], "b", [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )  # fmt: skip
    taken = draft.add("If", [draft.constant(True, bool)], then_branch=branch, else_branch=branch)
    model = draft.model(draft.conv(up, 8, 24), taken)
    made = linear(model)
    assert apart(model, made.model).small
