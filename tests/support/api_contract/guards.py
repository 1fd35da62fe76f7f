"""Which versions a stretch of code can meet."""

from __future__ import annotations

import ast

from api_contract.faces import Version

Versions = frozenset[Version]


def _is_version(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        node = node.func
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return name == "version" or name.endswith("_version")


def _literal(node: ast.expr) -> Version | None:
    if isinstance(node, ast.Tuple) and all(isinstance(e, ast.Constant) and isinstance(e.value, int) for e in node.elts):
        return tuple(element.value for element in node.elts)  # type: ignore[attr-defined]
    return None


def split(test: ast.expr, versions: Versions) -> tuple[Versions, Versions]:
    """The versions for which ``test`` may be true, and those for which it may be false."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        true, false = split(test.operand, versions)
        return false, true
    if isinstance(test, ast.BoolOp):
        sides = [split(value, versions) for value in test.values]
        if isinstance(test.op, ast.And):
            true = versions
            for side, _ in sides:
                true &= side
            return true, frozenset().union(*(side for _, side in sides)) & versions
        false = versions
        for _, side in sides:
            false &= side
        return frozenset().union(*(side for side, _ in sides)) & versions, false
    if isinstance(test, ast.Compare) and len(test.ops) == 1 and _is_version(test.left):
        bound = _literal(test.comparators[0])
        if bound is not None and isinstance(test.ops[0], (ast.GtE, ast.Lt)):
            newer = frozenset(version for version in versions if version >= bound)
            older = versions - newer
            return (newer, older) if isinstance(test.ops[0], ast.GtE) else (older, newer)
    return versions, versions


def leaves(body: list[ast.stmt]) -> bool:
    """Whether a block never runs on into what follows it."""
    if not body:
        return False
    last = body[-1]
    if isinstance(last, ast.If):
        return leaves(last.body) and leaves(last.orelse)
    if isinstance(last, ast.With):
        return leaves(last.body)
    if isinstance(last, ast.Try):
        return bool(last.finalbody and leaves(last.finalbody)) or (
            leaves(last.orelse or last.body) and all(leaves(handler.body) for handler in last.handlers)
        )
    if isinstance(last, ast.While):
        forever = isinstance(last.test, ast.Constant) and bool(last.test.value)
        return forever and not any(isinstance(node, ast.Break) for node in ast.walk(last))
    return isinstance(last, (ast.Return, ast.Raise, ast.Continue, ast.Break))
