from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
from pathlib import Path

import pytest
from waiting import until
from zoo_server import noise, zoo_text

from segcam.errors import ZooError
from segcam.networks import cache, zoo

BODY = noise(5000)


def silent(line: str) -> None:
    raise AssertionError(line)


@pytest.fixture
def entry(own_cache: Path, tmp_path: Path) -> zoo.ZooEntry:
    return table(tmp_path, zoo_text("https://example.org/tiny.pt", BODY))


def table(folder: Path, text: str) -> zoo.ZooEntry:
    path = folder / "zoo.toml"
    path.write_text(text)
    return zoo.read_table(path).entries[0]


def test_the_folder_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SEGCAM_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache.root() == tmp_path / ".cache" / "segcam"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache.root() == tmp_path / ".cache" / "segcam"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.root() == tmp_path / "xdg" / "segcam"
    monkeypatch.setenv("SEGCAM_CACHE", "~/mine")
    assert cache.root() == tmp_path / "mine"
    assert not any(tmp_path.iterdir()), "asking makes nothing"


def test_a_folder_that_cannot_be_made_says_what_to_set(own_cache: Path, tmp_path: Path) -> None:
    own_cache.write_text("a file where the folder should be")
    with pytest.raises(ZooError) as caught:
        cache.folder("checkpoints")
    assert str(own_cache) in caught.value.message
    assert "export SEGCAM_CACHE=" in caught.value.hint


def test_a_read_only_folder_says_what_to_set(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own_cache / "checkpoints").mkdir(parents=True)
    # The user who runs the tests may be root, who may write everywhere.
    monkeypatch.setattr("os.access", lambda path, mode: not mode & os.W_OK)
    with pytest.raises(ZooError, match=r"cannot be written \(Permission denied\)"):
        cache.folder("checkpoints")


def test_a_file_put_there_by_hand_is_hashed_once(entry: zoo.ZooEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache.receipt(entry) is None
    path = cache.folder("checkpoints") / entry.file
    path.write_bytes(BODY)
    found = cache.receipt(entry)
    assert found is not None and found.fits(entry)
    assert (found.sha256, found.bytes) == (hashlib.sha256(BODY).hexdigest(), len(BODY))
    with monkeypatch.context() as patch:
        patch.setattr(cache, "hashed", lambda path: pytest.fail("hashed again"))
        assert cache.receipt(entry) == found
    path.write_bytes(b"x" + BODY[1:])
    os.utime(path, ns=(5, 5))
    changed = cache.receipt(entry)
    assert changed is not None and not changed.fits(entry)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sha256": 1, "sha384": 2, "bytes": 5000, "mtime_ns": 5}', "\0"])
def test_a_receipt_that_says_nothing_is_written_anew(entry: zoo.ZooEntry, text: str) -> None:
    path = cache.folder("checkpoints") / entry.file
    path.write_bytes(BODY)
    os.utime(path, ns=(5, 5))
    path.with_name(path.name + ".json").write_text(text)
    found = cache.receipt(entry)
    assert found is not None and found.fits(entry)
    assert json.loads(path.with_name(path.name + ".json").read_text())["sha256"] == found.sha256


def test_a_published_sha384_counts_too(own_cache: Path, tmp_path: Path) -> None:
    long = hashlib.sha384(BODY).hexdigest()
    entry = table(tmp_path, zoo_text("https://example.org/a.pt", BODY, digits=8, sha384=long))
    assert entry.hash_bits == 384
    other = table(tmp_path, zoo_text("https://example.org/a.pt", BODY, digits=8, sha384=f"{'0' * 96}"))
    file = tmp_path / "brought.pt"
    file.write_bytes(BODY)
    with pytest.raises(ZooError, match=f"its SHA-384 is {long}.* expected {'0' * 96}"):
        cache.add(other, file, silent)
    assert cache.add(entry, file, silent).read_bytes() == BODY


def test_a_file_that_came_another_way(entry: zoo.ZooEntry, tmp_path: Path) -> None:
    file = tmp_path / "from a stick.pt"
    file.write_bytes(BODY)
    path = cache.add(entry, file, silent)
    assert path == cache.checkpoint_path(entry) and path.read_bytes() == BODY
    found = cache.receipt(entry)
    assert found is not None and found.fits(entry)
    assert sorted(p.name for p in path.parent.iterdir()) == ["tiny.pt", "tiny.pt.json"]
    assert file.exists()


@pytest.mark.parametrize(
    ("body", "complaint"),
    [(BODY[:-1] + b"x", r"its SHA-256 is \w{64} \(5000 bytes\), expected \w{64}"), (BODY + b"x", "5001 bytes long")],
)
def test_a_wrong_file_is_not_taken(entry: zoo.ZooEntry, tmp_path: Path, body: bytes, complaint: str) -> None:
    cache.add(entry, _file(tmp_path, BODY), silent)
    with pytest.raises(ZooError, match=complaint) as caught:
        cache.add(entry, _file(tmp_path, body), silent)
    assert entry.url in caught.value.hint
    assert cache.checkpoint_path(entry).read_bytes() == BODY, "what was there stays"
    assert len(list(cache.checkpoint_path(entry).parent.iterdir())) == 2


def _file(folder: Path, body: bytes) -> Path:
    path = folder / "file"
    path.write_bytes(body)
    return path


def test_add_says_what_cannot_be_read(entry: zoo.ZooEntry, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"none\.pt cannot be read \(No such file"):
        cache.add(entry, tmp_path / "none.pt", silent)
    with pytest.raises(ZooError, match="is a folder"):
        cache.add(entry, tmp_path, silent)


def test_a_full_disk_says_so_and_leaves_nothing(
    entry: zoo.ZooEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        target.write_bytes(BODY[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(ZooError, match="the disk is full") as caught:
        cache.add(entry, _file(tmp_path, BODY), silent)
    assert "SEGCAM_CACHE" in caught.value.hint
    assert list(cache.checkpoint_path(entry).parent.iterdir()) == []


def test_remove_takes_all_that_belongs_to_a_network_and_nothing_else(entry: zoo.ZooEntry, tmp_path: Path) -> None:
    assert cache.remove(entry, silent) == []
    path = cache.add(entry, _file(tmp_path, BODY), silent)
    engines = cache.folder("engines")
    mine = [engines / "tiny-64x96-0123456789ab.onnx", engines / "tiny-128x96-0123456789ab.onnx"]
    others = [engines / "tiny-er-64x96-0123456789ab.onnx", engines / "tiny.onnx", path.with_name("other.pt")]
    left_over = [path.with_name("tiny.pt.part"), path.with_name("tiny.pt.part.json"), path.with_name("tiny.pt.7-7.tmp")]
    for file in (*mine, *others, *left_over):
        file.write_bytes(b"x")
    assert cache.exports(entry) == sorted(mine)
    assert set(cache.remove(entry, silent)) == {path, left_over[0], *mine}
    assert all(file.exists() for file in others)
    assert not any(file.exists() for file in (path, *mine, *left_over, path.with_name("tiny.pt.json")))


def test_one_at_a_time(own_cache: Path) -> None:
    inside, most, said = 0, 0, []
    first_in, go_on = threading.Event(), threading.Event()

    def work() -> None:
        nonlocal inside, most
        with cache.locked("x", said.append):
            inside += 1
            most = max(most, inside)
            first_in.set()
            assert go_on.wait(30)
            inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    threads[0].start()
    assert first_in.wait(30)
    for thread in threads[1:]:
        thread.start()
    until(lambda: len(said) == 3)
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert (inside, most) == (0, 1)
    assert set(said) == {"another process is at work on x: waiting for it ..."}


def test_a_file_system_without_locks_is_said(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(file: object, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", none)
    said: list[str] = []
    with cache.locked("x", said.append):
        pass
    assert len(said) == 1 and "has no file locks" in said[0]
