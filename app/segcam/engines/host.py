"""What engines with their buffers in host memory have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from segcam.engines.base import EngineInfo, EngineOptions
from segcam.engines.model import PreparedModel
from segcam.errors import EngineError
from segcam.onnx_tools.spec import ModelSpec


class HostEngine:
    """The part of ``engines.base.Engine`` that is the same for every runtime: what it is, and its arrays by slot."""

    def __init__(self, path: Path, options: EngineOptions, warn: Callable[[str], None]) -> None:
        self._path, self._options, self._warn = path, options, warn
        self._model: PreparedModel | None = None
        self._info: EngineInfo | None = None
        self._inputs: list[NDArray[Any]] = []
        self._outputs: list[NDArray[Any]] = []

    @property
    def spec(self) -> ModelSpec:
        return self._active().spec

    @property
    def info(self) -> EngineInfo:
        self._active()
        assert self._info
        return self._info

    def _active(self) -> PreparedModel:
        if self._info is None or self._model is None:
            raise EngineError(f"the engine {self._path.name} is not active", "Call activate() first.")
        return self._model

    def input(self, slot: int) -> NDArray[Any]:
        self._active()
        return self._inputs[slot]

    def _forget(self) -> None:
        """Give the arrays back. Nothing may be running on them any more."""
        self._inputs, self._outputs = [], []
        self._model = self._info = None
