"""Members that are asked for by name: getattr and its kin, ``__members__``, ``vars``, operator's getters."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from api_contract.faces import MODULE, OTHER, REFUSED, UNKNOWN, T
from api_contract.flow import text_of
from api_contract.index import IMPORTERS

if TYPE_CHECKING:
    from api_contract.flow import Scope
    from api_contract.inference import Inference

GETTERS = frozenset({"attrgetter", "methodcaller"})
SPECIAL = IMPORTERS | GETTERS | {"getattr", "hasattr", "setattr", "vars", "load_tensorrt"}


class Names:
    """What the walker does with them."""

    def __init__(self, walker: Inference) -> None:
        self.walker = walker

    def call(self, node: ast.Call, scope: Scope) -> T | None:
        """The type of a call of one of SPECIAL, checked; None where it is of something else than TensorRT's."""
        walker = self.walker
        called = ast.unparse(node.func).rpartition(".")[2]
        if called not in SPECIAL:
            return self._of_members(node, scope)
        if called == "load_tensorrt":
            return MODULE
        if not node.args:
            return None
        first = walker.infer(node.args[0], scope)
        if called in IMPORTERS:
            return MODULE if (text_of(first) or "").partition(".")[0] == "tensorrt" else None
        if called in GETTERS:
            if walker.module.touches:
                walker.found(node, f"{ast.unparse(node)}: can't be followed; write it as an attribute")
            return None
        if called == "vars":
            return T("members", inner=first) if first.foreign else None
        return self._by_name(node, called, first, scope)

    def _by_name(self, node: ast.Call, how: str, owner: T, scope: Scope) -> T | None:
        walker = self.walker
        given = [walker.infer(argument, scope) for argument in node.args[1:]]
        literal = text_of(given[0]) if given else None
        if not owner.foreign:
            if literal is not None:
                walker.untraced(node, owner, literal)
            return None
        if how != "getattr":
            walker.found(node, f"{ast.unparse(node)}: {how} is no guard; compare version(trt)")
            return OTHER
        if len(node.args) < 3:
            walker.found(node, f"{ast.unparse(node)}: getattr without a default")
        if owner.kind != "enum":
            walker.found(node, f"{ast.unparse(node)}: getattr is for enums; compare version(trt)")
            return UNKNOWN
        if literal is None:
            if owner.name in REFUSED:
                walker.found(node, f"{ast.unparse(node)}: can't be followed; write the flag as an attribute")
        elif literal in REFUSED.get(owner.name, ()):
            walker.found(node, f"trt.{owner.name}.{literal} is gone from 11: convert the graph instead")
        elif not any(walker.faces.of_enum(version, owner.name, literal) for version in walker.faces.versions):
            walker.found(node, f"no version has trt.{owner.name}.{literal}")
        return T("member", owner.name)

    def _of_members(self, node: ast.Call, scope: Scope) -> T | None:
        """``trt.BuilderFlag.__members__.get("TF32")``."""
        if not isinstance(node.func, ast.Attribute) or node.func.attr not in ("get", "__getitem__") or not node.args:
            return None
        held = self.walker.infer(node.func.value, scope)
        if held.kind != "members":
            return None
        return self.item(node, held, self.walker.infer(node.args[0], scope))

    def item(self, node: ast.expr, members: T, key: T) -> T:
        """``members[key]``."""
        owner, name = members.inner, text_of(key)
        assert owner is not None
        if name is not None:
            return self.walker.attribute(node, owner, name)
        if owner.name in REFUSED or owner.kind == "module":
            self.walker.found(node, f"{ast.unparse(node)}: can't be followed; write it as an attribute")
        return T("member", owner.name) if owner.kind == "enum" else UNKNOWN

    def contained(self, node: ast.Compare, key: T, members: T) -> None:
        """``key in members``: no guard, unless it is the same for every version."""
        owner, name = members.inner, text_of(key)
        assert owner is not None
        there = [self.walker.lookup(version, owner, name) for version in self.walker.versions] if name else [None]
        if not all(there) or name in REFUSED.get(owner.name, ()):
            self.walker.found(node, f"{ast.unparse(node)}: a test for a name is no guard; compare version(trt)")
