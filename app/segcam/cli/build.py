"""``build-engine``, also ``segcam build``: from an ONNX export to a TensorRT plan, or to a network prepared for one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segcam.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from segcam.building.options import BuildOptions
    from segcam.engines.plan_options import PlanPrecision

_ABOUT = """\
Builds a TensorRT plan of any ONNX segmentation network, checked at every step, with a manifest that says what it is.
Without TensorRT, --target onnx writes the network ready for OpenVINO, ONNX Runtime or trtexec.
"""

_EPILOG = """\
shapes:
  --shapes MIN:OPT:MAX, each NxCxHxW (or NxHxWxC, as the network's input is): the smallest, the preferred and the
  largest picture or batch; axes on which they differ stay open, and the network must leave them open, too
      1x3x512x1024:1x3x512x1024:4x3x512x1024       one to four pictures at a time
      1x3x512x1024:1x3x1024x2048:1x3x1024x2048     two sizes and all between, tuned for the larger

precision:
  --fp16 (the default) converts the network and checks it on real pictures with every value rounded; nodes whose values
  are too large, or whose rounding costs labels, stay fp32, and are named. --int8 and --fp8 take networks that were
  quantized before, such as with nvidia-modelopt, and leave the rest of them as it is, or convert it with --fp16.

examples:
  build-engine --onnx model.onnx --fp16                         engines/model_fp16.plan
  build-engine --onnx mobilev3small_f128 --size 512,1024        a network of the zoo: see segcam models
  build-engine --onnx model.onnx --calibrate dashcam.mp4        checked on your own footage
  build-engine --onnx model.onnx --target onnx                  no GPU needed: engines/model_fp16.onnx
  build-engine --list                                           what is there, and what of it runs here
"""

_PRECISIONS: dict[PlanPrecision, str] = {
    "fp16": "half precision, where it is safe (default)",
    "fp32": "full precision (TensorRT's 10-bit TF32 is off)",
    "bf16": "bfloat16: Ampere and newer",
    "int8": "for networks that are quantized to int8 already (Q/DQ)",
    "fp8": "for networks that are quantized to fp8 already (Q/DQ): Ada, Hopper and newer",
}
#: Flags that mean something only where something is built.
_JOBS = ("list", "prune")
#: Those that go with --list and --prune.
_ALONGSIDE = {"output", "dry_run", "list", "prune"}


def console() -> int:
    """The command ``build-engine``."""
    from segcam.cli.main import main as segcam

    return segcam(["build", *sys.argv[1:]])


def main(argv: Sequence[str]) -> int:
    """Builds, lists or prunes, and returns 0. Raises SegcamError kinds."""
    parser = _parser()
    given = parser.parse(argv)
    for job in _JOBS:
        if getattr(given, job):
            return _look(given, parser, job)
    if not given.onnx:
        raise UsageError(
            "--onnx is missing: the network to build", "For example: build-engine --onnx model.onnx --fp16"
        )
    from segcam.building.run import build
    from segcam.cli.stages import Stages

    options = _options(given)
    with Stages(given.progress) as stages:
        built = build(options, stages, stages.say, stages.warn)
    print(built.text())
    return 0


def _parser() -> Any:
    from segcam.cli.args import Parser

    parser = Parser(
        "segcam build",
        usage="segcam build --onnx FILE|NAME [options]\n       build-engine --onnx FILE|NAME [options]",
        description=_ABOUT,
        epilog=_EPILOG,
    )
    what = parser.add_argument_group("what")
    what.add_argument("--onnx", metavar="FILE|NAME", default="", help="an ONNX file, or a network of the zoo")
    what.add_argument(
        "-o", "--output", metavar="FILE", default="", help="what to write (default: engines/NAME_PRECISION.plan)"
    )
    what.add_argument(
        "--target",
        metavar="WHAT",
        default="tensorrt",
        help="tensorrt: a plan; onnx: the prepared network (default: tensorrt)",
    )
    what.add_argument("--spec", metavar="FILE", default="", help="ModelSpec file (JSON), as for segcam")
    what.add_argument("--force", action="store_true", help="build again what is there, overwrite what is not Segcam's")
    what.add_argument("--dry-run", action="store_true", help="everything up to TensorRT's parser; write nothing")
    what.add_argument("--offline", action="store_true", help="fetch nothing: names only mean what is on this machine")
    types = parser.add_argument_group("precision")
    for word, about in _PRECISIONS.items():
        types.add_argument(f"--{word}", action="store_true", help=about)
    types.add_argument(
        "--calibrate",
        metavar="SOURCE",
        default="",
        help="pictures for the range check and the agreement report: any source of segcam, or random "
        "(default: street:, a made-up street)",
    )
    shape = parser.add_argument_group("its input and output")
    shape.add_argument(
        "--size", metavar="H,W", default="", help="height,width of an input that the network leaves open"
    )
    shape.add_argument("--batch", metavar="N", help="pictures at a time (default: 1, which is what segcam runs)")
    shape.add_argument("--shapes", metavar="MIN:OPT:MAX", default="", help="an input that stays open, see below")
    shape.add_argument(
        "--head",
        metavar="KIND",
        default="cut",
        help="cut: end at the coarse scores, which Segcam enlarges fastest; keep: as exported; labels: end with the "
        "class map in bytes (default: cut)",
    )
    shape.add_argument("--no-simplify", action="store_true", help="leave out onnxsim")
    shape.add_argument("--no-rewrite", action="store_true", help="leave out the exact rewrites")
    tensorrt = parser.add_argument_group("TensorRT")
    tensorrt.add_argument(
        "--workspace", metavar="SIZE", default="", help="memory a layer may borrow, such as 4G (default: all)"
    )
    tensorrt.add_argument(
        "--optimization-level", metavar="N", help="0 (quick to build) to 5 (minutes; default: TensorRT's, 3)"
    )
    tensorrt.add_argument(
        "--timing-cache",
        metavar="FILE",
        default="",
        help="what earlier builds measured, or a folder with a file for each TensorRT and GPU (default: the output's "
        "folder; none: no cache)",
    )
    tensorrt.add_argument(
        "--hardware-compat", metavar="LEVEL", help="ampere+, or same-compute-capability: runs on more GPUs, slower"
    )
    tensorrt.add_argument(
        "--version-compat", action="store_true", help="runs with newer TensorRT, too; carries code of its own"
    )
    tensorrt.add_argument("--dla", metavar="CORE", help="a Jetson's accelerator in place of the GPU")
    store = parser.add_argument_group("what is there")
    store.add_argument("--list", action="store_true", help="the plans beside --output (default: in engines/)")
    store.add_argument(
        "--prune", action="store_true", help="remove those that cannot run here (--dry-run: only say so)"
    )
    parser.add_argument(
        "--progress", metavar="auto|on|off", choices=("auto", "on", "off"), default="auto", help="progress bar"
    )
    return parser


def _options(given: argparse.Namespace) -> BuildOptions:
    from segcam.building.options import BuildOptions, parse_bytes, parse_hardware, parse_shapes
    from segcam.session import parse_size

    for flag, value, choices in (
        ("head", given.head, ("cut", "keep", "labels")),
        ("target", given.target, ("tensorrt", "onnx")),
    ):
        if value not in choices:
            raise UsageError(f"--{flag} {value}: expected {', '.join(choices)}", "See: build-engine --help")
    return BuildOptions(
        onnx=given.onnx,
        output=Path(given.output) if given.output else None,
        precisions=tuple(word for word in _PRECISIONS if getattr(given, word)),
        size=parse_size(given.size),
        batch=_whole("--batch", given.batch, 1, 1024),
        shapes=parse_shapes(given.shapes) if given.shapes else None,
        workspace=parse_bytes(given.workspace, "--workspace") if given.workspace else None,
        optimization_level=_whole("--optimization-level", given.optimization_level, 0, 5),
        timing_cache=given.timing_cache,
        hardware_compat=parse_hardware(given.hardware_compat) if given.hardware_compat else None,
        version_compat=given.version_compat,
        dla=_whole("--dla", given.dla, 0, 15),
        head=given.head,
        simplify=not given.no_simplify,
        rewrite=not given.no_rewrite,
        calibrate=given.calibrate,
        spec=given.spec,
        target=given.target,
        force=given.force,
        dry_run=given.dry_run,
        offline=given.offline,
    )


def _whole(flag: str, text: str | None, least: int, most: int) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and least <= int(text) <= most):
        raise UsageError(
            f"{flag}: found {text!r}, expected a whole number from {least} to {most}", "See: build-engine --help"
        )
    return int(text)


def _look(given: argparse.Namespace, parser: argparse.ArgumentParser, job: str) -> int:
    """--list and --prune."""
    if given.list and given.prune:
        raise UsageError("--list and --prune exclude each other", "--prune --dry-run says what would go.")
    for name, value in vars(given).items():
        if name not in _ALONGSIDE and value != parser.get_default(name):
            raise UsageError(f"--{job} and --{name.replace('_', '-')} exclude each other", "Leave one of them out.")
    from segcam.building.listing import listed, pruned
    from segcam.building.options import FOLDER

    folder = Path(given.output) if given.output else FOLDER
    if folder.suffix in (".plan", ".onnx") and not folder.is_dir():
        folder = folder.parent
    print(listed(folder) if job == "list" else pruned(folder, dry_run=given.dry_run))
    return 0
