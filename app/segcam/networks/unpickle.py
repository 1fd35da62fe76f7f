"""Pickles read without running them: an interpreter of its own that knows data, and a short list of names.

Python's ``pickle`` is a small machine whose programs may call anything. This one has the same instructions (the
comments of the standard library's ``pickletools`` and PEP 3154 describe them) and builds numbers, text, bytes, lists,
tuples, dicts (sets become lists), and the inert values that stand for the few names which checkpoints need
(``segcam.networks.allowed``). A name is never imported, an object of the file never called; other names are refused.

Memory is bounded: nothing is allocated because the file claims a length, everything that is built is charged against a
budget in proportion to the file's size, and nesting is never followed by recursion.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from typing import BinaryIO

from segcam.errors import CheckpointError
from segcam.networks.allowed import call, lookup
from segcam.networks.inert import Name, add_state, checked_key
from segcam.networks.words import shown

#: An honest checkpoint has about 32 instructions for a tensor, 2 kB of objects as they are counted here, and at least
#: 150 bytes of file.
_MOST_INSTRUCTIONS = 5_000_000
_OBJECTS_AT_LEAST = 32 << 20
_OBJECTS_PER_BYTE = 16
#: Numbers in checkpoints fit 8 bytes, but for the 10 of the old format's mark. Longer ones only cost time.
_LONGEST_NUMBER = 32
_LONGEST_LINE = 1000
#: Bytes of a dict's entry, and of what is made for a persistent id.
_ENTRY = 100
_OBJECT = 300
_MARK = object()

PersistentLoad = Callable[[object], object]


def load(file: BinaryIO, end: int, file_size: int, persistent_load: PersistentLoad) -> object:
    """The value of the pickle that begins at the file's position and lies before ``end``; the file is then behind it.

    ``file_size`` (bytes) is what memory is measured by. ``persistent_load`` makes a value of a persistent id. Raises
    CheckpointError: a name that is not allowed, an instruction that makes no sense, an early end, too much of anything.
    """
    return _Machine(file, end, file_size, persistent_load).run()


class _Machine:
    def __init__(self, file: BinaryIO, end: int, file_size: int, persistent_load: PersistentLoad) -> None:
        self._file = file
        self._left = end - file.tell()
        self._budget = _OBJECTS_AT_LEAST + _OBJECTS_PER_BYTE * file_size
        self._persistent_load = persistent_load
        self._stack: list[object] = []
        self._memo: dict[int, object] = {}

    def run(self) -> object:
        for _ in range(_MOST_INSTRUCTIONS):
            code = self._take(1)
            if code == b".":
                return self._pop()
            step = _STEPS.get(code)
            if step is None:
                what = "the extension registry" if code in b"\x82\x83\x84" else f"the pickle instruction 0x{code.hex()}"
                raise CheckpointError(f"it uses {what}, which no checkpoint needs")
            step(self)
        raise CheckpointError(f"its pickle has more than {_MOST_INSTRUCTIONS:,} instructions")

    # Bytes of the file

    def _take(self, count: int) -> bytes:
        self._left -= count
        if self._left < 0:
            raise CheckpointError("it ends in the middle of a pickle")
        data = self._file.read(count)
        if len(data) != count:
            raise CheckpointError("it ends in the middle of a pickle")
        return data

    def _line(self) -> bytes:
        data = self._file.readline(min(_LONGEST_LINE, max(self._left, 0)))
        self._left -= len(data)
        if not data.endswith(b"\n"):
            raise CheckpointError("it ends in the middle of a pickle, or a line of it is too long")
        return data[:-1]

    def _unsigned(self, size: int) -> int:
        return int.from_bytes(self._take(size), "little")

    # Values

    def charge(self, size: int) -> None:
        """Count ``size`` bytes of memory before they are taken."""
        self._budget -= size
        if self._budget < 0:
            raise CheckpointError("its pickle builds far more than its size warrants")

    def _push(self, value: object) -> None:
        # Eight bytes for the place on the stack, which later is the place in a list.
        self.charge(8)
        self._stack.append(value)

    def _push_new(self, value: object) -> None:
        self.charge(sys.getsizeof(value))
        self._push(value)

    def _pop(self) -> object:
        if not self._stack or self._stack[-1] is _MARK:
            raise CheckpointError("its pickle takes a value that is not there")
        return self._stack.pop()

    def _top(self) -> object:
        value = self._pop()
        self._stack.append(value)
        return value

    def _pop_to_mark(self) -> list[object]:
        stack = self._stack
        for index in range(len(stack) - 1, -1, -1):
            if stack[index] is _MARK:
                values = stack[index + 1 :]
                del stack[index:]
                return values
        raise CheckpointError("its pickle closes what it never opened")

    # Instructions

    def mark(self) -> None:
        self._push(_MARK)

    def pop(self) -> None:
        if not self._stack:
            raise CheckpointError("its pickle takes a value that is not there")
        self._stack.pop()

    def pop_mark(self) -> None:
        self._pop_to_mark()

    def dup(self) -> None:
        self._push(self._top())

    def skip_protocol(self) -> None:
        protocol = self._unsigned(1)
        if protocol > 5:
            raise CheckpointError(f"its pickle has protocol {protocol}; 0 to 5 are known")

    def skip_frame(self) -> None:
        if self._unsigned(8) > self._left:
            raise CheckpointError("it ends in the middle of a pickle")

    def int_text(self) -> None:
        text = self._line()
        if text in (b"00", b"01"):
            self._push(text == b"01")
        else:
            self._push_new(_parsed(text))

    def long_text(self) -> None:
        self._push_new(_parsed(self._line().removesuffix(b"L")))

    def long_binary(self, size_of_count: int) -> None:
        count = self._unsigned(size_of_count)
        if count > _LONGEST_NUMBER:
            raise CheckpointError(f"its pickle has a whole number of {count:,} bytes")
        self._push_new(int.from_bytes(self._take(count), "little", signed=True))

    def float_text(self) -> None:
        try:
            self._push_new(float(self._line()))
        except ValueError:
            raise CheckpointError("its pickle has a number that is none") from None

    def packed(self, form: str) -> None:
        self._push_new(struct.unpack(form, self._take(struct.calcsize(form)))[0])

    def bytes_(self, size_of_count: int) -> None:
        self._push_new(self._counted(size_of_count))

    def text(self, size_of_count: int) -> None:
        self._push_new(self._decoded(self._counted(size_of_count), "utf-8"))

    def text_line(self) -> None:
        self._push_new(self._decoded(self._line(), "raw-unicode-escape"))

    def byte_text(self, size_of_count: int) -> None:
        """Python 2's str: text where it is UTF-8, as it is for the names of tensors."""
        data = self._counted(size_of_count)
        try:
            self._push_new(data.decode("utf-8"))
        except UnicodeDecodeError:
            self._push_new(data)

    def _counted(self, size_of_count: int) -> bytes:
        return self._take(self._unsigned(size_of_count))

    def _decoded(self, data: bytes, encoding: str) -> str:
        try:
            return data.decode(encoding, "surrogatepass" if encoding == "utf-8" else "strict")
        except UnicodeDecodeError:
            raise CheckpointError("its pickle has text that is none") from None

    def tuple_(self, count: int | None = None) -> None:
        values = self._pop_to_mark() if count is None else [self._pop() for _ in range(count)][::-1]
        self._push_new(tuple(values))

    def list_(self) -> None:
        self._push_new(self._pop_to_mark())

    def dict_(self) -> None:
        values = self._pop_to_mark()
        self._push_new({})
        self._set_items(values)

    def append(self) -> None:
        self._extend([self._pop()])

    def extend(self) -> None:
        self._extend(self._pop_to_mark())

    def _extend(self, values: list[object]) -> None:
        target = self._top()
        if type(target) is not list:
            raise CheckpointError("its pickle adds to something that is no list")
        target.extend(values)

    def set_item(self) -> None:
        value = self._pop()
        self._set_items([self._pop(), value])

    def set_items(self) -> None:
        self._set_items(self._pop_to_mark())

    def _set_items(self, values: list[object]) -> None:
        target = self._top()
        if type(target) is not dict or len(values) % 2:
            raise CheckpointError("its pickle fills something that is no dict")
        self.charge(len(values) * _ENTRY // 2)
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[checked_key(key)] = value

    def put(self, index: int) -> None:
        if not 0 <= index < 1 << 32:
            raise CheckpointError("its pickle keeps a value under an impossible number")
        self.charge(_ENTRY)
        self._memo[index] = self._top()

    def get(self, index: int) -> None:
        if index not in self._memo:
            raise CheckpointError("its pickle uses a value that it never made")
        self._push(self._memo[index])

    def name_lines(self) -> None:
        module, name = (self._decoded(self._line(), "utf-8") for _ in range(2))
        self._push_new(lookup(module, name))

    def name_from_stack(self) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(module, str) or not isinstance(name, str):
            raise CheckpointError("its pickle names something without a name")
        self._push_new(lookup(module, name))

    def reduce(self) -> None:
        arguments, name = self._pop(), self._pop()
        if not isinstance(arguments, tuple) or not isinstance(name, Name):
            raise CheckpointError(f"its pickle calls {_kind(name)}")
        self._push_new(call(name, arguments, self.charge))

    def new(self) -> None:
        self.reduce()

    def new_with_keywords(self) -> None:
        keywords = self._pop()
        if type(keywords) is not dict or keywords:
            raise CheckpointError("its pickle makes an object with keywords, which no checkpoint needs")
        self.reduce()

    def build(self) -> None:
        state = self._pop()
        target = self._pop()
        self._push(add_state(target, state, self.charge))

    def persistent(self) -> None:
        self.charge(_OBJECT)
        self._push(self._persistent_load(self._pop()))


def _parsed(text: bytes) -> int:
    if len(text) > 2 * _LONGEST_NUMBER:
        raise CheckpointError(f"its pickle has a whole number of {len(text)} digits")
    try:
        return int(text)
    except ValueError:
        raise CheckpointError("its pickle has a number that is none") from None


def _kind(value: object) -> str:
    return shown(value.full) if isinstance(value, Name) else f"a value of type {type(value).__name__}"


_Step = Callable[[_Machine], None]
_STEPS: dict[bytes, _Step] = {
    b"(": _Machine.mark,
    b"0": _Machine.pop,
    b"1": _Machine.pop_mark,
    b"2": _Machine.dup,
    b"\x80": _Machine.skip_protocol,
    b"\x95": _Machine.skip_frame,
    b"N": lambda m: m._push(None),
    b"\x88": lambda m: m._push(True),
    b"\x89": lambda m: m._push(False),
    b"I": _Machine.int_text,
    b"L": _Machine.long_text,
    b"F": _Machine.float_text,
    b"J": lambda m: m.packed("<i"),
    b"K": lambda m: m.packed("<B"),
    b"M": lambda m: m.packed("<H"),
    b"G": lambda m: m.packed(">d"),
    b"\x8a": lambda m: m.long_binary(1),
    b"\x8b": lambda m: m.long_binary(4),
    b"C": lambda m: m.bytes_(1),
    b"B": lambda m: m.bytes_(4),
    b"\x8e": lambda m: m.bytes_(8),
    b"\x96": lambda m: m.bytes_(8),
    b"\x8c": lambda m: m.text(1),
    b"X": lambda m: m.text(4),
    b"\x8d": lambda m: m.text(8),
    b"V": _Machine.text_line,
    b"U": lambda m: m.byte_text(1),
    b"T": lambda m: m.byte_text(4),
    b")": lambda m: m._push(()),
    b"\x85": lambda m: m.tuple_(1),
    b"\x86": lambda m: m.tuple_(2),
    b"\x87": lambda m: m.tuple_(3),
    b"t": _Machine.tuple_,
    b"\x91": _Machine.list_,
    b"]": lambda m: m._push_new([]),
    b"\x8f": lambda m: m._push_new([]),
    b"l": _Machine.list_,
    b"}": lambda m: m._push_new({}),
    b"d": _Machine.dict_,
    b"a": _Machine.append,
    b"e": _Machine.extend,
    b"\x90": _Machine.extend,
    b"s": _Machine.set_item,
    b"u": _Machine.set_items,
    b"p": lambda m: m.put(_parsed(m._line())),
    b"q": lambda m: m.put(m._unsigned(1)),
    b"r": lambda m: m.put(m._unsigned(4)),
    b"\x94": lambda m: m.put(len(m._memo)),
    b"g": lambda m: m.get(_parsed(m._line())),
    b"h": lambda m: m.get(m._unsigned(1)),
    b"j": lambda m: m.get(m._unsigned(4)),
    b"c": _Machine.name_lines,
    b"\x93": _Machine.name_from_stack,
    b"R": _Machine.reduce,
    b"\x81": _Machine.new,
    b"\x92": _Machine.new_with_keywords,
    b"b": _Machine.build,
    b"Q": _Machine.persistent,
}
