"""A network that is made on the spot, videos in every condition, and the command in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

SPEC = {
    "segcam_spec": 1,
    "input": {"color": "RGB", "mean": [0, 0, 0], "std": [255, 255, 255]},
    "output": {"kind": "logits"},
    "classes": [
        {"name": "road", "color": [128, 64, 128]},
        {"name": "sky", "color": [70, 130, 180]},
        {"name": "car", "color": [0, 0, 142]},
    ],
}


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """128x64 in; its three scores are the red, green and blue of 4x4 means, enlarged: a class names the colour."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    graph = helper.make_graph(
        [
            helper.make_node("AveragePool", ["input"], ["mean"], kernel_shape=[4, 4], strides=[4, 4]),
            helper.make_node("Conv", ["mean", "weights"], ["scores"]),
            helper.make_node(
                "Resize", ["scores", "", "scales"], ["out"], mode="linear", coordinate_transformation_mode="half_pixel"
            ),
        ],
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 64, 128])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 3, 64, 128])],
        [
            numpy_helper.from_array(np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1), "weights"),
            numpy_helper.from_array(np.array([1, 1, 4, 4], np.float32), "scales"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    path.with_name("tiny.onnx.json").write_text(json.dumps(SPEC))
    return path


def scene(number: int, width: int, height: int) -> np.ndarray:
    """(H, W, 3) RGB: three coloured stripes that move with ``number``, with some texture."""
    columns = (np.arange(width) + 5 * number) * 6 // max(6, width) % 3
    picture = np.full((height, width, 3), 60, np.uint8)
    for channel in range(3):
        picture[:, columns == channel, channel] = 200
    picture[: height // 4] //= 2
    picture[height // 2 :: 2] += 9
    return picture


@pytest.fixture
def make_clip(tmp_path: Path) -> Callable[..., Path]:
    """Writes ``count`` scenes as a video. ``pts`` counts ``time_base``; ``sizes`` gives each frame another size."""
    import av

    def write(
        name: str = "clip.mp4",
        count: int = 12,
        *,
        size: tuple[int, int] = (96, 64),
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        rate: int = 25,
        pts: Sequence[int] | None = None,
        time_base: Fraction | None = None,
        container: dict[str, str] | None = None,
        options: dict[str, str] | None = None,
    ) -> Path:
        path = tmp_path / name
        base = time_base or Fraction(1, rate)
        with av.open(str(path), "w", options=container or {}) as out:
            stream: Any = out.add_stream(codec, rate=rate, options=options or {})
            stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
            stream.codec_context.time_base = base
            for number in range(count):
                frame = av.VideoFrame.from_ndarray(scene(number, *size), format="rgb24").reformat(format=pix_fmt)
                frame.pts, frame.time_base = (pts[number] if pts else number), base
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        return path

    return write


@dataclass(frozen=True)
class Video:
    """A video as read back: times in seconds, RGB pictures, and what the stream says of itself."""

    times_s: list[Fraction]
    pictures: list[np.ndarray]
    codec: str
    size: tuple[int, int]
    announced: int


@pytest.fixture
def read_video() -> Callable[[Path], Video]:
    import av

    def read(path: Path) -> Video:
        times, pictures = [], []
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            for picture in container.decode(stream):
                assert picture.pts is not None and picture.time_base is not None
                times.append(Fraction(picture.pts * picture.time_base.numerator, picture.time_base.denominator))
                pictures.append(picture.to_ndarray(format="rgb24"))
            codec = stream.codec_context
            return Video(times, pictures, codec.name, (codec.width, codec.height), stream.frames)

    return read


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def segcam_here(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """``segcam --engine MODEL *arguments`` in this process (a second quicker), in ``tmp_path``, without a display.

    An exception that the command would show with a traceback goes through to the test.
    """
    from segcam.cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)

    def run(*arguments: object) -> Done:
        capfd.readouterr()
        code = main(["--engine", str(model), "--precision", "fp32", *map(str, arguments)])
        out, err = capfd.readouterr()
        return Done(code, out, err)

    return run


@pytest.fixture
def gpu(
    tensorrt_face: Any, brightest: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> SimpleNamespace:
    """A plan, a clip of ten pictures, and the decoder of a stand-in GPU; ``run`` runs segcam in ``tmp_path``."""
    import standin_nvdec
    from lossless import clip
    from plans import plan_of

    from segcam.cli.main import main

    plan = plan_of(tensorrt_face.trt, brightest())
    video = clip(tmp_path / "clip.mp4")
    nvdec = standin_nvdec.install(monkeypatch, tensorrt_face.machine)
    monkeypatch.chdir(tmp_path)

    def run(*more: str, source: Path = video) -> int:
        return main(["--engine", str(plan), "--source", str(source), *more])

    return SimpleNamespace(nvdec=nvdec, run=run, machine=tensorrt_face.machine)
