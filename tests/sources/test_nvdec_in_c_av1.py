"""AV1 on NVDEC: FFmpeg's own decoder in the stead of libdav1d, over a driver and an NVDEC in C.

Its packets hide frames, which later packets show; pictures are compared with the tiles that they are made from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nvdec_in_c_runs
import pytest
from nvdec_in_c_av1 import make, packets, rewrite
from nvdec_in_c_runs import Run, reading, selecting

# Fixtures are found by being here.
libraries, run = nvdec_in_c_runs.libraries, nvdec_in_c_runs.run

CLIPS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "hidden frames": ("a.mp4", 8, {}),
    "none hidden": ("a.mkv", 8, {"options": {"svtav1-params": "pred-struct=1"}}),
    "10 bits": ("a.webm", 10, {"pix_fmt": "yuv420p10le"}),
    "key frames": ("a.mp4", 8, {"options": {"g": "4"}}),
    "tiles": ("a.mkv", 8, {"size": (384, 256), "options": {"svtav1-params": "tile-columns=1:tile-rows=1"}}),
    "film grain": ("a.mkv", 8, {"options": {"svtav1-params": "film-grain=20"}}),
    "no header beside the packets": ("a.obu", 8, {"options": {"g": "8"}}),
}


@pytest.mark.parametrize("name", CLIPS)
def test_every_picture_is_that_of_its_tiles(run: Run, tmp_path: Path, name: str) -> None:
    """All frames in order, with the CPU's times, and their samples still there when all have been decoded."""
    file, bits, how = CLIPS[name]
    path = make(tmp_path / file, **how)
    lines = run(reading(bits, "(av1", loops=2), path)
    decoded, shown = ([line for line in lines if line.startswith(f"NVDEC {what}")] for what in ("decode", "map"))
    assert len(decoded) == len(shown) == 40 and all("on the default stream" in line for line in shown)
    order = [[line.split()[-1] for line in some] for some in (decoded, shown)]
    assert sorted(order[0]) == sorted(order[1]) and (order[0] == order[1]) == (name == "none hidden")
    assert all(("decode 4 slices" in line) == (name == "tiles") for line in decoded)
    assert sum(line.startswith("NVDEC create") for line in lines) == 2


@pytest.mark.parametrize(
    "options", [{"start_s": 0.5}, {"start_s": 0.3, "every": 3, "loops": 2}, {"frames": 5, "loops": 0}, {"threads": 3}]
)
def test_selection_is_that_of_the_cpu(run: Run, tmp_path: Path, options: dict[str, Any]) -> None:
    path = make(tmp_path / "a.mp4", 25, options={"g": "7"})
    run(selecting(options), path)


def test_a_packet_for_each_frame(run: Run, tmp_path: Path) -> None:
    """Some packets then show nothing."""
    whole = make(tmp_path / "whole.mkv")
    path = rewrite(whole, tmp_path / "a.mkv", "av1_frame_split")
    assert sum(1 for _ in packets(path)) > sum(1 for _ in packets(whole)) == 20
    program = """
plain, _ = read_all(loops=2)
warned = said[:]
said.clear()
gpu = open_driver("cuda-python")
frames, _ = read_all(gpu=gpu, loops=2)
assert times(frames) == times(plain) and len(frames) == 40 and said == warned, (said, warned)
for frame, seed in zip(frames, seeds(path) * 2, strict=True):
    check(gpu, frame, seed)
del frame
frames.clear()
gpu.close()
"""
    run(program, path)


def test_a_stream_that_is_joined_between_two_key_frames(run: Run, tmp_path: Path) -> None:
    path = rewrite(make(tmp_path / "whole.mkv", options={"g": "8"}), tmp_path / "a.mkv", skip=3)
    program = """
plain, _ = read_all()
warned = said[:]
said.clear()
gpu = open_driver("cuda-python")
frames, _ = read_all(gpu=gpu)
assert times(frames) == times(plain) and len(frames) == 12
assert said == warned == [f"{path}: 5 damaged packets were left out, the first near 0.00 s"], (said, warned)
assert all(frame.device is not None for frame in frames)
frames.clear()
gpu.close()
"""
    run(program, path)


def test_by_name_without_a_network_on_the_gpu_pictures_come_down(run: Run, tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", pix_fmt="yuv420p10le")
    program = """
frames, info = read_all(decode="nvdec")
assert info.description.endswith("(av1, NVDEC)") and len(frames) == 20 and not said
for frame, seed in zip(frames, seeds(path), strict=True):
    assert frame.device is None
    check_host(frame, seed, 10)
"""
    run(program, path)


@pytest.mark.parametrize("file", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("where", ["container", "stream", "nowhere"])
def test_colors_are_those_of_the_cpu(run: Run, tmp_path: Path, file: str, where: str) -> None:
    """Which the stream's header may leave to the container."""
    params = "matrix-coefficients=1:color-range=1" if where == "stream" else "color-range=0"
    path = make(tmp_path / file, 4, options={"svtav1-params": params})
    if where == "container":
        path = rewrite(path, path.with_stem("told"), colorspace=1, color_primaries=1, color_trc=1)
    program = """
plain, _ = read_all()
gpu = open_driver("cuda-python")
frames, _ = read_all(gpu=gpu)
assert times(frames) == times(plain) and not said and all(frame.device is not None for frame in frames)
colors = {(frame.matrix, frame.full_range) for frame in frames}
assert colors == {(("bt601" if sys.argv[2] == "nowhere" else "bt709"), sys.argv[2] == "stream")}, colors
down = frames[0].to_host()
assert (down.matrix, down.full_range) == (frames[0].matrix, frames[0].full_range)
frames.clear()
gpu.close()
"""
    run(program, path, where)


def test_damaged_packets_are_left_out_as_on_the_cpu(run: Run, tmp_path: Path) -> None:
    path = make(tmp_path / "a.mkv", options={"g": "5", "svtav1-params": "pred-struct=1"})
    data = bytearray(path.read_bytes())
    for number, packet in enumerate(packets(path)):
        if number in (4, 5, 12):
            at = data.index(bytes(packet))
            # An OBU that announces more than there is: no decoder can read on.
            data[at : at + 4] = b"\x32\xff\xff\x7f"
    path.write_bytes(data)
    program = """
plain, _ = read_all()
(line,) = said
assert "3 damaged packets were left out" in line, line
said.clear()
gpu = open_driver("cuda-python")
frames, _ = read_all(gpu=gpu)
assert times(frames) == times(plain), (times(frames), times(plain))
assert said == [f"{path}: 3 damaged packets were left out, the first near 0.16 s"], said
frames.clear()
gpu.close()
"""
    run(program, path)


def test_a_picture_that_nvdec_fails_at_is_counted_and_the_others_arrive(run: Run, tmp_path: Path) -> None:
    path = make(tmp_path / "a.mkv", options={"svtav1-params": "pred-struct=1"})
    program = """
gpu = open_driver("cuda-python")
frames, _ = read_all(gpu=gpu)
expected = seeds(path)
assert [frame.pts // 40 for frame in frames] == [number for number in range(20) if number != 5], times(frames)
for frame in frames:
    check(gpu, frame, expected[frame.pts // 40])
assert said == [f"{path}: 1 damaged packet was left out, the first near 0.20 s"], said
del frame
frames.clear()
gpu.close()
"""
    lines = run(program, path, refused=True, NVDEC_FAILS_AT="5")
    assert [line for line in lines if "REFUSED" in line] == ["NVDEC REFUSED (1) decode, as asked, picture 5"]
