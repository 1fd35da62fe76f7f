"""The core that writes networks straight as ONNX graphs: layers over maps of known size, weights taken by key.

A network is described once, by code that makes layers and applies them. With tensors the code builds the graph; without
them it only records which tensors the network has (``Graph.tensors``), so that no second table of keys exists.

Layers are made in the order in which the checkpoint lists them, which is not always the order of use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segcam.errors import SegcamError

if TYPE_CHECKING:
    import onnx

_Array = np.ndarray[Any, Any]

#: HardSwish came with 14, Shape's ``start`` and ``end`` with 15. 18 moved ReduceMean's axes and gave Resize ``axes``,
#: which readers are still uneven about; nothing here needs it.
OPSET = 17
IR_VERSION = 8

INPUT = "input0"
OUTPUT = "scores"


@dataclass(frozen=True)
class Map:
    """A tensor (N, channels, height, width) in the graph, by its name."""

    name: str
    channels: int
    height: int
    width: int


@dataclass(frozen=True)
class Wanted:
    """A tensor of the checkpoint: its shape, and whether inference has no use for it."""

    shape: tuple[int, ...]
    idle: bool


@dataclass(frozen=True)
class Norm:
    """A batch norm in evaluation mode: (x - running_mean) / sqrt(running_var + eps) * weight + bias."""

    name: str
    eps: float


@dataclass(frozen=True)
class Conv:
    """A square convolution and the batch norm behind it; call it on a map to put it into the graph.

    ``same``: TensorFlow's padding, ceil(n / stride) out, the odd cell of padding after; else
    dilation * (kernel - 1) / 2 on both sides, as PyTorch networks have it.
    """

    graph: Graph
    name: str
    into: int
    out: int
    kernel: int
    stride: int
    dilation: int
    groups: int
    bias: bool
    norm: Norm | None
    same: bool

    def __call__(self, x: Map, output: str = "") -> Map:
        """The layer applied to ``x``; ``output`` names the tensor where it isn't to be the layer's own name."""
        if x.channels != self.into:
            raise ValueError(f"{self.name} takes {self.into} channels, {x.name} has {x.channels}")
        (top, bottom), (left, right) = self._padding(x.height), self._padding(x.width)
        made = Map(
            output or self.name,
            self.out,
            self._length(x.height + top + bottom),
            self._length(x.width + left + right),
        )
        self.graph.add(
            "Conv",
            self.name,
            [x.name, *self.graph.weights_of(self)],
            made.name,
            kernel_shape=[self.kernel] * 2,
            strides=[self.stride] * 2,
            dilations=[self.dilation] * 2,
            group=self.groups,
            pads=[top, left, bottom, right],
        )
        return made

    def _reach(self) -> int:
        return self.dilation * (self.kernel - 1)

    def _padding(self, n: int) -> tuple[int, int]:
        if not self.same:
            return self._reach() // 2, self._reach() // 2
        total = max((-(-n // self.stride) - 1) * self.stride + self._reach() + 1 - n, 0)
        return total // 2, total - total // 2

    def _length(self, padded: int) -> int:
        return (padded - self._reach() - 1) // self.stride + 1


class Graph:
    """An ONNX graph in the making, with one float32 input ``input0`` (N, 3, height, width).

    ``size`` is (height, width), ``batch`` the number of pictures (0: left open). Without ``tensors`` nothing is built
    and no memory taken; ``Graph.tensors`` then lists what the network wants, in the order of the checkpoint.
    """

    def __init__(self, size: tuple[int, int], batch: int = 1, tensors: Mapping[str, _Array] | None = None) -> None:
        self.tensors: dict[str, Wanted] = {}
        self.input = Map(INPUT, 3, *size)
        self._batch = batch
        self._given = tensors
        self._made: set[str] = set()
        self._model: onnx.ModelProto | None = None
        if tensors is not None:
            self._model = _empty_model()
            _declare(self._model.graph.input.add(), self.input, batch)

    # ---------------------------------------------------------------- layers

    def conv(
        self,
        name: str,
        into: int,
        out: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        norm: Norm | None = None,
        same: bool = False,
        idle: bool = False,
    ) -> Conv:
        """A convolution with the checkpoint's tensors NAME.weight (out, into / groups, kernel, kernel) and, with
        ``bias``, NAME.bias; then its ``norm``. ``idle``: in the checkpoint, never applied at inference.
        """
        self._want(f"{name}.weight", (out, into // groups, kernel, kernel), idle)
        if bias:
            self._want(f"{name}.bias", (out,), idle)
        if norm is not None:
            for part in ("weight", "bias", "running_mean", "running_var"):
                self._want(f"{norm.name}.{part}", (out,), idle)
            self._want(f"{norm.name}.num_batches_tracked", (), True)
        return Conv(self, name, into, out, kernel, stride, dilation, groups, bias, norm, same)

    def relu(self, x: Map, name: str) -> Map:
        return self._alike("Relu", name, x)

    def sigmoid(self, x: Map, name: str) -> Map:
        return self._alike("Sigmoid", name, x)

    def hard_sigmoid(self, x: Map, name: str) -> Map:
        """clamp(x + 3, 0, 6) / 6."""
        return self._alike("HardSigmoid", name, x, alpha=1 / 6, beta=0.5)

    def hard_swish(self, x: Map, name: str) -> Map:
        """x * clamp(x + 3, 0, 6) / 6."""
        return self._alike("HardSwish", name, x)

    def plus(self, a: Map, b: Map, name: str) -> Map:
        """a + b, of one shape."""
        self.add("Add", name, [a.name, b.name])
        return Map(name, a.channels, a.height, a.width)

    def times(self, a: Map, gate: Map, name: str) -> Map:
        """a * gate; a gate of 1 x 1 applies to every place."""
        self.add("Mul", name, [a.name, gate.name])
        return Map(name, a.channels, a.height, a.width)

    def concat(self, maps: Sequence[Map], name: str) -> Map:
        """The maps' channels in order."""
        self.add("Concat", name, [m.name for m in maps], axis=1)
        return Map(name, sum(m.channels for m in maps), maps[0].height, maps[0].width)

    def global_average(self, x: Map, name: str) -> Map:
        """Each channel's mean.

        ReduceMean, not GlobalAveragePool: ONNX Runtime's blocked kernel for the latter adds the cells one by one, and
        over 128 x 256 of them float32 loses ten times what everything else does (1.4e-3 on fastseg's scores).
        """
        self.add("ReduceMean", name, [x.name], axes=[2, 3], keepdims=1)
        return Map(name, x.channels, 1, 1)

    def average_pool(self, x: Map, name: str, window: tuple[int, int], stride: tuple[int, int]) -> Map:
        """Means of windows (height, width); no padding, left-over rows and columns are ignored."""
        self.add("AveragePool", name, [x.name], kernel_shape=list(window), strides=list(stride))
        height = (x.height - window[0]) // stride[0] + 1
        return Map(name, x.channels, height, (x.width - window[1]) // stride[1] + 1)

    def max_pool(self, x: Map, name: str, window: int, stride: int, pad: int) -> Map:
        self.add("MaxPool", name, [x.name], kernel_shape=[window] * 2, strides=[stride] * 2, pads=[pad] * 4)
        height, width = ((n + 2 * pad - window) // stride + 1 for n in (x.height, x.width))
        return Map(name, x.channels, height, width)

    def row_and_column_sums(self, x: Map, name: str, rows: _Array, columns: _Array) -> Map:
        """``rows`` (height out, height in) times each channel times ``columns`` (width out, width in) transposed."""
        across, down = self.constant(f"{name}.columns", columns.T), self.constant(f"{name}.rows", rows)
        self.add("MatMul", f"{name}.across", [x.name, across])
        self.add("MatMul", name, [down, f"{name}.across"])
        return Map(name, x.channels, rows.shape[0], columns.shape[0])

    def resize(self, x: Map, height: int, width: int, name: str, *, align_corners: bool = False) -> Map:
        """Bilinear, without antialiasing, to exactly (height, width)."""
        if (height, width) == (x.height, x.width):
            return x
        made = Map(name, x.channels, height, width)
        self.add(
            "Resize",
            name,
            [x.name, "", *self._enlargement(x, made)],
            mode="linear",
            coordinate_transformation_mode="align_corners" if align_corners else "half_pixel",
        )
        return made

    # ---------------------------------------------------------------- writing

    def add(self, kind: str, name: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> None:
        """A node whose one output is called ``output``, or as the node."""
        if self._model is None:
            return
        from onnx import helper

        node = self._model.graph.node.add()
        node.op_type, node.name = kind, name
        node.input.extend(inputs)
        node.output.append(output or name)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in sorted(attributes.items()))

    def constant(self, name: str, value: _Array) -> str:
        """An initializer: float32, or int64 for whole numbers."""
        if self._model is not None:
            from onnx import TensorProto

            whole = np.issubdtype(value.dtype, np.integer)
            tensor = self._model.graph.initializer.add()
            tensor.name = name
            tensor.data_type = TensorProto.INT64 if whole else TensorProto.FLOAT
            tensor.dims.extend(value.shape)
            tensor.raw_data = np.ascontiguousarray(value, "<i8" if whole else "<f4").tobytes()
        return name

    def weights_of(self, conv: Conv) -> list[str]:
        """Names of the kernel and bias of ``conv``, with the batch norm folded in: float64, rounded once at the end."""
        if self._given is None:
            return []
        weight = self._take(f"{conv.name}.weight")
        bias = self._take(f"{conv.name}.bias").astype(np.float64) if conv.bias else None
        if conv.norm is not None:
            scale, shift, mean, variance = (
                self._take(f"{conv.norm.name}.{part}").astype(np.float64)
                for part in ("weight", "bias", "running_mean", "running_var")
            )
            scale /= np.sqrt(variance + conv.norm.eps)
            # Straight into float32: the largest kernel in float64 would be 150 MB.
            folded = np.empty(weight.shape, np.float32)
            np.multiply(weight, scale[:, None, None, None], out=folded, dtype=np.float64, casting="same_kind")
            weight = folded
            bias = shift + ((0.0 if bias is None else bias) - mean) * scale
        names = [self.constant(f"{conv.name}.weight", weight)]
        if bias is not None:
            names.append(self.constant(f"{conv.name}.bias", bias))
        return names

    def finish(self, scores: Map, name: str) -> onnx.ModelProto:
        """The model, its graph called ``name``, ``scores`` its one output."""
        if self._model is None:
            raise ValueError("a graph without tensors has no model")
        self._model.graph.name = name
        _declare(self._model.graph.output.add(), scores, self._batch)
        return self._model

    # ---------------------------------------------------------------- inside

    def _want(self, key: str, shape: tuple[int, ...], idle: bool) -> None:
        if key in self.tensors:
            raise ValueError(f"{key} is described twice")
        self.tensors[key] = Wanted(shape, idle)

    def _take(self, key: str) -> _Array:
        given, shape = (self._given or {}).get(key), self.tensors[key].shape
        if given is None:
            raise SegcamError(f"the tensor {key} is missing", "Check that the checkpoint is this network's.")
        if given.shape != shape:
            raise SegcamError(
                f"the tensor {key} has shape {given.shape}, expected {shape}",
                "Check that the checkpoint is this network's.",
            )
        return given

    def _alike(self, kind: str, name: str, x: Map, **attributes: Any) -> Map:
        self.add(kind, name, [x.name], **attributes)
        return Map(name, x.channels, x.height, x.width)

    def _enlargement(self, x: Map, made: Map) -> list[str]:
        """Resize's third and fourth input: scales, sizes."""
        if not self._batch and made.height % x.height == 0 and made.width % x.width == 0:
            # Whole factors: sizes and sampling positions are those of explicit sizes, and the batch stays open.
            factors = (made.height // x.height, made.width // x.width)
            return [self._shared("scales", factors, lambda name: self.constant(name, np.array([1.0, 1.0, *factors])))]
        shape = (made.channels, made.height, made.width)
        return ["", self._shared("size", shape, lambda name: self._sizes(name, shape))]

    def _shared(self, kind: str, values: tuple[int, ...], make: Callable[[str], object]) -> str:
        """The name of what ``make(name)`` has put into the graph, once for all uses."""
        name = ".".join([kind, "x".join(map(str, values))]).rstrip(".")
        if name not in self._made:
            self._made.add(name)
            make(name)
        return name

    def _sizes(self, name: str, shape: tuple[int, int, int]) -> None:
        """[N, channels, height, width]; an open N is the input's."""
        if self._batch:
            self.constant(name, np.array([self._batch, *shape]))
            return
        batch = self._shared("batch", (), lambda batch: self.add("Shape", batch, [INPUT], start=0, end=1))
        self.add("Concat", name, [batch, self.constant(f"{name}.chw", np.array(shape))], axis=0)


def _empty_model() -> onnx.ModelProto:
    import onnx

    from segcam import __version__

    model = onnx.ModelProto(ir_version=IR_VERSION, producer_name="segcam", producer_version=__version__)
    model.opset_import.add(domain="", version=OPSET)
    return model


def _declare(value: onnx.ValueInfoProto, map_: Map, batch: int) -> None:
    from onnx import TensorProto

    value.name = map_.name
    kind = value.type.tensor_type
    kind.elem_type = TensorProto.FLOAT
    first = kind.shape.dim.add()
    if batch:
        first.dim_value = batch
    else:
        first.dim_param = "N"
    for length in (map_.channels, map_.height, map_.width):
        kind.shape.dim.add(dim_value=length)
