"""The three ends of a network, on the graphs of the builders."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
import pytest
from numpy.typing import NDArray

from segcam.networks.architecture import NetworkOptions, build, expected_tensors
from segcam.networks.heads import Head, add_head
from segcam.networks.state import random_state
from segcam.onnx_tools.head import cut_head

#: Odd sides: the enlargement is by no whole factor.
HW = (75, 101)


def network(head: Head, batch: int = 1) -> onnx.ModelProto:
    options = NetworkOptions("FastSCNN", 5, size=HW, batch=batch)
    model = build(options, random_state(expected_tensors(options), 1))
    add_head(model, head, options.model, options.size)
    onnx.checker.check_model(model, full_check=True)
    return model


def pictures(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(2).standard_normal((count, 3, *HW)).astype(np.float32)


def run(model: onnx.ModelProto, fed: NDArray[np.float32]) -> NDArray[Any]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"input0": fed})[0])


def enlarged(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Bilinear at half-pixel centres in float64, edges clamped: (N, C, h, w) to HW."""
    result = scores.astype(np.float64)
    for axis, length in ((2, HW[0]), (3, HW[1])):
        n = result.shape[axis]
        at = np.clip((np.arange(length) + 0.5) * n / length - 0.5, 0, n - 1)
        low = np.minimum(at.astype(int), max(n - 2, 0))
        share = np.moveaxis(
            np.broadcast_to(at - low, (*result.shape[:axis], *result.shape[axis + 1 :], length)), -1, axis
        )
        result = result.take(low, axis) * (1 - share) + result.take(np.minimum(low + 1, n - 1), axis) * share
    return result


@pytest.mark.parametrize("batch", [1, 2, 0])
def test_logits_are_the_scores_enlarged_and_labels_their_argmax(batch: int) -> None:
    fed = pictures(batch or 3)
    wanted = enlarged(run(network("scores", batch), fed))
    logits = run(network("logits", batch), fed)
    assert logits.shape == (len(fed), 5, *HW)
    assert np.abs(logits - wanted).max() < 1e-4
    labels = run(network("labels", batch), fed)
    assert (labels.shape, labels.dtype) == ((len(fed), 1, *HW), np.int64)
    assert np.array_equal(labels[:, 0], logits.argmax(1))


@pytest.mark.parametrize("head", ["logits", "labels"])
@pytest.mark.parametrize("batch", [1, 0])
def test_segcam_takes_the_head_off_again(head: Head, batch: int) -> None:
    model = network(head, batch)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    found = cut_head(model, model.graph.output[0].name, HW)
    assert found is not None
    assert (found[1].tensor, found[1].upsample) == ("scores", "half_pixel")


@pytest.mark.parametrize(
    ("network_name", "head", "names"),
    [
        ("FastSCNN", "scores", ("input0", "scores")),
        ("FastSCNN", "logits", ("input0", "output0")),
        ("FastSCNN", "labels", ("input0", "output0")),
        ("PSPNet", "scores", ("input0", "scores")),
        ("PSPNet", "logits", ("input.1", "segmentation_map")),
        ("PSPNet", "labels", ("input.1", "segmentation_map")),
    ],
)
@pytest.mark.parametrize("batch", [1, 0])
def test_names_are_the_originals(network_name: str, head: Head, names: tuple[str, str], batch: int) -> None:
    options = NetworkOptions("FastSCNN", 5, size=HW, batch=batch)
    model = build(options, random_state(expected_tensors(options), 1))
    add_head(model, head, network_name, HW)
    onnx.checker.check_model(model, full_check=True)
    assert (model.graph.input[0].name, model.graph.output[0].name) == names


def test_equal_scores_give_the_lowest_label_in_both_runtimes() -> None:
    options = NetworkOptions("FastSCNN", 5, size=HW)
    tensors = random_state(expected_tensors(options), 1)
    for key in ("decode_head.conv_seg.weight", "decode_head.conv_seg.bias"):
        # Class 3 is class 1 again, and both beat the others.
        tensors[key][3] = tensors[key][1]
    tensors["decode_head.conv_seg.bias"][[1, 3]] += 100
    model = build(options, tensors)
    add_head(model, "labels", options.model, HW)
    fed = pictures(1)
    assert set(run(model, fed).ravel()) == {1}
    compiled = ov.compile_model(ov.Core().read_model(model.SerializeToString()), "CPU")
    assert set(np.asarray(compiled(fed)[0]).ravel()) == {1}
