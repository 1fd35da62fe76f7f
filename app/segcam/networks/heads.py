"""How a network ends: coarse scores, scores at the picture's size, or the class map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import onnx

Head = Literal["scores", "logits", "labels"]

#: The names of input and output in the originals' own exports, by the network; those of Open Model Zoo.
_NAMES = {"PSPNet": ("input.1", "segmentation_map")}
_OTHER_NAMES = ("input0", "output0")


def add_head(model: onnx.ModelProto, head: Head, network: str, size: tuple[int, int]) -> None:
    """Give ``model``, which ends at N x C x h x w float32 scores, the ``head`` asked for, in place.

    ``scores``: none; Segcam enlarges and names. ``logits``: the original's end, N x C x H x W float32 scores at
    ``size`` (height, width) of the picture, enlarged bilinearly at half-pixel centres. ``labels``: the class map of
    these, N x 1 x H x W int64, the lowest index where scores are equal. ``network`` is one of ``architecture.MODELS``:
    the last two rename input and output as its original's export does.
    """
    from onnx import TensorProto, helper, numpy_helper

    if head == "scores":
        return
    graph = model.graph
    picture, result = _NAMES.get(network, _OTHER_NAMES)
    _rename_input(graph, picture)
    scores = graph.output[0]
    dims = scores.type.tensor_type.shape.dim
    batch, channels = dims[0], dims[1].dim_value
    height, width = size
    logits = result if head == "logits" else "logits"
    if batch.dim_value:
        sizes = np.array([batch.dim_value, channels, height, width], np.int64)
        graph.initializer.append(numpy_helper.from_array(sizes, "logits.size"))
    else:
        # An open batch can only be copied from the scores; sizes, unlike scales, are exact for odd pictures.
        graph.initializer.append(numpy_helper.from_array(np.array([channels, height, width], np.int64), "logits.chw"))
        graph.node.append(helper.make_node("Shape", [scores.name], ["logits.n"], "logits.n", start=0, end=1))
        graph.node.append(
            helper.make_node("Concat", ["logits.n", "logits.chw"], ["logits.size"], "logits.size", axis=0)
        )
    graph.node.append(
        helper.make_node(
            "Resize",
            [scores.name, "", "", "logits.size"],
            [logits],
            "logits",
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )
    )
    if head == "labels":
        graph.node.append(helper.make_node("ArgMax", [logits], [result], "labels", axis=1, keepdims=1))
    shape = [batch.dim_value or batch.dim_param, channels if head == "logits" else 1, height, width]
    kind = TensorProto.FLOAT if head == "logits" else TensorProto.INT64
    graph.value_info.append(scores)
    graph.output[0].CopyFrom(helper.make_tensor_value_info(result, kind, shape))


def _rename_input(graph: onnx.GraphProto, name: str) -> None:
    old = graph.input[0].name
    for node in graph.node:
        for place, read in enumerate(node.input):
            if read == old:
                node.input[place] = name
    graph.input[0].name = name
