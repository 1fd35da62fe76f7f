"""What the tests of gpu_check share."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cuda_shim import HostKernels, library, need_compiler
from cuda_shim.on_machine import put_kernels_on
from standin_cuda import Machine, install

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import gpu_check
from gpucheck.targets import TARGETS

Check = Callable[..., tuple[int, list[dict[str, Any]]]]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Exit code and findings of some parts, in this process."""

    def run(*only: str, more: tuple[str, ...] = ()) -> tuple[int, list[dict[str, Any]]]:
        report = tmp_path / "report.json"
        arguments = ["--json", str(report), "--quick", "--in-process", "--size", "64x128", "--runs", "4", *more]
        code = gpu_check.main([*arguments, "--only", *only])
        document = json.loads(report.read_text("utf-8"))
        assert document["complete"]
        for finding in document["findings"]:
            # What decides about a target is looked for in that target's parts.
            assert not finding["target"] or finding["part"] in TARGETS[finding["target"]].parts, finding
        return code, document["findings"]

    return run


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A GPU whose kernels compute; nothing of it is left over."""
    need_compiler()
    machine = install(monkeypatch)
    put_kernels_on(machine, HostKernels(library()))
    yield machine
    assert not any(machine.leftovers().values()), machine.leftovers()
