"""Where products lie: a plan or a prepared network always with what says what it is, each whole, one build at a time.

The record (a plan's manifest, a network's report) gets its name first, the product last. So there is never a product
without a record. A machine that stops between the two leaves the new record beside the old product, whose hash is
another: a plan is then refused when it is loaded, and both are built again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from segcam.errors import EngineError, SegcamError, SinkError
from segcam.networks import cache
from segcam.sinks.files import check_writable, make_folder, write_error

#: Free space that a build wants, by the size of its source.
_TIMES = 3


def check_output(path: Path, source_bytes: int) -> None:
    """Raise EngineError unless a product of a source of so many bytes can be written to ``path``. Makes nothing."""
    if path.is_dir():
        raise EngineError(
            f"the output {path} is a folder", f"Name a file in it: {path / ('network' + path.suffix.lower())}"
        )
    try:
        check_writable(path)
    except SinkError as error:
        raise EngineError(error.message, "Give another name with --output.") from None
    folder = path.absolute().parent
    while not folder.is_dir():
        folder = folder.parent
    free, wanted = shutil.disk_usage(folder).free, _TIMES * source_bytes
    if free < wanted:
        raise EngineError(
            f"{path}: {free / 2**20:.0f} MiB are free there, and a build of {source_bytes / 2**20:.0f} MiB wants "
            f"{wanted / 2**20:.0f}",
            "Free some space, or name another disk with --output.",
        )


@contextmanager
def building(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Only one build at a time is in here for ``path``; others wait, and ``say`` so once. What an earlier one that was
    killed left half-written is removed."""
    with cache.locked(f"{path.name[:40]}-{_key(path)}", say):
        for left in leftovers(path):
            with contextlib.suppress(OSError):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield


@contextmanager
def work_folder(path: Path) -> Iterator[Path]:
    """A folder for what a build of ``path`` needs meanwhile, on the same disk, gone afterwards. Raises EngineError."""
    try:
        make_folder(path.absolute().parent)
        folder = Path(tempfile.mkdtemp(prefix=_temporary_prefix(path), dir=path.absolute().parent))
    except (SinkError, OSError) as error:
        raise _unwritable(path, error) from None
    try:
        yield folder
    except OSError as error:
        if isinstance(error, SegcamError):
            raise
        raise _unwritable(path, error) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def leftovers(path: Path) -> list[Path]:
    """Temporary files and folders of builds of ``path``, of those at work and those that were killed."""
    folder = path.absolute().parent
    prefix = _temporary_prefix(path)
    return sorted(file for file in folder.iterdir() if file.name.startswith(prefix)) if folder.is_dir() else []


def write_pair(product: Path, data: bytes, record: Path, text: str) -> None:
    """``data`` as ``product`` and ``text`` as ``record`` beside it, both or neither; they replace what was there.

    Both are written under other names and synced before the first gets its own. Raises EngineError.
    """
    prefix = f"{_temporary_prefix(product)}{os.getpid()}-"
    parts = [product.with_name(prefix + word) for word in ("record", "product")]
    try:
        make_folder(product.absolute().parent)
        for part, content in zip(parts, (text.encode("utf-8"), data), strict=True):
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        before = record.read_bytes() if record.is_file() else None
        try:
            parts[0].replace(record)
            parts[1].replace(product)
        except BaseException:
            # Ctrl-C may come at any line: what has been renamed is told by what is no longer there.
            if not parts[0].exists() and parts[1].exists():
                _put_back(record, before, parts[0])
            raise
        _sync_folder(product.absolute().parent)
    except OSError as error:
        raise _unwritable(product, error) from None
    finally:
        for part in parts:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> EngineError:
    failed = error if isinstance(error, SinkError) else write_error(path, error)
    return EngineError(failed.message, "Free some space, or give another name with --output.")


def _put_back(record: Path, before: bytes | None, part: Path) -> None:
    """The product kept its old name, so the record must be the old one, too, or none."""
    with contextlib.suppress(OSError):
        if before is None:
            record.unlink(missing_ok=True)
        else:
            part.write_bytes(before)
            part.replace(record)


def _temporary_prefix(path: Path) -> str:
    return f".{path.name[:40]}.{_key(path)}.building-"


def _key(path: Path) -> str:
    """Of one output; a name that is too long to be part of others is cut off there."""
    return hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:12]


def _sync_folder(folder: Path) -> None:
    """The names themselves are on the disk. Some file systems have no such thing."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
