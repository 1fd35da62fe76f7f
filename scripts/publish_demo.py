#!/usr/bin/env python3
"""Makes a trained checkpoint the demo's network: exports it, measures it, writes its card and the README's picture.

  python scripts/publish_demo.py out/train/demo.pt

Writes demo_street_f64.onnx (the network), .json (its figures), .md (its card) and demo.jpg into engines/, all of them
or none. Takes one to five minutes on two cores. The training's log.jsonl is looked for beside the checkpoint.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NAME = "demo_street_f64"


def main(argv: Sequence[str] | None = None) -> int:
    given = _arguments(argv)
    checkpoint, output = Path(given.checkpoint), Path(given.output)
    log = Path(given.log) if given.log else checkpoint.with_name("log.jsonl")
    for path in (checkpoint, log):
        if not path.is_file():
            print(f"publish_demo.py: there is no file {path}", file=sys.stderr)
            return 1
    begun = time.perf_counter()

    def say(line: str) -> None:
        print(f"{time.perf_counter() - begun:5.0f} s  {line}", flush=True)

    with tempfile.TemporaryDirectory(dir=output, prefix=".publish-") as place:
        folder = Path(place)
        try:
            figures = publish(checkpoint, log, given.parts, given.pictures, folder, say)
        except ValueError as error:
            print(f"publish_demo.py: {error}", file=sys.stderr)
            return 1
        for path in sorted(folder.glob("demo*")):
            path.replace(output / path.name)
    for size, part in figures["held_out"].items():
        accuracy = part["pixel_accuracy"]
        say(f"{size}: mIoU {part['miou']:.4f}, pixel accuracy {accuracy:.4f} on {part['pictures']} pictures")
    say(f"wrote {NAME}.onnx, {NAME}.json, {NAME}.md and demo.jpg into {output}")
    return 0


def publish(
    checkpoint: Path, log: Path, parts: int, pictures: int, folder: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Everything, into ``folder``; returns the figures. Raises ValueError where it must not be shipped."""
    import segcam
    from publish.card import card
    from publish.figures import SIZES, digest, eight, held_out, trained
    from publish.picture import as_jpeg, readme_picture

    run = trained(log)
    model = folder / f"{NAME}.onnx"
    say(f"exporting {checkpoint}")
    report = segcam.export(model, "MobileV3Small", size=(512, 1024), checkpoint=checkpoint, fp16=True, warn=say)
    if report.bytes > 5e6:
        raise ValueError(f"{model.name} has {report.bytes / 1e6:.1f} MB, at most 5 are wanted")
    file = {
        "name": model.name,
        "sha256": digest(model),
        "bytes": report.bytes,
        "parameters": report.parameters,
        "gflops": round(report.gflops, 2),
        "num_filters": report.options.num_filters,
        "size": list(report.options.size),
        "rewrites": list(report.rewrites),
    }
    say(f"scoring it on {parts * pictures} drives at each of {', '.join(SIZES)}")
    held = {size: held_out(model, size, parts, pictures, say) for size in SIZES}
    say("the eight fixed pictures, by every way")
    scratch = folder / "ways"
    scratch.mkdir()
    figures = {"name": NAME, "file": file, "trained": run, "held_out": held, "eight": eight(model, scratch)}
    (folder / f"{NAME}.json").write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    (folder / f"{NAME}.md").write_text(card(figures), "utf-8")
    (folder / "demo.jpg").write_bytes(as_jpeg(readme_picture(model)))
    return figures


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "publish_demo.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="demo.pt of scripts/train_street.py")
    add("--log", default="", metavar="FILE", help="the training's log [log.jsonl beside the checkpoint]")
    add("--output", default=str(ROOT / "engines"), metavar="FOLDER", help="where the files go [engines/]")
    add("--parts", type=int, default=32, metavar="N", help="how many times --pictures drives to score on [32]")
    add("--pictures", type=int, default=12, metavar="N", help="drives whose scores are also taken alone [12]")
    given = parser.parse_args(argv)
    if min(given.parts, given.pictures) < 1 or not Path(given.output).is_dir():
        parser.error("--parts and --pictures must be at least 1, and --output a folder")
    return given


if __name__ == "__main__":
    sys.exit(main())
