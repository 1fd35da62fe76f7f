"""What a name may hold where ways through the code meet, and what patterns and functions say in other words."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from api_contract.faces import UNKNOWN, T

Scope = dict[str, T]
LEAST = ("unknown", "any", "other", "literal")


def richer(*kinds: T) -> T:
    """The one of ``kinds`` that says most: TensorRT's before the package's own, None and the unknown last."""

    def rank(kind: T) -> int:
        if kind.foreign or kind.kind == "members":
            return 9
        if kind.kind == "literal" and kind.name == "NoneType":
            return -1
        return LEAST.index(kind.kind) if kind.kind in LEAST else 5

    return max(kinds, key=rank, default=UNKNOWN)


def meet(scope: Scope, ways: list[Scope]) -> None:
    """``scope`` as it may be after one of ``ways``."""
    for name in {name for way in ways for name in way}:
        scope[name] = richer(*(way[name] for way in ways if name in way))


def in_patterns(pattern: ast.pattern) -> Iterator[ast.expr]:
    """The expressions in a pattern of ``match``."""
    for node in ast.walk(pattern):
        if isinstance(node, ast.MatchValue):
            yield node.value
        elif isinstance(node, ast.MatchClass):
            yield node.cls


def is_read(name: str, within: ast.AST) -> bool:
    """Whether a variable is looked at anywhere."""
    return any(
        isinstance(one, ast.Name) and one.id == name and isinstance(one.ctx, ast.Load) for one in ast.walk(within)
    )


def text_of(kind: T) -> str | None:
    """The string that an expression surely is."""
    return kind.inner.name if kind.kind == "literal" and kind.inner is not None and kind.name == "str" else None


def hard_coded(expression: ast.expr) -> bool:
    """Whether bits are made of plain numbers: 4, or 1 << 2, joined by | ."""
    if isinstance(expression, ast.BinOp):
        if isinstance(expression.op, ast.LShift):
            return isinstance(expression.right, ast.Constant)
        return hard_coded(expression.left) or hard_coded(expression.right)
    return isinstance(expression, ast.Constant) and isinstance(expression.value, int) and bool(expression.value)
