"""The wheel holds the package, all of it, and nothing else."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from importlib import metadata
from pathlib import Path

import pytest

import segcam
from segcam.networks.shipped import FILE

#: What pip says where the build tools are neither installed nor to be had.
OFFLINE = re.compile(
    r"No matching distribution found for setuptools|Could not find a version.*setuptools|No module named pip"
)


def _tools_are_here() -> bool:
    try:
        return int(metadata.version("setuptools").split(".")[0]) >= 77
    except metadata.PackageNotFoundError:
        return False


def copied(repository: Path, folder: Path) -> Path:
    """What is built is a copy, so that no build folder is left in the checkout."""
    copy = folder / "segcam"
    copy.mkdir()
    shutil.copytree(repository / "app", copy / "app", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(repository / name, copy / name)
    (copy / "engines").mkdir()
    shutil.copy(repository / "engines" / FILE, copy / "engines" / FILE)
    return copy


@pytest.fixture
def checkout(repository: Path, tmp_path: Path) -> Path:
    return copied(repository, tmp_path)


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = copied(repository, tmp_path_factory.mktemp("checkout"))
    flags = ["--no-build-isolation"] if _tools_are_here() else []
    target = copy / "dist"
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check", "--no-deps", *flags, "-w", target, copy],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and OFFLINE.search(done.stdout + done.stderr):
        pytest.skip("setuptools 77 is neither installed nor can be fetched: pip install 'setuptools>=77'")
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.fixture(scope="module")
def about(wheel: Path, names: set[str]) -> Message:
    (name,) = (name for name in names if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(zipfile.ZipFile(wheel).read(name).decode())


def test_every_module_and_data_file_is_in_it(names: set[str], repository: Path) -> None:
    package = repository / "app" / "segcam"
    wanted = {
        f"segcam/{path.relative_to(package).as_posix()}"
        for path in package.rglob("*")
        if path.suffix in (".py", ".json", ".toml", ".cu", ".cuh", ".ptx") or path.name == "py.typed"
    }
    assert "segcam/cli/main.py" in wanted
    assert wanted - names == set()


def test_only_the_package_is_in_it(names: set[str]) -> None:
    assert {name.split("/")[0] for name in names} == {"segcam", f"segcam-{segcam.__version__}.dist-info"}
    assert not any("__pycache__" in name or name.endswith((".nbi", ".nbc", ".plan")) for name in names)


def test_the_demos_network_is_in_it_and_found_there(wheel: Path, repository: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", "from segcam.zoo_engine import *; print(resolve_engine('demo', None, print))"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = Path(done.stdout.strip())
    assert found == (tmp_path / "segcam" / "networks" / FILE).resolve()
    assert found.read_bytes() == (repository / "engines" / FILE).read_bytes()


@pytest.mark.skipif(not _tools_are_here(), reason="setuptools 77 or newer is not installed")
def test_a_source_distribution_and_an_editable_installation(checkout: Path) -> None:
    """The first has the demo's network, or no wheel could be built from it; the second leaves it where it is."""
    code = "from setuptools import build_meta as b; b.build_sdist('other'); b.build_editable('other')"
    (checkout / "other").mkdir()
    subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, check=True)
    (archive,) = (checkout / "other").glob("*.tar.gz")
    with tarfile.open(archive) as inside:
        assert sum(name.endswith(f"/engines/{FILE}") for name in inside.getnames()) == 1
    assert list(checkout.rglob(FILE)) == [checkout / "engines" / FILE]


def test_version_licence_and_command(wheel: Path, names: set[str], about: Message) -> None:
    assert about["Version"] == segcam.__version__
    assert about["Requires-Python"] == ">=3.10"
    assert any(name.endswith("/LICENSE") for name in names)
    (entries,) = (name for name in names if name.endswith("entry_points.txt"))
    assert "segcam = segcam.cli.main:main" in zipfile.ZipFile(wheel).read(entries).decode()


def test_every_import_is_declared(about: Message, repository: Path) -> None:
    """What the package imports is in the standard library, itself, a dependency, or an extra for those who use it."""
    # google is protobuf, which every onnx brings: its messages are made of it.
    distributions = {"cv2": "opencv-python", "tensorrt": "tensorrt-cu13", "cuda": "cuda-bindings", "google": "onnx"}
    lines = [line for line in about.get_all("Requires-Dist", []) if not re.search(r"extra == .dev.", line)]
    declared = {re.split(r"[<>=!;\[ ]", line)[0] for line in lines}
    used: set[str] = set()
    for path in (repository / "app").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                used |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                used.add(node.module.split(".")[0])
    # tomllib is in the standard library from 3.11 on; _typeshed is the type checker's own; PIL is imported only when
    # the caller hands over one of its images.
    foreign = used - set(sys.stdlib_module_names) - {"segcam", "tomllib", "_typeshed", "PIL"}
    assert {distributions.get(name, name) for name in foreign} - declared == set()


def test_dependencies_have_lower_bounds_and_no_upper_ones(about: Message) -> None:
    needed = [line for line in about.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert len(needed) >= 9
    for line in needed:
        requirement = line.split(";")[0]
        assert ">=" in requirement, line
        assert "<" not in requirement, line


def test_the_wheel_runs_by_itself(wheel: Path, tmp_path: Path) -> None:
    """Unpacked, with no third-party package on the path, --help and --version work (3.10 needs tomli for TOML)."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    flags = ["-S"] if sys.version_info >= (3, 11) else []
    for argument in ("--help", "--version"):
        done = subprocess.run(
            [sys.executable, *flags, "-m", "segcam", argument],
            cwd=tmp_path,
            env={},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
