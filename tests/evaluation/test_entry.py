"""segcam.evaluate on networks that make known mistakes, or none."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import segcam
from segcam.classes import ClassTable
from segcam.errors import SinkError, SourceError, UsageError
from segcam.evaluation.datasets import Dataset, Sample
from segcam.frame import Frame

Labels = NDArray[np.uint8]
Make = Callable[..., Any]


@pytest.fixture
def net(brightest: Make) -> Path:
    return Path(brightest())


def evaluate(*arguments: Any, **more: Any) -> Any:
    return segcam.evaluate(*arguments, precision=more.pop("precision", "fp32"), **more)


def test_a_network_without_a_mistake(net: Path, make_pairs: Make, stripes: Make) -> None:
    done: list[int] = []
    report = evaluate(net, make_pairs([stripes(0), stripes(3), stripes(-2)]), tick=done.append)
    assert (report.miou, report.pixel_accuracy, report.images) == (1.0, 1.0, 3)
    assert report.scores.classes == ("red", "green", "blue")
    assert report.scores.pixels == 3 * 24 * 40
    assert done == [1, 2, 3]
    assert report.agreement is None
    assert report.images_per_s > 0
    assert report.engines[0].precision == "fp32"


def test_known_mistakes(net: Path, make_pairs: Make, stripes: Make) -> None:
    """Labels that say green where the picture is red, for 4 of 40 columns; one row is ignored."""
    said = stripes(-4)
    said[0] = 255
    report = evaluate(net, make_pairs([stripes()], [said]))
    rows = 23
    assert report.scores.pixels == rows * 40
    assert report.pixel_accuracy == pytest.approx(36 / 40)
    assert report.scores.iou == pytest.approx([4 / 8, 16 / 20, 1])
    assert report.scores.matrix[1, 0] == 4 * rows, "rows are the labels, columns the network's words"
    assert report.labels[0].worst[0].name == "0.png"


def test_worst_first(net: Path, make_pairs: Make, stripes: Make) -> None:
    report = evaluate(net, make_pairs([stripes()] * 4, [stripes(shift) for shift in (1, -5, 0, 3)]))
    assert [odd.name for odd in report.labels[0].worst] == ["1.png", "3.png", "0.png", "2.png"]
    assert [odd.share for odd in report.labels[0].worst] == pytest.approx([1 - n / 40 for n in (5, 3, 1, 0)])
    assert report.labels[0].per_image.minimum == pytest.approx(35 / 40)
    assert report.labels[0].per_image.mean == pytest.approx(1 - 9 / 160)


def test_class_maps_are_compared_at_the_labels_size(net: Path, make_pairs: Make, stripes: Make) -> None:
    """Of several sizes, in one run, in between: scores are sampled where the labels' pixels lie."""
    truth = [stripes(hw=(24, 40)), stripes(hw=(48, 80)), stripes(), stripes(hw=(12, 20)), stripes()]
    labels = [stripes(), stripes(), stripes(hw=(48, 80)), stripes(hw=(12, 20)), stripes()]
    for number, (seen, said) in enumerate(zip(truth, labels, strict=True)):
        truth[number] = np.zeros_like(seen)
        labels[number] = np.zeros_like(said)
        truth[number][:, seen.shape[1] // 2 :] = 2
        labels[number][:, said.shape[1] // 2 :] = 2
    report = evaluate(net, make_pairs(truth, labels))
    assert report.scores.pixels == 24 * 40 + 24 * 40 + 48 * 80 + 12 * 20 + 24 * 40
    assert report.pixel_accuracy == 1.0


def test_mapping_and_renaming(net: Path, make_pairs: Make, stripes: Make, tmp_path: Path) -> None:
    """Labels of 7 for red, 9 for what is green or blue; the network's blue becomes plant, too."""
    truth = stripes()
    dataset = make_pairs([truth], [np.array([7, 9, 9], np.uint8)[truth]])
    mapping = tmp_path / "m.toml"
    mapping.write_text('7 = "red"\n9 = "plant"\n[network]\ngreen = "plant"\nblue = "plant"\n')
    for report in (evaluate(net, dataset, mapping=mapping), evaluate(net, f"{dataset},{mapping}")):
        assert report.scores.classes == ("red", "plant")
        assert report.miou == 1.0
    mapping.write_text('7 = "red"\n9 = "plant"\n')
    with pytest.raises(UsageError, match=r"net\.onnx has no class for plant"):
        evaluate(net, dataset, mapping=mapping)


def test_a_networks_void(brightest: Make, make_pairs: Make, stripes: Make) -> None:
    """Void where the labels say a class is wrong; labels of the void class's own index are not counted."""
    path = brightest(spec="beside")
    spec = json.loads(Path(f"{path}.json").read_text())
    spec["output"]["void"] = [1]
    Path(f"{path}.json").write_text(json.dumps(spec))
    truth = stripes()
    report = evaluate(path, make_pairs([truth], [np.where(truth == 2, 1, 0).astype(np.uint8)]))
    assert report.scores.classes == ("red", "blue")
    assert report.scores.pixels == 24 * 24, "the labels leave 16 of 40 columns to void"
    assert report.scores.matrix[0].tolist() == [8 * 24, 0, 16 * 24]
    assert report.pixel_accuracy == pytest.approx(8 / 24)


def test_labels_beyond_the_networks_classes(net: Path, make_pairs: Make, stripes: Make) -> None:
    with pytest.raises(SourceError, match=r"1\.png: its labels have the numbers 5, 9, and there are 3 classes"):
        evaluate(net, make_pairs([stripes(), stripes()], [stripes(), np.array([5, 9, 0], np.uint8)[stripes()]]))


def test_nothing_but_ignored(net: Path, make_pairs: Make, stripes: Make) -> None:
    with pytest.raises(SourceError, match="every pixel of the 1 label pictures is ignored"):
        evaluate(net, make_pairs([stripes()], [np.full((24, 40), 255, np.uint8)]))


def test_a_broken_picture_names_itself(net: Path, make_pairs: Make, stripes: Make, tmp_path: Path) -> None:
    dataset = make_pairs([stripes()] * 3)
    whole = (tmp_path / "images" / "1.png").read_bytes()
    (tmp_path / "images" / "1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"images/1\.png: not a picture"):
        evaluate(net, dataset)


def test_two_networks_without_labels(brightest: Make, tmp_path: Path, save: Make, stripes: Make) -> None:
    """One takes red for blue: they agree where it is green."""
    first, second = brightest(name="a"), brightest(name="b", color="BGR", spec="beside")
    spec = json.loads(Path(f"{second}.json").read_text())
    spec["input"]["color"] = "RGB"
    Path(f"{second}.json").write_text(json.dumps(spec))
    for number in range(3):
        save(f"shots/{number}.png", (np.eye(3, dtype=np.uint8) * 200)[stripes(number)])
    report = evaluate(first, source=tmp_path / "shots", against=second, output=tmp_path / "out")
    assert report.labels == ()
    assert report.agreement.sides == ("a.onnx", "b.onnx")
    assert report.pixel_accuracy == pytest.approx((16 + 15 + 14) / 120)
    assert report.scores.iou == pytest.approx([0, 1, 0])
    assert [odd.name for odd in report.agreement.worst] == ["2.png", "1.png", "0.png"]
    assert sorted(path.name for path in report.written) == ["confusion.png", "report.json", "worst.png"]
    made = json.loads((tmp_path / "out" / "report.json").read_text())
    assert made["labels"] == []
    assert made["agreement"]["pixel_accuracy"] == pytest.approx(45 / 120)
    assert [engine["model"] for engine in made["engines"]] == ["a.onnx", "b.onnx"]


def test_two_runtimes_of_one_network_with_labels(net: Path, make_pairs: Make, stripes: Make, tmp_path: Path) -> None:
    said = stripes(2)
    report = evaluate(
        net, make_pairs([stripes()] * 2, [stripes(), said]), runtime="openvino", against_runtime="onnxruntime",
        output=tmp_path / "out",
    )  # fmt: skip
    assert report.agreement.scores.pixel_accuracy == 1.0
    assert report.agreement.sides == ("net.onnx (OpenVINO, fp32)", "net.onnx (ONNX Runtime, fp32)")
    assert [compared.scores.pixel_accuracy for compared in report.labels] == [1 - 2 / 80] * 2
    assert {engine.runtime for engine in report.engines} == {"OpenVINO", "ONNX Runtime"}
    names = {path.name for path in report.written}
    assert names == {"report.json"} | {f"{n}{i}.png" for n in ("confusion", "worst") for i in ("", "_2")} | (
        {"confusion_3.png", "worst_1.png"}
    )
    page = report.text()
    for words in ("against the labels", "against net.onnx (OpenVINO, fp32)", "equal pixels", "1.000000", "wrote "):
        assert words in page


class Street:
    """A data set in a program: class indices of a table of its own, drawn anew for each number."""

    description = "drawn"
    classes = ClassTable(("blue", "red"), ((0, 0, 255), (255, 0, 0)))
    renamed: dict[str, str] = {"green": "red"}  # noqa: RUF012  # a stand-in

    def __init__(self, labelled: bool = True) -> None:
        self.labelled = labelled

    def __len__(self) -> int:
        return 7

    def read(self, index: int) -> Sample:
        labels = np.zeros((20, 30), np.uint8)
        labels[:, : index + 5] = 1
        picture = np.zeros((20, 30, 3), np.uint8)
        picture[..., 0] = np.where(labels == 0, 200, 0)
        picture[..., 1] = np.where(labels == 1, 200, 0)
        frame = Frame(index, index, Fraction(1, 25), 0.0, "drawn", 30, 20, "bgr24", (picture,))
        return Sample(f"number {index}", frame, labels if self.labelled else None)


def test_a_data_set_of_ones_own(brightest: Make) -> None:
    path = brightest(input_hw=(20, 30))
    assert isinstance(Street(), Dataset)
    report = evaluate(path, Street(), every=2)
    assert (report.data, report.images) == ("drawn", 4)
    assert report.scores.classes == ("blue", "red")
    assert report.miou == 1.0
    assert evaluate(path, Street(), frames=3).images == 3
    with pytest.raises(SourceError, match="number 0 came without labels"):
        evaluate(path, Street(labelled=False))


def test_what_cannot_be_evaluated(net: Path, make_pairs: Make, stripes: Make, tmp_path: Path) -> None:
    dataset = make_pairs([stripes()])
    with pytest.raises(UsageError, match="nothing to evaluate on"):
        evaluate(net)
    with pytest.raises(UsageError, match="a data set and a source are given"):
        evaluate(net, dataset, source="x.mp4")
    with pytest.raises(UsageError, match="has no labels to compare with") as caught:
        evaluate(net, source="x.mp4")
    assert "--against" in caught.value.hint
    with pytest.raises(UsageError, match="the same network with the same settings"):
        evaluate(net, dataset, against=net)
    with pytest.raises(UsageError, match=r"--against-precision: found \"fp8\""):
        evaluate(net, dataset, against_precision="fp8")
    with pytest.raises(UsageError, match="no time to start at"):
        evaluate(net, dataset, start_s=1.0)
    with pytest.raises(UsageError, match="doesn't end"):
        evaluate(net, source="test:", against_runtime="onnxruntime")
    (tmp_path / "file").write_text("x")
    with pytest.raises(SinkError, match="is not a folder"):
        evaluate(net, dataset, output=tmp_path / "file" / "out")


def test_another_file_has_a_spec_of_its_own(net: Path) -> None:
    from segcam.config import from_arguments
    from segcam.evaluation.entry import other_settings

    settings = from_arguments({"engine": str(net), "spec": "mine.json", "size": "24,40", "threads": 2})
    assert other_settings(settings) is None
    assert other_settings(settings, engine="b.onnx") == replace(settings, engine="b.onnx", spec="", size="")
    assert other_settings(settings, precision="fp32") == replace(settings, precision="fp32")
    assert other_settings(settings, engine="b.onnx", spec="b.json", size="3,4") == replace(
        settings, engine="b.onnx", spec="b.json", size="3,4"
    )


def test_pictures_are_pictures(net: Path, make_pairs: Make, stripes: Make, tmp_path: Path) -> None:
    evaluate(net, make_pairs([stripes()], [stripes(3)]), output=tmp_path / "deep" / "out")
    worst = cv2.imread(str(tmp_path / "deep" / "out" / "worst.png"))
    assert worst is not None
    assert not list((tmp_path / "deep" / "out").glob(".*")), "no half-written file stays"
