"""A small network for plans, what it gives in float32, and one run of a plan of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from segcam.engines.plan import PlanEngine
from segcam.kernels.cuda.driver import Driver


def convs(
    kind: int = TensorProto.FLOAT,
    size: tuple[int, int] = (8, 12),
    gain: float = 1.0,
    fed: int | None = None,
    dialect: str = "",
) -> onnx.ModelProto:
    """Picture, 1x1 convolution times ``gain``, 1x1 convolution divided by it, Resize to twice the size as the output.

    ``fed`` is another type of the input, which a Cast then makes ``kind``; ``dialect`` "bytes" feeds NHWC.
    """
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    rng = np.random.default_rng(3)
    first = (rng.normal(size=(8, 3, 1, 1)) * gain).astype(dtype)
    second = (rng.normal(size=(4, 8, 1, 1)) / gain).astype(dtype)
    weights = [numpy_helper.from_array(first, "w1"), numpy_helper.from_array(second, "w2")]
    weights.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"))
    nodes, last = [], "x"
    if fed is not None:
        nodes.append(helper.make_node("Cast", [last], ["cast"], "cast", to=kind))
        last = "cast"
    if dialect == "bytes":
        nodes.append(helper.make_node("Transpose", [last], ["planes"], "planes", perm=[0, 3, 1, 2]))
        last = "planes"
    nodes += [
        helper.make_node("Conv", [last, "w1"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Conv", ["b", "w2"], ["c"], "second"),
        helper.make_node("Resize", ["c", "", "scales"], ["y"], "resize", mode="linear"),
    ]
    shape = [1, *size, 3] if dialect == "bytes" else [1, 3, *size]
    given = helper.make_tensor_value_info("x", fed or kind, shape)
    made = helper.make_tensor_value_info("y", kind, [1, 4, 2 * size[0], 2 * size[1]])
    graph = helper.make_graph(nodes, "convs", [given], [made], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def pictures(count: int = 2, size: tuple[int, int] = (8, 12)) -> list[dict[str, Any]]:
    rng = np.random.default_rng(5)
    return [{"x": rng.random((1, 3, *size), np.float32)} for _ in range(count)]


def run_plan(data: bytes, driver: Driver, picture: np.ndarray) -> np.ndarray:
    """One run of a plan, its buffers as large as it says."""
    plan = PlanEngine(data, driver, "x.plan")
    with driver.current():
        execution = plan.execution(plan.input.shape)
        stream = driver.stream()
        room = driver.allocate(execution.input_bytes), driver.allocate(execution.output_bytes)
        driver.upload(room[0].address, np.ascontiguousarray(picture), stream)
        execution.enqueue(stream, room[0].address, room[1].address)
        out = np.empty(execution.output_bytes, np.uint8)
        driver.download(out, room[1].address, stream)
        stream.synchronize()
        shape, dtype = execution.output_shape, plan.output.dtype
        execution.close()
        plan.close()
        for held in (*room, stream):
            held.close()
    return out.view(dtype).reshape(shape)


def reference(model: onnx.ModelProto, feed: dict[str, Any]) -> np.ndarray:
    """In fp32 by ONNX Runtime."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feed)[0]
