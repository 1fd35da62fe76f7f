"""What a type checker tells somebody who writes a program with Segcam."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SNIPPET = """
import numpy as np
from pathlib import Path
from PIL import Image
import segcam

with segcam.Segmenter("net.onnx", runtime="openvino", size=(512, 1024)) as net:
    reveal_type(net.predict("street.jpg"))
    reveal_type(net.predict(Path("street.jpg")))
    reveal_type(net.predict(np.zeros((4, 4, 3), np.uint8)))
    reveal_type(net.predict(Image.new("RGB", (4, 4))))
    reveal_type(net.predict(["a.jpg", "b.jpg"], size="network"))
    reveal_type(net.predict([np.zeros((4, 4, 3), np.uint8)], size=(4, 4)))
    for found in net.stream("dashcam.mp4", frames=3):
        reveal_type(found.labels)
        reveal_type(found.frame.bgr())
    reveal_type(segcam.colorize(found.labels))
    reveal_type(segcam.blend(segcam.colorize(found.labels), found.labels, classes=net.classes))
"""


def test_types_are_there_for_callers(tmp_path: Path, repository: Path) -> None:
    mypy = pytest.importorskip("mypy.api")
    script = tmp_path / "user.py"
    script.write_text(SNIPPET)
    os.environ["MYPYPATH"] = str(repository / "app")
    try:
        out, err, status = mypy.run(
            ["--strict", "--config-file", os.devnull, "--cache-dir", str(tmp_path / "cache"),
             "--follow-imports", "silent", "--ignore-missing-imports", str(script)]
        )  # fmt: skip
    finally:
        del os.environ["MYPYPATH"]
    assert status == 0, out + err
    shown = [line for line in out.splitlines() if "Revealed type" in line]
    assert len(shown) == 10
    for line in shown:
        assert "Any, ...], numpy.dtype[" in line or "ndarray" in line
        assert "unsignedinteger" in line
    assert ["list[" in line for line in shown] == [False] * 4 + [True] * 2 + [False] * 4
