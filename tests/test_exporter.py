"""``segcam.export``: every network with every head, what the file says of itself, and what is never overwritten."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from checkpoint_files import save
from numpy.typing import NDArray

import segcam
from segcam.classes import CITYSCAPES, VOC, ClassTable, voc_color
from segcam.errors import CheckpointError, SinkError, UsageError
from segcam.exporter import EXPORT_KEY, ExportReport, export, exported_by_segcam
from segcam.networks.architecture import NetworkOptions, expected_tensors
from segcam.networks.state import random_state
from segcam.onnx_tools.rewrite import rewrites_of
from segcam.onnx_tools.spec import IMAGENET_MEAN, METADATA_KEY, parse_spec

HW = (64, 96)


def random_export(path: Path, model: str = "FastSCNN", **more: Any) -> ExportReport:
    words: dict[str, Any] = {"size": HW, "init": "random", "warn": lambda line: None, **more}
    return export(path, model, **words)


def metadata(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Fast-SCNN with 4 classes."""
    path = tmp_path / "mine.safetensors"
    save(path, random_state(expected_tensors(NetworkOptions("FastSCNN", 4)), 9), "safetensors")
    return path


# -------------------------------------------------------------------- the file


@pytest.mark.parametrize(
    ("model", "more", "shapes", "dtype"),
    [
        ("MobileV3Small", {"num_filters": 32, "size": (385, 417)}, ((1, 3, 385, 417), (1, 19, 193, 209)), 1),
        ("MobileV3Large", {"size": (385, 385), "head": "logits"}, ((1, 3, 385, 385), (1, 19, 385, 385)), 1),
        ("FastSCNN", {"batch": 0, "head": "labels"}, ((0, 3, *HW), (0, 1, *HW)), 7),
        ("FastSCNN", {"batch": 3, "num_classes": 5, "fp16": True}, ((3, 3, *HW), (3, 5, 8, 12)), 1),
        ("PSPNet", {"adaptive_pool": "omz", "head": "labels", "size": (64, 64)}, ((1, 3, 64, 64), (1, 1, 64, 64)), 7),
    ],
)
def test_every_network_is_valid_and_says_what_it_is(
    tmp_path: Path, model: str, more: dict[str, Any], shapes: tuple[tuple[int, ...], tuple[int, ...]], dtype: int
) -> None:
    path = tmp_path / "net.onnx"
    report = random_export(path, model, **more)
    onnx.checker.check_model(str(path), full_check=True)
    proto = onnx.load(path)
    assert proto.producer_name == "segcam"
    assert len(proto.graph.node) == report.nodes
    assert path.stat().st_size == report.bytes
    assert (report.input_shape, report.output_shape) == shapes
    assert proto.graph.output[0].type.tensor_type.elem_type == dtype
    spec = parse_spec(metadata(path)[METADATA_KEY], "the file")
    assert (spec.input, spec.output, spec.classes) == (report.spec.input, report.spec.output, report.spec.classes)
    assert (spec.input.name, spec.output.name) == (proto.graph.input[0].name, proto.graph.output[0].name)
    assert spec.input.size == report.options.size
    said = json.loads(metadata(path)[EXPORT_KEY])
    assert {key: said[key] for key in ("model", "num_classes", "untrained")} == {
        "model": model,
        "num_classes": report.options.num_classes,
        "untrained": True,
    }
    assert rewrites_of(proto) == list(report.rewrites)
    assert exported_by_segcam(path)
    assert list(tmp_path.iterdir()) == [path]


def test_parameters_and_gflops_are_the_originals(tmp_path: Path) -> None:
    """As published: batch norms' scales and shifts count, rewrites don't."""
    wanted = (1_140_787, 69.207779848)
    for rewrite in ("off", "on"):
        report = random_export(tmp_path / "net.onnx", "MobileV3Small", size=(1024, 2048), rewrite=rewrite)
        assert (report.parameters, report.gflops) == wanted


def predictions(path: Path, picture: NDArray[np.uint8], *, cut_head: bool = False) -> NDArray[np.uint8]:
    with segcam.Segmenter(path, runtime="onnxruntime", cut_head=cut_head) as network:
        return network.predict(picture)


@pytest.mark.parametrize(
    ("more", "share"),
    [
        ({"head": "logits"}, 0.9999),
        ({"head": "labels"}, 0.9999),
        ({"batch": 0}, 1.0),
        ({"rewrite": "off"}, 0.9999),
        ({"rewrite": "on"}, 0.9999),
        ({"embed_preprocessing": True}, 0.9999),
        ({"embed_preprocessing": True, "head": "labels", "batch": 0}, 0.9999),
        ({"fp16": True}, 0.98),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else None,
)
def test_each_form_names_the_same_classes(tmp_path: Path, more: dict[str, Any], share: float) -> None:
    """Nearly: a pixel whose best two scores are equal but for rounding may go either way."""
    picture = np.random.default_rng(0).integers(0, 256, (*HW, 3), np.uint8)
    random_export(tmp_path / "plain.onnx")
    random_export(tmp_path / "other.onnx", **more)
    plain = predictions(tmp_path / "plain.onnx", picture)
    assert len(np.unique(plain)) > 3
    assert (predictions(tmp_path / "other.onnx", picture) == plain).mean() >= share


@pytest.mark.parametrize("model", ["MobileV3Small", "FastSCNN"])
def test_an_open_batch_computes_each_picture_by_itself(tmp_path: Path, model: str) -> None:
    size = (385, 393) if model == "MobileV3Small" else (45, 71)
    random_export(tmp_path / "open.onnx", model, batch=0, size=size, head="logits")
    random_export(tmp_path / "one.onnx", model, size=size, head="logits")
    fed = np.random.default_rng(0).standard_normal((2, 3, *size)).astype(np.float32)
    both = ort.InferenceSession(tmp_path / "open.onnx").run(None, {"input0": fed})[0]
    single = ort.InferenceSession(tmp_path / "one.onnx")
    for index in range(2):
        alone = single.run(None, {"input0": fed[index : index + 1]})[0]
        assert np.abs(alone[0] - both[index]).max() < 1e-4


def test_the_same_call_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        random_export(tmp_path / name, seed=5)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_embedded_preprocessing_is_in_the_spec(tmp_path: Path) -> None:
    spec = random_export(tmp_path / "net.onnx", embed_preprocessing=True).spec.input
    assert (spec.color, spec.mean, spec.std) == ("BGR", (0, 0, 0), (1, 1, 1))
    spec = random_export(tmp_path / "net.onnx").spec.input
    assert (spec.color, spec.mean) == ("RGB", IMAGENET_MEAN)


def test_half_the_bytes(tmp_path: Path) -> None:
    whole = random_export(tmp_path / "whole.onnx").bytes
    assert random_export(tmp_path / "half.onnx", fp16=True).bytes < 0.55 * whole


# ------------------------------------------------------------------ what was made of what


def test_untrained_is_said_in_every_way(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    with pytest.warns(UserWarning, match=r"net\.onnx is UNTRAINED") as caught:
        report = segcam.export(path, "FastSCNN", size=HW, init="random", seed=8)
    assert caught[0].filename == __file__
    assert report.untrained
    assert "UNTRAINED" in report.weights
    said = json.loads(metadata(path)[EXPORT_KEY])
    assert (said["untrained"], said["weights"]) == (True, {"init": "random", "seed": 8})
    assert onnx.load(path).doc_string.startswith("UNTRAINED")


def test_the_checkpoint_is_named_with_its_hash(tmp_path: Path, checkpoint: Path, recwarn: Any) -> None:
    path = tmp_path / "net.onnx"
    report = export(path, "FastSCNN", size=HW, checkpoint=checkpoint)
    assert (report.untrained, report.notes, report.options.num_classes) == (False, (), 4)
    said = json.loads(metadata(path)[EXPORT_KEY])
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert (said["untrained"], said["weights"]) == (False, {"file": checkpoint.name, "sha256": digest})
    assert onnx.load(path).doc_string == ""
    assert len(recwarn) == 0


def test_a_name_of_the_zoo_is_fetched(own_zoo: Path, checkpoint_bytes: bytes, tmp_path: Path) -> None:
    report = export(tmp_path / "net.onnx", "wee")
    assert (report.options.model, report.options.size, report.untrained) == ("FastSCNN", (64, 96), False)
    assert report.spec.classes == CITYSCAPES
    said = json.loads(metadata(tmp_path / "net.onnx")[EXPORT_KEY])
    assert said["weights"]["sha256"] == hashlib.sha256(checkpoint_bytes).hexdigest()


@pytest.mark.parametrize(
    ("model", "found"),
    [("MobileV3Smal", "MobileV3Small"), ("fast-scn", "FastSCNN"), ("mobilev3_small_f64", "mobilev3small_f64")],
)
def test_a_wrong_name_gets_the_nearest(tmp_path: Path, model: str, found: str) -> None:
    with pytest.raises(UsageError, match=f"no network is called '{model}'") as error:
        random_export(tmp_path / "net.onnx", model)
    assert error.value.hint == f"Did you mean {found}?"


def test_capitals_do_not_count(tmp_path: Path) -> None:
    assert random_export(tmp_path / "net.onnx", "fastscnn").options.model == "FastSCNN"


# ------------------------------------------------------------------------- classes


def test_whose_classes_they_are(tmp_path: Path, checkpoint: Path) -> None:
    path, names = tmp_path / "net.onnx", tmp_path / "names.txt"
    assert random_export(path).spec.classes == CITYSCAPES
    assert random_export(path, num_classes=21).spec.classes == VOC
    numbered = random_export(path, num_classes=2).spec.classes
    assert numbered is not None
    assert numbered.names == ("class 0", "class 1")
    names.write_text("road\nsky\ncar\ntree\n", "utf-8")
    named = export(path, "FastSCNN", size=HW, checkpoint=checkpoint, class_names=names).spec.classes
    assert named is not None
    assert named.names == ("road", "sky", "car", "tree")
    own = ClassTable(("a", "b"), (voc_color(1), voc_color(2)), frozenset({1}))
    assert random_export(path, num_classes=2, class_names=own).spec.classes == own
    assert predictions(path, np.zeros((9, 9, 3), np.uint8)).shape == (9, 9)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"class_names": "camvid"}, "camvid names 12 classes, the network has 19"),
        ({"class_names": CITYSCAPES, "num_classes": 2}, "19 class names, the network has 2 classes"),
        ({"num_classes": 256}, "a class map holds at most 255"),
        ({"num_classes": 0}, "the number of classes is 0"),
        ({"head": "label"}, "--head label: expected scores, logits, labels"),
        ({"rewrite": "yes"}, "--rewrite yes: expected auto, on, off"),
        ({"init": "zeros"}, "--init zeros: expected random"),
        ({"checkpoint": "x.pt"}, "exclude each other"),
        ({"init": None}, "no weights for FastSCNN"),
        ({"model": "MobileV3Small"}, "at least 385x385"),
        ({"size": (0, 5)}, "the size is 0,5"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(tmp_path: Path, more: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        random_export(tmp_path / "net.onnx", **more)
    assert message in error.value.message
    assert list(tmp_path.iterdir()) == []


def test_a_missing_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no such file"):
        export(tmp_path / "net.onnx", "FastSCNN", checkpoint=tmp_path / "none.pt")


# ------------------------------------------------------------------------ the output


def test_only_what_segcam_exported_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"\x08\x07\x12\x07pytorch another exporter's work")
    with pytest.raises(UsageError, match="Segcam did not export it") as error:
        random_export(path)
    assert "--force" in error.value.hint
    assert path.read_bytes().endswith(b"work")
    random_export(path, force=True)
    first = path.read_bytes()
    assert exported_by_segcam(path)
    random_export(path, seed=1)
    assert path.read_bytes() != first


def test_the_checkpoint_is_never_overwritten(tmp_path: Path, checkpoint: Path) -> None:
    named = tmp_path / "weights.onnx"
    checkpoint.rename(named)
    (tmp_path / "link.onnx").symlink_to(named)
    for target in (named, tmp_path / "link.onnx"):
        with pytest.raises(UsageError, match="is the checkpoint itself"):
            export(target, "FastSCNN", checkpoint=named, force=True)
    assert named.stat().st_size > 5e6


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("net.pt", UsageError, "does not end in .onnx"),
        ("net", UsageError, "does not end in .onnx"),
        ("folder.onnx", UsageError, "is a folder"),
        ("file/net.onnx", SinkError, "is not a folder"),
    ],
)
def test_outputs_that_cannot_be(tmp_path: Path, name: str, kind: type[Exception], message: str) -> None:
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(kind, match=message):
        random_export(tmp_path / name)


def test_folders_are_made(tmp_path: Path) -> None:
    random_export(tmp_path / "a" / "b" / "net.onnx")
    assert exported_by_segcam(tmp_path / "a" / "b" / "net.onnx")


def test_a_spec_beside_the_file_is_pointed_out(tmp_path: Path) -> None:
    (tmp_path / "net.onnx.json").write_text("{}")
    said: list[str] = []
    random_export(tmp_path / "net.onnx", warn=said.append)
    assert [line for line in said if "net.onnx.json goes before the spec inside" in line]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.onnx"
    random_export(path)
    before = path.read_bytes()

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SinkError, match="No space left"):
        random_export(path, seed=1)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_weights_that_halves_cannot_hold_are_named(tmp_path: Path) -> None:
    tensors = random_state(expected_tensors(NetworkOptions("FastSCNN")), 0)
    tensors["decode_head.convs.0.pointwise_conv.conv.weight"] *= np.float32(1e6)
    path = tmp_path / "large.safetensors"
    save(path, tensors, "safetensors")
    said: list[str] = []
    report = export(tmp_path / "net.onnx", "FastSCNN", size=HW, checkpoint=path, fp16=True, warn=said.append)
    assert said == list(report.notes)
    assert len(said) == 1
    assert "decode_head.convs.0.pointwise_conv" in said[0]
    assert "stays float32: largest value" in said[0]
