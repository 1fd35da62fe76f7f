from __future__ import annotations

from math import prod
from pathlib import Path

import pytest

from segcam.classes import TABLES
from segcam.errors import ZooError
from segcam.networks import zoo

pytestmark = pytest.mark.usefixtures("own_table")

ROW = """
zoo = 1
[[network]]
name = "mine"
model = "FastSCNN"
num_classes = 19
size = [64, 96]
parameters = 1
url = "https://example.org/a/mine.pth"
bytes = 10
sha256 = "0123456789abcdef"
"""


@pytest.fixture
def own_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(zoo.TABLE_VARIABLE, raising=False)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "zoo.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_name_of_the_issue_is_there() -> None:
    assert zoo.names() == [
        "mobilev3large_f256", "mobilev3large_f128", "fastseg-large", "mobilev3small_f256", "mobilev3small_f128",
        "fastseg-small", "mobilev3small_f64", "fast_scnn", "pspnet", "pspnet-pytorch",
    ]  # fmt: skip
    assert [entry.name for entry in zoo.entries()] == [name for name in zoo.names() if "-" not in name]


def test_open_model_zoos_names_are_the_same_checkpoints() -> None:
    for alias, name in (
        ("fastseg-small", "mobilev3small_f128"),
        ("fastseg-large", "mobilev3large_f128"),
        ("pspnet-pytorch", "pspnet"),
    ):
        by_alias, by_name = zoo.find(alias), zoo.find(name)
        assert by_alias is not None and by_name is not None
        assert (by_alias.name, by_alias.asked, by_name.asked) == (name, alias, name)
        assert (by_alias.url, by_alias.sha256, by_alias.model) == (by_name.url, by_name.sha256, by_name.model)
        assert by_alias.miou != by_name.miou
        assert "open_model_zoo" in by_alias.miou_source


def test_only_open_model_zoos_pspnet_pools_its_way() -> None:
    pools = {name: getattr(zoo.find(name), "adaptive_pool", None) for name in zoo.names()}
    assert {name for name, pool in pools.items() if pool == "omz"} == {"pspnet-pytorch"}
    assert set(pools.values()) == {"omz", "torch"}


def test_capitals_do_not_count_and_strangers_are_nobody() -> None:
    assert zoo.find("PSPNet") == zoo.find("pspnet")
    assert zoo.find("mobilev3small_f32") is None


@pytest.mark.parametrize("entry", zoo.read_table(zoo.OWN_TABLE).entries, ids=lambda entry: str(entry.name))
def test_each_entry_is_complete(entry: zoo.ZooEntry) -> None:
    assert entry.file.endswith((".pt", ".pth"))
    # The publishers of all seven put the first eight digits into the file's name.
    assert entry.file.rpartition("-")[2].partition(".")[0] == entry.sha256[:8]
    assert entry.hash_bits in (32, 256, 384)
    assert entry.url.startswith("https://")
    assert all(address.startswith("http") for address in (*entry.license_sources, entry.miou_source))
    assert entry.code_license in ("MIT", "Apache-2.0")
    assert "non-commercial" in entry.weights_license or entry.classes != "cityscapes"
    assert len(TABLES[entry.classes]) == entry.num_classes
    assert entry.miou is not None and 50 < entry.miou < 90
    # A float32 each; fastseg's files hold its optimizer's momentum as well.
    assert 4 * entry.parameters < entry.bytes < 8.5 * entry.parameters
    assert entry.largest_bytes == entry.bytes * (2 if entry.bytes_approximate else 1)


@pytest.mark.parametrize("name", zoo.read_table(zoo.OWN_TABLE).by_name)
def test_parameters_and_operations_are_those_of_the_graph(name: str) -> None:
    import numpy as np

    from segcam.networks.architecture import NetworkOptions, build, expected_tensors
    from segcam.onnx_tools.flops import count_work

    entry = zoo.find(name)
    assert entry is not None and entry.gflops is not None
    options = NetworkOptions(
        entry.model,
        num_classes=entry.num_classes,
        num_filters=entry.num_filters,
        size=entry.size,
        adaptive_pool=entry.adaptive_pool,
    )
    shapes = expected_tensors(options)
    trained = (prod(shape) for key, shape in shapes.items() if not key.endswith(("running_mean", "running_var")))
    assert sum(trained) == entry.parameters
    graph = build(options, {key: np.zeros(shape, np.float32) for key, shape in shapes.items()})
    assert round(count_work(graph).gflops, 2) == entry.gflops


def test_a_table_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, ROW)
    monkeypatch.setenv(zoo.TABLE_VARIABLE, str(path))
    assert zoo.names() == ["mine"]
    (entry,) = zoo.entries()
    assert (entry.file, entry.size, entry.miou, entry.adaptive_pool) == ("mine.pth", (64, 96), None, "torch")
    path.write_text(ROW.replace('"mine"', '"other"'))
    assert zoo.names() == ["other"]
    monkeypatch.setenv(zoo.TABLE_VARIABLE, str(tmp_path / "none.toml"))
    with pytest.raises(ZooError, match=r"none\.toml: the zoo's table cannot be read \(No such file"):
        zoo.entries()


def test_what_an_origin_says_holds_for_its_networks(tmp_path: Path) -> None:
    text = ROW.replace("[[network]]", '[origin.us]\nminor = 1\n[[network]]\norigin = "us"')
    with pytest.raises(ZooError, match="unknown key 'minor'"):
        zoo.read_table(written(tmp_path, text))
    text = ROW.replace("[[network]]", '[origin.us]\nbytes = 7\nmiou = 70\n[[network]]\norigin = "us"')
    (entry,) = zoo.read_table(written(tmp_path, text)).entries
    assert (entry.bytes, entry.miou) == (10, 70)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("zoo = 1", "zoo = 2", "zoo = 2, expected 1"),
        ("zoo = 1", "zoo = 1\nx = 1", "unknown key 'x'"),
        ("zoo = 1", "zoo = ", "not a table in TOML"),
        ("[[network]]", "[network]", "not a list of tables"),
        ('name = "mine"', 'name = "../mine"', r"name '\.\./mine'"),
        ('name = "mine"', 'name = "mine"\norigin = "us"', r"the origin 'us' is not in the table"),
        ('name = "mine"', 'name = "mine"\norigin = []', r"the origin \[\] is not in the table"),
        ('model = "FastSCNN"\n', "", "'mine': model missing"),
        ("[64, 96]", "[64]", r"size = \[64\]"),
        ("[64, 96]", "[64, 0]", r"size = \[64, 0\]"),
        ("bytes = 10", "bytes = true", "bytes = True"),
        ("bytes = 10", "bytes = -1", "bytes = -1"),
        ("bytes = 10", "bytes = 1.5", "bytes = 1.5"),
        ("bytes = 10", 'bytes = 10\nmiou = "70"', "miou = '70'"),
        ("bytes = 10", 'bytes = 10\nadaptive_pool = "max"', "adaptive_pool = 'max'"),
        ("bytes = 10", "bytes = 10\nlicense_sources = [1]", "license_sources"),
        ("bytes = 10", 'bytes = 10\nbytes_approximate = "yes"', "bytes_approximate = 'yes'"),
        ("https://example.org/a/mine.pth", "https://example.org/a/", "expected the http"),
        ("https://example.org/a/mine.pth", "https://example.org/a/..", "expected the http"),
        ("https://example.org/a/mine.pth", "file:///etc/passwd", "expected the http"),
        ("0123456789abcdef", "0123456", "8 to 64 hex digits"),
        ("0123456789abcdef", "0123456789ABCDEF", "8 to 64 hex digits"),
        ("bytes = 10", 'bytes = 10\nsha384 = "ab"', "96 hex digits"),
    ],
)
def test_a_table_that_cannot_be_used_says_where(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    assert ROW.count(old) == 1
    with pytest.raises(ZooError, match=complaint) as caught:
        zoo.read_table(written(tmp_path, ROW.replace(old, new)))
    assert str(tmp_path / "zoo.toml") in caught.value.message


def test_two_networks_cannot_share_a_name(tmp_path: Path) -> None:
    text = f'{ROW}\n[[network.alias]]\nname = "mine"\n'
    with pytest.raises(ZooError, match="'mine' stands for two networks"):
        zoo.read_table(written(tmp_path, text))
