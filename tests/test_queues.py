from __future__ import annotations

import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segcam.queues import BoundedQueue, Mark, choose_policy

_PATIENCE_S = 20.0


def joined(*threads: threading.Thread) -> None:
    for thread in threads:
        thread.join(_PATIENCE_S)
    assert not [thread.name for thread in threads if thread.is_alive()]


def started(work: object, *args: object) -> threading.Thread:
    thread = threading.Thread(target=work, args=args, daemon=True)  # type: ignore[arg-type]
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("asked", "live", "policy", "words"),
    [
        ("auto", False, "lossless", "lossless (file): every frame, none dropped"),
        ("auto", True, "newest", "newest (live source): newest frame first, late ones dropped and counted"),
        ("lossless", False, "lossless", "lossless (as asked): every frame, none dropped"),
        ("lossless", True, "lossless", "lossless (as asked): every frame, none dropped"),
        ("newest", False, "newest", "newest (as asked): newest frame first, late ones dropped and counted"),
        ("newest", True, "newest", "newest (as asked): newest frame first, late ones dropped and counted"),
    ],
)
def test_rule_table(asked: str, live: bool, policy: str, words: str) -> None:
    assert choose_policy(asked, live) == (policy, words)  # type: ignore[arg-type]


@given(st.integers(1, 5), st.lists(st.one_of(st.integers(0, 9), st.none()), max_size=40))
def test_newest_keeps_the_last_in_order_and_counts_the_rest(size: int, steps: list[int | None]) -> None:
    """Numbers are put, None is a get: compared with a plain list."""
    queue: BoundedQueue[int] = BoundedQueue(size, "newest")
    model: list[int] = []
    dropped = 0
    for step in steps:
        if step is None:
            got = queue.get(0)
            assert got == (model.pop(0) if model else Mark.EMPTY)
        else:
            assert queue.put(step)
            model.append(step)
            if len(model) > size:
                model.pop(0)
                dropped += 1
        assert (len(queue), queue.dropped) == (len(model), dropped)


def test_end_comes_after_the_last_item_and_again_and_again() -> None:
    queue: BoundedQueue[int] = BoundedQueue(2)
    queue.put(1)
    queue.put(2)
    queue.close()
    assert [queue.get(), queue.get(), queue.get(), queue.get(0)] == [1, 2, Mark.END, Mark.END]


@pytest.mark.parametrize("policy", ["lossless", "newest"])
def test_put_after_close_takes_nothing_and_drops_nothing(policy: str) -> None:
    queue: BoundedQueue[int] = BoundedQueue(1, policy)  # type: ignore[arg-type]
    queue.put(1)
    queue.close()
    assert not queue.put(2)
    assert (queue.dropped, queue.get(), queue.get()) == (0, 1, Mark.END)


@pytest.mark.parametrize("policy", ["lossless", "newest"])
def test_abort_forgets_what_is_inside(policy: str) -> None:
    queue: BoundedQueue[int] = BoundedQueue(2, policy)  # type: ignore[arg-type]
    queue.put(1)
    queue.abort()
    assert len(queue) == 0
    assert not queue.put(2)
    assert (queue.get(), queue.dropped) == (Mark.END, 0)


@pytest.mark.parametrize("end", ["close", "abort"])
def test_a_full_lossless_put_is_woken_by_the_end(end: str) -> None:
    queue: BoundedQueue[int] = BoundedQueue(1)
    queue.put(1)
    answers: list[bool] = []
    waiting = started(lambda: answers.append(queue.put(2)))
    waiting.join(0.05)
    assert waiting.is_alive(), "a full lossless queue makes put wait"
    getattr(queue, end)()
    joined(waiting)
    assert answers == [False]


@pytest.mark.parametrize("end", ["close", "abort"])
def test_an_empty_get_is_woken_by_the_end(end: str) -> None:
    queue: BoundedQueue[int] = BoundedQueue(1)
    answers: list[object] = []
    waiting = started(lambda: answers.append(queue.get()))
    waiting.join(0.05)
    assert waiting.is_alive(), "an empty queue makes get wait"
    getattr(queue, end)()
    joined(waiting)
    assert answers == [Mark.END]


@pytest.mark.parametrize("size", [1, 3])
def test_lossless_hammering_loses_and_doubles_nothing(size: int) -> None:
    queue: BoundedQueue[tuple[int, int]] = BoundedQueue(size)
    producers, consumers, each = 4, 3, 2000
    taken: list[list[tuple[int, int]]] = [[] for _ in range(consumers)]
    longest: list[int] = [0]

    def produce(number: int) -> None:
        for value in range(each):
            assert queue.put((number, value))
            longest[0] = max(longest[0], len(queue))

    def consume(number: int) -> None:
        while (item := queue.get()) is not Mark.END:
            assert not isinstance(item, Mark)
            taken[number].append(item)

    putters = [started(produce, n) for n in range(producers)]
    getters = [started(consume, n) for n in range(consumers)]
    joined(*putters)
    queue.close()
    joined(*getters)
    assert sorted(item for part in taken for item in part) == [(n, v) for n in range(producers) for v in range(each)]
    for part in taken:
        for number in range(producers):
            values = [value for producer, value in part if producer == number]
            assert values == sorted(values)
    assert longest[0] <= size
    assert queue.dropped == 0


def test_newest_hammering_accounts_for_every_item_in_order() -> None:
    queue: BoundedQueue[int] = BoundedQueue(2, "newest")
    total = 20_000
    taken: list[int] = []

    def consume() -> None:
        while (item := queue.get(0.0005)) is not Mark.END:
            if not isinstance(item, Mark):
                taken.append(item)

    getter = started(consume)
    for value in range(total):
        assert queue.put(value)
    queue.close()
    joined(getter)
    assert taken == sorted(set(taken))
    assert taken[-1] == total - 1, "the last item and the end always arrive"
    assert len(taken) + queue.dropped == total


def test_abort_while_hammered_frees_everybody() -> None:
    for seed in range(20):
        queue: BoundedQueue[int] = BoundedQueue(1 + seed % 3, "newest" if seed % 2 else "lossless")

        def produce(queue: BoundedQueue[int] = queue) -> None:
            while queue.put(0):
                pass

        def consume(queue: BoundedQueue[int] = queue) -> None:
            while queue.get() is not Mark.END:
                pass

        threads = [started(work) for work in (produce, produce, consume, consume)]
        threads[random.Random(seed).randrange(4)].join(0.002)
        queue.abort()
        joined(*threads)
