"""Single pictures, folders, globs and numbered sequences."""

from __future__ import annotations

import os
from fractions import Fraction

import cv2
import numpy as np
import pytest

from segcam.errors import SourceError, UsageError
from segcam.sources.base import SourceOptions
from segcam.sources.factory import make_source
from segcam.sources.images import natural_key
from segcam.sources.stills import is_still, read_still


def picture(seed: int, size: tuple[int, int] = (20, 30)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def save(path, image) -> None:
    # Uncompressed: OpenCV before 4.13 packs float TIFFs with loss unless told otherwise. 1 is TIFF's COMPRESSION_NONE.
    options = [cv2.IMWRITE_TIFF_COMPRESSION, 1] if path.suffix == ".tiff" else []
    ok, data = cv2.imencode(path.suffix, image, options)
    assert ok
    data.tofile(path)


def test_one_image(tmp_path, read_all):
    path = tmp_path / "a b.png"
    save(path, picture(1))
    source = make_source(str(path))
    info = source.open()
    source.close()
    assert (info.width, info.height, info.frames, info.rate_hz, info.still) == (30, 20, 1, None, True)
    (frame,) = read_all(make_source(str(path)))
    assert (frame.format, frame.name, frame.time_base, frame.index, frame.pts) == (
        "bgr24",
        "a b.png",
        Fraction(1, 25),
        0,
        0,
    )
    assert np.array_equal(frame.planes[0], picture(1)) and frame.planes[0].flags.c_contiguous


def test_content_decides_not_the_name(tmp_path, read_all):
    path = tmp_path / "a.jpg"
    cv2.imencode(".png", picture(2))[1].tofile(path)
    assert np.array_equal(read_all(make_source(str(path)))[0].planes[0], picture(2))
    nameless = tmp_path / "picture"
    nameless.write_bytes(path.read_bytes())
    assert len(read_all(make_source(str(nameless)))) == 1


def test_16_bits_are_rounded_for_all_values(tmp_path):
    deep = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    path = tmp_path / "a.png"
    save(path, np.dstack([deep, deep.T, deep[::-1]]))
    got, complaint = read_still(path)
    want = np.rint(np.dstack([deep, deep.T, deep[::-1]]) / 257.0)
    assert got.dtype == np.uint8 and complaint == "" and np.array_equal(got, want)
    save(path, deep)
    assert np.array_equal(read_still(path)[0], np.rint(np.dstack([deep] * 3) / 257.0))


def test_gray_alpha_and_float(tmp_path):
    image = picture(3)
    for name, stored, wanted in (
        ("g.png", image[..., 0], np.dstack([image[..., 0]] * 3)),
        ("a.png", np.dstack([image, image[..., 1]]), image),
        ("f.tiff", image.astype(np.float32) / 255, image),
    ):
        save(tmp_path / name, stored)
        assert np.array_equal(read_still(tmp_path / name)[0], wanted), name


def test_exif_turn_is_applied(tmp_path):
    upright = cv2.resize(picture(4, (3, 4)), (64, 48), interpolation=cv2.INTER_NEAREST)
    stored = cv2.rotate(upright, cv2.ROTATE_90_COUNTERCLOCKWISE)
    data = cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    path = tmp_path / "a.jpg"
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:])
    got, _ = read_still(path)
    assert got.shape == (48, 64, 3) and np.abs(got.astype(int) - upright).mean() < 8


def test_damaged_jpeg_is_used_with_one_warning(tmp_path, read_all, capfd):
    path = tmp_path / "a.jpg"
    data = bytearray(cv2.imencode(".jpg", picture(5, (200, 300)))[1].tobytes())
    middle = len(data) // 2
    data[middle : middle + 64] = np.random.default_rng(0).integers(0, 255, 64, np.uint8).tobytes()
    path.write_bytes(data)
    warnings: list[str] = []
    got = read_all(make_source(str(path), SourceOptions(loops=3), warnings.append))
    assert len(got) == 3 and got[0].planes[0].shape == (200, 300, 3)
    assert len(warnings) == 1 and "a.jpg" in warnings[0] and "Corrupt JPEG data" in warnings[0]
    assert capfd.readouterr() == ("", "")


def test_words_of_others_on_stderr_are_passed_on(tmp_path, capfd, monkeypatch):
    path = tmp_path / "a.png"
    save(path, picture(1))
    decode = cv2.imdecode

    def noisy(*args):
        os.write(2, b"progress 50 %\nlibpng warning: odd chunk\n")
        return decode(*args)

    monkeypatch.setattr(cv2, "imdecode", noisy)
    assert read_still(path)[1] == "odd chunk"
    assert capfd.readouterr().err == "progress 50 %\n"


def test_single_bad_image_is_an_error(tmp_path, capfd):
    path = tmp_path / "a.png"
    path.write_bytes(cv2.imencode(".png", picture(1, (200, 300)))[1].tobytes()[:3000])
    with pytest.raises(SourceError, match=r"a\.png: not a picture that can be decoded"):
        make_source(str(path)).open()
    assert capfd.readouterr() == ("", "")


def test_folder_in_natural_order_without_the_rest(tmp_path, read_all):
    for number in (10, 2, 1):
        save(tmp_path / f"shot{number}.PNG".lower(), picture(number))
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "deeper.png").mkdir()
    source = make_source(str(tmp_path))
    assert source.open().frames == 3
    source.close()
    got = read_all(make_source(str(tmp_path)))
    assert [frame.name for frame in got] == ["shot1.png", "shot2.png", "shot10.png"]
    assert [(frame.index, frame.pts) for frame in got] == [(0, 0), (1, 1), (2, 2)]
    assert np.array_equal(got[2].planes[0], picture(10))


def test_natural_order():
    names = ["a10", "a9", "A1", "b", "a", "10", "9", "a1b2", "a1b10"]
    assert sorted(names, key=natural_key) == ["9", "10", "a", "A1", "a1b2", "a1b10", "a9", "a10", "b"]


def test_bad_files_of_a_folder_are_left_out(tmp_path, read_all, capfd):
    save(tmp_path / "1.png", picture(1))
    (tmp_path / "2.png").write_bytes(b"not a png")
    (tmp_path / "3.png").write_bytes(b"")
    save(tmp_path / "4.png", picture(4))
    warnings: list[str] = []
    got = read_all(make_source(str(tmp_path), SourceOptions(loops=2), warnings.append))
    assert [frame.name for frame in got] == ["1.png", "4.png"] * 2
    assert [frame.index for frame in got] == [0, 1, 2, 3] and [frame.pts for frame in got] == [0, 3, 4, 7]
    assert len(warnings) == 2 and "2.png" in warnings[0] and "3.png: the file is empty" in warnings[1]
    assert capfd.readouterr() == ("", "")


def test_a_folder_of_nothing_usable(tmp_path):
    with pytest.raises(SourceError, match="no images in this folder"):
        make_source(str(tmp_path))
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(b"bad")
    with pytest.raises(SourceError, match="none of its 2 images can be decoded"):
        make_source(str(tmp_path), SourceOptions(loops=0), lambda _: None).open()


def test_every_frames_and_endless_loop(tmp_path, read_all):
    for number in range(5):
        save(tmp_path / f"{number}.png", picture(number))
    options = SourceOptions(every=2, frames=7, loops=0)
    got = read_all(make_source(str(tmp_path), options))
    assert [frame.name for frame in got] == [f"{n}.png" for n in (0, 2, 4, 0, 2, 4, 0)]
    assert [frame.pts for frame in got] == [0, 2, 4, 5, 7, 9, 10]


def test_glob(tmp_path, read_all):
    for name in ("a1.png", "a2.jpg", "b1.png", "a3.txt"):
        save(tmp_path / name, picture(1)) if name[-3:] != "txt" else (tmp_path / name).write_text("x")
    assert [f.name for f in read_all(make_source(str(tmp_path / "a*")))] == ["a1.png", "a2.jpg"]
    assert [f.name for f in read_all(make_source(str(tmp_path / "[ab]1.png")))] == ["a1.png", "b1.png"]
    with pytest.raises(SourceError, match="nothing matches"):
        make_source(str(tmp_path / "c*.png"))
    with pytest.raises(SourceError, match="1 files match, none is an image"):
        make_source(str(tmp_path / "*.txt"))


def test_a_file_with_a_pattern_for_a_name_is_that_file(tmp_path, read_all):
    for name in ("a[1].png", "a1.png", "f_%03d.png", "f_001.png"):
        save(tmp_path / name, picture(len(name)))
    assert [f.name for f in read_all(make_source(str(tmp_path / "a[1].png")))] == ["a[1].png"]
    assert [f.name for f in read_all(make_source(str(tmp_path / "f_%03d.png")))] == ["f_%03d.png"]


def test_numbered_pattern(tmp_path, read_all):
    for number in (7, 8, 11, 12):
        save(tmp_path / f"f_{number:05d}.png", picture(number))
    for name in ("f_9.png", "f_000010.png", "f_00009.jpg", "g_00009.png"):
        save(tmp_path / name, picture(0))
    warnings: list[str] = []
    spec = str(tmp_path / "f_%05d.png")
    source = make_source(spec, warn=warnings.append)
    info = source.open()
    source.close()
    assert (info.rate_hz, info.frames, info.still) == (25, 4, False)
    assert len(warnings) == 1 and "2 numbers between 7 and 12 have no file, the first is 9" in warnings[0]
    names = [f.name for f in read_all(make_source(spec, SourceOptions(start_s=0.04), lambda _: None))]
    assert names == ["f_00008.png", "f_00011.png", "f_00012.png"]
    assert [f.name for f in read_all(make_source(str(tmp_path / "f_%d.png")))] == ["f_9.png"]
    with pytest.raises(SourceError, match="behind the end"):
        make_source(spec, SourceOptions(start_s=0.16), lambda _: None).open()
    with pytest.raises(SourceError, match="no file has a name of that form"):
        make_source(str(tmp_path / "h_%d.png"))


def test_stills_have_no_time_to_start_at(tmp_path):
    save(tmp_path / "a.png", picture(1))
    with pytest.raises(UsageError, match="--start"):
        make_source(str(tmp_path), SourceOptions(start_s=1))


def test_animations_are_videos(make_video, read_all, tmp_path):
    frames = [picture(n, (48, 64)) for n in range(3)]
    made = make_video("a.apng", [(image,) for image in frames], codec="apng", pix_fmt="rgb24")
    path = made.rename(tmp_path / "moving.png")
    assert not is_still(path.read_bytes()[:4096])
    got = read_all(make_source(str(path)))
    assert len(got) == 3 and np.array_equal(got[1].planes[0], frames[1][..., ::-1])
    animated = b"RIFF\0\0\0\0WEBPVP8X\n\0\0\0\x02\0\0\0" + bytes(40)
    (tmp_path / "a.webp").write_bytes(animated)
    with pytest.raises(SourceError, match="animated WebP"):
        make_source(str(tmp_path / "a.webp")).open()
