"""``segcam eval`` as typed: reports, files, exit codes, and what is said about mistakes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from segcam.cli.main import main


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def street(tmp_path: Path, brightest: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """net.onnx, three pictures in images/ and their labels: the second one is wrong in a quarter of its pixels."""
    brightest()
    for number in range(3):
        truth = np.zeros((24, 40), np.uint8)
        truth[:, 20:] = 2
        picture = (np.eye(3, dtype=np.uint8) * 200)[truth][..., ::-1]
        if number == 1:
            truth[:, :10] = 1
        for folder, content in (("images", picture), ("labels", truth)):
            (tmp_path / folder).mkdir(exist_ok=True)
            assert cv2.imwrite(str(tmp_path / folder / f"{number}.png"), content)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def evaluate(street: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """``segcam eval --engine net.onnx --precision fp32 *arguments`` in this process."""

    def run(*arguments: object) -> Done:
        capsys.readouterr()
        code = main(["eval", "--engine", "net.onnx", "--precision", "fp32", *map(str, arguments)])
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return run


PAIRS = ("--dataset", "folder:images,labels")


def test_the_report(evaluate: Callable[..., Done]) -> None:
    done = evaluate(*PAIRS)
    assert done.code == 0
    for words in (
        "data        images with labels (3 images)", "engine      net.onnx: 40x24 on ", "pictures    3 in ",
        "net.onnx against the labels", "mIoU ", "(3 of 3 classes)", "pixel accuracy           0.9167",
        "per second", "frequency-weighted IoU", "worst pictures           1.png (0.7500)", "void",
    ):  # fmt: skip
        assert words in done.out, words
    red = next(line.split() for line in done.out.splitlines() if line.startswith("  red "))
    assert red == ["red", "0.8333", "1.0000", "41.67%", "50.00%"]
    assert done.err.startswith("net.onnx: 40x24 on "), "what runs is said before it does"


def test_json_to_stdout_is_all_there_is(evaluate: Callable[..., Done]) -> None:
    done = evaluate(*PAIRS, "--json")
    made = json.loads(done.out)
    assert made["labels"][0]["pixel_accuracy"] == pytest.approx(11 / 12, abs=1e-6)
    assert made["images"] == 3
    assert made["agreement"] is None
    assert made["engines"][0]["precision"] == "fp32"
    assert "net.onnx against the labels" in done.err


def test_json_to_a_file_and_pictures_to_a_folder(evaluate: Callable[..., Done], street: Path) -> None:
    done = evaluate(*PAIRS, "--json", "r.json", "-o", "scores", "--frames", 2, "--every", 2)
    assert done.code == 0
    made = json.loads((street / "r.json").read_text())
    assert made["images"] == 2
    assert made["labels"] == json.loads((street / "scores" / "report.json").read_text())["labels"]
    assert sorted(path.name for path in (street / "scores").iterdir()) == ["confusion.png", "report.json", "worst.png"]
    assert "wrote scores/worst.png" in done.out


def test_against_without_labels(evaluate: Callable[..., Done]) -> None:
    done = evaluate("--runtime", "openvino", "--against-runtime", "onnxruntime", "--source", "images", "-o", "out")
    assert done.code == 0
    assert "net.onnx (ONNX Runtime, fp32) against net.onnx (OpenVINO, fp32)" in done.out
    assert "equal pixels             1.000000" in done.out
    assert "the labels" not in done.out


def test_a_source_of_frames(evaluate: Callable[..., Done]) -> None:
    done = evaluate("--against-runtime", "onnxruntime", "-s", "test:size=96x64", "--frames", 4, "--json")
    assert json.loads(done.out)["images"] == 4
    assert json.loads(done.out)["agreement"]["worst"][0]["name"].startswith("frame ")


def test_config_gives_the_engine_and_nothing_of_another_job(street: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (street / "config.toml").write_text(
        'segcam_config = 1\n[input]\nsource = "test:"\nframes = 1\nstart = 5\n[engine]\nengine = "net.onnx"\n'
        'runtime = "onnxruntime"\n[output]\noutput = ["o.mp4"]\n[report]\njson = "x.json"\n'
    )
    assert main(["eval", *PAIRS]) == 0
    out = capsys.readouterr().out
    assert "ONNX Runtime" in out
    assert "pictures    3 in " in out
    assert sorted(path.suffix for path in street.iterdir() if path.is_file()) == [".onnx", ".toml"]


def test_progress_on_a_terminal_only(evaluate: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "3/3" not in evaluate(*PAIRS).err
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes any stream for a terminal then
    assert "3/3" in evaluate(*PAIRS, "--progress", "on").err


@pytest.mark.parametrize(
    ("arguments", "code", "message", "hint"),
    [
        ((), 2, "nothing to evaluate on", "--dataset camvid:PATH"),
        (("--source", "images"), 2, "images has no labels", "--against"),
        ((*PAIRS, "--source", "images"), 2, "a data set and a source", ""),
        (("--dataset", "folders:images,labels"), 2, "there is no data set", "Did you mean folder?"),
        (("--dataset", "folder:images,none"), 1, "none: there is no such folder", "ls"),
        (("--mapping", "m.toml", "--source", "images"), 2, "--mapping says what labels mean", ""),
        ((*PAIRS, "--mapping", "none.toml"), 2, "the mapping none.toml cannot be read", ""),
        ((*PAIRS, "--against", "net.onnx"), 2, "the same network with the same settings", "--against-precision"),
        ((*PAIRS, "--against", "other.onnx"), 1, "there is no file other.onnx", ""),
        ((*PAIRS, "--against-precision", "fp8"), 2, "--against-precision: found \"fp8\"", "fp32"),
        ((*PAIRS, "--start", "5"), 2, "no time to start at", "--start"),
        ((*PAIRS, "--output", "net.onnx"), 1, "net.onnx", ""),
        ((*PAIRS, "--agianst", "x"), 2, "no flag is called --agianst", "Did you mean --against?"),
        (("images",), 2, "'images' is not expected here", ""),
    ],
)  # fmt: skip
def test_mistakes(
    evaluate: Callable[..., Done], arguments: tuple[str, ...], code: int, message: str, hint: str
) -> None:
    done = evaluate(*arguments)
    assert done.code == code, done.err
    assert message in done.err
    assert hint in done.err
    assert "Traceback" not in done.err
    assert done.out == ""


def test_no_engine(street: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", *PAIRS]) == 2
    assert "--engine is missing" in capsys.readouterr().err


def test_a_bad_file_among_good_ones(evaluate: Callable[..., Done], street: Path) -> None:
    (street / "labels" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    done = evaluate(*PAIRS)
    assert done.code == 1
    assert "labels/2.png" in done.err
    assert done.out == ""


@pytest.mark.slow
def test_in_a_process_of_its_own(street: Path, run_segcam: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = run_segcam("eval", "-e", "net.onnx", "--precision", "fp32", *PAIRS)
    assert done.returncode == 0, done.stderr
    assert "pixel accuracy           0.9167" in done.stdout
