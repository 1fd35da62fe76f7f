"""What a training step is made of: the loss, averaged weights, the learning rate, and the score on held-out scenes."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from segcam.classes import CITYSCAPES
from segcam.evaluation.scores import Confusion, Scores
from segcam.onnx_tools.spec import IMAGENET_MEAN, IMAGENET_STD
from train.augment import IGNORED, Pixels
from train.feed import HELD_OUT, Render, Scene, street

CLASSES = len(CITYSCAPES)
#: The size that the demo's network takes.
INPUT = (512, 1024)


def prepared(rgb: Pixels, device: torch.device) -> Tensor:
    """(N, H, W, 3) uint8 to what the network takes: (N, 3, H, W) float32, ImageNet's mean and deviation, channels-last
    in memory."""
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (torch.from_numpy(rgb).to(device).permute(0, 3, 1, 2).float() - mean) / std


class Balance:
    """Class weights: the share of each class, as seen so far, to the power of -0.4; 1 on average over all pixels, and
    at most 10."""

    def __init__(self) -> None:
        self.seen = np.ones(CLASSES)

    def weights(self, labels: Pixels) -> Tensor:
        """(CLASSES,) float32, after ``labels`` have been counted, too; those of long ago count less and less."""
        self.seen = self.seen * 0.999 + np.bincount(labels.reshape(-1), minlength=256)[:CLASSES]
        share = self.seen / self.seen.sum()
        raw = np.maximum(share, 1e-5) ** -0.4
        return torch.from_numpy(np.minimum(raw / (raw * share).sum(), 10.0).astype(np.float32))


def loss_of(scores: Tensor, labels: Tensor, weights: Tensor, whole: bool = True) -> Tensor:
    """Weighted cross-entropy of scores (N, C, H / 2, W / 2) against labels (N, H, W) int64, IGNORED or 0..C - 1.

    ``whole``: the scores are enlarged half-pixel to the labels. Else each cell's score is held against the four labels
    under it, which teaches nearly the same at a quarter of the softmaxes: on a CPU they are a quarter of a step.
    """
    if whole:
        enlarged = functional.interpolate(scores.float(), labels.shape[1:], mode="bilinear", align_corners=False)
        return functional.cross_entropy(enlarged, labels, weights, ignore_index=IGNORED)
    count = scores.shape[1]
    log_shares = torch.log_softmax(scores.float().permute(0, 2, 3, 1), 3)
    # One more place, for what is ignored, weighs nothing.
    parts = torch.zeros(*log_shares.shape[:3], count + 1, device=scores.device)
    for corner in ((0, 0), (0, 1), (1, 0), (1, 1)):
        under = labels[:, corner[0] :: 2, corner[1] :: 2].clamp(max=count)[..., None]
        parts.scatter_add_(3, under, torch.ones_like(under, dtype=parts.dtype))
    wanted = parts[..., :count] * weights
    return -(wanted * log_shares).sum() / wanted.sum().clamp(min=1e-6)


class Average:
    """An exponential moving average of a network's weights and statistics, over some 1 / (1 - decay) steps."""

    def __init__(self, network: nn.Module, decay: float = 0.998) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        decay = min(self._decay, (1 + step) / (10 + step))
        for mine, other in zip(self.network.state_dict().values(), network.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(other, 1 - decay)
            else:
                mine.copy_(other)


def initialise(network: nn.Module) -> None:
    """He's initialisation by what a kernel looks at; what is added to a block's input begins at zero."""
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d):
            gain = 1.0 if name in ("last", "conv_up1", "convs2", "convs4") else math.sqrt(2)
            fan_in = layer.weight[0].numel()
            nn.init.normal_(layer.weight, std=gain / math.sqrt(fan_in))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        if getattr(layer, "adds", False):
            nn.init.zeros_(layer.bn3.weight)


def parameter_groups(network: nn.Module, decay: float) -> list[dict[str, object]]:
    """Kernels decay; biases and what normalises do not."""
    kernels = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    return [{"params": kernels, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]


def rate_at(progress: float, peak: float, warm_up: float = 0.03) -> float:
    """The learning rate at ``progress`` 0..1: a straight rise to ``peak``, then half a cosine down to a hundredth."""
    if progress < warm_up:
        return peak * max(progress / warm_up, 0.02)
    turn = min((progress - warm_up) / (1 - warm_up), 1.0)
    return peak * (0.01 + 0.99 * (1 + math.cos(math.pi * turn)) / 2)


def held_out_scenes(count: int, render: Render = street, first: int = HELD_OUT) -> list[Scene]:
    """``count`` scenes of as many seeds from ``first`` on, drawn at 2048x1024 and made INPUT by what the pipeline does:
    bilinear, half-pixel."""
    scenes = []
    for number in range(count):
        rgb, labels = render(first + number, number * 17, (1024, 2048))
        size = INPUT[::-1]
        scenes.append(
            (
                np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_LINEAR), np.uint8),
                np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8),
            )
        )
    return scenes


@torch.no_grad()
def evaluate(network: nn.Module, scenes: Sequence[Scene], device: torch.device) -> Scores:
    """Scores of all pixels of ``scenes``; ``network`` is in evaluation mode."""
    ids = np.arange(256)
    rows = np.where(ids < CLASSES, ids, Confusion.LEFT_OUT)
    columns = np.minimum(ids, CLASSES)
    confusion = Confusion(CITYSCAPES.names, rows, columns)
    for rgb, labels in scenes:
        scores = network(prepared(rgb[None], device)).float()
        whole = functional.interpolate(scores, labels.shape, mode="bilinear", align_corners=False)
        confusion.add(labels, whole[0].argmax(0).to(torch.uint8).cpu().numpy())
    return confusion.scores
