"""The stand-in of cuda-python against the real package: names, parameters, enum values, error codes, what it refuses.

PyCUDA is a source package that needs the CUDA toolkit to build: see ``test_pycuda_face.py``.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from real_bindings import cuda_bindings
from standin_cuda import Machine, bindings_face, words

VERSIONS = ("12.8.0", "12.9.*", "13.*")

ASK = """
import json, sys
import cuda.bindings.driver as driver
found = {"functions": {}, "enums": {}, "constants": {}, "types": [], "refusals": {}}
for name in dir(driver):
    thing = getattr(driver, name)
    if name.startswith("cu") and callable(thing):
        lines = (thing.__doc__ or "").strip().splitlines()
        found["functions"][name] = lines[0] if lines else ""
    elif isinstance(thing, type) and name.startswith("CU"):
        found["types"].append(name)
        try:
            found["enums"][name] = {member.name: int(member) for member in thing}
        except TypeError:
            pass
    elif isinstance(thing, int):
        found["constants"][name] = thing
for name, arguments in json.loads(sys.argv[1]):
    try:
        getattr(driver, name)(*arguments)
        found["refusals"][name] = "took it"
    except Exception as error:
        found["refusals"][name] = type(error).__name__
print(json.dumps(found))
"""

#: Calls that are wrong before any driver is asked.
WRONG: list[tuple[str, list[Any]]] = [
    ("cuMemsetD8Async", [1, 300, 2, 0]),
    ("cuModuleGetFunction", [1, "a str"]),
    ("cuModuleLoadData", ["a str"]),
    ("cuMemAlloc", []),
    ("cuGraphInstantiate", [1]),
    ("cuStreamWaitEvent", [1, 2]),
    ("cuMemcpyHtoDAsync", [1, 2, 3]),
]


@pytest.fixture(scope="module", params=VERSIONS)
def real(request: pytest.FixtureRequest) -> Any:
    """What the real package of one version has."""
    folder = cuda_bindings(request.param)
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps(WRONG)],
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def parameters(line: str) -> list[str]:
    """["dptr", "N"] of "cuMemset(dptr, size_t N)" and the like."""
    inner = line[line.index("(") + 1 : line.rindex(")")]
    # Annotations may hold commas.
    while (shorter := re.sub(r"\[[^\[\]]*\]", "", inner)) != inner:
        inner = shorter
    return [part.partition(":")[0].split()[-1].lstrip("*") for part in inner.split(",") if part.strip()]


def standing_in() -> dict[str, list[str]]:
    return {
        name: list(inspect.signature(function).parameters)[1:]
        for name, function in vars(bindings_face._Functions).items()
        if name.startswith("cu")
    }


def test_functions_and_their_parameters(real: Any) -> None:
    mine = standing_in()
    assert len(mine) > 35
    assert {name: parameters(real["functions"][name]) for name in mine} == mine


def test_enums_constants_and_handles(real: Any) -> None:
    for enum in bindings_face.ENUMS:
        theirs = real["enums"][enum.__name__]
        assert {member.name: theirs.get(member.name) for member in enum} == {m.name: m.value for m in enum}
    assert {name: real["constants"][name] for name in bindings_face.CONSTANTS} == bindings_face.CONSTANTS
    assert set(bindings_face.HANDLES) <= set(real["types"])
    assert words.DESCRIPTIONS.keys() <= words.CODES.keys()


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_what_is_wrong_without_a_driver(real: Any, machine: Machine, number: int) -> None:
    from cuda.bindings import driver  # type: ignore[import-not-found,unused-ignore]

    name, arguments = WRONG[number]
    with pytest.raises((TypeError, OverflowError, ValueError)) as caught:
        getattr(driver, name)(*arguments)
    assert type(caught.value).__name__ == real["refusals"][name]


def test_the_adapter_uses_nothing_else(real: Any, repository: Path) -> None:
    """Every name that the adapter takes from the module is the real one's, and the stand-in has it."""
    source = (repository / "app/segcam/kernels/cuda/cuda_python_driver.py").read_text()
    used = {
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and re.match(r"cu[A-Z]|CU", node.attr)
    }
    assert len(used) > 40
    members = {member for values in real["enums"].values() for member in values}
    there = real["functions"].keys() | set(real["types"]) | real["constants"].keys() | members
    assert used - there == set()
    mine = standing_in().keys() | bindings_face.CONSTANTS.keys() | bindings_face.HANDLES.keys()
    mine |= {enum.__name__ for enum in bindings_face.ENUMS} | {m.name for enum in bindings_face.ENUMS for m in enum}
    assert used - mine == set()


def test_the_package_names_the_libraries_in_one_place(repository: Path) -> None:
    """kernels/cuda is the only part that imports them."""
    package = repository / "app" / "segcam"
    found = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            if any(name.split(".")[0] in ("pycuda", "cuda") for name in names):
                found.add(str(path.relative_to(package)))
    adapters = {"cuda_python_calls.py", "cuda_python_driver.py", "pycuda_driver.py"}
    assert found == {f"kernels/cuda/{name}" for name in adapters}
