"""Timings kept between builds: by version and GPU, merged, whole, and never worth a failed build."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typed_networks
from plan_builds import Build, Recording, calls
from standin_trt.config import TIMING_MAGIC

from segcam.engines.timing_cache import cache_file
from segcam.kernels.cuda.driver import DeviceInfo

DEVICE = DeviceInfo(0, "NVIDIA GeForce RTX 3060", (8, 6), 12 << 30, (13, 0))


def entries(path: Path) -> set[str]:
    """The layers that a cache of the stand-in knows."""
    return set(json.loads(path.read_bytes()[len(TIMING_MAGIC) :])["entries"])


def built(build: Build, path: Path, **changes: Any) -> str:
    """Builds, and gives what was said at the end of it."""
    progress = Recording()
    assert build(typed_networks.scores(), progress=progress, timing_cache=path, **changes).data
    return progress.stages[-1][1]


def test_a_folder_has_a_file_for_each_version_and_gpu(tensorrt_face: Any, tmp_path: Path) -> None:
    version = ".".join(map(str, tensorrt_face.version))
    found = cache_file(tmp_path, tensorrt_face.trt, DEVICE)
    assert found == tmp_path / f"timing-tensorrt-{version}-nvidia-geforce-rtx-3060-sm86.cache"
    assert cache_file(tmp_path / "new", tensorrt_face.trt, DEVICE).parent == tmp_path / "new"
    assert cache_file(tmp_path / "mine.cache", tensorrt_face.trt, DEVICE) == tmp_path / "mine.cache"
    (tmp_path / "v1.0").mkdir()
    assert cache_file(tmp_path / "v1.0", tensorrt_face.trt, DEVICE).parent == tmp_path / "v1.0"


def test_a_cache_is_written_and_used(tensorrt_face: Any, build: Build, tmp_path: Path) -> None:
    said = built(build, tmp_path / "new" / "timings")
    (path,) = (tmp_path / "new" / "timings").iterdir()
    assert entries(path) == {"enter", "conv", "relu", "leave"}
    assert "timing cache" not in said
    kept = path.read_bytes()
    assert "timing cache" not in built(build, tmp_path / "new" / "timings")
    assert path.read_bytes() == kept
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_without_one_nothing_is_written(tensorrt_face: Any, build: Build, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    build(typed_networks.scores())
    assert calls(tensorrt_face, "IBuilderConfig.create_timing_cache") == 0
    assert set(tmp_path.rglob("*")) == before


def other_cache(**header: Any) -> bytes:
    return TIMING_MAGIC + json.dumps({"header": header, "entries": ["theirs"]}).encode()


OTHERS = other_cache(tensorrt=[9, 9], sm=[8, 6], gpu="Other")


@pytest.mark.parametrize("found", [b"no cache at all", OTHERS, b"\x00"], ids=["text", "other", "zero"])
def test_a_cache_that_does_not_fit_is_said_and_replaced(
    tensorrt_face: Any, build: Build, tmp_path: Path, found: bytes
) -> None:
    path = tmp_path / "mine.cache"
    path.write_bytes(found)
    assert f"the timing cache {path} is of another TensorRT or GPU, or damaged: it is replaced" in built(build, path)
    assert entries(path) == {"enter", "conv", "relu", "leave"}


def test_what_another_build_wrote_meanwhile_is_kept(tensorrt_face: Any, build: Build, tmp_path: Path) -> None:
    path = tmp_path / "mine.cache"
    built(build, path)
    document = json.loads(path.read_bytes()[len(TIMING_MAGIC) :])
    theirs = TIMING_MAGIC + json.dumps({**document, "entries": ["theirs"]}).encode()
    path.unlink()
    tensorrt_face.control.on_step = lambda phase, step: path.write_bytes(theirs)
    built(build, path)
    assert entries(path) == {"enter", "conv", "relu", "leave", "theirs"}


def test_what_another_gpu_wrote_meanwhile_is_replaced(tensorrt_face: Any, build: Build, tmp_path: Path) -> None:
    path = tmp_path / "mine.cache"
    tensorrt_face.control.on_step = lambda phase, step: path.write_bytes(OTHERS)
    assert f"wrote to {path} meanwhile is replaced" in built(build, path)
    assert entries(path) == {"enter", "conv", "relu", "leave"}


def test_a_cache_that_cannot_be_written_or_read_stops_no_build(
    tensorrt_face: Any, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert "cannot be written" in built(build, blocked / "timings")
    path = tmp_path / "mine.cache"
    path.mkdir()
    monkeypatch.setattr("segcam.engines.tensorrt_build.cache_file", lambda named, trt, device: path)
    said = built(build, path)
    assert "cannot be read" in said and "cannot be written" in said
    assert list(path.iterdir()) == []


def test_tensorrt_that_takes_or_gives_no_cache_stops_no_build(tensorrt_face: Any, build: Build, tmp_path: Path) -> None:
    control, path = tensorrt_face.control, tmp_path / "mine.cache"
    control.fail("IBuilderConfig.set_timing_cache", False, times=-1)
    assert "takes no timing cache" in built(build, path)
    control._faults.clear()
    control.fail("ITimingCache.serialize", None)
    path.unlink(missing_ok=True)
    assert "no form to keep" in built(build, path)
    assert not path.exists()
    control.fail("IBuilderConfig.get_timing_cache", None)
    built(build, path)
    assert not path.exists()
