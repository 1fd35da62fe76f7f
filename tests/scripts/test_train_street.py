"""Training the demo's network. What needs PyTorch is skipped where it isn't installed; all else is always tested."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from train.augment import IGNORED, WHOLE, crop, disturb  # noqa: E402
from train.feed import HELD_OUT, Feed, Kitchen, Plan, Wanted, real_frames  # noqa: E402
from train.progress import ActiveClock, Log, draw_curve, write_whole  # noqa: E402


def checkered(seed: int, index: int, size: tuple[int, int]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Squares of 64 pixels, colour and class of one another: red is ten times the class."""
    rows, columns = np.indices(size) // 64
    labels = ((rows * 7 + columns * 3 + seed + index) % 19).astype(np.uint8)
    return np.repeat((labels * 10)[..., None], 3, 2), labels


@given(
    size=st.tuples(st.integers(8, 96), st.integers(8, 96)),
    height=st.integers(40, 200),
    scale=st.floats(0.2, 3.0),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60)
def test_a_crop_has_its_size_and_its_labels_lie_on_its_pixels(
    size: tuple[int, int], height: int, scale: float, seed: int
) -> None:
    rgb, labels = checkered(0, 0, (height, 2 * height))
    piece, classes = crop(rgb, labels, size, (scale, scale * 1.5), np.random.default_rng(seed))
    assert piece.shape == (*size, 3) and piece.dtype == np.uint8
    assert classes.shape == size and classes.dtype == np.uint8
    # Between two squares colours are mixed: only what is surely inside one is compared.
    inside = np.abs(piece[..., 0].astype(int) - np.round(piece[..., 0] / 10) * 10) == 0
    assert (piece[..., 0] // 10 == classes)[inside].mean() > 0.8


def test_a_whole_picture_at_scale_one_is_the_picture_halved() -> None:
    rgb, labels = checkered(3, 0, (1024, 2048))
    piece, classes = crop(rgb, labels, (WHOLE, 1024), (1.0, 1.0), np.random.default_rng(1))
    halved = labels[::2, ::2]
    assert any((classes == side).all() for side in (halved, halved[:, ::-1]))
    assert (piece[..., 0] == classes * 10).all()


def test_crops_come_mirrored_and_not() -> None:
    rgb, labels = checkered(0, 0, (WHOLE, 1024))
    sides = {
        crop(rgb, labels, labels.shape, (1.0, 1.0), np.random.default_rng(seed))[1].tobytes() for seed in range(12)
    }
    assert sides == {labels.tobytes(), np.ascontiguousarray(labels[:, ::-1]).tobytes()}


def test_a_rare_class_is_sought() -> None:
    labels = np.zeros((1024, 2048), np.uint8)
    labels[500:540, 1000:1040] = 7
    labels[600:, :] = IGNORED
    rgb = np.zeros((*labels.shape, 3), np.uint8)
    random = np.random.default_rng(2)
    seen = [7 in crop(rgb, labels, (64, 64), (2.0, 2.0), random)[1] for _ in range(200)]
    # By chance alone it would be one in a hundred; a quarter is what seeking one of two classes half the time gives.
    assert 0.15 < np.mean(seen) < 0.4


@given(seed=st.integers(0, 2**63), shape=st.tuples(st.integers(2, 40), st.integers(2, 40)))
@settings(max_examples=60)
def test_disturbing_is_seeded_and_leaves_its_input(seed: int, shape: tuple[int, int]) -> None:
    rgb = np.random.default_rng(5).integers(0, 256, (*shape, 3)).astype(np.uint8)
    before = rgb.copy()
    first, second = (disturb(rgb, np.random.default_rng(seed)) for _ in range(2))
    assert first.shape == rgb.shape and first.dtype == np.uint8
    assert (first == second).all()
    assert (rgb == before).all()


def test_disturbing_changes_colours_and_never_the_place() -> None:
    rgb = np.full((64, 128, 3), 60, np.uint8)
    rgb[:, 64:] = 190
    changed = [disturb(rgb, np.random.default_rng(seed)).astype(float).mean(2) for seed in range(40)]
    assert np.std([picture[:, :50].mean() for picture in changed]) > 8
    for picture in changed:
        step = np.abs(np.diff(picture.mean(0)))
        assert step.argmax() in (62, 63, 64) or step.max() < 3


def test_a_kitchen_gives_the_same_batches_and_keeps_to_training_seeds() -> None:
    asked: list[int] = []

    def render(seed: int, index: int, size: tuple[int, int]) -> tuple[Any, Any]:
        asked.append(seed)
        return checkered(seed, index, (size[0] // 8, size[1] // 8))

    wanted = Wanted(3, (32, 48), (0.5, 2.0), 0.5)
    first, second, other = (Kitchen(Plan(seed=seed, keep=6), 0, render) for seed in (1, 1, 2))
    batches = [[kitchen.batch(wanted) for _ in range(8)] for kitchen in (first, second, other)]
    for (rgb, labels), (again, classes) in zip(batches[0], batches[1], strict=True):
        assert rgb.shape == (3, 32, 48, 3) and labels.shape == (3, 32, 48)
        assert (rgb == again).all() and (labels == classes).all()
    assert any((a[0] != b[0]).any() for a, b in zip(batches[0], batches[2], strict=True))
    assert max(asked) < HELD_OUT
    assert len(set(asked)) > 8, "scenes are not drawn anew"
    assert len(asked) < 3 * 24, "every crop draws a scene of its own"


@pytest.mark.slow
def test_workers_feed_real_streets_in_the_same_order_every_time() -> None:
    pytest.importorskip("segcam.sources.street")
    plan, wanted = Plan(seed=4, keep=4), Wanted(1, (64, 128), (1.0, 1.0), 0.5)

    def three() -> list[bytes]:
        feed = Feed(plan, 2, wanted)
        try:
            return [b"".join(part.tobytes() for part in feed.next()) for _ in range(3)]
        finally:
            feed.close()

    first = three()
    assert first == three()
    assert len(set(first)) == 3


def test_real_frames_come_with_cityscapes_classes(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    for folder, value in (("train", 77), ("trainannot", 4)):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "a.png"), np.full((36, 48, 3 if value == 77 else 1), value, np.uint8))
    ((rgb, labels),) = real_frames(str(tmp_path))
    assert rgb.shape == (36, 48, 3) and (rgb == 77).all()
    # CamVid's 4 is its pavement, which is Cityscapes' sidewalk, 1.
    assert (labels == 1).all()


def test_a_pause_is_not_work() -> None:
    now = [0.0]
    clock = ActiveClock(2.0, lambda: now[0])
    for _ in range(10):
        now[0] += 0.6
        clock.step()
    assert clock.minutes == pytest.approx(2.1)
    now[0] += 3600
    assert clock.step() == pytest.approx(3.0)
    assert clock.minutes == pytest.approx(2.15)
    now[0] += 30
    clock.other()
    now[0] += 0.6
    clock.step()
    assert clock.minutes == pytest.approx(2.66)


def test_the_log_is_appended_and_drawn(tmp_path: Path) -> None:
    log = Log(tmp_path / "run" / "log.jsonl")
    blank = draw_curve([])
    for minutes in range(1, 6):
        log.write("step", minutes=minutes, loss=3.0 / minutes)
    log.write("evaluation", minutes=5, miou=0.4)
    events = Log(tmp_path / "run" / "log.jsonl").read()
    assert [event["event"] for event in events] == ["step"] * 5 + ["evaluation"]
    picture = draw_curve(events)
    assert picture.shape == blank.shape == (540, 960, 3)
    assert (picture != blank).any()
    # The point of the score, 0.4 of the way up at the right end.
    assert (picture[round(40 + 440 * 0.6), 900] == (160, 90, 20)).all()


def test_files_are_whole_or_not_there(tmp_path: Path) -> None:
    def fail(part: Path) -> None:
        part.write_text("half")
        raise KeyboardInterrupt

    target = tmp_path / "last.pt"
    write_whole(target, lambda part: part.write_text("whole"))
    with pytest.raises(KeyboardInterrupt):
        write_whole(target, fail)
    assert target.read_text() == "whole"


def run_script(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPTS / "train_street.py"), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(SCRIPTS.parent / "app")},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_wrong_arguments_are_said(tmp_path: Path) -> None:
    result = run_script("--output", tmp_path, "--resume", cwd=tmp_path)
    assert result.returncode == 2
    assert "last.pt" in result.stderr and "Traceback" not in result.stderr


def test_without_pytorch_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('not here')")
    result = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(SCRIPTS)!r}]; "
         "import train_street; sys.exit(train_street.main(['--output', 'x']))"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert "pip install torch" in result.stderr and "Traceback" not in result.stderr


# ---------------------------------------------------------------- with PyTorch


@pytest.fixture(scope="module")
def torch() -> ModuleType:
    return pytest.importorskip("torch", reason="PyTorch is not installed; training needs it, Segcam doesn't")


@pytest.fixture
def network(torch: ModuleType) -> Any:
    from segcam.networks.architecture import NetworkOptions, expected_tensors
    from segcam.networks.state import random_state
    from train.network import MODEL, MobileV3Small

    made = MobileV3Small()
    state = random_state(expected_tensors(NetworkOptions(MODEL, 19, 64)), 3)
    made.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()}, strict=False)
    return made.eval()


def test_the_keys_are_those_of_an_official_checkpoint(network: Any) -> None:
    from segcam.networks.architecture import NetworkOptions, checkpoint_tensors

    ours = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert list(ours.items()) == list(checkpoint_tensors(NetworkOptions("MobileV3Small", 19, 64)).items())


@pytest.mark.parametrize("size", [(512, 1024), (385, 401)])
def test_it_computes_what_the_exported_network_does(torch: ModuleType, network: Any, size: tuple[int, int]) -> None:
    import onnxruntime

    from segcam.networks.architecture import NetworkOptions, build, expected_tensors

    options = NetworkOptions("MobileV3Small", 19, 64, size)
    state = {key: network.state_dict()[key].numpy() for key in expected_tensors(options)}
    session = onnxruntime.InferenceSession(
        build(options, state).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    picture = np.random.default_rng(0).standard_normal((1, 3, *size), np.float32)
    with torch.no_grad():
        ours = network(torch.from_numpy(picture)).numpy()
    theirs = session.run(None, {"input0": picture})[0]
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < 1e-4
    assert np.abs(theirs).max() > 1


@pytest.mark.parametrize("channels", [8, 16, 40])
@pytest.mark.parametrize("dilation", [1, 2, 4])
@pytest.mark.parametrize("half", [False, True])
def test_the_fast_convolution_is_the_slow_one(torch: ModuleType, channels: int, dilation: int, half: bool) -> None:
    from torch.nn import functional

    from train import depthwise

    if depthwise.kernels() is None:
        pytest.skip("there is no C compiler")
    torch.manual_seed(1)
    x = torch.randn(2, channels, 7, 12).to(memory_format=torch.channels_last)
    x = x.to(torch.bfloat16 if half else torch.float32).requires_grad_()
    weight = torch.randn(channels, 1, 5, 5, requires_grad=True)
    ours = depthwise.convolve(x, weight, dilation)
    slow = functional.conv2d(x.float(), weight, None, 1, 2 * dilation, dilation, channels)
    assert ours.dtype == x.dtype
    gradient = torch.randn_like(slow).to(x.dtype).float()
    for got, expected in zip(
        (ours, *torch.autograd.grad(ours, (x, weight), gradient.to(x.dtype))),
        (slow, *torch.autograd.grad(slow, (x, weight), gradient)),
        strict=True,
    ):
        error = (got.float() - expected.float()).abs().max() / expected.abs().max()
        assert error < (1e-2 if half else 1e-5)


def test_the_watched_mean_has_the_plain_ones_gradient(torch: ModuleType) -> None:
    from train.network import Watched

    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda value: tuple(Watched.apply(value)), (x,))


def test_training_mode_and_evaluation_mode_are_one_network(torch: ModuleType, network: Any) -> None:
    """With batch norms that use what they have learnt, the fast path gives the slow one's scores."""
    x = torch.randn(1, 3, 96, 160)
    with torch.no_grad():
        expected = network(x)
        network.train()
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.eval()
        assert (network(x) - expected).abs().max() < 1e-4


def test_the_rate_rises_and_falls(torch: ModuleType) -> None:
    from train.learning import rate_at

    rates = [rate_at(progress / 100, 1.0) for progress in range(101)]
    peak = int(np.argmax(rates))
    assert rates[peak] == pytest.approx(1.0) and peak <= 5
    assert all(a < b for a, b in pairwise(rates[: peak + 1]))
    assert all(a > b for a, b in pairwise(rates[peak:]))
    assert 0 < rates[-1] < 0.02


def test_rare_classes_weigh_more(torch: ModuleType) -> None:
    from train.learning import CLASSES, Balance

    labels = np.zeros((1, 100, 100), np.uint8)
    labels[0, 0] = 5
    labels[0, 50:] = IGNORED
    weights = Balance().weights(labels)
    assert weights.shape == (CLASSES,)
    assert 2 < weights[5] / weights[0] < 10
    assert weights.max() <= 10


def test_the_quick_loss_is_the_whole_ones_where_labels_are_even(torch: ModuleType) -> None:
    from train.learning import loss_of

    torch.manual_seed(2)
    cells = torch.randint(0, 19, (2, 6, 8))
    cells[0, :2] = IGNORED
    labels = cells.repeat_interleave(2, 1).repeat_interleave(2, 2)
    weights = torch.rand(19) + 0.5
    scores = torch.randn(2, 19, 6, 8, requires_grad=True)
    quick = loss_of(scores, labels, weights, whole=False)
    plain = torch.nn.functional.cross_entropy(scores, cells, weights, ignore_index=IGNORED)
    assert quick.item() == pytest.approx(plain.item(), rel=1e-5)
    ours, theirs = (torch.autograd.grad(loss, scores)[0] for loss in (quick, plain))
    assert (ours - theirs).abs().max() < 1e-6
    level = torch.randn(2, 19, 1, 1).expand(2, 19, 6, 8)
    assert loss_of(level, labels, weights).item() == pytest.approx(
        loss_of(level, labels, weights, whole=False).item(), rel=1e-5
    )


@pytest.mark.slow
def test_a_short_run_leaves_a_checkpoint_that_can_be_exported_and_goes_on(torch: ModuleType, tmp_path: Path) -> None:
    from segcam.exporter import export

    small = ("--output", "run", "--scenes", 1, "--keep", 4, "--batch", 0.5, "--threads", 2)
    first = run_script(*small, "--steps", 2, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    second = run_script(*small, "--steps", 3, "--resume", cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    events = Log(tmp_path / "run" / "log.jsonl").read()
    assert [event["step"] for event in events if event["event"] == "start"] == [0, 2]
    assert [event["step"] for event in events if event["event"] == "evaluation"] == [2, 3]
    assert (tmp_path / "run" / "curve.png").read_bytes()[:4] == b"\x89PNG"
    export(
        tmp_path / "demo.onnx",
        "MobileV3Small",
        num_filters=64,
        size=(512, 1024),
        checkpoint=tmp_path / "run" / "demo.pt",
        fp16=True,
    )
    assert 1e6 < (tmp_path / "demo.onnx").stat().st_size < 5e6
