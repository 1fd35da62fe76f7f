"""What may be typed, and what excludes what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segcam.building.options import BuildOptions, parse_bytes, parse_hardware, parse_shapes, show_bytes
from segcam.errors import UsageError

SHAPES = ((1, 3, 64, 64), (1, 3, 64, 64), (4, 3, 64, 64))


def options(**more: Any) -> BuildOptions:
    return BuildOptions(onnx="net.onnx", **more)


@pytest.mark.parametrize(
    ("given_options", "one", "other"),
    [
        ({"precisions": ("fp16", "fp32")}, "--fp16", "--fp32"),
        ({"precisions": ("bf16", "fp16")}, "--fp16", "--bf16"),
        ({"precisions": ("fp32", "bf16")}, "--fp32", "--bf16"),
        ({"precisions": ("int8", "fp8")}, "--int8", "--fp8"),
        ({"precisions": ("int8", "fp32")}, "--fp32", "--int8"),
        ({"size": (64, 64), "shapes": SHAPES}, "--size", "--shapes"),
        ({"batch": 4, "shapes": SHAPES}, "--batch", "--shapes"),
        ({"dla": 0, "precisions": ("fp32",)}, "--dla", "--fp32"),
        ({"dla": 0, "precisions": ("bf16",)}, "--dla", "--bf16"),
        ({"dla": 0, "precisions": ("fp8",)}, "--dla", "--fp8"),
        ({"dla": 0, "shapes": SHAPES}, "--dla", "--shapes"),
        ({"dla": 0, "hardware_compat": "ampere+"}, "--dla", "--hardware-compat"),
        ({"dry_run": True, "force": True}, "--dry-run", "--force"),
    ],
)
def test_contradictions_name_both_flags(given_options: dict[str, Any], one: str, other: str) -> None:
    with pytest.raises(UsageError) as refused:
        options(**given_options).check()
    assert {one, other} <= set(refused.value.message.split())
    assert refused.value.hint


@pytest.mark.parametrize("precisions", [(), ("fp16",), ("fp32",), ("bf16",), ("int8",), ("fp8",), ("int8", "fp16")])
def test_what_goes_together(precisions: Any) -> None:
    made = options(precisions=precisions)
    made.check()
    assert made.precision == (precisions[0] if precisions else "fp16")
    assert made.precision_name == "_".join(precisions or ("fp16",))
    assert made.flags() == dict.fromkeys(precisions or ("fp16",), True)


@pytest.mark.parametrize(
    ("target", "name", "right"),
    [("tensorrt", "x.onnx", "x.plan"), ("onnx", "x.plan", "x.onnx"), ("tensorrt", "x", "x.plan")],
)
def test_an_output_ends_in_what_it_is(target: Any, name: str, right: str) -> None:
    with pytest.raises(UsageError, match="does not end in") as refused:
        options(target=target, output=Path(name)).check()
    assert right in refused.value.hint
    options(target=target, output=Path(right)).check()


def test_flags_are_what_was_asked() -> None:
    made = options(
        precisions=("fp16",), shapes=SHAPES, workspace=3 << 29, optimization_level=0, version_compat=True,
        head="labels", simplify=False, rewrite=False, calibrate="dashcam.mp4", spec="net.json",
        hardware_compat="ampere+", timing_cache="t.cache", force=True, output=Path("x.plan"),
    )  # fmt: skip
    assert made.flags() == {
        "fp16": True, "shapes": "1x3x64x64:1x3x64x64:4x3x64x64", "workspace": "1536M", "optimization-level": 0,
        "version-compat": True, "head": "labels", "no-simplify": True, "no-rewrite": True, "calibrate": "dashcam.mp4",
        "spec": "net.json", "hardware-compat": "ampere+",
    }  # fmt: skip


def test_where_timings_are_kept() -> None:
    folder = Path("engines")
    assert options().timings(folder) == folder
    assert options(timing_cache="none").timings(folder) is None
    assert options(timing_cache="t.cache").timings(folder) == Path("t.cache")


def test_shapes() -> None:
    assert parse_shapes("1x3x512x1024:1x3x1024x2048:4x3x1024x2048") == (
        (1, 3, 512, 1024), (1, 3, 1024, 2048), (4, 3, 1024, 2048),
    )  # fmt: skip
    assert parse_shapes("1x8x8x3:2x8x8x3:2x9x8x3")[2] == (2, 9, 8, 3)


@pytest.mark.parametrize(
    "text",
    ["", "1x3x8x8", "1x3x8x8:1x3x8x8", "1x3x8:1x3x8:1x3x8", "2x3x8x8:1x3x8x8:4x3x8x8", "0x3x8x8:1x3x8x8:1x3x8x8",
     "1x4x8x8:1x4x8x8:1x4x8x8", "1x3x8xa:1x3x8x8:1x3x8x8", "-1x3x8x8:1x3x8x8:1x3x8x8"],
)  # fmt: skip
def test_shapes_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="--shapes"):
        parse_shapes(text)


@given(st.integers(1, 2**50))
def test_amounts_of_memory_are_read_as_they_are_shown(number: int) -> None:
    assert parse_bytes(show_bytes(number), "--workspace") == number


@pytest.mark.parametrize(
    ("text", "number"), [("4G", 4 << 30), ("512m", 512 << 20), ("1 GiB", 1 << 30), ("65536", 65536)]
)
def test_amounts_of_memory(text: str, number: int) -> None:
    assert parse_bytes(text, "--workspace") == number


@pytest.mark.parametrize("text", ["", "0", "-1G", "4T", "1.5G", "lots", "9" * 30, "٤G"])
def test_amounts_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="--workspace"):
        parse_bytes(text, "--workspace")


def test_hardware_levels() -> None:
    assert parse_hardware("Ampere+") == "ampere+"
    assert parse_hardware("same-compute-capability") == "same-compute-capability"
    with pytest.raises(UsageError, match=r"expected ampere\+ or same-compute-capability"):
        parse_hardware("turing")
