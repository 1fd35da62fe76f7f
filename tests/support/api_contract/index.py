"""The package as classes, functions and annotations, read from its source."""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass, field

from api_contract.faces import ANY, MODULE, OTHER, UNKNOWN, Faces, T
from api_contract.flow import richer

SEQUENCES = frozenset(
    {"list", "tuple", "set", "frozenset", "Sequence", "Iterable", "Iterator", "Collection", "Generator", "deque"}
)
CONTEXTS = frozenset({"AbstractContextManager", "ContextManager"})
MAPPINGS = frozenset({"dict", "Mapping", "MutableMapping", "defaultdict"})
IMPORTERS = frozenset({"import_module", "__import__"})
MADE = {"ownclass": "own", "class": "object", "enum": "member"}  # what a class is to what it is the type of
TRANSPARENT = frozenset({"Optional", "ClassVar", "Final", "Annotated", "Union"})


@dataclass
class OwnClass:
    """A class of the package."""

    module: OwnModule
    node: ast.ClassDef
    fields: dict[str, ast.expr] = field(default_factory=dict)
    inferred: dict[str, T] = field(default_factory=dict)
    methods: dict[str, ast.FunctionDef | ast.AsyncFunctionDef] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """ "module:Class"."""
        return f"{self.module.name}:{self.node.name}"


@dataclass
class OwnModule:
    """A module of the package."""

    name: str
    text: str
    tree: ast.Module
    imports: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    classes: dict[str, OwnClass] = field(default_factory=dict)
    functions: dict[str, ast.FunctionDef | ast.AsyncFunctionDef] = field(default_factory=dict)
    typevars: set[str] = field(default_factory=set)
    constants: dict[str, ast.expr] = field(default_factory=dict)
    inferred: dict[str, T] = field(default_factory=dict)

    @functools.cached_property
    def touches(self) -> bool:
        """Whether it names TensorRT's module at all."""
        return any(
            (isinstance(node, ast.Name) and node.id == "trt")
            or (isinstance(node, ast.arg) and node.arg == "trt")
            or (isinstance(node, ast.Attribute) and node.attr in ("trt", "_trt"))
            or (isinstance(node, ast.alias) and node.name.partition(".")[0] == "tensorrt")
            or (isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "tensorrt")
            or (isinstance(node, ast.Call) and _imports_tensorrt(node))
            for node in ast.walk(self.tree)
        )


def _imports_tensorrt(call: ast.Call) -> bool:
    return ast.unparse(call.func).rpartition(".")[2] in IMPORTERS and ast.unparse(call.args[0]) == "'tensorrt'"


class Program:
    """All modules, by dotted name."""

    def __init__(self, sources: dict[str, str], faces: Faces | None = None) -> None:
        self.faces = faces or Faces.recorded()
        self.modules = {name: self._read(name, text) for name, text in sources.items()}

    def _read(self, name: str, text: str) -> OwnModule:
        module = OwnModule(name, text, ast.parse(text))
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    module.imports[alias.asname or alias.name.partition(".")[0]] = (alias.name, None)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    module.imports[alias.asname or alias.name] = (node.module, alias.name)
            elif isinstance(node, ast.ClassDef):
                module.classes[node.name] = self._read_class(module, node)
        for statement in module.tree.body:
            if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
                module.functions[statement.name] = statement
            elif isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                called = statement.value.func if isinstance(statement.value, ast.Call) else None
                if isinstance(called, ast.Name) and called.id in ("TypeVar", "ParamSpec"):
                    module.typevars.add(statement.targets[0].id)
                else:
                    module.constants[statement.targets[0].id] = statement.value
        return module

    @staticmethod
    def _read_class(module: OwnModule, node: ast.ClassDef) -> OwnClass:
        own = OwnClass(module, node)
        for statement in node.body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                own.fields[statement.target.id] = statement.annotation
            elif isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
                own.methods[statement.name] = statement
                for inner in ast.walk(statement):
                    target = inner.target if isinstance(inner, ast.AnnAssign) else None
                    if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self":
                        assert isinstance(inner, ast.AnnAssign)
                        own.fields[target.attr] = inner.annotation
        return own

    def concerned(self) -> list[OwnModule]:
        """The modules that name TensorRT, and those that import something of such a one."""
        near = {name for name, module in self.modules.items() if module.touches}
        return [
            module
            for name, module in self.modules.items()
            if name in near
            or any(source in near or f"{source}.{what}" in near for source, what in module.imports.values())
        ]

    def own_class(self, key: str) -> OwnClass:
        """By "module:Class"."""
        module, _, name = key.partition(":")
        return self.modules[module].classes[name]

    def named(self, module: OwnModule, name: str) -> T:
        """What a bare name of a module means, as far as the package goes."""
        if name == "trt":
            return MODULE
        if name in module.classes:
            return T("ownclass", module.classes[name].key)
        if name in module.functions:
            return T("ownfunction", f"{module.name}:{name}")
        if name in module.imports:
            source, attribute = module.imports[name]
            if source.partition(".")[0] == "tensorrt":
                return MODULE if attribute is None else self._of_tensorrt(attribute)
            if attribute is None:
                return T("ownmodule", source) if source in self.modules else T("other", source)
            if f"{source}.{attribute}" in self.modules:
                return T("ownmodule", f"{source}.{attribute}")
            if source in self.modules and (attribute, source) != (name, module.name):
                return self.named(self.modules[source], attribute)
            return T("other", attribute)
        return module.inferred.get(name, UNKNOWN)

    def _of_tensorrt(self, name: str) -> T:
        """What ``from tensorrt import name`` gives, in any version."""
        found = (self.faces.of_module(version, name) for version in self.faces.versions)
        return next((kind for kind in found if kind is not None), UNKNOWN)

    def annotated(self, module: OwnModule, node: ast.expr | None, faces: Faces) -> T:
        """The type that an annotation means."""
        if node is None:
            return UNKNOWN
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str):
                try:
                    return self.annotated(module, ast.parse(node.value, mode="eval").body, faces)
                except SyntaxError:
                    return OTHER
            return OTHER
        if isinstance(node, ast.BinOp):  # X | None
            left, right = (self.annotated(module, side, faces) for side in (node.left, node.right))
            return richer(left, right)
        if isinstance(node, ast.Name):
            if node.id in ("Any", "object"):
                return ANY
            if node.id in module.typevars:
                return T("typevar", node.id)
            found = self.named(module, node.id)
            if found.kind in MADE:
                return T(MADE[found.kind], found.name)
            meant = module.constants.get(node.id)
            if meant is not None and not (isinstance(meant, ast.Name) and meant.id == node.id):
                return self.annotated(module, meant, faces)
            return T("other", node.id)
        if isinstance(node, ast.Attribute):
            dotted = ast.unparse(node)
            root, _, rest = dotted.partition(".")
            meant = self.named(module, root)
            if meant == MODULE:
                return faces.typed(rest) if faces.typed(rest).foreign else T("missing", rest)
            if meant.kind == "ownmodule" and rest in self.modules[meant.name].classes:
                return T("own", f"{meant.name}:{rest}")
            return T("other", dotted)
        if isinstance(node, ast.Subscript):
            name = ast.unparse(node.value).rpartition(".")[2]
            inside = list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]
            if name == "tuple" and len(inside) > 1 and ast.unparse(inside[1]) != "...":
                return T("tuple", items=tuple(self.annotated(module, one, faces) for one in inside))
            if name in SEQUENCES | CONTEXTS:
                return T("list", inner=self.annotated(module, inside[0], faces))
            if name in MAPPINGS:
                return T("map", inner=self.annotated(module, inside[-1], faces))
            if name in TRANSPARENT:
                return richer(*(self.annotated(module, one, faces) for one in inside))
            if name == "Callable":
                return T("callable", inner=self.annotated(module, inside[-1], faces))
            if name == "type":
                inner = self.annotated(module, inside[0], faces)
                return T("class", inner.name) if inner.kind == "object" else OTHER
        return OTHER
