"""The stand-in module, made class by class from a recorded face.

A class of the face has exactly the face's methods and properties: an attribute that the real class lacks is an
AttributeError, also when it is set; an argument that no overload takes is a TypeError in pybind11's words. What a
method does is the method of the same name of the class behind it (``behind``), called with the arguments by name.
"""

from __future__ import annotations

import weakref
from types import ModuleType
from typing import Any

from standin_trt import behind
from standin_trt.control import Control
from standin_trt.record import Face, load_face
from standin_trt.signatures import Signature, bind, parse

NULLPTR = "pybind11::init(): factory function returned nullptr"


def _make_enum(name: str, members: dict[str, int]) -> type:
    """A pybind11 enum: members by name, ``int()``, ``.name`` and ``.value``; equal to its own kind only."""
    short = name.rpartition(".")[2]
    kind = type(short, (), {"__slots__": ("_value", "_name"), "__module__": "tensorrt_bindings.tensorrt"})

    def new(cls: type, value: Any) -> Any:
        for member in cls.__members__.values():  # type: ignore[attr-defined]
            if member._value == int(value):
                return member
        one = object.__new__(cls)  # pybind11 makes a nameless member of any number
        object.__setattr__(one, "_value", int(value))
        object.__setattr__(one, "_name", "???")
        return one

    def refuse(self: Any, key: str, value: Any) -> None:
        raise AttributeError(f"property of {short!r} object has no setter")

    made: dict[str, Any] = {}
    kind.__int__ = kind.__index__ = lambda self: self._value  # type: ignore[attr-defined]
    kind.__eq__ = lambda self, other: type(self) is type(other) and self._value == other._value  # type: ignore[assignment]
    kind.__hash__ = lambda self: hash(self._value)  # type: ignore[assignment]
    kind.__repr__ = lambda self: f"<{short}.{self._name}: {self._value}>"  # type: ignore[assignment]
    kind.__str__ = lambda self: f"{short}.{self._name}"  # type: ignore[assignment]
    kind.name = property(lambda self: self._name)  # type: ignore[attr-defined]
    kind.value = property(lambda self: self._value)  # type: ignore[attr-defined]
    kind.__members__ = made  # type: ignore[attr-defined]
    for member, value in members.items():
        one = object.__new__(kind)
        one._value, one._name = value, member
        made[member] = one
        setattr(kind, member, one)
    kind.__new__ = new  # type: ignore[assignment]
    kind.__init__ = lambda self, value: None  # type: ignore[misc]
    kind.__setattr__ = refuse  # type: ignore[assignment]
    if short == "DataType":
        kind.itemsize = property(lambda self: behind.ITEM_SIZES[self._name])  # type: ignore[attr-defined]
    return kind


class Meta(type):
    """pybind11's metaclass: an object whose base was never initialised is refused."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        made = type.__call__(cls, *args, **kwargs)
        if getattr(made, "_t", None) is None:
            base = next(base for base in cls.__mro__ if base.__module__ == "tensorrt_bindings.tensorrt")
            raise TypeError(
                f"tensorrt_bindings.tensorrt.{base.__name__}.__init__() must be called when overriding __init__"
            )
        return made


class HostBytes(bytearray):
    """The buffer protocol without the rest of a bytearray: before Python 3.12 only built-in types can have it."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and hasattr(bytearray, name):
            raise AttributeError(f"'tensorrt_bindings.tensorrt.IHostMemory' object has no attribute {name!r}")
        return bytearray.__getattribute__(self, name)

    def _refuse(self, *args: Any) -> Any:
        raise TypeError("object of type 'tensorrt_bindings.tensorrt.IHostMemory' has no such operation")

    __len__ = __getitem__ = __setitem__ = __iter__ = __contains__ = __add__ = __mul__ = _refuse  # type: ignore[assignment]
    __hash__ = object.__hash__  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return self is other


class Maker:
    """Makes one module, and wraps what lies behind its objects."""

    def __init__(self, face: Face, machine: Any, control: Control) -> None:
        self.face = face
        self.module = ModuleType("tensorrt")
        self.world = behind.World(self, machine, control, tuple(int(part) for part in face["version"].split(".")))

    def make(self) -> ModuleType:
        module = self.module
        module.__version__ = self.face["version"]
        module.__path__ = []
        for name, members in self.face["enums"].items():
            if "." not in name:
                setattr(module, name, _make_enum(name, members))
        for name, spec in self.face["classes"].items():
            if "bases" not in spec:
                setattr(module, name, self._class(name, spec))
        for name, spec in self.face["classes"].items():
            if "bases" in spec and all(hasattr(module, base) for base in spec["bases"]):
                setattr(module, name, self._class(name, spec))
        for name, target in self.face["aliases"].items():
            kind, _, member = target.partition(".")
            setattr(module, name, getattr(getattr(module, kind), member))
        for name, texts in self.face["functions"].items():
            setattr(module, name, self._function(name, [parse(text) for text in texts]))
        return module

    def wrap(self, value: Any) -> Any:
        """What Python sees of a thing behind: the same object each time while it is alive."""
        if isinstance(value, list):
            return [self.wrap(item) for item in value]
        if not isinstance(value, behind.Behind):
            return value
        seen = value.seen() if value.seen else None
        if seen is None:
            kind = getattr(self.module, type(value).__name__)
            seen = bytearray.__new__(kind) if isinstance(value, behind.IHostMemory) else object.__new__(kind)
            if isinstance(value, behind.IHostMemory):
                bytearray.__init__(seen, value.data)
            object.__setattr__(seen, "_t", value)
            value.seen = weakref.ref(seen)
        return seen

    def fault(self, call: str) -> tuple[bool, Any]:
        """Note a call; (True, the answer) where a test has a fault in store for it."""
        fault = self.world.control.take(call)
        if fault is None:
            return False, None
        for line in fault.lines:
            self.world.log("ERROR", line)
        if isinstance(fault.answer, BaseException):
            raise fault.answer
        return True, fault.answer

    def _class(self, name: str, spec: Face) -> type:
        bases = tuple(getattr(self.module, base) for base in spec.get("bases", ())) or (object,)
        if name == "IHostMemory":
            bases = (HostBytes,)
        body: dict[str, Any] = {
            "__slots__": ("_t", "__weakref__") if bases in ((object,), (HostBytes,)) else (),
            "__module__": "tensorrt_bindings.tensorrt",
            **spec.get("constants", {}),
        }
        inner = {key: members for key, members in self.face["enums"].items() if key.startswith(f"{name}.")}
        for key, members in inner.items():
            kind = getattr(bases[0], key.rpartition(".")[2], None) or _make_enum(key, members)
            body[key.rpartition(".")[2]] = kind
            body.update({member: getattr(kind, member) for member in members})
        for method, texts in spec.get("methods", {}).items():
            if method == "__init__":
                continue
            body[method] = self._method(name, method, [parse(text) for text in texts])
        if "__len__" in spec.get("methods", {}) or name == "Dims":
            body["__str__"] = lambda self: self._t.m__str__()
        for key, (access, _) in spec.get("properties", {}).items():
            body[key] = self._property(name, key, access, parse_kind(spec, key))
        texts = spec.get("methods", {}).get("__init__")
        body["__init__"] = self._init(name, [parse(text) for text in texts] if texts else None)
        return Meta(name, bases, body)

    def _refusal(self, name: str, overloads: list[Signature], args: Any, kwargs: Any) -> TypeError:
        listed = "; ".join(
            ", ".join(
                f"{a.name}: {a.kind}" + (f" = {a.default}" if a.default is not None else "") for a in one.arguments
            )
            for one in overloads
        )
        return TypeError(
            f"{name}(): incompatible function arguments. The following argument types are supported: ({listed}). "
            f"Invoked with: {args!r} {kwargs!r}"
        )

    def _init(self, name: str, overloads: list[Signature] | None) -> Any:
        maker = self

        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            if overloads is None:
                raise TypeError(f"tensorrt_bindings.tensorrt.{name}: No constructor defined!")
            bound = bind(overloads, args, kwargs, maker.module)
            if bound is None:
                raise maker._refusal("__init__", overloads, args, kwargs)
            faulty, answer = maker.fault(f"{name}.__init__")
            made = answer if faulty else behind.construct(maker.world, name, bound, self)
            if made is None:
                raise TypeError(NULLPTR)
            made.seen = weakref.ref(self)
            object.__setattr__(self, "_t", made)

        return init

    def _method(self, owner: str, name: str, overloads: list[Signature]) -> Any:
        maker = self

        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            bound = bind(overloads, args, kwargs, maker.module)
            if bound is None:
                raise maker._refusal(name, overloads, args, kwargs)
            faulty, answer = maker.fault(f"{owner}.{name}")
            if faulty:
                return answer
            if isinstance(self._t, behind.Callback) and not hasattr(self._t, name):
                return None  # what nobody has overridden
            target = getattr(self._t, f"m{name}" if name.startswith("__") else name, None)
            if target is None:
                raise NotImplementedError(f"the stand-in has no {owner}.{name}")
            return maker.wrap(target(**bound))

        method.__name__ = method.__qualname__ = name
        return method

    def _property(self, owner: str, name: str, access: str, kind: str) -> property:
        maker = self

        def read(self: Any) -> Any:
            faulty, answer = maker.fault(f"{owner}.{name}")
            if faulty:
                return answer
            if not hasattr(self._t, name):
                raise NotImplementedError(f"the stand-in has no {owner}.{name}")
            return maker.wrap(getattr(self._t, name))

        def write(self: Any, value: Any) -> None:
            bound = bind([parse(f"(self, arg0: {kind}) -> None")], (value,), {}, maker.module)
            if bound is None:
                raise maker._refusal(name, [parse(f"(self, arg0: {kind}) -> None")], (value,), {})
            if not hasattr(type(self._t), name) and not hasattr(self._t, name):
                raise NotImplementedError(f"the stand-in has no {owner}.{name} to set")
            setattr(self._t, name, bound["arg0"])

        return property(read if "r" in access else None, write if "w" in access else None)

    def _function(self, name: str, overloads: list[Signature]) -> Any:
        maker = self

        def function(*args: Any, **kwargs: Any) -> Any:
            bound = bind(overloads, args, kwargs, maker.module)
            if bound is None:
                raise maker._refusal(name, overloads, args, kwargs)
            return maker.wrap(getattr(behind.Functions(maker.world), name)(**bound))

        function.__name__ = name
        return function


def parse_kind(spec: Face, key: str) -> str:
    """The recorded type of a property."""
    return str(spec["properties"][key][1])


def make_tensorrt(version: str, machine: Any, control: Control | None = None) -> ModuleType:
    """The stand-in of ``version`` (one of FACES) over ``machine``, to be put under ``sys.modules["tensorrt"]``."""
    return Maker(load_face(version), machine, control or Control()).make()
