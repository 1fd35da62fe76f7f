"""MobileV3Small with an LR-ASPP head as a PyTorch module, to be trained; its keys are those of a fastseg checkpoint.

The table of blocks is ``segcam.networks.fastseg.SMALL``. What differs from a plain writing-down, for speed alone and
without changing a result: 1x1 convolutions go before the bilinear enlargement that they follow in the original (both
are linear, and a quarter of the pixels is left to them), a concatenation in front of a 1x1 convolution is a sum, and
pictures are kept channels-last.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from segcam.networks import fastseg
from segcam.networks.architecture import NetworkOptions, checkpoint_tensors
from train import depthwise

MODEL = "MobileV3Small"
_TRUNK_EPS = 1e-3
#: The original's gate averages windows of this size, this far apart, on the stride-8 map.
_WINDOW, _STRIDE = (49, 49), (16, 20)


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's padding: ceil(n / stride) out, the odd cell of padding behind."""

    def forward(self, input: Tensor) -> Tensor:
        reach = self.dilation[0] * (self.kernel_size[0] - 1)
        if self.training and self.stride[0] == 1 and self.kernel_size[0] == depthwise.TAPS:
            return depthwise.convolve(input, self.weight, self.dilation[0])
        if self.stride[0] == 1:
            return functional.conv2d(input, self.weight, None, 1, reach // 2, self.dilation, self.groups)
        pads = []
        for n in (input.shape[3], input.shape[2]):
            total = max((-(-n // self.stride[0]) - 1) * self.stride[0] + reach + 1 - n, 0)
            pads += [total // 2, total - total // 2]
        padded = functional.pad(input, pads)
        return functional.conv2d(padded, self.weight, None, self.stride, 0, self.dilation, self.groups)


class Watched(torch.autograd.Function):
    """(x, each channel's mean): its backward pass adds both gradients in one go over memory of one layout."""

    @staticmethod
    def forward(context: torch.autograd.function.FunctionCtx, x: Tensor) -> tuple[Tensor, Tensor]:
        context.cells = x.shape[2] * x.shape[3]
        return x.view_as(x), x.mean((2, 3), keepdim=True)

    @staticmethod
    def backward(context: torch.autograd.function.FunctionCtx, of_x: Tensor, of_mean: Tensor) -> Tensor:
        return of_x + of_mean / context.cells


class Excite(nn.Module):
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, hidden, 1)
        self.conv_expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, mean = Watched.apply(x)
        gate = functional.relu(self.conv_reduce(mean))
        return x * functional.hardsigmoid(self.conv_expand(gate))


class Block(nn.Module):
    """[1x1 to ``expanded``, activation], depthwise, activation, [squeeze-excite], 1x1; plus the input where it fits."""

    def __init__(self, plan: fastseg.Block, into: int, hidden: int) -> None:
        super().__init__()
        wide = plan.expanded or into
        self.act = functional.hardswish if plan.hard else functional.relu
        self.adds = plan.stride == 1 and into == plan.out
        self.expands = bool(plan.expanded)
        if self.expands:
            self.conv_pw = nn.Conv2d(into, wide, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(wide, _TRUNK_EPS)
        self.conv_dw = SameConv(wide, wide, plan.kernel, plan.stride, dilation=plan.dilation, groups=wide, bias=False)
        setattr(self, "bn2" if self.expands else "bn1", nn.BatchNorm2d(wide, _TRUNK_EPS))
        self.se = Excite(wide, hidden) if plan.excite else None
        if self.expands:
            self.conv_pwl = nn.Conv2d(wide, plan.out, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(plan.out, _TRUNK_EPS)
        else:
            self.conv_pw = nn.Conv2d(wide, plan.out, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(plan.out, _TRUNK_EPS)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.bn1(self.conv_pw(x))) if self.expands else x
        y = self.act((self.bn2 if self.expands else self.bn1)(self.conv_dw(y)))
        if self.se is not None:
            y = self.se(y)
        y = self.bn3(self.conv_pwl(y)) if self.expands else self.bn2(self.conv_pw(y))
        return y + x if self.adds else y


class Trunk(nn.Module):
    """Features at stride 2, 4 and 8."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__()
        self.early = nn.Sequential(SameConv(3, 16, 3, 2, bias=False), nn.BatchNorm2d(16, _TRUNK_EPS))
        stages: dict[str, list[Block]] = {}
        into = 16
        for plan in fastseg.SMALL.blocks:
            hidden = shapes[f"trunk.{plan.name}.se.conv_reduce.weight"][0] if plan.excite else 0
            stages.setdefault(plan.name.partition(".")[0], []).append(Block(plan, into, hidden))
            into = plan.out
        for name, blocks in stages.items():
            self.add_module(name, nn.Sequential(*blocks))
        name, width = fastseg.SMALL.last
        last = nn.Module()
        last.conv = nn.Conv2d(into, width, 1, bias=False)
        last.bn1 = nn.BatchNorm2d(width, _TRUNK_EPS)
        self.add_module(name.partition(".")[0], nn.Sequential(last))
        self._middle = [name for name in stages if name != "block0"]
        self._last = name

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        half = functional.hardswish(self.early(x))
        quarter = self.block0(half)
        x = quarter
        for name in self._middle:
            x = getattr(self, name)(x)
        last = self.get_submodule(self._last)
        return half, quarter, functional.hardswish(last.bn1(last.conv(x)))


class MobileV3Small(nn.Module):
    """(N, 3, H, W) normalised RGB to scores (N, classes, ceil(H / 2), ceil(W / 2)).

    The original takes no side below 385 pixels, where its gate's window no longer fits; here the window shrinks to the
    map, as if the small crop were looked at alone.
    """

    def __init__(self, num_classes: int = 19, num_filters: int = 64) -> None:
        super().__init__()
        shapes = checkpoint_tensors(NetworkOptions(MODEL, num_classes, num_filters))
        width, filters = fastseg.SMALL.last[1], num_filters
        self.trunk = Trunk(shapes)
        self.aspp_conv1 = nn.Sequential(nn.Conv2d(width, filters, 1, bias=False), nn.BatchNorm2d(filters))
        self.aspp_conv2 = nn.Sequential(nn.Identity(), nn.Conv2d(width, filters, 1, bias=False))
        self.convs2 = nn.Conv2d(16, 32, 1, bias=False)
        self.convs4 = nn.Conv2d(16, 64, 1, bias=False)
        self.conv_up1 = nn.Conv2d(filters, filters, 1)
        self.conv_up2 = _normed(filters + 64, filters)
        self.conv_up3 = _normed(filters + 32, filters)
        self.last = nn.Conv2d(filters, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        half, quarter, eighth = self.trunk(x)
        a = functional.relu(self.aspp_conv1(eighth))
        y = self.conv_up1(a * self._gate(eighth, a.shape[2:]))
        y = functional.relu(_merged(self.conv_up2, y, self.convs4, quarter))
        y = functional.relu(_merged(self.conv_up3, y, self.convs2, half))
        return self.last(y)

    def _gate(self, eighth: Tensor, size: torch.Size) -> Tensor:
        window = [min(most, n) for most, n in zip(_WINDOW, eighth.shape[2:], strict=True)]
        pooled = functional.avg_pool2d(eighth, window, _STRIDE)
        gate = torch.sigmoid(self.aspp_conv2(pooled))
        if gate.shape[2:] == (1, 1):
            return gate
        return functional.interpolate(gate, size, mode="bilinear", align_corners=True)


def _normed(into: int, out: int) -> nn.Module:
    layer = nn.Module()
    layer.conv = nn.Conv2d(into, out, 1, bias=False)
    layer.bn = nn.BatchNorm2d(out)
    return layer


def _merged(layer: nn.Module, low: Tensor, into: nn.Conv2d, skip: Tensor) -> Tensor:
    """layer(concat(enlarged(low), into(skip)))."""
    weight = layer.conv.weight
    split = low.shape[1]
    low = functional.conv2d(low, weight[:, :split])
    low = functional.interpolate(low, skip.shape[2:], mode="bilinear", align_corners=False)
    # Two 1x1 convolutions in a row are one.
    both = torch.einsum("oixy,ijxy->ojxy", weight[:, split:], into.weight)
    return layer.bn(low + functional.conv2d(skip, both))
