"""Label pictures of every kind give the same class map; whatever isn't explained is listed."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from segcam.classes import CAMVID
from segcam.errors import SourceError
from segcam.evaluation.labels import read_labels
from segcam.evaluation.mapping import IGNORED, UNKNOWN, LabelMapping, index_mapping

Save = Callable[..., Path]
PLAIN = index_mapping(None)


def with_ids(**more: int) -> LabelMapping:
    ids = np.full(256, UNKNOWN, np.uint8)
    for name, value in more.items():
        ids[int(name[1:])] = value
    return LabelMapping(None, ids, origin="test")


def picture(folder: Path, numbers: NDArray[np.integer], mode: str, **options: object) -> Path:
    image = Image.fromarray(numbers.astype(np.uint8)).convert("L")
    if mode == "P":
        image = Image.frombytes("P", image.size, image.tobytes())
        image.putpalette([value for i in range(256) for value in (255 - i, 7 * i % 256, 0)])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    path = folder / "x.png"
    path.write_bytes(buffer.getvalue())
    return path


def grey_png(numbers: NDArray[np.integer], bits: int) -> bytes:
    """A PNG of grey of few bits, by the PNG specification: Pillow writes none of 2 and 4."""
    height, width = numbers.shape
    lines = b""
    for row in numbers:
        word = "".join(f"{value:0{bits}b}" for value in row)
        word += "0" * (-len(word) % 8)
        lines += b"\0" + int(word, 2).to_bytes(len(word) // 8, "big")
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


@given(numbers=arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 253)))
def test_numbers_with_a_palette_are_numbers(
    tmp_path_factory: pytest.TempPathFactory, numbers: NDArray[np.uint8]
) -> None:
    path = picture(tmp_path_factory.mktemp("p"), numbers, "P", transparency=3)
    assert np.array_equal(read_labels(path, PLAIN), numbers)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("mode", ["P", "L"])
def test_few_bits(tmp_path: Path, bits: int, mode: str) -> None:
    numbers = np.arange(24).reshape(4, 6) % min(1 << bits, 24)
    if mode == "P":
        path = picture(tmp_path, numbers, mode, bits=bits)
    else:
        path = tmp_path / "x.png"
        path.write_bytes(grey_png(numbers, bits))
    assert path.read_bytes()[24] == bits
    assert np.array_equal(read_labels(path, PLAIN), numbers)


def test_sixteen_bits_hold_small_numbers(save: Save) -> None:
    numbers = np.array([[0, 3], [255, 7]], np.uint16)
    assert read_labels(save("x.png", numbers), PLAIN).tolist() == [[0, 3], [255, 7]]
    with pytest.raises(SourceError, match="nothing explains: 256, 24001"):
        read_labels(save("x.png", np.array([[256, 1, 24001]], np.uint16)), PLAIN)


@pytest.mark.parametrize("channels", [3, 4])
def test_colours(save: Save, channels: int) -> None:
    colors = np.array(CAMVID.colors, np.uint8)
    labels = np.arange(12).reshape(3, 4)
    rgb = np.dstack([colors[labels], np.full((3, 4), 255, np.uint8)])[:, :, :channels]
    found = read_labels(save("x.png", rgb), index_mapping(CAMVID))
    assert np.array_equal(found, np.where(labels == 11, IGNORED, labels))


def test_grey_in_three_channels_is_numbers_where_no_colour_is_known(save: Save) -> None:
    numbers = np.array([[0, 1], [2, 255]], np.uint8)
    assert np.array_equal(read_labels(save("x.png", np.dstack([numbers] * 3)), PLAIN), numbers)


def test_colours_nobody_explains(save: Save) -> None:
    rgb = np.array([[[128, 64, 128], [1, 2, 3]]], np.uint8)
    with pytest.raises(SourceError) as caught:
        read_labels(save("x.png", rgb), index_mapping(CAMVID))
    assert "colours that nothing explains: #010203" in caught.value.message
    with pytest.raises(SourceError, match="nothing says what its colours mean"):
        read_labels(save("x.png", rgb), PLAIN)
    ignoring = LabelMapping(None, PLAIN.ids, {(128, 64, 128): 3}, other_color=IGNORED)
    assert read_labels(save("x.png", rgb), ignoring).tolist() == [[3, IGNORED]]
    with pytest.raises(SourceError, match="16 bits"):
        read_labels(save("x.png", rgb.astype(np.uint16) * 257), index_mapping(CAMVID))


def test_numbers_nobody_explains_are_listed(save: Save) -> None:
    numbers = np.array([[3, 9, 250], [3, 17, 4]], np.uint8)
    path = save("x.png", numbers)
    with pytest.raises(SourceError) as caught:
        read_labels(path, with_ids(n3=0, n4=IGNORED))
    assert caught.value.message.startswith(f"{path}: ")
    assert "nothing explains: 9, 17, 250 (mapping: test)" in caught.value.message
    with pytest.raises(SourceError, match="and 38 more"):
        read_labels(save("x.png", np.arange(50, dtype=np.uint8)[None]), with_ids())


def test_broken_files_name_themselves(save: Save, tmp_path: Path) -> None:
    whole = save("x.png", np.arange(200, dtype=np.uint8).reshape(10, 20) % 5)
    for name, content in (
        ("empty.png", b""),
        ("cut.png", whole.read_bytes()[:60]),
        ("head.png", whole.read_bytes()[:20]),
        ("text.png", b"no picture"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(SourceError, match=name):
            read_labels(path, PLAIN)
    with pytest.raises(SourceError, match="cannot be read"):
        read_labels(tmp_path / "none.png", PLAIN)


def test_a_broken_palette_picture(tmp_path: Path) -> None:
    path = picture(tmp_path, np.arange(64).reshape(8, 8), "P")
    content = path.read_bytes()
    for end in range(29, len(content) - 12, 7):
        path.write_bytes(content[:end])
        with pytest.raises(SourceError, match=r"x\.png"):
            read_labels(path, PLAIN)


def test_floating_point_is_no_label(tmp_path: Path) -> None:
    import cv2

    path = tmp_path / "x.tiff"
    assert cv2.imwrite(str(path), np.zeros((3, 3), np.float32))
    with pytest.raises(SourceError, match="float32"):
        read_labels(path, PLAIN)
