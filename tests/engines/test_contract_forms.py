"""The walk over the package's source finds what a version lacks in whatever form it is written: see
``test_tensorrt_contract.py``. Each form here is one that a walk which follows names alone would miss.
"""

from __future__ import annotations

import pytest
from api_contract import check

PRELUDE = """
from __future__ import annotations
import functools, importlib, itertools, operator
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, Union
from segcam.engines.tensorrt_api import load_tensorrt, version
if TYPE_CHECKING:
    import tensorrt as trt
    from tensorrt import ICudaEngine
Alias = Union[int, "trt.ICudaEngine"]
_kept = None
"""

# How somebody may come by the module, or by something of it.
MODULES = {
    "from": "from tensorrt import BuilderFlag\ndef f():\n    return BuilderFlag.FP16",
    "from, renamed": "def f():\n    from tensorrt import BuilderFlag as Flag\n    return Flag.FP16",
    "from, gone": "from tensorrt import QuantizationFlag",
    "from, gone, in a function": "def f():\n    from tensorrt import IInt8Calibrator",
    "import": "def f():\n    import tensorrt\n    return tensorrt.BuilderFlag.FP16",
    "import_module": "def f():\n    rt = importlib.import_module('tensorrt')\n    return rt.BuilderFlag.FP16",
    "__import__": "def f():\n    rt = __import__('tensorrt')\n    return rt.BuilderFlag.FP16",
    "another name": "def f():\n    rt = load_tensorrt()\n    return rt.BuilderFlag.FP16",
    "a parameter of another name": "def f(rt: ModuleType):\n    return rt.BuilderFlag.FP16",
    "an enum at module level": "Flag = load_tensorrt().BuilderFlag\ndef f():\n    return Flag.FP16",
    "a function of the module": "from tensorrt import nptype\ndef f():\n    return nptype(1, 2)",
}
# ``trt``, an engine ``e``, a network ``n``, a builder ``b``, a config ``c``, a context ``x``, a runtime ``r``, a timing
# cache ``t`` and something unknown ``q`` are there.
BODIES = {
    "a chain of calls": "return trt.Builder(None).create_network(0, flagged=1)",
    "a chain over what may be None": "return r.deserialize_cuda_engine(b'').num_layers",
    "a walrus": "if (found := q.e or e) is not None:\n        return found.device_memory_size",
    "None first": "one = None if q else b\n    return one.platform_has_fast_fp16",
    "None on one way": (
        "one = None\n    if q:\n        one = b\n    else:\n        one = None\n    return one.platform_has_fast_fp16"
    ),
    "a dict of callables": (
        "do = {'a': c.clear_flag, 'b': c.set_timing_cache}\n    return do['b'](t, ignore_mismatches=True)"
    ),
    "partial": "return partial(c.set_timing_cache, ignore_mismatches=True)",
    "partial, completed wrongly": "go = functools.partial(x.execute_async_v3, 1)\n    return go(2)",
    "partial of a class": "return partial(trt.Builder, lager=None)",
    "a name in a variable": "name = 'FP16'\n    return getattr(trt.BuilderFlag, name, None)",
    "a name in two parts": "return getattr(trt.BuilderFlag, 'FP' + '16', None)",
    "a name that is computed": "return getattr(trt.BuilderFlag, f'FP{q}', None)",
    "getattr of an engine": "return getattr(e, 'device_memory_size', 0)",
    "__members__": "return trt.BuilderFlag.__members__['FP16']",
    "__members__.get": "return trt.BuilderFlag.__members__.get('FP16')",
    "in __members__": "return 'FP16' in trt.BuilderFlag.__members__",
    "vars": "return vars(trt)['QuantizationFlag']",
    "__dict__": "return trt.__dict__.get('QuantizationFlag')",
    "attrgetter": "return operator.attrgetter('device_memory_size')(e)",
    "methodcaller": "return operator.methodcaller('get_binding_shape', 0)(e)",
    "a list that grows": "made = []\n    made.append(n.get_input(0))\n    return made[0].dynamic_range",
    "a comprehension": "return [t.dynamic_range for t in (n.get_input(i) for i in range(3))]",
    "the rest of a list": "first, *rest = [n.get_input(0)]\n    return rest[0].dynamic_range",
    "a tuple": "pair = (1, b)\n    return pair[-1].platform_has_fast_fp16",
    "a dict's items": "made = {'a': n.get_input(0)}\n    return [t.dynamic_range for _, t in made.items()]",
    "a dict that grows": "made = {}\n    made['a'] = n.get_input(0)\n    return made.get('a').dynamic_range",
    "zip": "return [t.dynamic_range for _, t in zip([1], [n.get_input(0)])]",
    "the largest": "return max([n.get_input(0)], key=id).dynamic_range",
    "a closure": "def inner():\n        return e.device_memory_size\n    return inner()",
    "a global": "global _kept\n    _kept = e\ndef g():\n    return _kept.device_memory_size",
    "its class": "return e.__class__.device_memory_size",
    "set on a config": "made = b.create_builder_config()\n    made.max_workspace = 3",
    "set on a config at once": "b.create_builder_config().int8_calibrator = None",
    "deleted": "del trt.BuilderFlag.FP16",
    "in a pattern": "match q:\n        case trt.BuilderFlag.FP16:\n            return 1",
    "a class in a pattern": "match q:\n        case trt.IInt8Calibrator():\n            return 1",
    "in except": "try:\n        pass\n    except trt.Nonsense:\n        pass",
    "in a decorator": "@q(trt.BuilderFlag.FP16)\n    def inner(): ...",
    "in a class's arguments": "class A(metaclass=trt.QuantizationFlag): ...",
    "an enum's value": "return trt.BuilderFlag.TF32.value == 7",
    "an enum's number in a variable": "number = int(trt.BuilderFlag.TF32)\n    return number == 7",
    "a flag's number in a variable": "flags = 1 << 0\n    return b.create_network(flags)",
    "an answer to nobody": "done = x.set_input_shape('x', (1,))",
    "an answer to _": "_ = x.set_input_shape('x', (1,))",
    "an answer to who calls a lambda": "q.callback(lambda: x.set_input_shape('x', (1,)))",
    "an answer to a thread": "q.submit(x.execute_async_v3, 0)",
    "any one of several types": "def inner(one: Union[int, trt.ICudaEngine]):\n        return one.device_memory_size",
    "a type by its own name": "def inner(one: ICudaEngine):\n        return one.device_memory_size",
    "a type by another name": "def inner(one: Alias):\n        return one.device_memory_size",
    "many of them": "def inner(*ones: trt.ICudaEngine):\n        return ones[0].device_memory_size",
}
GOOD = {
    "names and shapes": "return {t.name: tuple(t.shape) for t in (n.get_input(i) for i in range(n.num_inputs))}",
    "a partial call that fits": "go = partial(c.set_timing_cache, t)\n    return go(ignore_mismatch=False)",
    "a name that all have": "return vars(trt)['__version__'] if 'Runtime' in vars(trt) else ''",
    "a flag by its name": "return getattr(trt.BuilderFlag, 'TF32', None) or trt.BuilderFlag.__members__['TF32']",
    "an answer that is looked at": "done = x.set_input_shape('x', (1,))\n    return done",
    "None on one way": "one = None\n    if q:\n        one = e\n    return one.num_layers if one else 0",
    "no flag at all": "flags = 0\n    return b.create_network(flags)",
    "a lambda for us": "def run(make): ...\n    return run(lambda: trt.Builder(None))",
}


def findings(text: str) -> list[str]:
    return [str(finding) for finding in check({"planted": PRELUDE + text})]


def function(body: str) -> str:
    kinds = "e: trt.ICudaEngine, n: trt.INetworkDefinition, b: trt.Builder, c: trt.IBuilderConfig, r: trt.Runtime"
    return f"def f(trt, {kinds}, x: trt.IExecutionContext, t: trt.ITimingCache, q: Any):\n    {body}\n"


@pytest.mark.parametrize("name", MODULES)
def test_the_module_is_known_by_any_name(name: str) -> None:
    assert findings(MODULES[name])


@pytest.mark.parametrize("name", BODIES)
def test_no_form_hides_a_fault(name: str) -> None:
    assert findings(function(BODIES[name]))


@pytest.mark.parametrize("name", GOOD)
def test_good_code_is_let_be(name: str) -> None:
    assert findings(function(GOOD[name])) == []
