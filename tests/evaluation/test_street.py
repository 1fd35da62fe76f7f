"""A made-up street as a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import segcam
from segcam.classes import CITYSCAPES
from segcam.errors import UsageError
from segcam.evaluation.datasets import Dataset, make_dataset
from segcam.sources.street import render


def test_pictures_and_labels_are_the_renderers() -> None:
    data = make_dataset("street:seed=9,frames=3,size=160x80")
    assert isinstance(data, Dataset) and len(data) == 3
    assert data.classes is CITYSCAPES and dict(data.renamed) == {} and "street:seed=9" in data.description
    sample = data.read(2)
    rgb, labels = render(11, 11, (80, 160), rate=1)
    assert np.array_equal(sample.frame.bgr()[..., ::-1], rgb) and np.array_equal(sample.labels, labels)
    assert sample.frame.time_s == 2.0 and sample.name == "street_11_00011"


def test_defaults_and_weather() -> None:
    data = make_dataset("street:")
    assert len(data) == 12
    rain = make_dataset("street:seed=4,weather=rain,size=160x80,rate=5").read(6)
    assert np.array_equal(rain.frame.bgr()[..., ::-1], render(10, 10, (80, 160), weather="rain", rate=5)[0])


@pytest.mark.parametrize("text", ["street:frames=0", "street:live=1", "street:sead=1", "street:weather=snow"])
def test_what_cannot_be_scored(text: str) -> None:
    with pytest.raises(UsageError):
        make_dataset(text)


def test_no_mapping(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="mapping"):
        make_dataset("street:seed=1", str(tmp_path / "m.toml"))


def test_a_network_is_scored(tmp_path: Path) -> None:
    """One that says road everywhere is right where there is road."""
    bias = np.zeros(19, np.float32)
    bias[0] = 1
    node = helper.make_node("Conv", ["image", "weight", "bias"], ["scores"])
    graph = helper.make_graph(
        [node],
        "road",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 64, 128])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 19, 64, 128])],
        [
            numpy_helper.from_array(np.zeros((19, 3, 1, 1), np.float32), "weight"),
            numpy_helper.from_array(bias, "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "road.onnx")
    (tmp_path / "road.onnx.json").write_text(
        '{"segcam_spec": 1, "input": {"color": "RGB", "mean": [0, 0, 0], "std": [1, 1, 1]},'
        ' "output": {"kind": "logits"}, "classes": "cityscapes"}'
    )
    report = segcam.evaluate(tmp_path / "road.onnx", "street:seed=1,frames=2,size=128x64", precision="fp32")
    truth = np.concatenate([render(1 + index, 1 + index, (64, 128), rate=1)[1].ravel() for index in range(2)])
    assert report.images == 2
    assert report.pixel_accuracy == pytest.approx((truth == 0).mean())


def test_of_how_many_drives() -> None:
    names = {
        "frames=3": ["street_5_00005", "street_6_00006", "street_7_00007"],
        "frames=3,drives=1": ["street_5_00005", "street_5_00006", "street_5_00007"],
        "frames=3,drives=2": ["street_5_00005", "street_6_00006", "street_5_00006"],
    }
    for text, wanted in names.items():
        data = make_dataset(f"street:seed=5,size=160x80,{text}")
        assert [data.read(index).name for index in range(len(data))] == wanted
    assert np.array_equal(data.read(1).labels, render(6, 6, (80, 160), rate=1)[1])
    for text in ("drives=0", "drives=x", "drives=2,drives=3", "drives="):
        with pytest.raises(UsageError, match="drives"):
            make_dataset(f"street:{text}")
