"""What tests of building plans share."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest

from segcam.engines.tensorrt_build import BuiltPlan, PlanOptions, Quiet, build_plan
from segcam.kernels.cuda.driver import Driver, open_driver

FP16 = PlanOptions(precision="fp16")


@pytest.fixture
def driver(tensorrt_face: Any) -> Iterator[Driver]:
    driver = open_driver()
    yield driver
    # PyCUDA frees what nobody refers to any more, and a caught error may be a cycle with the frames it came through.
    gc.collect()
    driver.close()
    gc.collect()
    assert not any(tensorrt_face.machine.leftovers().values()), tensorrt_face.machine.leftovers()


@pytest.fixture
def build(driver: Driver, tmp_path: Path) -> Callable[..., BuiltPlan]:
    """``build(model, options=FP16, progress=Quiet(), **changes)``; nothing is left in the folder to work in."""
    work = tmp_path / "work"
    work.mkdir()

    def run(model: onnx.ModelProto, options: PlanOptions = FP16, progress: Any = None, **changes: Any) -> BuiltPlan:
        try:
            return build_plan(model, dataclasses.replace(options, **changes), driver, progress or Quiet(), work)
        finally:
            assert list(work.iterdir()) == []

    return run
