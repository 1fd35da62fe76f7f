"""Exact rewrites of any ONNX graph: the same function in real arithmetic, computed in less time."""

from __future__ import annotations

from segcam.onnx_tools.rewrite.passes import (
    BY_RUNTIME,
    EVERYWHERE,
    METADATA_KEY,
    PASSES,
    PRODUCER,
    Rewritten,
    Runtime,
    rewrite,
    rewrites_of,
)

__all__ = [
    "BY_RUNTIME",
    "EVERYWHERE",
    "METADATA_KEY",
    "PASSES",
    "PRODUCER",
    "Rewritten",
    "Runtime",
    "rewrite",
    "rewrites_of",
]
