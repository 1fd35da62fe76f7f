"""The command line's parser, made from the table of settings; it gives only the flags that were given."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from segcam.config import FlagValue, nearest
from segcam.errors import UsageError
from segcam.settings import OPTIONS, SECTIONS, Option

if TYPE_CHECKING:
    from _typeshed import SupportsWrite


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose complaints are UsageErrors, with the nearest flag for a mistyped one."""

    def __init__(self, prog: str, **more: Any) -> None:
        # Any: handed on to argparse, which checks it. Abbreviations would change their meaning with each new flag.
        super().__init__(prog=prog, allow_abbrev=False, formatter_class=_Formatter, **more)

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        # argparse swallows the error of a reader that went away in some versions and not in others.
        print(self.format_help(), end="", file=file)

    def error(self, message: str) -> NoReturn:
        raise UsageError(message.removeprefix("argument "), f"See: {self.prog} --help")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The flags of ``arguments``. Raises UsageError for any that is not known."""
        given, unknown = self.parse_known_args(self._joined(arguments))
        if not unknown:
            return given
        first = unknown[0]
        if not first.startswith("-") or first == "-":
            takes = "--source" in self._option_string_actions
            raise UsageError(
                f"{first!r} is not expected here",
                f"A source is given with: --source {first}" if takes else f"See: {self.prog} --help",
            )
        word = first.partition("=")[0]
        long_flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
        raise UsageError(f"no flag is called {word}", nearest(word, long_flags, f"See: {self.prog} --help"))

    def _joined(self, arguments: Sequence[str]) -> list[str]:
        """``--classes -sky,-building`` as ``--classes=-sky,-building``: argparse would take ``-sky`` for ``-s ky``."""
        dashed = {option.flag for option in OPTIONS.values() if option.dashed} & set(self._option_string_actions)
        joined: list[str] = []
        for word in arguments:
            is_value = word.startswith("-") and not word.startswith("--") and word not in self._option_string_actions
            if joined and joined[-1] in dashed and is_value:
                joined[-1] += f"={word}"
            else:
                joined.append(word)
        return joined


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str, **more: Any) -> None:
        super().__init__(prog, max_help_position=30, **more)


def add_settings(parser: Parser, sections: Sequence[str] = tuple(SECTIONS)) -> None:
    """Gives ``parser`` a flag for each setting of ``sections``, in one titled group for each."""
    for section in sections:
        group = parser.add_argument_group(f"{section} ({SECTIONS[section]})")
        for option in OPTIONS.values():
            if option.section == section:
                _add(group, option)


def _add(group: argparse._ArgumentGroup, option: Option) -> None:
    # Values stay text here: config.load turns them into numbers, so that flags and files get the same messages.
    flags = [flag for flag in (option.short, option.flag) if flag]
    more: dict[str, Any] = {"dest": option.name, "default": argparse.SUPPRESS, "help": _help(option)}
    if option.kind == "switch":
        group.add_argument(*flags, action=argparse.BooleanOptionalAction, **more)
    elif option.kind == "list":
        group.add_argument(*flags, action="append", metavar=option.metavar, **more)
    elif option.bare is not None:
        group.add_argument(*flags, nargs="?", const=option.bare, metavar=option.metavar, **more)
    else:
        group.add_argument(*flags, metavar=option.metavar, **more)


def _help(option: Option) -> str:
    default = option.default
    if option.kind == "switch":
        default = "on" if default else "off"
    shown = f" (default: {default})" if default not in ("", ()) else ""
    return f"{option.help}{shown}".replace("%", "%%")


def given_flags(namespace: argparse.Namespace) -> dict[str, FlagValue]:
    """The settings among the parsed flags, by name: what ``segcam.config.load`` takes."""
    return {name: value for name, value in vars(namespace).items() if name in OPTIONS}
