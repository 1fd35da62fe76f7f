"""``segcam models``: the networks that have names, what is on this machine of them, fetching and removing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segcam.errors import UsageError

if TYPE_CHECKING:
    from segcam.networks.zoo import ZooEntry

_ABOUT = """\
Networks that Segcam knows by name. A name works wherever an .onnx file does: segcam --engine NAME --source VIDEO

commands:
  segcam models [--json]              the table, and what of it is on this machine
  segcam models pull NAME... [--force]  fetch checkpoints now rather than at the first run
  segcam models add NAME FILE         take a checkpoint that came another way (for machines without a network)
  segcam models remove NAME...        take checkpoints and what was made of them off this machine

environment:
  SEGCAM_CACHE       where they lie (default: ~/.cache/segcam)
  SEGCAM_OFFLINE=1   fetch nothing
  SEGCAM_ZOO_MIRROR  fetch ADDRESS/FILE in place of the published addresses
  SEGCAM_ZOO         another table of networks (TOML), such as your own
"""


def main(argv: Sequence[str]) -> int:
    """Runs ``segcam models`` and returns the exit code. Raises ZooError and UsageError."""
    from segcam.config import nearest

    commands: dict[str, Callable[[Sequence[str]], int]] = {"list": _list, "pull": _pull, "add": _add, "remove": _remove}
    if not argv or argv[0].startswith("-"):
        return _list(argv)
    if argv[0] not in commands:
        near = nearest(argv[0], commands, "See: segcam models --help")
        hint = f"Fetch it with: segcam models pull {argv[0]}" if _found(argv[0]) else near
        raise UsageError(f"segcam models has no command {argv[0]!r}", hint)
    return commands[argv[0]](argv[1:])


def _parser(name: str, about: str) -> Any:
    # Any: the parser's type is imported late.
    from segcam.cli.args import Parser

    return Parser(f"segcam models {name}".rstrip(), description=about)


def _list(argv: Sequence[str]) -> int:
    from segcam.networks.zoo import entries

    parser = _parser("", _ABOUT)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    given = parser.parse(argv)
    rows = [_look(entry) for entry in entries()]
    if given.json:
        from segcam.networks.cache import root

        print(json.dumps({"cache": str(root()), "networks": [row.document() for row in rows]}, indent=1))
        return 0
    _show(rows)
    return 0


def _pull(argv: Sequence[str]) -> int:
    from segcam.networks.download import pull

    parser = _parser("pull", "Fetches checkpoints; one that is on this machine is not fetched again.")
    parser.add_argument("names", metavar="NAME", nargs="+", help="networks, or: all")
    parser.add_argument("--force", action="store_true", help="fetch anew what is here already")
    parser.add_argument("--offline", action="store_true", help="fetch nothing, only say what is missing")
    given = parser.parse(argv)
    for entry in _chosen(given.names):
        path = pull(entry, _say, force=given.force, offline=given.offline)
        print(path)
    return 0


def _add(argv: Sequence[str]) -> int:
    from segcam.networks.cache import add

    parser = _parser("add", "Copies a checkpoint into the cache if its hash is the published one.")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("file", metavar="FILE", type=Path)
    given = parser.parse(argv)
    (entry,) = _chosen([given.name])
    print(add(entry, given.file, _say))
    return 0


def _remove(argv: Sequence[str]) -> int:
    from segcam.networks.cache import remove

    parser = _parser("remove", "Takes checkpoints, and the networks exported from them, out of the cache.")
    parser.add_argument("names", metavar="NAME", nargs="+", help="networks, or: all")
    given = parser.parse(argv)
    for entry in _chosen(given.names):
        gone = remove(entry, _say)
        for path in gone:
            print(f"removed {path}")
        if not gone:
            _say(f"nothing of {entry.name} is on this machine")
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _found(name: str) -> ZooEntry | None:
    from segcam.networks.zoo import find

    return find(name)


def _chosen(names: Sequence[str]) -> list[ZooEntry]:
    """The networks called so, each once. Raises UsageError with the nearest name."""
    from segcam.config import nearest
    from segcam.networks.zoo import entries
    from segcam.networks.zoo import names as known

    if list(names) == ["all"]:
        return list(entries())
    chosen: dict[str, ZooEntry] = {}
    for name in names:
        entry = _found(name)
        if entry is None:
            raise UsageError(f"no network is called {name!r}", nearest(name.lower(), known(), "See: segcam models"))
        chosen.setdefault(entry.name, entry)
    return list(chosen.values())


@dataclass(frozen=True)
class _Row:
    """A network, and what of it is on this machine."""

    entry: ZooEntry
    checkpoint: Path | None
    checkpoint_bytes: int
    sha256: str
    sound: bool
    part_bytes: int
    exports: list[Path]

    def document(self) -> dict[str, Any]:
        words = {**asdict(self.entry), "hash_bits": self.entry.hash_bits, "file": self.entry.file}
        words.pop("asked")
        own = ("adaptive_pool", "miou", "miou_source", "gflops")
        others = {alias: asdict(_found(alias) or self.entry) for alias in self.entry.aliases}
        words["aliases"] = {alias: {key: other[key] for key in own} for alias, other in others.items()}
        words["on_this_machine"] = {
            "checkpoint": str(self.checkpoint) if self.checkpoint and self.sound else None,
            "checkpoint_bytes": self.checkpoint_bytes,
            "checkpoint_sha256": self.sha256,
            "wrong_file": str(self.checkpoint) if self.checkpoint and not self.sound else None,
            "part_bytes": self.part_bytes,
            "exports": [{"path": str(path), "bytes": _size(path)} for path in self.exports],
        }
        return words

    def here(self) -> str:
        """In a few words."""
        words = []
        if self.checkpoint:
            words.append(f"checkpoint {_mb(self.checkpoint_bytes)}" if self.sound else "a wrong file")
        elif self.part_bytes:
            words.append(f"{_mb(self.part_bytes)} of the checkpoint")
        if self.exports:
            sizes = [path.name.removeprefix(f"{self.entry.name}-").rpartition("-")[0] for path in self.exports]
            shown = ", ".join(sorted(set(sizes)))
            words.append(f"exported {shown} ({_mb(sum(map(_size, self.exports)))})")
        return ", ".join(words) or "-"


def _look(entry: ZooEntry) -> _Row:
    from segcam.networks import cache

    path = cache.checkpoint_path(entry)
    found = cache.receipt(entry)
    return _Row(
        entry,
        path if found else None,
        found.bytes if found else 0,
        found.sha256 if found else "",
        found is not None and found.fits(entry),
        _size(path.with_name(path.name + ".part")),
        cache.exports(entry),
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _mb(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


#: What a narrow terminal does without, first things first.
_DISPENSABLE = ("parameters", "also called", "classes", "at", "GFLOPs")
_TITLES = ("name", "also called", "classes", "mIoU", "parameters", "GFLOPs", "at", "download", "on this machine")


def _cells(row: _Row) -> list[str]:
    entry = row.entry
    return [
        entry.name,
        ", ".join(entry.aliases) or "-",
        f"{entry.num_classes} {entry.classes}".rstrip(),
        f"{entry.miou:g} %" if entry.miou else "-",
        f"{entry.parameters / 1e6:.2f} M",
        f"{entry.gflops:.1f}" if entry.gflops else "-",
        f"{entry.size[1]}x{entry.size[0]}",
        f"{'~' if entry.bytes_approximate else ''}{_mb(entry.bytes)}",
        row.here(),
    ]


def _notes(rows: Sequence[_Row]) -> list[str]:
    """What the table does not say: whose weights they are, where the figures come from, where the files lie."""
    from segcam.networks.cache import root

    notes = []
    for words in dict.fromkeys(row.entry.weights_license for row in rows if row.entry.weights_license):
        notes.append(f"{', '.join(r.entry.name for r in rows if r.entry.weights_license == words)}: {words}")
    datasets = dict.fromkeys(row.entry.dataset for row in rows if row.entry.miou and row.entry.dataset)
    if datasets:
        notes.append(f"mIoU: as published, on {' and '.join(datasets)}; 'segcam models --json' names the sources.")
    return [*notes, f"They lie in {root()}. Fetch one: segcam models pull NAME"]


def _show(rows: Sequence[_Row]) -> None:
    if sys.stdout.isatty():
        try:
            _show_rich(rows)
            return
        except ImportError:
            # A table without colours says the same.
            pass
    table = [list(_TITLES), *map(_cells, rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(_TITLES))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print()
    for note in _notes(rows):
        print(note)


def _show_rich(rows: Sequence[_Row]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    lines = [dict(zip(_TITLES, _cells(row), strict=True)) for row in rows]
    widths = {title: max(map(len, [title, *(line[title] for line in lines)])) for title in _TITLES}
    for title in _DISPENSABLE:
        if sum(widths.values()) + 2 * len(widths) > console.width:
            del widths[title]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in widths:
        right = title in ("mIoU", "parameters", "GFLOPs", "download")
        last = title == _TITLES[-1]
        table.add_column(title, justify="right" if right else "left", overflow="fold", no_wrap=not last)
    for row, line in zip(rows, lines, strict=True):
        cells = [Text(line[title]) for title in widths]
        cells[0].stylize("cyan")
        cells[-1].stylize("bold red" if row.checkpoint and not row.sound else "green" if row.sound else "dim")
        table.add_row(*cells)
    console.print(table)
    console.print()
    for note in _notes(rows):
        console.print(Text(note, "dim"))
