"""From a name of the zoo to its checkpoint on this machine: fetched once, checked, kept."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from segcam.errors import ZooError
from segcam.networks import cache
from segcam.networks.transfer import Download, Progress, without_login
from segcam.networks.zoo import ZooEntry

#: Set (to anything but 0), nothing is fetched.
OFFLINE_VARIABLE = "SEGCAM_OFFLINE"
#: An address that the files' names are put behind, in place of those of the table: for closed networks.
MIRROR_VARIABLE = "SEGCAM_ZOO_MIRROR"


def address(entry: ZooEntry) -> str:
    """Where the checkpoint is fetched from: the table's address, or the mirror's."""
    mirror = os.environ.get(MIRROR_VARIABLE)
    return f"{mirror.rstrip('/')}/{entry.file}" if mirror else entry.url


def is_offline() -> bool:
    """Whether the environment forbids fetching."""
    return os.environ.get(OFFLINE_VARIABLE, "0") not in ("", "0")


def pull(
    entry: ZooEntry,
    say: Callable[[str], None],
    *,
    force: bool = False,
    offline: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """The checkpoint's path, fetched first if it is not on this machine; ``force`` fetches it anew in any case.

    ``say`` gets a line for each thing that takes time or deserves to be known; a bar is shown where standard error is
    a terminal. The file has its name only once its hash is that of the table. Raises ZooError.
    """
    path = cache.checkpoint_path(entry)
    found = cache.receipt(entry)
    if found and found.fits(entry) and not force:
        return path
    if offline or is_offline():
        if found and not found.fits(entry):
            raise cache.wrong_file(entry, found, str(path))
        raise _offline(entry, "not fetched anew" if found else "not on this machine")
    cache.folder("checkpoints")
    with cache.locked(entry.file, say):
        # Another process may have fetched it while this one waited.
        found = cache.receipt(entry)
        if found and found.fits(entry) and not force:
            return path
        if found and not found.fits(entry):
            say(f"{cache.wrong_file(entry, found, str(path)).message}: fetching it anew")
        url = address(entry)
        about = "about " if entry.bytes_approximate else ""
        say(f"fetching {entry.name}: {about}{entry.bytes / 1e6:.1f} MB from {without_login(url)}")
        if entry.weights_license:
            say(f"  its weights: {entry.weights_license}")
        with bar(entry.name) as progress:
            size = None if entry.bytes_approximate else entry.bytes
            part = path.with_name(path.name + ".part")
            _fetch(entry, Download(url, part, size, entry.largest_bytes, say, progress, sleep), force)
        if entry.hash_bits < 256:
            say(f"  checked: the first {entry.hash_bits} bits of its SHA-256, which is all that is published of it")
        else:
            say(f"  checked: {'SHA-384' if entry.hash_bits == 384 else 'SHA-256'}")
    return path


def _fetch(entry: ZooEntry, download: Download, force: bool) -> None:
    if force:
        download.discard()
    resumed = download.part.exists()
    if resumed:
        download.say(f"  going on after the {download.part.stat().st_size / 1e6:.1f} MB that are here")
    try:
        download.run()
        try:
            cache.admit(entry, download.part, download.shown)
        except ZooError as error:
            if not resumed or download.part.exists():
                raise
            # The parts may be of two versions of the file: a whole one gets a chance.
            download.say(f"{error.message}: once more, from the start")
            download.discard()
            download.run()
            cache.admit(entry, download.part, download.shown)
    except ZooError as error:
        error.hint = f"{error.hint}\n  Or bring the file another way: segcam models add {entry.name} FILE".lstrip()
        raise
    finally:
        if not download.part.exists():
            download.discard()


def _offline(entry: ZooEntry, what: str) -> ZooError:
    return ZooError(
        f"the checkpoint of {entry.name} is {what}, since Segcam is told to stay offline",
        f"On a machine with a network: {without_login(address(entry))}\n"
        f"  Then here: segcam models add {entry.name} {entry.file}",
    )


@contextlib.contextmanager
def bar(title: str) -> Iterator[Progress]:
    """What is there, how fast it comes and how long it will take, on a terminal; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as RichBar

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with RichBar(TextColumn("{task.description}"), *columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(title, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)
