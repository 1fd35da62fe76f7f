"""The names that the pickle of a checkpoint may use; anything else is refused with its name.

They are those that PyTorch 0.4 to 2.x, NumPy 1.x and 2.x and Python 2 and 3 write for tensors, parameters, scalars and
containers. Nothing here imports what a name names: each stands for an inert value (``segcam.networks.inert``).
"""

from __future__ import annotations

from segcam.errors import CheckpointError
from segcam.networks import inert
from segcam.networks.inert import Arguments, Charge, Maker, Name, record, unreadable
from segcam.networks.words import shown

#: Bytes that is made for one call at most: a tensor with its shape and strides.
_OBJECT = 300
_STORAGES = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Byte": "uint8",
    "Char": "int8",
    "Short": "int16",
    "Int": "int32",
    "Long": "int64",
    "Bool": "bool",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
    "Untyped": "uint8",
    "QInt8": "qint8",
    "QUInt8": "quint8",
    "QInt32": "qint32",
    "QUInt4x2": "quint4x2",
    "QUInt2x4": "quint2x4",
}
_DTYPES = (
    *("float64", "float32", "float16", "bfloat16", "complex32", "complex64", "complex128", "bool"),
    *("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2"),
    *_STORAGES.values(),
)
_RECORDS = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in ("PosixPath", "WindowsPath")),
    *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in ("PurePosixPath", "PureWindowsPath")),
)
#: Values that say how a tensor is kept, and classes that are only mentioned.
_MENTIONED = (
    *("torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer", "numpy.ndarray"),
    *("torch.strided", "torch.contiguous_format", "torch.channels_last", "torch.preserve_format"),
    *(f"torch.per_{part}_{kind}" for part in ("tensor", "channel") for kind in ("affine", "symmetric")),
    *("builtins.int", "builtins.float", "builtins.str", "builtins.bool", "builtins.object"),
)
_CALLS: dict[str, Maker] = {
    "collections.OrderedDict": inert.make_dict,
    "collections.Counter": inert.make_dict,
    "collections.defaultdict": inert.make_default_dict,
    "builtins.dict": inert.make_dict,
    "builtins.set": inert.make_list,
    "builtins.frozenset": inert.make_list,
    "builtins.list": inert.make_list,
    "builtins.bytes": inert.make_bytes,
    "builtins.bytearray": inert.make_bytes,
    "builtins.complex": inert.make_complex,
    "_codecs.encode": inert.make_bytes,
    "torch._utils._rebuild_tensor": inert.rebuild,
    "torch._utils._rebuild_tensor_v2": inert.rebuild,
    "torch._utils._rebuild_tensor_v3": inert.rebuild_typed,
    "torch._utils._rebuild_parameter": inert.rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": inert.rebuild_parameter,
    "torch._tensor._rebuild_from_type_v2": inert.rebuild_subclass,
    "torch._utils._rebuild_sparse_tensor": unreadable("a sparse tensor"),
    "torch._utils._rebuild_sparse_csr_tensor": unreadable("a sparse tensor"),
    "torch._utils._rebuild_qtensor": unreadable("a quantised tensor"),
    "torch._utils._rebuild_nested_tensor": unreadable("a nested tensor"),
    "torch._utils._rebuild_meta_tensor_no_storage": unreadable("a tensor without content (device meta)"),
    "torch._utils._rebuild_wrapper_subclass": unreadable("a tensor subclass"),
    "torch._utils._rebuild_device_tensor_from_numpy": unreadable("a tensor of a device without storages"),
    "torch.Size": inert.make_size,
    "torch.device": record("torch.device"),
    "torch.serialization._get_layout": record("torch.layout"),
    "numpy.dtype": inert.make_numpy_type,
    "numpy.core.multiarray.scalar": inert.make_numpy_scalar,
    "numpy.core.multiarray._reconstruct": inert.make_numpy_array,
    "numpy.core.numeric._frombuffer": inert.make_numpy_array_of_bytes,
}
_NAMES: dict[str, Name] = {
    **{full: Name(full, make) for full, make in _CALLS.items()},
    **{full: Name(full, record(full)) for full in _RECORDS},
    **{full: Name(full) for full in _MENTIONED},
    **{f"torch.{dtype}": Name(f"torch.{dtype}", dtype=dtype) for dtype in _DTYPES},
    **{
        f"{module}.{kind}Storage": Name(f"torch.{kind}Storage", storage=dtype)
        for module in ("torch", "torch.cuda", "torch.storage")
        for kind, dtype in _STORAGES.items()
    },
}
#: Only the hint depends on these: an attack and an honest but unsuitable file call for different next steps.
_HARMFUL = frozenset(
    (
        *("os", "posix", "nt", "subprocess", "pty", "sys", "shutil", "socket", "webbrowser", "platform", "commands"),
        *("importlib", "runpy", "code", "codeop", "ctypes", "pickle", "_pickle", "cPickle", "operator", "_operator"),
        *("multiprocessing", "asyncio", "bdb", "pdb", "timeit"),
    )
)
_HARMFUL_BUILTINS = frozenset(
    f"{module}.{name}"
    for module in ("builtins", "__builtin__")
    for name in ("eval", "exec", "execfile", "compile", "open", "setattr", "delattr", "__import__", "input")
)


def lookup(module: str, name: str) -> Name:
    """The allowed name. Raises CheckpointError naming what is refused, with what to do about it."""
    full = f"{module}.{name}"
    for variant, usual in (("__builtin__.", "builtins."), ("numpy._core.", "numpy.core.")):
        if full.startswith(variant):
            full = usual + full.removeprefix(variant)
    if full in _NAMES:
        return _NAMES[full]
    full = f"{module}.{name}"
    if module.partition(".")[0] in _HARMFUL or full in _HARMFUL_BUILTINS:
        hint = (
            "PyTorch would run this while loading the file. Do not load it there; get the weights from another source."
        )
    else:
        hint = (
            "A whole model or training state was pickled. Load it where its code is installed and save only tensors: "
            'torch.save(model.state_dict(), "weights.pt").'
        )
    raise CheckpointError(f"it asks for {shown(full)}, which a file of tensors has no need of; nothing was run", hint)


def call(name: Name, arguments: Arguments, charge: Charge) -> object:
    """What calling ``name`` stands for. ``charge`` is told of memory before it is taken. Raises CheckpointError."""
    if name.make is None:
        raise CheckpointError(f"it calls {name.full}, which is no function")
    charge(_OBJECT)
    return name.make(arguments, charge)
