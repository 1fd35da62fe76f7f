"""What an evaluation found: as an object, as JSON, as a page of text, and as files in a folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from segcam.engines.base import EngineInfo
from segcam.evaluation.compare import Compared, Comparison
from segcam.evaluation.picture import confusion_picture, worst_picture, write_png
from segcam.evaluation.scores import Scores
from segcam.report import environment, write_json
from segcam.sinks.files import make_folder

_CONVENTION = "IoU over all pixels of all pictures; mIoU over the classes that occur or are named."
_WITH_LABELS = "Ignored pixels are in no figure; where a network names no class of the labels (void), it is wrong."
_WITHOUT = "Pixels that both networks leave void are equal, and void is no class."


@dataclass(frozen=True, eq=False)
class Report:
    """``labels`` has each engine's scores against the labels (empty without labels), ``agreement`` is that of two
    engines, the first one's classes as rows (None for one engine). ``seconds`` is without loading the networks.
    ``written`` are the files of the output folder."""

    data: str
    images: int
    seconds: float
    engines: tuple[EngineInfo, ...]
    labels: tuple[Compared, ...]
    agreement: Compared | None
    written: tuple[Path, ...] = ()

    @property
    def scores(self) -> Scores:
        """The first engine's against the labels; where there are none, the agreement of the two."""
        compared = self.labels[0] if self.labels else self.agreement
        assert compared is not None, "an evaluation compares something"
        return compared.scores

    @property
    def miou(self) -> float:
        """Of ``scores``: over the classes that occur or are named."""
        return self.scores.miou

    @property
    def pixel_accuracy(self) -> float:
        """Of ``scores``; without labels the share of equal pixels."""
        return self.scores.pixel_accuracy

    @property
    def images_per_s(self) -> float:
        """Reading, networks and counting together."""
        return self.images / self.seconds if self.seconds > 0 else 0.0

    def document(self) -> dict[str, Any]:
        """Plain data for JSON. Shares 0..1; None for a figure that is not a number."""
        return {
            "environment": environment(),
            "data": self.data,
            "images": self.images,
            "seconds": round(self.seconds, 3),
            "images_per_s": round(self.images_per_s, 3),
            "engines": [asdict(info) for info in self.engines],
            "labels": [_compared(compared) for compared in self.labels],
            "agreement": _compared(self.agreement) if self.agreement else None,
        }

    def text(self) -> str:
        """The report as a page."""
        lines = [f"data        {self.data}"]
        lines += [f"engine      {info.line()}" for info in self.engines]
        lines.append(f"pictures    {self.images} in {self.seconds:.1f} s ({self.images_per_s:.1f} per second)")
        lines += [line for compared in self.labels for line in ("", *_page(compared))]
        if self.agreement:
            lines += ["", *_page(self.agreement)]
        lines += ["", _CONVENTION, *([_WITH_LABELS] if self.labels else []), *([_WITHOUT] if self.agreement else [])]
        lines += [f"wrote {path}" for path in self.written]
        return "\n".join(lines)


def write_report(report: Report, comparisons: Sequence[Comparison], folder: Path) -> Report:
    """report.json, of the first of ``comparisons`` confusion.png, of the last worst.png; the others' pictures have the
    number of the comparison in their names. Returns the report with what was written. Raises SinkError."""
    make_folder(folder)
    written = [folder / "report.json"]
    pictures = [
        (comparison, "" if index == 0 else f"_{index + 1}", "" if index == len(comparisons) - 1 else f"_{index + 1}")
        for index, comparison in enumerate(comparisons)
    ]
    for comparison, confusion, worst in pictures:
        result = comparison.result
        path = folder / f"confusion{confusion}.png"
        write_png(path, confusion_picture(result.scores, result.sides))
        written.append(path)
        if comparison.worst is not None:
            path = folder / f"worst{worst}.png"
            write_png(path, worst_picture(comparison.worst, comparison.table, result.sides))
            written.append(path)
    done = replace(report, written=tuple(written))
    write_json(done.document(), str(written[0]))
    return done


def _compared(compared: Compared) -> dict[str, Any]:
    document: dict[str, Any] = {"rows": compared.sides[0], "columns": compared.sides[1]}
    document |= compared.scores.document()
    document["per_image"] = {name: _plain(value) for name, value in asdict(compared.per_image).items()}
    document["worst"] = [asdict(odd) | {"share": round(odd.share, 6)} for odd in compared.worst]
    return document


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)


def _page(compared: Compared) -> list[str]:
    scores, (first, second) = compared.scores, compared.sides
    labelled = first == "labels"
    lines = [f"{second} against {'the labels' if labelled else first}"]
    width = max([len(name) for name in scores.classes] + [12])
    total = max(1, scores.pixels)
    lines.append(f"  {'class':{width}} {'IoU':>8} {'accuracy':>9} {'of pixels':>10} {'named':>9}")
    rows = zip(scores.classes, scores.iou, scores.accuracy, scores.occurring, scores.named, strict=True)
    lines += [
        f"  {name:{width}} {_figure(iou):>8} {_figure(accuracy):>9} {occurring / total:10.2%} {named / total:9.2%}"
        for name, iou, accuracy, occurring, named in rows
    ]
    per = compared.per_image
    equal = "pixel accuracy" if labelled else "equal pixels"
    lines += [
        "",
        f"  {'mIoU':24} {_figure(scores.miou)}   ({_count(scores.iou)} of {len(scores.classes)} classes)",
        *_occurring(scores),
        f"  {equal:24} {_figure(scores.pixel_accuracy, 6 if not labelled else 4)}",
        f"  {'mean accuracy':24} {_figure(scores.mean_accuracy)}",
        f"  {'frequency-weighted IoU':24} {_figure(scores.frequency_weighted_iou)}",
        f"  {equal + ' a picture':24} mean {per.mean:.4f}, least {per.minimum:.4f}, 1% {per.p1:.4f}, "
        f"5% {per.p5:.4f}, half {per.p50:.4f}",
        f"  {'worst pictures':24} " + ", ".join(f"{odd.name} ({odd.share:.4f})" for odd in compared.worst[:5]),
    ]
    return lines


def _occurring(scores: Scores) -> list[str]:
    """A second mean only where it differs: classes that the network names and the labels never have."""
    count = int((scores.occurring > 0).sum())
    if count == _count(scores.iou):
        return []
    return [f"  {'mIoU, occurring classes':24} {_figure(scores.miou_occurring)}   ({count} classes)"]


def _count(values: Any) -> int:
    return sum(not math.isnan(value) for value in values)


def _figure(value: float, digits: int = 4) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
