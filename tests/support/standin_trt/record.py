"""The face of a version of TensorRT's Python bindings: every class, enum, method and signature, without the library.

pybind11 writes each signature as the first line of a docstring, overloads numbered; properties carry theirs on the
getter. A face is that, as JSON:

    {"version": "10.3.0",
     "enums": {"DataType": {"FLOAT": 0, ...}},
     "classes": {"Builder": {"bases": [], "methods": {"reset": ["(self) -> None"]},
                             "properties": {"max_threads": ["rw", "int"]}, "constants": {"MAX_DIMS": 8}}},
     "functions": {"volume": ["(iterable)"]},
     "aliases": {"float32": "DataType.FLOAT"}}

Run as a program with real bindings on the path, it writes the face of those: ``PYTHONPATH=UNPACKED python record.py``.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

FACES = ("10.0.1", "10.3.0", "10.16.1.11", "11.4.0.106")
FOLDER = Path(__file__).parent / "faces"
Face = dict[str, Any]

# Families that an application which parses ONNX files never meets: hand-built layers, plugins, calibrators, algorithms.
APART = re.compile(
    r"^(I\w+Layer|I\w*Plugin\w*|Plugin\w*|I\w*Calibrator\w*|IAlgorithm\w*|Algorithm\w*|I(If|Loop)\w*|ILoop|IIf\w*|Kernel\w*"
    r"|\w*Refitter|\w*Stream(Reader|Writer)\w*|SymExpr\w*|IAttention|IMoE\w*|ISym\w*|IDim\w*|\w*Plugin\w*|Permutation|Weights"
    r"|IGpu\w*Allocator|IVersionedInterface|IErrorRecorder|IDebugListener|IResource\w*|\w*FieldCollection\w*|\w*FieldType\w*)$"
)
KEPT_OF_APART = frozenset({"ILayer"})
QUIET = frozenset({"__init__", "__len__", "__getitem__", "__bool__", "__eq__", "__enter__", "__exit__"})


def load_face(version: str) -> Face:
    """The recorded face of ``version``, one of FACES."""
    face: Face = json.loads((FOLDER / f"{version}.json").read_text(encoding="utf-8"))
    return face


def is_recorded(name: str) -> bool:
    """Whether a class of this name belongs to a face."""
    return name in KEPT_OF_APART or not APART.match(name)


def _plain(text: str) -> str:
    """A signature or a type without module names, generations of pybind11 levelled out."""
    text = re.sub(r"\btensorrt_bindings\.tensorrt\.|\btensorrt\.tensorrt\.|\bnvinfer1::|\bnvonnxparser::", "", text)
    text = text.replace("IParserError", "ParserError")  # the C++ class, by whose name pybind11 knew it then
    text = text.replace("typing.SupportsInt | typing.SupportsIndex", "int")
    text = text.replace("typing.SupportsFloat | typing.SupportsIndex", "float")
    text = text.replace("typing.SupportsInt", "int").replace("typing.SupportsFloat", "float")
    text = re.sub(r"\bcollections\.abc\.(\w+)", r"\1", text)
    text = re.sub(r"\b(typing_extensions\.)?Buffer\b", "buffer", text)
    text = re.sub(r"\b(typing_extensions|types)\.CapsuleType\b", "capsule", text)
    text = re.sub(r"\bList\[", "list[", re.sub(r"\bTuple\[", "tuple[", text))
    text = re.sub(r"<([\w.]+): -?\d+>", r"\1", text)  # an enum's member as a default
    text = re.sub(r"<(?:\w+\.)*(\w+) object at 0x[0-9a-f]+>", r"\1()", text)
    return re.sub(r"^\w+\(", "(", text.strip())


def _signatures(thing: Any, name: str) -> list[str]:
    document = getattr(thing, "__doc__", None) or ""
    if inspect.isfunction(thing):
        return [str(inspect.signature(thing)).replace("'", "")]
    overloads = re.findall(rf"^\s*\d+\. {re.escape(name)}(\(.*)$", document, re.M)
    if overloads:
        return [re.sub(r"\(self: [^,)]+", "(self", _plain(text)) for text in overloads]
    first = document.strip().splitlines()
    if not first or not first[0].startswith(f"{name}("):
        return []
    return [re.sub(r"\(self: [^,)]+", "(self", _plain(first[0]))]


def _property(thing: property) -> list[str]:
    access = ("r" if thing.fget else "") + ("w" if thing.fset else "")
    document = (thing.fget.__doc__ if thing.fget else thing.fset.__doc__) or ""
    found = re.search(r"-> (.*)", document) if thing.fget else re.search(r"arg1: (.*)\) -> ", document)
    return [access, _plain(found.group(1)) if found else ""]


def _class(kind: type) -> Face:
    out: Face = {
        "bases": [base.__name__ for base in kind.__bases__ if base.__name__ not in ("pybind11_object", "object")],
        "methods": {},
        "properties": {},
        "constants": {},
    }
    for name, value in sorted(vars(kind).items()):
        if name.startswith("_") and name not in QUIET:
            continue
        if type(value).__name__ == "pybind11_static_property":
            out["constants"][name] = getattr(kind, name)
        elif isinstance(value, property):
            out["properties"][name] = _property(value)
        elif isinstance(value, (bool, int, float, str)):
            out["constants"][name] = value
        elif callable(value) and not isinstance(value, type):
            found = _signatures(value, name)
            if found or name not in ("__init__",):
                out["methods"][name] = found
    return {key: value for key, value in out.items() if value}


def _enum(kind: type) -> dict[str, int]:
    return {name: int(value) for name, value in kind.__members__.items()}  # type: ignore[attr-defined]


def record(trt: ModuleType) -> Face:
    """The face of real bindings."""
    face: Face = {"version": trt.__version__, "enums": {}, "classes": {}, "functions": {}, "aliases": {}}

    def visit(kind: type, name: str) -> None:
        if hasattr(kind, "__members__"):
            face["enums"][name] = _enum(kind)
            return
        face["classes"][name] = _class(kind)
        for inner, value in sorted(vars(kind).items()):
            if isinstance(value, type) and not inner.startswith("_"):
                visit(value, f"{name}.{inner}")

    for name, value in sorted(vars(trt).items()):
        if name.startswith("_") or isinstance(value, ModuleType):
            continue
        if isinstance(value, type):
            if is_recorded(name) and value.__module__.startswith("tensorrt"):
                visit(value, name)
        elif hasattr(type(value), "__members__"):
            kind = type(value).__qualname__
            if name not in ("value", "attr"):
                face["aliases"][name] = f"{kind}.{value.name}"
        elif callable(value):
            face["functions"][name] = _signatures(value, name)
    return face


def written(face: Face) -> str:
    """A face as the text of its file: one class or enum a line."""
    parts = []
    for key, value in face.items():
        if isinstance(value, dict):
            rows = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in value.items())
            parts.append(f" {json.dumps(key)}: {{\n{rows}\n }}")
        else:
            parts.append(f" {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    import tensorrt

    sys.stdout.write(written(record(tensorrt)))
