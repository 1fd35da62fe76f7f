"""The real FFmpeg decoding "on a GPU": PyAV's own NVDEC path over a driver and an NVDEC in C.

What the stand-ins cannot show: that FFmpeg takes our context, which pictures it makes of what NVDEC gives it, and when
it gives memory back. Pictures are compared sample by sample with what NVDEC in C must show for their packets.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import nvdec_in_c_runs
import pytest
from nvdec_in_c_runs import Run, reading, selecting, write

# Fixtures are found by being here.
libraries, run = nvdec_in_c_runs.libraries, nvdec_in_c_runs.run

CLIPS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "h264": ("a.mp4", 8, {"codec": "libx264", "size": (64, 48)}),
    "reordered": (
        "a.mp4",
        8,
        {"codec": "libx264", "size": (98, 52), "options": {"x264-params": "bframes=3:b-adapt=0"}},
    ),
    "slices": ("a.mp4", 8, {"codec": "libx264", "size": (64, 48), "options": {"slices": "3"}}),
    "interlaced": ("a.mkv", 8, {"codec": "libx264", "size": (64, 64), "options": {"x264-params": "tff=1"}}),
    "stream": ("a.ts", 8, {"codec": "libx264", "size": (64, 48), "options": {"g": "5"}}),
    "hevc": ("a.mp4", 8, {"codec": "libx265", "size": (160, 146), "options": {"preset": "medium"}}),
    "hevc 10 bits": ("a.mp4", 10, {"codec": "libx265", "size": (146, 144), "pix_fmt": "yuv420p10le"}),
    "hevc 12 bits": ("a.mp4", 12, {"codec": "libx265", "size": (160, 144), "pix_fmt": "yuv420p12le"}),
    "vp9": ("a.webm", 8, {"codec": "libvpx-vp9", "size": (160, 130)}),
}


@pytest.mark.parametrize("name", CLIPS)
def test_every_picture_is_that_of_its_packet(run: Run, tmp_path: Path, name: str) -> None:
    """All frames in order, with the CPU's times, and their samples still there when all have been decoded."""
    file, bits, how = CLIPS[name]
    how = dict(how)
    path = write(tmp_path / file, how.pop("codec"), how.pop("size"), frames=20, **how)
    lines = run(reading(bits), path)
    decoded, shown = ([line for line in lines if line.startswith(f"NVDEC {what}")] for what in ("decode", "map"))
    assert len(decoded) == len(shown) == 20 and all("on the default stream" in line for line in shown)
    assert all(("decode 3 slices" in line) == (name == "slices") for line in decoded)
    if name == "reordered":
        assert [line.split()[-1] for line in decoded] != [line.split()[-1] for line in shown]


def test_memory_is_used_again_and_never_that_of_held_pictures(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", "libx264", (64, 48), frames=40)
    program = """
gpu = open_driver("cuda-python")
expected = seeds(path)
source, _ = open_(gpu=gpu)
held = {}
used = set()
for number, seed in enumerate(expected):
    frame = source.read()
    check(gpu, frame, seed)
    used.add(frame.device.addresses)
    if number % 10 == 3:
        held[number] = frame
assert source.read() is None
source.close()
for number, frame in held.items():
    check(gpu, frame, expected[number])
assert len(used) < 12, len(used)
del frame, held
gpu.close()
assert gpu.released
"""
    run(program, path)


def test_the_context_is_left_as_it_was(run: Run, tmp_path: Path) -> None:
    """In the thread that reads, in and outside of ``current()``, and in the one that drops the last picture."""
    path = write(tmp_path / "a.mp4", "libx264", (64, 48))
    program = """
gpu = open_driver("cuda-python")
frames = []
faults = []
def balanced(step):
    before = current_context()
    value = step()
    if current_context() != before:
        faults.append((step, before, current_context()))
    return value
def read():
    source = make_source(path, SourceOptions(gpu=gpu), said.append)
    balanced(source.open)
    while (frame := balanced(source.read)) is not None:
        frames.append(frame)
    balanced(source.close)
def read_inside():
    with gpu.current():
        assert current_context()
        read()
def drop():
    half = frames[: len(frames) // 2]
    del frames[: len(half)]
    balanced(half.clear)
for work in (read, read_inside, drop, drop, drop, drop, drop):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
assert not faults and not said and len(frames) == 1, (faults, said, len(frames))
gpu.close()
assert not gpu.released
thread = threading.Thread(target=lambda: balanced(frames.clear))
thread.start()
thread.join()
assert gpu.released and not faults and current_context() is None
"""
    run(program, path)


def test_two_streams_at_once_and_a_third_thread_that_lets_go(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", "libx264", (64, 48), frames=60)
    program = """
import queue
gpu = open_driver("cuda-python")
expected, done, faults = seeds(path), queue.Queue(6), []
def read():
    try:
        source = make_source(path, SourceOptions(gpu=gpu, loops=3), said.append)
        source.open()
        while (frame := source.read()) is not None:
            done.put(frame)
            del frame
        source.close()
    except BaseException as error:
        faults.append(error)
    done.put(None)
readers = [threading.Thread(target=read) for _ in range(2)]
for reader in readers:
    reader.start()
ended = count = 0
while ended < 2:
    frame = done.get()
    ended += frame is None
    if frame is not None:
        check(gpu, frame, expected[frame.index % 60])
        count += 1
    del frame
for reader in readers:
    reader.join()
assert count == 360 and not faults and not said, (count, faults, said)
gpu.close()
assert gpu.released
"""
    run(program, path)


ORDERS = {
    "source, frames, driver": "source.close(); drop(); gpu.close(); assert gpu.released",
    "source, driver, frames": "source.close(); gpu.close(); check(gpu, *held[1]); drop(); assert gpu.released",
    "frames, source, driver": "drop(); source.close(); gpu.close(); assert gpu.released",
    "frames, driver, source": "drop(); gpu.close(); assert not gpu.released; source.close(); assert gpu.released",
    "driver, frames, source": "gpu.close(); drop(); assert not gpu.released; source.close(); assert gpu.released",
    "driver, the rest, source, frames": "gpu.close(); rest(); source.close(); assert not gpu.released; drop(); "
    "assert gpu.released",
    "source twice, driver twice": "source.close(); source.close(); gpu.close(); gpu.close(); drop()",
    "copied, then all": "source.close(); gpu.close(); check_host(*held[0]); drop(); assert gpu.released",
}


@pytest.mark.parametrize("order", ORDERS)
def test_things_are_closed_in_any_order(run: Run, tmp_path: Path, order: str) -> None:
    path = write(tmp_path / "a.mp4", "libx264", (64, 48))
    program = f"""
expected = seeds(path)
gpu = open_driver("cuda-python")
source, _ = open_(gpu=gpu)
held = [(source.read(), seed) for seed in expected[:3]]
def drop():
    held.clear()
    gc.collect()
def rest():
    count = 0
    while source.read() is not None:
        count += 1
    assert count == 9, count
real_check = check
def check(gpu, frame, seed):
    check_host(frame, seed)
{ORDERS[order]}
assert current_context() is None
"""
    run(program, path)


def test_an_error_that_is_kept_keeps_no_picture(run: Run, tmp_path: Path) -> None:
    """It refers to the functions that it came through; the context goes before it."""
    whole = write(tmp_path / "whole.mp4", "libx264", (64, 48))
    path = tmp_path / "cut.mp4"
    with av.open(str(whole)) as source, av.open(str(path), "w", options={"movflags": "faststart"}) as target:
        stream = source.streams.video[0]
        out = target.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.size:
                packet.stream = out
                target.mux(packet)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    program = """
gpu = open_driver("cuda-python")
source, _ = open_(gpu=gpu)
try:
    while source.read() is not None:
        pass
    raise AssertionError("whole")
except SourceError as error:
    kept = error
source.close()
gpu.close()
assert gpu.released and "incomplete" in str(kept)
"""
    run(program, path)


def test_a_process_may_end_with_pictures_and_everything_open(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", "libx264", (64, 48))
    program = """
gpu = open_driver("cuda-python")
source, _ = open_(gpu=gpu)
held = [source.read() for _ in range(3)]
"""
    assert run(program, path, all_gone=False)[-1].endswith("primary retained 1")


# --- seeking, selecting, changing


@pytest.mark.parametrize(
    "options", [{"start_s": 0.5}, {"loops": 3}, {"start_s": 0.3, "every": 3, "loops": 2}, {"frames": 5, "loops": 0}]
)
def test_selection_is_that_of_the_cpu(run: Run, tmp_path: Path, options: dict[str, Any]) -> None:
    path = write(tmp_path / "a.mp4", "libx264", (64, 48), frames=25, options={"preset": "medium", "g": "7"})
    run(selecting(options), path)


def test_sizes_change_and_what_nvdec_does_not_take_is_decoded_on_the_cpu(run: Run, tmp_path: Path) -> None:
    """64x48, then 96x64, then 32x32, which is too small for NVDEC, and 64x48 again."""
    pieces = []
    for size in ((64, 48), (96, 64), (32, 32)):
        pieces.append(write(tmp_path / f"{size[0]}.ts", "libx264", size, frames=4).read_bytes())
    path = tmp_path / "all.ts"
    path.write_bytes(b"".join([*pieces, pieces[0]]))
    program = """
import numpy as np
plain, _ = read_all()
gpu = open_driver("cuda-python")
frames, _ = read_all(gpu=gpu)
assert times(frames) == times(plain) and len(frames) == 16
for frame, other, seed in zip(frames, plain, seeds(path), strict=True):
    if frame.width == 32:
        assert frame.device is None and np.array_equal(frame.planes[0], other.planes[0])
    else:
        check(gpu, frame, seed)
assert said == [f"{path}: some pictures are decoded on the CPU, the first of 32x32"], said
del frame
frames.clear()
gpu.close()
"""
    assert sum(line.startswith("NVDEC create") for line in run(program, path)) == 3


def test_a_picture_that_nvdec_fails_at_is_counted_and_the_others_arrive(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", "libx264", (64, 48))
    program = """
gpu = open_driver("cuda-python")
frames, _ = read_all(gpu=gpu)
expected = seeds(path)
assert [frame.pts // 512 for frame in frames] == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11], times(frames)
for frame in frames:
    check(gpu, frame, expected[frame.pts // 512])
assert said == [f"{path}: 1 damaged packet was left out, the first near 0.20 s"], said
del frame
frames.clear()
gpu.close()
"""
    lines = run(program, path, refused=True, NVDEC_FAILS_AT="5")
    assert [line for line in lines if "REFUSED" in line] == ["NVDEC REFUSED (1) decode, as asked, picture 5"]
