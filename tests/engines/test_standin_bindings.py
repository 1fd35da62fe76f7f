"""The module that the TensorRT stand-in is, beside the real bindings: one script, the same outcomes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from real_bindings import tensorrt_bindings
from standin_cuda import Machine
from standin_trt import FACES, make_tensorrt

# Run with the real bindings and with the stand-in: the outcomes must be equal.
SCRIPT = '''
class Bare(trt.ILogger):
    def __init__(self): pass
class L(trt.ILogger):
    def __init__(self): trt.ILogger.__init__(self)
    def log(self, severity, msg): pass
class M(trt.IProgressMonitor):
    pass
d = trt.DataType
asked = """
d.HALF == 1
d.HALF == d.HALF
d.HALF != d.FLOAT
d.HALF == trt.ILogger.Severity.ERROR
int(d.HALF)
d(1)
d(99)
d.HALF.name
d.HALF.value
d.HALF.itemsize
d.HALF.bytes
d.NOTHING
str(d.HALF)
repr(d.HALF)
{d.HALF: 3}[d.HALF]
list(d.__members__)
d['HALF']
setattr(d.HALF, 'name', 'x')
1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
1 << trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
trt.float16 == d.HALF
trt.ILogger.ERROR == trt.ILogger.Severity.ERROR
trt.Dims((1, 2)) == trt.Dims((1, 2))
trt.Dims((1, 2)) == (1, 2)
trt.Dims([1, 2]) == [1, 3]
tuple(trt.Dims([3, 4]))
len(trt.Dims([3, 4]))
trt.Dims([3, 4])[1]
trt.Dims([3, 4])[-1]
trt.Dims([3, 4, 5])[1:]
trt.Dims([3, 4])[7]
str(trt.Dims([3, 4]))
trt.Dims()
trt.Dims(3)
trt.Dims('ab')
trt.Dims((1.5,))
trt.Dims(range(3))[2]
trt.Dims(list(range(9)))
trt.Dims.MAX_DIMS
trt.volume((2, 3))
trt.volume(trt.Dims((2, 3)))
trt.nptype(d.HALF).__name__
trt.nptype(d.INT64).__name__
trt.nptype(d.BF16)
trt.nptype(d.FP8)
trt.Builder(L())
trt.Builder(None)
trt.Builder()
trt.Builder(3)
trt.Builder(logger=L())
trt.Builder(log=L())
trt.Runtime(L())
trt.Runtime(Bare())
Bare()
L()
trt.ILogger().nothing
setattr(trt.IProfiler(), 'nothing', 1)
setattr(L(), 'anything', 1)
M()
M().phase_start('a', None, 3)
trt.OnnxParser(None)
trt.IHostMemory()
trt.ICudaEngine()
trt.INetworkDefinition()
trt.IBuilderConfig()
trt.IOptimizationProfile()
trt.IExecutionContext.execute_async_v2
trt.ICudaEngine.get_binding_index
trt.BuilderFlag.FP16
trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH
trt.QuantizationFlag
trt.nothing
isinstance(trt.Logger(), trt.ILogger)
trt.Logger(trt.Logger.WARNING).min_severity
trt.Logger(3)
trt.Logger(min_severity=trt.ILogger.Severity.ERROR).min_severity == trt.Logger.ERROR
issubclass(trt.Profiler, trt.IProfiler)
""".split(chr(10))
out = {}
for line in filter(None, asked):
    try:
        value = eval(line)
        plain = isinstance(value, (bool, int, str, list, tuple, type(None)))
        kind = "a class" if isinstance(value, type) else type(value).__name__
        out[line] = ["value", list(value) if isinstance(value, tuple) else value if plain else kind]
    except Exception as error:
        out[line] = ["raises", type(error).__name__]
'''


@pytest.mark.parametrize("version", FACES)
def test_the_module_answers_as_the_real_bindings_do(version: str) -> None:
    folder = tensorrt_bindings(version)
    real = subprocess.run(
        [sys.executable, "-c", f"import json, tensorrt as trt\n{SCRIPT}\nprint(json.dumps(out))"],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    scope: dict[str, Any] = {"trt": make_tensorrt(version, Machine())}
    exec(SCRIPT, scope)
    assert scope["out"] == json.loads(real.stdout)
