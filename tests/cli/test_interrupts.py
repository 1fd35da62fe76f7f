"""Ctrl-C is heard, wherever it comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from segcam.cli import interrupts
from segcam.cli.main import main
from segcam.cli.stages import Stages


def lose_one() -> None:
    """A Ctrl-C that comes while something is thrown away, where exceptions are dropped."""

    class Rubbish:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    Rubbish()


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was dropped."""
    dropped: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: dropped.append(what.exc_type))
    return dropped


def test_it_is_raised_as_always() -> None:
    with pytest.raises(KeyboardInterrupt), interrupts.noting():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_one_that_got_lost_is_raised_at_the_next_look(quiet: list[Any]) -> None:
    with interrupts.noting():
        interrupts.check()
        lose_one()
        assert quiet == [KeyboardInterrupt] and interrupts.interrupted()
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
    with interrupts.noting():
        assert not interrupts.interrupted()


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda number, frame: None])
def test_who_handles_it_otherwise_goes_on_doing_so(handler: Any) -> None:
    before = signal.signal(signal.SIGINT, handler)
    try:
        with interrupts.noting():
            assert signal.getsignal(signal.SIGINT) is handler
            signal.raise_signal(signal.SIGINT)
            interrupts.check()
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_do_without() -> None:
    found: list[Any] = []

    def elsewhere() -> None:
        with interrupts.noting():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]


@pytest.mark.parametrize("stage", ["load", "simplify", "precision"])
def test_a_build_ends_where_its_next_step_would_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    import segcam

    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match="UNTRAINED"):
        segcam.export("net.onnx", "FastSCNN", size=(32, 64), init="random")
    end = Stages.end

    def ending(self: Stages, name: str, words: str) -> None:
        end(self, name, words)
        if name == stage:
            lose_one()

    monkeypatch.setattr(Stages, "end", ending)
    assert main(["build", "--onnx", "net.onnx", "--target", "onnx"]) == 130
    assert stage in capsys.readouterr().err
    assert not Path("engines").exists() or not list(Path("engines").iterdir())


def test_a_run_does_not_begin_after_one(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from segcam.session import Network

    load = Network.load

    def loading(*arguments: Any) -> Network:
        network = load(*arguments)
        lose_one()
        return network

    monkeypatch.setattr(Network, "load", loading)
    out = tmp_path / "out.mp4"
    assert main(["-e", str(model), "-s", "test:frames=5,size=128x64", "-o", str(out)]) == 130
    assert not out.exists() and "done" not in capsys.readouterr().err


@pytest.mark.parametrize("answers", [True, False])
def test_the_process_ends_with_the_exit_code(tmp_path: Path, repository: Path, answers: bool) -> None:
    """Also where the interrupt came while a library ran Python code of its own, after which the interpreter would end
    itself by the signal (where it runs a module, as in ``python -m segcam``)."""
    program = f"""
import ctypes, signal, sys
from segcam.cli import interrupts, main
run = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_char_p, ctypes.c_int, ctypes.py_object, ctypes.py_object)(
    ("PyRun_String", ctypes.pythonapi)
)
main._run = lambda arguments: run(b"import signal; signal.raise_signal(signal.SIGINT)", 257, {{}}, {{}})
if not {answers}:
    interrupts.answered = lambda: None
sys.exit(main.main([]))
"""
    (tmp_path / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "-m", "program"], cwd=tmp_path, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(repository / "app"), str(tmp_path)))},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == (130 if answers else -signal.SIGINT), done.stderr
    assert "Traceback" not in done.stderr
