"""``--engine demo``."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from segcam.errors import EngineError
from segcam.networks import shipped
from segcam.onnx_tools.spec import METADATA_KEY
from segcam.zoo_engine import resolve_engine


def silent(line: str) -> None:
    raise AssertionError(line)


def test_the_word_means_the_network_in_the_checkout(repository: Path, own_cache: Path) -> None:
    path = resolve_engine("demo", None, silent)
    assert path == repository / "engines" / shipped.FILE
    assert resolve_engine("Demo", None, silent, offline=True) == path
    assert path.stat().st_size < 5e6
    assert METADATA_KEY in {entry.key for entry in onnx.load(path).metadata_props}


def test_a_file_of_that_name_goes_first_and_a_folder_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("demo").mkdir()
    assert resolve_engine("demo", None, silent).name == shipped.FILE
    Path("demo").rmdir()
    Path("demo").write_bytes(b"a network that somebody called so")
    assert resolve_engine("demo", None, silent) == Path("demo")


def test_an_installed_package_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "site-packages" / "segcam" / "networks" / "shipped.py"
    module.parent.mkdir(parents=True)
    monkeypatch.setattr(shipped, "__file__", str(module))
    with pytest.raises(EngineError, match="not in this installation") as caught:
        shipped.demo_model()
    assert "pip install" in caught.value.hint
    module.with_name(shipped.FILE).touch()
    assert shipped.demo_model() == module.with_name(shipped.FILE).resolve()


def test_nearly_the_word(own_cache: Path) -> None:
    with pytest.raises(EngineError) as caught:
        resolve_engine("dmeo", None, silent)
    assert caught.value.hint.startswith("Did you mean demo?")
