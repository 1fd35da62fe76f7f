from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from zoo_network import random_checkpoint
from zoo_server import Server, zoo_text

import segcam
from segcam import exporter, zoo_engine
from segcam.errors import CheckpointError, EngineError, UsageError, ZooError
from segcam.networks import cache, zoo
from segcam.zoo_engine import resolve_engine


def silent(line: str) -> None:
    raise AssertionError(line)


@pytest.mark.parametrize(
    "name", ["net.onnx", "tiny.onnx", "folder/mobilev3small_f128", "./tiny", "/tiny", "what is this"]
)
def test_what_looks_like_a_file_is_one(own_zoo: Path, name: str) -> None:
    assert resolve_engine(name, None, silent) == Path(name)


def test_a_file_goes_before_the_zoo_and_a_folder_does_not(
    own_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny").write_bytes(b"an odd name for a network")
    assert resolve_engine("tiny", None, silent) == Path("tiny")
    Path("tiny").unlink()
    Path("tiny").mkdir()
    assert resolve_engine("tiny", None, lambda line: None).suffix == ".onnx"


def test_nearly_a_name(own_zoo: Path) -> None:
    with pytest.raises(EngineError, match="there is no file tyny, and no network of the zoo is called that") as caught:
        resolve_engine("tyny", None, silent)
    assert caught.value.hint == "Did you mean tiny? See: segcam models"


def test_pulled_exported_and_kept(own_zoo: Path, server: Server) -> None:
    said: list[str] = []
    path = resolve_engine("tiny", None, said.append)
    assert path.parent == cache.root() / "engines" and path.name.startswith("tiny-64x96-")
    assert said[0].startswith("fetching tiny: 5.7 MB from http://127.0.0.1")
    assert said[1:] == ["  its weights: nobody's", "  checked: SHA-256", "exporting tiny for 96x64 pictures, once ..."]
    dims = onnx.load(path).graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims] == [1, 3, 64, 96]
    before = path.stat()
    assert resolve_engine("tiny", None, silent) == path, "a second time neither fetches nor exports"
    assert (path.stat().st_mtime_ns, len(server.seen)) == (before.st_mtime_ns, 1)
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name]


def test_an_alias_is_the_same_network(own_zoo: Path) -> None:
    path = resolve_engine("tiny", None, lambda line: None)
    assert resolve_engine("wee", None, silent) == resolve_engine("TINY", None, silent) == path


def test_each_size_is_kept_by_itself(own_zoo: Path) -> None:
    paths = [resolve_engine("tiny", size, lambda line: None) for size in (None, (96, 64), (64, 96))]
    assert paths[0] == paths[2] != paths[1]
    assert paths[1].name.startswith("tiny-96x64-")
    assert len(cache.exports(zoo.entries()[0])) == 2


def test_whatever_the_file_depends_on_makes_a_new_one(
    own_zoo: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {resolve_engine("tiny", None, lambda line: None)}
    monkeypatch.setattr(zoo_engine, "exporter_revision", lambda: "another")
    made.add(resolve_engine("tiny", None, lambda line: None))
    body = random_checkpoint(1)
    server.serve("tiny.safetensors", body)
    own_zoo.write_text(zoo_text(f"{server.url}/tiny.safetensors", body, classes="cityscapes"))
    made.add(resolve_engine("tiny", None, lambda line: None))
    assert len(made) == 3
    weights = [{w.name: w.raw_data for w in onnx.load(path).graph.initializer} for path in made]
    assert len({hashlib.sha256(b"".join(found.values())).digest() for found in weights}) == 2


def test_the_revision_follows_the_exporters_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert zoo_engine.exporter_revision().startswith(f"{segcam.__version__}-")
    (tmp_path / "networks").mkdir()
    monkeypatch.setattr(zoo_engine, "__file__", str(tmp_path / "zoo_engine.py"))
    seen = set()
    for name in ("exporter.py", "networks/heads.py", "onnx_tools/a/b.py", "cli/main.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("pass\n")
        seen.add(zoo_engine.exporter_revision.__wrapped__())
    assert len(seen) == 3, "the command line writes nothing into a network"


def test_every_part_that_export_imports_is_in_the_revision() -> None:
    """Parts of the package that the exporter draws on, besides what only reads, writes or words things."""
    import ast

    tree = ast.parse(Path(exporter.__file__).read_text(encoding="utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    parts = {module.split(".")[1] for module in modules if module.startswith("segcam.")}
    covered = {pattern.split("/")[0].removesuffix(".py") for pattern in zoo_engine._EXPORTER}
    assert parts - covered <= {"errors", "config", "sinks"}


def test_a_size_that_cannot_be_is_said_before_anything_is_fetched(own_cache: Path) -> None:
    with pytest.raises(UsageError, match="at least 385x385 pixels, not 384x1024"):
        resolve_engine("mobilev3small_f64", (384, 1024), silent)
    assert not own_cache.exists()


@pytest.mark.parametrize(("good", "words"), [(True, {"num_classes": 18}), (False, {})])
def test_an_export_that_fails_leaves_nothing_to_be_mistaken(
    own_zoo: Path, server: Server, checkpoint_bytes: bytes, good: bool, words: dict[str, int]
) -> None:
    body = checkpoint_bytes if good else b"these are no tensors" * 100
    server.serve("tiny.safetensors", body)
    own_zoo.write_text(zoo_text(f"{server.url}/tiny.safetensors", body, **words))
    with pytest.raises(CheckpointError):
        resolve_engine("tiny", None, lambda line: None)
    assert not list((cache.root() / "engines").iterdir())


def test_starts_at_the_same_time_export_once(own_zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count, found = 0, []
    real = exporter.export

    def counted(*arguments: object, **more: object) -> object:
        nonlocal count
        count += 1
        return real(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(exporter, "export", counted)
    threads = [
        threading.Thread(target=lambda: found.append(resolve_engine("tiny", None, lambda line: None))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 3 and len(set(found)) == 1
    assert count == 1


def test_offline_takes_what_is_here(own_zoo: Path, server: Server) -> None:
    with pytest.raises(ZooError, match="told to stay offline"):
        resolve_engine("tiny", None, silent, offline=True)
    path = resolve_engine("tiny", None, lambda line: None)
    assert resolve_engine("tiny", None, silent, offline=True) == path
    assert len(server.seen) == 1


def test_a_segmenter_by_name(own_zoo: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    with segcam.Segmenter("tiny", precision="fp32") as network:
        labels = network.predict(picture)
        assert network.classes.names[0] == "road"
    with segcam.Segmenter(resolve_engine("tiny", None, silent), precision="fp32") as network:
        assert np.array_equal(network.predict(picture), labels)
    with segcam.Segmenter("tiny", precision="fp32", size=(96, 128)) as network:
        assert network.info.input_shape == (1, 3, 96, 128)
