"""Follows TensorRT's values through the package's source, and finds what a version doesn't have."""

from __future__ import annotations

import ast

from api_contract.callbacks import callback_findings
from api_contract.faces import MODULE, OTHER, UNKNOWN, T
from api_contract.flow import Scope, in_patterns, is_read, meet, richer
from api_contract.guards import leaves, split
from api_contract.inference import Finding, Inference, words


class Walker(Inference):
    """One walk over a program. Types of attributes that are set without annotation need a silent walk before."""

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
                ways = [dict(scope), dict(scope)]
                with self.under(true):
                    self.block(node.body, ways[0])
                with self.under(false):
                    self.block(node.orelse, ways[1])
                meet(scope, ways)
            case ast.Import():
                pass
            case ast.ImportFrom(module=source, names=names):
                if (source or "").partition(".")[0] == "tensorrt":
                    for alias in names:
                        self.attribute(node, MODULE, alias.name)
            case ast.Global(names=names) | ast.Nonlocal(names=names):
                self.shared.update(names)
            case ast.Assign():
                value = self.infer(node.value, scope)
                self.unread(node, scope)
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
                self.infer(_loaded(node.target, node), scope)
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
                self.block(node.body, scope)
                ways = [scope]
                for handler in node.handlers:
                    if handler.type is not None:
                        self.infer(handler.type, scope)
                    ways.append(dict(scope))
                    self.block(handler.body, ways[-1])
                self.block(node.orelse, scope)
                meet(scope, ways)
                self.block(node.finalbody, scope)
            case ast.While():
                self.infer(node.test, scope)
                self.block(node.body, scope)
            case ast.Match():
                self.infer(node.subject, scope)
                ways = [scope]
                for case in node.cases:
                    ways.append(dict(scope))
                    for expression in in_patterns(case.pattern):
                        self.infer(expression, scope)
                    if case.guard is not None:
                        self.infer(case.guard, ways[-1])
                    self.block(case.body, ways[-1])
                meet(scope, ways)
            case ast.Expr(value=ast.Call(func=func) as call):
                called = self.infer(call, scope) and self.infer(func, scope)
                if called.kind == "method" and self.calls.answers(called):
                    self.found(node, f"{ast.unparse(func)}(): what it answers is dropped; failure is a False or a None")
            case ast.Delete(targets=targets):
                for target in targets:
                    self.infer(_loaded(target, node), scope)
            case _:
                for child in ast.iter_child_nodes(node):
                    if isinstance(child, ast.expr):
                        self.infer(child, scope)

    def unread(self, node: ast.Assign, scope: Scope) -> None:
        """An answer that is put into a variable which nobody reads."""
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        if not isinstance(node.value, ast.Call) or len(names) < len(node.targets) or self.inside is None:
            return
        called = self.infer(node.value.func, scope)
        read = any(name in self.shared or is_read(name, self.inside) for name in names)
        if not read and called.kind == "method" and self.calls.answers(called):
            self.found(node, f"{ast.unparse(node.value.func)}(): what it answers is dropped; nobody reads it")

    def function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, scope: Scope) -> None:
        for decorator in node.decorator_list:
            self.infer(decorator, scope)
        inner = dict(scope)
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        if node.args.vararg is not None:
            inner[node.args.vararg.arg] = T("list", inner=self.annotation(node.args.vararg.annotation))
        if node.args.kwarg is not None:
            inner[node.args.kwarg.arg] = T("map", inner=self.annotation(node.args.kwarg.annotation))
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
        before, self.inside, shared, self.shared = self.inside, node, self.shared, set()
        self.block(node.body, inner)
        self.own, self.inside, self.shared = own, before, shared

    def klass(self, node: ast.ClassDef, scope: Scope) -> None:
        bases = [self.infer(base, scope) for base in node.bases]
        for expression in (*node.decorator_list, *(keyword.value for keyword in node.keywords)):
            self.infer(expression, scope)
        before, self.own = self.own, self.module.classes[node.name]
        self.block(node.body, dict(scope))
        self.own = before
        for base in bases:
            if base.kind == "class":
                for line, text in callback_findings(node, base.name, self.faces, self.versions):
                    self.found(line, text)

    def assign(self, target: ast.expr, value: T, scope: Scope, given: ast.expr | None = None) -> None:
        match target:
            case ast.Name(id=name):
                scope[name] = MODULE if name == "trt" else value
                if name in self.shared or (self.inside is None and self.own is None):
                    self.module.inferred[name] = richer(value, self.module.inferred.get(name, UNKNOWN))
                if name in self.shared:
                    del scope[name]
            case ast.Starred(value=starred):
                self.assign(starred, value if value.kind == "list" else T("list", inner=value), scope)
            case ast.Tuple(elts=elements) | ast.List(elts=elements):
                for index, element in enumerate(elements):
                    one = value.items[index] if index < len(value.items) else self.item(value)
                    self.assign(element, one, scope)
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
            case ast.Subscript(value=held):
                kind = self.infer(held, scope)
                if isinstance(held, ast.Name) and kind.kind in ("map", "list"):
                    self.assign(held, T(kind.kind, inner=richer(kind.inner or UNKNOWN, value)), scope)


def _loaded(target: ast.expr, where: ast.stmt) -> ast.expr:
    """A target as an expression that is read."""
    made = ast.parse(ast.unparse(target), mode="eval").body
    for node in ast.walk(made):
        ast.copy_location(node, where)
    return made
