from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import until
from zoo_server import Server

import segcam
from segcam.cli import machine
from segcam.cli.main import main
from segcam.networks import cache, zoo
from segcam.networks.download import pull

Captured = pytest.CaptureFixture[str]


def run(capsys: Captured, *arguments: str) -> tuple[int, str, str]:
    code = main(["models", *arguments])
    return code, *capsys.readouterr()


def test_the_table(own_cache: Path, capsys: Captured) -> None:
    code, out, err = run(capsys)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    for number, entry in enumerate(zoo.entries(), 1):
        cells = lines[number].split()
        assert cells[0] == entry.name and cells[-1] == "-"
        assert set(entry.aliases) <= {cell.rstrip(",") for cell in cells}
    assert "67.4 %" in out and "1.14 M" in out and "69.2" in out and "2048x1024" in out and "~8.3 MB" in out
    assert "non-commercial use only" in out and "mIoU: as published, on Cityscapes val" in out
    assert str(own_cache) in lines[-1]
    assert not own_cache.exists(), "looking makes nothing"


def test_what_is_here_is_shown(own_zoo: Path, server: Server, capsys: Captured) -> None:
    server.files["/tiny.safetensors"].cuts = [3_000_000]

    def stop(pause_s: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(zoo.entries()[0], lambda line: None, sleep=stop)
    assert "3.0 MB of the checkpoint" in run(capsys)[1]
    assert run(capsys, "pull", "tiny")[0] == 0
    assert run(capsys)[1].splitlines()[1].endswith("checkpoint 5.7 MB")
    engines = cache.folder("engines")
    for size in ("64x96", "128x192"):
        (engines / f"tiny-{size}-0123456789ab.onnx").write_bytes(bytes(1_000_000))
    assert "checkpoint 5.7 MB, exported 128x192, 64x96 (2.0 MB)" in run(capsys)[1]
    cache.checkpoint_path(zoo.entries()[0]).write_bytes(b"x")
    assert "a wrong file" in run(capsys, "list")[1]


def test_json(own_zoo: Path, own_cache: Path, capsys: Captured) -> None:
    run(capsys, "pull", "wee")
    code, out, _ = run(capsys, "--json")
    document = json.loads(out)
    assert (code, document["cache"]) == (0, str(own_cache))
    (network,) = document["networks"]
    assert (network["name"], network["size"], network["miou"], network["hash_bits"]) == ("tiny", [64, 96], 50.5, 256)
    assert network["aliases"]["wee"]["adaptive_pool"] == "torch"
    here = network["on_this_machine"]
    assert here["checkpoint_sha256"] == network["sha256"]
    assert Path(here["checkpoint"]).stat().st_size == here["checkpoint_bytes"] == network["bytes"]
    assert (here["wrong_file"], here["part_bytes"], here["exports"]) == (None, 0, [])


def test_json_has_what_an_alias_does_differently(own_cache: Path, capsys: Captured) -> None:
    networks = {network["name"]: network for network in json.loads(run(capsys, "--json")[1])["networks"]}
    own = networks["pspnet"]["aliases"]["pspnet-pytorch"]
    assert (own["adaptive_pool"], own["miou"], own["gflops"]) == ("omz", 70.6, 357.14)
    assert networks["pspnet"]["miou"] == 76.78


def test_pull_prints_paths_on_stdout_and_words_on_stderr(own_zoo: Path, server: Server, capsys: Captured) -> None:
    code, out, err = run(capsys, "pull", "wee", "tiny")
    assert (code, out) == (0, f"{cache.checkpoint_path(zoo.entries()[0])}\n")
    assert err.splitlines()[0].startswith("fetching tiny: 5.7 MB from")
    assert run(capsys, "pull", "all") == (0, out, "")
    assert len(server.seen) == 1
    assert run(capsys, "pull", "all", "--force")[0] == 0
    assert len(server.seen) == 2


def test_pull_offline_says_what_to_do(own_zoo: Path, capsys: Captured) -> None:
    code, out, err = run(capsys, "pull", "tiny", "--offline")
    assert (code, out) == (1, "")
    assert "segcam models add tiny tiny.safetensors" in err


def test_add_and_remove(own_zoo: Path, checkpoint_bytes: bytes, tmp_path: Path, capsys: Captured) -> None:
    file = tmp_path / "brought.bin"
    file.write_bytes(checkpoint_bytes)
    path = cache.checkpoint_path(zoo.entries()[0])
    assert run(capsys, "add", "tiny", str(file)) == (0, f"{path}\n", "")
    assert run(capsys, "remove", "tiny") == (0, f"removed {path}\n", "")
    assert run(capsys, "remove", "all") == (0, "", "nothing of tiny is on this machine\n")
    file.write_bytes(checkpoint_bytes[:-1] + b"x")
    code, out, err = run(capsys, "add", "tiny", str(file))
    assert (code, out) == (1, "") and "is not the checkpoint of tiny" in err
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (("pul", "x"), "no command 'pul'", "Did you mean pull?"),
        (("pspnet",), "no command 'pspnet'", "segcam models pull pspnet"),
        (("pull",), "required: NAME", "segcam models pull --help"),
        (("pull", "psp-net"), "no network is called 'psp-net'", "Did you mean pspnet?"),
        (("remove", "zzz"), "no network is called 'zzz'", "segcam models"),
        (("add", "pspnet"), "required: FILE", "segcam models add --help"),
        (("--jsn",), "no flag is called --jsn", "--json"),
        (("list", "x"), "'x' is not expected here", "segcam models --help"),
    ],
)
def test_wrong_usage(own_cache: Path, capsys: Captured, arguments: tuple[str, ...], message: str, hint: str) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert message in err and hint in err


@pytest.mark.parametrize("command", [(), ("pull",), ("add",), ("remove",)])
def test_each_command_has_help(capsys: Captured, command: tuple[str, ...]) -> None:
    code, out, _ = run(capsys, *command, "--help")
    assert code == 0 and out.startswith(" ".join(["usage: segcam models", *command]))


def test_a_terminal_gets_colours_and_the_same_words(
    own_cache: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm-256color")
    out = run(capsys)[1]
    for entry in zoo.entries():
        assert entry.name in out
    assert "\x1b[" in out and "also called" in out and "67.4 %" in out and "non-commercial" in out


def test_a_narrow_terminal_gets_fewer_columns_and_whole_cells(
    own_zoo: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(capsys, "pull", "tiny")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in run(capsys)[1].splitlines()]
    assert lines[0].split() == ["name", "mIoU", "download", "on", "this", "machine"]
    assert re.fullmatch(r"tiny +50\.5 % +5\.7 MB +checkpoint 5\.7", lines[1])
    assert lines[2].strip() == "MB", "only the last column is broken into lines"


def test_doctor_says_where_networks_lie(own_zoo: Path, own_cache: Path, capsys: Captured) -> None:
    run(capsys, "pull", "tiny")
    check = machine.computer()[-1]
    assert (check.name, check.state) == ("Models", "ok")
    assert check.found == f"{own_cache}: 1 file, 5.7 MB ('segcam models' lists them)"


def test_doctor_says_what_to_do_where_they_cannot(own_cache: Path) -> None:
    own_cache.write_text("a file where the folder should be")
    check = machine.computer()[-1]
    assert (check.state, check.fix) == ("optional", 'export SEGCAM_CACHE="${TMPDIR:-/tmp}/segcam"')
    assert str(own_cache) in check.found


def test_a_name_runs_from_the_first_word_to_the_last(
    own_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--source", "test:size=96x64", "--frames", "2", "--output", "null", "--precision", "fp32"]
    assert main(["--engine", "tiny", *arguments]) == 0
    first = capsys.readouterr().err
    assert "fetching tiny" in first and "exporting tiny for 96x64 pictures, once ..." in first
    assert "done: 2 frames" in first
    assert main(["--engine", "tiny", *arguments]) == 0
    second = capsys.readouterr().err
    assert "fetching" not in second and "exporting" not in second and "done: 2 frames" in second
    assert main(["--engine", "wee", "--size", "96,64", "--offline", *arguments]) == 0
    assert "exporting wee for 64x96 pictures" in capsys.readouterr().err


def test_ctrl_c_leaves_a_part_and_nothing_else(own_zoo: Path, server: Server) -> None:
    served = server.files["/tiny.safetensors"]
    served.cuts = [1_000_000, *[0] * 20]
    process = subprocess.Popen(
        [sys.executable, "-m", "segcam", "models", "pull", "tiny"],
        env={**os.environ, "PYTHONPATH": str(Path(segcam.__file__).parents[1])},
        stderr=subprocess.PIPE,
        text=True,
    )
    part = cache.root() / "checkpoints" / "tiny.safetensors.part"
    until(lambda: part.exists() and part.stat().st_size == 1_000_000)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    assert sorted(path.name for path in part.parent.iterdir()) == [part.name, f"{part.name}.json"]
