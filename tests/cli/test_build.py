"""``segcam build`` and ``build-engine`` as typed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from building_nets import stripes, with_head

from segcam.building.options import BuildOptions
from segcam.cli import build as command
from segcam.cli.main import main
from segcam.cli.stages import Stages


@pytest.fixture(autouse=True)
def here(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    onnx.save(with_head(stripes()), tmp_path / "net.onnx")
    return tmp_path


QUICK = ("--onnx", "net.onnx", "--target", "onnx", "--calibrate", "random")


def test_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", *QUICK, "--fp16"]) == 0
    said = capsys.readouterr()
    size = Path("engines/net_fp16.onnx").stat().st_size
    for line in (
        f"wrote engines/net_fp16.onnx: {size / 1e6:.1f} MB, ",
        "  input      x 48x32 NCHW float32, RGB",
        "  output     scores, logits",
        "  precision  fp16\n",
        "  agreement  100.000% of the labels are those of fp32 on random pictures",
        "  segcam --engine engines/net_fp16.onnx --source dashcam.mp4",
        "  trtexec --onnx=engines/net_fp16.onnx --saveEngine=engines/net_fp16.plan --stronglyTyped",
    ):
        assert line in said.out
    # Without onnxsim a warning says so.
    assert [line.split()[0] for line in said.err.splitlines() if line.startswith("  ")] == [
        "load", "simplify", "head", "rewrite", "frames", "precision", "write",
    ]  # fmt: skip


def test_the_next_command_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", *QUICK]) == 0
    line = capsys.readouterr().out.partition("next:\n")[2].split("\n")[0].split()
    assert line[0] == "segcam"
    given = ["test:size=96x64" if word == "dashcam.mp4" else word for word in line[1:]]
    for runtime in ("openvino", "onnxruntime"):
        assert main([*given, "--frames", "2", "--output", "null", "--runtime", runtime]) == 0


def test_build_engine_is_the_same_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["build-engine", *QUICK, "--fp32"])
    assert command.console() == 0
    assert "wrote engines/net_fp32.onnx" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["build-engine", "--help"])
    assert command.console() == 0
    said = capsys.readouterr().out
    assert "build-engine --onnx FILE|NAME [options]" in said and "1x3x512x1024:1x3x512x1024:4x3x512x1024" in said


def test_every_flag_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[BuildOptions] = []

    class Stop(Exception):
        pass

    def build(options: BuildOptions, *others: Any) -> None:
        seen.append(options)
        raise Stop

    monkeypatch.setattr("segcam.building.run.build", build)
    flags = (
        "--onnx small --output x.plan --int8 --fp16 --shapes 1x3x8x8:1x3x8x8:2x3x8x8 --workspace 2G"
        " --optimization-level 4 --timing-cache t.cache --hardware-compat ampere+ --version-compat --dla 1"
        " --head labels --no-simplify --no-rewrite --calibrate dashcam.mp4 --spec s.json --target tensorrt"
        " --force --dry-run --offline"
    )
    with pytest.raises(Stop):
        main(["build", *flags.split()])
    shapes = ((1, 3, 8, 8), (1, 3, 8, 8), (2, 3, 8, 8))
    assert seen == [
        BuildOptions(
            onnx="small", output=Path("x.plan"), precisions=("fp16", "int8"), shapes=shapes, workspace=2 << 30,
            optimization_level=4, timing_cache="t.cache", hardware_compat="ampere+", version_compat=True, dla=1,
            head="labels", simplify=False, rewrite=False, calibrate="dashcam.mp4", spec="s.json", force=True,
            dry_run=True, offline=True,
        )
    ]  # fmt: skip
    with pytest.raises(Stop):
        main(["build", "--onnx", "net.onnx", "--size", "64,96", "--batch", "2"])
    assert seen[1] == BuildOptions(onnx="net.onnx", size=(64, 96), batch=2)


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        ([], "--onnx is missing", "build-engine --onnx model.onnx --fp16"),
        (["net.onnx"], "'net.onnx' is not expected here", "segcam build --help"),
        ([*QUICK, "--fp17"], "no flag is called --fp17", "Did you mean --fp16?"),
        ([*QUICK, "--fp16", "--fp32"], "--fp16 and --fp32 exclude each other", "Leave one of them out"),
        ([*QUICK, "--size", "64,96", "--shapes", "1x3x8x8:1x3x8x8:2x3x8x8"], "--size and --shapes", "--shapes 1x3"),
        ([*QUICK, "--shapes", "1x3x8x8"], "expected MIN:OPT:MAX", "for example --shapes"),
        ([*QUICK, "--size", "64"], "--size '64' is not a size", "--size 512,1024"),
        ([*QUICK, "--batch", "0"], "--batch: found '0', expected a whole number from 1 to 1024", "--help"),
        ([*QUICK, "--optimization-level", "9"], "from 0 to 5", "--help"),
        ([*QUICK, "--workspace", "much"], "--workspace 'much' is not an amount of memory", "--workspace 4G"),
        ([*QUICK, "--hardware-compat", "all"], "--hardware-compat all: expected ampere+ or", "--help"),
        ([*QUICK, "--head", "off"], "--head off: expected cut, keep, labels", "--help"),
        ([*QUICK, "--target", "plan"], "--target plan: expected tensorrt, onnx", "--help"),
        ([*QUICK, "--dla", "x"], "--dla: found 'x'", "--help"),
        ([*QUICK, "--output", "net.plan"], "the output net.plan does not end in .onnx", "net.onnx"),
        ([*QUICK, "--output", "net.onnx"], "net.onnx is the network itself", "--output"),
        (["--list", "--prune"], "--list and --prune exclude each other", "--dry-run"),
        (["--list", "--onnx", "net.onnx"], "--list and --onnx exclude each other", "Leave one"),
        (["--prune", "--fp16"], "--prune and --fp16 exclude each other", "Leave one"),
    ],
)
def test_wrong_usage_is_two_lines_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], here: Path, arguments: list[str], message: str, hint: str
) -> None:
    assert main(["build", *arguments]) == 2
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert lines[-2].startswith("segcam: error: ") and message in lines[-2]
    assert hint in lines[-1]
    assert said.out == "" and not (here / "engines").exists()


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["--onnx", "nt.onnx"], "there is no file nt.onnx", "Did you mean net.onnx?"),
        (["--onnx", "mobilev3small_f129"], "no network of the zoo is called that", "segcam models"),
        ([*QUICK, "--size", "64,96"], "--size says 96x64, but the input of net.onnx is fixed", "Export the network"),
        ([*QUICK, "--batch", "2"], "its batch is fixed at 1, expected 2", "batch 2 or dynamic"),
        ([*QUICK, "--shapes", "1x3x32x48:1x3x32x48:2x3x32x48"], "axis 0 of its input is fixed at 1", "--batch dynamic"),
        ([*QUICK, "--calibrate", "nowhere.mp4"], "nowhere.mp4", ""),
        ([*QUICK, "--int8"], "--int8 needs a network with QuantizeLinear", "quantize_mode='int8'"),
        ([*QUICK, "--spec", "none.json"], "the spec file none.json does not exist", "--spec"),
    ],
)
def test_a_users_mistake_is_exit_code_1(
    capsys: pytest.CaptureFixture[str], here: Path, arguments: list[str], message: str, hint: str
) -> None:
    target = [] if "--target" in arguments else ["--target", "onnx"]
    assert main(["build", *arguments, *target]) in (1, 2)
    said = capsys.readouterr()
    assert message in said.err and hint in said.err and "Traceback" not in said.err
    assert said.out == "" and not (here / "engines").exists()


def test_without_onnxsim_it_says_how_to_get_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxsim", None)  # type: ignore[arg-type]
    assert main(["build", *QUICK, "--fp32"]) == 0
    warning = "segcam: warning: net.onnx is not simplified: onnxsim is not installed (pip install onnxsim)"
    assert warning in capsys.readouterr().err


def test_without_tensorrt(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # type: ignore[arg-type]
    assert main(["build", "--onnx", "net.onnx", "--fp16"]) == 1
    said = capsys.readouterr().err
    assert "segcam: error: TensorRT is not installed" in said
    assert "pip install" in said and "--target onnx" in said


def test_listing_and_pruning(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # type: ignore[arg-type]
    assert main(["build", *QUICK, "--output", "there/x.onnx"]) == 0
    capsys.readouterr()
    assert main(["build", "--list"]) == 0
    assert "engines has no plans" in capsys.readouterr().out
    for output in ("there", "there/x.onnx", "there/none.plan"):
        assert main(["build", "--list", "--output", output]) == 0
        assert "x.onnx" in capsys.readouterr().out
    assert main(["build", "--prune", "--dry-run"]) == 1
    assert "nothing is removed" in capsys.readouterr().err


def test_help_and_mistakes_load_nothing_heavy(run_segcam: Callable[..., Any]) -> None:
    for arguments in (("build", "--help"), ("build", "--fp17")):
        done = run_segcam(*arguments, python_flags=("-X", "importtime"))
        loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
        assert "argparse" in loaded
        assert loaded & {"numpy", "onnx", "onnxruntime", "openvino", "numba", "tensorrt", "rich", "cv2", "av"} == set()


def test_stages_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Stages("on") as stages:
        stages.begin("build")
        stages.step(3, 10, "[red]timing[/red] conv_1")
        stages.say("a line between")
        stages.end("build", "12 s [fast]")
        stages.warn("mind this")
    said = capsys.readouterr().err
    for words in ("a line between", "build      12 s [fast]", "segcam: warning: mind this"):
        assert words in said


def test_stages_elsewhere_are_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with Stages("auto") as stages:
        stages.begin("build")
        stages.step(3, 10, "timing")
        stages.end("build", "12 s")
    assert capsys.readouterr().err == "  build      12 s\n"
