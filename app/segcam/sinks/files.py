"""What all file sinks share: checks before the run, one wording for a failed write, a file that fails cleanly."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path

from segcam.errors import SinkError

#: Less free space than this is an error before the run rather than in its first second.
MIN_FREE_BYTES = 8 * 2**20


def check_writable(path: Path) -> None:
    """Raise SinkError unless ``path`` (a file, or a folder to be) could be made or written now. Makes nothing."""
    try:
        if path.is_file() and not os.access(path, os.W_OK):
            raise SinkError(f"{path} cannot be overwritten: it is write-protected", "Choose another name.")
        parent = path if path.is_dir() else path.absolute().parent
        while not os.path.lexists(parent) and parent != parent.parent:
            parent = parent.parent
        if not parent.is_dir():
            raise SinkError(
                f"{path} cannot be written: {parent} is not a folder",
                "Choose a path whose folders exist or can be made.",
            )
        if not os.access(parent, os.W_OK | os.X_OK):
            raise SinkError(
                f"{path} cannot be written: no permission to write in {parent}",
                "Choose another folder, for example --output /tmp/out.mp4",
            )
        free = shutil.disk_usage(parent).free
    except SinkError:
        raise
    except OSError as error:
        raise write_error(path, error) from None
    if free < MIN_FREE_BYTES:
        raise SinkError(
            f"{path} cannot be written: {free / 2**20:.1f} MiB are free in {parent}, "
            f"at least {MIN_FREE_BYTES >> 20} MiB are needed",
            "Free some space or choose another disk.",
        )


def write_error(path: Path, error: Exception, kept: str = "") -> SinkError:
    """The SinkError for a failed write to ``path``; ``kept`` says what of it can still be used."""
    code = getattr(error, "errno", None)
    hint = "Choose another path."
    if code in (errno.ENOSPC, errno.EDQUOT):
        hint = "The disk is full: free some space, or write to another disk."
    elif code == errno.EFBIG:
        hint = "The file reached the largest size allowed here (see ulimit -f): write shorter files or raise the limit."
    elif code in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = "No permission to write there: choose another folder, for example --output /tmp/out.mp4"
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return SinkError(f"writing {path} failed: {reason}", f"{kept} {hint}".strip())


def make_folder(folder: Path) -> None:
    """Make ``folder`` and its parents. Raises SinkError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from None


class OutputFile:
    """A file for a muxer or lines: unbuffered, made at the first byte, frozen in its last good state by a failed write.

    The muxer writes indexes and patches earlier bytes when it finishes. After a failed write (disk full) that would
    turn a file that plays into one that doesn't, so from then on writes are accepted and thrown away, and the file is
    cut back to the last ``mark_good``. ``write`` never raises, since FFmpeg calls it; look at ``error``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.error: OSError | None = None
        self._fd = -1
        self._position = 0
        self._good_bytes = 0
        self._end = 0

    def write(self, data: bytes) -> int:
        if self.error is not None:
            self._position += len(data)
            return len(data)
        try:
            if self._fd < 0:
                self.path.absolute().parent.mkdir(parents=True, exist_ok=True)
                self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666)
            os.lseek(self._fd, self._position, os.SEEK_SET)
            view = memoryview(data)
            while view:
                written = os.write(self._fd, view)
                view = view[written:]
                self._position += written
        except OSError as error:
            self.error = error
            if self._fd >= 0:
                with contextlib.suppress(OSError):  # a device such as /dev/full can't be cut
                    os.ftruncate(self._fd, self._good_bytes)
            return len(data)
        self._end = max(self._end, self._position)
        return len(data)

    def mark_good(self) -> None:
        """What lies in the file now can be played as it is."""
        self._good_bytes = self._end

    @property
    def good_bytes(self) -> int:
        return self._good_bytes

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._end}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
