"""What tests of every folder share."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gpu_faces import parametrize as pytest_generate_tests  # noqa: F401
from gpu_faces import tensorrt_face  # noqa: F401
from hypothesis import settings
from pipeline_fakes import bench, files  # noqa: F401  # fixtures are found by being here
from zoo_network import checkpoint_bytes, own_zoo  # noqa: F401
from zoo_server import own_cache, puller, server, tiny  # noqa: F401  # likewise

REPOSITORY = Path(__file__).resolve().parents[1]

# A shared machine may stall for seconds: no deadlines. CI takes the same examples each time.
settings.register_profile("segcam", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("segcam")

# What is started in the background of a script has Ctrl-C ignored, and tests that send one would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

RunSegcam = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real footage, networks and broken files, which are never part of the repository."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("shared test data is not beside the checkout")
    return folder


@pytest.fixture
def run_segcam(tmp_path: Path) -> RunSegcam:
    """``run_segcam(*arguments, cwd=tmp_path, env=None, timeout_s=120, python_flags=())``: ``python -m segcam`` in a
    process of its own, without a display. ``env`` is added to the environment. Returns the CompletedProcess, as text.
    """

    def run(
        *arguments: object,
        cwd: Path = tmp_path,
        env: dict[str, str] | None = None,
        timeout_s: float = 120.0,
        python_flags: tuple[str, ...] = (),
    ) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")}
        environment["PYTHONPATH"] = str(REPOSITORY / "app")
        environment["PYTHONIOENCODING"] = "utf-8"
        environment.update(env or {})
        return subprocess.run(
            [sys.executable, *python_flags, "-m", "segcam", *map(str, arguments)],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=timeout_s,
            check=False,
        )

    return run


@pytest.fixture(autouse=True)
def own_garbage() -> Iterator[None]:
    """Collecting garbage looks at what the test has made and at nothing else: the modules and caches of a whole run
    take most of a second each time, and some tests do it after each of many faults."""
    gc.freeze()
    yield
    gc.collect()
    gc.unfreeze()


BRIGHTEST_SPEC: dict[str, Any] = {
    "segcam_spec": 1,
    "input": {"color": "RGB", "mean": [0, 0, 0], "std": [1, 1, 1]},
    "output": {"kind": "logits"},
    "classes": [
        {"name": "red", "color": [255, 0, 0]},
        {"name": "green", "color": [0, 255, 0]},
        {"name": "blue", "color": [0, 0, 255]},
    ],
}


@pytest.fixture
def brightest(tmp_path: Path) -> Callable[..., Path]:
    """``brightest(output="scores_nchw", input_hw=(24, 40), layout="NCHW", dtype="float32", color="RGB", name="net",
    spec="metadata", resize="stretch", grid=1, batch=1)``: a network whose class is the brightest channel.

    ``output`` is scores_nchw, scores_nhwc, or int64|int32|uint8|float _nhw|_n1hw|_nhw1|_hw labels; ``spec`` goes to the
    metadata, to the file "beside", or nowhere (""). ``grid`` is the stride of the scores.
    """

    def make(
        output: str = "scores_nchw",
        input_hw: tuple[int, int] = (24, 40),
        layout: str = "NCHW",
        dtype: str = "float32",
        color: str = "RGB",
        name: str = "net",
        spec: str = "metadata",
        resize: str = "stretch",
        grid: int = 1,
        batch: int = 1,
    ) -> Path:
        import json

        import numpy as np
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        types = {"float32": 1, "float16": 10, "uint8": 2, "int64": 7, "int32": 6, "float": 1, "double": 11}
        channels = np.eye(3, dtype=np.float32)
        if color == "BGR":
            channels = channels[::-1].copy()
        weight = numpy_helper.from_array((channels / 255)[:, :, None, None], "w")
        nodes = []
        last = "picture"
        if dtype != "float32":
            nodes.append(helper.make_node("Cast", [last], ["f"], to=TensorProto.FLOAT))
            last = "f"
        if layout == "NHWC":
            nodes.append(helper.make_node("Transpose", [last], ["p"], perm=[0, 3, 1, 2]))
            last = "p"
        nodes.append(helper.make_node("Conv", [last, "w"], ["s"], strides=[grid, grid]))
        last, weights = "s", [weight]
        kind, _, shape = output.rpartition("_")
        if kind == "scores":
            if shape == "nhwc":
                nodes.append(helper.make_node("Transpose", [last], ["t"], perm=[0, 2, 3, 1]))
                last = "t"
            kind = "float32"
        else:
            nodes.append(helper.make_node("ArgMax", [last], ["a"], axis=1, keepdims=int(shape == "n1hw")))
            nodes.append(helper.make_node("Cast", ["a"], ["i"], to=types[kind]))
            last = "i"
            if shape in ("nhw1", "hw"):
                weights.append(numpy_helper.from_array(np.array([-1 if shape == "nhw1" else 0]), "axes"))
                op = "Unsqueeze" if shape == "nhw1" else "Squeeze"
                nodes.append(helper.make_node(op, [last, "axes"], ["u"]))
                last = "u"
        dims = [batch, 3, *input_hw] if layout == "NCHW" else [batch, *input_hw, 3]
        graph = helper.make_graph(
            nodes,
            "brightest",
            [helper.make_tensor_value_info("picture", types[dtype], dims)],
            [helper.make_tensor_value_info(last, types[kind], None)],
            weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        document = json.loads(json.dumps(BRIGHTEST_SPEC))
        document["input"] |= {"color": color, "resize": resize}
        if not output.startswith("scores"):
            document["output"]["kind"] = "labels"
        path = tmp_path / f"{name}.onnx"
        if spec == "metadata":
            entry = model.metadata_props.add()
            entry.key, entry.value = "segcam_spec", json.dumps(document)
        elif spec == "beside":
            path.with_name(path.name + ".json").write_text(json.dumps(document), encoding="utf-8")
        onnx.save(model, path)
        return path

    return make
