"""gpu_check as a run: parts that die, hang and run out of time; wheels carried along; targets; the JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from waiting import until

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import gpu_check  # noqa: E402
from gpucheck import wheels  # noqa: E402
from gpucheck.base import Context, Finding  # noqa: E402
from gpucheck.document import Document  # noqa: E402
from gpucheck.page import exit_code, page  # noqa: E402
from gpucheck.targets import TARGETS, outcomes  # noqa: E402

#: A part: it says one thing, and then does what ``{end}`` says.
PART = """
import json, os, subprocess, sys, time
sys.path.insert(0, {scripts!r})
from gpucheck import child
child.adopt()
report = sys.argv[sys.argv.index("--json") + 1]
entry = dict(part="machine", name="a", state="ok", words="b", figures={{}}, target="")
with open(report, "w") as file:
    json.dump(dict(findings=[entry], complete={complete}), file)
print("last words", file=sys.stderr, flush=True)
{end}
"""


def part(folder: Path, end: str, complete: bool = False) -> Path:
    path = folder / "part.py"
    path.write_text(PART.format(scripts=str(SCRIPTS), end=end, complete=complete))
    return path


@pytest.mark.parametrize(
    ("end", "complete", "words"),
    [
        ("os._exit(9)", True, "ended with 9"),
        ("os.kill(os.getpid(), 11)", False, "ended by SIGSEGV"),
        # As an exception that nobody caught does.
        ("sys.exit(1)", False, "ended with 1"),
    ],
)
def test_a_part_that_dies_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], end: str, complete: bool,
    words: str,
) -> None:  # fmt: skip
    """Its process is another: what it had found before stays, and its last words are kept."""
    monkeypatch.setattr(gpu_check, "__file__", str(part(tmp_path, end, complete)))
    report = tmp_path / "report.json"
    code = gpu_check.main(["--json", str(report), "--only", "machine"])
    document = json.loads(report.read_text("utf-8"))
    findings = document["findings"]
    assert code == 1 == document["exit_code"] and [finding["name"] for finding in findings] == ["a", "process"]
    assert words in findings[1]["words"] and "last words" in findings[1]["figures"]["said"]
    assert document["parts"]["machine"]["state"] == "failed" and words in document["parts"]["machine"]["why"]
    assert "Something does not hold." in capsys.readouterr().out


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


#: It starts another process, as compute-sanitizer is one, and neither ends.
HANGS = """
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open({pids!r}, "w") as file:
    print(os.getpid(), other.pid, file=file)
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("options", "state", "words"),
    [
        (["--patience", "2"], "failed", "not done after 2 s"),
        # It may have needed no more than a little.
        (["--budget", "6"], "absent", "all that was left of the 6 s of --budget"),
    ],
)
def test_a_part_that_hangs_ends_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], state: str, words: str
) -> None:
    pids = tmp_path / "pids"
    monkeypatch.setattr(gpu_check, "__file__", str(part(tmp_path, HANGS.format(pids=str(pids)))))
    report = tmp_path / "report.json"
    gpu_check.main(["--json", str(report), "--only", "machine", "drivers", "--patience", "30", *options])
    document = json.loads(report.read_text("utf-8"))
    first = next(finding for finding in document["findings"] if finding["name"] == "process")
    assert first["state"] == state and words in first["words"] and document["complete"]
    if "--budget" in options:
        assert document["parts"]["drivers"]["why"] == "all: no time left of the 6 s of --budget"
    # Processes end some time after they are told to.
    until(lambda: all(gone(int(pid)) for pid in pids.read_text().split()))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_nothing_outlives_the_check(tmp_path: Path, number: signal.Signals) -> None:
    """However it is ended; and what was known is on disk."""
    pids, report = tmp_path / "pids", tmp_path / "report.json"
    path = part(tmp_path, f"open({str(pids)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)")
    program = (
        f"import sys, signal; sys.path.insert(0, {str(SCRIPTS)!r}); import gpu_check\n"
        f"gpu_check.__file__ = {str(path)!r}; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sys.exit(gpu_check.run(['--json', {str(report)!r}, '--only', 'machine']))"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE) as check:
        try:
            until(lambda: report.exists() and bool(json.loads(report.read_text("utf-8"))["findings"]))
            check.send_signal(number)
            code = check.wait(30)
        finally:
            check.kill()
    assert code == {signal.SIGTERM: 143, signal.SIGINT: 130}.get(number, -number)
    document = json.loads(report.read_text("utf-8"))
    assert [finding["name"] for finding in document["findings"]] == ["a"] and not document["complete"]
    until(lambda: gone(int(pids.read_text())))


def wheel(folder: Path, name: str, files: dict[str, bytes] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    package, version = name.split("-")[:2]
    metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n".encode()
    with zipfile.ZipFile(folder / name, "w") as made:
        for path, data in {f"{package}-{version}.dist-info/METADATA": metadata, **(files or {})}.items():
            made.writestr(path, data)
    return folder / name


def test_wheels_are_unpacked_and_seen_by_every_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    wheel(tmp_path / "wheels", "pycuda-2026.9-py3-none-any.whl")
    monkeypatch.setattr(sys, "path", [*sys.path])
    report = tmp_path / "report.json"
    gpu_check.main(["--json", str(report), "--only", "machine", "--wheels", str(tmp_path / "wheels")])
    document = json.loads(report.read_text("utf-8"))
    assert document["versions"]["pycuda"] == "2026.9"
    assert capfd.readouterr().out.count("timed  machine    packages:") == 1


def unpacked(folders: list[Path], target: Path) -> dict[str, tuple[str, str]]:
    return {finding.name: (finding.state, finding.words) for finding in wheels.unpack(folders, target)}


def test_pieces_are_joined_across_folders(tmp_path: Path) -> None:
    """As transfers of limited size leave them; nothing is written beside them."""
    data = os.urandom(5000)
    whole = wheel(
        tmp_path / "first", "big-1.0-py3-none-any.whl", {"big/data.bin": data, "big-1.0.data/purelib/x.py": b"1"}
    )
    content = whole.read_bytes()
    whole.unlink()
    (tmp_path / "second").mkdir()
    for number, begin in enumerate(range(0, len(content), 1000)):
        folder = tmp_path / ("second" if number in (0, 3) else "first")
        (folder / f"{whole.name}.{number:02}").write_bytes(content[begin : begin + 1000])
    before = sorted(tmp_path.rglob("*"))
    found = unpacked([tmp_path / "first", tmp_path / "second"], tmp_path / "work" / "wheels")
    assert found == {"unpacked": ("timed", "big 1.0")}
    assert (tmp_path / "work" / "wheels" / "big" / "data.bin").read_bytes() == data
    assert (tmp_path / "work" / "wheels" / "x.py").read_bytes() == b"1"
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["wheels"]
    assert [path for path in sorted(tmp_path.rglob("*")) if "work" not in path.parts] == before
    for missing, words in ((2, "only 0, 1, 3, 4, 5 are there"), (5, "its last piece is missing")):
        lacking = tmp_path / f"lacking{missing}"
        lacking.mkdir()
        for piece in tmp_path.glob("[fs]*/*.whl.*"):
            if not piece.name.endswith(f"{missing}"):
                (lacking / piece.name).write_bytes(piece.read_bytes())
        found = unpacked([lacking], tmp_path / f"out{missing}" / "wheels")
        assert found[whole.name][0] == "failed" and words in found[whole.name][1]
        assert found["unpacked"] == ("timed", "none that fits")


OWN = f"cp{sys.version_info[0]}{sys.version_info[1]}"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (f"a-1-{OWN}-{OWN}-any.whl", ""),
        ("a-1-cp37-abi3-any.whl", ""),
        ("a-1-py2.py3-none-any.whl", ""),
        ("a-1-1build-py3-none-any.whl", ""),
        ("a-1-cp36-cp36m-any.whl", "made for cp36"),
        ("a-1-cp399-abi3-any.whl", "made for cp399"),
        (f"a-1-{OWN}-{OWN}t-any.whl", "without its lock"),
        ("a-1-py3-none-manylinux_2_17_vax.whl", "made for manylinux_2_17_vax"),
        ("a-1.whl", "none of a wheel"),
    ],
)
def test_wheels_of_others_are_refused_by_name(tmp_path: Path, name: str, words: str) -> None:
    wheel(tmp_path / "in", name)
    found = unpacked([tmp_path / "in"], tmp_path / "out")
    if words:
        assert found[name][0] == "failed" and words in found[name][1] and found["unpacked"][1] == "none that fits"
    else:
        assert found == {"unpacked": ("timed", "a 1")}


def test_one_of_two_is_used(tmp_path: Path) -> None:
    """Of two versions, and of two packages that are imported under one name."""
    for name in ("onnxruntime-1-py3-none-any.whl", "onnxruntime_gpu-1-py3-none-any.whl", "b-1-py3-none-any.whl"):
        wheel(tmp_path / "in", name)
    wheel(tmp_path / "in", "b-2-py3-none-any.whl")
    found = unpacked([tmp_path / "in"], tmp_path / "out")
    assert found.pop("unpacked") == ("timed", "b 1, onnxruntime-gpu 1")
    assert {name: state for name, (state, _) in found.items()} == {
        "b-2-py3-none-any.whl": "failed",
        "onnxruntime-1-py3-none-any.whl": "failed",
    }


def test_help_names_what_to_carry(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu_check.main(["--help"])
    out = capsys.readouterr().out
    for names in wheels.CARRIED.values():
        assert all(word in out for word in names.split())
    assert "split -d" in out


def speed(quick: bool, good: bool) -> Finding:
    context = Context("bandwidth", 0, (64, 128), quick, 4, Path())
    return context.at_speed("a case", good, "3 times", target="preprocess", ratio=3.0)


def state(findings: list[Finding], quick: bool = False, of: str = "preprocess") -> tuple[str, str]:
    (found,) = [outcome for outcome in outcomes(findings, quick) if outcome.target == of]
    return found.state, found.why


def test_targets_are_held_missed_or_not_measured() -> None:
    absent = Finding("bandwidth", "all", "absent", "no GPU")
    dead = Finding("bandwidth", "process", "failed", "its process was ended by SIGSEGV")
    assert state([speed(False, True)]) == ("held", "")
    assert state([speed(False, True), speed(False, False)]) == ("missed", "a case: 3 times")
    assert state([speed(True, False)], quick=True) == ("not measured", "--quick measures no speed")
    assert state([absent]) == ("not measured", "bandwidth: no GPU")
    assert state([]) == ("not measured", "bandwidth did not run")
    # What it would have found is not known.
    assert state([speed(False, True), dead]) == ("held", "bandwidth: its process was ended by SIGSEGV")
    assert state([dead])[0] == "not measured"
    kernels = Finding("kernels", "x", "ok", ""), Finding("kernels", "y", "failed", "differs")
    assert state([kernels[0]], of="kernels") == ("held", "")
    assert state([*kernels], of="kernels") == ("missed", "y: differs")
    assert {part for target in TARGETS.values() for part in target.parts} <= set(gpu_check.PARTS)


KEYS = {
    "schema", "begun", "written", "complete", "verdict", "exit_code", "asked", "machine", "versions", "targets",
    "parts", "findings",
}  # fmt: skip


def test_the_document_has_all_its_keys_whatever_ran(tmp_path: Path) -> None:
    """With nothing found at all, and with a GPU."""
    path = tmp_path / "sub" / "a.json"
    document = Document(str(path), {"quick": False})
    document.write()
    assert set(json.loads(path.read_text())) == KEYS
    document.findings += [
        Finding("machine", "gpu", "timed", "", {"gpu": "Some GPU"}),
        Finding("machine", "packages", "timed", "", {"numpy": "2", "av": None}),
        Finding("bandwidth", "x", "ok", "", {"ratio": 1.5}, "preprocess"),
        Finding("ptx", "pycuda", "absent", "not installed"),
        Finding("ptx", "cuda-python", "ok", ""),
    ]
    document.seconds = {"machine": 1.0, "bandwidth": 2.0, "ptx": 0.1}
    document.write()
    made: dict[str, Any] = json.loads(path.read_text())
    assert set(made) == KEYS and set(made["targets"]) == set(TARGETS)
    assert made["machine"]["gpu"] == {"gpu": "Some GPU"} and made["versions"] == {"numpy": "2"}
    assert made["parts"]["ptx"] == {"state": "partly", "why": "pycuda: not installed", "seconds": 0.1, "findings": 2}
    assert made["targets"]["preprocess"]["state"] == "held" and made["exit_code"] == 0
    assert [path.name for path in path.parent.iterdir()] == ["a.json"]


def test_what_findings_amount_to() -> None:
    ran, missing = Finding("kernels", "a", "ok", "b|c\nd"), Finding("ptx", "a", "absent", "")
    here, wrong = Finding("machine", "a", "timed", ""), Finding("machine", "a", "failed", "")
    # What a compiler says needs no GPU.
    compiled = Finding("resources", "a", "ok", "")
    assert exit_code([here, missing]) == exit_code([here, compiled]) == 3
    assert exit_code([here, ran, missing]) == 0 and exit_code([ran, wrong]) == 1
    rows = [line for line in page([ran, missing, wrong], False).splitlines() if line.startswith("|")]
    assert rows[2].startswith("| failed |") and {row.count("|") for row in rows[:5]} == {5}
    assert {row.count("|") for row in rows[5:]} == {4} and len(rows) == 5 + 2 + len(TARGETS)
