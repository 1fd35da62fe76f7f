"""``segcam``: reads the command line, calls what does the work, and turns errors into two lines and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from segcam import __version__
from segcam.cli import interrupts
from segcam.errors import SegcamError, UsageError

if TYPE_CHECKING:
    from segcam.config import Resolved

#: Each command's module (its ``main(argv) -> int`` is called) and one line on what it does.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("segcam.cli.demo", "see it work: a made-up drive, the network that comes with Segcam, their scores"),
    "export": ("segcam.cli.export", "write a network as ONNX from its checkpoint, without PyTorch"),
    "models": ("segcam.cli.models", "networks by name: list them, fetch them, remove them"),
    "build": ("segcam.cli.build", "a TensorRT plan of an ONNX network, or the network prepared for one"),
    "eval": ("segcam.cli.eval", "score a network on a data set, or see how far two of them agree"),
    "bench": ("segcam.cli.bench", "how fast networks are here; --suite measures all of the zoo's"),
    "doctor": ("segcam.cli.doctor", "say what this machine has, what is missing, and how to get it"),
}

_EXAMPLES = """\
examples:
  segcam demo                                               see it work, with nothing of your own
  segcam -e model.onnx -s dashcam.mp4 -o window             watch it
  segcam -e model.onnx -s dashcam.mp4 -o out.mp4            write a video
  segcam -e model.onnx -s 0 -o window --classes road,car    a camera, two classes
  segcam -e model.onnx -s photos/ -o labels:out             a class map for each picture
  segcam --benchmark                                        how fast is it here? (or with -e and -s)
  segcam --print-config > config.toml                       keep settings
"""

_SHORT = """\
usage: segcam --engine FILE --source SOURCE [--output OUTPUT] [options]

  segcam demo       see it work, with nothing of your own
  segcam --help     every option, with examples
  segcam doctor     is this machine ready?
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``segcam`` with ``argv`` (None: the process's own arguments) and returns the exit code.

    0: done. 1: a SegcamError. 2: wrong usage. 130: interrupted with Ctrl-C. 141: the reader of stdout went away.
    Any other exception is a bug and goes through with its traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        # A file name that the terminal's encoding lacks must not stop the run.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        with interrupts.noting():
            code = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        interrupts.answered()
        return 130
    except BrokenPipeError:
        # Python flushes stdout once more at exit and would complain: give it a place to write to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _run(arguments: list[str]) -> int:
    try:
        return _dispatch(arguments)
    except SystemExit as end:
        # argparse ends so after --help and --version, its other endings are UsageErrors.
        return int(end.code or 0)
    except SegcamError as error:
        sys.stdout.flush()
        print(f"segcam: error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


def _dispatch(arguments: list[str]) -> int:
    if arguments and not arguments[0].startswith("-"):
        return _command(arguments[0], arguments[1:])
    from segcam.cli.args import Parser, add_settings, given_flags
    from segcam.config import find_config, load, render_toml

    commands = "\n".join(f"  segcam {name:10} {about}" for name, (_, about) in COMMANDS.items())
    parser = Parser(
        "segcam",
        usage="segcam --engine FILE --source SOURCE [--output OUTPUT] [options]\n       segcam COMMAND [options]",
        description=f"Names every pixel of a street video, live.\n\ncommands:\n{commands}",
        epilog=_EXAMPLES,
        add_help=False,
    )
    general = parser.add_argument_group("general")
    general.add_argument("-h", "--help", action="help", help="show this help and exit")
    general.add_argument(
        "--version", action="version", version=f"segcam {__version__}", help="show the version and exit"
    )
    general.add_argument(
        "--config", metavar="FILE", help="settings file (default: config.toml here, if it says segcam_config = 1)"
    )
    general.add_argument(
        "--print-config", action="store_true", help="print every setting and where it came from as TOML, and exit"
    )
    add_settings(parser)
    given = parser.parse(arguments)
    resolved = load(Path(given.config) if given.config is not None else find_config(), given_flags(given))
    if given.print_config:
        print(render_toml(resolved.settings, resolved.origins), end="")
        return 0
    if not arguments and not resolved.settings.source:
        print(_SHORT, end="", file=sys.stderr)
        return 2
    if resolved.settings.benchmark:
        resolved = _with_demo(resolved)
    resolved.require("source", "engine")
    _start_logging(resolved.settings.log_level)
    from segcam.cli.run import run

    return run(resolved)


def _with_demo(resolved: Resolved) -> Resolved:
    """A benchmark's settings, with the demo's network and street where none is given."""
    from dataclasses import replace

    settings = resolved.settings
    if not settings.engine:
        settings = replace(settings, engine="demo")
        print("no --engine: measuring demo, the network that comes with Segcam", file=sys.stderr)
    if not settings.source:
        settings = replace(settings, source="street:", frames=settings.frames or 120)
        print("no --source: measuring on street:, whose frames are drawn by this processor, too", file=sys.stderr)
    return replace(resolved, settings=settings)


def _command(name: str, arguments: list[str]) -> int:
    if name not in COMMANDS:
        from segcam.config import nearest

        near = nearest(
            name, COMMANDS, f"The commands are: {', '.join(COMMANDS)}. Everything else is a flag: segcam --help"
        )
        seen = f"A source is given with: segcam --engine FILE --source {name}" if os.path.exists(name) else near
        raise UsageError(f"no command is called {name!r}", seen)
    # Any module of COMMANDS has this function; a test calls each of them with --help.
    code: int = import_module(COMMANDS[name][0]).main(arguments)
    return code


def _start_logging(level: str) -> None:
    import logging

    logging.basicConfig(level=level.upper(), format="segcam: %(levelname)s: %(message)s", stream=sys.stderr)
