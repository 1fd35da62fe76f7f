"""``segcam eval``: how good a network is on a data set, and how far two networks agree."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from segcam.cli.args import Parser, add_settings, given_flags
from segcam.config import Resolved, find_config, load
from segcam.errors import UsageError
from segcam.settings import OPTIONS, Settings

if TYPE_CHECKING:
    import argparse

_ABOUT = """\
Scores a network on a data set with labels: IoU of each class, mIoU, pixel accuracy, confusion matrix.
With --against it says how far two networks, or two precisions of one, give the same classes, also without labels.
"""

_EXAMPLES = """\
data sets (with what SPLIT is where it isn't given):
{kinds}

examples:
  segcam eval -e model.onnx --dataset cityscapes:/data/cityscapes
  segcam eval -e model.onnx --dataset folder:images,labels,mapping.toml --output scores/
  segcam eval -e model.onnx --precision bf16 --against-precision fp32 -s dashcam.mp4 --every 10
  segcam eval -e small.onnx --against large.onnx --dataset camvid:CamVid:val --json

a mapping file (TOML or JSON) says what label pictures hold and what a network calls it:
  classes = "cityscapes"      # a built-in table or a list of names; without it, the names below
  7 = "road"                  # a number: a name, an index into classes, or "ignore"
  "#f423e8" = "sidewalk"      # a colour
  other = "ignore"            # everything else; without it that is an error
  [network]
  terrain = "vegetation"      # the network's name = the labels' name
"""

_SECTIONS = ("input", "engine")


def main(argv: Sequence[str]) -> int:
    """Prints the report (``--json``: as JSON) and returns 0. Raises SegcamError kinds."""
    given = _parser().parse(argv)
    # --output and --json are settings of the main job, too, and mean something else here.
    flags = {name: value for name, value in given_flags(given).items() if OPTIONS[name].section in _SECTIONS}
    resolved = load(Path(given.config) if given.config is not None else find_config(), flags)
    if not resolved.settings.engine:
        raise UsageError("--engine is missing: the network to evaluate", "Give --engine FILE. See: segcam eval --help")
    return _run(given, _asked(resolved))


def _parser() -> Parser:
    from segcam.evaluation.datasets import KINDS

    kinds = "\n".join(f"  {kind.grammar:34} {kind.about}" for kind in KINDS.values())
    parser = Parser(
        "segcam eval",
        usage="segcam eval --engine FILE --dataset KIND:PATH [options]\n"
        "       segcam eval --engine FILE --against OTHER --source SOURCE [options]",
        description=_ABOUT,
        epilog=_EXAMPLES.format(kinds=kinds),
    )
    what = parser.add_argument_group("evaluation")
    what.add_argument("--dataset", metavar="KIND:PATH", default="", help="pictures with labels, see below")
    what.add_argument(
        "--mapping", metavar="FILE", default="", help="what the labels' numbers or colours mean, see below"
    )
    what.add_argument("--against", metavar="FILE", default="", help="a second network to compare with")
    for name in ("precision", "runtime", "spec", "size"):
        option = OPTIONS[name]
        what.add_argument(
            f"--against-{name}",
            metavar=option.metavar,
            default="",
            help=f"{option.flag} of the second network, which is the same file where --against names none",
        )
    what.add_argument(
        "-o", "--output", metavar="FOLDER", default="", help="write report.json, confusion.png and worst.png there"
    )
    what.add_argument(
        "--json", metavar="FILE", nargs="?", const="-", default="", help="print the report as JSON, or write it to FILE"
    )
    what.add_argument(
        "--progress",
        metavar="auto|on|off",
        choices=("auto", "on", "off"),
        default="auto",
        help="progress bar; auto shows it on a terminal",
    )
    what.add_argument("--config", metavar="FILE", help="settings file, of which [engine] counts here")
    add_settings(parser, _SECTIONS)
    return parser


def _asked(resolved: Resolved) -> Settings:
    """The settings, but for the sections of config.toml that are about another job: of those only flags count."""
    file_only = {
        name: OPTIONS[name].default
        for name, origin in resolved.origins.items()
        if OPTIONS[name].section != "engine" and not origin.startswith("--")
    }
    # Any of them has the type of its field: it is that field's default.
    return dataclasses.replace(resolved.settings, **file_only)  # type: ignore[arg-type]


def _run(given: argparse.Namespace, settings: Settings) -> int:
    from segcam.evaluation.datasets import make_dataset
    from segcam.evaluation.entry import Job, other_settings
    from segcam.report import write_json
    from segcam.sinks.files import check_writable

    if given.json not in ("", "-"):
        check_writable(Path(given.json))
    if given.mapping and not given.dataset:
        raise UsageError("--mapping says what labels mean, and there is no --dataset", "Give --dataset, see --help.")
    other = other_settings(
        settings,
        engine=given.against,
        precision=given.against_precision,
        runtime=given.against_runtime,
        spec=given.against_spec,
        size=given.against_size,
    )
    dataset = make_dataset(given.dataset, given.mapping, _warn) if given.dataset else None
    output = Path(given.output) if given.output else None
    report = Job(settings, dataset, other, output, _warn, _say, lambda total: _bar(given.progress, total)).run()
    print(report.text(), file=sys.stderr if given.json == "-" else sys.stdout)
    if given.json:
        write_json(report.document(), given.json)
    return 0


@contextmanager
def _bar(asked: str, total: int | None) -> Iterator[Callable[[int], None]]:
    from segcam.cli.progress import Progress
    from segcam.sinks.base import RunStats

    stats, begun = RunStats(), time.perf_counter()
    with Progress(asked, total, stats) as tick:

        def count(done: int) -> None:
            stats.frames, stats.fps = done, done / max(1e-9, time.perf_counter() - begun)
            tick()

        yield count


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _warn(line: str) -> None:
    _say(f"segcam: warning: {line}")
