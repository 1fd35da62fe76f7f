"""Product and record: both or neither, whatever stops the writing; one build at a time."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from segcam.building import store
from segcam.errors import EngineError, SegcamError

OLD, NEW = (b"old plan", "old record"), (b"new plan", "new record")


@pytest.fixture
def product(own_folder: Path) -> Path:
    return own_folder / "engines" / "net.plan"


def record(product: Path) -> Path:
    return product.with_name(product.name + ".json")


def put(product: Path, pair: tuple[bytes, str]) -> None:
    store.write_pair(product, pair[0], record(product), pair[1])


def there(product: Path) -> tuple[bytes, str] | None:
    if not product.exists() and not record(product).exists():
        return None
    return product.read_bytes(), record(product).read_text()


def others(product: Path) -> list[str]:
    folder = product.parent
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return sorted(names - {product.name, record(product).name})


class Strike:
    """Raises at the ``at``-th call of anything that touches the disk; ``count`` says how many there were."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, error: BaseException) -> None:
        self.count, self._at, self._error = 0, at, error
        for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "open"), (Path, "mkdir"), (Path, "read_bytes")):
            monkeypatch.setattr(owner, name, self._around(getattr(owner, name)))

    def _around(self, true: Any) -> Any:
        def call(*arguments: Any, **more: Any) -> Any:
            self.count += 1
            if self.count == self._at:
                raise self._error
            return true(*arguments, **more)

        return call


@pytest.mark.parametrize("before", [None, OLD])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_at_any_call_leaves_the_old_pair_or_none(
    product: Path, monkeypatch: pytest.MonkeyPatch, before: tuple[bytes, str] | None, error: BaseException
) -> None:
    if before:
        put(product, before)
    at = 0
    while True:
        at += 1
        with monkeypatch.context() as patch:
            strike = Strike(patch, at, error)
            try:
                put(product, NEW)
            except (EngineError, KeyboardInterrupt) as raised:
                failed: BaseException | None = raised
            else:
                failed = None
        if strike.count < at:
            break
        # After the last rename the new pair is there, and only the folder's own sync can fail.
        assert there(product) in ((before, NEW) if failed is None else (before,)) or there(product) == NEW
        assert others(product) == []
        if isinstance(failed, EngineError):
            assert "--output" in failed.hint
        if there(product) == NEW:
            break
    assert at > 5


def test_a_machine_that_stops_at_any_rename_leaves_what_a_loader_can_tell(
    product: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing runs after the stop: no clean-up. The old pair, the new one, or a product of another hash than the record
    says; and never a product without a record."""
    true = Path.replace
    states = []
    for stop in (1, 2, 3):
        for path in (product, record(product)):
            path.unlink(missing_ok=True)
        put(product, OLD)
        renamed = 0

        def replace(self: Path, target: Any, stop: int = stop) -> Any:
            nonlocal renamed
            renamed += 1
            if renamed == stop:
                os._exit(9)
            return true(self, target)

        process = os.fork()
        if process == 0:
            monkeypatch.setattr(Path, "replace", replace)
            put(product, NEW)
            os._exit(0)
        os.waitpid(process, 0)
        states.append(there(product))
    assert states == [OLD, (OLD[0], NEW[1]), NEW]
    assert others(product)
    with store.building(product, lambda line: None):
        pass
    assert others(product) == []


def test_a_first_product_never_stands_without_its_record(product: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    true = Path.replace

    def replace(self: Path, target: Any) -> Any:
        seen.append((product.exists(), record(product).exists()))
        return true(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    put(product, NEW)
    assert seen == [(False, False), (False, True)]
    assert there(product) == NEW


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(product: Path) -> None:
    product.parent.mkdir()
    product.parent.chmod(0o500)
    with pytest.raises(EngineError, match="no permission to write"):
        store.check_output(product, 0)


@pytest.mark.parametrize("refused", [errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_a_disk_that_says_no(product: Path, monkeypatch: pytest.MonkeyPatch, refused: int) -> None:
    Strike(monkeypatch, 1, OSError(refused, os.strerror(refused)))
    with pytest.raises(EngineError, match=os.strerror(refused)):
        put(product, NEW)


def test_room_is_asked_for_before_the_work(product: Path) -> None:
    store.check_output(product, 1000)
    with pytest.raises(EngineError, match=r"MiB are free there, and a build of .* MiB wants") as refused:
        store.check_output(product, 1 << 60)
    assert "--output" in refused.value.hint


def test_an_output_that_is_a_folder(own_folder: Path) -> None:
    with pytest.raises(EngineError, match="is a folder"):
        store.check_output(own_folder, 0)


def test_the_work_folder_goes_whatever_happens(product: Path) -> None:
    for error in (None, ValueError("x"), KeyboardInterrupt()):
        try:
            with store.work_folder(product) as work:
                (work / "parsed.onnx").write_bytes(b"x")
                assert work.parent == product.parent
                if error:
                    raise error
        except (ValueError, KeyboardInterrupt):
            pass
        assert others(product) == []
    with pytest.raises(EngineError, match="No space left"), store.work_folder(product):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(SegcamError, match="mine"), store.work_folder(product):
        raise EngineError("mine")


def test_one_at_a_time_for_one_output(product: Path) -> None:
    product.parent.mkdir()
    inside, waiting, said = threading.Event(), threading.Event(), []
    order = []

    def other() -> None:
        inside.wait(20)

        def say(line: str) -> None:
            said.append(line)
            waiting.set()

        with store.building(product, say):
            order.append("second")

    thread = threading.Thread(target=other)
    thread.start()
    with store.building(product, said.append):
        inside.set()
        assert waiting.wait(20)
        with store.building(product.with_name("another.plan"), said.append):
            order.append("first")
    thread.join(20)
    assert order == ["first", "second"]
    assert len(said) == 1 and "waiting" in said[0]


def test_two_processes_build_into_one_file(net: Path, own_folder: Path, repository: Path) -> None:
    """Both end well, one of them finds the other's work; nothing else is left."""
    command = [
        sys.executable,
        "-m",
        "segcam",
        "build",
        "--onnx",
        "net.onnx",
        "--target",
        "onnx",
        "--calibrate",
        "random",
    ]
    environment = {**os.environ, "PYTHONPATH": str(repository / "app")}
    both = [
        subprocess.Popen(
            command, cwd=own_folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    first = sorted(out.partition(" ")[0] for out, _ in said)
    assert first == ["engines/net_fp16.onnx", "wrote"]
    assert sorted(path.name for path in (own_folder / "engines").iterdir()) == [
        "net_fp16.onnx", "net_fp16.onnx.report.json",
    ]  # fmt: skip


def test_ctrl_c_in_a_process_of_its_own(net: Path, own_folder: Path, repository: Path) -> None:
    """SIGINT while it is at work: exit code 130, no traceback, nothing left."""
    command = [sys.executable, "-m", "segcam", "build", "--onnx", "net.onnx", "--target", "onnx"]
    environment = {**os.environ, "PYTHONPATH": str(repository / "app")}
    process = subprocess.Popen(command, cwd=own_folder, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    said = []
    for line in process.stderr:
        said.append(line)
        if line.strip().startswith("load"):
            process.send_signal(signal.SIGINT)
            break
    said.append(process.stderr.read())
    assert process.wait(60) == 130, said
    assert "Traceback" not in "".join(said)
    assert not (own_folder / "engines").exists() or not list((own_folder / "engines").iterdir())
