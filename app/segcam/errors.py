"""Errors that a person can act on: what was found, then what to do next."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence


class SegcamError(Exception):
    """Base of every error that Segcam raises on purpose.

    ``message`` says what was found and what was expected; ``hint`` says what to do next, if possible
    as a command. The command line prints both without a traceback and exits with code 1.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class UsageError(SegcamError, ValueError):
    """A flag, setting or argument that cannot be used as given (exit code 2)."""


class SourceError(SegcamError, OSError):
    """A source that cannot be opened, read or decoded."""

    def __str__(self) -> str:
        return SegcamError.__str__(self)


class SourceTruncatedError(SourceError):
    """A source that ended before all the frames it announced; what came before is good."""


class SinkError(SegcamError, OSError):
    """An output that cannot be opened or written."""

    def __str__(self) -> str:
        return SegcamError.__str__(self)


class EngineError(SegcamError, RuntimeError):
    """A network that cannot be loaded or run."""


class CudaError(EngineError):
    """An NVIDIA GPU, its driver or a call to it that does not work. ``name`` is the driver's word for it, such as
    ``CUDA_ERROR_OUT_OF_MEMORY``; empty where the driver was not reached.
    """

    def __init__(self, message: str, hint: str = "", *, name: str = "") -> None:
        super().__init__(message, hint)
        self.name = name


class SpecError(SegcamError, ValueError):
    """A ModelSpec that is malformed or does not fit its network."""


class ZooError(SegcamError, OSError):
    """A network of the zoo that cannot be fetched, checked or kept on this machine."""

    def __str__(self) -> str:
        return SegcamError.__str__(self)


class CheckpointError(SegcamError, ValueError):
    """A file of weights that cannot be read, or that does not fit the network.

    Where tensors do not fit, the message shows the first of each kind; ``missing`` and ``unexpected`` have all their
    names, ``misshapen`` maps names to (shape found, shape expected).
    """

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        missing: Sequence[str] = (),
        unexpected: Sequence[str] = (),
        misshapen: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] | None = None,
    ) -> None:
        super().__init__(message, hint)
        self.missing = tuple(missing)
        self.unexpected = tuple(unexpected)
        self.misshapen = dict(misshapen or {})


class MissingDependencyError(SegcamError, ImportError):
    """A package that this job needs and that is not installed; the hint names the command."""


def let_go(error: BaseException | None) -> None:
    """Clears the frames that an error on its way has been through, however long it is kept.

    They refer to streams, memory and pictures of the GPU, which must go before its context, not after.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
