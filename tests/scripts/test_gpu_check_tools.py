"""What gpu_check makes of NVIDIA's programs: compute-sanitizer, ptxas and nvcc, as scripts that say what these say."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from standin_cuda import Machine

from segcam.kernels.cuda import ptx

Check = Callable[..., tuple[int, list[dict[str, Any]]]]
Program = Callable[[str, str], None]


def states(findings: list[dict[str, Any]]) -> dict[str, str]:
    return {finding["name"]: finding["state"] for finding in findings}


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Puts a shell script on the PATH, which has nothing else of NVIDIA's."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "sleep", "cat"):
        (folder / name).symlink_to(shutil.which(name) or pytest.fail(name))
    monkeypatch.setenv("PATH", str(folder))

    def make(name: str, script: str) -> None:
        (folder / name).write_text(f"#!{folder / 'sh'}\n{script}\n")
        (folder / name).chmod(0o755)

    return make


@pytest.mark.parametrize(
    ("says", "code", "state"),
    [
        ("========= ERROR SUMMARY: 0 errors", 0, "ok"),
        ("========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)", 0, "ok"),
        ("========= ERROR SUMMARY: 3 errors", 9, "failed"),
        ("========= ERROR SUMMARY: 3 errors", 0, "failed"),
        ("it did not start", 1, "failed"),
        # As on some virtual machines.
        ("========= Error: Device not supported. Please refer to the list", 1, "absent"),
    ],
)
def test_what_the_sanitizer_says_counts(
    machine: Machine, check: Check, program: Program, says: str, code: int, state: str
) -> None:
    program("compute-sanitizer", f"echo '{says}'; exit {code}")
    _, findings = check("sanitizer")
    assert states(findings) == dict.fromkeys(["memcheck", "racecheck", "synccheck", "initcheck"], state)
    assert says.removeprefix("========= ").partition(": ")[2] in findings[0]["words"]


def test_each_of_the_sanitizers_tools_gets_its_share_of_the_time(
    machine: Machine, check: Check, program: Program
) -> None:
    """None of them takes it from the next."""
    program("compute-sanitizer", "exec sleep 60")
    _, findings = check("sanitizer", more=("--patience", "9"))
    assert states(findings) == dict.fromkeys(["memcheck", "racecheck", "synccheck", "initcheck"], "absent")
    assert all("not done after 1 s" in finding["words"] for finding in findings)


def log(names: list[str], registers: int = 40, spilled: int = 0) -> str:
    return "\n".join(
        f"ptxas info    : Compiling entry function '{name}' for 'sm_89'\n"
        f"ptxas info    : Function properties for {name}\n"
        f"    0 bytes stack frame, {spilled} bytes spill stores, 0 bytes spill loads\n"
        f"ptxas info    : Used {registers} registers, used 1 barriers, 12068 bytes smem"
        for name in names
    )


def entries(file: ptx.KernelFile) -> list[str]:
    text = ptx.read_ptx(file).decode()
    return [line.split(".visible .entry ")[1].split("(")[0] for line in text.splitlines() if ".visible .entry" in line]


@pytest.mark.parametrize(
    ("registers", "spilled", "missing", "state", "words"),
    [
        (64, 0, 0, "ok", "at most 64 registers"),
        (65, 0, 0, "failed", "at most 65 registers"),
        (40, 16, 0, "failed", "spills in preprocess_"),
        (40, 0, 1, "failed", " of 5 kernels"),
    ],
)
def test_registers_and_spills_of_every_kernel(
    machine: Machine, check: Check, program: Program, tmp_path: Path, registers: int, spilled: int, missing: int,
    state: str, words: str,
) -> None:  # fmt: skip
    for file in ptx.KERNEL_FILES:
        (tmp_path / file).write_text(log(entries(file)[missing:], registers, spilled))
    program(
        "ptxas", f'for last; do :; done; case "$*" in *preprocess.ptx*) cat {tmp_path}/preprocess;; '
        f"*) cat {tmp_path}/postprocess;; esac"
    )  # fmt: skip
    _, findings = check("resources")
    found = states(findings)
    # For the GPU that is there.
    assert found["preprocess.ptx, ptxas, sm_89"] == found["postprocess.ptx, ptxas, sm_89"] == state
    assert found["preprocess.cu"] == found["postprocess.cu"] == "absent"
    assert words in findings[0]["words"]
    assert len(findings[0]["figures"]["kernels"]) == 5 - missing


@pytest.mark.parametrize(
    ("says", "state"),
    [
        ("ptxas fatal   : Value 'sm_89' is not defined for option 'gpu-name'", "absent"),
        ("ptxas fatal   : Unsupported .version 8.0; current version is '7.0'", "absent"),
        ("ptxas error   : Entry function uses too much shared data", "failed"),
    ],
)
def test_an_assembler_that_is_too_old_is_no_fault(
    machine: Machine, check: Check, program: Program, says: str, state: str
) -> None:
    program("ptxas", f'echo "{says}" >&2; exit 255')
    _, findings = check("resources")
    assert findings[0]["state"] == state and says.split(":")[1].strip()[:20] in findings[0]["words"]
