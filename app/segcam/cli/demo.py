"""``segcam demo``: the whole way of a picture through Segcam, with nothing but what comes with it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segcam.errors import SinkError, UsageError

if TYPE_CHECKING:
    import argparse

    from segcam.demo.score import ScoreSink

#: A drive that the network was not trained on (its seeds are below 1,000,000).
SEED = 2_000_013
FRAMES, RATE_HZ = 120, 20
_FILES = ("demo.mp4", "demo.png", "demo.json")
#: Rows of the contact sheet, and how wide a picture in it is.
_ROWS, _WIDTH = 5, 640

_ABOUT = """\
Draws a short drive through a made-up street, names every pixel of it with the small network that comes with Segcam, and
compares that with the true classes, which are known exactly. Needs no network connection and no files.

It writes into FOLDER: demo.mp4 (2048x1024, the classes painted over the street), demo.png (a contact sheet: picture,
network, truth) and demo.json (every figure). The first time, Segcam's kernels are compiled for this machine.
"""

_EXAMPLES = """\
examples:
  segcam demo
  segcam demo --seed 2000025 --weather rain --output rain
"""


def main(argv: Sequence[str]) -> int:
    """Writes the files, prints what was found and what to type next; returns 0, or 130 after Ctrl-C. Raises SegcamError
    kinds."""
    from segcam.sources.street import WEATHERS
    from segcam.sources.street.source import check_weather

    given = _parser(WEATHERS).parse(argv)
    seed = _whole("--seed", given.seed, 0)
    frames = _whole("--frames", given.frames, 1)
    weather = check_weather(given.weather, "--weather")
    folder = _checked(Path(given.output))
    return _run(given, f"street:seed={seed},weather={weather},rate={RATE_HZ},frames={frames}", frames, folder)


def _parser(weathers: Sequence[str]) -> Any:
    from segcam.cli.args import Parser

    parser = Parser("segcam demo", usage="segcam demo [options]", description=_ABOUT, epilog=_EXAMPLES)
    add = parser.add_argument
    add("-o", "--output", metavar="FOLDER", default="out", help="where the files go (default: out)")
    add("--seed", metavar="N", default=str(SEED), help=f"which street (default: {SEED})")
    add("--frames", metavar="N", default=str(FRAMES), help=f"how many pictures, {RATE_HZ} a second (default: {FRAMES})")
    words = ", ".join(weathers)
    add("--weather", metavar="NAME", default="auto", help=f"{words}, or auto: the street's own (default: auto)")
    add("--progress", choices=("auto", "on", "off"), default="auto", help="progress bar; auto shows it on a terminal")
    return parser


def _whole(flag: str, text: str, least: int) -> int:
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or int(text) < least:
        raise UsageError(
            f"{flag}: found {text!r}, expected a whole number from {least} to 999999999", "See: segcam demo --help"
        )
    return int(text)


def _checked(folder: Path) -> Path:
    """Before anything is drawn: a place where all the files can be written. Raises SinkError."""
    from segcam.sinks.files import check_writable, make_folder

    if folder.exists() and not folder.is_dir():
        raise SinkError(f"{folder} is a file, not a folder", "Choose another folder: segcam demo --output FOLDER")
    for name in _FILES:
        check_writable(folder / name)
        if (folder / name).is_dir():
            raise SinkError(
                f"{folder / name} is a folder, and a file of that name is to be written",
                "Choose another folder: segcam demo --output FOLDER",
            )
    make_folder(folder)
    return folder


def _run(given: argparse.Namespace, spec: str, frames: int, folder: Path) -> int:
    from segcam.cli.run import Run, say, warn
    from segcam.config import from_arguments
    from segcam.demo.score import ScoreSink
    from segcam.demo.sheet import contact_sheet, spread_out
    from segcam.evaluation.picture import write_png
    from segcam.report import write_json
    from segcam.session import Network, open_source
    from segcam.sources.base import SourceOptions
    from segcam.sources.street import StreetSource

    video, sheet, figures = (folder / name for name in _FILES)
    settings = from_arguments({"engine": "demo", "source": spec, "legend": True, "progress": given.progress})
    score = ScoreSink(spread_out(frames, _ROWS), _WIDTH)
    source = StreetSource(spec, SourceOptions(), truth=score.expect)
    info = open_source(source, say)
    network = Network.load(settings, warn, say)
    job = Run(settings, source, info, [str(video)], network, [score])
    try:
        code = job.go()
        if code or not score.shown:
            return code
        measured = job.report()
    finally:
        if not job.abandoned:
            source.close()
            network.close()
    write_png(sheet, contact_sheet(score.shown, network.classes))
    measured["scores"] = score.result.scores.document()
    write_json(measured, str(figures))
    print(_found(score, measured, (video, sheet, figures), info.description))
    return 0


def _found(score: ScoreSink, measured: Mapping[str, Any], files: Sequence[Path], drive: str) -> str:
    """What was found, where it lies, and the next commands."""
    video, sheet, figures = files
    scores = measured["scores"]
    known = sorted((row["iou"], row["name"]) for row in scores["classes"] if row["iou"] is not None)
    worst, best = known[:3], known[:-4:-1]
    lines = [
        "",
        f"{drive}",
        f"  {video}   every pixel named, {measured['frames']} frames of 2048x1024",
        f"  {sheet}   some of them beside what is true",
        f"  {figures}  every figure",
        "",
        f"mIoU {scores['miou']:.3f} over {len(known)} classes, {scores['pixel_accuracy']:.1%} of the pixels right: "
        "compared with the exact class of each",
        f"  best   {', '.join(f'{name} {iou:.2f}' for iou, name in best)}",
        f"  worst  {', '.join(f'{name} {iou:.2f}' for iou, name in worst)}",
        "",
        f"{measured['end_to_end_hz']:.1f} frames/s from end to end, all stages at the same time; each of them:",
        *_rates(measured),
        "",
        "This network knows made-up streets. For your own video take one of the zoo's, which is fetched once:",
        "  segcam --engine mobilev3small_f128 --source VIDEO.mp4 --output named.mp4",
        "  segcam --engine mobilev3small_f128 --source VIDEO.mp4 --benchmark",
    ]
    return "\n".join(lines)


def _rates(measured: Mapping[str, Any]) -> list[str]:
    """A line for each stage: its mean time, and how many frames it would do in a second."""
    words = {
        "decode": "draw the street",
        "preprocess": "make the network's input",
        "inference": f"network, {measured['engine']['requests']} frames at once",
        "postprocess": "class map and overlay",
        "write video": "write H.264",
        "write score": "compare with the truth",
    }
    lines = []
    for stage, name in words.items():
        if stage not in measured["stages_ms"]:
            continue
        mean = measured["stages_ms"][stage]["mean"]
        at_once = measured["engine"]["requests"] if stage == "inference" else 1
        lines.append(f"  {name:28} {mean:7.1f} ms {at_once * 1e3 / max(mean, 1e-6):8.1f} frames/s")
    return lines
