"""Dilated layers run undilated on phase images and give the same; what does not divide stays as it is."""

from __future__ import annotations

from typing import Any

import pytest
from drafts import Draft, apart, kinds
from hypothesis import given, settings
from hypothesis import strategies as st

from segcam.onnx_tools.check import TOLERANCE
from segcam.onnx_tools.graph import attributes_of
from segcam.onnx_tools.rewrite.net import Net
from segcam.onnx_tools.rewrite.phases import Gains, run

#: Gains by which every layer that can move does.
EAGER = {form: Gains(1e3, 1e3, 1.0, interleaved=form == "interleaved") for form in ("interleaved", "deep")}


def phases(model: Any, form: str, **gains: Any) -> tuple[int, Any]:
    net = Net(model)
    return run(net, Gains(**gains) if gains else EAGER[form]), net.model()


def dilations(model: Any) -> set[int]:
    return {d for node in model.graph.node if node.op_type == "Conv" for d in attributes_of(node).get("dilations", [1])}


def block(draft: Draft, x: str, channels: int, wide: int, kernel: int, dilation: int, *, gate: bool, act: str) -> str:
    """A MobileNetV3 block: 1x1, depthwise dilated, squeeze-excite, 1x1, residual."""
    pad = dilation * (kernel - 1) // 2
    y = draft.add(act, [draft.conv(x, wide, channels)])
    y = draft.conv(y, wide, wide, kernel, groups=wide, dilations=[dilation] * 2, pads=[pad] * 4)
    y = draft.add(act, [y])
    if gate:
        g = draft.add("Relu", [draft.conv(draft.mean(y), 4, wide)])
        y = draft.add("Mul", [y, draft.add("HardSigmoid", [draft.conv(g, wide, 4)])])
    return draft.add("Add", [x, draft.conv(y, channels, wide)])


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    rest=st.tuples(st.sampled_from([0, 0, 0, 1, 2]), st.sampled_from([0, 0, 0, 1, 2])),
    steps=st.lists(st.sampled_from([1, 2, 4, 3, 6]), min_size=1, max_size=3),
    kernel=st.sampled_from([3, 5]),
    gate=st.booleans(),
    act=st.sampled_from(["Relu", "HardSwish", "Sigmoid"]),
    batch=st.sampled_from([1, 2, 3, "n"]),
    form=st.sampled_from(["interleaved", "deep"]),
    opset=st.sampled_from([14, 17, 18]),
)
def test_runs_of_dilated_blocks_are_the_same_on_phases(
    size: tuple[int, int], rest: tuple[int, int], steps: list[int], kernel: int, gate: bool, act: str, batch: Any,
    form: str, opset: int,
) -> None:  # fmt: skip
    hw = (12 * size[0] + rest[0], 12 * size[1] + rest[1])
    draft = Draft((batch, 3, *hw), opset=opset)
    x = draft.conv("x", 8, 3)
    for step in steps:
        x = block(draft, x, 8, 12, kernel, step, gate=gate, act=act)
    model = draft.model(draft.add("Relu", [x]))
    changed, made = phases(model, form)
    assert apart(model, made, batch=2).largest < TOLERANCE
    if rest == (0, 0):
        assert dilations(made) == {1}
        assert (changed > 0) == (max(steps) > 1)


@settings(max_examples=40, deadline=None)
@given(
    pads=st.tuples(*[st.integers(0, 5)] * 4),
    steps=st.tuples(st.sampled_from([1, 2, 3, 4]), st.sampled_from([1, 2, 3, 4])),
    kernel=st.sampled_from([(1, 3), (3, 1), (2, 3), (3, 3)]),
    groups=st.sampled_from([1, 2, 6]),
    form=st.sampled_from(["interleaved", "deep"]),
)
def test_any_padding_and_any_kernel(
    pads: tuple[int, ...], steps: tuple[int, int], kernel: tuple[int, int], groups: int, form: str
) -> None:
    draft = Draft((2, 6, 24, 24))
    weight = draft.constant(draft.normal(6, 6 // groups, *kernel))
    x = draft.add("Conv", ["x", weight], group=groups, dilations=list(steps), pads=list(pads))
    model = draft.model(x)
    _, made = phases(model, form)
    assert apart(model, made).largest < TOLERANCE


@pytest.mark.parametrize("form", ["interleaved", "deep"])
def test_dilation_4_is_dilation_2_twice_and_comes_back_once(form: str) -> None:
    draft = Draft((1, 8, 32, 48))
    x = block(draft, "x", 8, 24, 5, 2, gate=True, act="Relu")
    for _ in range(2):
        x = block(draft, x, 8, 24, 5, 4, gate=True, act="Relu")
    model = draft.model(draft.add("Relu", [draft.conv(x, 64, 8)]))
    changed, made = phases(model, form)
    # One layer of dilation 2, two of dilation 4 that move twice.
    assert changed == 5
    assert dilations(made) == {1}
    counts = kinds(made)
    if form == "deep":
        assert (counts["SpaceToDepth"], counts["DepthToSpace"]) == (2, 2)
    else:
        # In, further in, and out: between the two ways out nothing is turned to NCHW and back.
        assert "SpaceToDepth" not in counts and counts["Transpose"] == 3 + 3 + 4
    assert apart(model, made).small


def test_the_way_back_lies_where_channels_are_few() -> None:
    draft = Draft((1, 8, 16, 16))
    y = draft.add("Relu", [draft.conv("x", 8, 8, 3, dilations=[2, 2], pads=[2] * 4)])
    y = draft.add("Relu", [draft.conv(y, 96, 8)])
    model = draft.model(draft.conv(y, 4, 96, 3, pads=[1] * 4))
    _, made = phases(model, "deep")
    back = next(node for node in made.graph.node if node.op_type == "DepthToSpace")
    shapes = Net(made).shapes
    assert shapes[back.output[0]] == (1, 8, 16, 16)


def test_a_run_that_gains_less_than_its_crossings_stays() -> None:
    draft = Draft((1, 8, 16, 16))
    model = draft.model(draft.conv("x", 8, 8, 3, dilations=[2, 2], pads=[2] * 4))
    assert phases(model, "", depthwise=1.0, dense=1.0, crossing=1.0)[0] == 0
    assert phases(model, "", depthwise=1.0, dense=1.0, crossing=0.4)[0] == 1
    assert phases(model, "", depthwise=1.0, dense=1.0, crossing=0.4, pixels=257)[0] == 0


@pytest.mark.parametrize("kind", ["strided", "odd padding", "odd size", "grown", "undilated", "position", "outside"])
def test_what_does_not_fit_is_left_alone_or_is_still_the_same(kind: str) -> None:
    draft = Draft((1, 6, 17, 16) if kind == "odd size" else (1, 6, 16, 16))
    given: dict[str, Any] = {"dilations": [2, 2], "pads": [2] * 4}
    if kind == "strided":
        given["strides"] = [2, 2]
    if kind == "odd padding":
        given["pads"] = [3, 2, 1, 2]
    if kind == "grown":
        given["pads"] = [4, 2, 2, 2]
    if kind == "undilated":
        given = {"pads": [1] * 4}
    x = draft.conv("x", 6, 6, 3, **given)
    if kind == "position":
        # A number for each pixel: not the same on every phase.
        x = draft.add("Mul", [x, draft.constant(draft.normal(1, 1, 16, 16))])
    outputs = [draft.add("Relu", [x])] + ([x] if kind == "outside" else [])
    model = draft.model(*outputs)
    changed, made = phases(model, "deep")
    assert (changed > 0) == (kind in ("grown", "position", "outside"))
    assert apart(model, made).small


def test_pictures_of_a_batch_keep_their_own_means() -> None:
    import numpy as np
    from drafts import run_exactly

    draft = Draft((2, 4, 8, 8))
    model = draft.model(block(draft, "x", 4, 8, 3, 2, gate=True, act="Relu"))
    _, made = phases(model, "interleaved")
    pictures = np.random.default_rng(3).standard_normal((2, 4, 8, 8)).astype(np.float32)
    pictures[1] *= 50
    (plain,), (moved,) = run_exactly(model, {"x": pictures}), run_exactly(made, {"x": pictures})
    np.testing.assert_allclose(moved, plain, rtol=1e-4, atol=1e-4)


def test_concatenations_norms_and_constants_of_a_channel_move_along() -> None:
    draft = Draft((1, 4, 8, 8))
    a = draft.conv("x", 4, 4, 3, dilations=[2, 2], pads=[2] * 4)
    scale = draft.add("Mul", [a, draft.constant(draft.normal(4, 1, 1))])
    both = draft.add("Concat", [scale, draft.add("Clip", [a, draft.constant(-1), draft.constant(1)])], axis=1)
    one = [draft.constant(np_abs) for np_abs in (abs(draft.normal(8)) for _ in range(4))]
    normed = draft.add("BatchNormalization", [both, *one])
    model = draft.model(draft.conv(normed, 4, 8, 3, dilations=[2, 2], pads=[2] * 4))
    _, made = phases(model, "deep")
    assert kinds(made)["SpaceToDepth"] == kinds(made)["DepthToSpace"] == 1
    assert apart(model, made).small
