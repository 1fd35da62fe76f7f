"""Files that are whole as soon as they have their name."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """A temporary path in the folder of ``path``, to be written; it becomes ``path`` when the block ends well.

    What was at ``path`` stays until then, and for good where the block raises or is interrupted: nothing half-written
    has the name, and no temporary file is left. ``sync``: the bytes are on the disk before the name changes, so that a
    power cut cannot leave an empty file under it. The temporary name differs by process and thread. Raises OSError.
    """
    # Fifty characters are at most 200 bytes: a name that may be given must not be too long with what is added.
    temporary = path.with_name(f".{path.name[:50]}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        yield temporary
        if sync:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
