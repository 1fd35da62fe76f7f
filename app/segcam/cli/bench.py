"""``segcam bench``: how fast this machine is, with one network or with all of the zoo's."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segcam.cli import interrupts
from segcam.cli.args import Parser, add_settings, given_flags
from segcam.config import find_config, load
from segcam.errors import UsageError
from segcam.settings import OPTIONS

if TYPE_CHECKING:
    import argparse

    from segcam.networks.zoo import ZooEntry
    from segcam.settings import Settings

_ABOUT = """\
With --suite: the networks of the zoo, with random weights, by themselves and end to end on pictures in memory; on a GPU
by CUDA events, with and without graphs, through each CUDA library that is installed. One table, JSON, a bar chart.
Without: the same as segcam --benchmark.
"""

_EXAMPLES = """\
examples:
  segcam bench --suite                                      every network at 1024x2048 and 512x1024
  segcam bench --suite --networks fast_scnn --sizes 512x1024 --frames 30
  segcam bench -e model.onnx -s dashcam.mp4                 one network on one video
"""

_SECTIONS = ("engine",)
#: Settings of the engine that say which network, which the suite does itself.
_OWN = ("engine", "size", "spec")
SIZES = "1024x2048,512x1024"


def main(argv: Sequence[str]) -> int:
    """Prints the table and returns 0; 1 where no network could be measured. Raises SegcamError kinds."""
    if "--suite" not in argv and not {"-h", "--help"}.intersection(argv):
        from segcam.cli.main import main as segcam

        return segcam(["--benchmark", *argv])
    given = _parser().parse(argv)
    flags = given_flags(given)
    flags.pop("json", None)
    for name in _OWN:
        if name in flags:
            raise UsageError(
                f"{OPTIONS[name].flag} goes with one network, not with --suite", "Use --networks and --sizes."
            )
    resolved = load(Path(given.config) if given.config is not None else find_config(), flags)
    return _suite(given, resolved.settings)


def _parser() -> Parser:
    parser = Parser(
        "segcam bench",
        usage="segcam bench --suite [options]\n       segcam bench [options of segcam --benchmark]",
        description=_ABOUT,
        epilog=_EXAMPLES,
    )
    what = parser.add_argument_group("suite")
    what.add_argument("--suite", action="store_true", help="measure the zoo's networks")
    what.add_argument(
        "--networks", metavar="NAMES", default="", help="only these (mobilev3small_f64,fast_scnn); see segcam models"
    )
    what.add_argument("--sizes", metavar="HxW", default=SIZES, help=f"input sizes (default: {SIZES})")
    what.add_argument(
        "--seconds", metavar="S", type=float, default=3.0, help="a network by itself on a CPU, each time (default: 3)"
    )
    what.add_argument(
        "--iterations", metavar="N", type=int, default=100, help="runs of a network by itself on a GPU (default: 100)"
    )
    what.add_argument("--frames", metavar="N", type=int, default=60, help="frames end to end (default: 60)")
    what.add_argument(
        "--json", metavar="FILE", default="suite.json", help="figures as JSON; - is stdout (default: suite.json)"
    )
    what.add_argument("--chart", metavar="FILE", default="suite.png", help="bar chart (default: suite.png)")
    what.add_argument("--config", metavar="FILE", help="settings file, of which [engine] counts here")
    add_settings(parser, _SECTIONS)
    return parser


def _suite(given: argparse.Namespace, settings: Settings) -> int:
    from segcam import report
    from segcam.sinks.files import check_writable
    from segcam.suite.chart import write_chart
    from segcam.suite.measure import Amount
    from segcam.suite.table import table

    for flag, value, least in (
        ("--seconds", given.seconds, 0),
        ("--iterations", given.iterations, 1),
        ("--frames", given.frames, 1),
    ):
        if value < least:
            raise UsageError(f"{flag} {value:g}: expected {least} or more", "See: segcam bench --help")
    entries, sizes = _networks(given.networks), _sizes(given.sizes)
    chart = Path(given.chart)
    if chart.suffix.lower() != ".png":
        raise UsageError(f"--chart {chart} is no PNG file", f"Call it {chart.with_suffix('.png')}.")
    check_writable(chart)
    if given.json != "-":
        check_writable(Path(given.json))
    # Before: afterwards the load is the suite's own.
    environment = report.environment()
    amount = Amount(given.seconds, given.iterations, given.frames)
    rows, interrupted = _measure(entries, sizes, settings, amount)
    page = table(rows, environment)
    print(page, file=sys.stderr if given.json == "-" else sys.stdout)
    report.write_json(
        {"environment": environment, "amount": asdict(amount), "rows": rows, "interrupted": interrupted}, given.json
    )
    write_chart(rows, f"frames per second, random weights. {_where(rows, environment)}", chart)
    _say(f"wrote {chart}" + ("" if given.json == "-" else f" and {given.json}"))
    if interrupted:
        return 130
    return 0 if any("problem" not in row for row in rows) else 1


def _measure(
    entries: Sequence[ZooEntry], sizes: Sequence[tuple[int, int]], settings: Settings, amount: Any
) -> tuple[list[dict[str, Any]], bool]:
    """The rows, and whether Ctrl-C ended it before the last: what was measured until then is kept."""
    from segcam.suite.measure import measure
    from segcam.suite.table import rate_words

    rows: list[dict[str, Any]] = []
    warned: set[str] = set()

    def warn(line: str) -> None:
        # The same for each network.
        if line not in warned:
            warned.add(line)
            _say(f"segcam: warning: {line}")

    with tempfile.TemporaryDirectory(prefix="segcam-suite-") as folder:
        for entry in entries:
            for size in sizes:
                _say(f"{entry.name} at {size[0]}x{size[1]} ...")
                try:
                    interrupts.check()
                    rows.append(measure(entry, size, settings, amount, Path(folder), warn, _say))
                except KeyboardInterrupt:
                    if not rows:
                        raise
                    _say("interrupted: here is what was measured")
                    return rows, True
                if "problem" in rows[-1]:
                    _say(f"  not measured: {rows[-1]['problem']}")
                else:
                    network, end_to_end = (rate_words(rows[-1][key]) for key in ("network_only_hz", "end_to_end_hz"))
                    _say(f"  {network} frames/s, end to end {end_to_end}")
    return rows, False


def _networks(text: str) -> list[ZooEntry]:
    from segcam.config import nearest
    from segcam.networks import zoo

    if not text.strip():
        return list(zoo.entries())
    found = {}
    for name in filter(None, (part.strip() for part in text.split(","))):
        entry = zoo.find(name)
        if entry is None:
            raise UsageError(
                f"--networks: no network of the zoo is called {name!r}",
                nearest(name.lower(), zoo.names(), "See: segcam models"),
            )
        found[entry.name] = entry
    if not found:
        raise UsageError(f"--networks {text!r} names none", "See: segcam models")
    return list(found.values())


def _sizes(text: str) -> list[tuple[int, int]]:
    from segcam.session import parse_size

    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            size = parse_size(part)
        except UsageError:
            size = None
        if size is None:
            raise UsageError(f"--sizes: {part!r} is no size", f"Give HEIGHTxWIDTH, such as --sizes {SIZES}.")
        found.append(size)
    if not found:
        raise UsageError("--sizes names none", f"Give HEIGHTxWIDTH, such as --sizes {SIZES}.")
    return list(dict.fromkeys(found))


def _where(rows: Sequence[dict[str, Any]], environment: dict[str, Any]) -> str:
    """What did the work, and how: of a mixture all of it."""
    from segcam.suite.table import engines

    host = f"{environment['cpu']}, {environment['cores']} cores"
    return "; ".join([host, *(line.removeprefix("engine: ") for line in engines(rows))])


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
