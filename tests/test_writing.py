"""Files that are whole as soon as they have their name."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from segcam.writing import whole_file


@pytest.mark.parametrize("sync", [True, False])
def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path, sync: bool) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    with whole_file(path, sync=sync) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old" and temporary.parent == tmp_path
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_a_raise_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    with pytest.raises(error), whole_file(path) as temporary:
        temporary.write_text("ne")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_written_is_an_error_and_no_empty_file(tmp_path: Path) -> None:
    for sync in (True, False):
        with pytest.raises(FileNotFoundError), whole_file(tmp_path / "a", sync=sync):
            pass
    assert not list(tmp_path.iterdir())


def test_the_longest_names_can_be_written(tmp_path: Path) -> None:
    for name in ("x" * 255, "ü" * 127):
        with whole_file(tmp_path / name) as temporary:
            temporary.write_bytes(b"1")
        assert (tmp_path / name).read_bytes() == b"1"


def test_two_threads_don_t_share_a_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    other: list[Path] = []

    def write() -> None:
        with whole_file(path) as temporary:
            other.append(temporary)
            temporary.write_text("theirs")

    with whole_file(path) as mine:
        mine.write_text("mine")
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
        assert path.read_text() == "theirs" and other[0] != mine
    assert path.read_text() == "mine"
