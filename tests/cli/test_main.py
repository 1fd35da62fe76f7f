from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import segcam
from segcam.cli.main import COMMANDS, main
from segcam.config import Resolved, load
from segcam.errors import EngineError, SegcamError, UsageError

Run = Callable[..., "subprocess.CompletedProcess[str]"]
HEAVY = ("openvino", "onnxruntime", "numba", "av", "cv2", "numpy", "onnx", "rich", "tensorrt", "pycuda")


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Resolved]:
    """Puts a recorder in the place of the real job; whatever it is told to raise, it raises."""
    calls: list[Resolved] = []
    module = ModuleType("segcam.cli.run")

    def run(resolved: Resolved) -> int:
        calls.append(resolved)
        return 0

    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "segcam.cli.run", module)
    monkeypatch.chdir(tmp_path)
    return calls


def raising(job_error: BaseException) -> Callable[[Resolved], int]:
    def run(resolved: Resolved) -> int:
        raise job_error

    return run


def test_help_names_every_setting_and_loads_nothing_heavy(run_segcam: Run) -> None:
    done = run_segcam("--help", python_flags=("-X", "importtime"))
    assert done.returncode == 0
    for words in ("--engine FILE", "--no-cut-head", "overlay (how classes are painted)", "(default: 0.5)", "examples:"):
        assert words in done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "segcam.cli.args" in loaded
    assert {name for name in loaded if name.split(".")[0] in HEAVY} == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert f"usage: segcam {name}" in capsys.readouterr().out


def test_version(run_segcam: Run) -> None:
    done = run_segcam("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"segcam {segcam.__version__}\n", "")


def test_nothing_given_names_the_next_command(run_segcam: Run) -> None:
    done = run_segcam()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: segcam --engine FILE --source SOURCE")
    assert "segcam --help" in done.stderr
    assert "segcam doctor" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (("docter",), "no command is called 'docter'", "Did you mean doctor?"),
        (("play",), "no command is called 'play'", "The commands are: "),
        (("--sorce", "x"), "no flag is called --sorce", "Did you mean --source?"),
        (("doctor", "--jsn"), "no flag is called --jsn", "Did you mean --json?"),
        (("doctor", "x"), "'x' is not expected here", "See: segcam doctor --help"),
        (("--source", "x"), "--engine is missing", "Give --engine FILE"),
        (("--engine", "x"), "--source is missing", "Give --source SOURCE"),
        (("--alpha", "2"), "--alpha: found 2.0, expected a number from 0 to 1", "--alpha: opacity"),
        (("--config", "none.toml"), "none.toml: there is no such file", "segcam --print-config > none.toml"),
    ],
)
def test_wrong_usage_is_two_lines_and_exit_code_2(
    run_segcam: Run, arguments: tuple[str, ...], message: str, hint: str
) -> None:
    done = run_segcam(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("segcam: error: ")
    assert message in lines[0]
    assert hint in lines[1]


def test_a_file_in_place_of_a_command_is_taken_for_a_source(run_segcam: Run, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").touch()
    assert "--source clip.mp4" in run_segcam("clip.mp4").stderr


def test_print_config_can_be_read_back(run_segcam: Run, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("segcam_config = 1\n[run]\nqueue_size = 7\n", encoding="utf-8")
    done = run_segcam("--print-config", "--alpha", "0.25", "--classes", "-sky", "-o", "Straße.mp4")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"queue_size = 7  # from config.toml: {tmp_path / 'config.toml'}\n" in done.stdout
    assert "alpha = 0.25  # from --alpha\n" in done.stdout
    assert "crf = 23  # default\n" in done.stdout
    copy = tmp_path / "copy.toml"
    copy.write_text(done.stdout, encoding="utf-8")
    read = load(copy, {}).settings
    assert (read.alpha, read.queue_size, read.classes, read.output) == (0.25, 7, "-sky", ("Straße.mp4",))


def test_another_programs_config_is_left_alone(run_segcam: Run, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("alpha = 'theirs'\n", encoding="utf-8")
    assert "alpha = 0.5  # default" in run_segcam("--print-config").stdout
    assert run_segcam("--print-config", "--config", "config.toml").returncode == 2


def test_names_that_the_terminal_cannot_show_do_not_stop_it(run_segcam: Run) -> None:
    done = run_segcam("--print-config", "-s", "Straße.mp4", env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert (done.returncode, done.stderr) == (0, "")
    assert 'source = "Stra\\xdfe.mp4"' in done.stdout


def test_the_job_gets_the_settings(job: list[Resolved]) -> None:
    assert main(["-e", "net.onnx", "-s", "a.mp4", "--classes", "-sky"]) == 0
    (resolved,) = job
    assert (resolved.settings.engine, resolved.settings.source, resolved.settings.classes) == (
        "net.onnx",
        "a.mp4",
        "-sky",
    )


def test_a_config_file_alone_is_enough(job: list[Resolved], tmp_path: Path) -> None:
    text = "segcam_config = 1\n[input]\nsource = 'a.mp4'\n[engine]\nengine = 'net.onnx'\n"
    (tmp_path / "config.toml").write_text(text, encoding="utf-8")
    assert main([]) == 0
    assert job[0].settings.source == "a.mp4"


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (EngineError("found a, expected b", "do c"), 1, "segcam: error: found a, expected b\n  do c\n"),
        (SegcamError("no hint"), 1, "segcam: error: no hint\n"),
        (UsageError("wrong"), 2, "segcam: error: wrong\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_become_exit_codes(
    job: list[Resolved],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    text: str,
) -> None:
    monkeypatch.setattr(sys.modules["segcam.cli.run"], "run", raising(error))
    assert main(["-e", "net.onnx", "-s", "a.mp4"]) == code
    assert capsys.readouterr() == ("", text)


def test_bugs_keep_their_traceback(job: list[Resolved], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["segcam.cli.run"], "run", raising(ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        main(["-e", "net.onnx", "-s", "a.mp4"])


@pytest.mark.parametrize("arguments", [["--help"], ["--print-config"]])
def test_a_reader_that_went_away_is_no_error(tmp_path: Path, repository: Path, arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "segcam", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(repository / "app")},
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_the_package_fetches_its_names_when_used(repository: Path) -> None:
    code = (
        "import sys, segcam; assert 'numpy' not in sys.modules; assert segcam.CITYSCAPES.names[0] == 'road';"
        "assert 'CITYSCAPES' in dir(segcam); segcam.nothing"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(repository / "app")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.splitlines()[-1] == "AttributeError: module 'segcam' has no attribute 'nothing'"
