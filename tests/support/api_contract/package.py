"""The package's own source, and its uses of cuda-python, whose functions have no faces to follow."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

APP = Path(__file__).resolve().parents[3] / "app"
CUDA_NAME = re.compile(r"cu[A-Z]\w+|CU[a-z]\w+|CU_\w+")


def package_sources() -> dict[str, str]:
    """Every module of the package: dotted name to text."""
    return {
        ".".join(path.relative_to(APP).with_suffix("").parts).removesuffix(".__init__"): path.read_text(
            encoding="utf-8"
        )
        for path in sorted((APP / "segcam").rglob("*.py"))
    }


@dataclass(frozen=True, order=True)
class CudaUse:
    """A name of ``cuda.bindings.driver`` in the source. ``of`` is the enum where it is a member; ``given`` how many
    arguments follow it, -1 where it isn't called there, -2 where some have names."""

    name: str
    of: str
    given: int
    place: str


def cuda_uses(sources: dict[str, str]) -> list[CudaUse]:
    """Every use in modules that import cuda-python. ``f(what, driver.cuX, a, b)`` is a call with two arguments."""
    out = []
    for module, text in sources.items():
        if not re.search(r"\bcuda\.bindings\b", text):
            continue
        tree = ast.parse(text)
        given: dict[int, int] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                given[id(node.func)] = _counted(node.args)
                for index, argument in enumerate(node.args):
                    if isinstance(argument, ast.Attribute) and argument.attr.startswith("cu"):
                        given[id(argument)] = _counted(node.args[index + 1 :])
        enums = _enum_aliases(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and (CUDA_NAME.fullmatch(node.attr) or node.attr.startswith("CUDA_")):
                holder = node.value.attr if isinstance(node.value, ast.Attribute) else ""
                if isinstance(node.value, ast.Name):
                    holder = enums.get(node.value.id, "")
                of = holder if holder.startswith("CU") else ""
                out.append(CudaUse(node.attr, of, given.get(id(node), -1), f"{module}:{node.lineno}"))
            elif isinstance(node, ast.Constant) and CUDA_NAME.fullmatch(str(node.value)):
                out.append(CudaUse(node.value, "", -1, f"{module}:{node.lineno}"))  # for getattr, or whatever
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cuda.bindings"):
                out += [CudaUse(a.name, "", -1, f"{module}:{node.lineno}") for a in node.names if a.name != "driver"]
            elif isinstance(node, ast.Call):
                out += [CudaUse(_called(node), "", -2, f"{module}:{node.lineno}")] if _named(node) else []
    return sorted(out)


def _called(call: ast.Call) -> str:
    functions = [call.func, *call.args]
    return next((one.attr for one in functions if isinstance(one, ast.Attribute) and one.attr.startswith("cu")), "")


def _named(call: ast.Call) -> bool:
    """Whether a call of the driver names its arguments, which the versions call differently."""
    return bool(call.keywords) and bool(re.match(r"cu[A-Z]", _called(call)))


def _counted(args: list[ast.expr]) -> int:
    return -1 if any(isinstance(one, ast.Starred) for one in args) else len(args)


def _enum_aliases(tree: ast.Module) -> dict[str, str]:
    """``attribute = driver.CUdevice_attribute`` gives {"attribute": "CUdevice_attribute"}."""
    return {
        node.targets[0].id: node.value.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Attribute)
        and node.value.attr.startswith("CU")
    }


DESCRIBE = """
import inspect, json, sys
from cuda.bindings import driver
out = {}
for name in json.loads(sys.argv[1]):
    thing = getattr(driver, name, None)
    if thing is None:
        continue
    members = getattr(thing, "__members__", None)
    out[name] = {"members": list(members) if members is not None else []}
    if members is None and name.startswith("cu"):
        out[name]["arguments"] = len(inspect.signature(thing).parameters)
print(json.dumps(out))
"""


def cuda_described(folder: Path, names: list[str]) -> dict[str, dict[str, object]]:
    """What the real ``cuda.bindings.driver`` in ``folder`` has of ``names``: members of enums, how many arguments."""
    done = subprocess.run(
        [sys.executable, "-c", DESCRIBE, json.dumps(names)],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    described: dict[str, dict[str, object]] = json.loads(done.stdout)
    return described
