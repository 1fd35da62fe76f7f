"""Checkpoints of every form, as they are found in the world: what is read, and what is refused with which words."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from checkpoint_files import (
    Built,
    Call,
    Name,
    described,
    pickled,
    save,
    storage,
    tensor,
    write_legacy,
    write_zip,
)

from segcam.errors import CheckpointError
from segcam.networks.checkpoint import read_checkpoint

Arrays = dict[str, np.ndarray[Any, Any]]
FORMS = ("zip", "legacy", "safetensors")


@pytest.fixture
def arrays() -> Arrays:
    random = np.random.default_rng(3)
    return {
        "conv.weight": random.standard_normal((4, 3, 2, 2)).astype(np.float32),
        "conv.bias": random.standard_normal(4),
        "half": random.standard_normal((2, 3)).astype(np.float16),
        "bytes": np.array([1, 255], np.uint8),
        "small": np.array([[-3]], np.int8),
        "short": np.array([-300, 300], np.int16),
        "int": np.array([1 << 30], np.int32),
        "num_batches_tracked": np.array(12345678901),
        "mask": np.array([True, False, True]),
        "complex": np.array([1 + 2j], np.complex64),
        "nothing": np.zeros((0, 7), np.float32),
    }


def assert_same(found: Arrays, expected: Arrays) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert found[name].flags.c_contiguous
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_arrays(form: str, arrays: Arrays, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(save(tmp_path / "weights.pt", arrays, form))
    assert_same(checkpoint.tensors, arrays)
    assert checkpoint.wrapper == "a bare state dict"
    assert checkpoint.metadata == ({"format": "pt"} if form == "safetensors" else {})


WRAPPERS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "fastseg": (
        lambda state: {
            "epoch": 174,
            "state_dict": {f"module.{name}": value for name, value in state.items()},
            "optimizer": {"state": {0: {"momentum_buffer": next(iter(state.values()))}}, "param_groups": [{"lr": 0.1}]},
        },
        "a state dict under 'state_dict', names after 'module.'",
    ),
    "mmsegmentation": (
        lambda state: {"meta": {"CLASSES": ("road", "sky"), "PALETTE": [[1, 2, 3]]}, "state_dict": state},
        "a state dict under 'state_dict'",
    ),
    "model": (lambda state: {"model": state, "epoch": 3}, "a state dict under 'model'"),
    "model_state": (lambda state: {"model_state": state}, "a state dict under 'model_state'"),
    "nested": (lambda state: {"net": {"state_dict": state}}, "a state dict under 'net' > 'state_dict'"),
    "averaged": (lambda state: {"state_dict_ema": state, "model": 3}, "a state dict under 'state_dict_ema'"),
    "compiled": (
        lambda state: {f"_orig_mod.module.{name}": value for name, value in state.items()},
        "a bare state dict, names after '_orig_mod.module.'",
    ),
    "metadata": (
        lambda state: Built(
            Call(Name("collections", "OrderedDict"), ([list(pair) for pair in state.items()],)), {"_metadata": {}}
        ),
        "a bare state dict",
    ),
}


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers(wrapper: str, form: str, arrays: Arrays, tmp_path: Path) -> None:
    wrap, words = WRAPPERS[wrapper]
    checkpoint = read_checkpoint(save(tmp_path / "weights.pt", arrays, form, wrap))
    assert_same(checkpoint.tensors, arrays)
    assert checkpoint.wrapper == words


def test_metadata_is_what_stood_around(arrays: Arrays, tmp_path: Path) -> None:
    scalar = Call(
        Name("numpy._core.multiarray", "scalar"),
        (
            Built(Call(Name("numpy", "dtype"), ("f8", False, True)), (3, "<", None, None, None, -1, -1, 0)),
            np.float64(0.625).tobytes(),
        ),
    )
    arguments = Built(Call(Name("argparse", "Namespace")), {"lr": 0.1})
    path = save(
        tmp_path / "weights.pt",
        arrays,
        "zip",
        lambda state: {
            "state_dict": state,
            "num_classes": 19,
            "mean_iu": scalar,
            "meta": {"CLASSES": ("road", "sky"), "deep": [[[[1]]]]},
            "args": arguments,
            "none": None,
        },
    )
    assert read_checkpoint(path).metadata == {
        "num_classes": 19,
        "mean_iu": 0.625,
        "meta": {"CLASSES": ["road", "sky"], "deep": [[None]]},
    }


def test_only_the_state_dict_is_read(arrays: Arrays, tmp_path: Path) -> None:
    """The optimizer's storages may be damaged: nobody looks at them."""
    calls, storages = described(arrays | {"momentum": np.full(1000, 7, np.float32)})
    momentum = calls.pop("momentum")
    path = write_zip(tmp_path / "w.pt", pickled({"state_dict": calls, "optimizer": [momentum]}), storages)
    damaged = path.read_bytes().replace(np.full(1000, 7, np.float32).tobytes(), bytes(4000))
    path.write_bytes(damaged)
    assert_same(read_checkpoint(path).tensors, arrays)
    path.write_bytes(damaged.replace(arrays["conv.weight"].tobytes(), bytes(arrays["conv.weight"].nbytes)))
    with pytest.raises(CheckpointError, match=r"damaged: the checksum of data/0 is wrong"):
        read_checkpoint(path)


def test_views_of_one_storage(tmp_path: Path) -> None:
    data = np.arange(24, dtype=np.float32)
    shared = storage("Float", "0", 24)
    views = {
        "all": tensor(shared, (4, 6)),
        "tied": tensor(shared, (4, 6)),
        "column": tensor(shared, (4, 1), (6, 1), 5),
        "transposed": tensor(shared, (6, 4), (1, 6)),
        "repeated": tensor(shared, (3, 2), (0, 1), 22),
        "one": tensor(shared, (), (), 7),
        "odd stride": tensor(shared, (1, 3), (999, 1), 21),
    }
    grid = data.reshape(4, 6)
    expected = {
        "all": grid,
        "tied": grid,
        "column": grid[:, 5:],
        "transposed": grid.T,
        "repeated": np.tile(data[22:], (3, 1)),
        "one": data[7].reshape(()),
        "odd stride": data[None, 21:],
    }
    for path in (
        write_zip(tmp_path / "a.pt", pickled(views), {"0": data}),
        write_zip(tmp_path / "b.pt", pickled(views), {"0": data}, byteorder="big"),
        write_legacy(tmp_path / "c.pt", pickled(views), {"0": data}),
    ):
        found = read_checkpoint(path).tensors
        assert_same(found, expected)
        assert found["tied"] is found["all"]
        assert not np.shares_memory(found["column"], found["all"])


def test_a_storage_that_is_a_view_of_another(tmp_path: Path) -> None:
    """PyTorch before 0.4 wrote these."""
    value = {"x": tensor(storage("Float", "7", 6, ("7v", 2, 3)), (3,))}
    path = write_legacy(tmp_path / "w.pt", pickled(value), {"7": np.arange(6, dtype=np.float32)})
    np.testing.assert_array_equal(read_checkpoint(path).tensors["x"], [2, 3, 4])
    value = {"x": tensor(storage("Float", "7", 6, ("7v", 4, 3)), (3,))}
    path = write_legacy(tmp_path / "w.pt", pickled(value), {"7": np.arange(6, dtype=np.float32)})
    with pytest.raises(CheckpointError, match="leaves its storage"):
        read_checkpoint(path)


def test_many_arrangements_of_one_storage(tmp_path: Path) -> None:
    """Each is a copy, so they count."""
    data = np.zeros(1 << 16, np.float32)
    shapes = [(1 << bits, 1 << (16 - bits)) for bits in range(1, 16)]
    shared = storage("Float", "0", data.size)
    turned = {str(high): tensor(shared, (high, wide), (1, high)) for high, wide in shapes}
    read_checkpoint(write_zip(tmp_path / "w.pt", pickled(dict(list(turned.items())[:4])), {"0": data}))
    with pytest.raises(CheckpointError, match="larger than the file"):
        read_checkpoint(write_zip(tmp_path / "w.pt", pickled(turned), {"0": data}))


def test_the_old_format_is_checked_to_its_end(arrays: Arrays, tmp_path: Path) -> None:
    """A cut in the optimizer's storages is a cut, though nobody reads them."""
    calls, storages = described({"x": arrays["conv.weight"], "momentum": arrays["conv.bias"]})
    momentum = calls.pop("momentum")
    path = write_legacy(tmp_path / "w.pt", pickled({"state_dict": calls, "optimizer": [momentum]}), storages)
    assert list(read_checkpoint(path).tensors) == ["x"]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="ends early"):
        read_checkpoint(path)


def test_two_words_about_one_storage(tmp_path: Path) -> None:
    value = {"x": tensor(storage("Float", "0", 4), (4,)), "y": tensor(storage("Half", "0", 4), (4,))}
    path = write_legacy(tmp_path / "w.pt", pickled(value), {"0": np.zeros(4, np.float32)})
    with pytest.raises(CheckpointError, match="two different things about storage 0"):
        read_checkpoint(path)


def typed(kind: str, code: bytes, shape: tuple[int, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    hooks = Call(Name("collections", "OrderedDict"))
    stored = Call(
        Name("torch._utils", "_rebuild_tensor_v3"),
        (storage("Untyped", "0", len(code)), 0, shape, (1,) * len(shape), False, hooks, Name("torch", kind)),
    )
    return {"x": stored}, {"0": np.frombuffer(code, np.uint8)}


# Values of OCP 8-bit floating point (E4M3, E5M2), of the forms without negative zero, and of the shared exponent E8M0.
FLOATS8 = {
    "float8_e4m3fn": {0x00: 0.0, 0x01: 2.0**-9, 0x08: 2.0**-6, 0x38: 1.0, 0x7E: 448.0, 0xFE: -448.0, 0x7F: np.nan},
    "float8_e5m2": {0x01: 2.0**-16, 0x3C: 1.0, 0x7B: 57344.0, 0x7C: np.inf, 0xFC: -np.inf, 0x7D: np.nan},
    "float8_e4m3fnuz": {0x01: 2.0**-10, 0x40: 1.0, 0x7F: 240.0, 0xFF: -240.0, 0x80: np.nan},
    "float8_e5m2fnuz": {0x01: 2.0**-17, 0x40: 1.0, 0x7F: 57344.0, 0x80: np.nan},
    "float8_e8m0fnu": {0x00: 2.0**-127, 0x7F: 1.0, 0x80: 2.0, 0xFE: 2.0**127, 0xFF: np.nan},
}


@pytest.mark.parametrize("kind", FLOATS8)
def test_floats_of_eight_bits(kind: str, tmp_path: Path) -> None:
    known = FLOATS8[kind]
    value, stored = typed(kind, bytes(known), (len(known),))
    found = read_checkpoint(write_zip(tmp_path / "w.pt", pickled(value), stored)).tensors["x"]
    np.testing.assert_array_equal(found, np.array(list(known.values()), np.float32))
    assert found.dtype == np.float32
    value, stored = typed(kind, bytes(known)[:1], ())
    assert read_checkpoint(write_zip(tmp_path / "w.pt", pickled(value), stored)).tensors["x"].shape == ()


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_bfloat16(byteorder: str, tmp_path: Path) -> None:
    wanted = np.array([1.0, -2.5, 3.0e38, np.inf], np.float32)
    bits = (wanted.view(np.uint32) >> 16).astype(np.uint16)
    value = {"x": tensor(storage("BFloat16", "0", 4), (2, 2)), "y": tensor(storage("BFloat16", "0", 4), (), (), 1)}
    found = read_checkpoint(write_zip(tmp_path / "w.pt", pickled(value), {"0": bits}, byteorder)).tensors
    np.testing.assert_array_equal(found["x"], (bits.astype(np.uint32) << 16).view(np.float32).reshape(2, 2))
    assert found["x"].dtype == found["y"].dtype == np.float32
    assert found["y"] == -2.5


@pytest.mark.parametrize("kind", ["uint16", "uint32", "uint64"])
def test_types_that_have_no_storage_of_their_own(kind: str, tmp_path: Path) -> None:
    wanted = np.array([1, 60000], kind)
    value, stored = typed(kind, wanted.tobytes(), (2,))
    np.testing.assert_array_equal(
        read_checkpoint(write_zip(tmp_path / "w.pt", pickled(value), stored)).tensors["x"], wanted
    )


def test_numpy_arrays_in_a_state_dict(tmp_path: Path) -> None:
    wanted = np.arange(6, dtype=">f4").reshape(2, 3)
    dtype = Built(Call(Name("numpy", "dtype"), ("f4", False, True)), (3, ">", None, None, None, -1, -1, 0))
    empty = Call(Name("numpy.core.multiarray", "_reconstruct"), (Name("numpy", "ndarray"), (0,), b"b"))
    state = {
        "x": Built(empty, (1, (2, 3), dtype, False, wanted.tobytes())),
        "fortran": Built(empty, (1, (3, 2), dtype, True, wanted.tobytes())),
        "of bytes": Call(Name("numpy._core.numeric", "_frombuffer"), (wanted.tobytes(), dtype, (6,), "C")),
    }
    found = read_checkpoint(write_zip(tmp_path / "w.pt", pickled(state), {})).tensors
    assert found["x"].dtype == np.dtype("f4")
    np.testing.assert_array_equal(found["x"], wanted)
    np.testing.assert_array_equal(found["fortran"], wanted.T)
    np.testing.assert_array_equal(found["of bytes"], wanted.ravel())


def test_some_names_with_the_prefix(arrays: Arrays, tmp_path: Path) -> None:
    mixed = {f"module.{name}" if index % 2 else name: array for index, (name, array) in enumerate(arrays.items())}
    assert set(read_checkpoint(save(tmp_path / "w.pt", mixed)).tensors) == set(arrays)
    with pytest.raises(CheckpointError, match=r"both with and without 'module.': module.half"):
        read_checkpoint(save(tmp_path / "w.pt", mixed | {"module.half": arrays["half"], "half": arrays["half"]}))


# The real thing: files that torch.save wrote


@pytest.fixture(scope="module")
def shared_checkpoints(shared_data: Path) -> Path:
    return shared_data.parent / "conformance" / "checkpoints"


@pytest.fixture(scope="module")
def recipe(shared_data: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("recipe", shared_data.parent / "conformance" / "recipe.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "network", "classes"),
    [
        ("fastseg_small_f64_zip.pt", "fastseg_small_f64", {"num_classes": 19, "arch": "fastseg.MobileV3Small"}),
        ("fastseg_small_f64_legacy.pt", "fastseg_small_f64", {"num_classes": 19}),
        ("fast_scnn_mmseg_legacy.pth", "fast_scnn", {}),
    ],
)
def test_real_files(
    name: str, network: str, classes: dict[str, object], shared_checkpoints: Path, recipe: ModuleType
) -> None:
    checkpoint = read_checkpoint(shared_checkpoints / name)
    fill = recipe.load_fill(str(shared_checkpoints.parent / network))
    assert [[key, list(array.shape), str(array.dtype)] for key, array in checkpoint.tensors.items()] == fill["keys"]
    expected = recipe.fill_state_dict(fill)
    assert len(expected) > 200
    for key, array in expected.items():
        np.testing.assert_array_equal(checkpoint.tensors[key], array, err_msg=key)
    assert classes.items() <= checkpoint.metadata.items()


def test_a_real_strided_tensor(shared_checkpoints: Path) -> None:
    found = read_checkpoint(shared_checkpoints / "odd_strided_tensor.pt").tensors
    np.testing.assert_array_equal(found["x"], [[0], [0]])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("broken_truncated_zip.pt", "ends early"),
        ("broken_truncated_legacy.pt", "ends early"),
        ("evil_zip.pt", r"posix\.system"),
        ("evil_legacy.pt", r"posix\.system"),
    ],
)
def test_real_files_that_are_refused(
    name: str, words: str, shared_checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(shared_checkpoints / name)
    assert list(tmp_path.iterdir()) == []
