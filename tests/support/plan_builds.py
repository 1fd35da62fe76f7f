"""What tests of building plans say often."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import onnx
import pytest
import typed_networks
from standin_trt.plan import HEAD

from segcam.engines.plan_options import BuiltPlan, Quiet
from segcam.errors import EngineError

Build = Callable[..., BuiltPlan]


def refused(build: Build, *words: str, model: onnx.ModelProto | None = None, **changes: Any) -> EngineError:
    """The error of a build, which holds all ``words`` and says what to do."""
    with pytest.raises(EngineError) as caught:
        build(model or typed_networks.scores(), **changes)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    assert caught.value.hint
    return caught.value


def calls(face: Any, name: str) -> int:
    return int(face.control.calls.count(name))


def header(plan: bytes) -> Any:
    """What the stand-in keeps of a build in its plans."""
    _, length, _ = HEAD.unpack_from(plan)
    return json.loads(plan[HEAD.size : HEAD.size + length])


class Recording(Quiet):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, ...]] = []
        self.steps: list[tuple[int, int]] = []
        self.words: list[str] = []
        self.stop = False

    def begin(self, stage: str) -> None:
        self.stages.append((stage,))

    def step(self, done: int, total: int, words: str) -> None:
        self.steps.append((done, total))
        self.words.append(words)

    def end(self, stage: str, words: str) -> None:
        self.stages.append((stage, words))

    def cancelled(self) -> bool:
        return self.stop
