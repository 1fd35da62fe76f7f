"""Recorded signatures, and the binding of arguments to them as pybind11 does it."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

MISSING = object()


@dataclass(frozen=True)
class Argument:
    """One argument: its name, its type as recorded ("" where none is) and its default's text (None: needed)."""

    name: str
    kind: str
    default: str | None

    @property
    def by_keyword(self) -> bool:
        """pybind11 calls an unnamed argument argN; those can't be given by name."""
        return not re.fullmatch(r"arg\d+", self.name)


@dataclass(frozen=True)
class Signature:
    """One overload: its arguments without self, and what it returns ("" where that isn't recorded)."""

    arguments: tuple[Argument, ...]
    returns: str
    variadic: bool = False

    @property
    def needed(self) -> int:
        """How many arguments have no default."""
        return sum(argument.default is None for argument in self.arguments)


def _split(text: str) -> list[str]:
    """A text cut at the commas that are in no bracket."""
    parts, depth, start = [], 0, 0
    for at, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth:
            parts.append(text[start:at])
            start = at + 1
    return [part.strip() for part in [*parts, text[start:]] if part.strip()]


@cache
def parse(text: str) -> Signature:
    """``"(self, flags: int = 0) -> INetworkDefinition"`` taken apart."""
    head, arrow, returns = text.rpartition(") -> ")
    inside = head[1:] if arrow else text[1 : text.rindex(")")]
    arguments, variadic = [], False
    for position, part in enumerate(_split(inside)):
        if part.startswith("*"):
            variadic = True
            continue
        left, equals, default = part.partition("=")
        name, _, kind = left.partition(":")
        if position == 0 and name.strip() in ("self", "this"):
            continue
        arguments.append(Argument(name.strip(), kind.strip(), default.strip() if equals else None))
    return Signature(tuple(arguments), returns.strip(), variadic)


def fits(signature: Signature, positional: int, keywords: list[str]) -> str | None:
    """Why a call with ``positional`` arguments and these keywords doesn't fit, or None where it does."""
    if signature.variadic:
        return None
    names = [argument.name for argument in signature.arguments]
    if positional > len(names):
        return f"takes at most {len(names)} arguments, {positional} given"
    for keyword in keywords:
        if keyword not in names or not signature.arguments[names.index(keyword)].by_keyword:
            return f"has no argument {keyword!r} (it has {', '.join(names) or 'none'})"
        if names.index(keyword) < positional:
            return f"argument {keyword!r} given twice"
    given = set(names[:positional]) | set(keywords)
    lacking = [
        argument.name for argument in signature.arguments if argument.default is None and argument.name not in given
    ]
    return f"lacks {', '.join(lacking)}" if lacking else None


def default_value(text: str, module: Any) -> Any:
    """The value of a recorded default: a Python literal, or a member of an enum of the module."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = module
        for part in text.split("."):
            if value is module and not hasattr(module, part):
                value = module.ILogger  # Severity is defined inside it
            value = getattr(value, part)
        return value


def convert(value: Any, kind: str, module: Any) -> Any:
    """``value`` as pybind11 would hand it on for an argument of ``kind``; TypeError where it would not."""
    if kind in ("", "object"):
        return value
    if kind == "bool":
        if isinstance(value, bool) or value is None or type(value).__name__ in ("bool_", "bool"):
            return bool(value)
        raise TypeError
    if kind == "int":
        if isinstance(value, float) or not (hasattr(value, "__index__") or hasattr(value, "__int__")):
            raise TypeError
        if isinstance(value, str):
            raise TypeError
        return int(value)
    if kind == "float":
        if isinstance(value, (str, bytes)) or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
            raise TypeError
        return float(value)
    if kind == "str":
        if isinstance(value, str) or value is None:
            return value
        raise TypeError
    if kind == "buffer":
        memoryview(value)  # a TypeError of its own where it has none
        return value
    if kind == "tuple" or kind == "list":
        if type(value).__name__ != kind and not isinstance(value, tuple if kind == "tuple" else list):
            raise TypeError
        return value
    listed = re.fullmatch(r"(?:list|Sequence|tuple)\[(.*?)(?:, \.\.\.)?\]", kind)
    if listed:
        if isinstance(value, (str, bytes)) or not hasattr(value, "__len__"):
            raise TypeError
        return [convert(item, listed.group(1), module) for item in value]
    wanted = module
    for part in kind.split("."):
        wanted = getattr(wanted, part, None)
    if not isinstance(wanted, type):
        return value
    if isinstance(value, wanted):
        return value
    if value is None and not hasattr(wanted, "__members__"):
        return None
    if kind == "Dims" and isinstance(value, (tuple, list)):
        return module.Dims([convert(item, "int", module) for item in value])
    raise TypeError


def bind(
    overloads: list[Signature], args: tuple[Any, ...], kwargs: dict[str, Any], module: Any
) -> dict[str, Any] | None:
    """The arguments by name for the first overload that takes them, or None where none does."""
    for signature in overloads:
        if fits(signature, len(args), list(kwargs)):
            continue
        bound: dict[str, Any] = {}
        try:
            for position, argument in enumerate(signature.arguments):
                given = args[position] if position < len(args) else kwargs.get(argument.name, MISSING)
                if given is MISSING:
                    bound[argument.name] = default_value(argument.default or "None", module)
                else:
                    bound[argument.name] = convert(given, argument.kind, module)
        except (TypeError, ValueError):
            continue
        return bound
    return None
