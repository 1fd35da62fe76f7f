"""The real cuda-python, called by the adapter, over a driver in C that works in host memory.

What the stand-in cannot show: that the real functions take the very values that the adapter gives them, and hand them
on to a driver as they are meant.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import driver_in_c
import pytest
from real_bindings import cuda_bindings

PROGRAM = """
import threading
import numpy as np
from segcam.errors import CudaError
from segcam.kernels.cuda.driver import open_driver

driver = open_driver("cuda-python")
print(driver.device.name, driver.device.compute_capability, driver.device.driver_version, driver.device.memory_bytes)

def work():
    with driver.current():
        assert driver.memory() == (7 << 30, 8 << 30)
        stream, before, after, plain = driver.stream(), driver.event(), driver.event(), driver.event(timing=False)
        one, other, pinned = driver.allocate(1000), driver.allocate(1000), driver.pinned(1000)
        pinned.array[:] = np.arange(1000) % 251
        before.record(stream)
        driver.upload(one.address, pinned.array, stream)
        driver.copy(other.address, one.address, 1000, stream)
        driver.fill(other.address, 7, 10, stream)
        out, scores = np.zeros(1000, np.uint8), np.zeros((2, 3), np.float32)
        driver.download(out, other.address, stream)
        driver.download(scores, other.address, stream)
        after.record(stream)
        plain.record(stream)
        stream.wait(plain)
        after.synchronize()
        stream.synchronize()
        assert stream.idle() and after.done() and after.ms_since(before) >= 0
        assert (out[:10] == 7).all() and (out[10:] == pinned.array[10:]).all()
        assert (scores.view(np.uint8).ravel() == out[:24]).all()
        module = driver.load_module(b".version 8.0\\n")
        kernel = module.function("kernel")
        arguments = [other.address, np.int32(-5), np.float32(2.5), np.uint8(3)]
        driver.launch(kernel, (1, 2, 3), (32, 4, 1), arguments, stream, shared_bytes=64)
        try:
            module.function("nothing")
        except CudaError as error:
            print(error.name, error.message)
        with driver.capture(stream) as capture:
            driver.fill(other.address, 9, 10, stream)
        capture.graph.launch(stream)
        capture.graph.close()
        for thing in (before, after, plain, one, other, pinned, stream):
            thing.close()

for _ in range(2):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
work()
driver.close()
print("closed")
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a libcuda.so.1."""
    return driver_in_c.build(tmp_path_factory.mktemp("driver"))


@pytest.mark.parametrize("version", ["12.8.0", "12.9.*", "13.*"])
def test_the_adapter_works_with_the_real_library(repository: Path, driver: Path, version: str) -> None:
    paths = [str(cuda_bindings(version)), str(repository / "app")]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "LD_LIBRARY_PATH": str(driver)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, *errors, last = done.stdout.splitlines()
    assert first == f"Driver in C (8, 9) (13, 0) {8 << 30}" and last == "closed"
    assert len(errors) == 3 and all("CUDA_ERROR_NOT_FOUND" in line and "named symbol" in line for line in errors)
    notes = Counter(done.stderr.splitlines())
    assert notes["launch 1 2 3 of 32 4 1, 64 shared: byte 7, -5, 2.5, 3"] == 3
    assert notes["capture mode 1"] == 3  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    assert notes["pin 1000 flags 1"] == 3 and notes["stream flags 1"] == 3  # portable; not waiting for the default one
    assert (notes["event flags 0"], notes["event flags 2"]) == (6, 3)
    for made, gone in (("retain", "release"), ("allocate 1000", "free"), ("module .version", "no module")):
        assert notes[made] == notes[gone] > 0, notes
    gone = {"unpin": 3, "no stream": 3, "no event": 9, "no graph": 3, "no executable": 3, "launch graph": 3}
    assert {name: notes[name] for name in gone} == gone
