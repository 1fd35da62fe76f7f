"""From a checkpoint to the demo's network, its figures, its card and the README's picture."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from checkpoint_files import safetensors_bytes

from segcam.networks.architecture import NetworkOptions, expected_tensors
from segcam.networks.state import random_state

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from publish.card import card  # noqa: E402
from publish.figures import trained  # noqa: E402
from publish.picture import as_jpeg, readme_picture  # noqa: E402

START = {
    "event": "start", "time": "2026-01-02T03:04:05+0000", "step": 0, "minutes": 0.0,
    "arguments": {"output": "/a/private/place", "minutes": 50.0, "resume": False, "seed": 3, "camvid": ""},
    "machine": {"device": "cpu", "threads": 2, "torch": "2.9", "python": "3.11"},
}  # fmt: skip
LATER = [
    {"event": "step", "step": 90, "minutes": 3.2, "loss": 1.0},
    {"event": "evaluation", "step": 100, "minutes": 3.5, "miou": 0.2},
]


def log(folder: Path, *entries: dict[str, Any]) -> Path:
    path = folder / "log.jsonl"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), "utf-8")
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the demo's network, and a log beside them."""
    folder = tmp_path_factory.mktemp("run")
    state = random_state(expected_tensors(NetworkOptions("MobileV3Small", num_filters=64)), 0)
    path = folder / "demo.safetensors"
    path.write_bytes(safetensors_bytes({key: np.asarray(value, np.float32) for key, value in state.items()}))
    log(folder, START, *LATER)
    return path


def publish(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPTS / "publish_demo.py", *map(str, arguments)],
        env={"PYTHONPATH": str(SCRIPTS.parent / "app"), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_everything_is_written(checkpoint: Path, tmp_path: Path) -> None:
    done = publish(checkpoint, "--output", tmp_path, "--parts", 1, "--pictures", 2)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "demo.jpg", "demo_street_f64.json", "demo_street_f64.md", "demo_street_f64.onnx"
    ]  # fmt: skip
    figures = json.loads((tmp_path / "demo_street_f64.json").read_text("utf-8"))
    assert (figures["trained"]["minutes"], figures["trained"]["steps"], figures["trained"]["sessions"]) == (3.5, 100, 1)
    assert set(figures["held_out"]) == {"1024x512", "2048x1024"}
    for part in figures["held_out"].values():
        assert part["pictures"] == 2 and len(part["iou"]) == 19
        known = [value for value in part["iou"].values() if value is not None]
        assert known and part["miou"] == pytest.approx(np.mean(known), abs=1e-4)
    assert len(figures["eight"]["miou"]) == 9 and figures["file"]["num_filters"] == 64
    text = (tmp_path / "demo_street_f64.md").read_text("utf-8")
    assert text == card(figures)
    for words in (
        "3.5 minutes in 1 session, 100 steps",
        "real footage wants the zoo's",
        "frames=2,size=2048x1024",
    ):
        assert words in text, words
    assert str(checkpoint.parent) not in text + json.dumps(figures) and "private" not in text + json.dumps(figures)
    assert "float16" in text and onnx.load(tmp_path / "demo_street_f64.onnx").producer_name == "segcam"
    assert (tmp_path / "demo.jpg").stat().st_size < 400_000


def test_what_is_missing_is_said(checkpoint: Path, tmp_path: Path) -> None:
    done = publish(tmp_path / "none.pt", "--output", tmp_path)
    assert (done.returncode, done.stderr) == (1, f"publish_demo.py: there is no file {tmp_path / 'none.pt'}\n")
    done = publish(checkpoint, "--log", tmp_path / "none.jsonl", "--output", tmp_path)
    assert done.returncode == 1 and "none.jsonl" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_weights_that_must_not_be_given_away_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    tainted = log(tmp_path, START | {"arguments": START["arguments"] | {"camvid": "data"}}, START, *LATER)
    (tmp_path / "engines").mkdir()
    done = publish(checkpoint, "--log", tainted, "--output", tmp_path / "engines")
    assert done.returncode == 1 and "non-commercial" in done.stderr
    assert list((tmp_path / "engines").iterdir()) == []


def test_a_log_of_several_sessions(tmp_path: Path) -> None:
    again = START | {"arguments": START["arguments"] | {"resume": True, "minutes": 60.0}, "minutes": 3.5, "step": 100}
    found = trained(log(tmp_path, START, *LATER, again, {"event": "step", "step": 200, "minutes": 9.96, "loss": 0.5}))
    assert (found["sessions"], found["minutes"], found["steps"]) == (2, 10.0, 200)
    assert "output" not in found["arguments"] and found["arguments"]["minutes"] == 60
    for lines in ([], [START], LATER):
        with pytest.raises(ValueError, match="not the log"):
            trained(log(tmp_path, *lines))


def test_the_picture_has_a_row_for_each_drive(any_network: Path) -> None:
    picture = readme_picture(any_network, rows=((2_000_013, 1.0), (2_000_025, 0.0)), width=120)
    assert picture.shape[1] == 3 * 122 and picture.shape[0] > 2 * (60 + 26)
    data = as_jpeg(picture, 14_000)
    assert len(data) <= 14_000
    back = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert back is not None and np.abs(back.astype(int) - picture).mean() < 12
    with pytest.raises(ValueError, match="at most 100 bytes"):
        as_jpeg(picture, 100)


@pytest.fixture
def any_network(tmp_path: Path) -> Path:
    """A network of 19 classes that is quickly made."""
    import segcam

    path = tmp_path / "net.onnx"
    segcam.export(path, "FastSCNN", size=(64, 128), init="random", warn=lambda line: None)
    return path
