"""A plan is loaded only with a manifest that is whole, names its bytes and fits the machine."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shlex
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from segcam.engines.manifest import (
    Manifest,
    Running,
    manifest_path,
    read_manifest,
    read_plan,
    rebuild_command,
    remarks,
    sha256_of,
    unusable,
    verify,
)
from segcam.errors import EngineError
from segcam.onnx_tools.spec import InputSpec, ModelSpec, dump_spec

PLAN = b"ptrt" + bytes(range(200))
HERE = Running("RTX 4090", (8, 9), "10.3.0", "12.6", "560.35")


def manifest(**changes: Any) -> Manifest:
    made = Manifest(
        plan_sha256=hashlib.sha256(PLAN).hexdigest(),
        plan_bytes=len(PLAN),
        source="net.onnx",
        source_sha256="0" * 64,
        gpu=HERE.gpu,
        compute_capability=HERE.compute_capability,
        tensorrt=HERE.tensorrt,
        cuda=HERE.cuda,
        driver=HERE.driver,
        precision_asked="fp16",
        precision_found={"float16": 40, "float32": 2},
        tensors=[
            {
                "name": "x",
                "mode": "input",
                "dtype": "float32",
                "shape": [1, 3, -1, 64],
                "format": "linear",
                "profile": [[1, 3, 32, 64], [1, 3, 32, 64], [1, 3, 64, 64]],
            },
            {
                "name": "y",
                "mode": "output",
                "dtype": "float16",
                "shape": [1, 19, 8, 8],
                "format": "linear",
                "profile": None,
            },
        ],
        spec=json.loads(dump_spec(ModelSpec(InputSpec(name="x", size=(32, 64))))),
        build_s=12.5,
        built_at="2026-01-02T03:04:05+00:00",
        flags={"fp16": True, "workspace": "2G", "dla": None, "optimization_level": 4, "dry-run": False},
        rewrites=("merge",),
        head="Resize+ArgMax",
        kept_fp32={"node 7": "magnitude 7e4"},
        agreement={"labels_equal": 0.9999, "frames": 4},
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "net fp16.plan"
    path.write_bytes(PLAN)
    manifest().write(manifest_path(path))
    return path


def message(plan: Path, running: Running = HERE) -> str:
    with pytest.raises(EngineError) as caught:
        verify(read_manifest(plan), plan, running)
    assert "build-engine" in caught.value.hint
    return str(caught.value)


def test_what_is_written_is_read_back(plan: Path) -> None:
    assert read_manifest(plan) == manifest()
    assert verify(read_manifest(plan), plan, HERE) == PLAN
    assert {path.name for path in plan.parent.iterdir()} == {plan.name, plan.name + ".json"}
    spec = read_manifest(plan).model_spec
    assert (spec.input.name, spec.input.size, spec.origin) == ("x", (32, 64), "manifest of a plan of net.onnx")
    assert sha256_of(plan) == manifest().plan_sha256


def _leaves(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    below = [leaf for key, child in children for leaf in _leaves(child, (*at, key))]
    return below or [at]


LEAVES = [leaf for leaf in _leaves(json.loads(manifest().document())) if leaf]


@given(leaf=st.sampled_from(LEAVES), value=st.one_of(st.integers(), st.text(), st.booleans(), st.none()))
def test_any_value_that_was_edited_is_found_out(
    tmp_path_factory: pytest.TempPathFactory, leaf: tuple[Any, ...], value: Any
) -> None:
    plan = tmp_path_factory.getbasetemp() / "edited.plan"
    plan.write_bytes(PLAN)
    content = json.loads(manifest().document())
    inner = content
    for key in leaf[:-1]:
        inner = inner[key]
    if json.dumps(inner[leaf[-1]]) == json.dumps(value):
        return
    inner[leaf[-1]] = value
    manifest_path(plan).write_text(json.dumps(content))
    with pytest.raises(EngineError):
        read_manifest(plan)


def test_an_edit_is_called_one(plan: Path) -> None:
    path = manifest_path(plan)
    path.write_text(path.read_text().replace("12.5", "12.75"))
    assert "has been changed since build-engine wrote it" in message(plan)
    # Other spaces are no other content.
    path.write_text(json.dumps(json.loads(manifest().document())))
    assert read_manifest(plan) == manifest()


def test_no_manifest_is_refused_with_the_way_to_get_one(plan: Path) -> None:
    manifest_path(plan).unlink()
    assert "has no manifest (net fp16.plan.json beside it). A plan is code" in message(plan)
    (plan.parent / "net fp16.onnx").touch()
    with pytest.raises(EngineError) as caught:
        read_manifest(plan)
    onnx_file = shlex.quote(str(plan.with_suffix(".onnx")))
    assert f"build-engine --onnx {onnx_file}" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "version None"),
        ('{"segcam_plan": 0}', "version 0"),
        ('{"segcam_spec": 1}', "version None"),
        ('{"segcam_plan": 1}', "'plan_sha256' is a required property"),
        ("\udcff", "cannot be read"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_other_files_in_its_place(plan: Path, text: str, words: str) -> None:
    manifest_path(plan).write_text(text, "utf-8", errors="surrogateescape")
    assert words in message(plan)


def test_versions_have_numbers_that_can_be_compared(plan: Path) -> None:
    manifest(tensorrt="1" * 5000 + ".0").write(manifest_path(plan))
    assert "at tensorrt" in message(plan)


def test_a_newer_manifest_asks_for_a_newer_segcam(plan: Path) -> None:
    manifest_path(plan).write_text('{"segcam_plan": 2}')
    with pytest.raises(EngineError, match="version 2") as caught:
        read_manifest(plan)
    assert "Update Segcam" in caught.value.hint


def test_the_bytes_must_be_the_ones_named(plan: Path) -> None:
    plan.write_bytes(PLAN[:-1])
    assert "is cut off: it has 203 bytes, its manifest says 204" in message(plan)
    plan.write_bytes(PLAN + b"\0")
    assert "has been replaced" in message(plan)
    plan.write_bytes(PLAN[:-1] + b"\0")
    assert "the hash of its bytes differs" in message(plan)
    plan.write_bytes(b"")
    assert "is empty" in message(plan)
    plan.unlink()
    assert "cannot be read" in message(plan)
    with pytest.raises(EngineError, match="cannot be read"):
        read_plan(manifest(), plan)


def test_what_is_often_taken_for_a_plan(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 8, 8])],
    )
    path = tmp_path / "renamed.plan"
    onnx.save(helper.make_model(graph), path)
    with pytest.raises(EngineError, match="is an ONNX network, not a TensorRT plan") as caught:
        read_manifest(path)
    assert "renamed.onnx" in caught.value.hint
    # With somebody else's manifest beside it as well.
    manifest().write(manifest_path(path))
    assert "is an ONNX network" in message(path)
    manifest_path(path).unlink()
    for content, words in ((b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"), (b"PK\x03\x04", "ZIP")):
        path.write_bytes(content)
        assert words in message(path)


def test_a_name_that_is_nearly_right(plan: Path) -> None:
    with pytest.raises(EngineError, match="there is no file") as caught:
        read_manifest(plan.with_name("net fp61.plan"))
    assert "Did you mean" in caught.value.hint and plan.name in caught.value.hint


@pytest.mark.parametrize(
    ("running", "words"),
    [
        (dataclasses.replace(HERE, tensorrt="11.4.0.106"), "TensorRT 10.3.0 built it, and this is 11.4.0.106"),
        (dataclasses.replace(HERE, tensorrt="10.3.1"), "this is 10.3.1"),
        (
            Running("Orin", (8, 7), "10.3.0", "12.6"),
            "it was built for compute capability 8.9, and this is 8.7",
        ),
    ],
)
def test_another_machine_is_shown_beside_this_one(plan: Path, running: Running, words: str) -> None:
    text = message(plan, running)
    assert words in text
    table = [line for line in text.splitlines() if line.startswith("    ")]
    at = table[0].index("running with")
    capability = next(line for line in table if "compute capability" in line)
    assert capability[at:].strip() == "{}.{}".format(*running.compute_capability)
    assert "8.9" in capability[:at]
    assert shlex.split(text.splitlines()[-1].split(": ", 1)[1])[:3] == ["build-engine", "--onnx", "net.onnx"]


def test_what_compatible_plans_run_on() -> None:
    def why(running: Running, **changes: Any) -> str:
        return unusable(manifest(**changes), running)

    newer, older = dataclasses.replace(HERE, tensorrt="11.4.0.106"), dataclasses.replace(HERE, tensorrt="10.0.1")
    assert why(newer) and not why(newer, version_compatible=True)
    assert "and newer ones" in why(older, version_compatible=True)
    orin, turing, hopper = (
        Running(name, cc, HERE.tensorrt) for name, cc in (("Orin", (8, 7)), ("T4", (7, 5)), ("H100", (9, 0)))
    )
    assert why(orin) and why(hopper) and why(turing)
    assert not why(orin, hardware_compatible="ampere+") and not why(hopper, hardware_compatible="ampere+")
    assert "Ampere" in why(turing, hardware_compatible="ampere+")
    assert why(hopper, hardware_compatible="same-compute-capability")


def test_another_model_with_the_same_capability_is_a_remark() -> None:
    l40 = dataclasses.replace(HERE, gpu="L40S")
    assert unusable(manifest(), l40) == ""
    assert "tuned on RTX 4090" in remarks(manifest(), l40)[0]
    assert remarks(manifest(), HERE) == []
    assert remarks(manifest(hardware_compatible="same-compute-capability"), l40) == []


def test_the_command_that_builds_it_again() -> None:
    found = shlex.split(rebuild_command(manifest(source="my net.onnx"), Path("a b.plan")))
    assert found == [
        *("build-engine", "--onnx", "my net.onnx", "--fp16", "--workspace", "2G", "--optimization-level", "4"),
        *("--output", "a b.plan", "--force"),
    ]


def test_the_precision_is_what_was_found() -> None:
    assert manifest().precision == "fp16"
    assert manifest(precision_found={"float32": 3, "bfloat16": 4}).precision == "bf16"
    assert manifest(precision_found={}).precision == "fp16"
    assert manifest(precision_asked="int8", precision_found={"int8": 1, "float16": 30}).precision == "int8"


def test_a_full_disk_leaves_the_old_manifest(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = manifest_path(plan).read_bytes()
    monkeypatch.setattr("os.fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        manifest(source="other.onnx").write(manifest_path(plan))
    assert manifest_path(plan).read_bytes() == before
    assert len(list(plan.parent.iterdir())) == 2
