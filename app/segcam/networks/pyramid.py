"""Pyramid pooling, which Fast-SCNN and PSPNet share: means over 1, 4, 9 and 36 windows, each enlarged again.

Source: Zhao et al., Pyramid Scene Parsing Network (2017). PyTorch's adaptive windows are uneven and overlap where the
bins don't divide the map; Open Model Zoo's exports have evenly placed windows of one size in their place.
"""

from __future__ import annotations

import itertools
from typing import Literal

import numpy as np

from segcam.errors import UsageError
from segcam.networks.builder import Conv, Graph, Map, Norm

BINS = (1, 2, 3, 6)

AdaptivePool = Literal["torch", "omz"]


def make_layers(graph: Graph, prefix: str, into: int, out: int, eps: float) -> list[Conv]:
    """The 1x1 layer behind each pool: PREFIX.0.1 .. PREFIX.3.1."""
    return [
        graph.conv(f"{prefix}.{i}.1.conv", into, out, norm=Norm(f"{prefix}.{i}.1.bn", eps)) for i in range(len(BINS))
    ]


def apply_layers(graph: Graph, x: Map, layers: list[Conv], prefix: str, form: AdaptivePool = "torch") -> Map:
    """``x`` and the four enlarged means, concatenated. Raises UsageError where the form "omz" has no window."""
    parts = [x]
    for i, (bins, layer) in enumerate(zip(BINS, layers, strict=True)):
        pooled = _pool(graph, x, bins, f"{prefix}.{i}.0", form)
        small = graph.relu(layer(pooled), f"{prefix}.{i}")
        parts.append(graph.resize(small, x.height, x.width, f"{prefix}.{i}.up"))
    return graph.concat(parts, f"{prefix}.cat")


def _pool(graph: Graph, x: Map, bins: int, name: str, form: AdaptivePool) -> Map:
    if bins == 1:
        return graph.global_average(x, name)
    if form == "omz" and min(x.height, x.width) < bins:
        raise UsageError(
            f"a map of {x.height}x{x.width} cells cannot be pooled into {bins}x{bins} windows as Open Model Zoo does",
            f"Give a size of at least {8 * (bins - 1) + 1} pixels on both sides, or --adaptive-pool torch.",
        )
    windows = omz_windows if form == "omz" else torch_windows
    rows, columns = windows(x.height, bins), windows(x.width, bins)
    down, across = _regular(rows), _regular(columns)
    if down and across:
        return graph.average_pool(x, name, (down[0], across[0]), (down[1], across[1]))
    return graph.row_and_column_sums(x, name, _averaging(rows, x.height), _averaging(columns, x.width))


def torch_windows(cells: int, bins: int) -> list[tuple[int, int]]:
    """[first, end) of each bin over ``cells``, as PyTorch's adaptive average pooling places them."""
    return [(i * cells // bins, -(-(i + 1) * cells // bins)) for i in range(bins)]


def omz_windows(cells: int, bins: int) -> list[tuple[int, int]]:
    """The same for the ordinary pool that Open Model Zoo's exporter writes; needs ``cells`` >= ``bins``."""
    stride = cells // bins
    return [(i * stride, i * stride + cells - (bins - 1) * stride) for i in range(bins)]


def _regular(windows: list[tuple[int, int]]) -> tuple[int, int] | None:
    """(window, stride) of an ordinary pool with these windows, if there is one."""
    lengths = {end - first for first, end in windows}
    strides = {b[0] - a[0] for a, b in itertools.pairwise(windows)}
    if len(lengths) == 1 and len(strides) == 1 and 0 not in strides:
        return lengths.pop(), strides.pop()
    return None


def _averaging(windows: list[tuple[int, int]], cells: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """(bins, cells): what each cell counts in each bin's mean."""
    matrix = np.zeros((len(windows), cells))
    for row, (first, end) in zip(matrix, windows, strict=True):
        row[first:end] = 1 / (end - first)
    return matrix
