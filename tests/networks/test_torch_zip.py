"""Zips that PyTorch would not have written."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_files import described, pickled, write_zip

from segcam.errors import CheckpointError
from segcam.networks.checkpoint import read_checkpoint

ARRAYS = {"x": np.arange(300, dtype=np.float32), "y": np.array([1, 2], np.int64)}
CALLS, STORAGES = described(ARRAYS)
PICKLE = pickled(CALLS)


def packed(
    path: Path, *entries: tuple[str, bytes], compression: int = zipfile.ZIP_STORED, comment: bytes = b""
) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries:
            archive.writestr(name, data)
        archive.comment = comment
    return path


def entries(prefix: str = "w/") -> list[tuple[str, bytes]]:
    return [(f"{prefix}data.pkl", PICKLE), *((f"{prefix}data/{key}", data.tobytes()) for key, data in STORAGES.items())]


def assert_read(path: Path) -> None:
    found = read_checkpoint(path).tensors
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("prefix", ["w/", "archive/", ""])
def test_any_folder(prefix: str, tmp_path: Path) -> None:
    assert_read(packed(tmp_path / "w.pt", *entries(prefix)))


def test_a_comment_at_the_end(tmp_path: Path) -> None:
    assert_read(packed(tmp_path / "w.pt", *entries(), comment=b"PK\5\6" + bytes(30)))


def test_checksums_left_out(tmp_path: Path) -> None:
    """PyTorch writes zeros when it was told to leave them out."""
    path = packed(tmp_path / "w.pt", *entries())
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            data = data.replace(struct.pack("<I", entry.CRC), bytes(4))
    path.write_bytes(data)
    assert_read(path)


def test_64_bit_sizes(tmp_path: Path) -> None:
    path = packed(tmp_path / "w.pt", *entries())
    data = path.read_bytes()
    end = data.rfind(b"PK\5\6")
    count, _, start = struct.unpack("<10xHII2x", data[end : end + 22])
    directory = b""
    place = start
    while place < end:
        fields = list(struct.unpack("<4s6H3I5H2I", data[place : place + 46]))
        name = data[place + 46 : place + 46 + fields[10]]
        place += 46 + fields[10]
        extra = struct.pack("<HH2s", 0x4246, 2, b"\0\0") + struct.pack("<HH3Q", 1, 24, fields[9], fields[8], fields[16])
        fields[8] = fields[9] = fields[16] = 0xFFFFFFFF
        fields[11] = len(extra)
        directory += struct.pack("<4s6H3I5H2I", *fields) + name + extra
    record = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(directory), start)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, start + len(directory), 1)
    final = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(data[:start] + directory + record + locator + final)
    assert zipfile.ZipFile(path).testzip() is None
    assert_read(path)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (entries()[1:], "a zip with 0 data.pkl"),
        ([("w/a/data.pkl", PICKLE)], "a zip with 0 data.pkl"),
        ([("old-data.pkl", PICKLE)], "a zip with 0 data.pkl"),
        ([*entries(), ("w/code/__torch__.py", b"")], "TorchScript"),
        ([*entries(), ("w/constants.pkl", b"")], "TorchScript"),
        ([*entries(), ("v/data.pkl", PICKLE)], "a zip with 2 data.pkl"),
        (entries()[:2], "storage 1"),
        ([*entries(), ("w/byteorder", b"middle\x1b")], r"byte order is middle\\x1b"),
        (
            [entries()[0], ("w/data/0", bytes(1200)), ("w/data/1", bytes(15))],
            "storage 1 has 15 bytes, its pickle says 16",
        ),
    ],
)
def test_refused(made: list[tuple[str, bytes]], words: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"w\.pt: .*{words}"):
        read_checkpoint(packed(tmp_path / "w.pt", *made))


def test_compressed(tmp_path: Path) -> None:
    """A bomb would be compressed, too."""
    with pytest.raises(CheckpointError, match=r"(?s)data.pkl in it is compressed.*zip -0"):
        read_checkpoint(packed(tmp_path / "w.pt", *entries(), compression=zipfile.ZIP_DEFLATED))


def test_the_same_name_twice(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = packed(tmp_path / "w.pt", *entries(), entries()[1])
    with pytest.raises(CheckpointError, match="data/0 twice"):
        read_checkpoint(path)


def patched(tmp_path: Path, change: Any) -> Path:
    path = write_zip(tmp_path / "w.pt", PICKLE, STORAGES)
    data = bytearray(path.read_bytes())
    change(data, data.rfind(b"PK\5\6"), data.find(b"PK\1\2"))
    path.write_bytes(data)
    return path


def test_encrypted(tmp_path: Path) -> None:
    def change(data: bytearray, end: int, directory: int) -> None:
        data[directory + 8] |= 1

    with pytest.raises(CheckpointError, match=r"data\.pkl in it is encrypted"):
        read_checkpoint(patched(tmp_path, change))


def test_a_directory_that_lies(tmp_path: Path) -> None:
    def no_entry(data: bytearray, end: int, directory: int) -> None:
        data[directory] = 0

    def wrong_place(data: bytearray, end: int, directory: int) -> None:
        data[directory + 42] += 1

    def beyond(data: bytearray, end: int, directory: int) -> None:
        data[end + 16 : end + 20] = b"\xff\xff\xff\x7f"

    def many(data: bytearray, end: int, directory: int) -> None:
        data[end + 10 : end + 12] = b"\xff\xff"

    for change, words in (
        (no_entry, "directory is damaged"),
        (wrong_place, r"wrong about data\.pkl"),
        (beyond, "ends early"),
        (many, "directory is damaged"),
    ):
        with pytest.raises(CheckpointError, match=words):
            read_checkpoint(patched(tmp_path, change))


def test_entries_over_one_another(tmp_path: Path) -> None:
    """Many large storages at one place of the file would fill any memory."""
    data = np.zeros(100_000, np.float32)
    calls, storages = described({f"x{number}": data for number in range(50)})
    path = write_zip(tmp_path / "w.pt", pickled(calls), {"0": data} | {key: data[:1] for key in list(storages)[1:]})
    file = bytearray(path.read_bytes())
    place = first = file.find(b"PK\1\2")
    while file[place : place + 4] == b"PK\1\2":
        name_size = struct.unpack("<H", file[place + 28 : place + 30])[0]
        name = bytes(file[place + 46 : place + 46 + name_size])
        if name == b"w/data/0":
            first = place
        elif name.startswith(b"w/data/"):
            file[place + 16 : place + 28] = file[first + 16 : first + 28]
            file[place + 42 : place + 46] = file[first + 42 : first + 46]
        place += 46 + name_size
    path.write_bytes(file)
    with pytest.raises(CheckpointError, match="claim more bytes than the file has"):
        read_checkpoint(path)
