"""Class maps in bytes at the end of a graph: the ones that its scores give, whatever they look like."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from drafts import Draft, run_exactly
from onnx import TensorProto, helper

from segcam.errors import EngineError
from segcam.geometry import Upsample, resize_axis, taps
from segcam.onnx_tools.check import random_inputs
from segcam.onnx_tools.labels import end_in_labels

HW = (16, 24)


def scores(
    stride: int = 4, *, opset: int = 17, batch: int | str = 1, last: bool = False, classes: int = 5
) -> onnx.ModelProto:
    draft = Draft((batch, 3, *HW), opset=opset)
    y = draft.conv("x", classes, 3, strides=[stride, stride])
    model = draft.model(draft.add("Transpose", [y], perm=[0, 2, 3, 1]) if last else y)
    model.graph.output[0].CopyFrom(onnx.shape_inference.infer_shapes(model).graph.output[0])
    return model


def enlarged(found: np.ndarray, mode: Upsample) -> np.ndarray:
    """(N, C, h, w) at HW, in double precision: design 4's sampling."""
    rows, cols = (taps(n, m, resize_axis(n, m, mode)) for n, m in zip(HW, found.shape[2:], strict=True))
    wide = found.astype(np.float64)
    tall = wide[:, :, rows.first] * rows.weight_first[:, None] + wide[:, :, rows.second] * rows.weight_second[:, None]
    return tall[..., cols.first] * cols.weight_first + tall[..., cols.second] * cols.weight_second


@pytest.mark.parametrize("opset", [11, 13, 17])
@pytest.mark.parametrize("mode", ["half_pixel", "align_corners", "asymmetric"])
@pytest.mark.parametrize("last", [False, True])
def test_labels_are_the_best_of_the_enlarged_scores(mode: Upsample, opset: int, last: bool) -> None:
    model = scores(opset=opset, last=last)
    fed = random_inputs(model)
    found = run_exactly(model, fed)[0]
    wanted = enlarged(found.transpose(0, 3, 1, 2) if last else found, mode)
    name = end_in_labels(model, model.graph.output[0].name, mode, HW, channels_last=last)
    onnx.checker.check_model(model, full_check=True)
    assert name == "labels"
    labels = run_exactly(model, fed)[0]
    assert (labels.dtype, labels.shape) == (np.uint8, (1, 1, *HW))
    first = np.sort(wanted, axis=1)
    clear = first[:, -1] - first[:, -2] > 1e-5
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(labels[:, 0][clear], wanted.argmax(1)[clear])


def test_scores_of_full_size_are_not_enlarged() -> None:
    model = scores(1)
    fed = random_inputs(model)
    wanted = run_exactly(model, fed)[0].argmax(1)
    end_in_labels(model, model.graph.output[0].name, "half_pixel", HW)
    assert "Resize" not in {node.op_type for node in model.graph.node}
    np.testing.assert_array_equal(run_exactly(model, fed)[0][:, 0], wanted)


def test_an_open_batch_is_enlarged_by_whole_factors() -> None:
    model = scores(batch="n")
    end_in_labels(model, model.graph.output[0].name, "half_pixel", HW)
    fed = np.random.default_rng(0).standard_normal((3, 3, *HW), np.float32)
    together = run_exactly(model, {"x": fed})[0]
    assert together.shape == (3, 1, *HW)
    for index in range(3):
        np.testing.assert_array_equal(run_exactly(model, {"x": fed[index : index + 1]})[0][0], together[index])


@pytest.mark.parametrize(
    ("model", "mode", "message"),
    [
        (scores(batch="n"), "align_corners", "in an open batch"),
        (scores(5, batch="n"), "half_pixel", "in an open batch"),
        (scores(opset=10), "half_pixel", "of opset 10, whose Resize"),
        (scores(classes=300), "half_pixel", "300 classes, and a byte names 255"),
    ],
)
def test_what_cannot_be_made_is_refused(model: onnx.ModelProto, mode: Upsample, message: str) -> None:
    with pytest.raises(EngineError, match=message) as refused:
        end_in_labels(model, model.graph.output[0].name, mode, HW)
    assert refused.value.hint


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.INT32, TensorProto.UINT8])
def test_labels_become_bytes(kind: int) -> None:
    draft = Draft((1, 3, *HW))
    y = draft.add("ArgMax", [draft.conv("x", 5, 3)], axis=1)
    model = draft.model(draft.add("Cast", [y], "classes", to=TensorProto.FLOAT))
    model.graph.node[-1].attribute[0].i = kind
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("classes", kind, [1, 1, *HW]))
    fed = random_inputs(model)
    wanted = run_exactly(model, fed)[0]
    name = end_in_labels(model, "classes", "half_pixel", HW)
    onnx.checker.check_model(model, full_check=True)
    assert name == ("classes" if kind == TensorProto.UINT8 else "labels")
    found = run_exactly(model, fed)[0]
    assert (found.dtype, found.shape) == (np.uint8, (1, 1, *HW))
    np.testing.assert_array_equal(found, wanted)


def test_a_name_that_is_taken_is_not_taken_twice() -> None:
    draft = Draft((1, 3, *HW))
    middle = draft.add("Relu", ["x"], "labels")
    model = draft.model(draft.conv(middle, 5, 3))
    model.graph.output[0].CopyFrom(onnx.shape_inference.infer_shapes(model).graph.output[0])
    assert end_in_labels(model, model.graph.output[0].name, "half_pixel", HW) == "labels.bytes"
    onnx.checker.check_model(model, full_check=True)
