"""The Python API: pictures and streams in, class maps out, red first everywhere."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import segcam
from segcam.classes import CAMVID, ClassTable

Brightest = Callable[..., Path]
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.fixture
def network(brightest: Brightest) -> Iterator[segcam.Segmenter]:
    with segcam.Segmenter(brightest(), runtime="onnxruntime", precision="fp32", threads=1) as made:
        yield made


def thirds(height: int = 24, width: int = 60) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A picture (H, W, 3) RGB of a red, a green and a blue third, and its class map."""
    labels = np.repeat(np.arange(3), width // 3)[None].repeat(height, axis=0).astype(np.uint8)
    return np.array([RED, GREEN, BLUE], np.uint8)[labels], labels


def video(path: Path, frames: int, codec: str = "libx264rgb", pix_fmt: str = "rgb24") -> Path:
    """``frames`` frames, lossless: red, green, blue, red, ..."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"crf": "0", "qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 60, 24, pix_fmt
        for index in range(frames):
            picture = np.full((24, 60, 3), (RED, GREEN, BLUE)[index % 3], np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=pix_fmt)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("color", ["RGB", "BGR"])
@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_red_is_red_however_it_comes(brightest: Brightest, tmp_path: Path, color: str, runtime: str) -> None:
    picture = np.full((24, 60, 3), RED, np.uint8)
    Image.fromarray(picture).save(tmp_path / "red.png")
    Image.fromarray(picture).save(tmp_path / "red.jpg", quality=95)
    assert cv2.imwrite(str(tmp_path / "red.bmp"), picture[..., ::-1])
    clip = video(tmp_path / "clip.mp4", 4, "libx264", "yuv420p")
    with segcam.Segmenter(brightest(color=color), runtime=runtime, precision="fp32") as network:  # type: ignore[arg-type]
        for given in (
            picture,
            Image.fromarray(picture),
            tmp_path / "red.png",
            str(tmp_path / "red.jpg"),
            tmp_path / "red.bmp",
        ):
            labels = network.predict(given)
            assert labels.shape == (24, 60)
            assert labels.dtype == np.uint8
            assert not labels.any(), f"{type(given)} is not red"
        found = [int(np.bincount(s.labels.ravel()).argmax()) for s in network.stream(clip)]
        assert found == [0, 1, 2, 0]
        assert [int(s.labels[5, 5]) for s in network.stream(tmp_path / "red.png")] == [0]


def test_a_picture_and_its_class_map(network: segcam.Segmenter) -> None:
    picture, labels = thirds()
    found = network.predict(picture)
    # The network sees 24x40: columns within a pixel of a boundary may go either way.
    clear = np.ones(60, bool)
    clear[[18, 19, 20, 21, 38, 39, 40, 41]] = False
    np.testing.assert_array_equal(found[:, clear], labels[:, clear])
    assert network.classes.names == ("red", "green", "blue")
    assert network.info.input_hw == (24, 40)


def test_lists_keep_their_order_and_sizes(network: segcam.Segmenter) -> None:
    pictures = [np.full((10 + i, 20 + i, 3), (RED, GREEN, BLUE)[i % 3], np.uint8) for i in range(11)]
    found = network.predict(pictures)
    assert isinstance(found, list)
    assert [f.shape for f in found] == [p.shape[:2] for p in pictures]
    assert [int(f.max()) for f in found] == [i % 3 for i in range(11)]
    assert [int(f.min()) for f in network.predict(tuple(pictures))] == [i % 3 for i in range(11)]
    assert network.predict([]) == []


def test_grey_rgba_and_views(network: segcam.Segmenter) -> None:
    picture, _ = thirds()
    want = network.predict(picture)
    alpha = np.random.default_rng(0).integers(0, 256, (24, 60, 1), np.uint8)
    np.testing.assert_array_equal(network.predict(np.concatenate([picture, alpha], axis=2)), want)
    upside_down = picture[:, ::-1]
    np.testing.assert_array_equal(network.predict(upside_down), network.predict(upside_down.copy()))
    picture.flags.writeable = False
    np.testing.assert_array_equal(network.predict(picture), want)
    grey = np.random.default_rng(0).integers(0, 256, (13, 9), np.uint8)
    as_rgb = network.predict(np.repeat(grey[..., None], 3, axis=2))
    np.testing.assert_array_equal(network.predict(grey), as_rgb)
    np.testing.assert_array_equal(network.predict(grey[..., None]), as_rgb)
    assert network.predict(np.zeros((1, 1), np.uint8)).shape == (1, 1)


def test_pil_pictures_of_every_mode(network: segcam.Segmenter) -> None:
    picture, _ = thirds()
    rgb = Image.fromarray(picture)
    want = network.predict(picture)
    for mode in ("RGB", "RGBA", "P", "CMYK", "YCbCr", "RGBX"):
        np.testing.assert_array_equal(network.predict(rgb.convert(mode)), want, err_msg=mode)
    for mode in ("L", "LA", "1", "F", "I"):
        assert network.predict(rgb.convert(mode)).shape == (24, 60)
    deep = Image.fromarray(np.full((8, 8), 40000, np.uint16))
    assert network.predict(deep).shape == (8, 8)


def test_a_pil_picture_is_turned_as_its_exif_says(network: segcam.Segmenter, tmp_path: Path) -> None:
    picture, _ = thirds()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture).save(tmp_path / "turned.jpg", exif=exif, quality=100, subsampling=0)
    with Image.open(tmp_path / "turned.jpg") as opened:
        as_pil = network.predict(opened)
    assert as_pil.shape == (60, 24)
    assert as_pil[[5, 30, 55], 12].tolist() == [0, 1, 2]
    as_file = network.predict(tmp_path / "turned.jpg")
    assert as_file.shape == (60, 24)
    assert (as_file == as_pil).mean() > 0.95


def test_class_maps_of_other_sizes(network: segcam.Segmenter) -> None:
    picture, _ = thirds()
    assert network.predict(picture, size="network").shape == (24, 40)
    found = network.predict(picture, size=(12, 30))
    assert found.shape == (12, 30)
    assert found[6, [3, 15, 27]].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4, 3), np.uint16), "uint16"),
        (np.zeros((4, 4, 2), np.uint8), r"\(4, 4, 2\)"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"\(1, 4, 4, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), "empty"),
        (np.zeros(5, np.uint8), r"\(5,\)"),
        (None, "object"),
        (3, "int"),
    ],
)
def test_what_is_no_picture(network: segcam.Segmenter, given: object, words: str) -> None:
    with pytest.raises(segcam.SegcamError, match=words) as caught:
        network.predict(given)  # type: ignore[call-overload]
    assert caught.value.hint
    assert network.predict(np.zeros((4, 4, 3), np.uint8)).shape == (4, 4), "still usable"


def test_files_that_are_no_pictures(network: segcam.Segmenter, tmp_path: Path) -> None:
    with pytest.raises(segcam.SegcamError, match=r"missing\.png"):
        network.predict(tmp_path / "missing.png")
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(segcam.SegcamError, match=r"text\.png"):
        network.predict(tmp_path / "text.png")
    with pytest.raises(segcam.SegcamError, match="not an image file") as caught:
        network.predict(video(tmp_path / "clip.mp4", 2))
    assert "stream()" in caught.value.hint
    with pytest.raises(segcam.SegcamError, match=r"missing\.mp4"):
        next(iter(network.stream(tmp_path / "missing.mp4")))
    assert network.predict(np.zeros((4, 4, 3), np.uint8)).shape == (4, 4), "still usable"


def test_a_stream_gives_every_frame_once_in_order(network: segcam.Segmenter, tmp_path: Path) -> None:
    clip = video(tmp_path / "clip.mkv", 17)
    found = list(network.stream(clip))
    assert [s.frame.index for s in found] == list(range(17))
    assert [int(s.labels[3, 3]) for s in found] == [i % 3 for i in range(17)]
    assert all(s.overlay is not None and s.overlay.bgr().shape == (24, 60, 3) for s in found)
    for segmentation in found:
        assert segmentation.counts[segmentation.frame.index % 3] == 24 * 60
        assert segmentation.shares.sum() == pytest.approx(1)
    assert len({s.labels.ctypes.data for s in found}) == 17, "each result owns its arrays"
    assert [s.overlay for s in network.stream(clip, overlay=False, frames=2)] == [None, None]
    assert [int(s.labels[0, 0]) for s in network.stream(str(clip), every=3, frames=4)] == [0, 0, 0, 0]
    assert len(list(network.stream(clip, loops=2))) == 34
    assert len(list(network.stream(clip, start_s=0.4))) == 7


def test_a_stream_and_a_picture_do_not_mix(network: segcam.Segmenter, tmp_path: Path) -> None:
    """They would share the network's inputs."""
    clip = video(tmp_path / "clip.mkv", 9)
    picture, _ = thirds()
    stream = network.stream(clip)
    next(iter(stream))
    with pytest.raises(segcam.SegcamError, match="not finished"):
        network.predict(picture)
    with pytest.raises(segcam.SegcamError, match="not finished"):
        next(iter(network.stream(clip)))
    stream.close()  # type: ignore[attr-defined]  # a generator
    assert network.predict(picture).shape == (24, 60)
    for _ in network.stream(clip):
        break
    assert network.predict(picture).shape == (24, 60)
    assert len(list(network.stream(clip))) == 9


def test_a_stream_that_breaks_off_gives_what_was_good(network: segcam.Segmenter, tmp_path: Path) -> None:
    for i in range(4):
        Image.fromarray(np.full((8, 8, 3), RED, np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    got = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for segmentation in network.stream(tmp_path):
                got.append(int(segmentation.labels[0, 0]))
        except segcam.SegcamError as error:
            assert "2.png" in str(error)
    assert len(got) >= 2
    assert network.predict(np.zeros((4, 4, 3), np.uint8)).shape == (4, 4)


def test_closing(brightest: Brightest) -> None:
    with segcam.Segmenter(brightest(), runtime="onnxruntime") as network:
        network.predict(np.zeros((4, 4, 3), np.uint8))
    network.close()
    with pytest.raises(segcam.SegcamError, match="not active"):
        network.predict(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(segcam.SegcamError, match="not active"):
        _ = network.info


def test_arguments_are_checked(brightest: Brightest, tmp_path: Path) -> None:
    path = brightest()
    for arguments, words in (
        ({"alpha": 1.5}, "alpha"),
        ({"runtime": "tensorflow"}, "runtime"),
        ({"precision": "int8"}, "precision"),
        ({"classes": "purple"}, "purple"),
        ({"palette": "nosuch"}, "nosuch"),
        ({"size": (32, 32)}, "32x32"),
        ({"spec": tmp_path / "no.json"}, "no.json"),
        ({"threads": -1}, "threads"),
    ):
        with pytest.raises(segcam.SegcamError, match=words):
            segcam.Segmenter(path, **arguments)  # type: ignore[arg-type]
    with pytest.raises(segcam.SegcamError, match="no file"):
        segcam.Segmenter(tmp_path / "missing.onnx")
    with segcam.Segmenter(path, runtime="onnxruntime") as network:
        for arguments in ({"every": 0}, {"frames": -1}, {"loops": -1}, {"start_s": -1.0}, {"start_s": float("nan")}):
            with pytest.raises(segcam.SegcamError, match=next(iter(arguments)).removesuffix("s").removesuffix("_")):
                next(iter(network.stream("synthetic", **arguments)))  # type: ignore[arg-type]


def test_overlays_follow_classes_alpha_and_palette(brightest: Brightest, tmp_path: Path) -> None:
    Image.fromarray(thirds()[0] // 2).save(tmp_path / "p.png")
    palette = tmp_path / "palette.txt"
    palette.write_text("10 20 30\n40 50 60\n70 80 90\n")
    with segcam.Segmenter(
        brightest(), runtime="onnxruntime", classes="red,blue", alpha=1.0, palette=str(palette)
    ) as network:
        (found,) = network.stream(tmp_path / "p.png")
    assert found.overlay is not None
    shown = found.overlay.bgr()[12, [5, 30, 55], ::-1].astype(int)
    np.testing.assert_allclose(shown, [(10, 20, 30), (0, 127, 0), (70, 80, 90)], atol=2)


def test_a_missing_spec_is_a_warning(brightest: Brightest) -> None:
    with (
        pytest.warns(UserWarning, match="ImageNet"),
        segcam.Segmenter(brightest(spec=""), runtime="onnxruntime") as net,
    ):
        assert net.classes.names == ("class 0", "class 1", "class 2")


def test_colorize() -> None:
    labels = np.array([[0, 13], [18, 255]], np.uint8)
    colors = segcam.colorize(labels)
    assert colors.dtype == np.uint8
    assert colors.tolist() == [[[128, 64, 128], [0, 0, 142]], [[119, 11, 32], [0, 0, 0]]]
    for other in (np.int64, np.int16, np.uint16):
        np.testing.assert_array_equal(segcam.colorize(labels.astype(other)), colors)
    assert segcam.colorize(np.array([[-1, 300, 19]])).max() == 0
    assert segcam.colorize(labels, "voc")[0, 0].tolist() == [0, 0, 0]
    assert segcam.colorize(labels, CAMVID)[0, 0].tolist() == [128, 128, 128]
    with pytest.raises(segcam.SegcamError, match="no class table 'city'"):
        segcam.colorize(labels, "city")
    with pytest.raises(segcam.SegcamError, match="whole numbers"):
        segcam.colorize(labels.astype(float))  # type: ignore[arg-type]
    with pytest.raises(segcam.SegcamError, match=r"\(2, 2, 1\)"):
        segcam.colorize(labels[..., None])


def test_blend() -> None:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (9, 11, 3), np.uint8)
    labels = random.integers(0, 19, (9, 11), np.uint8)
    labels[0, :3] = 255, 19, 200
    for alpha in (0.0, 0.3, 0.5, 1.0):
        mixed = segcam.blend(image, labels, alpha)
        want = image * (1 - alpha) + segcam.colorize(labels) * alpha
        want[0, :3] = image[0, :3]
        assert mixed.dtype == np.uint8
        assert np.abs(mixed - want).max() <= 0.5 + 1e-3
    np.testing.assert_array_equal(segcam.blend(image, labels, 0.0), image)
    void = ClassTable(("a", "b"), (RED, BLUE), frozenset({1}))
    found = segcam.blend(np.zeros((1, 2, 3), np.uint8), np.array([[0, 1]]), 1.0, void)
    assert found.tolist() == [[[255, 0, 0], [0, 0, 0]]], "void stays clear"


def test_blend_refuses_what_does_not_fit() -> None:
    image, labels = np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), np.uint8)
    for picture, ids in (
        (image[:3], labels), (image[..., 0], labels), (image[..., :2], labels), (image, labels[None]),
        (image, labels.T),
    ):  # fmt: skip
        with pytest.raises(segcam.SegcamError, match="don't belong together"):
            segcam.blend(picture, ids)
    for alpha in (-0.1, 1.1, float("nan")):
        with pytest.raises(segcam.SegcamError, match="alpha"):
            segcam.blend(image, labels, alpha)
    with pytest.raises(segcam.SegcamError, match="float64"):
        segcam.blend(image.astype(float), labels)  # type: ignore[arg-type]
    with pytest.raises(segcam.SegcamError, match="no class table"):
        segcam.blend(image, labels, 0.5, "city")


def test_public_names() -> None:
    assert set(segcam.__all__) <= set(dir(segcam))
    for name in segcam.__all__:
        assert getattr(segcam, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = segcam.nothing  # type: ignore[attr-defined]


def test_pictures_in_memory_need_no_file(network: segcam.Segmenter) -> None:
    stored = io.BytesIO()
    Image.fromarray(thirds()[0]).save(stored, "PNG")
    stored.seek(0)
    assert network.predict(Image.open(stored))[12, [5, 30, 55]].tolist() == [0, 1, 2]
