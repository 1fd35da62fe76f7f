"""The zoo: networks that are known by name, read from one table, zoo.toml (its head says what each word means)."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from segcam.errors import ZooError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: The version of the table's format.
FORMAT = 1
#: Names another table than Segcam's own, such as a team's with its own networks.
TABLE_VARIABLE = "SEGCAM_ZOO"
OWN_TABLE = Path(__file__).with_name("zoo.toml")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_SHA256 = re.compile(r"[0-9a-f]{8,64}")
_SHA384 = re.compile(r"([0-9a-f]{96})?")


@dataclass(frozen=True)
class ZooEntry:
    """One network: how it is built, what is published about it, and where its checkpoint is.

    ``size`` is (height, width); ``miou`` percent and ``gflops`` 1e9 operations at ``size``, None where nobody knows;
    ``sha256`` 64 hex digits or the first ones that are published, ``sha384`` 96 or none. ``asked`` is the alias it was
    found by, else its name.
    """

    name: str
    model: str
    num_classes: int
    size: tuple[int, int]
    parameters: int
    url: str
    bytes: int
    sha256: str
    sha384: str = ""
    num_filters: int = 128
    adaptive_pool: Literal["torch", "omz"] = "torch"
    classes: str = ""
    dataset: str = ""
    miou: float | None = None
    miou_source: str = ""
    gflops: float | None = None
    bytes_approximate: bool = False
    code_license: str = ""
    weights_license: str = ""
    license_sources: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    asked: str = ""

    @property
    def file(self) -> str:
        """The checkpoint's file name."""
        return urlsplit(self.url).path.rpartition("/")[2]

    @property
    def hash_bits(self) -> int:
        """How much of the checkpoint's hash is published, hence can be checked."""
        return 4 * max(len(self.sha256), len(self.sha384))

    @property
    def largest_bytes(self) -> int:
        """More than this many bytes cannot be the checkpoint."""
        return 2 * self.bytes if self.bytes_approximate else self.bytes


@dataclass(frozen=True)
class Zoo:
    """A table: its networks in its order, and each of them by every name that it answers to."""

    entries: tuple[ZooEntry, ...]
    by_name: Mapping[str, ZooEntry]


def entries() -> tuple[ZooEntry, ...]:
    """The networks of the table, in its order. Raises ZooError for a table of one's own that cannot be used."""
    return _table().entries


def names() -> list[str]:
    """Every name and alias."""
    return list(_table().by_name)


def find(name: str) -> ZooEntry | None:
    """The network called ``name`` (or so by an alias, with that alias's own settings); capitals don't count."""
    return _table().by_name.get(name.lower())


def _table() -> Zoo:
    chosen = os.environ.get(TABLE_VARIABLE)
    # A person's own table may change while a program runs.
    return read_table(Path(chosen)) if chosen else _own_table()


@lru_cache(maxsize=1)
def _own_table() -> Zoo:
    return read_table(OWN_TABLE)


def read_table(path: Path) -> Zoo:
    """The networks of a TOML table written like zoo.toml. Raises ZooError that names the network and the word."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _fault(path, f"the zoo's table cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _fault(path, f"not a table in TOML: {error}") from None
    if document.get("zoo") != FORMAT:
        raise _fault(path, f"zoo = {document.get('zoo')!r}, expected {FORMAT}")
    unknown = document.keys() - {"zoo", "origin", "network"}
    if unknown:
        raise _fault(path, f"unknown key {min(unknown)!r} at the top level")
    found: list[ZooEntry] = []
    by_name: dict[str, ZooEntry] = {}
    for row in _tables(path, document.get("network", []), "network"):
        origin = _origin(path, document, row)
        aliases = _tables(path, row.pop("alias", []), "alias")
        entry = _entry(path, {**origin, **row}, aliases)
        found.append(entry)
        for own in [{"name": entry.name}, *aliases]:
            name = own["name"]
            if name in by_name:
                raise _fault(path, f"the name {name!r} stands for two networks")
            by_name[name] = _entry(path, {**origin, **row, **own, "name": entry.name}, aliases, name)
    return Zoo(tuple(found), by_name)


def _origin(path: Path, document: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """What the origin that ``row`` names says; takes that word out of the row."""
    if "origin" not in row:
        return {}
    name, known = row.pop("origin"), document.get("origin")
    if not isinstance(name, str) or not isinstance(known, dict) or not isinstance(known.get(name), dict):
        raise _fault(path, f"network {row['name']!r}: the origin {name!r} is not in the table: write [origin.NAME]")
    return dict(known[name])


def _tables(path: Path, rows: object, what: str) -> list[dict[str, Any]]:
    """Rows of TOML tables, as dictionaries that may be changed. Any: ``_entry`` checks the values."""
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _fault(path, f"{what} is not a list of tables: write [[{what}]]")
    for row in rows:
        if not isinstance(row.get("name"), str) or not _NAME.fullmatch(row["name"]):
            raise _fault(path, f"a {what} has the name {row.get('name')!r}, expected small letters, digits, _ and -")
    return [dict(row) for row in rows]


_NUMBERS: dict[str, tuple[type[int], ...] | tuple[type[int], type[float]]] = {
    "int": (int,),
    "float | None": (int, float),
    "bool": (),
}
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*", re.ASCII)


def _entry(path: Path, row: dict[str, Any], aliases: list[dict[str, Any]], asked: str = "") -> ZooEntry:
    where = f"network {row['name']!r}"
    known = {field.name: field for field in fields(ZooEntry) if field.name not in ("aliases", "asked")}
    for key, value in row.items():
        if key not in known:
            raise _fault(path, f"{where}: unknown key {key!r}")
        if not _fits(key, str(known[key].type), value):
            raise _fault(path, f"{where}: {key} = {value!r} cannot be")
    lacking = [key for key, field in known.items() if field.default is MISSING and key not in row]
    if lacking:
        raise _fault(path, f"{where}: {', '.join(lacking)} missing")
    # Any: each value was checked against its field.
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    entry = ZooEntry(**values, aliases=tuple(alias["name"] for alias in aliases), asked=asked or row["name"])
    # The file's name becomes a path on this machine.
    if urlsplit(entry.url).scheme not in ("http", "https") or not _FILE.fullmatch(entry.file):
        raise _fault(path, f"{where}: url = {entry.url!r}, expected the http(s) address of a file")
    if not _SHA256.fullmatch(entry.sha256):
        raise _fault(path, f"{where}: sha256 = {entry.sha256!r}, expected 8 to 64 hex digits (0-9, a-f)")
    if not _SHA384.fullmatch(entry.sha384):
        raise _fault(path, f"{where}: sha384 = {entry.sha384!r}, expected 96 hex digits (0-9, a-f)")
    return entry


def _fits(key: str, kind: str, value: Any) -> bool:
    if key == "size":
        return isinstance(value, list) and len(value) == 2 and all(type(side) is int and side > 0 for side in value)
    if key == "license_sources":
        return isinstance(value, list) and all(isinstance(address, str) for address in value)
    if key == "adaptive_pool":
        return value in ("torch", "omz")
    if isinstance(value, bool):
        return kind == "bool"
    return isinstance(value, str) if kind == "str" else isinstance(value, _NUMBERS[kind]) and value > 0


def _fault(path: Path, message: str) -> ZooError:
    return ZooError(f"{path}: {message}", f"{OWN_TABLE} is an example. {TABLE_VARIABLE} names the table that is read.")
