"""Memory for overlays that stay on the GPU: held as long as somebody looks at them, then used again."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from segcam.engines.device import quietly
from segcam.kernels.cuda.driver import DeviceMemory, Driver


class Surface:
    """``nbytes`` of device memory at ``address``. It goes back to its pool when nobody refers to it any more, in
    whichever thread that is: what has been queued to read it must be done by then."""

    def __init__(self, pool: Surfaces, memory: DeviceMemory) -> None:
        self._pool, self._memory = pool, memory

    @property
    def address(self) -> int:
        return self._memory.address

    def download(self, nbytes: int) -> NDArray[np.uint8]:
        """A copy of its first bytes in host memory, for which the caller waits. In any thread. Raises CudaError."""
        copied: NDArray[np.uint8] = np.empty(nbytes, np.uint8)
        driver = self._pool.driver
        with driver.current():
            stream = driver.stream()
            try:
                driver.download(copied, self.address, stream)
                stream.synchronize()
            finally:
                stream.close()
        return copied

    def __del__(self) -> None:
        self._pool.give(self._memory)


class Surfaces:
    """A pool of surfaces of ``nbytes``: it has as many as were ever held at once.

    Their addresses stay what they are until ``close``, which encoders count on: NVENC knows a picture's memory by its
    address, and keeps it registered.
    """

    def __init__(self, driver: Driver, nbytes: int) -> None:
        self.driver, self.nbytes = driver, nbytes
        self._idle: deque[DeviceMemory] = deque()
        self._closed = False

    def take(self) -> Surface:
        """One with anything in it. Inside ``driver.current()``. Raises CudaError where memory doesn't suffice."""
        try:
            memory = self._idle.popleft()
        except IndexError:
            memory = self.driver.allocate(self.nbytes)
        return Surface(self, memory)

    def give(self, memory: DeviceMemory) -> None:
        self._idle.append(memory)
        if self._closed:
            self._free()

    def close(self) -> None:
        """Give back what nobody holds; the rest goes back as soon as nobody does."""
        self._closed = True
        self._free()

    def _free(self) -> None:
        while self._idle:
            try:
                memory = self._idle.pop()
            except IndexError:
                break
            quietly(memory.close)
