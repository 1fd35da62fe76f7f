"""Damaged files: whatever is flipped, cut or put in, only CheckpointError comes out, and memory stays bounded."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_files import (
    Built,
    Call,
    Name,
    described,
    pickled,
    safetensors_bytes,
    storage,
    tensor,
    write_legacy,
    write_zip,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segcam.errors import CheckpointError
from segcam.networks.checkpoint import Checkpoint, read_checkpoint

#: Half of the damage happens here: lengths, counts and pickle's instructions.
TELLING = [0, 1, 0x7F, 0x80, 0xFF, *b"()Rbhjqrcsu.}]tX\x81\x85\x93\x94QJKM\x8a"]

CHANGE = st.tuples(
    st.sampled_from(["flip", "set", "cut", "insert", "copy", "remove"]),
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 1, exclude_max=True),
    st.one_of(st.sampled_from(TELLING), st.integers(0, 255)),
    st.integers(1, 16),
)
CHANGES = st.lists(CHANGE, min_size=1, max_size=6)


def damaged(data: bytes, changes: list[tuple[str, float, float, int, int]]) -> bytes:
    for kind, where, other, value, count in changes:
        place, source = int(where * len(data)), int(other * len(data))
        match kind:
            case "flip" if data:
                data = data[:place] + bytes([data[place] ^ (1 << value % 8)]) + data[place + 1 :]
            case "set":
                data = data[:place] + bytes([value]) * count + data[place + count :]
            case "cut":
                data = data[:place]
            case "insert":
                data = data[:place] + bytes([value]) * count + data[place:]
            case "copy":
                data = data[:place] + data[source : source + count * 8] + data[place:]
            case "remove":
                data = data[:place] + data[place + count :]
    return data


ARRAYS = {
    "module.conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "module.bn.num_batches_tracked": np.array(7),
    "module.half": np.ones((0, 3), np.float16),
}
CALLS, STORAGES = described(ARRAYS)
SCALAR = Call(
    Name("numpy.core.multiarray", "scalar"),
    (Built(Call(Name("numpy", "dtype"), ("f8", False, True)), (3, "<", None, None, None, -1, -1, 0)), bytes(8)),
)
UNTYPED = Call(
    Name("torch._utils", "_rebuild_tensor_v3"),
    (storage("Untyped", "0", 96), 8, (3, 2), (4, 2), False, None, Name("torch", "bfloat16")),
)
STATE = CALLS | {"module.view": tensor(storage("Float", "0", 24), (3, 2), (0, 4), 5)}
AROUND = {
    "num_classes": 19,
    "mean_iu": SCALAR,
    "optimizer": {"state": {0: {"momentum": CALLS["module.conv.weight"]}}, "groups": [{"lr": 0.1}]},
    "args": Built(Call(Name("argparse", "Namespace")), {"x": Call(Name("builtins", "set"), ([1, 2],))}),
    "order": Built(Call(Name("collections", "OrderedDict"), ([["a", 1]],)), {"_metadata": {}}),
}
PICKLE = pickled({"state_dict": STATE | {"module.untyped": UNTYPED}, **AROUND})
#: The old format knows no storages without a type.
LEGACY_PICKLE = pickled({"state_dict": STATE, **AROUND})


def read_or_refuse(path: Path, data: bytes) -> Checkpoint | None:
    path.write_bytes(data)
    tracemalloc.start()
    try:
        checkpoint = read_checkpoint(path)
    except CheckpointError as error:
        assert error.message
        return None
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < (4 << 20) + 64 * len(data)
    assert sum(array.nbytes for array in checkpoint.tensors.values()) <= 4 * len(data) + (4 << 20)
    return checkpoint


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("originals")
    return {
        "zip": write_zip(folder / "w.pt", PICKLE, STORAGES).read_bytes(),
        "legacy": write_legacy(folder / "w.pt", LEGACY_PICKLE, STORAGES).read_bytes(),
        "safetensors": safetensors_bytes(ARRAYS, {"format": "pt"}),
    }


FUZZ = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_what_is_damaged_could_be_read_before(form: str, originals: dict[str, bytes], tmp_path: Path) -> None:
    checkpoint = read_or_refuse(tmp_path / "w.pt", originals[form])
    assert checkpoint is not None
    assert len(checkpoint.tensors) >= 3
    np.testing.assert_array_equal(checkpoint.tensors["conv.weight"], ARRAYS["module.conv.weight"])


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
@FUZZ
@given(changes=CHANGES)
def test_damaged_files(form: str, changes: Any, originals: dict[str, bytes], tmp_path: Path) -> None:
    read_or_refuse(tmp_path / "w.pt", damaged(originals[form], changes))


@FUZZ
@given(changes=CHANGES)
def test_damaged_pickles_in_sound_files(changes: Any, tmp_path: Path) -> None:
    """Here no checksum hides the pickle from the reader."""
    path = write_zip(tmp_path / "made.pt", damaged(PICKLE, changes), STORAGES)
    read_or_refuse(tmp_path / "w.pt", path.read_bytes())
    path = write_legacy(tmp_path / "made.pt", damaged(LEGACY_PICKLE, changes), STORAGES)
    read_or_refuse(tmp_path / "w.pt", path.read_bytes())


@FUZZ
@given(code=st.lists(st.one_of(st.sampled_from(TELLING), st.integers(0, 255)), max_size=60).map(bytes))
def test_instructions_at_random(code: bytes, tmp_path: Path) -> None:
    read_or_refuse(
        tmp_path / "w.pt", write_zip(tmp_path / "made.pt", b"\x80\x02}" + code + b".", STORAGES).read_bytes()
    )


@FUZZ
@given(
    data=st.binary(max_size=200),
    beginning=st.sampled_from([b"", b"PK\3\4", b"\x80\x02\x8a\x0a", b"\x10" + bytes(7) + b"{"]),
)
def test_noise(data: bytes, beginning: bytes, tmp_path: Path) -> None:
    read_or_refuse(tmp_path / "w.pt", beginning + data)


@pytest.mark.parametrize("name", ["odd_strided_tensor.pt", "evil_zip.pt", "evil_legacy.pt", "broken_missing_keys.pt"])
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES)
def test_damaged_real_files(
    name: str, changes: Any, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = (shared_data.parent / "conformance" / "checkpoints" / name).read_bytes()
    with monkeypatch.context() as inside:
        inside.chdir(tmp_path)
        read_or_refuse(tmp_path / "w.pt", damaged(original, changes))
    assert not (tmp_path / "SEGCAM_WAS_HERE").exists()
