"""Calls, comparisons and assignments: argument names and counts, enums given as numbers, read-only properties."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from standin_trt.signatures import Signature, fits, parse

from api_contract.faces import OTHER, UNKNOWN, T
from api_contract.flow import hard_coded, richer
from api_contract.names import Names

if TYPE_CHECKING:
    from api_contract.flow import Scope
    from api_contract.inference import Inference

BITS = frozenset({"flags", "allowed_formats", "tactic_sources", "quantization_flags", "tempfile_control_flags"})
CALLED = frozenset({"class", "method", "unbound", "function"})
# None is how these say that they failed.
MAY_FAIL = frozenset(
    {
        "Runtime.deserialize_cuda_engine",
        "ICudaEngine.create_execution_context",
        "ICudaEngine.create_engine_inspector",
        "Builder.build_serialized_network",
        "Builder.build_engine_with_config",
        "Builder.create_network",
        "Builder.create_builder_config",
        "Builder.create_optimization_profile",
        "IBuilderConfig.create_timing_cache",
        "IBuilderConfig.get_timing_cache",
    }
)


class Calls:
    """What the walker does with calls."""

    def __init__(self, walker: Inference) -> None:
        self.walker = walker
        self.names = Names(walker)
        self._partials: list[tuple[T, ast.Call, list[T], dict[str | None, T]]] = []

    def call(self, node: ast.Call, scope: Scope) -> T:
        """The type of a call, checked."""
        walker = self.walker
        special = self.names.call(node, scope)
        if special is not None:
            return special
        called = walker.infer(node.func, scope)
        given = [walker.infer(argument, scope) for argument in node.args]
        by_name = {keyword.arg: walker.infer(keyword.value, scope) for keyword in node.keywords}
        if called.kind in CALLED:
            return self._foreign(node, called, given, by_name)
        if called.kind == "partial":
            return self._completed(node, called, given, by_name)
        if ast.unparse(node.func).rpartition(".")[2] == "partial" and given and given[0].kind in CALLED:
            return self._partial(node, given, by_name)
        if called.kind == "enum":
            walker.found(node, f"trt.{called.name}(...): an enum made of a number; numbers differ between versions")
            return T("member", called.name)
        if called.kind in ("ownfunction", "ownmethod"):
            return self._own(called, node, given, scope)
        if called.kind == "ownclass":
            return T("own", called.name)
        if called.kind in ("callable", "localfunction"):
            return called.inner or UNKNOWN
        for argument, kind in zip(node.args, given, strict=True):
            self._handed(argument, kind, scope)
        return self._builtin(node, given, scope)

    def _partial(self, node: ast.Call, given: list[T], by_name: dict[str | None, T]) -> T:
        """A call to be completed later: what it has now must fit already."""
        first = ast.copy_location(ast.Call(node.args[0], node.args[1:], node.keywords), node)
        self._partials.append((given[0], first, given[1:], by_name))
        return T(
            "partial", str(len(self._partials) - 1), inner=self._foreign(first, given[0], given[1:], by_name, True)
        )

    def _completed(self, node: ast.Call, called: T, given: list[T], by_name: dict[str | None, T]) -> T:
        """The rest of the arguments of ``_partial``."""
        method, first, before, named = self._partials[int(called.name)]
        whole = ast.Call(first.func, [*first.args, *node.args], [*first.keywords, *node.keywords])
        return self._foreign(ast.copy_location(whole, node), method, [*before, *given], named | by_name)

    def _handed(self, argument: ast.expr, kind: T, scope: Scope) -> None:
        """Something to be called by somebody who knows nothing of TensorRT: nobody looks at what it answers."""
        if isinstance(argument, ast.Lambda) and isinstance(argument.body, ast.Call):
            inner = scope | {one.arg: UNKNOWN for one in argument.args.args}
            kind = self.walker.infer(argument.body.func, inner)
        if kind.kind == "method" and self.answers(kind):
            self.walker.found(argument, f"{ast.unparse(argument)}: what it answers is dropped by who calls it")

    def _builtin(self, node: ast.Call, given: list[T], scope: Scope) -> T:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name == "int" and given and given[0].kind in ("member", "number"):
            return T("number", given[0].name)
        if name in ("max", "min") and given:
            return richer(*given) if len(given) > 1 else self.walker.item(given[0])
        if name == "type" and given and given[0].kind == "object":
            return T("class", given[0].name)
        if name == "cast" and node.args:
            return self.walker.annotation(node.args[0])
        if name in ("list", "sorted", "reversed", "set", "iter") and given:
            return T("list", inner=self.walker.item(given[0]))
        if name == "next" and given:
            return self.walker.item(given[0])
        if name == "zip":
            return T("list", inner=T("tuple", items=tuple(self.walker.item(one) for one in given)))
        if name == "enumerate" and given:
            return T("list", inner=T("tuple", items=(OTHER, self.walker.item(given[0]))))
        if name == "super" and self.walker.own is not None:
            bases = [
                self.walker.program.annotated(self.walker.module, base, self.walker.faces)
                for base in self.walker.own.node.bases
            ]
            return next((base for base in bases if base.kind == "object"), UNKNOWN)
        if name in ("tuple", "int", "str", "len", "bytes", "bool", "float", "range", "memoryview", "sum"):
            return T("other", name)
        return self._container(node, node.func, given, scope) if isinstance(node.func, ast.Attribute) else UNKNOWN

    def _container(self, node: ast.Call, func: ast.Attribute, given: list[T], scope: Scope) -> T:
        """What comes out of lists and dicts, and goes into them."""
        held = self.walker.infer(func.value, scope)
        if held.kind == "map" and func.attr == "items":
            return T("list", inner=T("tuple", items=(OTHER, held.inner or UNKNOWN)))
        if held.kind == "map" and func.attr == "values":
            return T("list", inner=held.inner)
        if held.kind in ("map", "list") and func.attr in ("get", "pop", "setdefault", "popleft"):
            return held.inner or UNKNOWN
        if held.kind == "list" and func.attr in ("append", "add", "appendleft", "insert") and given:
            if isinstance(func.value, ast.Name):
                scope[func.value.id] = T("list", inner=richer(held.inner or UNKNOWN, given[-1]))
            return OTHER
        return UNKNOWN

    def _own(self, called: T, node: ast.Call, given: list[T], scope: Scope) -> T:
        """What a function of the package returns; a type variable is the type of the argument that it stands for."""
        program, faces = self.walker.program, self.walker.faces
        module_name, _, name = called.name.partition(":")
        module = program.modules[module_name]
        if called.kind == "ownfunction":
            function, skip = module.functions[name], 0
        else:
            owner, _, method = name.rpartition(".")
            function, skip = module.classes[owner].methods[method], 1
            if any(ast.unparse(one) == "staticmethod" for one in function.decorator_list):
                skip = 0
        returned = program.annotated(module, function.returns, faces)
        if returned.kind != "typevar":
            return returned
        for argument, kind in zip([*function.args.posonlyargs, *function.args.args][skip:], given, strict=False):
            declared = program.annotated(module, argument.annotation, faces)
            if declared == returned:
                return kind
            if declared.kind in ("callable", "list") and declared.inner == returned and kind.inner is not None:
                return kind.inner
        return UNKNOWN

    def _foreign(
        self, node: ast.Call, called: T, given: list[T], by_name: dict[str | None, T], begun: bool = False
    ) -> T:
        """A call of TensorRT's; ``begun``: more arguments may follow."""
        walker = self.walker
        if any(isinstance(argument, ast.Starred) for argument in node.args) or None in by_name:
            walker.found(node, f"{called.name}(*...): arguments that can't be counted")
        owner, _, method = (f"{called.name}.__init__" if called.kind == "class" else called.name).rpartition(".")
        returns, shift = UNKNOWN, 1 if called.kind == "unbound" else 0
        for version in sorted(walker.versions):
            if called.kind == "function":
                overloads: list[Signature] | None = self._function(version, called.name)
            else:
                overloads = walker.faces.signatures(version, owner, method)
            if overloads is None:
                if called.kind == "class" and walker.faces.lineage(version, owner):
                    walker.found(node, f"trt.{owner}() has no constructor", version)
                continue
            refused = [fits(one, len(node.args) - shift, [str(key) for key in by_name]) for one in overloads]
            if begun:
                refused = [None if why and why.startswith("lacks") else why for why in refused]
            if overloads and all(refused):
                walker.found(node, f"trt.{called.name}() {refused[-1]}", version)
            fitting = [one for one, why in zip(overloads, refused, strict=True) if not why]
            wrong = [self._kinds(one, node, given[shift:], by_name, shift) for one in fitting]
            if fitting and all(wrong):
                walker.found(node, f"trt.{called.name}(): {wrong[0]}")
            for one in fitting:
                if one.returns and returns == UNKNOWN:
                    returns = walker.faces.typed(one.returns)
        return T("object", called.name) if called.kind == "class" else returns

    def answers(self, method: T) -> bool:
        """Whether a method tells by False or None that it failed."""
        owner, _, name = method.name.rpartition(".")
        returned = {
            one.returns
            for version in self.walker.versions
            for one in self.walker.faces.signatures(version, owner, name) or ()
        }
        return any(text == "bool" or self.walker.faces.typed(text).kind == "object" for text in returned)

    def _function(self, version: tuple[int, ...], name: str) -> list[Signature] | None:
        texts = self.walker.faces.by_version[version]["functions"].get(name)
        return None if texts is None else [parse(text) for text in texts]

    def _kinds(
        self, one: Signature, node: ast.Call, given: list[T], by_name: dict[str | None, T], shift: int
    ) -> str | None:
        """An argument that is surely of another kind than the overload takes."""
        expressions = list(node.args)[shift:]
        named = {keyword.arg: keyword.value for keyword in node.keywords}
        for index, argument in enumerate(one.arguments):
            if index < len(given):
                kind, expression = given[index], expressions[index]
            elif argument.name in by_name:
                kind, expression = by_name[argument.name], named[argument.name]
            else:
                continue
            wrong = self.misfit(argument.kind, kind, expression, argument.name)
            if wrong:
                return wrong
        return None

    def misfit(self, wanted: str, kind: T, expression: ast.expr, name: str) -> str | None:
        """Why a value can't be given for ``wanted``."""
        meant = self.walker.faces.typed(wanted)
        if meant.kind == "member":
            if kind.kind == "literal" or (kind.kind == "other" and kind.name in ("int", "str")):
                return f"{name} wants a member of trt.{wanted}, not {ast.unparse(expression)}"
            if kind.kind == "member" and kind.name != wanted:
                return f"{name} wants a member of trt.{wanted}, not of trt.{kind.name}"
        if wanted == "int" and name in BITS and (kind.kind in ("bits", "literal") or hard_coded(expression)):
            if kind.kind == "literal" and kind.inner is None and not hard_coded(expression):
                return None
            return f"{name} is given the number {ast.unparse(expression)}; enums' numbers differ between versions"
        if wanted == "str" and kind.kind == "other" and kind.name in ("Path", "int", "bytes", "float"):
            return f"{name} wants a str, not {kind.name}"
        if wanted in ("str", "int") and kind.kind == "literal" and kind.name in ("str", "bytes", "float"):
            return None if kind.name == wanted else f"{name} wants {wanted}, not {ast.unparse(expression)}"
        return None

    def store(self, target: ast.Attribute, owner: T, name: str, value: T, given: ast.expr | None) -> None:
        """``owner.name = value``: every version must let it be written."""
        walker = self.walker
        if owner.kind != "object":
            walker.found(target, f"{ast.unparse(target)} is set: TensorRT's own things are not ours to change")
            return
        walker.uses.add((walker.module.name, target.lineno, f"trt.{owner.name}.{name}"))
        for version in sorted(walker.versions):
            access = walker.faces.access(version, owner.name, name)
            if access is None:
                walker.found(target, f"trt.{owner.name}.{name} does not exist", version)
            elif "w" not in access:
                walker.found(target, f"trt.{owner.name}.{name} is read-only", version)
            elif given is not None:
                spec = next(
                    one for one in walker.faces.lineage(version, owner.name) if name in one.get("properties", {})
                )
                wrong = self.misfit(spec["properties"][name][1], value, given, name)
                if wrong:
                    walker.found(target, wrong)

    def compare(self, node: ast.Compare, scope: Scope) -> None:
        """Enums against numbers, Dims against Dims."""
        walker = self.walker
        sides = [node.left, *node.comparators]
        kinds = [walker.infer(side, scope) for side in sides]
        for (left, one), (right, other), op in zip(
            zip(sides, kinds, strict=True), list(zip(sides, kinds, strict=True))[1:], node.ops, strict=False
        ):
            if other.kind == "members" and isinstance(op, (ast.In, ast.NotIn)):
                self.names.contained(node, one, other)
            if T("object", "Dims") == one == other and isinstance(op, (ast.Eq, ast.NotEq)):
                walker.found(node, "Dims == Dims raises TypeError: compare tuple(dims)")
            for kind, partner in ((one, right), (other, left)):
                if (
                    kind.kind in ("member", "number")
                    and isinstance(partner, ast.Constant)
                    and isinstance(partner.value, int)
                ):
                    walker.found(node, f"{ast.unparse(node)}: an enum's number; numbers differ between versions")
