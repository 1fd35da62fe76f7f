"""A stand-in GPU for each test, and a driver on it through each library."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from standin_cuda import Machine, install

from segcam.kernels.cuda.driver import Driver, Kind, open_driver


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return install(monkeypatch)


@pytest.fixture(params=["pycuda", "cuda-python"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def driver(machine: Machine, kind: Kind) -> Iterator[Driver]:
    """A driver that must leave nothing behind, whatever the test did."""
    opened = open_driver(kind)
    yield opened
    opened.close()
    gc.collect()
    assert not any(machine.leftovers().values()), machine.leftovers()


@pytest.fixture
def inside(driver: Driver) -> Iterator[Driver]:
    """The driver with its context current."""
    with driver.current():
        yield driver
