"""Where the zoo's checkpoints and the networks made of them lie on this machine, and what makes one trusted.

    ROOT/checkpoints/FILE        as published; FILE.json beside it is the receipt of its hash
    ROOT/checkpoints/FILE.part   a download that isn't finished; FILE.part.json says of what
    ROOT/engines/NAME-HxW-KEY.onnx
    ROOT/locks/

ROOT is $SEGCAM_CACHE, else $XDG_CACHE_HOME/segcam, else ~/.cache/segcam. Everything in it can be made again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from segcam.errors import ZooError
from segcam.networks.zoo import ZooEntry
from segcam.writing import whole_file

FOLDER_VARIABLE = "SEGCAM_CACHE"
_ELSEWHERE = f"Name a folder that can be written: export {FOLDER_VARIABLE}=/path/to/folder"
_BLOCK = 1 << 20


def root() -> Path:
    """The cache folder, which need not exist. Raises ZooError where there is neither a setting nor a home."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME", "")
    try:
        # The XDG specification wants relative paths ignored.
        return (Path(shared) if os.path.isabs(shared) else Path.home() / ".cache") / "segcam"
    except RuntimeError:
        raise ZooError("this user has no home folder to keep networks in", _ELSEWHERE) from None


def folder(name: str) -> Path:
    """The cache's folder ``checkpoints``, ``engines`` or ``locks``, made if need be. Raises ZooError."""
    path = root() / name
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise ZooError(f"the cache folder {path} cannot be written ({error.strerror})", _ELSEWHERE) from None
    return path


def no_room(error: OSError, path: Path) -> ZooError:
    """What to say when ``path`` could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ZooError(f"{path.parent}: the disk is full ({error.strerror})", f"Make room, or: {_ELSEWHERE}")
    return ZooError(f"{path} cannot be written ({error.strerror or error})", _ELSEWHERE)


@contextlib.contextmanager
def locked(name: str, say: Callable[[str], None]) -> Iterator[None]:
    """Only one process (or thread) at a time is in here for ``name``; others wait, and ``say`` so once.

    A lock goes with its process. Where the file system has none (some network folders), says so and goes on.
    """
    import fcntl

    path = folder("locks") / f"{name}.lock"
    try:
        file = path.open("ab")
    except OSError as error:
        raise no_room(error, path) from None
    with file:
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"another process is at work on {name}: waiting for it ...")
                fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            say(f"{path.parent} has no file locks ({error.strerror}): don't start two jobs on {name} at once")
        yield


@dataclass(frozen=True)
class Receipt:
    """What was found of a checkpoint when it was hashed. It holds as long as size and time of the file do."""

    sha256: str
    sha384: str
    bytes: int
    mtime_ns: int

    def fits(self, entry: ZooEntry) -> bool:
        """Whether this is the network's checkpoint, as far as its hashes are published."""
        return self.sha256.startswith(entry.sha256) and (not entry.sha384 or self.sha384 == entry.sha384)


def hashed(path: Path) -> Receipt:
    """Reads the whole file. Raises OSError."""
    with path.open("rb") as file:
        return _hashed(file)


def _hashed(file: BinaryIO) -> Receipt:
    short, long = hashlib.sha256(), hashlib.sha384()
    while block := file.read(_BLOCK):
        short.update(block)
        long.update(block)
    state = os.fstat(file.fileno())
    return Receipt(short.hexdigest(), long.hexdigest(), state.st_size, state.st_mtime_ns)


def checkpoint_path(entry: ZooEntry) -> Path:
    """Where the checkpoint lies, or would."""
    return root() / "checkpoints" / entry.file


def receipt(entry: ZooEntry) -> Receipt | None:
    """That of the file at ``checkpoint_path``, which may be a wrong one (``fits`` says); None where there is no file.

    A file that was put there by hand, or changed since, is hashed now. Raises ZooError if it cannot be read.
    """
    path = checkpoint_path(entry)
    try:
        state = path.stat()
        noted = _noted(path)
        if noted and (noted.bytes, noted.mtime_ns) == (state.st_size, state.st_mtime_ns):
            return noted
        found = hashed(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ZooError(
            f"{path} cannot be read ({error.strerror})", f"Remove it: segcam models remove {entry.name}"
        ) from None
    # A cache that can only be read is hashed at every start.
    with contextlib.suppress(OSError):
        _note(path, found)
    return found


def _receipt_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _noted(path: Path) -> Receipt | None:
    try:
        document = json.loads(_receipt_path(path).read_text("utf-8"))
        noted = Receipt(**document)
    except (OSError, ValueError, TypeError):
        return None
    return noted if isinstance(noted.sha256, str) and isinstance(noted.sha384, str) else None


def _note(path: Path, found: Receipt) -> None:
    write_json(_receipt_path(path), asdict(found))


def _temporary(path: Path) -> Path:
    return path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")


def write_json(path: Path, document: object) -> None:
    """Whole or not at all. Raises OSError."""
    with whole_file(path, sync=False) as temporary:
        temporary.write_text(json.dumps(document) + "\n", "utf-8")


def wrong_file(entry: ZooEntry, found: Receipt, what: str) -> ZooError:
    """What to say of a file that is not the network's checkpoint; ``what`` names the file."""
    if found.sha256.startswith(entry.sha256):
        kind, have, want = "SHA-384", found.sha384, entry.sha384
    else:
        kind, have, want = "SHA-256", found.sha256, entry.sha256
    begins = "" if kind == "SHA-384" or len(want) == 64 else " it to begin with"
    return ZooError(
        f"{what} is not the checkpoint of {entry.name}: its {kind} is {have} ({found.bytes} bytes), "
        f"expected{begins} {want}",
        f"The right file is published at {entry.url}",
    )


def admit(entry: ZooEntry, temporary: Path, what: str) -> Receipt:
    """Gives a complete file in the cache folder the checkpoint's name, if it is the checkpoint. Raises ZooError.

    ``what`` names the file in the message. A file that is not the checkpoint is removed.
    """
    try:
        with temporary.open("rb+") as file:
            found = _hashed(file)
            if found.fits(entry):
                os.fsync(file.fileno())
        if not found.fits(entry):
            temporary.unlink()
            raise wrong_file(entry, found, what)
        path = checkpoint_path(entry)
        temporary.replace(path)
        _note(path, found)
    except ZooError:
        raise
    except OSError as error:
        raise no_room(error, temporary) from None
    return found


def add(entry: ZooEntry, source: Path, say: Callable[[str], None]) -> Path:
    """Copies a checkpoint that came another way (a stick, another machine) into the cache. Raises ZooError.

    Its hash must be the published one; its name may be any.
    """
    target = folder("checkpoints") / entry.file
    try:
        size = source.stat().st_size
        if source.is_dir() or size > entry.largest_bytes:
            about = "about " if entry.bytes_approximate else ""
            found = "a folder" if source.is_dir() else f"{size} bytes long"
            raise ZooError(
                f"{source} is {found}: the checkpoint of {entry.name} is a file of {about}{entry.bytes} bytes",
                f"The right file is published at {entry.url}",
            )
    except OSError as error:
        if isinstance(error, ZooError):
            raise
        raise ZooError(
            f"{source} cannot be read ({error.strerror})", f"segcam models add {entry.name} PATH/{entry.file}"
        ) from None
    with locked(entry.file, say):
        temporary = _temporary(target)
        try:
            try:
                shutil.copyfile(source, temporary)
            except OSError as error:
                raise no_room(error, temporary) from None
            admit(entry, temporary, str(source))
        finally:
            temporary.unlink(missing_ok=True)
    return target


def exports(entry: ZooEntry) -> list[Path]:
    """The finished networks made of this checkpoint, of any size and any version of Segcam."""
    made = re.compile(rf"{entry.name}-\d+x\d+-[0-9a-f]+\.onnx")
    return sorted(path for path in (root() / "engines").glob("*.onnx") if made.fullmatch(path.name))


def remove(entry: ZooEntry, say: Callable[[str], None]) -> list[Path]:
    """Takes the checkpoint (finished or not) and its finished networks off this machine; returns what went."""
    path = checkpoint_path(entry)
    gone: list[Path] = []
    if not root().is_dir():
        return gone
    with locked(entry.file, say):
        beside = [_receipt_path(path), Path(f"{path}.part.json"), *path.parent.glob(f"{path.name}.*.tmp")]
        for file in [path, Path(f"{path}.part"), *exports(entry), *beside]:
            try:
                file.unlink()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise ZooError(f"{file} cannot be removed ({error.strerror})", "See who owns it: ls -l") from None
            if file not in beside:
                gone.append(file)
    return gone
