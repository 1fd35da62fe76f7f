from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import segcam

Run = Callable[..., Any]
MakeClip = Callable[..., Path]
ReadVideo = Callable[[Path], Any]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_one_run_fills_every_kind_of_output(
    segcam_here: Run, make_clip: MakeClip, read_video: ReadVideo, tmp_path: Path, model: Path
) -> None:
    clip = make_clip(count=17)
    outputs = ["a.mp4", "b.mkv", "c.jsonl", "d/", "labels:e", "colors:f", "g/%04d.jpg", "null"]
    done = segcam_here("-s", clip, *(word for output in outputs for word in ("-o", output)))
    assert (done.returncode, done.stdout) == (0, "")
    source = read_video(clip)
    mp4, mkv = read_video(tmp_path / "a.mp4"), read_video(tmp_path / "b.mkv")
    assert len(mp4.pictures) == len(mkv.pictures) == len(source.pictures) == 17
    assert mp4.codec == mkv.codec == "h264"
    assert mp4.times_s == source.times_s
    records = lines(tmp_path / "c.jsonl")
    assert [record["index"] for record in records] == list(range(17))
    names = [f"{number:06d}.png" for number in range(17)]
    for folder in ("d", "e", "f"):
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == names
    assert sorted(path.name for path in (tmp_path / "g").iterdir()) == [f"{number:04d}.jpg" for number in range(17)]
    assert "done: 17 frames" in done.stderr
    for description in (
        "a.mp4: 17 frames, 96x64, H.264", "b.mkv: 17 frames", "c.jsonl: 17 lines", "d: 17 overlay images (png)",
        "e: 17 label id images (png)", "f: 17 class colour images (png)", "17 overlay images (jpg)", "null: 17 frames",
    ):  # fmt: skip
        assert description in done.stderr
    with segcam.Segmenter(model, precision="fp32") as segmenter:
        streamed = list(segmenter.stream(clip))
    colors = streamed[0].classes.colors_rgb()
    for number, (record, wanted) in enumerate(zip(records, streamed, strict=True)):
        labels = cv2.imread(str(tmp_path / "e" / names[number]), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(labels, wanted.labels)
        assert set(np.unique(labels)) == {0, 1, 2}
        shares = [float((labels == index).mean()) for index in range(3)]
        assert [record["shares"][name] for name in ("road", "sky", "car")] == pytest.approx(shares, abs=1e-6)
        assert sum(record["shares"].values()) == pytest.approx(1, abs=3e-6)
        painted = cv2.imread(str(tmp_path / "f" / names[number]))[..., ::-1]
        np.testing.assert_array_equal(painted, colors[labels])
        overlay = cv2.imread(str(tmp_path / "d" / names[number]))
        assert wanted.overlay is not None
        np.testing.assert_array_equal(overlay, wanted.overlay.bgr())
        # The encoded pictures are those overlays and no others: nearer to their own than to the neighbours'.
        for video in (mp4, mkv):
            apart = [
                float(np.abs(video.pictures[number].astype(int) - read.astype(int)).mean())
                for read in (overlay[..., ::-1], *(each.overlay.bgr()[..., ::-1] for each in streamed[:3]))
            ]
            assert apart[0] < 6
            assert number < 3 or apart[0] < min(apart[1:])


def test_labels_of_pictures_are_those_of_predict(segcam_here: Run, tmp_path: Path, model: Path) -> None:
    rng = np.random.default_rng(1)
    (tmp_path / "in").mkdir()
    sizes = {"a.png": (64, 128), "b.jpg": (100, 75), "c.png": (37, 91), "d.bmp": (1, 1)}
    for name, (height, width) in sizes.items():
        coarse = rng.integers(0, 255, (-(-height // 9), -(-width // 9), 3), np.uint8)
        cv2.imwrite(str(tmp_path / "in" / name), cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST))
    done = segcam_here("-s", "in", "-o", "labels:out", "-o", "o.jsonl")
    assert done.returncode == 0
    with segcam.Segmenter(model, precision="fp32") as segmenter:
        for name, size in sizes.items():
            labels = cv2.imread(str(tmp_path / "out" / Path(name).with_suffix(".png").name), cv2.IMREAD_UNCHANGED)
            assert labels.shape == size
            np.testing.assert_array_equal(labels, segmenter.predict(tmp_path / "in" / name))
    assert [record["name"] for record in lines(tmp_path / "o.jsonl")] == list(sizes)


VARIABLE = [0, 40, 200, 400, 720, 760, 800, 1120, 1160, 1360]


@pytest.mark.parametrize("output", ["out.mp4", "out.mov", "out.mkv"])
@pytest.mark.parametrize(
    ("clip", "arguments", "kept"),
    [
        ({}, (), slice(None)),
        ({"pts": VARIABLE, "time_base": Fraction(1, 1000), "count": 10}, (), slice(None)),
        ({"pts": range(50, 62)}, (), slice(None)),
        ({"rate": 30, "pts": [n * 1001 for n in range(12)], "time_base": Fraction(1, 30000)}, (), slice(None)),
        ({}, ("--start", "0.16"), slice(4, None)),
        ({}, ("--every", "3"), slice(0, None, 3)),
        ({}, ("--frames", "5"), slice(0, 5)),
        ({}, ("--start", "0.08", "--every", "2", "--frames", "3"), slice(2, 8, 2)),
    ],
    ids=["constant", "variable", "offset", "ntsc", "start", "every", "frames", "all three"],
)
def test_times_are_those_of_the_source(
    segcam_here: Run,
    make_clip: MakeClip,
    read_video: ReadVideo,
    tmp_path: Path,
    output: str,
    clip: dict[str, Any],
    arguments: tuple[str, ...],
    kept: slice,
) -> None:
    path = make_clip("in.mp4", **clip)
    done = segcam_here("-s", path, "-o", output, "-o", "out.jsonl", *arguments)
    assert done.returncode == 0
    wanted = read_video(path).times_s[kept]
    found = read_video(tmp_path / output).times_s
    if output.endswith(".mkv"):
        assert [round(t * 1000) for t in found] == [round(t * 1000) for t in wanted]
    else:
        assert found == wanted
    assert [record["pts_s"] for record in lines(tmp_path / "out.jsonl")] == [round(float(t), 6) for t in wanted]
    assert "warning" not in done.stderr


def test_loops_go_on_in_time(segcam_here: Run, make_clip: MakeClip, read_video: ReadVideo, tmp_path: Path) -> None:
    done = segcam_here("-s", make_clip(count=5), "--loop", "3", "-o", "out.mp4", "-o", "o.jsonl")
    assert done.returncode == 0
    assert read_video(tmp_path / "out.mp4").times_s == [Fraction(n, 25) for n in range(15)]
    assert [record["index"] for record in lines(tmp_path / "o.jsonl")] == list(range(15))
    assert segcam_here("-s", "clip.mp4", "--loop", "--frames", "12", "-o", "o.jsonl").returncode == 0
    assert len(lines(tmp_path / "o.jsonl")) == 12


def test_a_file_without_display_goes_into_a_file_beside_you(
    segcam_here: Run, make_clip: MakeClip, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    done = segcam_here("-s", make_clip("elsewhere/ride.mkv"))
    assert (done.returncode, done.stdout) == (0, "")
    assert "writing ride_segcam.mp4 instead; --output chooses" in done.stderr
    assert "DISPLAY" in done.stderr
    assert (tmp_path / "ride_segcam.mp4").stat().st_size > 1000


def test_one_picture_without_display_becomes_a_picture(segcam_here: Run, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "still.png"), np.full((40, 50, 3), 99, np.uint8))
    assert segcam_here("-s", "still.png").returncode == 0
    assert cv2.imread(str(tmp_path / "still_segcam.png")).shape == (40, 50, 3)


def test_a_live_source_without_display_or_output_is_an_error(segcam_here: Run, tmp_path: Path) -> None:
    done = segcam_here("-s", "test:live=1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("segcam: error: ") == 1
    assert "--output out.mp4" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_window_without_display_is_one_clear_line(segcam_here: Run, make_clip: MakeClip, tmp_path: Path) -> None:
    done = segcam_here("-s", make_clip(), "-o", "window", "-o", "out.mp4")
    assert (done.returncode, done.stdout) == (1, "")
    error = [line for line in done.stderr.splitlines() if line.startswith("segcam: error: ")]
    assert len(error) == 1
    assert "no window can be shown" in error[0]
    assert "--output out.mp4" in done.stderr
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "queue: lossless (file)"),
        (("--queue", "newest"), "queue: newest (as asked)"),
        (("--queue", "lossless"), "queue: lossless (as asked)"),
    ],
)
def test_queue_rule_of_a_file(segcam_here: Run, make_clip: MakeClip, arguments: tuple[str, ...], words: str) -> None:
    done = segcam_here("-s", make_clip(), "-o", "null", *arguments)
    assert done.returncode == 0
    assert words in done.stderr


def test_newest_on_a_file_counts_what_it_drops(segcam_here: Run, make_clip: MakeClip, tmp_path: Path) -> None:
    """1080p pictures written as PNG are slower than the decoder."""
    clip = make_clip(count=20, size=(1920, 1080), options={"preset": "ultrafast"})
    done = segcam_here(
        "-s", clip, "-o", "out/", "-o", "o.jsonl", "--queue", "newest", "--queue-size", "1", "--json", "r.json"
    )
    assert done.returncode == 0
    times = [record["pts_s"] for record in lines(tmp_path / "o.jsonl")]
    dropped = json.loads((tmp_path / "r.json").read_text())["dropped"]
    assert times == sorted(set(times))
    assert times[-1] == pytest.approx(19 / 25), "the last frame gets through"
    assert sum(dropped.values()) == 20 - len(times) > 0
    said = next(line for line in done.stderr.splitlines() if line.startswith("dropped: "))
    assert all(f"{count} ({cause})" in said for cause, count in dropped.items())


def test_lossless_on_a_live_source_gives_every_frame(segcam_here: Run, tmp_path: Path) -> None:
    done = segcam_here("-s", "test:live=1,rate=60,size=128x64,frames=30", "-o", "o.jsonl", "--queue", "lossless")
    assert done.returncode == 0
    assert "queue: lossless (as asked)" in done.stderr
    assert [record["pts_s"] for record in lines(tmp_path / "o.jsonl")] == [round(n / 60, 6) for n in range(30)]


def test_a_live_source_is_newest_first_and_complete_where_there_is_time(segcam_here: Run, tmp_path: Path) -> None:
    done = segcam_here("-s", "test:live=1,rate=20,size=128x64,frames=10", "-o", "o.jsonl", "--json", "r.json")
    assert done.returncode == 0
    assert "queue: newest (live source)" in done.stderr
    found, made = lines(tmp_path / "o.jsonl"), json.loads((tmp_path / "r.json").read_text())
    assert len(found) + sum(made["dropped"].values()) == 10
    assert made["run"]["queue"] == "newest"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-o", "clip.mp4"), "is the source itself"),
        (("-o", "a.mp4", "-o", "./a.mp4"), "are the same place"),
        (("-o", "a.avi"), "there is no output of type .avi"),
        (("-o", "labels:a.mp4"), "labels can only go to images"),
    ],
)
def test_impossible_outputs_are_refused_before_anything_is_read(
    segcam_here: Run, make_clip: MakeClip, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    clip = make_clip()
    before = clip.read_bytes()
    done = segcam_here("-s", clip, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert clip.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_an_output_that_cannot_be_opened_leaves_the_others_untouched(
    segcam_here: Run, make_clip: MakeClip, tmp_path: Path
) -> None:
    (tmp_path / "old.mp4").write_bytes(b"precious")
    (tmp_path / "taken.jsonl").mkdir()
    done = segcam_here(
        "-s", make_clip(), "-o", "old.mp4", "-o", "taken.jsonl/x.jsonl/y.jsonl", "-o", "clip.mp4/z.jsonl"
    )
    assert done.returncode == 1
    assert "clip.mp4 is not a folder" in done.stderr
    assert (tmp_path / "old.mp4").read_bytes() == b"precious"


def test_a_still_output_of_a_video_keeps_the_first_picture_and_fails(
    segcam_here: Run, make_clip: MakeClip, read_video: ReadVideo, tmp_path: Path
) -> None:
    """An output that fails at its second frame: the others are complete up to there."""
    done = segcam_here("-s", make_clip(count=300), "-o", "one.png", "-o", "out.mp4", "-o", "o.jsonl")
    assert done.returncode == 1
    assert "holds one picture, but the source gives more than one frame" in done.stderr
    assert cv2.imread(str(tmp_path / "one.png")).shape == (64, 96, 3)
    frames = len(read_video(tmp_path / "out.mp4").pictures)
    assert 1 <= frames < 300, "the run ends, the video plays"
    assert [record["index"] for record in lines(tmp_path / "o.jsonl")] == list(range(frames))
    assert "stopped after" in done.stderr


def test_a_full_disk_ends_the_run_with_what_fits(
    segcam_here: Run, make_clip: MakeClip, read_video: ReadVideo, tmp_path: Path
) -> None:
    """``ulimit -f`` stands in for the disk: the video hits it, the lines don't."""
    import resource
    import signal

    clip = make_clip(count=100, size=(640, 360))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, hard))
    try:
        done = segcam_here("-s", clip, "-o", "out.mp4", "-o", "o.jsonl", "--crf", "0")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert done.returncode == 1
    assert "writing out.mp4 failed" in done.stderr
    assert "can be played" in done.stderr
    found = read_video(tmp_path / "out.mp4").pictures
    records = lines(tmp_path / "o.jsonl")
    assert 1 <= len(found) <= len(records) < 100
    assert [record["index"] for record in records] == list(range(len(records)))
