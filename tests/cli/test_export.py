"""``segcam export`` as typed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from segcam.cli.main import main

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def random_export(*more: str) -> list[str]:
    return ["export", "net.onnx", "--model", "FastSCNN", "--init", "random", "--size", "64,96", *more]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(random_export("--seed", "7")) == 0
    said = capsys.readouterr()
    assert "segcam: warning: net.onnx is UNTRAINED: its weights are random (seed 7)" in said.err
    size = Path("net.onnx").stat().st_size
    for line in (
        f"wrote net.onnx: {size / 1e6:.1f} MB, ",
        "  network   FastSCNN, 19 classes: 1.40 M parameters, 0.0",
        "  input     input0 1x3x64x96 float32, RGB normalised",
        "  output    scores 1x19x8x12 float32, enlarged by Segcam",
        "  segcam --engine net.onnx --source dashcam.mp4",
    ):
        assert line in said.out
    assert "segcam eval" not in said.out


def test_what_it_says_of_other_forms(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(random_export("--head", "labels", "--embed-preprocessing", "--batch", "dynamic")) == 0
    said = capsys.readouterr().out
    assert "  input     input0 Nx3x64x96 float32, BGR 0..255" in said
    assert "  output    output0 Nx1x64x96 int64 labels" in said
    assert main(random_export("--batch", "4")) == 0
    said = capsys.readouterr().out
    assert "this file, of batch 4, is for other programs" in said
    assert "segcam --engine" not in said


def test_every_flag_arrives(capsys: pytest.CaptureFixture[str]) -> None:
    Path("names.txt").write_text("road\nsky\ncar\n")
    Path("net.onnx").write_text("not ours")
    flags = ["--num-classes", "3", "--names", "names.txt", "--fp16", "--rewrite", "off", "--force", "--head", "logits"]
    assert main(random_export(*flags)) == 0
    assert "output0 1x3x64x96 float32" in capsys.readouterr().out
    model = onnx.load("net.onnx")
    words = {entry.key: entry.value for entry in model.metadata_props}
    assert '"name": "sky"' in words["segcam_spec"]
    assert "segcam_rewrites" not in words
    assert any(i.data_type == onnx.TensorProto.FLOAT16 for i in model.graph.initializer)


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        ([], "OUT.onnx is missing", "segcam export small.onnx --model"),
        (["x.onnx"], "--model is missing", "segcam export small.onnx --model"),
        (["x.onnx", "y.onnx", "--model", "FastSCNN"], "'y.onnx' is not expected here", "segcam export --help"),
        (["x.onnx", "--model", "FastSCN"], "no network is called 'FastSCN'", "Did you mean FastSCNN?"),
        (["x.onnx", "--model", "FastSCNN"], "no weights for FastSCNN", "--init random"),
        (["x.onnx", "--modle", "FastSCNN"], "no flag is called --modle", "Did you mean --model?"),
        (["x.pt", "--model", "FastSCNN", "--init", "random"], "does not end in .onnx", "Call it x.onnx"),
        (random_export("--batch", "0")[1:], "--batch: found '0', expected a whole number from 1 or dynamic", "--help"),
        (random_export("--batch", "many")[1:], "--batch: found 'many'", "--help"),
        (random_export("--num-filters", "-3")[1:], "--num-filters", "--help"),
        (random_export("--seed", "x")[1:], "--seed: found 'x', expected a whole number from 0", "--help"),
        (random_export("--size", "64")[1:], "--size '64' is not a size", "--size 512,1024"),
        (random_export("--head", "all")[1:], "--head all: expected scores, logits, labels", "--help"),
        (random_export("--adaptive-pool", "mean")[1:], "there is no adaptive pool 'mean'", "torch or omz"),
        (random_export("--names", "nope.txt")[1:], "the class names 'nope.txt'", "Built in: cityscapes"),
    ],
)
def test_wrong_usage_is_two_lines_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], here: Path, arguments: list[str], message: str, hint: str
) -> None:
    assert main(["export", *arguments]) == 2
    said = capsys.readouterr()
    first, second = said.err.splitlines()
    assert first.startswith("segcam: error: ")
    assert message in first
    assert hint in second
    assert said.out == ""
    assert list(here.glob("*.onnx")) == []


def test_a_checkpoint_that_cannot_be_read_is_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    Path("weights.pt").write_bytes(b"nothing")
    assert main(["export", "x.onnx", "--model", "FastSCNN", "--checkpoint", "weights.pt"]) == 1
    assert "segcam: error: weights.pt" in capsys.readouterr().err


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_the_next_command_works(run_segcam: Run, runtime: str) -> None:
    done = run_segcam(*random_export("--head", "labels", "--embed-preprocessing"))
    assert (done.returncode, done.stdout.splitlines()[0][:14]) == (0, "wrote net.onnx")
    flags = ("--engine", "net.onnx", "--runtime", runtime, "--frames", "3", "--output", "null")
    done = run_segcam("--source", "test:size=96x64", *flags)
    assert (done.returncode, "warning" in done.stderr) == (0, False)


def test_export_loads_no_runtime_and_no_picture_library(run_segcam: Run) -> None:
    """What keeps it under a second: nothing but onnx and NumPy is loaded."""
    done = run_segcam(*random_export(), python_flags=("-X", "importtime"))
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "onnx" in loaded
    assert loaded & {"openvino", "onnxruntime", "numba", "cv2", "av", "torch"} == set()
