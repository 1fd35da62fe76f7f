"""Where weights come from, and what a checkpoint says about its network."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_files import save

from segcam.errors import CheckpointError, UsageError
from segcam.networks.architecture import NetworkOptions, expected_tensors
from segcam.networks.state import random_state
from segcam.networks.weights import Weights, find_weights, title
from segcam.networks.zoo import find

SMALL = NetworkOptions("MobileV3Small", 7, 24, (512, 1024))
BOTH = ("num_filters", "num_classes")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """MobileV3Small with 24 filters and 7 classes."""
    path = tmp_path / "mine.safetensors"
    save(path, random_state(expected_tensors(SMALL), 4), "safetensors")
    return path


def look(options: NetworkOptions, checkpoint: Path | None = None, **more: Any) -> tuple[Weights, NetworkOptions]:
    words: dict[str, Any] = {"entry": None, "init": None, "seed": 0, "unasked": BOTH, "say": print, **more}
    return find_weights(options, checkpoint=checkpoint, **words)


def test_filters_and_classes_are_the_checkpoints_where_nobody_asked(checkpoint: Path) -> None:
    weights, options = look(NetworkOptions("MobileV3Small", size=(640, 640)), checkpoint)
    assert options == NetworkOptions("MobileV3Small", 7, 24, (640, 640))
    assert list(weights.tensors) == list(expected_tensors(SMALL))
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert weights.source == {"file": "mine.safetensors", "sha256": digest}
    assert weights.words.startswith("mine.safetensors (")
    assert digest[:16] in weights.words


def test_what_was_asked_for_is_what_is_expected(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="MobileV3Small, 128 filters, 7 classes"):
        look(NetworkOptions("MobileV3Small", num_filters=128), checkpoint, unasked=["num_classes"])


def test_another_network_is_not_taken_for_this_one(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="MobileV3Large, 128 filters, 19 classes"):
        look(NetworkOptions("MobileV3Large"), checkpoint)


def test_a_zoo_name_with_a_checkpoint_of_ones_own_may_have_other_classes_only(checkpoint: Path) -> None:
    entry = find("mobilev3small_f128")
    with pytest.raises(CheckpointError, match="MobileV3Small, 128 filters, 7 classes"):
        look(NetworkOptions("MobileV3Small"), checkpoint, entry=entry)


def test_random_ones_are_the_seeds() -> None:
    (first, options), (same, _), (other, _) = (look(SMALL, init="random", seed=seed) for seed in (3, 3, 4))
    assert options == SMALL
    assert first.source == {"init": "random", "seed": 3}
    assert "UNTRAINED" in first.words
    key = "last.weight"
    assert np.array_equal(first.tensors[key], same.tensors[key])
    assert not np.array_equal(first.tensors[key], other.tensors[key])


def test_no_weights_at_all_names_the_ways_to_get_some() -> None:
    with pytest.raises(UsageError, match="no weights for MobileV3Small") as error:
        look(SMALL)
    for words in ("--checkpoint FILE", "--init random", "segcam models"):
        assert words in error.value.hint


def test_the_zoos_own_checkpoint_has_its_own_numbers() -> None:
    """Said before anything is fetched."""
    with pytest.raises(UsageError, match=r"64 filters, 19 classes: the zoo's mobilev3small_f128 is .*128 filters"):
        look(NetworkOptions("MobileV3Small", num_filters=64), entry=find("mobilev3small_f128"))


def test_titles() -> None:
    assert title(SMALL) == "MobileV3Small, 24 filters, 7 classes"
    assert title(NetworkOptions("PSPNet", 21)) == "PSPNet, 21 classes"
