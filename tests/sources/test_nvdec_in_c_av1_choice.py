"""AV1 that NVDEC does not take, or not all of: libdav1d decodes it, nothing is lost and nothing stays behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nvdec_in_c_runs
import pytest
from nvdec_in_c_av1 import make, rewrite
from nvdec_in_c_runs import LET_GO, Run

# Fixtures are found by being here.
libraries, run = nvdec_in_c_runs.libraries, nvdec_in_c_runs.run

UNFIT: dict[str, tuple[str, dict[str, Any], str, int]] = {
    "a GPU without AV1": ("does not take it (yuv420p, 160x144)", {}, "av1", 0),
    "too small": ("does not take it (yuv420p, 96x64)", {"size": (96, 64)}, "", 0),
    "odd size": ("come with a rim (162x132), of which 161x131", {"size": (161, 131)}, "", 0),
    "turned": ("pictures are turned (here by 90 degrees)", {}, "", 90),
    "smaller frames": (
        "come with a rim (320x288), of which",
        {"size": (320, 288), "options": {"svtav1-params": "resize-mode=2:pred-struct=1"}},
        "",
        0,
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_nvdec_does_not_take_is_decoded_on_the_cpu(run: Run, tmp_path: Path, name: str) -> None:
    """No frame is lost, it is said once; an error where NVDEC was asked for by name."""
    words, how, refuses, turn = UNFIT[name]
    path = make(tmp_path / "a.mp4", **how)
    if turn:
        path = rewrite(path, tmp_path / "turned.mp4", turn=turn)
    program = """
import numpy as np
plain, _ = read_all(loops=2)
gpu = open_driver("cuda-python")
frames, info = read_all(gpu=gpu, loops=2)
assert times(frames) == times(plain) and len(frames) == 40 and info.description.endswith("(libdav1d)")
for mine, other in zip(frames, plain, strict=True):
    assert mine.device is None and mine.format == other.format
    assert all(np.array_equal(a, b) for a, b in zip(mine.planes, other.planes, strict=True))
(line,) = said
assert line.startswith(f"{path}: decoded on the CPU, because NVDEC cannot: ") and sys.argv[2] in line, line
for more in ({"gpu": gpu}, {}):
    source = make_source(path, SourceOptions(decode="nvdec", **more), said.append)
    try:
        source.open()
        raise AssertionError("opened")
    except SourceError as error:
        assert "NVDEC cannot decode it" in error.message and sys.argv[2] in error.message, error
        assert error.hint == "Let the CPU decode: --decode cpu."
assert current_context() is None and len(said) == 1
gpu.close()
assert gpu.released
"""
    run(program, path, words, NVDEC_REFUSES=refuses)


LATER: dict[str, tuple[str, dict[str, Any] | None]] = {
    "another size": ("", {"size": (192, 160)}),
    "ten bits": ("", {"pix_fmt": "yuv420p10le"}),
    "too small": ("this GPU does not take it (yuv420p, 96x64)", {"size": (96, 64)}),
    "smaller frames": ("come with a rim (320x288), of which 213x192", None),
}


@pytest.mark.parametrize("name", LATER)
def test_what_changes_within_a_file(run: Run, tmp_path: Path, name: str) -> None:
    """Each sequence has a decoder of its own; where NVDEC cannot go on, the CPU does, with what was not given yet."""
    words, how = LATER[name]
    if how is None:
        path = make(tmp_path / "a.mkv", size=(320, 288), options={"svtav1-params": "resize-mode=1:resize-denom=12"})
    else:
        first, second = make(tmp_path / "1.mkv", 8), make(tmp_path / "2.mkv", 6, **how)
        path = rewrite(first, tmp_path / "a.mkv", more=(second, first))
    program = """
import numpy as np
plain, _ = read_all()
gpu = open_driver("cuda-python")
frames, _ = read_all(gpu=gpu)
assert times(frames) == times(plain) and len(frames) in (20, 22)
words, count = sys.argv[2], 0
for frame, other, seed in zip(frames, plain, seeds(path), strict=True):
    if frame.device is None:
        count += 1
        assert words and all(np.array_equal(a, b) for a, b in zip(frame.planes, other.planes, strict=True))
    else:
        assert not count
        check(gpu, frame, seed, 10 if frame.device.format == "p010" else 8)
assert count == (0 if not words else 14 if len(frames) == 22 else 19), count
if words:
    (line,) = said
    assert line.startswith(f"{path}: decoded on the CPU, because NVDEC cannot: ") and words in line, line
else:
    assert not said and len({(f.device.format, f.width) for f in frames}) == 2
if words:
    source, _ = open_(gpu=gpu, decode="nvdec")
    del frame, frames
    try:
        while source.read() is not None:
            pass
        raise AssertionError("read")
    except SourceError as error:
        assert "NVDEC cannot decode it" in error.message and words in error.message, error
    source.close()
frame = frames = None
gpu.close()
assert gpu.released
"""
    lines = run(program, path, words)
    creations = [line for line in lines if line.startswith("NVDEC create")]
    assert len(creations) == (2 if words else 3)


# --- lifetimes


ORDERS = {
    "source, frames, driver": "source.close(); held.clear(); gc.collect(); gpu.close(); assert gpu.released",
    "source, driver, frames": "source.close(); gpu.close(); check_host(*held[1]); held.clear(); assert gpu.released",
    "driver, frames, source": "gpu.close(); held.clear(); assert not gpu.released; source.close(); assert gpu.released",
    "driver, source, frames": "gpu.close(); source.close(); assert not gpu.released; held.clear(); assert gpu.released",
    "all read, then driver": "\nwhile source.read() is not None: pass\ngpu.close(); held.clear(); source.close()",
}


@pytest.mark.parametrize("order", ORDERS)
def test_things_are_closed_in_any_order(run: Run, tmp_path: Path, order: str) -> None:
    path = make(tmp_path / "a.mp4")
    program = f"""
expected = seeds(path)
gpu = open_driver("cuda-python")
source, _ = open_(gpu=gpu)
held = [(source.read(), seed) for seed in expected[:3]]
for frame, seed in held:
    check(gpu, frame, seed)
del frame
{ORDERS[order]}
assert gpu.released and current_context() is None and not said
"""
    run(program, path)


@pytest.mark.parametrize("decode", ["auto", "nvdec"])
@pytest.mark.parametrize("later", [False, True])
def test_the_gpu_is_let_go_of_where_the_cpu_takes_over(run: Run, tmp_path: Path, decode: str, later: bool) -> None:
    """At the first picture (a rim), and in the middle; also where the error is kept."""
    params = "resize-mode=1:resize-denom=12"
    path = make(tmp_path / "a.mkv", size=(320, 288) if later else (161, 131), options={"svtav1-params": params})
    program = """
gpu = open_driver("cuda-python")
kept, decode = [], sys.argv[2]
try:
    source, _ = open_(gpu=gpu, decode=decode)
    for _ in range(4):
        kept.append(source.read().to_host())
except SourceError as error:
    kept.append(error)
    if kept[1:]:
        source.close()
"""
    run(program + LET_GO, path, decode)


def test_the_driver_may_go_before_the_cpu_takes_over(run: Run, tmp_path: Path) -> None:
    """Nothing of a picture is left in the reader when it leaves the context."""
    path = make(tmp_path / "a.mkv", size=(320, 288), options={"svtav1-params": "resize-mode=1:resize-denom=12"})
    program = """
gpu = open_driver("cuda-python")
source, _ = open_(gpu=gpu)
gpu.close()
assert not gpu.released
count = 0
while source.read() is not None:
    count += 1
assert count == 20 and len(said) == 1 and gpu.released
source.close()
"""
    run(program, path)
