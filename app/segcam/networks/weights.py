"""Where a network's weights come from: a checkpoint, the zoo, or a seed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from segcam.errors import UsageError
from segcam.networks.architecture import NetworkOptions, expected_tensors, idle_tensors
from segcam.networks.checkpoint import read_checkpoint
from segcam.networks.state import fitting_options, match_state, random_state
from segcam.networks.zoo import ZooEntry

_FASTSEG = ("MobileV3Small", "MobileV3Large")


@dataclass(frozen=True, eq=False)
class Weights:
    """``tensors`` are float32 by key. ``source`` goes into the file's metadata, ``words`` is the same for people.
    ``noted`` is what else stood in the checkpoint."""

    tensors: Mapping[str, np.ndarray[Any, Any]]
    source: dict[str, Any]
    words: str
    noted: Mapping[str, object] = field(default_factory=dict)


def find_weights(
    options: NetworkOptions,
    entry: ZooEntry | None,
    checkpoint: str | os.PathLike[str] | None,
    init: str | None,
    seed: int,
    unasked: Collection[str],
    say: Callable[[str], None],
) -> tuple[Weights, NetworkOptions]:
    """The tensors of the network, and ``options`` as the checkpoint has them in what is ``unasked``.

    ``init`` makes random ones from ``seed``; else ``checkpoint`` is read; else the zoo's, fetched if need be.
    ``unasked`` holds ``num_filters`` or ``num_classes`` where nobody asked for a number. Raises UsageError where there
    are no weights, CheckpointError for a checkpoint that isn't this network's, ZooError.
    """
    if init:
        words = f"random (seed {seed}): UNTRAINED"
        return Weights(random_state(expected_tensors(options), seed), {"init": init, "seed": seed}, words), options
    if checkpoint is not None:
        path = Path(checkpoint)
        found = read_checkpoint(path)
        # The zoo's name says how many filters there are; classes are what people change.
        options = _as_found(options, found.tensors, [name for name in unasked if not entry or name == "num_classes"])
    elif entry is not None:
        _check_entry(options, entry)
        from segcam.networks.download import pull

        path = pull(entry, say)
        found = read_checkpoint(path)
    else:
        raise UsageError(
            f"no weights for {options.model}: --checkpoint is missing",
            "Give --checkpoint FILE, a name of the zoo (segcam models lists them), or --init random: untrained.",
        )
    tensors = match_state(found.tensors, expected_tensors(options), idle_tensors(options), title(options))
    digest = _sha256(path)
    words = f"{path.name} ({found.wrapper}), SHA-256 {digest[:16]}..."
    return Weights(tensors, {"file": path.name, "sha256": digest}, words, found.metadata), options


def title(options: NetworkOptions) -> str:
    """The network for people: name, filters where it has such, classes."""
    filters = f"{options.num_filters} filters, " if options.model in _FASTSEG else ""
    return f"{options.model}, {filters}{options.num_classes} classes"


def _as_found(
    options: NetworkOptions, tensors: Mapping[str, np.ndarray[Any, Any]], unasked: Collection[str]
) -> NetworkOptions:
    """As the tensors say, where they are those of ``options.model``; else ``match_state`` will say what they are."""
    fits = fitting_options(tensors)
    if fits is None or fits["model"] != options.model:
        return options
    found: dict[str, Any] = {name: fits[name] for name in unasked if name in fits}
    return replace(options, **found)


def _check_entry(options: NetworkOptions, entry: ZooEntry) -> None:
    asked, there = title(options), title(replace(options, num_filters=entry.num_filters, num_classes=entry.num_classes))
    if asked != there:
        raise UsageError(
            f"{asked}: the zoo's {entry.name} is {there}",
            "Leave --num-filters and --num-classes out, or give your own --checkpoint.",
        )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
