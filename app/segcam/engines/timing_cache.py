"""What TensorRT measured in earlier builds, kept in a file: a second build takes a fraction of the first one's time.

Such a file is good for one version of TensorRT and one kind of GPU, and never worth a failed build: whatever is wrong
with it is said, and the build goes on without.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from segcam.engines.tensorrt_api import version_words
from segcam.writing import whole_file

if TYPE_CHECKING:
    import tensorrt as trt

    from segcam.kernels.cuda.driver import DeviceInfo


def cache_file(named: Path, trt: ModuleType, device: DeviceInfo) -> Path:
    """The file for this TensorRT and GPU: in ``named`` where that is a folder (or has no suffix), else ``named``."""
    if named.suffix and not named.is_dir():
        return named
    gpu = re.sub(r"[^a-z0-9]+", "-", device.name.lower()).strip("-")
    major, minor = device.compute_capability
    return named / f"timing-tensorrt-{version_words(trt)}-{gpu}-sm{major}{minor}.cache"


class TimingCache:
    """The timings of one build: ``attach`` before it, ``save`` after it. ``notes`` says what became of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        self._read = b""

    def attach(self, config: trt.IBuilderConfig) -> None:
        """Give ``config`` the file's timings, or new ones where the file is missing or doesn't fit."""
        try:
            self._read = self.path.read_bytes()
        except FileNotFoundError:
            pass
        except OSError as error:
            self.notes.append(f"the timing cache {self.path} cannot be read ({error.strerror}): measuring anew")
        if self._read:
            cache = _made(config, self._read)
            # Never with a mismatch ignored: timings of another GPU choose kernels that this one may not have.
            if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
                return
            self.notes.append(f"the timing cache {self.path} is of another TensorRT or GPU, or damaged: it is replaced")
        cache = _made(config, b"")
        if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
            self.notes.append("TensorRT takes no timing cache here: the next build measures everything again")

    def save(self, config: trt.IBuilderConfig) -> None:
        """Write the timings, with those that another build has written in the meantime."""
        cache: trt.ITimingCache | None = config.get_timing_cache()
        if cache is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _alone(self.path.parent):
                self._merge(config, cache)
                written: trt.IHostMemory | None = cache.serialize()
                if written is None:
                    self.notes.append("TensorRT gave its timing cache no form to keep")
                    return
                with whole_file(self.path) as temporary:
                    temporary.write_bytes(bytes(written))
        except OSError as error:
            self.notes.append(
                f"the timing cache {self.path} cannot be written ({error.strerror}): the next build measures again"
            )

    def _merge(self, config: trt.IBuilderConfig, cache: trt.ITimingCache) -> None:
        try:
            now = self.path.read_bytes()
        except OSError:
            return
        if now and now != self._read:
            other = _made(config, now)
            if other is None or not cache.combine(other, ignore_mismatch=False):
                self.notes.append(f"what another TensorRT or GPU wrote to {self.path} meanwhile is replaced")


def _made(config: trt.IBuilderConfig, data: bytes) -> trt.ITimingCache | None:
    made: trt.ITimingCache | None = config.create_timing_cache(data)
    return made


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Only one process at a time is in here for ``folder``, where its file system has locks."""
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # without locks the last writer wins, which costs time and nothing else
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
