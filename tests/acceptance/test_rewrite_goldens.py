"""The originals' scores through every rewrite that a runtime gets, large pictures' rewrites at small sizes too."""

from __future__ import annotations

from pathlib import Path

import pytest
from golden_networks import GOLDENS, Golden, golden_weights, network_input, run

from segcam.networks.architecture import build
from segcam.onnx_tools.rewrite import BY_RUNTIME, Runtime, gates, phases, pools, pyramid, rewrite, strips

FILES = sorted(GOLDENS.glob("*.npz"))


@pytest.fixture
def at_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rewrites that pay for large pictures only, wherever their pattern is."""
    eager = {
        runtime: phases.Gains(1e3, 1e3, 1.0, interleaved=gains.interleaved) for runtime, gains in phases.GAINS.items()
    }
    monkeypatch.setattr(phases, "GAINS", eager)
    monkeypatch.setattr(pools, "_FEW", 0)
    monkeypatch.setattr(pyramid.run, "__defaults__", (1,))
    monkeypatch.setattr(gates.run, "__defaults__", (1,))
    monkeypatch.setattr(strips.run, "__defaults__", (1, 100_000))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("runtime", list(BY_RUNTIME))
@pytest.mark.usefixtures("at_any_size")
def test_scores_are_the_originals(path: Path, runtime: Runtime) -> None:
    golden = Golden.read(path)
    made = rewrite(build(golden.options, golden_weights(golden.weights)), runtime=runtime, check=False)
    height, width = golden.size
    expected = set()
    if golden.options.model.startswith("MobileV3"):
        expected |= {"linear", *(["gates"] if runtime == "onnxruntime" else [])}
        # Each of these needs sides that divide.
        if runtime == "openvino" and -(-height // 2) == 2 * -(-height // 4):
            expected.add("strips")
        if -(-height // 8) % 4 == 0 == -(-width // 8) % 4:
            expected.add("phases")
    elif min(golden.size) > 100:
        expected.add("pyramid")
    assert expected <= set(made.done)
    golden.check(run(made.model, runtime, network_input(*golden.size))[0])
