"""The contact sheet: some frames of the drive, what the network makes of them, and what is true."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segcam.classes import ClassTable
from segcam.demo.score import Shown
from segcam.evaluation.picture import key, panel


def contact_sheet(shown: Sequence[Shown], table: ClassTable) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, blue first: a row for each frame (picture, overlay, true classes), below it the colours' names.

    ``shown`` has at least one frame, all of them of one size. The true classes are ids of ``table``.
    """
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(table)] = table.colors_rgb()[:, ::-1]
    rows = [
        np.hstack(
            [
                panel(one.picture, f"frame {one.number}, {one.time_s:.2f} s"),
                panel(one.overlay, f"what the network says: {one.right:.1%} of the pixels right"),
                panel(palette[one.truth], "what is true"),
            ]
        )
        for one in shown
    ]
    found = np.unique(np.concatenate([np.unique(one.truth) for one in shown]))
    return np.vstack([*rows, *key(found, table, rows[0].shape[1])])


def spread_out(frames: int, rows: int) -> list[int]:
    """``rows`` numbers (fewer where there are fewer frames) that lie evenly in 0 .. ``frames`` - 1, both ends in it."""
    count = min(rows, frames)
    return sorted({round(place) for place in np.linspace(0, frames - 1, count)}) if count else []
