"""The figures, against the plainest way to compute them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from segcam.evaluation.scores import Confusion, Scores, Spread

NAMES = ("a", "b", "c")
#: Ids 0..2 are the classes, 3 is void, others are none; labels of 255 are left out.
COLUMNS = np.where(np.arange(256) < 3, np.arange(256), 3)
ROWS = np.where(np.arange(256) == 255, Confusion.LEFT_OUT, COLUMNS)


def counted(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Scores:
    confusion = Confusion(NAMES, ROWS, COLUMNS)
    confusion.add(first, second)
    return confusion.scores


@given(st.data())
def test_figures_are_what_their_definitions_say(data: st.DataObject) -> None:
    labels = data.draw(arrays(np.uint8, (6, 7), elements=st.sampled_from([0, 1, 2, 255])))
    said = data.draw(arrays(np.uint8, (6, 7), elements=st.sampled_from([0, 1, 2, 3, 200, 255])))
    scores = counted(labels, said)
    kept = labels != 255
    assert scores.pixels == kept.sum()
    ious = []
    for index in range(3):
        is_it, called = (labels == index) & kept, (said == index) & kept
        union = (is_it | called).sum()
        assert scores.occurring[index] == is_it.sum()
        assert scores.named[index] == called.sum()
        if union:
            ious.append((is_it & called).sum() / union)
            assert scores.iou[index] == pytest.approx(ious[-1])
        else:
            assert np.isnan(scores.iou[index])
        if is_it.any():
            assert scores.accuracy[index] == pytest.approx((said[is_it] == index).mean())
    if kept.any():
        assert scores.pixel_accuracy == pytest.approx((labels[kept] == said[kept]).mean())
        assert scores.miou == pytest.approx(np.mean(ious))
        weighted = sum(scores.iou[i] * (labels[kept] == i).mean() for i in range(3) if (labels == i).any())
        assert scores.frequency_weighted_iou == pytest.approx(weighted)
    else:
        assert np.isnan(scores.miou)
        assert np.isnan(scores.pixel_accuracy)
        assert scores.document()["miou"] is None


@given(arrays(np.uint8, (4, 9, 11)), arrays(np.uint8, (4, 9, 11)))
def test_pictures_one_by_one_or_all_at_once(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> None:
    confusion = Confusion(NAMES, ROWS, COLUMNS)
    parts = [confusion.add(a, b) for a, b in zip(first, second, strict=True)]
    whole = Confusion(NAMES, ROWS, COLUMNS)
    assert whole.add(first.reshape(-1, 11), second.reshape(-1, 11)) == tuple(np.sum(parts, 0))
    assert np.array_equal(confusion.scores.matrix, whole.scores.matrix)


def test_void_is_wrong_and_no_class() -> None:
    scores = counted(np.array([[0, 0, 1, 255]], np.uint8), np.array([[0, 3, 1, 3]], np.uint8))
    assert scores.iou.tolist()[:2] == [0.5, 1.0]
    assert np.isnan(scores.iou[2])
    assert scores.miou == 0.75
    assert scores.pixel_accuracy == pytest.approx(2 / 3)


def test_a_class_that_is_only_named_counts_in_one_mean_only() -> None:
    scores = counted(np.array([[0, 0, 0, 0]], np.uint8), np.array([[0, 0, 0, 1]], np.uint8))
    assert scores.miou == pytest.approx(0.375)
    assert scores.miou_occurring == pytest.approx(0.75)
    assert scores.mean_accuracy == pytest.approx(0.75)


def test_the_document_is_plain() -> None:
    import json

    document = json.loads(json.dumps(counted(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8)).document()))
    assert document["classes"][0] == {"name": "a", "iou": 1.0, "accuracy": 1.0, "pixels": 4, "named_pixels": 4}
    assert document["classes"][1]["iou"] is None
    assert document["confusion"]["columns"] == ["a", "b", "c", "no class"]
    assert document["confusion"]["pixels"][0] == [4, 0, 0, 0]


@given(st.lists(st.integers(0, 1000).map(lambda n: n / 1000), min_size=1, max_size=60))
def test_spread(shares: list[float]) -> None:
    spread = Spread(keep=4)
    worst_said = [name for name, share in ((str(i), s) for i, s in enumerate(shares)) if spread.add(share, name)]
    assert spread.mean == pytest.approx(np.mean(shares))
    assert spread.percentile(0) == pytest.approx(min(shares))
    assert spread.percentile(100) == pytest.approx(max(shares))
    assert spread.percentile(50) == pytest.approx(sorted(shares)[(len(shares) + 1) // 2 - 1])
    wanted = sorted(range(len(shares)), key=lambda i: (shares[i], i))[:4]
    assert [(name, number) for name, number, _ in spread.worst] == [(str(i), i) for i in wanted]
    assert worst_said[-1] == str(wanted[0]), "the last one that was the worst so far is the worst of all"


def test_nothing_added() -> None:
    assert np.isnan(Spread().mean)
    assert np.isnan(Spread().percentile(50))
    assert Spread().worst == []
