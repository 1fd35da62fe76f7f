"""The demo's network, which comes with Segcam: ``--engine demo``."""

from __future__ import annotations

from pathlib import Path

from segcam.errors import EngineError

#: What ``--engine`` calls it, and its file.
NAME = "demo"
FILE = "demo_street_f64.onnx"


def demo_model() -> Path:
    """The file: in an installed package beside this module, in a checkout in ``engines/``. Raises EngineError."""
    here = Path(__file__).resolve()
    for path in (here.with_name(FILE), here.parents[3] / "engines" / FILE):
        if path.is_file():
            return path
    raise EngineError(
        f"the demo's network {FILE} is not in this installation ({here.parent})",
        "Install Segcam again (pip install --force-reinstall --no-deps segcam); in a checkout: git checkout engines",
    )
