"""Depthwise 5x5 convolutions for training on a CPU, ten times as fast as PyTorch's own backward pass.

The kernels are C (``depthwise.c``), compiled for this machine when first wanted. Without a compiler everything works
on PyTorch's own convolutions: the same results, several times slower.
"""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

TAPS = 5
_SOURCE = Path(__file__).with_name("depthwise.c")
_FLAGS = ("-O3", "-march=native", "-ffast-math", "-shared", "-fPIC")


class _Shape(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_int32) for name in ("count", "height", "width", "channels", "dilation", "half"))


def convolve(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """``x`` (N, C, H, W), ``weight`` (C, 1, 5, 5); stride 1, the size is kept. Differentiable in both.

    On the CPU and for float32 or bfloat16 pictures by the kernels here, which sum in float32; else by PyTorch's.
    """
    if x.is_cuda or x.dtype not in (torch.float32, torch.bfloat16) or kernels() is None:
        return functional.conv2d(x, weight, None, 1, dilation * (TAPS - 1) // 2, dilation, len(weight))
    return _Depthwise.apply(x, weight, dilation)


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(context: torch.autograd.function.FunctionCtx, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        x, taps = _cells(x), weight.detach()[:, 0].permute(1, 2, 0).float().contiguous()
        context.save_for_backward(x, taps)
        context.dilation = dilation
        out = torch.empty_like(x)
        _work("depthwise_forward", x, dilation, x, taps, out)
        return out

    @staticmethod
    def backward(context: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, taps = context.saved_tensors
        of_x, of_taps = torch.empty_like(x), torch.empty_like(taps)
        given = _cells(gradient.to(x.dtype))
        _work("depthwise_backward", x, context.dilation, x, taps, given, of_x, of_taps)
        return of_x, of_taps.permute(2, 0, 1)[:, None], None


def _cells(x: Tensor) -> Tensor:
    return x.detach().contiguous(memory_format=torch.channels_last)


def _work(name: str, like: Tensor, dilation: int, *tensors: Tensor) -> None:
    """The kernel ``name`` on as many threads as PyTorch uses; they share the units of work by a counter."""
    count, channels, height, width = like.shape
    shape = _Shape(count, height, width, channels, dilation, like.dtype == torch.bfloat16)
    counter = ctypes.c_int32(0)
    arguments = [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]
    kernel = getattr(kernels(), name)

    def run() -> int:
        return int(kernel(ctypes.byref(counter), ctypes.byref(shape), *arguments))

    helpers = [_pool().submit(run) for _ in range(torch.get_num_threads() - 1)]
    if run() + sum(helper.result() for helper in helpers):
        raise MemoryError("no memory for a depthwise convolution's planes")


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(64, "depthwise")


@functools.cache
def kernels(say: Callable[[str], object] = lambda line: print(line, file=sys.stderr)) -> ctypes.CDLL | None:
    """The compiled kernels; None where there is no C compiler, or it fails."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        say("no C compiler: depthwise convolutions are PyTorch's, several times slower")
        return None
    with tempfile.TemporaryDirectory(prefix="segcam-") as folder:
        library = Path(folder) / "depthwise.so"
        made = subprocess.run(
            [compiler, *_FLAGS, "-o", str(library), str(_SOURCE)], capture_output=True, text=True, check=False
        )
        if made.returncode:
            say(f"{compiler} failed ({made.stderr.strip()[:200]}): depthwise convolutions are PyTorch's, slower")
            return None
        return ctypes.CDLL(str(library))
