"""PSPNet on ResNetV1c-50 with output stride 8, as mmsegmentation trains it (pspnet_r50-d8_512x512_20k_voc12aug).

Sources: Zhao et al., Pyramid Scene Parsing Network (2017); mmsegmentation 0.11 and 1.2. "V1c" is a stem of three 3x3
convolutions; strides sit on a block's 3x3; the first block of a dilated stage has half the rate of the others.
"""

from __future__ import annotations

from segcam.networks import pyramid
from segcam.networks.builder import OUTPUT, Graph, Map, Norm
from segcam.networks.pyramid import AdaptivePool

_EPS = 1e-5
#: (blocks, width, stride of the first block, dilation of the first block, dilation of the others).
_STAGES = ((3, 64, 1, 1, 1), (4, 128, 2, 1, 1), (6, 256, 1, 1, 2), (3, 512, 1, 2, 4))
_EXPANSION = 4


def describe(graph: Graph, num_classes: int, adaptive_pool: AdaptivePool) -> Map:
    """The network on ``graph.input``; returns the scores at one eighth of the input's size, rounded up.

    ``adaptive_pool``: "torch" for PyTorch's windows (any size), "omz" for those of Open Model Zoo's export, which
    raises UsageError where the map has fewer than six cells on a side.
    """
    x = _stem(graph, "backbone.stem")
    taps = []
    for i, stage in enumerate(_STAGES, 1):
        x = _stage(graph, x, f"backbone.layer{i}", *stage)
        taps.append(x)

    conv_seg = graph.conv("decode_head.conv_seg", 512, num_classes, bias=True)
    layers = pyramid.make_layers(graph, "decode_head.psp_modules", x.channels, 512, _EPS)
    norm = Norm("decode_head.bottleneck.bn", _EPS)
    bottleneck = graph.conv("decode_head.bottleneck.conv", x.channels + 4 * 512, 512, 3, norm=norm)
    graph.conv("auxiliary_head.conv_seg", 256, num_classes, bias=True, idle=True)
    norm = Norm("auxiliary_head.convs.0.bn", _EPS)
    graph.conv("auxiliary_head.convs.0.conv", taps[2].channels, 256, 3, norm=norm, idle=True)

    x = pyramid.apply_layers(graph, x, layers, "decode_head.psp_modules", adaptive_pool)
    return conv_seg(graph.relu(bottleneck(x), "decode_head.bottleneck"), OUTPUT)


def _stem(graph: Graph, name: str) -> Map:
    x = graph.input
    for i, (out, stride) in enumerate(((32, 2), (32, 1), (64, 1))):
        conv = graph.conv(f"{name}.{3 * i}", x.channels, out, 3, stride=stride, norm=Norm(f"{name}.{3 * i + 1}", _EPS))
        x = graph.relu(conv(x), f"{name}.{3 * i + 2}")
    return graph.max_pool(x, "backbone.maxpool", 3, 2, 1)


def _stage(graph: Graph, x: Map, name: str, blocks: int, width: int, stride: int, first: int, others: int) -> Map:
    for i in range(blocks):
        x = _bottleneck(graph, x, f"{name}.{i}", width, 1 if i else stride, others if i else first)
    return x


def _bottleneck(graph: Graph, x: Map, name: str, width: int, stride: int, dilation: int) -> Map:
    """1x1, 3x3, 1x1, each with a batch norm, plus the shortcut: ``x``, or a 1x1 of it where the shape changes."""
    out = width * _EXPANSION
    norms = [Norm(f"{name}.bn{i}", _EPS) for i in (1, 2, 3)]
    y = graph.relu(graph.conv(f"{name}.conv1", x.channels, width, norm=norms[0])(x), f"{name}.relu1")
    conv2 = graph.conv(f"{name}.conv2", width, width, 3, stride=stride, dilation=dilation, norm=norms[1])
    y = graph.relu(conv2(y), f"{name}.relu2")
    y = graph.conv(f"{name}.conv3", width, out, norm=norms[2])(y)
    if x.channels != out or stride != 1:
        shortcut = f"{name}.downsample"
        x = graph.conv(f"{shortcut}.0", x.channels, out, stride=stride, norm=Norm(f"{shortcut}.1", _EPS))(x)
    return graph.relu(graph.plus(y, x, f"{name}.sum"), name)
