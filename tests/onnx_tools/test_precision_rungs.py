"""What of a network stays float32 where labels differ: as little as gives float32's labels, and no more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from drafts import Draft
from onnx import TensorProto

from segcam.errors import EngineError
from segcam.onnx_tools import precision
from segcam.onnx_tools.agreement import Agreement
from segcam.onnx_tools.check import random_inputs
from segcam.onnx_tools.precision import Fitted, fit_precision

CONVS = 12


def network() -> onnx.ModelProto:
    """Twelve products, the seventh with a norm of its own behind it; names say which."""
    draft, random = Draft((1, 3, 8, 8)), np.random.default_rng(0)
    x, channels = "x", 3
    for number in range(CONVS):
        weight = random.standard_normal((8, channels, 1, 1)).astype(np.float32) / 4
        x, channels = draft.add("Conv", [x, draft.constant(weight)]), 8
        if number == 6:
            shape = [draft.constant(np.full(8, value, np.float32)) for value in (1.0, 0.1, 0.2, 1.0)]
            x = draft.add("BatchNormalization", [x, *shape])
    return draft.model(x)


Answer = Callable[[int], tuple[float, float]]


@pytest.fixture
def fit(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Fitted, list[int]]]:
    """``fit(answer)``: the network fitted where ``answer(kept products)`` are the (equal labels, ties); and how many
    products were kept each time."""
    model = network()

    def run(answer: Answer, **more: Any) -> tuple[Fitted, list[int]]:
        asked: list[int] = []

        class Judge:
            def __init__(self, *given: Any) -> None:
                pass

            def judge(self, converted: onnx.ModelProto) -> tuple[Agreement, set[str]]:
                wide = {i.name for i in converted.graph.initializer if i.data_type == TensorProto.FLOAT}
                kept = sum(node.op_type == "Conv" and node.input[1] in wide for node in converted.graph.node)
                asked.append(kept)
                equal, ties = answer(kept)
                return Agreement(equal, 0.1, 1.0, 0, 1, "pictures", ties), set()

        monkeypatch.setattr(precision, "Judge", Judge)
        return fit_precision(model, "fp16", [random_inputs(model)], "pictures", **more), asked

    return run


def kept_kinds(fitted: Fitted) -> set[str]:
    return {node.op_type for node in network().graph.node if node.name in fitted.kept}


def test_nothing_is_kept_where_labels_are_equal(fit: Callable[..., tuple[Fitted, list[int]]]) -> None:
    fitted, asked = fit(lambda kept: (0.9995, 0.0))
    assert (asked, fitted.kept) == ([0], {})


@pytest.mark.parametrize(("needed", "tried"), [(1, [0, 1]), (2, [0, 1, 2]), (4, [0, 1, 2, 4])])
def test_the_norms_and_as_much_of_the_beginning_as_is_needed(
    fit: Callable[..., tuple[Fitted, list[int]]], needed: int, tried: Sequence[int]
) -> None:
    """Ties are not called equal as long as something can be done about them."""
    fitted, asked = fit(lambda kept: (0.9991, 0.0) if kept >= needed else (0.998, 0.002))
    assert asked == tried
    reasons = list(fitted.kept.values())
    assert sum("lies in the beginning" in reason for reason in reasons) == needed
    assert sum("is a norm" in reason for reason in reasons) == 1
    assert fitted.agreement.labels_equal == 0.9991


def test_where_nothing_helps_ties_count_and_nothing_is_kept(fit: Callable[..., tuple[Fitted, list[int]]]) -> None:
    fitted, asked = fit(lambda kept: (0.99 + kept / 1e4, 0.01))
    assert (asked, fitted.kept) == ([0, 1, 2, 4], {})
    assert fitted.agreement.labels_equal == 0.99
    fitted, _ = fit(lambda kept: (0.99, 0.01) if kept >= 2 else (0.98, 0.01))
    assert kept_kinds(fitted) == {"Conv", "BatchNormalization"}
    assert sum("lies in the beginning" in reason for reason in fitted.kept.values()) == 2


def test_an_error_names_the_best_that_was_had(fit: Callable[..., tuple[Fitted, list[int]]]) -> None:
    with pytest.raises(EngineError, match=r"95.50% of labels are float32's, expected 99.90% on 1 frame .pictures"):
        fit(lambda kept: {0: (0.9, 0.0), 1: (0.955, 0.0), 2: (0.95, 0.0), 4: (0.94, 0.0)}[kept])
