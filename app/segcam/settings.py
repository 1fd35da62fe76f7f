"""The only table of options: the command line, config.toml and the documentation are made from it."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any, Literal, get_type_hints

from segcam.errors import UsageError

Kind = Literal["text", "time", "whole", "number", "switch", "list"]
Value = str | int | float | bool | tuple[str, ...]

#: Title of each section in ``--help`` and its table in config.toml, in the order in which they are shown.
SECTIONS: dict[str, str] = {
    "input": "what to look at",
    "engine": "the network and what runs it",
    "overlay": "how classes are painted",
    "output": "where results go",
    "run": "how the run goes on",
    "report": "what is measured",
}


@dataclass(frozen=True)
class Option:
    """What is known of one setting besides its default.

    ``kind`` follows from the field's type, but for ``time`` (text that ``parse_time`` reads). ``low`` and ``high`` are
    inclusive. ``bare`` is the value of the flag given without one. ``dashed`` values may begin with a dash.
    """

    name: str
    section: str
    help: str
    kind: Kind
    default: Value
    metavar: str
    short: str = ""
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    bare: str | None = None
    dashed: bool = False

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def expected(self) -> str:
        """What a value must be, in words: ``a whole number from 1 to 64``."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        words = {
            "text": "text",
            "time": "seconds or [hh:]mm:ss[.fff]",
            "whole": "a whole number",
            "number": "a number",
            "switch": "true or false",
            "list": "a list of texts",
        }[self.kind]
        if self.low is not None and self.high is not None:
            return f"{words} from {self.low:g} to {self.high:g}"
        return f"{words}, {self.low:g} or more" if self.low is not None else words


def _option(default: Any, section: str, help: str, **more: Any) -> Any:
    # Any as result: dataclasses need a Field here where the type checker wants the setting's own type.
    return dataclasses.field(default=default, metadata={"section": section, "help": help, **more})


#: x264's, fastest first.
PRESETS = (
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
    "placebo",
)


@dataclass(frozen=True)
class Settings:
    """Every setting with its default. Made by ``segcam.config.load``, which checks types, ranges and choices."""

    source: str = _option(
        "",
        "input",
        "video or image file, image folder, rtsp:// or http:// URL, camera (0 or /dev/video0), street: or test:",
        metavar="SOURCE",
        short="-s",
    )
    loop: int = _option(
        1,
        "input",
        "play the source this many times; 0, or the flag alone, is for ever",
        low=0,
        metavar="TIMES",
        bare="0",
    )
    start: str = _option("0", "input", "begin here: seconds or [hh:]mm:ss[.fff]", kind="time", metavar="TIME")
    frames: int = _option(0, "input", "stop after this many frames; 0 is all", low=0)
    every: int = _option(1, "input", "use only every N-th frame", low=1)
    decode: str = _option(
        "auto",
        "input",
        "who decodes videos: nvdec (the GPU), cpu, or auto: nvdec where the network is on the GPU and it can",
        choices=("auto", "nvdec", "cpu"),
    )
    decode_threads: int = _option(0, "input", "threads that decode; 0 leaves it to the decoder", low=0, high=64)

    engine: str = _option(
        "",
        "engine",
        "the network: an .onnx file, a .plan, a name that 'segcam models' lists, or demo",
        metavar="FILE|NAME",
        short="-e",
    )
    runtime: str = _option(
        "auto",
        "engine",
        "what runs an ONNX network; auto is TensorRT where it and an NVIDIA GPU are there, else OpenVINO",
        choices=("auto", "tensorrt", "openvino", "onnxruntime"),
    )
    device: str = _option(
        "",
        "engine",
        "cuda:0 for TensorRT, or an OpenVINO device that 'segcam doctor' lists; empty is what the runtime takes",
        metavar="NAME",
    )
    precision: str = _option(
        "auto",
        "engine",
        "arithmetic; auto is the fastest the device is made for, the first layers in fp32",
        choices=("auto", "fp32", "bf16", "fp16"),
    )
    threads: int = _option(0, "engine", "threads of the network; 0 is one per core", low=0, high=1024)
    requests: int = _option(0, "engine", "frames inside the network at once; 0 lets the runtime choose", low=0, high=64)
    cut_head: bool = _option(
        True, "engine", "take the last enlargement and argmax out of the network and do them in one faster step"
    )
    rewrite: bool = _option(
        True, "engine", "compute the network in fewer steps where the result is the same (checked when it is loaded)"
    )
    size: str = _option(
        "",
        "engine",
        "input size, such as 512,1024: of a network that leaves it open, or of one by name",
        metavar="HEIGHT,WIDTH",
    )
    offline: bool = _option(False, "engine", "fetch nothing: a network's name only means what is on this machine")
    spec: str = _option(
        "", "engine", "ModelSpec file (JSON) that says how to feed and read the network", metavar="FILE"
    )

    alpha: float = _option(0.5, "overlay", "opacity of the class colours", low=0.0, high=1.0)
    classes: str = _option(
        "",
        "overlay",
        "paint only these (road,car) or all but these (-sky,-building); empty is all",
        metavar="NAMES",
        dashed=True,
    )
    mask_only: bool = _option(False, "overlay", "show the class colours alone, without the picture")
    legend: bool = _option(False, "overlay", "draw the names and colours of the classes into the picture")
    palette: str = _option(
        "auto", "overlay", "colours: auto (the network's own), cityscapes, voc, camvid, or a file", metavar="NAME|FILE"
    )

    output: tuple[str, ...] = _option(
        (), "output", "window, out.mp4, out.jsonl, folder/, labels:folder, colors:folder or null; may be repeated",
        metavar="OUTPUT", short="-o", repeatable=True,
    )  # fmt: skip
    encode: str = _option(
        "auto",
        "output",
        "who encodes video files: nvenc (the GPU), x264, or auto: nvenc where the network is on the GPU and it can",
        choices=("auto", "nvenc", "x264"),
    )
    crf: int = _option(23, "output", "quality of video files: 0 is lossless, 51 the worst", low=0, high=51)
    preset: str = _option(
        "superfast",
        "output",
        "encoder's speed against file size, by x264's names: ultrafast to placebo",
        choices=PRESETS,
        metavar="PRESET",
    )
    image_format: str = _option("png", "output", "format of image files", choices=("png", "jpg"))
    jpeg_quality: int = _option(95, "output", "quality of JPEG files", low=1, high=100)
    hud: bool = _option(True, "output", "show frame rate and keys in the window")

    queue: str = _option(
        "auto",
        "run",
        "lossless waits for slow stages, newest drops old frames; auto is newest for live sources only",
        choices=("auto", "lossless", "newest"),
    )
    queue_size: int = _option(3, "run", "frames that wait between two stages", low=1, high=64)
    progress: str = _option("auto", "run", "progress line; auto shows it on a terminal", choices=("auto", "on", "off"))
    log_level: str = _option(
        "warning", "run", "least severe message to show", choices=("debug", "info", "warning", "error")
    )

    benchmark: bool = _option(False, "report", "measure every stage and print the report at the end")
    warmup: int = _option(5, "report", "first frames that the report leaves out", low=0)
    json: str = _option("", "report", "write the report to this file as JSON", metavar="FILE")


_KINDS: dict[Any, Kind] = {str: "text", int: "whole", float: "number", bool: "switch", tuple[str, ...]: "list"}
_METAVARS: dict[Kind, str] = {"text": "TEXT", "time": "TIME", "whole": "N", "number": "X", "switch": "", "list": "TEXT"}


def _read_table() -> dict[str, Option]:
    hints = get_type_hints(Settings)
    table: dict[str, Option] = {}
    for field in dataclasses.fields(Settings):
        more = dict(field.metadata)
        more.pop("repeatable", None)
        kind: Kind = more.pop("kind", _KINDS[hints[field.name]])
        metavar = more.pop("metavar", "|".join(more.get("choices", ())) or _METAVARS[kind])
        table[field.name] = Option(
            field.name, kind=kind, default=getattr(Settings, field.name), metavar=metavar, **more
        )
    return table


#: The settings by name, in the order of their sections.
OPTIONS: dict[str, Option] = _read_table()

_TIME = re.compile(r"(?:(?:(?P<hours>\d+):)?(?P<minutes>\d+):)?(?P<seconds>\d+(?:\.\d*)?|\.\d+)", re.ASCII)


def parse_time(text: str) -> float:
    """Seconds of ``90``, ``90.5``, ``1:30`` or ``0:01:30.5``: 0 or more. Raises UsageError.

    After a colon minutes and seconds must be below 60, so that a slip such as ``1:90`` is not taken for 2:30.
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a time", "Give seconds (90 or 90.5) or [hh:]mm:ss[.fff], such as 1:30.")
    hours, minutes, seconds = match["hours"], match["minutes"], float(match["seconds"])
    if (minutes is not None and seconds >= 60) or (hours is not None and int(minutes) >= 60):
        raise UsageError(
            f"{text!r} is not a time: minutes and seconds after a colon go from 0 to 59",
            "Give seconds (90 or 90.5) or [hh:]mm:ss[.fff], such as 1:30.",
        )
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + seconds
