"""``segcam export``: a network from its checkpoint to an ONNX file."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from segcam.errors import UsageError

if TYPE_CHECKING:
    from segcam.exporter import ExportReport

_EXAMPLES = """\
examples:
  segcam export small.onnx --model MobileV3Small --checkpoint weights.pt
  segcam export small.onnx --model mobilev3small_f128 --size 512,1024     weights from the zoo: see segcam models
  segcam export psp.onnx --model PSPNet --checkpoint psp.pth --head labels --embed-preprocessing
  segcam export mine.onnx --model FastSCNN --checkpoint mine.pth --names classes.txt
  segcam export dummy.onnx --model MobileV3Large --init random            untrained: to see how fast it is
"""


def main(argv: Sequence[str]) -> int:
    """Writes the network, prints what it is and what to type next, returns 0. Raises SegcamError kinds."""
    from segcam.cli.args import Parser

    parser = Parser(
        "segcam export",
        usage="segcam export OUT.onnx --model NAME [--checkpoint FILE] [options]",
        description="Writes a network as ONNX, with how it is to be fed and read inside. Needs no PyTorch.",
        epilog=_EXAMPLES,
    )
    parser.add_argument("output", metavar="OUT.onnx", nargs="?", help="the file to write")
    what = parser.add_argument_group("which network")
    what.add_argument(
        "--model",
        metavar="NAME",
        help="MobileV3Small, MobileV3Large, FastSCNN or PSPNet; or a name of the zoo, whose weights are then fetched",
    )
    what.add_argument(
        "--checkpoint",
        metavar="FILE",
        help=".pt, .pth or .safetensors of fastseg, mmsegmentation, or a plain state dict",
    )
    what.add_argument("--init", metavar="random", help="random weights in place of a checkpoint: UNTRAINED")
    what.add_argument("--seed", metavar="N", default="0", help="of --init random (default: 0)")
    what.add_argument(
        "--num-filters", metavar="N", help="of MobileV3Small and MobileV3Large (default: the checkpoint's, else 128)"
    )
    what.add_argument(
        "--num-classes",
        "--classes",
        metavar="N",
        help="how many classes (default: the checkpoint's, else 19; PSPNet 21)",
    )
    what.add_argument(
        "--names",
        metavar="FILE",
        help="the classes' names, one a line, or JSON with colours; or cityscapes, voc, camvid "
        "(default: Cityscapes for 19 classes, VOC for 21)",
    )
    what.add_argument(
        "--adaptive-pool",
        metavar="KIND",
        help="PSPNet's pyramid: torch, as PyTorch computes it, or omz, as Open Model Zoo's file does "
        "(default: torch, or the zoo's)",
    )
    shape = parser.add_argument_group("its input and output")
    shape.add_argument(
        "--size", metavar="H,W", default="", help="height,width in pixels (default: 1024,2048; PSPNet 512,512)"
    )
    shape.add_argument("--batch", metavar="N", default="1", help="pictures at a time, or dynamic (default: 1)")
    shape.add_argument(
        "--head",
        metavar="KIND",
        default="scores",
        help="scores: coarse ones, which Segcam enlarges fastest; logits: at full size, as the original; "
        "labels: the class map (default: scores)",
    )
    shape.add_argument(
        "--embed-preprocessing", action="store_true", help="BGR 0..255 in, as Open Model Zoo's converted models"
    )
    file = parser.add_argument_group("the file")
    file.add_argument("--fp16", action="store_true", help="store weights as float16: half the size")
    file.add_argument(
        "--rewrite",
        metavar="WHEN",
        default="auto",
        help="exact rewrites that make it faster: auto, on (all of them) or off (default: auto)",
    )
    file.add_argument("--force", action="store_true", help="overwrite a file that Segcam did not export")
    given = parser.parse(argv)
    for name, value in (("OUT.onnx", given.output), ("--model", given.model)):
        if not value:
            raise UsageError(f"{name} is missing", "For example: segcam export small.onnx --model mobilev3small_f128")
    from segcam.exporter import export
    from segcam.session import parse_size

    report = export(
        given.output,
        given.model,
        num_filters=_whole("--num-filters", given.num_filters),
        num_classes=_whole("--num-classes", given.num_classes),
        size=parse_size(given.size),
        batch=0 if given.batch == "dynamic" else _whole("--batch", given.batch, " or dynamic") or 1,
        checkpoint=given.checkpoint,
        init=given.init,
        seed=_whole("--seed", given.seed, least=0) or 0,
        head=given.head,
        adaptive_pool=given.adaptive_pool,
        embed_preprocessing=given.embed_preprocessing,
        fp16=given.fp16,
        rewrite=given.rewrite,
        class_names=given.names,
        force=given.force,
        warn=_warn,
        say=_say,
    )
    print(describe(report))
    return 0


def describe(report: ExportReport) -> str:
    """What was written, and the next commands."""
    from segcam.classes import CITYSCAPES

    options, spec = report.options, report.spec
    filters = f"{options.num_filters} filters, " if options.model.startswith("MobileV3") else ""
    fed, read = spec.input, spec.output
    normalised = "0..255" if fed.std == (1.0, 1.0, 1.0) else "normalised"
    enlarged = ", enlarged by Segcam" if report.output_shape[-2:] != options.size else ""
    path = str(report.path)
    lines = [
        f"wrote {path}: {report.bytes / 1e6:.1f} MB, {report.nodes} nodes",
        f"  network   {options.model}, {filters}{options.num_classes} classes: {report.parameters / 1e6:.2f} M "
        f"parameters, {report.gflops:.1f} GFLOPs",
        f"  weights   {report.weights}",
        f"  input     {fed.name} {_dims(report.input_shape)} float32, {fed.color} {normalised}",
        f"  output    {read.name} {_dims(report.output_shape)} "
        f"{'int64 labels' if read.kind == 'labels' else 'float32'}{enlarged}",
        f"  rewrites  {', '.join(report.rewrites) or 'none'}",
        "next:",
        f"  segcam --engine {path} --source dashcam.mp4",
        f"  segcam --engine {path} --source test: --frames 100 --benchmark",
    ]
    if not report.untrained and spec.classes == CITYSCAPES:
        lines.append(f"  segcam eval --engine {path} --dataset cityscapes:PATH")
    if options.batch > 1:
        lines[lines.index("next:") :] = [
            f"Segcam runs batch 1: this file, of batch {options.batch}, is for other programs."
        ]
    return "\n".join(lines)


def _dims(shape: tuple[int, ...]) -> str:
    return "x".join(str(n) if n else "N" for n in shape)


def _whole(flag: str, text: str | None, more: str = "", least: int = 1) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or int(text) < least:
        raise UsageError(
            f"{flag}: found {text!r}, expected a whole number from {least}{more}", "See: segcam export --help"
        )
    return int(text)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _warn(line: str) -> None:
    _say(f"segcam: warning: {line}")
