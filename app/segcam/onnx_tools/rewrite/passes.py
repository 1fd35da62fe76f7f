"""The rewrites in the order in which they run, each kept only if the result is the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

from segcam.errors import SegcamError
from segcam.onnx_tools.check import compare, outputs, random_inputs
from segcam.onnx_tools.rewrite import activations, gates, linear, phases, pools, pyramid, strips
from segcam.onnx_tools.rewrite.net import Net

if TYPE_CHECKING:
    import onnx

Runtime = Literal["openvino", "onnxruntime"]

#: The metadata entry of a model that names the rewrites it has been through.
METADATA_KEY = "segcam_rewrites"

#: The ``producer_name`` of graphs that Segcam's own builders make: the project's tests compare these.
PRODUCER = "segcam"

_Pass = Callable[[Net, "Runtime | None"], int]


def _for_all(run: Callable[[Net], int]) -> _Pass:
    return lambda net, runtime: run(net)


#: What there is, by name, in the order in which they are tried. Each takes a Net and a runtime and says how often it
#: changed something.
PASSES: dict[str, _Pass] = {
    "activations": _for_all(activations.run),
    "linear": _for_all(linear.run),
    "pyramid": _for_all(pyramid.run),
    "pools": _for_all(pools.run),
    "phases": lambda net, runtime: phases.run(net, phases.GAINS[runtime or "onnxruntime"]),
    "gates": _for_all(gates.run),
    "means": _for_all(pools.run_means),
    "strips": _for_all(strips.run),
}

#: The passes that gain wherever a network runs, and those that do in one runtime (measured: benchmarks/networks.json).
EVERYWHERE = ("activations", "linear", "pyramid", "pools")
BY_RUNTIME: dict[Runtime, tuple[str, ...]] = {
    "openvino": (*EVERYWHERE, "phases", "means", "strips"),
    "onnxruntime": (*EVERYWHERE, "phases", "gates"),
}


@dataclass(frozen=True, eq=False)
class Rewritten:
    """``done`` names the passes that changed something, in order (none: ``model`` is the given one); ``refused`` those
    whose result differed from the original's on random input, or could not be compared, with the reason.
    """

    model: onnx.ModelProto
    done: list[str]
    refused: dict[str, str] = field(default_factory=dict)


def rewrite(
    model: onnx.ModelProto,
    passes: Sequence[str] | None = None,
    *,
    runtime: Runtime | None = None,
    check: bool = True,
) -> Rewritten:
    """The same function, computed in less time. ``model`` itself is not changed.

    ``passes`` are names of PASSES (None: all that gain in ``runtime``, or everywhere). Those that the model's metadata
    says it has been through are left out, and the result's metadata names what was done. With ``check`` the result is
    compared with the original on random input (ONNX Runtime, some seconds for a large network) and what differs is not
    kept. Where no pattern is found nothing is compared either. Raises KeyError for unknown names.
    """
    if passes is None:
        passes = BY_RUNTIME[runtime] if runtime else EVERYWHERE
    already = rewrites_of(model)
    done: list[tuple[str, onnx.ModelProto]] = []
    for name in passes:
        if name in already:
            continue
        net = Net(done[-1][1] if done else model)
        if PASSES[name](net, runtime):
            done.append((name, net.model()))
    refused: dict[str, str] = {}
    if check and done:
        done, refused = _same(model, done)
    if not done:
        return Rewritten(model, [], refused)
    made = done[-1][1]
    _note(made, [*already, *(name for name, _ in done)])
    return Rewritten(made, [name for name, _ in done], refused)


def rewrites_of(model: onnx.ModelProto) -> list[str]:
    """The rewrites that a model's metadata says it has been through."""
    entries = [e.value for e in model.metadata_props if e.key == METADATA_KEY]
    return [name.strip() for value in entries for name in value.split(",") if name.strip()]


def _note(model: onnx.ModelProto, names: list[str]) -> None:
    others = [e for e in model.metadata_props if e.key != METADATA_KEY]
    kept = [(e.key, e.value) for e in others]
    del model.metadata_props[:]
    for key, value in [*kept, (METADATA_KEY, ", ".join(names))]:
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value


_Steps = list[tuple[str, "onnx.ModelProto"]]


def _same(model: onnx.ModelProto, steps: _Steps) -> tuple[_Steps, dict[str, str]]:
    """The longest run of steps whose result is the original's on random input, and why the next one is refused."""
    try:
        inputs = random_inputs(model)
        wanted = outputs(model, inputs)
    except SegcamError as error:
        return [], dict.fromkeys((name for name, _ in steps), error.message)
    # Nearly always the last result is right, and one comparison says so of all steps.
    if _reason(wanted, steps[-1][1], inputs) is None:
        return steps, {}
    for count, (name, made) in enumerate(steps):
        reason = _reason(wanted, made, inputs)
        if reason is not None:
            return steps[:count], {name: reason}
    return steps, {}


def _reason(wanted: list[NDArray[Any]], made: onnx.ModelProto, inputs: dict[str, NDArray[Any]]) -> str | None:
    """Why a result cannot be kept; None if it can."""
    try:
        found = compare(wanted, outputs(made, inputs))
    except SegcamError as error:
        return error.message
    return None if found.small else f"its scores differ by {found.largest:.2g} of their spread"
