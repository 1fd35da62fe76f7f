"""Everything that the package takes from TensorRT and cuda-python exists in the versions that it says it supports.

The rules for package code, the one kind of guard among them, are in ``tests/support/api_contract/__init__.py``.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from api_contract import Faces, Program, Walker, check
from api_contract.package import cuda_described, cuda_uses, package_sources
from real_bindings import cuda_bindings, tensorrt_bindings
from standin_trt import FACES, load_face
from standin_trt import record as recorder

# What running a plan and building one can't do without: the walk must have come past each.
HEART = {
    "trt.Builder.build_serialized_network",
    "trt.Builder.create_network",
    "trt.IBuilderConfig.add_optimization_profile",
    "trt.ICudaEngine.create_execution_context",
    "trt.ICudaEngine.get_tensor_dtype",
    "trt.IExecutionContext.execute_async_v3",
    "trt.IExecutionContext.set_input_shape",
    "trt.IExecutionContext.set_tensor_address",
    "trt.INetworkDefinition.get_input",
    "trt.IProgressMonitor.__init__",
    "trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED",
    "trt.OnnxParser.parse_from_file",
    "trt.ParserError.desc",
    "trt.Runtime.deserialize_cuda_engine",
}


@pytest.fixture(scope="module")
def walked() -> Walker:
    """The walk over the package."""
    walker = Walker(Program(package_sources()), Faces.recorded())
    walker.run()
    return walker


def test_the_package_uses_what_every_version_has(walked: Walker) -> None:
    assert [str(finding) for finding in walked.findings] == []


def test_the_walk_came_past_what_matters(walked: Walker) -> None:
    assert {name for _, _, name in walked.uses} >= HEART


def test_no_use_escapes_the_walk(walked: Walker) -> None:
    """A name that only TensorRT has is TensorRT's, whatever it is taken from: the walk must have followed it there."""
    modules = walked.program.modules.values()
    own = {name for module in modules for name in defined(module.tree)}
    distinct = {name for name in walked.members if "_" in name} - own
    seen = {(module, line, name.rpartition(".")[2]) for module, line, name in walked.uses}
    missed = [
        f"{module.name}:{node.lineno}: {ast.unparse(node)}"
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute)
        and node.attr in distinct
        and (module.name, node.lineno, node.attr) not in seen
        and ast.unparse(node.value).partition(".")[0] not in module.imports
    ]
    assert missed == []
    assert {"execute_async_v3", "set_tensor_address", "parse_from_file", "num_io_tensors"} <= distinct


def defined(tree: ast.Module) -> set[str]:
    """What a module defines of its own: functions, methods, fields."""
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    targets = [node.target for node in ast.walk(tree) if isinstance(node, ast.AnnAssign)]
    return functions | {getattr(target, "id", None) or getattr(target, "attr", "") for target in targets}


@pytest.mark.parametrize("version", FACES)
def test_the_recorded_faces_are_the_real_ones(version: str) -> None:
    folder = tensorrt_bindings(version)
    done = subprocess.run(
        [sys.executable, recorder.__file__],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == load_face(version)


@pytest.mark.parametrize("version", ["12.9.*", "13.*"])
def test_cuda_python_has_what_the_package_uses(version: str) -> None:
    uses = cuda_uses(package_sources())
    assert {"cuInit", "cuMemcpyHtoDAsync", "cuGraphLaunch"} <= {use.name for use in uses}
    real = cuda_described(cuda_bindings(version), sorted({use.of or use.name for use in uses}))
    assert cuda_faults(uses, real) == []


def cuda_faults(uses: list, real: dict) -> list[str]:
    """What the real module lacks of ``uses``."""
    out = []
    for use in uses:
        name = use.of or use.name
        if name not in real:
            out.append(f"{use.place}: {name} does not exist")
        elif use.of and use.name not in real[name]["members"]:
            out.append(f"{use.place}: {use.of} has no {use.name}")
        elif use.given == -2:
            out.append(f"{use.place}: {name}: arguments by name, which are others in other versions")
        elif use.given >= 0 and use.given != real[name].get("arguments", use.given):
            out.append(f"{use.place}: {name} takes {real[name]['arguments']} arguments, {use.given} given")
    return out


def test_planted_faults_in_cuda_python_are_found() -> None:
    source = """
        from cuda.bindings import driver
        def f(self, ask):
            ask("x", driver.cuMemAlloc, 5, 6)
            ask("x", driver.cuMemAllocate, 5)
            driver.CUresult.CUDA_SUCCESSFUL
            driver.CUstream_flags.CU_STREAM_NONE
            driver.CUstream_flags.CU_STREAM_NON_BLOCKING
            getattr(driver, "cuMemAllocated")(5)
            driver.cuMemAlloc(bytesize=5)
        from cuda.bindings.driver import cuMemAllotted
    """
    real = {
        "cuMemAlloc": {"members": [], "arguments": 1},
        "CUresult": {"members": ["CUDA_SUCCESS"]},
        "CUstream_flags": {"members": ["CU_STREAM_NON_BLOCKING"]},
    }
    found = cuda_faults(cuda_uses({"planted": dedent(source)}), real)
    assert sorted(found) == [
        "planted:10: cuMemAlloc takes 1 arguments, 0 given",
        "planted:10: cuMemAlloc: arguments by name, which are others in other versions",
        "planted:11: cuMemAllotted does not exist",
        "planted:4: cuMemAlloc takes 1 arguments, 2 given",
        "planted:5: cuMemAllocate does not exist",
        "planted:6: CUresult has no CUDA_SUCCESSFUL",
        "planted:7: CUstream_flags has no CU_STREAM_NONE",
        "planted:9: cuMemAllocated does not exist",
    ]


# A source, and words of the one thing that is wrong with it ("" where all is well).
PRELUDE = """
from __future__ import annotations
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar
from segcam.engines.tensorrt_api import load_tensorrt, version
if TYPE_CHECKING:
    import tensorrt as trt
V = TypeVar("V")
def check(value: V | None, what: str) -> V: ...
"""
PLANTED = {
    "a flag that 11 lost": (
        "def f(trt: ModuleType, config: trt.IBuilderConfig) -> None:\n    config.set_flag(trt.BuilderFlag.FP16)",
        "FP16 is gone",
    ),
    "the flag under a guard": (
        "def f(trt, config: trt.IBuilderConfig) -> None:\n"
        "    if version(trt) < (11,):\n        config.set_flag(trt.BuilderFlag.FP16)",
        "FP16 is gone",
    ),
    "the flag by hasattr": (
        "def f(trt, config: trt.IBuilderConfig) -> None:\n    if hasattr(trt.BuilderFlag, 'INT8'): pass",
        "hasattr is no guard",
    ),
    "the flag by getattr": (
        "def f(trt: ModuleType) -> None:\n    flag = getattr(trt.BuilderFlag, 'FP16', None)",
        "FP16 is gone",
    ),
    "explicit batch": (
        "def f():\n    trt = load_tensorrt()\n    b = trt.Builder(None)\n"
        "    return b.create_network(1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))",
        "EXPLICIT_BATCH is gone",
    ),
    "a builder's property that 11 lost": (
        "def f(trt: ModuleType, log: object) -> bool:\n"
        "    builder = check(trt.Builder(log), 'x')\n    return builder.platform_has_fast_fp16",
        "trt.Builder.platform_has_fast_fp16 does not exist in 11.4.0.106",
    ),
    "an engine's property that 11 lost": (
        "class A:\n    engine: trt.ICudaEngine\n    def f(self) -> int:\n        return self.engine.device_memory_size",
        "device_memory_size does not exist in 11.4.0.106",
    ),
    "the newer property, which 10.0 lacks": (
        "def f(e: trt.ICudaEngine | None) -> int:\n    return e.device_memory_size_v2",
        "device_memory_size_v2 does not exist in 10.0.1",
    ),
    "the newer property under its guard": (
        "def f(trt, e: trt.ICudaEngine) -> int:\n    return e.device_memory_size_v2 if version(trt) >= (10, 3) else 0",
        "",
    ),
    "after an early return": (
        "def f(trt, e: trt.ICudaEngine) -> int:\n    if version(trt) < (10, 3):\n        return 0\n"
        "    return e.device_memory_size_v2",
        "",
    ),
    "the wrong branch": (
        "def f(trt, e: trt.ICudaEngine) -> int:\n    if version(trt) >= (10, 3):\n        return 0\n"
        "    return e.device_memory_size_v2",
        "device_memory_size_v2 does not exist in 10.0.1",
    ),
    "a guard that is too low": (
        "def f(trt: ModuleType) -> object:\n    if version(trt) >= (10, 3):\n"
        "        return trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY",
        "SAME_COMPUTE_CAPABILITY does not exist in 10.3.0",
    ),
    "a guard that is right": (
        "def f(trt: ModuleType) -> object:\n    if version(trt) >= (10, 13):\n"
        "        return trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY",
        "",
    ),
    "an argument misspelt": (
        "def f(c: trt.IBuilderConfig, t: trt.ITimingCache) -> bool:\n"
        "    return c.set_timing_cache(t, ignore_mismatches=True)",
        "has no argument 'ignore_mismatches'",
    ),
    "an argument too many": (
        "def f(c: trt.IExecutionContext, s: int) -> bool:\n    return c.execute_async_v3(s, None)",
        "takes at most 1 arguments",
    ),
    "an argument too few": (
        "def f(c: trt.IExecutionContext) -> bool:\n    return c.set_tensor_address('x')",
        "lacks memory",
    ),
    "an answer dropped": (
        "def f(c: trt.IExecutionContext) -> None:\n    c.set_tensor_address('x', 0)",
        "what it answers is dropped",
    ),
    "a method that never was": (
        "def f(e: trt.ICudaEngine) -> None:\n    for i in range(e.num_bindings): pass",
        "num_bindings does not exist",
    ),
    "through a list and a call of a call": (
        "def f(trt: ModuleType, n: trt.INetworkDefinition) -> None:\n"
        "    made = [n.get_input(i) for i in range(n.num_inputs)]\n    made[0].dynamic_range",
        "trt.ITensor.dynamic_range does not exist in 11.4.0.106",
    ),
    "a read-only property": (
        "def f(trt: ModuleType, n: trt.INetworkDefinition) -> None:\n    n.get_input(0).dtype = trt.DataType.HALF",
        "trt.ITensor.dtype is read-only in 11.4.0.106",
    ),
    "a property that isn't there": (
        "def f(c: trt.IBuilderConfig) -> None:\n    c.max_workspace_size = 1 << 30",
        "max_workspace_size does not exist",
    ),
    "the number of a flag": (
        "def f(trt: ModuleType) -> object:\n    return trt.Builder(None).create_network(1 << 1)",
        "enums' numbers differ",
    ),
    "the number of a flag in a property": (
        "def f(c: trt.IBuilderConfig) -> None:\n    c.flags = 1 << 13",
        "enums' numbers differ",
    ),
    "a number in an enum's place": (
        "def f(c: trt.IBuilderConfig) -> None:\n    c.set_flag(13)",
        "wants a member of trt.BuilderFlag",
    ),
    "an enum compared with its number": (
        "def f(e: trt.ICudaEngine) -> bool:\n    return int(e.get_tensor_mode('x')) == 1",
        "an enum's number",
    ),
    "an enum made of a number": ("def f(trt: ModuleType) -> None:\n    trt.DataType(1)", "an enum made of a number"),
    "another enum": (
        "def f(trt, c: trt.IBuilderConfig) -> None:\n    c.profiling_verbosity = trt.ILogger.Severity.ERROR",
        "wants a member of trt.ProfilingVerbosity",
    ),
    "Dims compared": (
        "def f(e: trt.ICudaEngine) -> bool:\n    return e.get_tensor_shape('a') == e.get_tensor_shape('b')",
        "Dims == Dims",
    ),
    "a Path where a str is wanted": (
        "def f(p: trt.OnnxParser, path: Path) -> bool:\n    return p.parse_from_file(path)",
        "wants a str",
    ),
    "something that can't be followed": (
        "def f(trt: ModuleType, context: Any) -> None:\n    return context.set_input_shape('x', (1,))",
        "annotate it",
    ),
    "the same, misspelt": (
        "def f(trt: ModuleType, context: Any) -> None:\n    return context.set_inputs_shape('x', (1,))",
        "annotate it",
    ),
    "an annotation of nothing": ("def f(e: trt.IEngine) -> None: ...", "no version has trt.IEngine"),
    "a class of the module that 11 lost": (
        "def f(trt: ModuleType) -> None:\n    trt.QuantizationFlag",
        "QuantizationFlag does not exist in 11.4.0.106",
    ),
    "an enum by a name out of a table": (
        "def f(trt: ModuleType, name: str) -> None:\n    getattr(trt.DataType, name, None)",
        "",
    ),
    "a monitor that says nothing": (
        "def f(trt: ModuleType) -> None:\n    class M(trt.IProgressMonitor):\n"
        "        def phase_start(self, phase_name, parent_phase, num_steps): ...\n"
        "        def step_complete(self, phase_name, step):\n            print(step)\n"
        "        def phase_finish(self, phase_name): ...\n",
        "may return None",
    ),
    "a monitor that sometimes says nothing": (
        "def f(trt: ModuleType) -> None:\n    class M(trt.IProgressMonitor):\n"
        "        def phase_start(self, phase_name, parent_phase, num_steps): ...\n"
        "        def step_complete(self, phase_name, step):\n            if step:\n                return True\n"
        "        def phase_finish(self, phase_name): ...\n",
        "may return None",
    ),
    "a logger without its base": (
        "def f(trt: ModuleType) -> None:\n    class L(trt.ILogger):\n        def __init__(self):\n"
        "            self.lines = []\n        def log(self, severity, msg): ...\n",
        "doesn't call trt.ILogger.__init__",
    ),
    "a logger with another log": (
        "def f(trt: ModuleType) -> None:\n    class L(trt.ILogger):\n        def log(self, message): ...\n",
        "takes 1 arguments",
    ),
    "a profiler that never hears": (
        "def f(trt: ModuleType) -> None:\n    class P(trt.IProfiler):\n        def report(self, name, ms): ...\n",
        "doesn't define report_layer_time",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_faults_are_found_and_good_code_is_not(name: str) -> None:
    source, wanted = PLANTED[name]
    found = [str(finding) for finding in check({"planted": PRELUDE + source})]
    assert len(found) == bool(wanted), found
    assert not wanted or wanted in found[0]


def test_a_fault_in_another_module_is_found_through_what_it_returns() -> None:
    maker = PRELUDE + "class Plan:\n    @property\n    def engine(self) -> trt.ICudaEngine: ...\n"
    user = "from maker import Plan\ndef f(plan: Plan) -> int:\n    return plan.engine.max_batch_size\n"
    found = check({"maker": maker, "user": user})
    assert [(one.module, one.line) for one in found] == [("user", 3)]


def test_the_recorded_faces_stay_small() -> None:
    folder = Path(recorder.__file__).parent / "faces"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 300_000
