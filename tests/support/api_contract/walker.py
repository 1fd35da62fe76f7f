"""Follows TensorRT's values through the package's source, and finds what a version doesn't have."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from api_contract.callbacks import callback_findings
from api_contract.calls import REFUSED, Calls
from api_contract.faces import MODULE, OTHER, UNKNOWN, Faces, T, Version
from api_contract.guards import Versions, leaves, split
from api_contract.index import OwnClass, OwnModule, Program

Scope = dict[str, T]


@dataclass(frozen=True, order=True)
class Finding:
    """Something that doesn't hold: in which module and line, and what."""

    module: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {self.text}"


class Walker:
    """One walk over a program. Types of attributes that are set without annotation need a silent walk before."""

    def __init__(self, program: Program, faces: Faces) -> None:
        self.program, self.faces = program, faces
        self._found: dict[tuple[str, int, str], set[Version]] = {}
        self.uses: set[tuple[str, int, str]] = set()  # (module, line, "trt.Builder.create_network") that were checked
        self.members = faces.member_names()
        self.versions: Versions = faces.versions
        self.module: OwnModule = next(iter(program.modules.values()))
        self.own: OwnClass | None = None
        self.silent = False
        self.calls = Calls(self)

    def run(self) -> list[Finding]:
        """Everything that was found, in order."""
        for self.silent in (True, True, False):
            for module in self.program.concerned():
                self.module, self.own, self.versions = module, None, self.faces.versions
                self.block(module.tree.body, {})
        return self.findings

    @property
    def findings(self) -> list[Finding]:
        """Everything found so far, in order."""
        return sorted(
            Finding(module, line, f"{text} in {words(sorted(versions))}" if versions else text)
            for (module, line, text), versions in self._found.items()
        )

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

    # --- statements

    def block(self, body: list[ast.stmt], scope: Scope) -> None:
        before = self.versions
        for statement in body:
            self.statement(statement, scope)
            if isinstance(statement, ast.If):
                true, false = split(statement.test, self.versions)
                if leaves(statement.body):
                    self.versions = false
                elif statement.orelse and leaves(statement.orelse):
                    self.versions = true
        self.versions = before

    def statement(self, node: ast.stmt, scope: Scope) -> None:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self.function(node, scope)
            case ast.ClassDef():
                self.klass(node, scope)
            case ast.If(test=test):
                self.infer(test, scope)
                true, false = split(test, self.versions)
                with self.under(true):
                    self.block(node.body, scope)
                with self.under(false):
                    self.block(node.orelse, scope)
            case ast.Assign():
                value = self.infer(node.value, scope)
                for target in node.targets:
                    self.assign(target, value, scope, node.value)
            case ast.AnnAssign():
                value = self.infer(node.value, scope) if node.value else UNKNOWN
                declared = self.annotation(node.annotation)
                self.assign(
                    node.target, value if value.foreign and not declared.foreign else declared, scope, node.value
                )
            case ast.AugAssign():
                self.infer(node.value, scope)
                self.infer(ast.copy_location(_loaded(node.target), node), scope)
                self.assign(node.target, OTHER, scope, node.value)
            case ast.For() | ast.AsyncFor():
                self.assign(node.target, self.item(self.infer(node.iter, scope)), scope)
                self.block(node.body, scope)
                self.block(node.orelse, scope)
            case ast.With() | ast.AsyncWith():
                for one in node.items:
                    value = self.infer(one.context_expr, scope)
                    if one.optional_vars is not None:
                        self.assign(one.optional_vars, self.item(value) if value.kind == "list" else value, scope)
                self.block(node.body, scope)
            case ast.Try():
                for body in (node.body, *(handler.body for handler in node.handlers), node.orelse, node.finalbody):
                    self.block(body, scope)
            case ast.While():
                self.infer(node.test, scope)
                self.block(node.body, scope)
            case ast.Match():
                self.infer(node.subject, scope)
                for case in node.cases:
                    self.block(case.body, scope)
            case ast.Expr(value=ast.Call(func=func) as call):
                called = self.infer(call, scope) and self.infer(func, scope)
                if called.kind == "method" and self.calls.answers(called):
                    self.found(node, f"{ast.unparse(func)}(): what it answers is dropped; failure is a False or a None")
            case ast.Delete():
                pass
            case _:
                for child in ast.iter_child_nodes(node):
                    if isinstance(child, ast.expr):
                        self.infer(child, scope)

    def function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, scope: Scope) -> None:
        inner = dict(scope)
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        for index, argument in enumerate(arguments):
            if index == 0 and self.own is not None and argument.arg in ("self", "cls"):
                inner[argument.arg] = T("own" if argument.arg == "self" else "ownclass", self.own.key)
            else:
                inner[argument.arg] = MODULE if argument.arg == "trt" else self.annotation(argument.annotation)
        self.annotation(node.returns)
        for default in [*node.args.defaults, *node.args.kw_defaults]:
            if default is not None:
                self.infer(default, scope)
        if self.module.functions.get(node.name) is not node:
            scope[node.name] = T("localfunction", inner=self.annotation(node.returns))
        own, self.own = self.own, self.own if self.own and node in self.own.methods.values() else None
        if own is not None and self.own is None:
            inner.setdefault("self", T("own", own.key))
        self.block(node.body, inner)
        self.own = own

    def klass(self, node: ast.ClassDef, scope: Scope) -> None:
        bases = [self.infer(base, scope) for base in node.bases]
        before, self.own = self.own, self.module.classes[node.name]
        self.block(node.body, dict(scope))
        self.own = before
        for base in bases:
            if base.kind == "class":
                for line, text in callback_findings(node, base.name, self.faces, self.versions):
                    self.found(line, text)

    def annotation(self, node: ast.expr | None) -> T:
        found = self.program.annotated(self.module, node, self.faces)
        if found.kind == "missing" and node is not None:
            self.found(node, f"no version has trt.{found.name}")
            return OTHER
        return found

    def assign(self, target: ast.expr, value: T, scope: Scope, given: ast.expr | None = None) -> None:
        match target:
            case ast.Name(id=name):
                scope[name] = MODULE if name == "trt" else value
            case ast.Tuple(elts=elements) | ast.List(elts=elements):
                for index, element in enumerate(elements):
                    one = value.items[index] if index < len(value.items) else self.item(value)
                    self.assign(element.value if isinstance(element, ast.Starred) else element, one, scope)
            case ast.Attribute(value=holder, attr=name):
                owner = self.infer(holder, scope)
                if owner.kind == "own":
                    fields = self.program.own_class(owner.name)
                    if name not in fields.fields and value.kind not in ("unknown", "other"):
                        fields.inferred[name] = value
                elif owner.foreign:
                    self.calls.store(target, owner, name, value, given)
                else:
                    self.untraced(target, owner, name)
            case ast.Subscript():
                self.infer(target.value, scope)

    # --- expressions

    def item(self, kind: T) -> T:
        """What iterating gives."""
        if kind.kind in ("list", "map"):
            return kind.inner or UNKNOWN
        if kind.kind == "tuple":
            return kind.items[0] if len(set(kind.items)) == 1 else UNKNOWN
        return OTHER if kind.kind in ("object", "other") else UNKNOWN

    def infer(self, node: ast.expr, scope: Scope) -> T:
        """The type of an expression; every use inside it is checked on the way."""
        match node:
            case ast.Name(id=name):
                return scope[name] if name in scope else self.program.named(self.module, name)
            case ast.Attribute(value=value, attr=name):
                return self.attribute(node, self.infer(value, scope), name)
            case ast.Call():
                return self.calls.call(node, scope)
            case ast.IfExp(test=test):
                self.infer(test, scope)
                true, false = split(test, self.versions)
                with self.under(true):
                    one = self.infer(node.body, scope)
                with self.under(false):
                    other = self.infer(node.orelse, scope)
                return one if one.kind not in ("unknown", "other") else other
            case ast.BoolOp(op=op, values=values):
                kinds, before = [], self.versions
                for value in values:
                    kinds.append(self.infer(value, scope))
                    true, false = split(value, self.versions)
                    self.versions = true if isinstance(op, ast.And) else false
                self.versions = before
                return next((kind for kind in kinds if kind.kind not in ("unknown", "other")), kinds[-1])
            case ast.Compare():
                self.calls.compare(node, scope)
                return OTHER
            case ast.Subscript(value=value):
                held = self.infer(value, scope)
                self.infer(node.slice, scope)
                if held.kind == "tuple" and isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, int):
                    return held.items[node.slice.value]
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
                return T("list", inner=kinds[0] if kinds else UNKNOWN)
            case ast.Tuple(elts=elements):
                return T("tuple", items=tuple(self.infer(element, scope) for element in elements))
            case ast.Dict(keys=keys, values=values):
                for key in keys:
                    if key is not None:
                        self.infer(key, scope)
                kinds = [self.infer(value, scope) for value in values]
                return T("map", inner=kinds[0] if kinds else UNKNOWN)
            case ast.Lambda(args=arguments, body=body):
                inner = scope | {argument.arg: UNKNOWN for argument in arguments.args}
                return T("callable", inner=self.infer(body, inner))
            case ast.NamedExpr(target=target, value=value):
                kind = self.infer(value, scope)
                self.assign(target, kind, scope, value)
                return kind
            case ast.Constant(value=value):
                return T("literal", type(value).__name__)
            case ast.Starred(value=value) | ast.Await(value=value):
                return self.infer(value, scope)
            case _:
                for child in ast.iter_child_nodes(node):
                    if isinstance(child, ast.expr):
                        self.infer(child, scope)
                return OTHER

    def attribute(self, node: ast.Attribute, owner: T, name: str) -> T:
        """The type of ``owner.name``, which every version at hand must have."""
        if owner.kind == "own":
            return self.own_attribute(node, owner, name)
        if owner.kind == "ownmodule":
            return self.program.named(self.program.modules[owner.name], name)
        if name in ("trt", "_trt"):
            return MODULE
        if owner.kind == "unrecorded":
            self.found(node, f"trt.{owner.name} is in no recorded face: let standin_trt/record.py record it")
            return UNKNOWN
        if not owner.foreign:
            self.untraced(node, owner, name)
            return UNKNOWN
        if owner.kind == "member":
            if name not in ("name", "value", "itemsize") or (name == "itemsize" and owner.name != "DataType"):
                self.found(node, f"a member of trt.{owner.name} has no {name!r}")
            return OTHER
        if name in REFUSED.get(owner.name, ()) and owner.kind == "enum":
            self.found(node, f"trt.{owner.name}.{name} is gone from 11, guarded or not: convert the graph instead")
            return T("member", owner.name)
        self.uses.add((self.module.name, node.lineno, f"{describe(owner)}{name}"))
        seen = {version: self._lookup(version, owner, name) for version in self.versions}
        for version, kind in seen.items():
            if kind is None:
                self.found(node, f"{describe(owner)}{name} does not exist", version)
        if not seen:
            self.found(node, f"{describe(owner)}{name} stands under guards that no version passes")
        return next((kind for kind in seen.values() if kind is not None), UNKNOWN)

    def _lookup(self, version: tuple[int, ...], owner: T, name: str) -> T | None:
        if owner.kind == "module":
            return self.faces.of_module(version, name)
        if owner.kind == "enum":
            return self.faces.of_enum(version, owner.name, name)
        if owner.kind == "class":
            return self.faces.of_class(version, owner.name, name)
        if owner.kind == "object":
            return self.faces.of_object(version, owner.name, name)
        return OTHER if name.startswith("__") else None

    def own_attribute(self, node: ast.Attribute, owner: T, name: str) -> T:
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

    def untraced(self, node: ast.expr, owner: T, name: str) -> None:
        """A TensorRT member of something that can't be followed, in a file that deals with TensorRT."""
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


def _loaded(target: ast.expr) -> ast.expr:
    """A target as an expression that is read."""
    return ast.parse(ast.unparse(target), mode="eval").body
