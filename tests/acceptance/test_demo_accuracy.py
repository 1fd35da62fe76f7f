"""The demo's network names eight fixed pictures as well as it did when it was recorded, whichever way they take; and
the same check sees a picture that is fed wrongly."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segcam.networks.shipped import demo_model

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from publish.card import card  # noqa: E402
from publish.figures import digest  # noqa: E402
from publish.paths import EIGHT, REFERENCE, WAYS, fed_wrongly, miou, pictures  # noqa: E402

WITHIN = 0.005
#: How much chroma of half the size, and x264 at its default quality, may cost.
LOSSES = {"street:": 0.01, "H.264 file (crf 23)": 0.03}


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((ROOT / "engines" / "demo_street_f64.json").read_text("utf-8"))
    return figures


def test_the_record_is_of_this_network_and_these_pictures(recorded: dict[str, Any]) -> None:
    assert recorded["file"]["sha256"] == digest(demo_model()), "scripts/publish_demo.py writes both"
    assert recorded["eight"]["pictures"] == [list(one) for one in EIGHT]
    assert list(recorded["eight"]["miou"]) == list(WAYS)
    assert (ROOT / "engines" / "demo_street_f64.md").read_text("utf-8") == card(recorded)
    assert (ROOT / "engines" / "demo.jpg").stat().st_size < 400_000
    counts = np.bincount(np.concatenate([labels.ravel() for _, labels in pictures()]), minlength=19)
    assert len(counts) == 19 and counts.min() > 0.003 * counts.sum(), "mIoU is of all classes, none of them by chance"


def test_no_way_was_much_worse_than_the_others_when_recorded(recorded: dict[str, Any]) -> None:
    values = recorded["eight"]["miou"]
    for way, value in values.items():
        assert abs(value - values[REFERENCE]) <= LOSSES.get(way, WITHIN), way


@pytest.mark.parametrize("way", WAYS)
def test_as_good_as_recorded(recorded: dict[str, Any], way: str, tmp_path: Path) -> None:
    values = recorded["eight"]["miou"]
    found = miou(demo_model(), way, tmp_path)
    # What "auto" means depends on the processor: it may be as good as fp32 instead.
    wanted = [values[way], values[REFERENCE]] if "auto" in way else [values[way]]
    assert min(abs(found - value) for value in wanted) <= WITHIN, (found, wanted)


@pytest.mark.parametrize("mistake", ["red and blue swapped", "not normalised", "only scaled to 0..1"])
def test_a_picture_fed_wrongly_is_far_from_it(recorded: dict[str, Any], mistake: str, tmp_path: Path) -> None:
    spec = tmp_path / "wrong.json"
    spec.write_text(fed_wrongly(demo_model())[mistake], "utf-8")
    found = miou(demo_model(), REFERENCE, tmp_path, spec)
    assert recorded["eight"]["miou"][REFERENCE] - found > 6 * WITHIN
