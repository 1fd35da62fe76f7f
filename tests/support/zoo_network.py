"""A network of a zoo of its own that really works: random weights in a checkpoint on a server on loopback."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from checkpoint_files import safetensors_bytes
from zoo_server import Server, zoo_text

from segcam.networks.architecture import NetworkOptions, expected_tensors
from segcam.networks.state import random_state


def random_checkpoint(seed: int = 0) -> bytes:
    """Fast-SCNN's 19 classes: 5.6 MB."""
    expected = expected_tensors(NetworkOptions("FastSCNN"))
    return safetensors_bytes(
        {key: np.asarray(value, np.float32) for key, value in random_state(expected, seed).items()}
    )


@pytest.fixture(scope="session")
def checkpoint_bytes() -> bytes:
    return random_checkpoint()


@pytest.fixture
def own_zoo(
    server: Server, own_cache: Path, checkpoint_bytes: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The environment's zoo has the one network ``tiny`` (alias ``wee``), 64x96, at ``/tiny.safetensors``.

    Returns the table's path.
    """
    server.serve("tiny.safetensors", checkpoint_bytes)
    table = tmp_path / "own" / "zoo.toml"
    table.parent.mkdir()
    words = {"classes": "cityscapes", "miou": 50.5, "gflops": 0.1, "weights_license": "nobody's", "dataset": "noise"}
    table.write_text(zoo_text(f"{server.url}/tiny.safetensors", checkpoint_bytes, **words))
    monkeypatch.setenv("SEGCAM_ZOO", str(table))
    return table
