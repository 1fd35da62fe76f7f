"""Pools in two steps, gates in the weights, pyramids as small matrices, enlargements in strips: all the same result."""

from __future__ import annotations

from typing import Any

import pytest
from drafts import Draft, apart, kinds
from hypothesis import given, settings
from hypothesis import strategies as st

from segcam.onnx_tools.check import TOLERANCE
from segcam.onnx_tools.rewrite import gates, pools, pyramid, strips
from segcam.onnx_tools.rewrite.net import Net


def done(model: Any, run: Any, *given: Any) -> tuple[int, Any]:
    net = Net(model)
    return run(net, *given), net.model()


@settings(max_examples=30, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    strides=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    size=st.tuples(st.integers(9, 24), st.integers(9, 24)),
    batch=st.integers(1, 2),
)
def test_overlapping_pools_are_the_same_in_two_steps(
    kernel: tuple[int, int], strides: tuple[int, int], size: tuple[int, int], batch: int
) -> None:
    draft = Draft((batch, 3, *size))
    model = draft.model(draft.add("AveragePool", ["x"], kernel_shape=list(kernel), strides=list(strides)))
    changed, made = done(model, pools.run)
    assert apart(model, made).largest < TOLERANCE
    overlaps = min(kernel) > 4 and max(strides) < 3 and min(size) > 20
    assert changed == 1 or not overlaps


@pytest.mark.parametrize("more", [{"pads": [1, 1, 1, 1]}, {"ceil_mode": 1}, {"auto_pad": "SAME_UPPER"}])
def test_pools_that_stick_out_are_left_alone(more: dict[str, Any]) -> None:
    draft = Draft((1, 3, 24, 25))
    model = draft.model(draft.add("AveragePool", ["x"], kernel_shape=[8, 8], strides=[2, 2], **more))
    assert done(model, pools.run)[0] == 0


@pytest.mark.parametrize("kind", ["pool", "axes", "attribute"])
def test_means_over_pictures_are_the_same_in_two_steps(kind: str) -> None:
    draft = Draft((2, 8, 120, 130), opset=18 if kind == "axes" else 17)
    if kind == "pool":
        mean = draft.mean("x")
    elif kind == "axes":
        mean = draft.add("ReduceMean", ["x", draft.constant([-1, 2], "int64")])
    else:
        mean = draft.add("ReduceMean", ["x"], axes=[2, 3])
    model = draft.model(mean)
    changed, made = done(model, pools.run_means)
    assert changed == 1 and kinds(made) == {"AveragePool": 1, "GlobalAveragePool": 1}
    assert apart(model, made).small


def test_other_means_are_left_alone() -> None:
    draft = Draft((1, 8, 120, 130))
    over_channels = draft.add("ReduceMean", ["x"], axes=[1, 3])
    small = draft.mean(draft.conv("x", 2, 8, strides=[8, 8]))
    model = draft.model(over_channels, small)
    assert done(model, pools.run_means)[0] == 0


def gated(draft: Draft, batch: int, *, bias: bool = True) -> str:
    y = draft.add("Relu", [draft.conv("x", 12, 3)])
    gate = draft.add("HardSigmoid", [draft.conv(draft.mean(y), 12, 12)])
    return draft.conv(draft.add("Mul", [gate, y]), 5, 12, bias=bias)


@settings(max_examples=20, deadline=None)
@given(batch=st.integers(1, 3), bias=st.booleans(), height=st.integers(2, 9), opset=st.sampled_from([11, 13, 17]))
def test_gates_act_on_the_weights(batch: int, bias: bool, height: int, opset: int) -> None:
    draft = Draft((batch, 3, height, 7), opset=opset)
    model = draft.model(draft.add("Relu", [gated(draft, batch, bias=bias)]))
    changed, made = done(model, gates.run, 1)
    assert changed == 1 and kinds(made)["MatMul"] == 1
    assert apart(model, made).largest < TOLERANCE


def test_small_open_and_shared_gates_stay() -> None:
    draft = Draft((1, 3, 8, 8))
    assert done(draft.model(gated(draft, 1)), gates.run)[0] == 0
    draft = Draft(("n", 3, 8, 8))
    assert done(draft.model(gated(draft, 1)), gates.run, 1)[0] == 0
    draft = Draft((1, 3, 8, 8))
    product = draft.add("Mul", ["x", draft.mean("x")])
    model = draft.model(draft.conv(product, 4, 3), product)
    assert done(model, gates.run, 1)[0] == 0
    draft = Draft((1, 3, 8, 8))
    plain = draft.conv(draft.add("Mul", ["x", draft.conv("x", 3, 3)]), 4, 3)
    assert done(draft.model(plain), gates.run, 1)[0] == 0


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(8, 20), st.integers(8, 20)),
    cells=st.lists(st.tuples(st.integers(1, 2), st.integers(1, 3)), min_size=1, max_size=3),
    mode=st.sampled_from(["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"]),
    kernel=st.sampled_from([1, 3]),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    pads=st.tuples(*[st.integers(0, 3)] * 4),
    batch=st.sampled_from([1, 2, "n"]),
    bias=st.booleans(),
    first=st.booleans(),
)
def test_enlarged_means_are_seen_as_few_cells(
    size: tuple[int, int], cells: list[tuple[int, int]], mode: str, kernel: int, stride: int, dilation: int,
    pads: tuple[int, ...], batch: Any, bias: bool, first: bool,
) -> None:  # fmt: skip
    # An open batch needs scales, and these sizes are whole multiples of every grid of cells.
    size, by = ((12, 18), "scales") if batch == "n" else (size, "sizes")
    draft = Draft((batch, 3, *size))
    x = draft.add("Relu", [draft.conv("x", 6, 3)])
    parts = []
    for rows, columns in cells:
        window = [size[0] // rows, size[1] // columns]
        mean = draft.add("AveragePool", [x], kernel_shape=window, strides=window)
        few = draft.add("Relu", [draft.conv(mean, 4, 6)])
        fit = (size[0] // window[0], size[1] // window[1])
        one = 1 if batch == "n" else batch
        up = draft.resize(few, (one, 4, *size), by=by, source=(one, 4, *fit), coordinate_transformation_mode=mode)
        parts.append(up)
    both = draft.add("Concat", [*parts, x] if first else [x, *parts], axis=1)
    wide = 6 + 4 * len(cells)
    last = draft.conv(both, 5, wide, kernel, bias=bias, pads=list(pads), strides=[stride] * 2, dilations=[dilation] * 2)
    model = draft.model(draft.add("Relu", [last]))
    _, made = done(model, pyramid.run, 1)
    assert apart(model, made, batch=3).largest < TOLERANCE


def test_a_pyramid_no_longer_reads_enlargements() -> None:
    draft = Draft((1, 8, 24, 32))
    parts = ["x"]
    for bins in (1, 2):
        window = [24 // bins, 32 // bins]
        mean = draft.add("AveragePool", ["x"], kernel_shape=window, strides=window)
        parts.append(draft.resize(draft.add("Relu", [draft.conv(mean, 4, 8)]), (1, 4, 24, 32)))
    model = draft.model(draft.conv(draft.add("Concat", parts, axis=1), 6, 16, 3, pads=[1] * 4))
    assert done(model, pyramid.run)[0] == 0, "too small to gain"
    changed, made = done(model, pyramid.run, 1)
    assert changed == 2 and "Resize" not in kinds(made)
    assert apart(model, made).small


@pytest.mark.parametrize("kind", ["many cells", "nearest", "grouped", "read elsewhere", "nothing else"])
def test_pyramids_that_do_not_fit_are_left_alone(kind: str) -> None:
    draft = Draft((1, 8, 24, 32))
    window = [2, 2] if kind == "many cells" else [12, 16]
    mean = draft.add("AveragePool", ["x"], kernel_shape=window, strides=window)
    up = draft.resize(mean, (1, 8, 24, 32), mode="nearest" if kind == "nearest" else "linear")
    both = draft.add("Concat", [up, up if kind == "nothing else" else "x"], axis=1)
    last = draft.conv(both, 6, 16, 3, pads=[1] * 4, groups=2 if kind == "grouped" else 1)
    model = draft.model(last, *([both] if kind == "read elsewhere" else []))
    assert done(model, pyramid.run, 1)[0] == 0


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(2, 13),
    times=st.tuples(st.integers(2, 4), st.integers(1, 3)),
    strip=st.sampled_from([100, 300, 1000, 3000]),
    by=st.sampled_from(["sizes", "scales"]),
    opset=st.sampled_from([11, 17]),
    batch=st.integers(1, 2),
    beside=st.sampled_from(["layer", "picture", "constant"]),
)
def test_stages_cut_into_strips_are_the_same(
    rows: int, times: tuple[int, int], strip: int, by: str, opset: int, batch: int, beside: str
) -> None:
    small, large = (rows, 6), (rows * times[0], 6 * times[1])
    draft = Draft((batch, 3, *small), opset=opset)
    picture = draft.resize("x", (batch, 3, *large), mode="nearest")
    y = draft.add("Relu", [draft.conv("x", 16, 3)])
    up = draft.resize(y, (batch, 16, *large), by=by, source=(batch, 16, *small))
    if beside == "layer":
        other = draft.conv(picture, 16, 3)
    elif beside == "picture":
        other = draft.add("Sigmoid", [draft.conv(picture, 16, 3)])
    else:
        other = draft.constant(draft.normal(16, 1, 1))
    both = draft.add("Relu", [draft.add("Add", [up, other])])
    model = draft.model(draft.conv(both, 5, 16))
    changed, made = done(model, strips.run, 1, strip)
    assert changed == (batch * 16 * large[0] * large[1] > strip and rows >= 4)
    assert apart(model, made).largest < TOLERANCE


@pytest.mark.parametrize("kind", ["align_corners", "odd ratio", "wide end", "3x3", "position", "small"])
def test_stages_that_cannot_be_cut_are_left_alone(kind: str) -> None:
    draft = Draft((1, 16, 8, 8))
    large = (1, 16, 20, 16) if kind == "odd ratio" else (1, 16, 16, 16)
    mode = "align_corners" if kind == "align_corners" else "half_pixel"
    up = draft.resize(draft.add("Relu", ["x"]), large, coordinate_transformation_mode=mode)
    if kind == "position":
        up = draft.add("Add", [up, draft.constant(draft.normal(1, 16, 16, 16))])
    last = draft.conv(draft.add("Relu", [up]), 12 if kind == "wide end" else 4, 16, 3 if kind == "3x3" else 1)
    model = draft.model(last)
    assert done(model, strips.run, *(() if kind == "small" else (1, 100)))[0] == 0
