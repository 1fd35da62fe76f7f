"""Fast-SCNN as mmsegmentation trains it (configuration fast_scnn_lr0.12_8x4_160k_cityscapes).

Sources: Poudel et al., Fast-SCNN: Fast Semantic Segmentation Network (2019); mmsegmentation 0.17 and 1.2, which ends
the pyramid with a 3x3 convolution and has no activation between depthwise and pointwise.
"""

from __future__ import annotations

from segcam.networks import pyramid
from segcam.networks.builder import OUTPUT, Graph, Map, Norm

_EPS = 1e-5
_EXPANSION = 6
#: (channels, stride of the first block) of the three groups of three inverted residuals.
_GROUPS = ((64, 2), (96, 2), (128, 1))


def describe(graph: Graph, num_classes: int) -> Map:
    """The network on ``graph.input``, of any size; returns the scores at one eighth of the input's size, rounded up."""
    name = "backbone.learning_to_downsample"
    x = _conv_relu(graph, graph.input, f"{name}.conv", 32, 3, stride=2)
    x = _separable(graph, x, f"{name}.dsconv1", 48, stride=2)
    eighth = _separable(graph, x, f"{name}.dsconv2", 64, stride=2)
    deep = _global_features(graph, eighth, "backbone.global_feature_extractor")
    fused = _fuse(graph, eighth, deep, "backbone.feature_fusion")

    conv_seg = graph.conv("decode_head.conv_seg", fused.channels, num_classes, bias=True)
    for i in range(2):
        fused = _separable(graph, fused, f"decode_head.convs.{i}", fused.channels)
    for i, channels in enumerate((deep.channels, eighth.channels)):
        head = f"auxiliary_head.{i}"
        graph.conv(f"{head}.conv_seg", 32, num_classes, bias=True, idle=True)
        graph.conv(f"{head}.convs.0.conv", channels, 32, 3, norm=Norm(f"{head}.convs.0.bn", _EPS), idle=True)
    return conv_seg(fused, OUTPUT)


def _conv(graph: Graph, x: Map, name: str, out: int, kernel: int = 1, *, stride: int = 1, groups: int = 1) -> Map:
    """Convolution without bias, batch norm."""
    norm = Norm(f"{name}.bn", _EPS)
    return graph.conv(f"{name}.conv", x.channels, out, kernel, stride=stride, groups=groups, norm=norm)(x)


def _conv_relu(graph: Graph, x: Map, name: str, out: int, kernel: int = 1, *, stride: int = 1, groups: int = 1) -> Map:
    return graph.relu(_conv(graph, x, name, out, kernel, stride=stride, groups=groups), name)


def _separable(graph: Graph, x: Map, name: str, out: int, *, stride: int = 1) -> Map:
    """Depthwise 3x3 without activation, then 1x1 with ReLU."""
    x = _conv(graph, x, f"{name}.depthwise_conv", x.channels, 3, stride=stride, groups=x.channels)
    return _conv_relu(graph, x, f"{name}.pointwise_conv", out)


def _inverted_residual(graph: Graph, x: Map, name: str, out: int, stride: int) -> Map:
    wide = x.channels * _EXPANSION
    y = _conv_relu(graph, x, f"{name}.conv.0", wide)
    y = _conv_relu(graph, y, f"{name}.conv.1", wide, 3, stride=stride, groups=wide)
    y = _conv(graph, y, f"{name}.conv.2", out)
    return graph.plus(y, x, name) if stride == 1 and x.channels == out else y


def _global_features(graph: Graph, x: Map, name: str) -> Map:
    """Output stride 32, the pyramid included."""
    for group, (channels, stride) in enumerate(_GROUPS, 1):
        for i in range(3):
            block = f"{name}.bottleneck{group}.{i}"
            x = _inverted_residual(graph, x, block, channels, stride if i == 0 else 1)
    layers = pyramid.make_layers(graph, f"{name}.ppm", x.channels, x.channels // 4, _EPS)
    return _conv_relu(graph, pyramid.apply_layers(graph, x, layers, f"{name}.ppm"), f"{name}.out", 128, 3)


def _fuse(graph: Graph, eighth: Map, deep: Map, name: str) -> Map:
    """Both maps through linear layers to 128 channels at one eighth, summed, then one ReLU."""
    lower = graph.resize(deep, eighth.height, eighth.width, f"{name}.up")
    lower = _conv_relu(graph, lower, f"{name}.dwconv", lower.channels, 3, groups=lower.channels)
    lower = _conv(graph, lower, f"{name}.conv_lower_res", 128)
    higher = _conv(graph, eighth, f"{name}.conv_higher_res", 128)
    return graph.relu(graph.plus(higher, lower, f"{name}.sum"), name)
