"""Which class of a network is which class of the labels, or of another network: by name."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from segcam.classes import ClassTable, generic_table
from segcam.errors import UsageError
from segcam.evaluation.mapping import without_void

_MAPPING_HINT = (
    'Say in a --mapping FILE which is which: under [network] lines such as sidewalk = "pavement" (the network\'s name, '
    'then that of the labels); a class of the labels that the network lacks can be left out: 12 = "ignore".'
)


def columns_of(network: ClassTable, labels: ClassTable, renamed: Mapping[str, str], who: str) -> NDArray[np.intp]:
    """(256,): for each id of the network's class map the index into ``labels``; ``len(labels)`` for those that are none
    of them: void, an id beyond the table, a class that the labels don't have.

    ``renamed`` gives the network's names that have another name among the labels. Where either side has only numbered
    classes and both have as many, the numbers count. Raises UsageError, beginning with ``who``, for classes of the
    labels that no class of the network can become, and for names in ``renamed`` that don't exist.
    """
    columns = np.full(256, len(labels), np.intp)
    if is_numbered(network) or is_numbered(labels):
        kept = without_void(network)
        if len(kept) != len(labels) or renamed:
            raise UsageError(
                f"{who} has {len(kept)} classes and the labels have {len(labels)}, and not both have names",
                "Give the network a spec with the names of its classes: see 'Model specs' in the README.",
            )
        return own_columns(network)
    aliases = {network.index(name): labels.index(meant) for name, meant in renamed.items()}
    for index, name in enumerate(network.names):
        if index in network.void:
            continue
        found = aliases.get(index, _find(labels, name))
        if found is not None:
            columns[index] = found
    lacking = [name for index, name in enumerate(labels.names) if index not in columns]
    if lacking:
        raise UsageError(
            f"{who} has no class for {', '.join(lacking)}; it has: {', '.join(network.names)}", _MAPPING_HINT
        )
    return columns


def own_columns(network: ClassTable) -> NDArray[np.intp]:
    """(256,): for each id of the network's class map its place among those that are not void; for all others their
    number."""
    meaning = [index for index in range(len(network)) if index not in network.void]
    columns = np.full(256, len(meaning), np.intp)
    columns[meaning] = np.arange(len(meaning))
    return columns


def common_table(
    first: ClassTable, second: ClassTable, who: str
) -> tuple[ClassTable, NDArray[np.intp], NDArray[np.intp]]:
    """One table for two networks: the first one's classes, then those that only the second has; and for each network
    the (256,) index into it of its class map's ids, ``len(table)`` for no class.

    Raises UsageError where no class has a name that both know.
    """
    a, b = without_void(first), without_void(second)
    if is_numbered(first) or is_numbered(second):
        named = b if is_numbered(first) else a
        return named, columns_of(first, named, {}, who), columns_of(second, named, {}, who)
    extra = [index for index, name in enumerate(b.names) if _find(a, name) is None]
    if len(extra) == len(b):
        raise UsageError(
            f"{who}: the two networks have no class in common: {', '.join(a.names)}; {', '.join(b.names)}",
            "Compare networks of the same classes.",
        )
    table = ClassTable(
        (*a.names, *(b.names[index] for index in extra)), (*a.colors, *(b.colors[index] for index in extra))
    )
    return table, _places(first, table), _places(second, table)


def is_numbered(table: ClassTable) -> bool:
    """Whether nobody has named the classes."""
    return table.names == generic_table(len(table)).names


def _places(network: ClassTable, table: ClassTable) -> NDArray[np.intp]:
    columns = np.full(256, len(table), np.intp)
    for index, name in enumerate(network.names):
        if index not in network.void:
            columns[index] = table.index(name)
    return columns


def _find(table: ClassTable, name: str) -> int | None:
    try:
        return table.index(name)
    except UsageError:
        return None
