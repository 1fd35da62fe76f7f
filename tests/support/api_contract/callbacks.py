"""Classes that TensorRT calls back into."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from api_contract.faces import Faces
from api_contract.guards import Versions, leaves

# What each base must be given; the trampolines of IOutputAllocator are in no signature.
MUST = {
    "ILogger": ("log",),
    "IProgressMonitor": ("phase_start", "step_complete", "phase_finish"),
    "IProfiler": ("report_layer_time",),
}


def callback_findings(node: ast.ClassDef, base: str, faces: Faces, versions: Versions) -> Iterator[tuple[ast.AST, str]]:
    """(where, what) for a class derived from trt.``base``."""
    methods = {one.name: one for one in node.body if isinstance(one, ast.FunctionDef)}
    own = methods.get("__init__")
    if own is not None and not _calls_base(own, base):
        yield own, f"{node.name}.__init__ doesn't call trt.{base}.__init__: TypeError when it is made"
    for name in MUST.get(base, ()):
        if name not in methods:
            yield node, f"{node.name} doesn't define {name}, which trt.{base} calls"
            continue
        method = methods[name]
        taken = len(method.args.posonlyargs) + len(method.args.args) - 1
        for version in sorted(versions):
            overloads = faces.signatures(version, base, name) or []
            if overloads and taken != len(overloads[0].arguments) and method.args.vararg is None:
                wanted = ", ".join(argument.name for argument in overloads[0].arguments)
                yield method, f"{node.name}.{name} takes {taken} arguments, TensorRT gives ({wanted})"
                break
        if name == "step_complete" and not _always_answers(method):
            yield method, f"{node.name}.step_complete may return None, which cancels the build"


def _calls_base(function: ast.FunctionDef, base: str) -> bool:
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "__init__":
            owner = ast.unparse(node.func.value)
            if owner == "super()" or owner.rpartition(".")[2] == base:
                return True
    return False


def _always_answers(function: ast.FunctionDef) -> bool:
    returns = [node for node in ast.walk(function) if isinstance(node, ast.Return)]
    bare = any(
        node.value is None or (isinstance(node.value, ast.Constant) and node.value.value is None) for node in returns
    )
    return bool(returns) and not bare and leaves(function.body)
