"""From a name of the zoo to an ONNX file on this machine: fetched, exported and kept, each once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from segcam import __version__
from segcam.config import nearest
from segcam.errors import EngineError
from segcam.networks import cache, shipped, zoo
from segcam.networks.download import pull

#: What an exported file depends on besides its checkpoint and options, within the package.
_EXPORTER = ("exporter.py", "classes.py", "networks/**/*.py", "onnx_tools/**/*.py")


def resolve_engine(
    name: str, size: tuple[int, int] | None, say: Callable[[str], None], *, offline: bool = False
) -> Path:
    """The file that ``name`` means: itself where it is a file or looks like one, the demo's network for ``demo``, else
    the zoo's network of that name.

    A network is exported at ``size`` (height, width; None: the zoo's) and kept in the cache under a name that changes
    with the checkpoint, the size, the options and the exporter; a second start takes it from there. ``say`` gets a line
    for each thing that takes time. Raises ZooError, UsageError (a size that the network cannot take), CheckpointError,
    EngineError for what is nearly a name of the zoo.
    """
    path = Path(name)
    if path.is_file() or path.suffix or os.path.basename(name) != name:
        return path
    if name.lower() == shipped.NAME:
        return shipped.demo_model()
    entry = zoo.find(name)
    if entry is None:
        hint = nearest(name.lower(), [*zoo.names(), shipped.NAME], " ")
        if path.exists() or hint == " ":
            return path
        raise EngineError(
            f"there is no file {name}, and no network of the zoo is called that", f"{hint} See: segcam models"
        )
    if size:
        _check_size(entry, size)
    checkpoint = pull(entry, say, offline=offline)
    return exported(entry, checkpoint, size or entry.size, say)


def _check_size(entry: zoo.ZooEntry, size: tuple[int, int]) -> None:
    """A size that the network cannot take is said before anything is fetched."""
    from segcam.networks.architecture import NetworkOptions, expected_tensors

    expected_tensors(NetworkOptions(entry.model, entry.num_classes, entry.num_filters, size))


def exported(entry: zoo.ZooEntry, checkpoint: Path, size: tuple[int, int], say: Callable[[str], None]) -> Path:
    """The network of ``checkpoint`` at ``size`` (height, width) from the cache, exported now if it is not there."""
    found = cache.receipt(entry)
    options = [entry.model, entry.num_filters, entry.num_classes, entry.adaptive_pool, entry.classes]
    key = json.dumps([found.sha256 if found else "", *options, exporter_revision()])
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    name = f"{entry.name}-{size[0]}x{size[1]}-{digest}.onnx"
    path = cache.root() / "engines" / name
    if path.is_file():
        return path
    cache.folder("engines")
    with cache.locked(name, say):
        # Another process may have made it while this one waited.
        if path.is_file():
            return path
        say(f"exporting {entry.asked} for {size[1]}x{size[0]} pictures, once ...")
        from segcam.exporter import export

        export(path, entry.asked, num_classes=entry.num_classes, size=size, checkpoint=checkpoint, warn=say)
    return path


@lru_cache(maxsize=1)
def exporter_revision() -> str:
    """Changes whenever another exporter could write another file: the version and a hash of the exporter's own text."""
    package = Path(__file__).parent
    text = hashlib.sha256()
    for path in sorted({path for pattern in _EXPORTER for path in package.glob(pattern)}):
        text.update(path.read_bytes())
    return f"{__version__}-{text.hexdigest()}"
