"""Data goes one way through the package: read from the imports, late ones included."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "app" / "segcam"

#: What everybody may use.
WORDS = {"errors", "classes", "frame", "controls", "geometry", "writing"}

#: What each part may import besides WORDS (for the words themselves: all that they may import).
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "classes": {"errors"},
    "frame": {"errors", "classes", "kernels"},
    "controls": set(),
    "geometry": {"errors"},
    "writing": set(),
    "settings": {"errors"},
    "config": {"errors", "settings"},
    "sources": set(),
    "sinks": {"legend", "settings"},
    "legend": set(),
    "kernels": set(),
    "onnx_tools": set(),
    "engines": {"onnx_tools", "kernels"},
    "networks": {"onnx_tools"},
    "segmenters": {"engines", "kernels", "onnx_tools", "legend"},
    "metrics": set(),
    "queues": set(),
    "report": {"engines", "metrics"},
    "session": {"engines", "segmenters", "kernels", "legend", "settings", "sources", "gpu_engine", "zoo_engine"},
    "gpu_engine": {"engines", "building"},
    "zoo_engine": {"config", "networks", "exporter"},
}
#: Where the parts meet. They may import everything but the command line.
MEETING_PLACES = {"__init__", "api", "bench", "building", "demo", "evaluation", "exporter", "pipeline", "suite"}
COMMAND_LINE = {"cli", "__main__"}
#: Allowed inside a function only, so that the words stay light.
LATE_ONLY = {("frame", "kernels")}
#: Never loaded by `segcam --help`: heavy packages stay out of what the command line imports at its top.
HEAVY = {"av", "cv2", "numba", "numpy", "onnx", "onnxruntime", "openvino", "rich", "tensorrt", "pycuda", "cuda"}
LIGHT = ("__init__.py", "__main__.py", "errors.py", "settings.py", "config.py", "cli/main.py", "cli/args.py")

MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(dotted name, outside any function) of everything that a file imports."""
    yield from _imports(ast.parse(path.read_text(encoding="utf-8")), path, at_top=True)


def _imports(node: ast.AST, path: Path, at_top: bool) -> Iterator[tuple[str, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, at_top) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{path}: relative import; write segcam.x so that the direction can be read"
            if child.module == "segcam":
                yield from ((f"segcam.{alias.name}", at_top) for alias in child.names)
            else:
                yield child.module or "", at_top
        else:
            in_function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from _imports(child, path, at_top and not in_function)


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def faults(path: Path) -> list[str]:
    """What is wrong with the direction of one file's imports."""
    part = part_of(path)
    found = []
    for name, at_top in imports(path):
        if not name.startswith("segcam."):
            continue
        target = name.split(".")[1]
        if target in (part, "__version__"):
            continue
        if target in COMMAND_LINE:
            allowed = part in COMMAND_LINE
        elif part in MEETING_PLACES | COMMAND_LINE:
            allowed = True
        else:
            allowed = target in ALLOWED[part] or (part not in WORDS | {"settings", "config"} and target in WORDS)
        if not allowed or (at_top and (part, target) in LATE_ONLY):
            found.append(f"{path.relative_to(PACKAGE)} imports {name}{' at module level' if at_top else ''}")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    part = part_of(path)
    assert part in ALLOWED.keys() | MEETING_PLACES | COMMAND_LINE, f"say in ALLOWED what {part} may import"
    assert faults(path) == []


@pytest.mark.parametrize("name", LIGHT)
def test_the_command_line_loads_nothing_heavy_at_its_top(name: str) -> None:
    heavy = [module for module, at_top in imports(PACKAGE / name) if at_top and module.split(".")[0] in HEAVY]
    assert heavy == []


def test_a_wrong_direction_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path, raising=True)
    (tmp_path / "sinks").mkdir()
    bad = tmp_path / "sinks" / "video.py"
    bad.write_text("def f():\n    from segcam.sources.video import VideoSource\nimport segcam.cli.main\n")
    assert len(faults(bad)) == 2
    early = tmp_path / "frame.py"
    early.write_text("from segcam.kernels.cpu.color import yuv_to_bgr\n")
    assert len(faults(early)) == 1
    early.write_text("class Frame:\n    def bgr(self):\n        from segcam.kernels.cpu.color import yuv_to_bgr\n")
    assert faults(early) == []


def test_files_stay_small() -> None:
    files = [path for folder in ("app", "tests", "scripts") for path in (ROOT / folder).rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert len(lengths) > 10
    assert {name: length for name, length in lengths.items() if length > 400} == {}
