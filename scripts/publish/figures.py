"""What is measured of a network that is to be shipped, as plain data for JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import segcam
from publish.paths import EIGHT, REFERENCE, WAYS, miou
from segcam.evaluation.scores import Scores

#: Drives that nothing was trained on, and that no training run scores itself on.
FIRST_SEED = 1_100_000
SIZES = ("1024x512", "2048x1024")


def trained(log: Path) -> dict[str, Any]:
    """What a training run's log.jsonl says: arguments, minutes, steps, machine. Raises ValueError for a log that can't
    be one, or of weights that must not be given away."""
    entries = [json.loads(line) for line in log.read_text("utf-8").splitlines() if line.strip()]
    starts = [entry for entry in entries if entry["event"] == "start"]
    steps = [entry for entry in entries if entry["event"] != "start"]
    if not starts or not steps:
        raise ValueError(f"{log} is not the log of a training run")
    if any(entry["arguments"].get("camvid") for entry in starts):
        raise ValueError(f"{log}: CamVid took part in this training, whose licence is for non-commercial use")
    arguments = {key: value for key, value in starts[-1]["arguments"].items() if key not in ("output", "camvid")}
    return {
        "arguments": arguments,
        "begun": starts[0]["time"],
        "sessions": len(starts),
        "minutes": round(steps[-1]["minutes"], 1),
        "steps": steps[-1]["step"],
        "machine": starts[-1]["machine"],
    }


def held_out(model: Path, size: str, parts: int, pictures: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Scores of ``parts`` times ``pictures`` drives, a picture of each: of all, and the spread of the parts."""
    matrix: Any = 0
    alone: list[float] = []
    engine = ""
    for seed in range(FIRST_SEED, FIRST_SEED + parts * pictures, pictures):
        report = segcam.evaluate(model, f"street:seed={seed},frames={pictures},size={size}")
        matrix = matrix + report.scores.matrix
        alone.append(report.miou)
        classes, engine = report.scores.classes, report.engines[0].line()
        if len(alone) % 10 == 0:
            say(f"  {size}: {len(alone)} of {parts} parts, mIoU so far {Scores(classes, matrix).miou:.4f}")
    scores = Scores(classes, matrix)
    return {
        "data": f"street:seed={FIRST_SEED},frames={parts * pictures},size={size}",
        "pictures": parts * pictures,
        "part": pictures,
        "engine": engine,
        "miou": round(scores.miou, 4),
        "pixel_accuracy": round(scores.pixel_accuracy, 4),
        "parts_miou": {
            "mean": round(float(np.mean(alone)), 4),
            "deviation": round(float(np.std(alone)), 4),
            "least": round(min(alone), 4),
            "most": round(max(alone), 4),
        },
        # None: a class that neither occurs nor is named.
        "iou": {
            name: None if np.isnan(iou) else round(float(iou), 4) for name, iou in zip(classes, scores.iou, strict=True)
        },
        "share": {
            name: round(float(count / scores.pixels), 5) for name, count in zip(classes, scores.occurring, strict=True)
        },
    }


def eight(model: Path, folder: Path, ways: Sequence[str] = tuple(WAYS)) -> dict[str, Any]:
    """The mIoU of eight fixed pictures by each way that they can take, see ``publish.paths``."""
    found = {}
    for number, way in enumerate(ways):
        place = folder / str(number)
        place.mkdir()
        found[way] = round(miou(model, way, place), 4)
    return {"pictures": [list(one) for one in EIGHT], "reference": REFERENCE, "miou": found}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
