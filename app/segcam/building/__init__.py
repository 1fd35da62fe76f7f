"""From a network to what runs it fastest here: plans and prepared networks, each built once and kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segcam.engines.base import EngineOptions

__all__ = ["cached_plan"]


def cached_plan(onnx: Path, options: EngineOptions, say: Callable[[str], None], warn: Callable[[str], None]) -> Path:
    """The plan of ``onnx`` for this machine's GPU and TensorRT from the cache, built now if it is not there.

    Raises what ``building.run.build`` raises.
    """
    from segcam.building.cached import cached_plan as find

    return find(onnx, options, say, warn)
