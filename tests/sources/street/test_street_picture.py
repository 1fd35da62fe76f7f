"""What a made-up street shows: the same on every run, all classes, edges where the class map has them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from segcam.classes import CITYSCAPES
from segcam.errors import UsageError
from segcam.sources.street import WEATHERS, render
from segcam.sources.street.course import plan
from segcam.sources.street.scene import piece
from segcam.sources.street.traffic import driven

SMALL = (96, 192)


def test_a_frame_is_the_same_whatever_came_before() -> None:
    first = render(5, 40, SMALL)
    for seed, index in ((5, 41), (6, 3), (5, 900), (5, 0)):
        render(seed, index, SMALL)
    plan.cache_clear()
    piece.cache_clear()
    again = render(5, 40, SMALL)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert first[0].dtype == first[1].dtype == np.uint8
    assert first[0].shape == (*SMALL, 3) and first[1].shape == SMALL
    other = render(5, 41, SMALL)
    assert not np.array_equal(first[0], other[0]) and not np.array_equal(first[1], other[1])


def test_threads_change_nothing() -> None:
    size = (300, 202)
    alone, together = render(2, 7, size, threads=1), render(2, 7, size, threads=3)
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_frames_drawn_at_the_same_time_do_not_disturb_each_other() -> None:
    asked = [(seed, size) for seed in range(4) for size in (SMALL, (160, 320), (97, 64))]
    alone = [render(seed, 3, size) for seed, size in asked]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda one: render(one[0], 3, one[1], threads=1 + one[0] % 2), asked))
    for first, second in zip(alone, together, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_all_classes_are_there() -> None:
    counts = np.zeros(256, np.int64)
    for seed in range(6):
        for second in (0, 7, 14):
            counts += np.bincount(render(seed, second, (192, 384), rate=1)[1].ravel(), minlength=256)
    lacking = [name for name, count in zip(CITYSCAPES.names, counts, strict=False) if count < 30]
    assert lacking == [] and not counts[19:].any()
    share = counts / counts.sum()
    assert 0.25 < share[0] < 0.45 and 0.06 < share[2] < 0.35 and 0.05 < share[8] < 0.3 and 0.02 < share[10] < 0.25


@pytest.mark.parametrize("weather", WEATHERS)
def test_weather_is_light_and_air_only(weather: str) -> None:
    picture, labels = render(4, 50, SMALL, weather=weather)
    day, same = render(4, 50, SMALL, weather="day")
    assert np.array_equal(labels, same)
    assert np.array_equal(picture, day) == (weather == "day")
    auto = [np.array_equal(render(4, 50, SMALL)[0], render(4, 50, SMALL, weather=one)[0]) for one in WEATHERS]
    assert sum(auto) == 1


def test_every_weather_is_chosen_by_some_seed() -> None:
    from segcam.sources.street.weather import chosen

    assert {chosen("auto", seed) for seed in range(40)} == set(WEATHERS)
    assert chosen("rain", 3) == "rain"


@pytest.mark.parametrize("seed", [1, 3, 8, 11])
@pytest.mark.parametrize("weather", ["day", "rain", "dusk"])
def test_picture_and_class_map_have_the_same_edges(seed: int, weather: str) -> None:
    """The step from pixel to pixel is largest just where the class changes, and no longer there three pixels aside."""
    picture, labels = render(seed, 12, (384, 768), weather=weather, rate=1)
    for axis in (0, 1):
        step = np.abs(np.diff(picture.astype(float), axis=axis)).sum(-1)
        changes = np.diff(labels.astype(int), axis=axis) != 0
        inner = (slice(4, -4), slice(4, -4))
        at = {shift: float(np.roll(step, -shift, axis)[inner][changes[inner]].mean()) for shift in range(-3, 4)}
        assert max(at, key=lambda shift: at[shift]) == 0, at
        assert at[0] > 1.6 * max(at[3], at[-3]), at


def test_flat_pictures_are_the_class_map() -> None:
    picture, labels = render(3, 5, SMALL, flat=True)
    assert np.array_equal(picture, np.repeat(labels[..., None], 3, 2))
    assert np.array_equal(labels, render(3, 5, SMALL)[1])


def test_the_street_is_a_function_of_the_time() -> None:
    """Frame 12 at 25 frames per second is frame 24 at 50."""
    assert np.array_equal(render(9, 12, SMALL, rate=25)[1], render(9, 24, SMALL, rate=50)[1])
    street = plan(9)
    places = [driven(street, second / 10) for second in range(600)]
    assert np.diff(places).min() > 0.4


def test_neighbouring_frames_are_alike_and_far_ones_are_not() -> None:
    def equal(index: int) -> float:
        return float((render(7, 100, (192, 384))[1] == render(7, index, (192, 384))[1]).mean())

    assert equal(101) > 0.9
    assert equal(101) > equal(105) > equal(400)


def test_seeds_differ() -> None:
    pictures = [render(seed, 0, SMALL)[0].astype(int) for seed in range(8)]
    distance = [np.abs(a - b).mean() for n, a in enumerate(pictures) for b in pictures[:n]]
    assert min(distance) > 8
    assert len({plan(seed) for seed in range(200)}) == 200


def test_late_frames_and_large_seeds() -> None:
    picture, labels = render(2**60 + 1, 10**7, SMALL)
    assert picture.std() > 10 and len(np.unique(labels)) > 4


def test_sizes() -> None:
    for size in ((64, 64), (65, 131), (480, 270)):
        picture, labels = render(1, 1, size)
        assert picture.shape == (*size, 3) and labels.shape == size
    large, small = render(1, 1, (256, 512))[1], render(1, 1, (128, 256))[1]
    assert (large[1::2, 1::2] == small).mean() > 0.93


def test_unknown_weather() -> None:
    with pytest.raises(UsageError, match="unknown weather 'rian'") as caught:
        render(0, 0, SMALL, weather="rian")
    assert "'rain'" in caught.value.hint


def test_the_ground_has_no_gaps() -> None:
    """Nothing of the sky is seen below the horizon, not even between faces that meet."""
    for seed in range(12):
        labels = render(seed, 3 * seed, (256, 512), rate=1)[1]
        assert not (labels[176:] == 10).any(), seed


@pytest.mark.parametrize(
    ("seed", "index", "weather", "fields"),
    [
        (3, 10, "day", [[62.5, 135.3, 126.2, 78.9], [129.3, 136.7, 146.9, 122.0]]),
        (4, 50, "rain", [[79.6, 124.8, 72.2, 53.0], [59.2, 89.2, 85.4, 66.6]]),
        (8, 77, "dusk", [[65.7, 126.6, 62.4, 51.6], [46.4, 52.0, 57.8, 56.4]]),
    ],
)
def test_known_frames(seed: int, index: int, weather: str, fields: list[list[float]]) -> None:
    """Mean brightness of 2 by 4 fields, as it was on x86-64 with NumPy 2.2 to 2.5."""
    picture, _ = render(seed, index, (128, 256), weather=weather)
    found = picture.reshape(2, 64, 4, 64, 3).mean((1, 3, 4))
    assert np.abs(found - fields).max() < 1.5
