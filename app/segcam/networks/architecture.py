"""The networks by name: which tensors they want, and their ONNX graphs.

All of them take normalised RGB and end at low-resolution scores, to be enlarged bilinearly (half-pixel centres) to the
size of the input. The graphs are plain: nothing is rewritten here, and nothing is left for a simplifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segcam.errors import UsageError
from segcam.networks import fast_scnn, fastseg, pspnet
from segcam.networks.builder import Graph, Map
from segcam.networks.pyramid import AdaptivePool

if TYPE_CHECKING:
    import onnx

MODELS = ("MobileV3Small", "MobileV3Large", "FastSCNN", "PSPNet")


@dataclass(frozen=True)
class NetworkOptions:
    """``model`` is one of MODELS; ``num_filters`` (F) is read for MobileV3Small and MobileV3Large only, ``size`` is
    (height, width) in pixels, ``batch`` the number of pictures (0: left open), ``adaptive_pool`` for PSPNet only.

    Raises UsageError for what cannot be.
    """

    model: str
    num_classes: int = 19
    num_filters: int = 128
    size: tuple[int, int] = (1024, 2048)
    batch: int = 1
    adaptive_pool: AdaptivePool = "torch"

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise UsageError(f"there is no network {self.model!r}", f"The networks are {', '.join(MODELS)}.")
        for name, value in (("classes", self.num_classes), ("filters", self.num_filters)):
            if value < 1:
                raise UsageError(f"the number of {name} is {value}", "It must be at least 1.")
        if min(self.size) < 1:
            raise UsageError(f"the size is {self.size[0]},{self.size[1]}", "Give height,width in pixels: 1024,2048.")
        if self.batch < 0:
            raise UsageError(f"the batch is {self.batch}", "Give the number of pictures, or 0 to leave it open.")
        if self.adaptive_pool not in ("torch", "omz"):
            raise UsageError(f"there is no adaptive pool {self.adaptive_pool!r}", "It is torch or omz.")


def expected_tensors(options: NetworkOptions) -> dict[str, tuple[int, ...]]:
    """Every tensor that the network needs, key to shape, in the order of an official checkpoint. Raises UsageError."""
    return {key: wanted.shape for key, wanted in _survey(options).tensors.items() if not wanted.idle}


def idle_tensors(options: NetworkOptions) -> dict[str, tuple[int, ...]]:
    """Tensors that a checkpoint may hold and inference doesn't use: step counts and auxiliary heads."""
    return {key: wanted.shape for key, wanted in _survey(options).tensors.items() if wanted.idle}


def checkpoint_tensors(options: NetworkOptions) -> dict[str, tuple[int, ...]]:
    """Both, in the order of an official checkpoint."""
    return {key: wanted.shape for key, wanted in _survey(options).tensors.items()}


def build(options: NetworkOptions, tensors: Mapping[str, np.ndarray[Any, Any]]) -> onnx.ModelProto:
    """The network as an ONNX graph in float32, batch norms folded in float64.

    ``tensors`` holds at least ``expected_tensors(options)``, of a floating type. The input ``input0`` is
    (N, 3, height, width), RGB, normalised; the one output ``scores`` is (N, classes, h, w) at 1/2 (MobileV3Small,
    MobileV3Large) or 1/8 of the input's size, rounded up. All shapes are static, an open batch aside. Nodes and weights
    are called after the original's modules. Raises UsageError for a size that the network cannot take, SegcamError for
    a missing or misshapen tensor.
    """
    graph = Graph(options.size, options.batch, tensors)
    return graph.finish(_describe(graph, options), options.model)


def _survey(options: NetworkOptions) -> Graph:
    graph = Graph(options.size, options.batch)
    _describe(graph, options)
    return graph


def _describe(graph: Graph, options: NetworkOptions) -> Map:
    if options.model == "FastSCNN":
        return fast_scnn.describe(graph, options.num_classes)
    if options.model == "PSPNet":
        return pspnet.describe(graph, options.num_classes, options.adaptive_pool)
    trunk = fastseg.SMALL if options.model == "MobileV3Small" else fastseg.LARGE
    return fastseg.describe(graph, trunk, options.num_classes, options.num_filters)
