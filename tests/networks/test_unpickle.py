"""The pickle interpreter: the same values as Python's own for data, and nothing at all for anything else."""

from __future__ import annotations

import collections
import functools
import io
import math
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from checkpoint_files import Built, Call, Name, Raw, code_of, pickled
from hypothesis import given
from hypothesis import strategies as st

from segcam.errors import CheckpointError
from segcam.networks import unpickle
from segcam.networks.inert import Record
from segcam.networks.unpickle import load

KEYS = st.one_of(st.text(max_size=5), st.integers(-(1 << 63), (1 << 63) - 1), st.booleans(), st.none())
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(1 << 200), 1 << 200),
        st.floats(allow_nan=False),
        st.text(max_size=300),
        st.binary(max_size=300),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.dictionaries(KEYS, inner, max_size=5),
    ),
    max_leaves=20,
)


def refuse(given: object) -> object:
    raise AssertionError(given)


def loads(data: bytes) -> Any:
    return load(io.BytesIO(data), len(data), len(data), refuse)


@given(VALUES, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_data_is_what_python_says_it_is(value: Any, protocol: int) -> None:
    """Text that protocol 0 puts on one line is the one thing with a limit, which nothing above comes near."""
    assert loads(pickle.dumps(value, protocol)) == value


@given(VALUES)
def test_the_test_support_writes_what_python_reads(value: Any) -> None:
    assert pickle.loads(pickled(value)) == value
    assert loads(pickled(value)) == value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_containers_become_plain_ones(protocol: int) -> None:
    value: dict[str, Any] = {
        "ordered": collections.OrderedDict(a=1),
        "counter": collections.Counter("aab"),
        "default": collections.defaultdict(list, a=[1]),
        "array": bytearray(b"\0\xff"),
        "complex": 1 + 2j,
    }
    assert loads(pickle.dumps(value, protocol)) == value | {"array": b"\0\xff"}
    assert loads(pickle.dumps([{1}, frozenset([2])], protocol)) == [[1], [2]]
    assert math.isnan(loads(pickle.dumps(math.nan, protocol)))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_objects_without_meaning_keep_their_name(protocol: int) -> None:
    import argparse

    found = loads(pickle.dumps(argparse.Namespace(a=1), protocol))
    assert found == Record("argparse.Namespace", {"a": 1})
    found = loads(pickle.dumps(Path("/a/b"), protocol))
    assert isinstance(found, Record)
    assert found.full.startswith("pathlib.")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_values_that_hold_themselves(protocol: int) -> None:
    ring: list[Any] = []
    ring.append({"ring": ring, "tuple": (ring,)})
    found = loads(pickle.dumps(ring, protocol))
    assert found[0]["ring"] is found
    assert found[0]["tuple"][0] is found


def test_the_text_of_python_2() -> None:
    assert loads(b"\x80\x02U\x05h\xc3\xa4llq\x00.") == "häll"
    assert loads(b"\x80\x02U\x02\xff\xfe.") == b"\xff\xfe"
    assert loads(b"T\x03\0\0\0abc.") == "abc"


class Reduces:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> Any:
        return self.reduced


TOUCH = "touch SEGCAM_WAS_HERE"
EVIL: dict[str, Any] = {
    "os.system": Reduces(os.system, TOUCH),
    "subprocess.Popen": Reduces(subprocess.Popen, TOUCH.split()),
    "eval": Reduces(eval, "open('SEGCAM_WAS_HERE', 'w')"),
    "exec": Reduces(exec, "open('SEGCAM_WAS_HERE', 'w')"),
    "open": Reduces(open, "SEGCAM_WAS_HERE", "w"),
    "import": Reduces(__import__, "antigravity"),
    "getattr": Reduces(getattr, Path(), "touch"),
    "partial": functools.partial(os.system, TOUCH),
    "a module's function": Reduces(pickle.loads, pickle.dumps(Reduces(os.system, TOUCH))),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("what", EVIL)
def test_calls_are_refused(what: str, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"it asks for [\w.]+, which .* nothing was run"):
        loads(pickle.dumps(EVIL[what], protocol))
    assert list(tmp_path.iterdir()) == []


def test_names_are_not_even_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "segcam_trap.py").write_text("open('SEGCAM_WAS_HERE', 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    new = Raw(b"csegcam_trap\nTrap\n)\x81")
    stack = Raw(b"\x8c\x0bsegcam_trap\x8c\x04Trap\x93")
    for value in (Name("segcam_trap", "f"), Call(Name("segcam_trap", "f")), new, stack):
        with pytest.raises(CheckpointError, match=r"asks for segcam_trap\."):
            loads(pickled(value))
    assert "segcam_trap" not in sys.modules
    assert not (tmp_path / "SEGCAM_WAS_HERE").exists()


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_other_name_is_refused(module: str, name: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        loads(pickled(Raw(b"\x8d" + _counted(module) + b"\x8d" + _counted(name) + b"\x93")))
    assert caught.value.message.isprintable()


def _counted(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(data)) + data


MEANINGLESS: dict[str, tuple[Any, str]] = {
    "extension 1": (Raw(b"\x82\x01"), "extension registry"),
    "extension 4": (Raw(b"\x84\1\0\0\0"), "extension registry"),
    "INST": (Raw(b"(ios\nsystem\n"), "instruction 0x69"),
    "OBJ": (Raw(b"(cos\nsystem\no"), r"os\.system"),
    "text that Python 2 quoted": (Raw(b"S'a'\n"), "instruction 0x53"),
    "a buffer from outside": (Raw(b"\x97"), "instruction 0x97"),
    "an instruction of tomorrow": (Raw(b"\xff"), "instruction 0xff"),
    "protocol 6": (Raw(b"\x80\x06"), "protocol 6"),
    "calling data": (Call("os.system", ("x",)), "calls a value of type str"),
    "calling a type": (Call(Name("torch", "float32")), "torch.float32, which is no function"),
    "arguments that are none": (Raw(b"ccollections\nOrderedDict\nNR"), "calls collections.OrderedDict"),
    "keywords": (Raw(b"cargparse\nNamespace\n)}(NNu\x92"), "keywords"),
    "a state for text": (Built("x", {}), "gives a state to a value of type str"),
    "a state for a name": (Built(Name("torch", "Tensor"), {"x": 1}), "gives a state to a value of type Name"),
    "a list as key": ({"x": Raw(b"}]Ns")}, "key of type list"),
    "a tuple as key": ({(1,): 2}, "key of type tuple"),
    "a long number as key": ({1 << 64: 2}, "very long number"),
    "a name as key": (Raw(b"}ctorch\nTensor\nNs"), "key of type Name"),
    "adding to a dict": (Raw(b"}Na"), "no list"),
    "adding to a tuple": (Raw(b")(Ne"), "no list"),
    "filling a list": (Raw(b"](NNu"), "no dict"),
    "half an entry": (Raw(b"}(NNNu"), "no dict"),
    "nothing there": (Raw(b"0"), "not there"),
    "a mark as value": (Raw(b"(\x85"), "not there"),
    "never opened": (Raw(b"Nt"), "never opened"),
    "never kept": (Raw(b"h\x05"), "never made"),
    "kept far away": (Raw(b"Np99999999999999999999\n"), "impossible number"),
    "no number": (Raw(b"Iabc\n"), "a number that is none"),
    "no float": (Raw(b"Fabc\n"), "a number that is none"),
    "no text": (Raw(b"U\x01a0\x8c\x01\xff"), "text that is none"),
    "a number without end": (Raw(b"I" + b"1" * 100 + b"\n"), "100 digits"),
    "a line without end": (Raw(b"I" + b"1" * 5000), "too long"),
    "a long number": (Raw(b"\x8b\x00\x01\0\0" + bytes(256)), "256 bytes"),
    "bytes of a number": (Call(Name("builtins", "bytearray"), (10**12,)), "bytes of something else"),
    "text that is no Latin": (Call(Name("_codecs", "encode"), ("\u1234", "latin1")), "bytes of something else"),
    "another encoding": (Call(Name("_codecs", "encode"), ("a", "zip")), "bytes of something else"),
    "a set of text": (Call(Name("builtins", "set"), ("abc",)), "set or list of something else"),
    "a dict of text": (Call(Name("collections", "OrderedDict"), ("ab",)), "dict of something else"),
    "a dict of singles": (Call(Name("collections", "OrderedDict"), ([["a"]],)), "dict of something else"),
    "a dict of lists": (Call(Name("collections", "OrderedDict"), ([[[], 1]],)), "key of type list"),
    "a complex text": (Call(Name("builtins", "complex"), ("1j",)), "complex number of something else"),
    "a NumPy object": (Call(Name("numpy", "dtype"), ("O8", False, True)), "type that is no number"),
    "a NumPy record": (
        Built(Call(Name("numpy", "dtype"), ("f8",)), (3, "<", None, ("a",), {"a": 1})),
        "type that is no number",
    ),
    "a NumPy number of 5 bytes": (
        Call(Name("numpy.core.multiarray", "scalar"), (Call(Name("numpy", "dtype"), ("f8",)), b"12345")),
        "don't fit",
    ),
    "a NumPy number of 7 bytes each": (
        Call(Name("numpy.core.multiarray", "scalar"), (Call(Name("numpy", "dtype"), ("f7",)), b"1234567")),
        "don't fit",
    ),
    "a tensor of nothing": (Call(Name("torch._utils", "_rebuild_tensor_v2"), (None,) * 6), "without a storage"),
    "a tensor of too little": (Call(Name("torch._utils", "_rebuild_tensor_v2"), (None,)), "wrong number of arguments"),
    "a parameter of nothing": (
        Call(Name("torch._utils", "_rebuild_parameter"), (None, True, None)),
        "without a tensor",
    ),
}


@pytest.mark.parametrize("what", MEANINGLESS)
def test_what_makes_no_sense(what: str) -> None:
    value, words = MEANINGLESS[what]
    with pytest.raises(CheckpointError, match=words):
        loads(pickled(value))


@pytest.mark.parametrize(
    "code", ["B\xff\xff\xff\xff", "X\xff\xff\xff\xff", "T\xff\xff\xff\xff", "\x8b\xff\xff\xff\x7f"]
)
@pytest.mark.parametrize("wide", [False, True])
def test_lengths_that_are_only_claimed(code: str, wide: bool) -> None:
    data = code.encode("latin-1")
    if wide:
        data = {b"B": b"\x8e", b"X": b"\x8d", b"T": b"\x96"}.get(data[:1], b"\x95") + b"\xff" * 8
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError):
            loads(data + bytes(100))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("cut", range(60))
def test_a_cut_at_every_place(cut: int) -> None:
    data = pickle.dumps({"a": [1, 2.5, "x", b"y", (1, 1 << 70)], "b": collections.OrderedDict(c=None)}, 4)
    assert len(data) > 60
    with pytest.raises(CheckpointError, match="ends in the middle of a pickle"):
        loads(data[:cut])


MEGABYTE = code_of("x" * (1 << 20)) + b"q\0"
LIST = b"](" + b"N" * 50_000 + b"eq\0"
BOMBS = {
    "dicts": b"}" * 100_000,
    "lists of lists": b"]" + b"]a" * 100_000,
    "tuples of tuples": b")" + b"\x85" * 100_000,
    "memory": b"N" + b"\x94" * 100_000,
    "bytes of one text": MEGABYTE + b"0" + (b"c_codecs\nencode\nh\0\x8c\x06latin1\x86R" * 400),
    "copies of one dict": b"}(" + b"".join(code_of(n) + b"N" for n in range(5000)) + b"uq\0"
    b"0" + b"ccollections\nOrderedDict\nh\0\x85R" * 5000,
    "dicts of one list": b"](" + b"](NNe" * 5000 + b"eq\0" + b"0" + b"ccollections\nOrderedDict\nh\0\x85R" * 5000,
    "sets of one list": LIST + b"0" + b"c__builtin__\nset\nh\0\x85R" * 50_000,
}


@pytest.mark.parametrize("what", BOMBS)
def test_memory_is_bounded_by_the_size(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpickle, "_OBJECTS_AT_LEAST", 1 << 18)
    data = b"\x80\x02" + BOMBS[what] + b"."
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match="far more than its size warrants"):
            loads(data)
        assert tracemalloc.get_traced_memory()[1] < 20 * len(data) + (1 << 20)
    finally:
        tracemalloc.stop()


def test_too_many_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpickle, "_MOST_INSTRUCTIONS", 1000)
    assert loads(b"N0" * 498 + b"N.") is None
    with pytest.raises(CheckpointError, match="more than 1,000 instructions"):
        loads(b"N0" * 500 + b"N.")


def test_nesting_is_no_recursion() -> None:
    found = loads(b"]" * 100_000 + b"a" * 99_999 + b".")
    depth = 0
    while found:
        found, depth = found[0], depth + 1
    assert depth == 99_999
