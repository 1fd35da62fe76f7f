"""An engine for GPUs where no runtime is: it answers every picture with scores that were made before."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from gpucheck.pictures import blobs
from segcam.engines.base import EngineInfo, EngineOptions
from segcam.engines.device import DeviceEngine
from segcam.engines.plan import PlanTensor, Shape
from segcam.engines.tensorrt_api import numpy_dtype
from segcam.kernels.cuda.driver import Driver, Stream
from segcam.onnx_tools.spec import InputSpec, ModelSpec, OutputSpec


def _bytes(tensor: PlanTensor) -> int:
    return prod(tensor.shape) * numpy_dtype(tensor.dtype).itemsize


class Recorded:
    """See ``segcam.engines.device.DeviceNetwork``; ``work`` bytes are read and written so many ``times`` besides, as a
    network would."""

    name = "recorded scores"

    def __init__(self, driver: Driver, size: tuple[int, int], stride: int, work: int, times: int) -> None:
        self.driver, self._times = driver, times
        coarse = (max(1, size[0] // stride), max(1, size[1] // stride))
        self.input = PlanTensor("picture", "input", "float16", (1, 3, *size), "linear")
        self.output = PlanTensor("scores", "output", "float16", (1, 19, *coarse), "linear")
        self._scores = driver.allocate(_bytes(self.output))
        self._work = [driver.allocate(work) for _ in range(2)] if work else []
        stream = driver.stream()
        driver.upload(self._scores.address, blobs(19, *coarse).astype(np.float16), stream)
        stream.synchronize()
        stream.close()

    def execution(self, shape: Shape) -> RecordedRun:
        assert shape == self.input.shape
        return RecordedRun(self)

    def enqueue(self, stream: Stream, output_address: int) -> None:
        for _ in range(self._times if self._work else 0):
            self.driver.copy(self._work[1].address, self._work[0].address, self._work[0].nbytes, stream)
        self.driver.copy(output_address, self._scores.address, _bytes(self.output), stream)

    def close(self) -> None:
        for memory in (self._scores, *self._work):
            memory.close()


class RecordedRun:
    """See ``segcam.engines.device.DeviceRun``."""

    def __init__(self, network: Recorded) -> None:
        self._network = network
        self.input_shape, self.output_shape = network.input.shape, network.output.shape
        self.input_bytes, self.output_bytes = _bytes(network.input), _bytes(network.output)

    def enqueue(self, stream: Stream, input_address: int, output_address: int) -> None:
        self._network.enqueue(stream, output_address)

    def warm_up(self, stream: Stream, input_address: int, output_address: int) -> None:
        self.enqueue(stream, input_address, output_address)
        stream.synchronize()

    def close(self) -> None:
        pass


class RecordedEngine(DeviceEngine[Recorded]):
    """``size`` (height, width) of the pictures it takes; scores come at an eighth of that."""

    def __init__(self, driver: Driver, size: tuple[int, int], work: int = 0, times: int = 1) -> None:
        super().__init__(Path("recorded"), EngineOptions(requests=3), lambda line: None, driver)
        self._size, self._bytes, self._times = size, work, times

    def activate(self) -> None:
        driver = self._driver = self._given_driver
        assert driver is not None
        with driver.current():
            network = Recorded(driver, self._size, 8, self._bytes, self._times)
            self._plan = network
            self._held.callback(network.close)
            self._make_slots(network, network.input.shape)
        mean: tuple[Any, ...] = (123.675, 116.28, 103.53)
        spec = ModelSpec(
            InputSpec("picture", color="RGB", mean=mean, std=(58.395, 57.12, 57.375)),
            OutputSpec("scores", "logits", "half_pixel"),
            None,
            "gpu_check",
        )
        self._spec = replace(spec, input=replace(spec.input, size=self._size, dtype="float16"))
        self._info = EngineInfo(
            model=network.name, runtime="gpu_check", version="", device=driver.device.name, precision="fp16", threads=0,
            requests=len(self._slots), input_shape=network.input.shape, output_shape=network.output.shape,
            output_layout="NCHW", head="", spec="gpu_check",
        )  # fmt: skip
