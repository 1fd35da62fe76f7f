"""How far TensorRT's builder is, as one bar, and Ctrl-C while it works."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from segcam.engines.plan_options import Progress

if TYPE_CHECKING:
    import tensorrt as trt

T = TypeVar("T")

#: What the bar of a build runs up to.
STEPS = 1000
#: The share of what is left of the bar that each outermost phase takes: nobody knows how many there will be.
_OUTERMOST = 0.9


class PhaseMeter:
    """Nested phases as one figure that never goes back. Any thread may call any of this.

    A phase has a number of steps; a phase inside it runs during one of them. The names and their nesting are
    TensorRT's and change with its versions, so nothing here depends on them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._phases: dict[str, _Phase] = {}
        self._passed = 0.0
        self._highest = 0.0
        self._words = ""

    def start(self, name: str, parent: str | None, steps: int) -> None:
        with self._lock:
            self._phases[name] = _Phase(parent if parent in self._phases else None, max(1, steps))
            self._words = name

    def step(self, name: str, step: int) -> None:
        """Step number ``step``, from 0, is done."""
        with self._lock:
            phase = self._phases.get(name)
            if phase:
                phase.done = min(phase.steps, max(phase.done, step + 1))
                self._words = name

    def finish(self, name: str) -> None:
        """The phase is over, whether or not all its steps came."""
        with self._lock:
            phase = self._phases.pop(name, None)
            if phase is None:
                return
            for inner in [n for n, p in self._phases.items() if p.parent == name]:
                del self._phases[inner]
            if phase.parent is None:
                self._passed += (1 - self._passed) * _OUTERMOST

    def read(self) -> tuple[float, str]:
        """(share done, 0..1, and the phase that moved last)."""
        with self._lock:
            outermost = [name for name, phase in self._phases.items() if phase.parent is None]
            here = max((self._share(name) for name in outermost), default=0.0)
            self._highest = max(self._highest, self._passed + (1 - self._passed) * _OUTERMOST * here)
            return self._highest, self._words

    def _share(self, name: str) -> float:
        phase = self._phases[name]
        inside = max((self._share(n) for n, p in self._phases.items() if p.parent == name), default=0.0)
        return min(1.0, (phase.done + inside) / phase.steps)


class _Phase:
    def __init__(self, parent: str | None, steps: int) -> None:
        self.parent, self.steps, self.done = parent, steps, 0


class Monitoring:
    """What a build's monitor tells, and how it is stopped.

    ``failure`` is what ``progress`` raised, if it did: TensorRT prints and drops what its callbacks raise.
    """

    def __init__(self, progress: Progress, stop: Callable[[], bool]) -> None:
        self._progress, self._stop = progress, stop
        self._meter = PhaseMeter()
        self.failure: BaseException | None = None

    def started(self, name: str, parent: str | None, steps: int) -> None:
        self._meter.start(name, parent, steps)
        self._show()

    def stepped(self, name: str, step: int) -> bool:
        """Whether the build is to go on."""
        self._meter.step(name, step)
        self._show()
        return self.failure is None and not self._stop()

    def finished(self, name: str) -> None:
        self._meter.finish(name)
        self._show()

    def tell(self, words: str) -> None:
        """Show ``words`` where the bar is now."""
        self._show(words)

    def _show(self, said: str = "") -> None:
        try:
            share, words = self._meter.read()
            self._progress.step(round(share * STEPS), STEPS, said or words)
        except BaseException as error:  # kept for the thread that waits: nothing may leave a callback
            self.failure = self.failure or error


def make_monitor(trt: ModuleType, monitoring: Monitoring) -> trt.IProgressMonitor:
    """The object that TensorRT's builder calls, from threads of its own, for ``monitoring``."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined,misc]  # TensorRT ships no types
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            monitoring.started(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return monitoring.stepped(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            monitoring.finished(phase_name)

    return Monitor()


class Interrupt:
    """Ctrl-C as a flag, for as long as a library works that knows nothing of Python's exceptions.

    Python runs signal handlers in the main thread and only there: used in another one, this is the flag alone.
    A Ctrl-C that was ignored before stays ignored.
    """

    def __init__(self, also: Callable[[], bool] = lambda: False) -> None:
        self._also = also
        self._asked = threading.Event()
        self._previous: Any = None

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            previous = signal.getsignal(signal.SIGINT)
            # None: a handler that Python did not set and could not set again.
            if previous not in (None, signal.SIG_IGN):
                signal.signal(signal.SIGINT, self._note)
                self._previous = previous
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._asked.set()

    def ask(self) -> None:
        self._asked.set()

    def asked(self) -> bool:
        return self._asked.is_set() or self._also()


def run_apart(work: Callable[[], T], interrupt: Interrupt, waiting: Callable[[], None]) -> T:
    """``work()`` in a thread of its own, while this one stays awake for signals; its result, or what it raised.

    The builder releases Python's lock but not the thread that called it, and only the main thread hears Ctrl-C:
    a build in the main thread would hear it when it is over. ``waiting`` is called once when it was heard. Whatever
    happens, this returns only when ``work`` has.
    """
    results: list[T] = []
    raised: list[BaseException] = []
    over = threading.Event()

    def body() -> None:
        try:
            results.append(work())
        except BaseException as error:  # raised again by the thread that waits
            raised.append(error)
        finally:
            over.set()

    thread = threading.Thread(target=body, name="tensorrt-build", daemon=True)
    told = False
    try:
        thread.start()
        while not over.wait(0.1):
            if not told and interrupt.asked():
                told = True
                waiting()
    except BaseException as error:
        interrupt.ask()
        # A signal may come while the thread starts; RuntimeError is how Python says that it can start none.
        if thread.ident is not None or not isinstance(error, RuntimeError):
            over.wait()
        raise
    if raised:
        raise raised[0]
    return results[0]
