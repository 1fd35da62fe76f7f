"""Pooling windows: PyTorch's uneven ones and Open Model Zoo's, as ordinary pools where they are that."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from golden_networks import run
from hypothesis import given, settings
from hypothesis import strategies as st

from segcam.errors import UsageError
from segcam.networks import pyramid
from segcam.networks.architecture import NetworkOptions, expected_tensors
from segcam.networks.builder import Graph, Map


def test_windows_of_the_facts() -> None:
    assert pyramid.torch_windows(64, 6) == [(0, 11), (10, 22), (21, 32), (32, 43), (42, 54), (53, 64)]
    assert pyramid.omz_windows(64, 6) == [(0, 14), (10, 24), (20, 34), (30, 44), (40, 54), (50, 64)]
    assert pyramid.omz_windows(64, 3) == pyramid.torch_windows(64, 3) == [(0, 22), (21, 43), (42, 64)]


@given(st.integers(1, 400), st.sampled_from(pyramid.BINS))
def test_torch_windows_cover_every_cell_in_order(cells: int, bins: int) -> None:
    windows = pyramid.torch_windows(cells, bins)
    assert len(windows) == bins
    assert (windows[0][0], windows[-1][1]) == (0, cells)
    assert all(first < end for first, end in windows)
    assert all(a[0] <= b[0] <= a[1] for a, b in itertools.pairwise(windows))


def pooled_by_hand(x: np.ndarray, windows: tuple[list[tuple[int, int]], list[tuple[int, int]]]) -> np.ndarray:
    return np.stack([np.stack([x[..., a:b, c:d].mean((-2, -1)) for c, d in windows[1]], -1) for a, b in windows[0]], -2)


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 40), st.booleans(), st.sampled_from(pyramid.BINS))
def test_pools_are_means_of_their_windows(height: int, width: int, omz: bool, bins: int) -> None:
    if omz and min(height, width) < bins:
        height, width = height + bins, width + bins
    graph = Graph((height, width), tensors={})
    pooled = pyramid._pool(graph, graph.input, bins, "pool", "omz" if omz else "torch")
    assert (pooled.height, pooled.width) == (bins, bins)
    model = graph.finish(pooled, "pool")
    onnx.checker.check_model(model, full_check=True)
    x = np.random.default_rng(height * 41 + width).standard_normal((1, 3, height, width)).astype(np.float32)
    windows = pyramid.omz_windows if omz else pyramid.torch_windows
    expected = pooled_by_hand(x.astype(np.float64), (windows(height, bins), windows(width, bins)))
    np.testing.assert_allclose(run(model, "onnxruntime", x), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("cells", "form", "kinds"),
    [
        ((64, 64), "torch", ["ReduceMean", "AveragePool", "AveragePool", "MatMul", "MatMul"]),
        ((64, 64), "omz", ["ReduceMean", "AveragePool", "AveragePool", "AveragePool"]),
        ((60, 120), "torch", ["ReduceMean", "AveragePool", "AveragePool", "AveragePool"]),
        # Fewer cells than bins: some windows are the same.
        ((2, 4), "torch", ["ReduceMean", "AveragePool", "MatMul", "MatMul", "MatMul", "MatMul"]),
    ],
)
def test_ordinary_pools_where_the_windows_allow(
    cells: tuple[int, int], form: pyramid.AdaptivePool, kinds: list[str]
) -> None:
    graph = Graph(cells, tensors={})
    pooled: list[Map] = [pyramid._pool(graph, graph.input, bins, f"pool{bins}", form) for bins in pyramid.BINS]
    model = graph.finish(pooled[0], "pools")
    assert [node.op_type for node in model.graph.node] == kinds


def test_a_map_without_open_model_zoo_windows_is_refused() -> None:
    with pytest.raises(UsageError, match="5x7 cells cannot be pooled into 6x6") as caught:
        expected_tensors(NetworkOptions("PSPNet", size=(40, 56), adaptive_pool="omz"))
    assert "41 pixels" in caught.value.hint
    assert expected_tensors(NetworkOptions("PSPNet", size=(41, 56), adaptive_pool="omz"))
    assert expected_tensors(NetworkOptions("PSPNet", size=(40, 56)))
