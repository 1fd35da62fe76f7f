"""The model card: Markdown from the recorded figures, nothing in it that is not in them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

_CARD = """\
# {name}

The network of `segcam demo` (`--engine demo`): MobileV3Small with {num_filters} filters ({parameters} M parameters,
{gflops} GFLOPs), {megabytes} MB, weights stored as float16, {width}x{height} pixels in, the 19 Cityscapes classes out.

It is there to show what Segcam does on a machine that has nothing else. It has seen nothing but drawn streets:
**real footage wants the zoo's weights** (`segcam models`).

## Training

From random weights on endless drawn streets (`--source street:`, seeds below 1,000,000) by `scripts/train_street.py`:
{minutes} minutes in {sessions} session{s}, {steps} steps, begun {begun}, PyTorch {torch} on `{device}`
({threads} threads). No picture of a real street took part.

```text
{command}
python scripts/publish_demo.py out/train/demo.pt
```

## How good it is

On {pictures} drives that it was not trained on, a picture of each at each size, all pixels together:

| class | IoU at {small} | IoU at {large} | of the pixels |
| --- | --- | --- | --- |
{classes}
| **mIoU** | **{small_miou:.3f}** | **{large_miou:.3f}** | |
| pixel accuracy | {small_accuracy:.3f} | {large_accuracy:.3f} | |

Some classes are rare. Of every {part} pictures at {large} alone the mIoU is {least:.2f} to {most:.2f}, {mean:.3f} on
average, standard deviation {deviation:.3f}: to compare with this table, take a hundred or more (`frames=100`).

```text
segcam eval --engine demo --dataset {small_data}
segcam eval --engine demo --dataset {large_data}
```

Eight fixed pictures by every way that they can take through Segcam; `tests/acceptance/test_demo_accuracy.py` asks for
the same within 0.005:

| way | mIoU |
| --- | --- |
{ways}

SHA-256 `{sha256}`. MIT licence, as Segcam's code.
This card is written by `scripts/publish_demo.py` from `{figures}.json`.
"""


def card(figures: Mapping[str, Any]) -> str:
    """``figures`` is what publish_demo.py writes as JSON."""
    file, run, held = figures["file"], figures["trained"], figures["held_out"]
    small, large = sorted(held, key=lambda size: int(size.split("x")[0]))
    alone = held[large]["parts_miou"]
    shares = held[large]["share"]
    return _CARD.format(
        name=file["name"],
        num_filters=file["num_filters"],
        parameters=f"{file['parameters'] / 1e6:.2f}",
        gflops=f"{file['gflops']:.1f}",
        megabytes=f"{file['bytes'] / 1e6:.1f}",
        height=file["size"][0],
        width=file["size"][1],
        minutes=f"{run['minutes']:g}",
        sessions=run["sessions"],
        s="" if run["sessions"] == 1 else "s",
        steps=run["steps"],
        begun=run["begun"][:10],
        **{key: run["machine"][key] for key in ("device", "threads", "torch")},
        command=_command(run["arguments"]),
        pictures=held[large]["pictures"],
        small=small,
        large=large,
        classes="\n".join(
            f"| {name} | {_iou(held[small], name)} | {_iou(held[large], name)} | {share:.2%} |"
            for name, share in shares.items()
        ),
        small_miou=held[small]["miou"],
        large_miou=held[large]["miou"],
        small_accuracy=held[small]["pixel_accuracy"],
        large_accuracy=held[large]["pixel_accuracy"],
        part=held[large]["part"],
        **{key: alone[key] for key in ("least", "most", "mean", "deviation")},
        small_data=held[small]["data"],
        large_data=held[large]["data"],
        ways="\n".join(f"| {way} | {value:.4f} |" for way, value in figures["eight"]["miou"].items()),
        sha256=file["sha256"],
        figures=figures["name"],
    )


def _iou(part: Mapping[str, Any], name: str) -> str:
    value = part["iou"][name]
    return "-" if value is None else f"{value:.3f}"


def _command(arguments: Mapping[str, Any]) -> str:
    """The training command of these arguments; those at their defaults are named, too: defaults may change."""
    words = ["python", "scripts/train_street.py", "--output", "out/train"]
    for name, value in arguments.items():
        if value is False or value in ("", 0) or name in ("camvid_share", "resume"):
            continue
        flag = "--" + name.replace("_", "-")
        words += [flag] if value is True else [flag, f"{value:g}" if isinstance(value, float) else str(value)]
    return shlex.join(words)
