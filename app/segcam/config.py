"""Where each setting comes from: default, then config.toml, then the command line; the last one that says so wins."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from segcam.errors import UsageError
from segcam.settings import OPTIONS, SECTIONS, Option, Settings, Value, parse_time

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: A config.toml found by chance is ours if it says ``segcam_config = 1``: the version of the format.
MARK = "segcam_config"
FORMAT = 1
_MARK_LINE = re.compile(rf"^\s*[\"']?{MARK}\b", re.MULTILINE)

#: Values as the command line gives them: text, True/False of a switch, or the texts of a repeated flag.
FlagValue = str | bool | int | float | list[str] | tuple[str, ...]


@dataclass(frozen=True)
class Resolved:
    """The settings of one run, and for each where it came from.

    An origin is ``default``, the flag (``--alpha``), or ``config.toml: /path/config.toml``.
    """

    settings: Settings
    origins: Mapping[str, str]

    def require(self, *names: str) -> None:
        """Raises UsageError if one of these settings is empty."""
        for name in names:
            if not getattr(self.settings, name):
                option = OPTIONS[name]
                raise UsageError(
                    f"{option.flag} is missing: {option.help}",
                    f"Give {option.flag} {option.metavar}, or {name} in [{option.section}] of config.toml.",
                )


def find_config(folder: Path | None = None) -> Path | None:
    """``config.toml`` in ``folder`` (None: the current one), or None where there is none or it is another program's.

    It is Segcam's if its top level has the key ``segcam_config``. A file that is not valid TOML counts as Segcam's
    when a line starts with that key, so that a slip in it is reported by ``load``, not passed over.
    """
    path = (folder or Path.cwd()) / "config.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    try:
        return path if MARK in tomllib.loads(text) else None
    except tomllib.TOMLDecodeError:
        return path if _MARK_LINE.search(text) else None


def load(path: Path | None, flags: Mapping[str, FlagValue]) -> Resolved:
    """The settings after ``path`` (a TOML file; None: no file) and ``flags`` (by setting name, only those given).

    Raises UsageError for unknown names (with the nearest one), for values of a wrong type or out of range, and for a
    file that cannot be read.
    """
    values: dict[str, Value] = {name: option.default for name, option in OPTIONS.items()}
    origins = dict.fromkeys(OPTIONS, "default")
    if path is not None:
        for name, value in _read_file(path).items():
            option = OPTIONS[name]
            values[name] = _checked(option, value, f"{path}: [{option.section}] {name}")
            origins[name] = f"{path.name}: {path.absolute()}"
    for name, value in flags.items():
        if name not in OPTIONS:
            raise UsageError(f"no setting is called {name!r}", nearest(name, OPTIONS))
        option = OPTIONS[name]
        values[name] = _checked(option, _from_text(option, value), option.flag)
        origins[name] = f"--no-{option.flag[2:]}" if value is False else option.flag
    # Any: each value was checked against the kind that its field's type gave.
    made: dict[str, Any] = dict(values)
    return Resolved(Settings(**made), origins)


def from_arguments(values: Mapping[str, object]) -> Settings:
    """Settings made in a program, the others at their defaults. Raises UsageError for wrong types and ranges."""
    # Any: each value was checked against the kind that its field's type gave.
    made: dict[str, Any] = {name: _checked(OPTIONS[name], value, name) for name, value in values.items()}
    return Settings(**made)


def nearest(name: str, known: Iterable[str], all_of: str = "") -> str:
    """A hint: the nearest of ``known`` names, or else ``all_of`` (the command that lists them)."""
    names = list(known)
    near = get_close_matches(name, names, 1, 0.5)
    if near:
        return f"Did you mean {near[0]}?"
    return all_of or f"There are: {', '.join(names)}."


def _read_file(path: Path) -> dict[str, object]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file", f"Write one with: segcam --print-config > {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error})", "Give another file with --config FILE.") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(
            f"{path}: not valid TOML: {error}",
            "Texts stand in quotes, switches are true or false; see 'segcam --print-config'.",
        ) from None
    found = table.pop(MARK, FORMAT)
    if found != FORMAT or isinstance(found, bool):
        raise UsageError(
            f"{path}: {MARK} = {found!r}, expected {FORMAT}",
            "It belongs to another version of Segcam: 'segcam --print-config' writes one for this version.",
        )
    values: dict[str, object] = {}
    for section, entries in table.items():
        if section not in SECTIONS:
            home = OPTIONS.get(section)
            raise UsageError(
                f"{path}: unknown {'section' if isinstance(entries, dict) else 'key'} {section!r} at the top level",
                f"It belongs to [{home.section}]." if home else nearest(section, SECTIONS),
            )
        if not isinstance(entries, dict):
            raise UsageError(f"{path}: {section!r} is not a section", f"Write [{section}] on a line of its own.")
        for key, value in entries.items():
            option = OPTIONS.get(key)
            if option is None:
                names = [name for name, known in OPTIONS.items() if known.section == section]
                near = get_close_matches(key, OPTIONS, 1, 0.5)
                elsewhere = near and OPTIONS[near[0]].section != section
                hint = f"Did you mean {near[0]} in [{OPTIONS[near[0]].section}]?" if elsewhere else nearest(key, names)
                raise UsageError(f"{path}: unknown key {key!r} in [{section}]", hint)
            if option.section != section:
                raise UsageError(f"{path}: {key!r} is not a key of [{section}]", f"It belongs to [{option.section}].")
            values[key] = value
    return values


def _from_text(option: Option, value: FlagValue) -> object:
    """A flag's text as the kind of value its option has; text that does not fit stays text and is refused later."""
    if isinstance(value, str):
        try:
            if option.kind == "whole":
                return int(value)
            if option.kind == "number":
                return float(value)
        except ValueError:
            pass
    return value


def _checked(option: Option, value: object, where: str) -> Value:
    """``value`` as the setting keeps it. Raises UsageError that names ``where``, what was found, what was expected."""
    plain_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if option.kind == "switch" and isinstance(value, bool):
        return value
    if option.kind == "list" and isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if option.kind == "time" and (plain_number or isinstance(value, str)):
        text = str(value)
        try:
            parse_time(text)
        except UsageError as error:
            raise UsageError(f"{where}: {error.message}", error.hint) from None
        return text
    if option.kind == "whole" and isinstance(value, int) and plain_number and _in_range(option, value):
        return value
    if option.kind == "number" and isinstance(value, (int, float)) and plain_number and _in_range(option, value):
        return float(value)
    if option.kind == "text" and isinstance(value, str) and (not option.choices or value in option.choices):
        return value
    hint = f"{option.flag}: {option.help}"
    if option.choices and isinstance(value, str):
        near = get_close_matches(value.lower(), option.choices, 1, 0.5)
        hint = f"Did you mean {near[0]}?" if near else hint
    raise UsageError(f"{where}: found {_toml(value)}, expected {option.expected}", hint)


def _in_range(option: Option, value: float) -> bool:
    low = -math.inf if option.low is None else option.low
    high = math.inf if option.high is None else option.high
    # isfinite only for floats: it cannot take whole numbers beyond a float's range. NaN fails every comparison.
    return low <= value <= high and (isinstance(value, int) or math.isfinite(value))


def _toml(value: object) -> str:
    """A value as TOML writes it (and, for kinds that no setting has, as Python does)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are TOML's, but TOML also wants DEL escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_toml(item) for item in value)}]"
    return repr(value) if isinstance(value, (int, float)) else str(value)


def _without_password(text: str) -> str:
    """``text`` with the password of a URL replaced by ``***``."""
    try:
        login = urlsplit(text).netloc.rpartition("@")[0]
    except ValueError:
        return text
    user, colon, password = login.partition(":")
    return text.replace(f"{login}@", f"{user}:***@", 1) if colon and password else text


def render_toml(settings: Settings, origins: Mapping[str, str] | None = None) -> str:
    """config.toml with every setting of ``settings``: by section, one comment line each.

    With ``origins`` each value's line also ends in where it came from, and passwords in URLs become ``***``.
    """
    lines = [
        "# Settings of Segcam. A flag of the same name (--alpha 0.7) goes before what stands here.",
        "# This file is read when it lies in the folder where segcam is started, or with --config FILE.",
        f"{MARK} = {FORMAT}",
    ]
    for section, title in SECTIONS.items():
        lines += ["", f"# {title.capitalize()}.", f"[{section}]"]
        for name, option in OPTIONS.items():
            if option.section != section:
                continue
            value: Value = getattr(settings, name)
            note = ""
            if origins is not None:
                note = f"  # from {origins[name]}" if origins[name] != "default" else "  # default"
                value = tuple(map(_without_password, value)) if isinstance(value, tuple) else value
                if isinstance(value, str) and _without_password(value) != value:
                    value, note = _without_password(value), f"{note}, password left out"
            ranged = option.choices or option.low is not None or option.kind == "number"
            expected = ", ".join(option.choices) or option.expected
            lines += [f"# {option.help}{f' ({expected})' if ranged else ''}", f"{name} = {_toml(value)}{note}"]
    return "\n".join(lines) + "\n"
