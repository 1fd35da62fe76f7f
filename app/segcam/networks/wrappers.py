"""Where in a checkpoint the state dict is, and what its names have in front.

fastseg saves ``{"state_dict": ..., "num_classes": ..., "optimizer": ...}`` with DataParallel's ``module.`` before every
name, mmsegmentation ``{"meta": ..., "state_dict": ...}``, many training programs ``{"model": ...}``; a bare state dict
is what PyTorch's own documentation recommends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from segcam.errors import CheckpointError
from segcam.networks.inert import NumpyArray
from segcam.networks.tensors import Tensor, Unreadable
from segcam.networks.words import listed, shown

#: The keys under which programs keep a state dict, the likeliest first: raw weights before averaged ones.
_KEYS = (
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params"),
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema"),
)
_DEEPEST = 3
#: What wrappers put before every name: DataParallel, torch.compile, training programs.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
#: Metadata is for a glance at it, not for its bulk.
_MOST_METADATA = 4096


@dataclass(frozen=True)
class Found:
    """``state`` maps names (prefixes taken off) to tensors or NumPy's arrays; ``words`` say how it was wrapped."""

    state: dict[str, Tensor | NumpyArray]
    words: str
    metadata: dict[str, object]


def find_state(value: object) -> Found:
    """The state dict in what a file holds. Raises CheckpointError saying what was found instead."""
    path: list[str] = []
    around: dict[str, object] = {}
    found: object = value
    while (key := _wrapping_key(found)) is not None:
        if len(path) == _DEEPEST:
            raise CheckpointError("its state dict is wrapped too deep")
        assert isinstance(found, dict)
        around.update({str(k): v for k, v in found.items() if k != key})
        path.append(key)
        found = found[key]
    if not isinstance(found, dict) or not any(_is_tensor(v) for v in found.values()):
        raise CheckpointError(
            f"it holds no state dict: {_described(value)}",
            'Save one with torch.save(model.state_dict(), "weights.pt").',
        )
    state, rest = _split(found)
    state, prefix = _without_prefix(state)
    words = f"a state dict under {' > '.join(map(repr, path))}" if path else "a bare state dict"
    if prefix:
        words += f", names after {prefix!r}"
    return Found(state, words, plain_metadata({**around, **rest}))


def _wrapping_key(value: object) -> str | None:
    if not isinstance(value, dict):
        return None
    return next((key for key in _KEYS if _leads_to_tensors(value.get(key), 1)), None)


def _leads_to_tensors(value: object, depth: int) -> bool:
    if not isinstance(value, dict):
        return False
    return any(_is_tensor(item) for item in value.values()) or (
        depth < _DEEPEST and any(_leads_to_tensors(value.get(key), depth + 1) for key in _KEYS)
    )


def _is_tensor(value: object) -> bool:
    return isinstance(value, (Tensor, Unreadable, NumpyArray))


def _split(found: Mapping[object, object]) -> tuple[dict[str, Tensor | NumpyArray], dict[str, object]]:
    """(tensors, what else stood beside them)."""
    state: dict[str, Tensor | NumpyArray] = {}
    rest: dict[str, object] = {}
    for name, value in found.items():
        if not isinstance(name, str):
            raise CheckpointError("its state dict has names that are no text")
        if isinstance(value, Unreadable):
            raise CheckpointError(
                f"{shown(name)} is {value.what}",
                "Only plain tensors can be read; convert it where PyTorch is installed.",
            )
        if isinstance(value, (Tensor, NumpyArray)):
            state[name] = value
        else:
            rest[name] = value
    return state, rest


def _without_prefix(state: dict[str, Tensor | NumpyArray]) -> tuple[dict[str, Tensor | NumpyArray], str]:
    removed = ""
    for _ in range(_DEEPEST):
        prefix = next((p for p in _PREFIXES if all(name.startswith(p) for name in state)), "")
        state = {name.removeprefix(prefix): value for name, value in state.items()}
        removed += prefix
    some = [name for name in state if name.startswith("module.")]
    if some:
        # Saved from several sources: names with and without DataParallel's prefix are the same network's.
        clashes = [name for name in some if name.removeprefix("module.") in state]
        if clashes:
            raise CheckpointError(f"it has tensors both with and without 'module.': {listed(clashes)}")
        state = {name.removeprefix("module."): value for name, value in state.items()}
        removed += "module."
    return state, removed


def _described(value: object) -> str:
    if isinstance(value, dict):
        return f"its keys are {listed([str(key) for key in value], 8)}" if value else "it is empty"
    return "it is one tensor" if _is_tensor(value) else f"it is a value of type {type(value).__name__}"


def plain_metadata(value: Mapping[str, object]) -> dict[str, object]:
    """Numbers, texts, and lists and dicts of them three deep; the rest, and what is beyond 4096 values, left out."""
    left = _MOST_METADATA

    def plain(value: object, depth: int) -> object:
        nonlocal left
        left -= 1
        if left < 0 or (depth == 0 and isinstance(value, (tuple, list, dict))):
            return None
        if isinstance(value, (tuple, list)):
            return [plain(item, depth - 1) for item in value[:left]]
        if isinstance(value, dict):
            pairs = list(value.items())[:left]
            return {str(key): plain(item, depth - 1) for key, item in pairs}
        return value if isinstance(value, (str, int, float, bool)) else None

    return {name: made for name, item in value.items() if (made := plain(item, 3)) is not None}
