"""Networks on a stand-in GPU whose kernels are the package's own, compiled for the host."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cuda_shim import need_compiler
from gpu_faces import TensorRtFace

from segcam.controls import Controls
from segcam.engines.base import EngineOptions
from segcam.engines.tensorrt import TensorRtEngine
from segcam.segmenters.cuda import CudaSegmenter
from segcam.segmenters.cuda_work import Kernels
from segcam.segmenters.reading import count_classes


@dataclass
class OnGpu:
    """A loaded plan with what a segmenter on it needs; ``warnings`` is what engine and segmenters said."""

    engine: TensorRtEngine
    kernels: Kernels
    controls: Controls
    classes: Any
    warnings: list[str]
    made: list[CudaSegmenter] = field(default_factory=list)

    def segmenter(self, **arguments: Any) -> CudaSegmenter:
        segmenter = CudaSegmenter(
            self.engine, self.kernels, self.classes, self.controls, warn=self.warnings.append, **arguments
        )
        self.made.append(segmenter)
        return segmenter

    def close(self) -> None:
        for segmenter in self.made:
            segmenter.close()
        self.kernels.close()
        self.engine.close()


OnGpuOf = Callable[..., OnGpu]


@pytest.fixture
def on_gpu(tensorrt_face: TensorRtFace, monkeypatch: pytest.MonkeyPatch) -> Iterator[OnGpuOf]:
    """``on_gpu(plan, requests=0, both=False)``; at the end everything is closed, and nothing may be left on the GPU.

    With PyCUDA for TensorRT 10, with cuda-python, which has graphs, for 11; ``both``: PyCUDA, and graphs by the other.
    """
    need_compiler()
    opened: list[OnGpu] = []

    def make(plan: Path, requests: int = 0, both: bool = False) -> OnGpu:
        missing = ("pycuda", "pycuda.driver") if tensorrt_face.version >= (11,) else ("cuda", "cuda.bindings")
        for module in () if both else missing:
            monkeypatch.setitem(sys.modules, module, None)
        warnings: list[str] = []
        engine = TensorRtEngine(plan, EngineOptions(requests=requests), warnings.append)
        engine.activate()
        classes = engine.spec.class_table(count_classes(engine))
        controls = Controls(0.5, classes.visible(""))
        opened.append(OnGpu(engine, Kernels(engine.driver), controls, classes, warnings))
        return opened[-1]

    yield make
    for one in opened:
        one.close()
    gc.collect()
    leftovers = tensorrt_face.machine.leftovers()
    assert not any(leftovers.values()), leftovers
