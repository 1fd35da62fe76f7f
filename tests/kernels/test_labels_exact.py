"""The class map: bit for bit what argmax over fully interpolated scores gives, whatever the scores are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from odd_scores import SCORE_KINDS, make_scores

from segcam.geometry import AxisMap, Taps, Upsample, nearest, resize_axis, taps
from segcam.kernels.cpu.labels import LabelMapper, sample_ids
from segcam.kernels.reference import count_classes, labels_from_ids, labels_from_scores

#: Sizes of a grid and of a picture: 1, primes, odd, even, powers of two.
SIZES = st.sampled_from([1, 2, 3, 5, 7, 8, 13, 16, 17, 31])
CLASSES = st.one_of(st.integers(1, 40), st.just(255))
MODES = st.sampled_from(["half_pixel", "align_corners", "asymmetric"])
KINDS = st.sampled_from(SCORE_KINDS)


def rounded_to_bfloat16(scores: NDArray[np.float32]) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """The upper halves of the bits, and the numbers that they stand for."""
    bits = (np.ascontiguousarray(scores).view(np.uint32) >> 16).astype(np.uint16)
    return bits, (bits.astype(np.uint32) << 16).view(np.float32)


def check(scores: NDArray[np.float32], y: Taps, x: Taps) -> None:
    """All layouts that engines give: (classes, H, W), (H, W, classes), and that in bfloat16."""
    bits, rounded = rounded_to_bfloat16(scores)
    for laid, meant in ((scores, scores), (scores.transpose(1, 2, 0), scores), (bits.transpose(1, 2, 0), rounded)):
        labels = np.full((y.first.size, x.first.size), 99, np.uint8)
        mapper = LabelMapper(y, x, channels_last=laid is not scores)
        counts = mapper(np.ascontiguousarray(laid), labels)
        np.testing.assert_array_equal(labels, labels_from_scores(meant, y, x))
        np.testing.assert_array_equal(counts, count_classes(labels, scores.shape[0]))
        assert counts.dtype == np.int64
        assert counts.sum() == labels.size


@settings(max_examples=250)
@given(KINDS, CLASSES, SIZES, SIZES, SIZES, SIZES, MODES, st.integers(0, 2**31))
@example("specials", 19, 8, 8, 31, 31, "half_pixel", 1)
@example("huge", 255, 3, 5, 13, 17, "align_corners", 2)
@example("noise", 1, 1, 1, 1, 1, "half_pixel", 3)
def test_equals_argmax_of_interpolated_scores(
    kind: str, classes: int, grid_h: int, grid_w: int, height: int, width: int, mode: Upsample, seed: int
) -> None:
    scores = make_scores(kind, classes, grid_h, grid_w, seed)
    y, x = (
        taps(height, grid_h, resize_axis(height, grid_h, mode)),
        taps(width, grid_w, resize_axis(width, grid_w, mode)),
    )
    check(scores, y, x)


@settings(max_examples=100)
@given(KINDS, st.integers(1, 21), SIZES, SIZES, st.sampled_from([1, 2, 3, 4, 8, 16]), MODES, st.integers(0, 2**31))
def test_whole_strides(
    kind: str, classes: int, grid_h: int, grid_w: int, stride: int, mode: Upsample, seed: int
) -> None:
    height, width = grid_h * stride, grid_w * stride
    scores = make_scores(kind, classes, grid_h, grid_w, seed)
    check(
        scores,
        taps(height, grid_h, resize_axis(height, grid_h, mode)),
        taps(width, grid_w, resize_axis(width, grid_w, mode)),
    )


@settings(max_examples=100)
@given(
    KINDS, st.integers(1, 21), SIZES, SIZES, SIZES, SIZES,
    st.floats(0.01, 5), st.floats(-40, 40), st.floats(0.01, 5), st.floats(-40, 40), st.integers(0, 2**31),
)  # fmt: skip
def test_any_affine_sampling(
    kind: str, classes: int, grid_h: int, grid_w: int, height: int, width: int,
    scale_y: float, offset_y: float, scale_x: float, offset_x: float, seed: int,
) -> None:  # fmt: skip
    """Letterboxes and crops: far outside the grid, smaller and larger than it."""
    scores = make_scores(kind, classes, grid_h, grid_w, seed)
    check(scores, taps(height, grid_h, AxisMap(scale_y, offset_y)), taps(width, grid_w, AxisMap(scale_x, offset_x)))


@settings(max_examples=60)
@given(KINDS, CLASSES, SIZES, SIZES, st.integers(0, 2**31))
def test_scores_of_the_pictures_own_size(kind: str, classes: int, height: int, width: int, seed: int) -> None:
    scores = make_scores(kind, classes, height, width, seed)
    y, x = taps(height, height, AxisMap()), taps(width, width, AxisMap())
    check(scores, y, x)
    np.testing.assert_array_equal(labels_from_scores(scores, y, x), np.argmax(scores, axis=0))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("class_", [0, 1, 2, 3, 4, 18])
def test_one_special_score_in_a_clear_picture(bad: float, class_: int) -> None:
    """One class leads everywhere; a single odd score may only change the pixels that it reaches."""
    scores = np.zeros((19, 6, 7), np.float32)
    scores[3] = 5
    scores[class_, 2, 3] = bad
    y, x = taps(24, 6, resize_axis(24, 6)), taps(28, 7, resize_axis(28, 7))
    check(scores, y, x)


def test_reference_is_what_it_says() -> None:
    """The oracle itself, against bilinear interpolation written out in float64."""
    random = np.random.default_rng(5)
    scores = random.standard_normal((7, 5, 6)).astype(np.float32)
    y, x = taps(20, 5, resize_axis(20, 5)), taps(24, 6, resize_axis(24, 6))
    best = np.full((20, 24), -np.inf)
    second = best.copy()
    found = np.zeros((20, 24), int)
    for k in range(7):
        for row in range(20):
            for col in range(24):
                at_y, at_x = np.clip((row + 0.5) / 4 - 0.5, 0, 4), np.clip((col + 0.5) / 4 - 0.5, 0, 5)
                i, j = int(at_y), int(at_x)
                fy, fx = at_y - i, at_x - j
                i2, j2 = min(i + 1, 4), min(j + 1, 5)
                z = scores[k].astype(np.float64)
                value = (1 - fy) * ((1 - fx) * z[i, j] + fx * z[i, j2]) + fy * ((1 - fx) * z[i2, j] + fx * z[i2, j2])
                if value > best[row, col]:
                    second[row, col], best[row, col], found[row, col] = best[row, col], value, k
                else:
                    second[row, col] = max(second[row, col], value)
    clear = best - second > 1e-5
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(labels_from_scores(scores, y, x)[clear], found[clear])


def test_scores_are_interpolated_and_not_ids() -> None:
    """Three classes in a row: halfway between the outer two, the middle one never led at a point, but leads here."""
    scores = np.array([[[4.0, 0.0]], [[0.0, 4.0]], [[3.0, 3.0]]], np.float32)
    y, x = taps(1, 1, resize_axis(1, 1)), taps(8, 2, resize_axis(8, 2))
    labels = np.empty((1, 8), np.uint8)
    LabelMapper(y, x)(scores, labels)
    assert labels.tolist() == [[0, 0, 0, 2, 2, 1, 1, 1]]


def test_a_mapper_keeps_nothing_from_the_call_before() -> None:
    y, x = taps(21, 6, resize_axis(21, 6)), taps(33, 9, resize_axis(33, 9))
    mapper = LabelMapper(y, x)
    labels = np.empty((21, 33), np.uint8)
    for seed, kind in enumerate(["noise", "all_nan", "equal", "smooth", "specials", "noise"]):
        scores = make_scores(kind, 12, 6, 9, seed)
        counts = mapper(scores, labels)
        np.testing.assert_array_equal(labels, labels_from_scores(scores, y, x))
        np.testing.assert_array_equal(counts, count_classes(labels, 12))


def test_work_is_done_only_where_corners_disagree() -> None:
    scores = np.zeros((5, 9, 9), np.float32)
    scores[1, :, :4] = 3
    scores[2, :, 4:] = 3
    y, x = taps(36, 9, resize_axis(36, 9)), taps(36, 9, resize_axis(36, 9))
    mapper = LabelMapper(y, x)
    mapper(scores, np.empty((36, 36), np.uint8))
    assert mapper.undecided_cells() == pytest.approx(1 / 8)


@settings(max_examples=80)
@given(SIZES, SIZES, SIZES, SIZES, st.floats(0.05, 4), st.floats(-9, 9), st.integers(0, 2**31))
def test_ids_are_taken_from_the_nearest_point(
    grid_h: int, grid_w: int, height: int, width: int, scale: float, offset: float, seed: int
) -> None:
    ids = np.random.default_rng(seed).integers(0, 256, (grid_h, grid_w), np.uint8)
    y, x = nearest(height, grid_h, AxisMap(scale, offset)), nearest(width, grid_w, resize_axis(width, grid_w))
    labels = np.empty((height, width), np.uint8)
    counts = sample_ids(ids, y, x, labels)
    np.testing.assert_array_equal(labels, labels_from_ids(ids, y, x))
    np.testing.assert_array_equal(counts, np.bincount(labels.ravel(), minlength=256))


def test_labels_may_be_part_of_nothing_else() -> None:
    """Counts of a map of one class are the whole picture, at every size that ends a run at the edge."""
    for height, width in ((1, 1), (1, 31), (32, 32), (33, 1)):
        scores: NDArray[Any] = np.zeros((4, 3, 3), np.float32)
        scores[2] = 1
        labels = np.empty((height, width), np.uint8)
        counts = LabelMapper(taps(height, 3, resize_axis(height, 3)), taps(width, 3, resize_axis(width, 3)))(
            scores, labels
        )
        assert counts.tolist() == [0, 0, height * width, 0]
