"""How long work takes on the GPU, without the time that queueing it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segcam.kernels.cuda.driver import Driver, Stream

_ROUNDS = 5
#: A stream takes about a thousand pieces of work before queueing waits.
_FILLERS = 400


def per_run_ms(
    driver: Driver, queue: Sequence[Callable[[], None]], runs: int, stream: Stream, *, graph: bool = True
) -> float:
    """Milliseconds of each of ``runs`` pieces of work, taken from ``queue`` in turn: the median of some rounds.

    They run right behind each other: as one graph where there are graphs (and ``graph``), else behind a long enough
    piece of other work, so that the queue is full when they begin.
    """
    with ExitStack() as held:
        begun, ended = driver.event(), driver.event()
        held.callback(begun.close)
        held.callback(ended.close)

        def all_of_them() -> None:
            for number in range(runs):
                queue[number % len(queue)]()

        # First runs load and allocate.
        for one in queue:
            one()
        stream.synchronize()
        launch = all_of_them
        if graph and driver.has_graphs:
            with driver.capture(stream) as capture:
                all_of_them()
            captured = capture.graph
            held.callback(captured.close)

            def launch() -> None:
                captured.launch(stream)

            launch()
            stream.synchronize()
        else:
            nbytes = 256 << 20 if driver.memory()[0] > 8 << 30 else 1 << 16
            filler = driver.allocate(nbytes)
            held.callback(filler.close)
        took = []
        for _ in range(_ROUNDS):
            if launch is all_of_them:
                for _ in range(min(2 * runs, _FILLERS)):
                    driver.fill(filler.address, 0, filler.nbytes, stream)
            begun.record(stream)
            launch()
            ended.record(stream)
            stream.synchronize()
            took.append(ended.ms_since(begun) / runs)
        return sorted(took)[_ROUNDS // 2]
