"""The real FFmpeg encoding "on a GPU" from where pictures lie in the GPU's memory, over a driver and an NVENC in C.

What the stand-ins cannot show: that FFmpeg takes our context, what it makes of a picture in the GPU's memory, when
NVENC reads it and when it is given back. NVENC in C reads as late as it may and loses nothing: what is decoded from the
file is what lay in memory then.
"""

from __future__ import annotations

import re
from pathlib import Path

import nvenc_in_c_runs
import pytest
from nvenc_in_c_runs import Run, after

from segcam.sinks import device_pictures

# Fixtures are found by being here.
libraries, run = nvenc_in_c_runs.libraries, nvenc_in_c_runs.run

pytestmark = pytest.mark.skipif(bool(device_pictures.why_not()), reason=device_pictures.why_not() or "-")


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_pictures_are_read_where_they_lie(run: Run, tmp_path: Path, suffix: str) -> None:
    program = """
driver = open_driver("cuda-python")
made, to = OnGpu(driver), sink(path, said, gpu=driver)
assert to.takes_device_overlays
for number in range(60):
    write(to, made.frame(number))
    assert made.came_back == list(range(number))
to.close()
assert made.came_back == list(range(60))
assert not said and "H.264 NVENC p1 quality 23 from the GPU's memory" in to.description, (said, to.description)
check(path, list(range(60)))
made.pool.close()
driver.close()
assert driver.released and not device_pictures._lent
"""
    lines = run(program, tmp_path / f"a.{suffix}")
    # One encoder tried without a picture, one tried with the first, and that of the file.
    assert [line for line in lines if line.startswith("nvenc session")] == [
        "nvenc session on context 1", "nvenc session on primary", "nvenc session on primary"
    ]  # fmt: skip
    at = {number: address for number, address in re.findall(r"frame (\d+) at (\w+)", "\n".join(lines))}
    mine = after(lines, "nvenc session")
    read = re.findall(r"nvenc encode (\d+) at (\d+) from device memory (\w+)", "\n".join(mine))
    assert read == [(str(number), str(number), at[str(number)]) for number in range(60)]
    assert sum(line.startswith("nvenc register") for line in mine) == len(set(at.values())) == 2


def test_no_picture_comes_back_before_it_was_read(run: Run, tmp_path: Path) -> None:
    program = """
driver = open_driver("cuda-python")
keep_back(3)
made, to = OnGpu(driver), sink(path, said, gpu=driver)
for number in range(20):
    write(to, made.frame(number))
assert made.came_back == list(range(18)), made.came_back
to.close()
assert made.came_back == list(range(20))
check(path, list(range(20)))
made.pool.close()
driver.close()
"""
    lines = after(run(program, tmp_path / "a.mp4"), "nvenc session")
    order = [line for line in lines if re.fullmatch(r"nvenc fetch \d+|frame \d+ is back", line)]
    assert order == [line for number in range(20) for line in (f"nvenc fetch {number}", f"frame {number} is back")]
    assert sum(line.startswith("nvenc register") for line in lines) == 3


def test_a_picture_that_is_written_to_too_early_is_noticed(run: Run, tmp_path: Path) -> None:
    """Of the libraries in C: they would not keep quiet about it."""
    program = """
driver = open_driver("cuda-python")
keep_back(3)
made, to = OnGpu(driver), sink(path, said, gpu=driver)
for number in range(2):
    frame = made.frame(number)
    write(to, frame)
with driver.current():
    driver.fill(frame.device.addresses[0], 7, 1, driver.stream())
to.close()
del frame
try:
    check(path, [0, 1])
except AssertionError as error:
    note(f"wrong: {error}")
made.pool.close()
driver.close()
"""
    with pytest.raises(AssertionError, match="CHANGED"):
        run(program, tmp_path / "a.mp4")
    lines = (tmp_path / "log").read_text().splitlines()
    assert sum("CHANGED" in line for line in lines) == 1 and "wrong: 1" in lines


def test_pictures_of_the_host_between_go_up(run: Run, tmp_path: Path) -> None:
    program = """
driver = open_driver("cuda-python")
made, to = OnGpu(driver), sink(path, said, gpu=driver)
other = OnGpu(driver, (200, 100), 256)
for number in range(12):
    write(to, (made.frame, host_frame, other.frame)[number % 3](number))
to.close()
assert len(said) == 1 and "scaled to the first frame's 150x54" in said[0], said
found = decoded(path)
assert list(found) == list(range(12)) and {y.shape for y, _, _ in found.values()} == {(54, 150)}
for number in range(12):
    if number % 3 < 2:
        for mine, wanted in zip(found[number], planes(number), strict=True):
            assert (mine == wanted).all(), number
assert made.came_back == [0, 3, 6, 9] and other.came_back == [2, 5, 8, 11]
made.pool.close()
other.pool.close()
driver.close()
"""
    lines = run(program, tmp_path / "a.mp4")
    assert not [line for line in after(lines, "nvenc session") if " from its own " in line]


def test_what_begins_on_the_host_stays_there(run: Run, tmp_path: Path) -> None:
    program = """
driver = open_driver("cuda-python")
made, to = OnGpu(driver), sink(path, said, gpu=driver)
for number in range(6):
    write(to, made.frame(number) if number % 2 else host_frame(number))
to.close()
assert not said and "from the GPU" not in to.description
check(path, list(range(6)))
assert made.came_back == [1, 3, 5]
made.pool.close()
driver.close()
"""
    assert not [line for line in run(program, tmp_path / "a.mp4") if "device memory" in line]


@pytest.mark.parametrize("kind", ["all", "chroma", "pitch 148", "pitch 194"])
def test_what_nvenc_does_not_take_from_the_gpu_comes_down(run: Run, tmp_path: Path, kind: str) -> None:
    """Nothing at all, chroma elsewhere, rows that overlap, rows at a distance that isn't divisible by four."""
    program = """
driver = open_driver("cuda-python")
made, to = OnGpu(driver), sink(path, said, gpu=driver)
kind, _, pitch = sys.argv[2].partition(" ")
for number in range(3):
    frame = made.frame(number)
    luma, chroma = frame.device.addresses
    if kind == "chroma":
        frame = dataclasses.replace(frame, device=dataclasses.replace(frame.device, addresses=(luma, chroma + 8)))
    elif kind == "pitch":
        addresses, pitches = (luma, luma + int(pitch) * frame.height), (int(pitch),) * 2
        frame = dataclasses.replace(
            frame, device=dataclasses.replace(frame.device, addresses=addresses, pitches=pitches)
        )
    write(to, frame)
del frame
to.close()
assert len(said) == 1 and "come down from the GPU and go up again to NVENC: it does not take them from there" in said[0]
check(path, [0, 1, 2])
assert made.came_back == [0, 1, 2]
made.pool.close()
driver.close()
"""
    refused = "" if kind == "chroma" else kind.replace("all", "kind of memory")
    lines = run(program, tmp_path / "a.mp4", kind, refused=bool(refused), NVENC_IN_C="host" if kind == "all" else "")
    assert sum(f"REFUSED: {refused}" in line for line in lines) == bool(refused)
    assert sum(" from its own " in line for line in after(lines, "nvenc session")) == 3


def test_any_thread_may_write_and_close(run: Run, tmp_path: Path) -> None:
    program = """
def elsewhere(work, *arguments):
    thread = threading.Thread(target=work, args=arguments)
    thread.start()
    thread.join()

driver = open_driver("cuda-python")
keep_back(3)
made, to = OnGpu(driver), sink(path, said, gpu=driver)
for number in range(6):
    elsewhere(write, to, made.frame(number))
elsewhere(to.close)
check(path, list(range(6)))
elsewhere(made.pool.close)
driver.close()
assert driver.released and made.came_back == list(range(6))
"""
    run(program, tmp_path / "a.mp4")


def test_the_context_outlives_the_encoder(run: Run, tmp_path: Path) -> None:
    program = """
driver = open_driver("cuda-python")
keep_back(0)
made, to = OnGpu(driver), sink(path, said, gpu=driver)
for number in range(3):
    write(to, made.frame(number))
driver.close()
assert not driver.released
to.close()
assert driver.released
check(path, [0, 1, 2])
"""
    # The driver frees what is open when it is closed, surfaces too: that order is the caller's fault.
    with pytest.raises(AssertionError, match="FREED"):
        run(program, tmp_path / "a.mp4")
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line.split(":")[0] for line in lines if re.match("nvenc closed|release|unloaded", line)][-3:] == [
        "nvenc closed", "release", "unloaded"
    ]  # fmt: skip


def test_an_encoder_that_breaks_down_gives_everything_back(run: Run, tmp_path: Path) -> None:
    program = """
driver = open_driver("cuda-python")
made, to = OnGpu(driver), sink(path, said, gpu=driver)
for number in range(30):
    write(to, made.frame(number))
frame = made.frame(30)
nowhere = tuple(address + (1 << 40) for address in frame.device.addresses)
kept = []
for _ in range(2):
    try:
        write(to, dataclasses.replace(frame, device=dataclasses.replace(frame.device, addresses=nowhere)))
    except SinkError as error:
        kept.append(error)
    else:
        raise AssertionError
del frame
try:
    to.close()
except SinkError as error:
    kept.append(error)
assert all("What was written before can be played" in error.hint for error in kept[:2]), kept
# The one that was inside is lost with the encoder.
check(path, list(range(29)))
kept.clear()
gc.collect()
assert made.came_back == list(range(31)) and not device_pictures._lent
made.pool.close()
driver.close()
assert driver.released
"""
    run(program, tmp_path / "a.mp4", refused=True)


def test_an_error_that_is_kept_keeps_nothing_on_the_gpu(run: Run, tmp_path: Path) -> None:
    """FFmpeg's own memory, into which pictures of the host went up, must go before the context."""
    program = """
driver = open_driver("cuda-python")
made, to = OnGpu(driver), sink(path, said, gpu=driver)
for number in range(4):
    write(to, host_frame(number) if number % 2 else made.frame(number))
frame = made.frame(4)
nowhere = tuple(address + (1 << 40) for address in frame.device.addresses)
kept = []
for act in (lambda frame: write(to, frame), lambda frame: to.close()):
    try:
        act(dataclasses.replace(frame, device=dataclasses.replace(frame.device, addresses=nowhere)))
    except SinkError as error:
        kept.append(error)
assert len(kept) == 2
del frame
made.pool.close()
driver.close()
assert driver.released
"""
    run(program, tmp_path / "a.mp4", refused=True)


@pytest.mark.parametrize("way", ["end", "error"])
def test_the_interpreter_may_end_with_pictures_in_the_encoder(run: Run, tmp_path: Path, way: str) -> None:
    """FFmpeg gives them back when Python is being taken down."""
    program = """
driver = open_driver("cuda-python")
keep_back(3)
made, to = OnGpu(driver), sink(path, said, gpu=driver)
for number in range(6):
    write(to, made.frame(number))
if sys.argv[2] == "error":
    raise SystemExit(3)
"""
    lines = run(program, tmp_path / "a.mp4", way, all_gone=False, code=0 if way == "end" else 3)
    assert "nvenc closed: 6 pictures, 4 packets" in lines[-2]
