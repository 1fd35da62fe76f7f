"""What expressions are, and what of TensorRT's is taken in them that a version doesn't have."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from api_contract.calls import MAY_FAIL, Calls
from api_contract.faces import MODULE, OTHER, REFUSED, UNKNOWN, Faces, T, Version
from api_contract.flow import Scope, hard_coded, richer
from api_contract.guards import Versions, split
from api_contract.index import OwnClass, OwnModule, Program


@dataclass(frozen=True, order=True)
class Finding:
    """Something that doesn't hold: in which module and line, and what."""

    module: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {self.text}"


class Inference:
    """The types of expressions in one module after the other; every use inside them is checked on the way."""

    def __init__(self, program: Program, faces: Faces) -> None:
        self.program, self.faces = program, faces
        self._found: dict[tuple[str, int, str], set[Version]] = {}
        self.uses: set[tuple[str, int, str]] = set()  # (module, line, "trt.Builder.create_network") that were checked
        self.members, self.module_names = faces.member_names(), faces.module_names()
        self.versions: Versions = faces.versions
        self.module: OwnModule = next(iter(program.modules.values()))
        self.own: OwnClass | None = None
        self.inside: ast.AST | None = None  # the function that is walked
        self.shared: set[str] = set()  # its global names
        self.silent = False
        self.calls = Calls(self)

    def found(self, node: ast.AST, text: str, version: Version | None = None) -> None:
        """Note a finding, of a version where that is given; a walk that only learns notes nothing."""
        if not self.silent:
            versions = self._found.setdefault((self.module.name, getattr(node, "lineno", 0), text), set())
            versions |= {version} if version else set()

    @contextmanager
    def under(self, versions: Versions) -> Iterator[None]:
        """For what stands under a guard."""
        before, self.versions = self.versions, versions
        yield
        self.versions = before

    def annotation(self, node: ast.expr | None) -> T:
        found = self.program.annotated(self.module, node, self.faces)
        if found.kind == "missing" and node is not None:
            self.found(node, f"no version has trt.{found.name}")
            return OTHER
        return found

    def assign(self, target: ast.expr, value: T, scope: Scope, given: ast.expr | None = None) -> None:
        """``target = value``."""
        raise NotImplementedError

    # --- expressions

    def item(self, kind: T) -> T:
        """What iterating gives."""
        if kind.kind in ("list", "map"):
            return kind.inner or UNKNOWN
        if kind.kind == "tuple":
            return kind.items[0] if len(set(kind.items)) == 1 else richer(*kind.items)
        return OTHER if kind.kind in ("object", "other") else UNKNOWN

    def infer(self, node: ast.expr, scope: Scope) -> T:
        """The type of an expression; every use inside it is checked on the way."""
        match node:
            case ast.Name(id=name):
                if name in scope and scope[name].name != "NoneType":
                    return scope[name]
                return richer(self.program.named(self.module, name), scope.get(name, UNKNOWN))
            case ast.Attribute(value=value, attr=name):
                owner = self.infer(value, scope)
                if owner.kind == "object" and isinstance(value, ast.Call):
                    self.chained(value, scope)
                return self.attribute(node, owner, name)
            case ast.BinOp(left=left, op=op, right=right):
                one, other = self.infer(left, scope), self.infer(right, scope)
                if (
                    isinstance(op, ast.Add)
                    and one.inner
                    and other.inner
                    and one.inner.kind == other.inner.kind == "text"
                ):
                    return T("literal", "str", T("text", one.inner.name + other.inner.name))
                return T("bits") if hard_coded(node) else OTHER
            case ast.Call():
                return self.calls.call(node, scope)
            case ast.IfExp(test=test):
                self.infer(test, scope)
                true, false = split(test, self.versions)
                with self.under(true):
                    one = self.infer(node.body, scope)
                with self.under(false):
                    other = self.infer(node.orelse, scope)
                return richer(one, other)
            case ast.BoolOp(op=op, values=values):
                kinds, before = [], self.versions
                for value in values:
                    kinds.append(self.infer(value, scope))
                    true, false = split(value, self.versions)
                    self.versions = true if isinstance(op, ast.And) else false
                self.versions = before
                return richer(*reversed(kinds))
            case ast.Compare():
                self.calls.compare(node, scope)
                return OTHER
            case ast.Subscript(value=value):
                held = self.infer(value, scope)
                key = self.infer(node.slice, scope)
                if held.kind == "members":
                    return self.calls.names.item(node, held, key)
                if held.kind == "tuple" and isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, int):
                    return held.items[node.slice.value] if node.slice.value < len(held.items) else UNKNOWN
                if held.kind == "enum":
                    self.found(node, f"trt.{held.name}[...]: pybind's enums have no index; use getattr with a default")
                return held if isinstance(node.slice, ast.Slice) else self.item(held)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                inner = dict(scope)
                for generator in node.generators:
                    self.assign(generator.target, self.item(self.infer(generator.iter, inner)), inner)
                    for test in generator.ifs:
                        self.infer(test, inner)
                if isinstance(node, ast.DictComp):
                    self.infer(node.key, inner)
                    return T("map", inner=self.infer(node.value, inner))
                return T("list", inner=self.infer(node.elt, inner))
            case ast.List(elts=elements) | ast.Set(elts=elements):
                kinds = [self.infer(element, scope) for element in elements]
                return T("list", inner=richer(*kinds))
            case ast.Tuple(elts=elements):
                return T("tuple", items=tuple(self.infer(element, scope) for element in elements))
            case ast.Dict(keys=keys, values=values):
                for key in keys:
                    if key is not None:
                        self.infer(key, scope)
                kinds = [self.infer(value, scope) for value in values]
                return T("map", inner=richer(*kinds))
            case ast.Lambda(args=arguments, body=body):
                inner = scope | {argument.arg: UNKNOWN for argument in arguments.args}
                return T("callable", inner=self.infer(body, inner))
            case ast.NamedExpr(target=target, value=value):
                kind = self.infer(value, scope)
                self.assign(target, kind, scope, value)
                return kind
            case ast.Constant(value=value):
                if isinstance(value, str):
                    return T("literal", "str", T("text", value))
                # Numbers that aren't 0 are told from 0, which is no flag at all.
                return T("literal", type(value).__name__, T("some") if value and type(value) is int else None)
            case ast.Starred(value=value) | ast.Await(value=value):
                return self.infer(value, scope)
            case _:
                for child in ast.iter_child_nodes(node):
                    if isinstance(child, ast.expr):
                        self.infer(child, scope)
                return OTHER

    def chained(self, call: ast.Call, scope: Scope) -> None:
        """Something taken at once from what may be None."""
        called = self.infer(call.func, scope)
        if called.kind == "method" and called.name in MAY_FAIL:
            self.found(call, f"{ast.unparse(call.func)}() may be None, which is how it fails: look before its use")

    def attribute(self, node: ast.expr | ast.stmt, owner: T, name: str) -> T:
        """The type of ``owner.name``, which every version at hand must have."""
        if owner.kind == "own":
            return self.own_attribute(node, owner, name)
        if owner.kind == "ownmodule":
            return self.program.named(self.program.modules[owner.name], name)
        if name in ("trt", "_trt"):
            return MODULE
        if owner.foreign and name in ("__members__", "__dict__"):
            return T("members", inner=owner)
        if owner.kind == "object" and name == "__class__":
            return T("class", owner.name)
        if owner.kind == "unrecorded":
            self.found(node, f"trt.{owner.name} is in no recorded face: let standin_trt/record.py record it")
            return UNKNOWN
        if not owner.foreign:
            self.untraced(node, owner, name)
            return UNKNOWN
        if owner.kind == "member":
            if name not in ("name", "value", "itemsize") or (name == "itemsize" and owner.name != "DataType"):
                self.found(node, f"a member of trt.{owner.name} has no {name!r}")
            return T("number", owner.name) if name == "value" else OTHER
        if name in REFUSED.get(owner.name, ()) and owner.kind == "enum":
            self.found(node, f"trt.{owner.name}.{name} is gone from 11, guarded or not: convert the graph instead")
            return T("member", owner.name)
        self.uses.add((self.module.name, node.lineno, f"{describe(owner)}{name}"))
        seen = {version: self.lookup(version, owner, name) for version in self.versions}
        for version, kind in seen.items():
            if kind is None:
                self.found(node, f"{describe(owner)}{name} does not exist", version)
        if not seen:
            self.found(node, f"{describe(owner)}{name} stands under guards that no version passes")
        return next((kind for kind in seen.values() if kind is not None), UNKNOWN)

    def lookup(self, version: tuple[int, ...], owner: T, name: str) -> T | None:
        if owner.kind == "module":
            return self.faces.of_module(version, name)
        if owner.kind == "enum":
            return self.faces.of_enum(version, owner.name, name)
        if owner.kind == "class":
            return self.faces.of_class(version, owner.name, name)
        if owner.kind == "object":
            return self.faces.of_object(version, owner.name, name)
        return OTHER if name.startswith("__") else None

    def own_attribute(self, node: ast.expr | ast.stmt, owner: T, name: str) -> T:
        own = self.program.own_class(owner.name)
        if name in ("trt", "_trt"):
            return MODULE
        if name in own.fields:
            return self.program.annotated(own.module, own.fields[name], self.faces)
        if name in own.methods:
            method = own.methods[name]
            if any(
                ast.unparse(one).rpartition(".")[2] in ("property", "cached_property") for one in method.decorator_list
            ):
                return self.program.annotated(own.module, method.returns, self.faces)
            return T("ownmethod", f"{owner.name}.{name}")
        if name in own.inferred:
            return own.inferred[name]
        for base in own.node.bases:
            meant = self.program.annotated(own.module, base, self.faces)
            if meant.kind == "own":
                return self.own_attribute(node, meant, name)
            if meant.kind == "object" and name in self.members:
                return self.attribute(node, meant, name)
        return UNKNOWN

    def untraced(self, node: ast.expr | ast.stmt, owner: T, name: str) -> None:
        """A TensorRT member of something that can't be followed, in a file that deals with TensorRT."""
        if owner == T("other", "ModuleType") and self.module.touches and name in self.module_names:
            self.found(node, f"{ast.unparse(node)}: call TensorRT's module trt, so that it can be followed")
        if owner.kind not in ("unknown", "any") or not self.module.touches:
            return
        close = name in self.members and ("_" in name or owner.kind == "any")
        if not close and owner.kind == "any" and "_" in name:
            close = bool(difflib.get_close_matches(name, self.members, 1, 0.85))
        if close:
            self.found(node, f"{ast.unparse(node)}: can't be followed to its TensorRT type; annotate it")


def describe(owner: T) -> str:
    """ "trt.BuilderFlag."."""
    return "trt." if owner.kind == "module" else f"trt.{owner.name}."


def words(versions: list[tuple[int, ...]]) -> str:
    """Versions as people write them."""
    return ", ".join(".".join(map(str, version)) for version in versions)
