"""The normalisation of the picture inside the graph: BGR 0..255 in, as Open Model Zoo's converted models take it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from segcam.errors import EngineError

if TYPE_CHECKING:
    import onnx

#: The tensor that holds the pictures' mean, (1, 3, 1, 1) float32 in the order fed.
MEAN = "normalise.mean"


def embed_preprocessing(model: onnx.ModelProto, mean: Sequence[float], std: Sequence[float]) -> None:
    """Change ``model``, which takes N x 3 x H x W normalised RGB, in place: it then takes BGR 0..255 float32.

    ``mean`` and ``std`` are of 0..255 in RGB order. The factors and the order of the channels go into the weights of
    the convolutions that read the picture. The mean does not: a convolution pads the normalised picture with zeros,
    which are ``mean`` in the picture's own scale, so a bias would be right in the middle and wrong at the borders. One
    subtraction before the first convolution is right everywhere. Raises EngineError where something else than a
    convolution reads the picture.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    weights = {i.name: i for i in graph.initializer}
    picture = next(i.name for i in graph.input if i.name not in weights)
    # An open batch is read off the picture's shape, which stays.
    readers = [node for node in graph.node if picture in node.input and node.op_type != "Shape"]
    for node in readers:
        kernel = weights.get(node.input[1]) if node.op_type == "Conv" else None
        if kernel is None or kernel.dims[1] != 3:
            raise EngineError(
                f"{node.op_type} {node.name!r} reads the picture, expected a convolution of its three channels",
                "Leave --embed-preprocessing out: Segcam normalises the picture itself.",
            )
    for name in dict.fromkeys(node.input[1] for node in readers):
        rgb = numpy_helper.to_array(weights[name]).astype(np.float64)
        bgr = (rgb / np.reshape(np.asarray(std, np.float64), (1, 3, 1, 1)))[:, ::-1]
        weights[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(bgr, np.float32), name))
    offset = np.asarray(mean, np.float32)[::-1].reshape(1, 3, 1, 1)
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(offset), MEAN))
    for node in readers:
        node.input[0] = "normalised"
    graph.node.insert(0, helper.make_node("Sub", [picture, MEAN], ["normalised"], "normalise"))
