"""The recorded faces side by side, and the types that the walker gives to expressions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from standin_trt.record import FACES, load_face
from standin_trt.signatures import Signature, parse

Version = tuple[int, ...]


@dataclass(frozen=True)
class T:
    """A type: ``kind`` is one of

    module; class, enum, function (things of the module); object (an instance of a class of it), member (of an enum),
    method (``name`` is "Class.method"), unbound (the same through the class); unrecorded (a class that no face holds);
    list, map (of ``inner``); tuple (``items``); callable (giving ``inner``);
    ownclass, own (an instance), ownfunction, ownmethod ("module:Class.method"), ownmodule, localfunction, typevar;
    members (of ``inner`` by name: ``__members__``, ``vars``); partial (``name`` is its number); number (an enum's);
    any (annotated so); literal (``inner`` is a "text" where it is a str); bits (of plain numbers);
    other (surely nothing of TensorRT's; ``name`` says what, where known); unknown.
    """

    kind: str
    name: str = ""
    inner: T | None = None
    items: tuple[T, ...] = ()

    @property
    def foreign(self) -> bool:
        """Whether it is TensorRT's."""
        return self.kind in ("module", "class", "enum", "function", "object", "member", "method", "unbound")


UNKNOWN, ANY, OTHER, MODULE = T("unknown"), T("any"), T("other"), T("module")

# Gone from 11, where a network has the types of its graph: whoever asks for one gets fp32 there, or an AttributeError.
REFUSED: dict[str, set[str]] = {
    "BuilderFlag": {"FP16", "BF16", "INT8", "FP8", "INT4", "FP4"},
    "NetworkDefinitionCreationFlag": {"EXPLICIT_BATCH"},
}


@dataclass(frozen=True)
class Faces:
    """Faces by version."""

    by_version: dict[Version, dict[str, Any]]

    @classmethod
    def recorded(cls) -> Faces:
        """Those in the repository."""
        return cls.of([load_face(version) for version in FACES])

    @classmethod
    def of(cls, faces: list[dict[str, Any]]) -> Faces:
        """Of face documents."""
        return cls({tuple(int(part) for part in face["version"].split(".")): face for face in faces})

    @property
    def versions(self) -> frozenset[Version]:
        """All of them."""
        return frozenset(self.by_version)

    def of_module(self, version: Version, name: str) -> T | None:
        """A name of the module."""
        face = self.by_version[version]
        if name in face["enums"]:
            return T("enum", name)
        if name in face["classes"]:
            return T("class", name)
        if name in face["functions"]:
            return T("function", name)
        if name in face["aliases"]:
            return T("member", face["aliases"][name].partition(".")[0])
        return OTHER if name in ("__version__", "__name__", "__file__", "__path__", "__doc__", "__dict__") else None

    def of_enum(self, version: Version, enum: str, name: str) -> T | None:
        """A name of an enum's class."""
        if name in self.by_version[version]["enums"].get(enum, ()):
            return T("member", enum)
        return OTHER if name == "__members__" else None

    def lineage(self, version: Version, kind: str) -> list[dict[str, Any]]:
        """A class and what it derives from."""
        face = self.by_version[version]["classes"]
        if kind not in face:
            return []
        spec = face[kind]
        return [spec, *(one for base in spec.get("bases", ()) for one in self.lineage(version, base))]

    def signatures(self, version: Version, kind: str, method: str) -> list[Signature] | None:
        """A method's overloads; None where the class has none of that name."""
        for spec in self.lineage(version, kind):
            if method in spec.get("methods", {}):
                return [parse(text) for text in spec["methods"][method]]
        return None

    def access(self, version: Version, kind: str, name: str) -> str | None:
        """ "r", "rw" or "w" of a property; None where there is no such property."""
        for spec in self.lineage(version, kind):
            if name in spec.get("properties", {}):
                return str(spec["properties"][name][0])
        return None

    def of_object(self, version: Version, kind: str, name: str) -> T | None:
        """An attribute of an instance."""
        for spec in self.lineage(version, kind):
            if name in spec.get("properties", {}):
                return self.typed(spec["properties"][name][1])
            if name in spec.get("methods", {}):
                return T("method", f"{kind}.{name}")
            if name in spec.get("constants", {}):
                return OTHER
        return self.nested(version, kind, name) or (OTHER if name.startswith("__") else None)

    def of_class(self, version: Version, kind: str, name: str) -> T | None:
        """An attribute of the class itself."""
        found = self.of_object(version, kind, name)
        return replace(found, kind="unbound") if found is not None and found.kind == "method" else found

    def nested(self, version: Version, kind: str, name: str) -> T | None:
        """An enum inside a class, or a member of such a one that the class exports."""
        face = self.by_version[version]
        owners = [kind, *face["classes"].get(kind, {}).get("bases", ())]
        for owner in owners:
            if f"{owner}.{name}" in face["enums"]:
                return T("enum", f"{owner}.{name}")
            for enum, members in face["enums"].items():
                if enum.startswith(f"{owner}.") and name in members:
                    return T("member", enum)
        return None

    def typed(self, text: str) -> T:
        """The type that a recorded annotation means."""
        text = text.strip()
        for opening in ("list[", "Sequence[", "tuple["):
            if text.startswith(opening):
                return T("list", inner=self.typed(text[len(opening) : -1].removesuffix(", ...")))
        for face in self.by_version.values():
            if text in face["enums"]:
                return T("member", text)
            if text in face["classes"]:
                return T("object", text)
        if text.startswith("I") and text[1:2].isupper():
            return T("unrecorded", text)
        return T("other", text)

    def module_names(self) -> frozenset[str]:
        """Every class, enum and function of the module in every version."""
        parts = ("classes", "enums", "functions")
        return frozenset(name for face in self.by_version.values() for part in parts for name in face[part])

    def member_names(self) -> frozenset[str]:
        """Every method and property of every class of every version."""
        return frozenset(
            name
            for face in self.by_version.values()
            for spec in face["classes"].values()
            for part in ("methods", "properties")
            for name in spec.get(part, {})
            if not name.startswith("__")
        )
