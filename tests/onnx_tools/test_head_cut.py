"""Cutting the head changes nothing: the class map equals that of the uncut graph in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

import segcam
from segcam.onnx_tools.head import cut_head

MakeTail = Callable[..., onnx.ModelProto]
Save = Callable[[onnx.ModelProto], Path]

NHWC = ("Transpose", {"perm": [0, 2, 3, 1]})
INT64, INT32, UINT8 = TensorProto.INT64, TensorProto.INT32, TensorProto.UINT8
ARGMAX0, ARGMAX1 = ("ArgMax", {"axis": 1, "keepdims": 0}), ("ArgMax", {"axis": 1, "keepdims": 1})


def picture(hw: tuple[int, int], seed: int = 1) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*hw, 3), np.uint8)


def run_uncut(model: onnx.ModelProto, rgb: NDArray[np.uint8], output: str = "out") -> NDArray[Any]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    fed = rgb.transpose(2, 0, 1)[None].astype(np.float32)
    return np.asarray(session.run([output], {"picture": fed})[0])


def labels_of(output: NDArray[Any], hw: tuple[int, int], classes: int) -> NDArray[np.int64]:
    """The class map that an output means: scores in NCHW or NHWC, or ids with dimensions of 1."""
    if output.size == classes * hw[0] * hw[1] and classes > 1:
        axis = -3 if output.shape[-2:] == hw else -1
        return np.asarray(np.argmax(output, axis=axis).reshape(hw))
    return output.reshape(hw).astype(np.int64)


def full_scores(model: onnx.ModelProto, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(classes, H, W): what the enlargement gives."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    name = next(node.output[0] for node in copy.graph.node if node.op_type in ("Resize", "Upsample"))
    del copy.graph.output[:]
    copy.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return np.asarray(run_uncut(copy, rgb, name)[0], np.float32)


def check(
    model: onnx.ModelProto, path: Path, hw: tuple[int, int] = (32, 48), *, exact: bool = True, cut: bool = True,
    size: tuple[int, int] | None = None, near: float = 1e-5, seed: int = 1,
) -> str:  # fmt: skip
    """Compare Segcam's class map with the graph's own; returns the description of the cut."""
    rgb = picture(hw, seed)
    with segcam.Segmenter(path, runtime="onnxruntime", precision="fp32", size=size, threads=1) as network:
        got = network.predict(rgb)
        head = network.info.head
        classes = len(network.classes)
    assert bool(head) == cut
    want = labels_of(run_uncut(model, rgb), hw, classes)
    differ = got != want
    if exact:
        assert not differ.any()
    else:
        scores = np.sort(full_scores(model, rgb), axis=0)
        gap = (scores[-1] - scores[-2]) / np.maximum(np.abs(scores[-1]), np.abs(scores[-2]))
        assert (gap[differ] < near).all()
    assert len(np.unique(got)) > 1, "a class map of one class proves nothing"
    return head


@pytest.mark.parametrize("mode", ["half_pixel", "pytorch_half_pixel"])
@pytest.mark.parametrize("via", ["sizes", "scales"])
@pytest.mark.parametrize("stride", [2, 4, 8])
@pytest.mark.parametrize("opset", [11, 13, 18, 21])
@pytest.mark.parametrize("classes", [2, 19, 32])
def test_powers_of_two_are_equal_everywhere(
    make_tail: MakeTail, save: Save, mode: str, via: str, stride: int, opset: int, classes: int
) -> None:
    model = make_tail(
        mode=mode, via=via, stride=stride, opset=opset, classes=classes, operators=[ARGMAX0], output_type=INT64
    )
    assert check(model, save(model)) == "Resize+ArgMax"


@pytest.mark.parametrize("mode", ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"])
@pytest.mark.parametrize("via", ["sizes", "scales", "scales_node", "chain"])
@pytest.mark.parametrize(("hw", "stride"), [((32, 48), 4), ((30, 45), 3), ((35, 63), 7), ((32, 48), 16)])
def test_other_ratios_differ_only_in_ties(
    make_tail: MakeTail, save: Save, mode: str, via: str, hw: tuple[int, int], stride: int
) -> None:
    model = make_tail(input_hw=hw, stride=stride, mode=mode, via=via, classes=7, operators=[ARGMAX1], output_type=INT64)
    check(model, save(model), hw, exact=False)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(2, 60), st.integers(2, 60), st.integers(1, 9), st.integers(2, 40),
    st.sampled_from(["half_pixel", "align_corners", "asymmetric"]), st.integers(0, 10**6),
)  # fmt: skip
def test_any_size(
    make_tail: MakeTail, save: Save, height: int, width: int, stride: int, classes: int, mode: str, seed: int
) -> None:
    """Sizes that the stride doesn't divide, grids of a single row, downsizing by 1."""
    model = make_tail(
        input_hw=(height, width),
        stride=stride,
        mode=mode,
        classes=classes,
        seed=seed,
        operators=[ARGMAX0],
        output_type=INT64,
    )
    rgb = picture((height, width), seed)
    with segcam.Segmenter(save(model), runtime="onnxruntime", precision="fp32", threads=1) as network:
        got = network.predict(rgb)
        assert network.info.head == "Resize+ArgMax"
    differ = got != labels_of(run_uncut(model, rgb), (height, width), classes)
    scores = np.sort(full_scores(model, rgb), axis=0)
    gap = (scores[-1] - scores[-2]) / np.maximum(np.abs(scores[-1]), np.abs(scores[-2]))
    assert (gap[differ] < 1e-5).all()


@pytest.mark.parametrize(("opset", "name"), [(7, "Upsample"), (8, "Upsample"), (9, "Upsample"), (10, "Resize")])
@pytest.mark.parametrize("stride", [2, 4, 5])
@pytest.mark.parametrize("via", ["scales", "chain"])
def test_exports_before_opset_11(make_tail: MakeTail, save: Save, opset: int, name: str, stride: int, via: str) -> None:
    """They know one way of sampling, index times ratio."""
    hw = (40, 60)
    model = make_tail(input_hw=hw, opset=opset, stride=stride, via=via, operators=[ARGMAX0], output_type=INT64)
    assert check(model, save(model), hw, exact=False) == f"{name}+ArgMax"


TAILS: dict[str, tuple[list[tuple[str, dict[str, Any]]], int]] = {
    "nothing": ([], TensorProto.FLOAT),
    "softmax": ([("Softmax", {"axis": 1})], TensorProto.FLOAT),
    "logsoftmax": ([("LogSoftmax", {"axis": 1})], TensorProto.FLOAT),
    "softmax_from_the_end": ([("Softmax", {"axis": -3})], TensorProto.FLOAT),
    "nhwc": ([NHWC], TensorProto.FLOAT),
    "nhwc_softmax": ([NHWC, ("Softmax", {"axis": -1})], TensorProto.FLOAT),
    "nhwc_softmax_default_axis": ([NHWC, ("Softmax", {})], TensorProto.FLOAT),
    "nhwc_argmax": ([NHWC, ("ArgMax", {"axis": -1, "keepdims": 0})], INT64),
    "nhwc_argmax_1": ([NHWC, ("ArgMax", {"axis": 3, "keepdims": 1})], INT64),
    "there_and_back": ([NHWC, ("Transpose", {"perm": [0, 3, 1, 2]}), ARGMAX1], INT64),
    "softmax_argmax": ([("Softmax", {"axis": 1}), ARGMAX1], INT64),
    "argmax_uint8": ([ARGMAX0, ("Cast", {"to": UINT8})], UINT8),
    "argmax_int32_n1hw": ([ARGMAX1, ("Cast", {"to": INT32})], INT32),
    "argmax_float": ([ARGMAX0, ("Cast", {"to": TensorProto.FLOAT})], TensorProto.FLOAT),
    "argmax_squeezed": ([ARGMAX1, ("Squeeze", {"axes": [1]})], INT64),
    "argmax_squeezed_whole": ([ARGMAX1, ("Squeeze", {})], INT64),
    "argmax_without_batch": ([ARGMAX0, ("Squeeze", {"axes": [0]})], INT64),
    "argmax_unsqueezed": ([ARGMAX0, ("Unsqueeze", {"axes": [-1]})], INT64),
    "topk": ([("TopK", {"axis": 1, "k": 1})], INT64),
    "topk_squeezed": ([("TopK", {"axis": -3, "k": 1}), ("Squeeze", {"axes": [-3]})], INT64),
    "double": ([("Cast", {"to": TensorProto.DOUBLE}), ARGMAX0], INT64),
    "identity": ([("Identity", {}), ARGMAX0, ("Identity", {})], INT64),
}  # fmt: skip


@pytest.mark.parametrize("operators", sorted(TAILS))
@pytest.mark.parametrize("opset", [11, 13, 18])
def test_every_tail(make_tail: MakeTail, save: Save, operators: str, opset: int) -> None:
    nodes, output_type = TAILS[operators]
    if opset < 13 and operators == "nhwc_softmax_default_axis":
        pytest.skip("before opset 13 the default axis was 1, which is the height here")
    # Softmax rounds: scores a millionth apart may become equal. So does its sum over the whole picture before opset 13.
    model = make_tail(operators=nodes, output_type=output_type, opset=opset)
    head = check(model, save(model), exact="oftmax" not in str(nodes))
    assert head == "+".join(["Resize", *(kind for kind, _ in nodes)])


def test_topk_before_opset_10_has_its_k_in_an_attribute(make_tail: MakeTail, save: Save) -> None:
    for k, cut in ((1, True), (2, False)):
        model = make_tail(opset=9, operators=[("TopK", {"axis": 1, "k": k})], output_type=INT64)
        assert (cut_head(model, "out", (32, 48)) is not None) == cut
    model = make_tail(opset=9, operators=[("TopK", {"axis": 1, "k": 1})], output_type=INT64)
    check(model, save(model), exact=False)


LEFT_ALONE: dict[str, dict[str, Any]] = {
    "nearest": {"kind": "nearest", "operators": [ARGMAX0]},
    "cubic": {"kind": "cubic", "operators": [ARGMAX0]},
    "antialias": {"opset": 18, "resize_attributes": {"antialias": 1}, "operators": [ARGMAX0]},
    "symmetric": {"opset": 19, "mode": "half_pixel_symmetric", "operators": [ARGMAX0]},
    "last_index": {"opset": 13, "operators": [("ArgMax", {"axis": 1, "keepdims": 0, "select_last_index": 1})]},
    "whole_scores": {"operators": [("Cast", {"to": INT32}), ARGMAX0]},
    "worst": {"operators": [("TopK", {"axis": 1, "largest": 0}), ("Squeeze", {"axes": [1]})]},
    "relu": {"operators": [("Relu", {}), ARGMAX0]},
    "negated": {"operators": [("Neg", {}), ARGMAX0]},
    "scale_is_not_the_ratio": {"input_hw": (15, 22), "stride": 2, "via": "scales", "scales": (1.9, 2.05),
                               "operators": [ARGMAX0]},
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(LEFT_ALONE))
def test_left_alone_and_still_right(make_tail: MakeTail, save: Save, name: str) -> None:
    given = {"output_type": INT64, **LEFT_ALONE[name]}
    model = make_tail(**given)
    check(model, save(model), given.get("input_hw", (32, 48)), cut=False)


NOT_RECOGNISED: dict[str, dict[str, Any]] = {
    "argmax_over_rows": {"operators": [("ArgMax", {"axis": 2, "keepdims": 0})]},
    "softmax_over_rows": {"operators": [("Softmax", {"axis": 2})], "output_type": TensorProto.FLOAT},
    "softmax_over_columns_by_default": {"operators": [("Softmax", {})], "output_type": TensorProto.FLOAT},
    "topk_values": {"operators": [("TopK", {"axis": 1, "values": True})], "output_type": TensorProto.FLOAT},
    "topk_2": {"operators": [("TopK", {"axis": 1, "k": 2})]},
    "topk_over_columns": {"operators": [("TopK", {"axis": -1})]},
    "turned": {"operators": [ARGMAX0, ("Transpose", {"perm": [0, 2, 1]})]},
    "turned_scores": {"operators": [("Transpose", {"perm": [0, 1, 3, 2]}), ARGMAX0]},
    "mode_of_its_own": {"mode": "tf_crop_and_resize", "operators": [ARGMAX0]},
    "not_to_the_input_size": {"sizes": (64, 96), "operators": [ARGMAX0]},
    "half_the_input_size": {"sizes": (16, 24), "operators": [ARGMAX0]},
}


@pytest.mark.parametrize("name", sorted(NOT_RECOGNISED))
def test_not_recognised(make_tail: MakeTail, name: str) -> None:
    model = make_tail(**{"output_type": INT64, **NOT_RECOGNISED[name]})
    before = model.SerializeToString()
    assert cut_head(model, "out", (32, 48)) is None
    assert model.SerializeToString() == before


def test_scales_on_named_axes(make_tail: MakeTail, save: Save) -> None:
    """Since opset 18 a Resize may name its axes, in any order."""
    model = make_tail(opset=18, via="axes", stride=4, operators=[ARGMAX0], output_type=INT64)
    check(model, save(model))
    off = make_tail(opset=18, via="axes", input_hw=(15, 22), stride=2, scales=(1.9, 2.05), operators=[ARGMAX0])
    assert cut_head(off, "out", (15, 22)) is None


@pytest.mark.parametrize("opset", [9, 11])
def test_weights_listed_as_inputs(make_tail: MakeTail, save: Save, opset: int) -> None:
    model = make_tail(opset=opset, weights_as_inputs=True, operators=[ARGMAX0], output_type=INT64)
    check(model, save(model), exact=opset == 11)


@pytest.mark.parametrize("via", ["sizes", "chain"])
@pytest.mark.parametrize("opset", [11, 13])
def test_open_batch(make_tail: MakeTail, save: Save, via: str, opset: int) -> None:
    model = make_tail(opset=opset, via=via, open_dims=(0,), operators=[ARGMAX1], output_type=INT64)
    check(model, save(model))


@pytest.mark.parametrize("via", ["chain", "scales"])
@pytest.mark.parametrize("opset", [11, 13])
def test_open_size(make_tail: MakeTail, save: Save, via: str, opset: int) -> None:
    model = make_tail(opset=opset, via=via, open_dims=(0, 2, 3), operators=[ARGMAX1], output_type=INT64)
    path = save(model)
    with pytest.raises(segcam.SegcamError, match="open") as caught:
        segcam.Segmenter(path, runtime="onnxruntime", precision="fp32")
    assert "--size" in str(caught.value)
    check(model, path, (24, 40), size=(24, 40))


def test_scores_used_twice_and_second_outputs(make_tail: MakeTail, save: Save) -> None:
    model = make_tail(double_use=True, extra_output=True, operators=[ARGMAX0], output_type=INT64)
    check(model, save(model))
    cut = cut_head(model, "out", (32, 48))
    assert cut is not None
    left, head = cut
    assert [o.name for o in left.graph.output] == ["coarse"] == [head.tensor]
    assert {node.op_type for node in left.graph.node} == {"Conv", "Relu"}
    assert {i.name for i in left.graph.initializer} == {"w1", "w2"}


def test_the_second_output_by_name(make_tail: MakeTail) -> None:
    model = make_tail(extra_output=True, operators=[ARGMAX0], output_type=INT64)
    assert cut_head(model, "features", (32, 48)) is None


def test_half_precision_enlargement(make_tail: MakeTail, save: Save) -> None:
    """The graph enlarges in fp16; cut, it happens in fp32. Only scores that fp16 cannot tell apart may differ."""
    model = make_tail(half=True, operators=[ARGMAX0], output_type=INT64, classes=19)
    rgb = picture((32, 48))
    with segcam.Segmenter(save(model), runtime="onnxruntime", precision="fp32", threads=1) as network:
        got = network.predict(rgb)
        assert network.info.head == "Resize+Cast+ArgMax"
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.append(helper.make_tensor_value_info("resized", TensorProto.FLOAT16, None))
    scores = np.sort(run_uncut(copy, rgb, "resized")[0].astype(np.float32), axis=0)
    differ = got != run_uncut(model, rgb)[0]
    gap = (scores[-1] - scores[-2]) / np.maximum(np.abs(scores[-1]), np.abs(scores[-2]))
    assert (gap[differ] < 4 * 2.0**-11).all()


def test_a_network_that_is_an_enlargement_and_nothing_else() -> None:
    node = helper.make_node("Resize", ["x", "", "s"], ["out"], mode="linear")
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info("x", 1, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("out", 1, None)],
        [onnx.numpy_helper.from_array(np.array([1, 1, 1, 1], np.float32), "s")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    assert cut_head(model, "out", (8, 8)) is None


def test_off_means_off(make_tail: MakeTail, save: Save) -> None:
    model = make_tail(operators=[ARGMAX0], output_type=INT64)
    rgb = picture((32, 48))
    with segcam.Segmenter(save(model), runtime="onnxruntime", precision="fp32", cut_head=False) as network:
        assert network.info.head == ""
        np.testing.assert_array_equal(network.predict(rgb), run_uncut(model, rgb)[0])
