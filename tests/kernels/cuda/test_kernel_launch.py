"""Preprocess and Postprocess through the driver, from upload to download, as a segmenter uses them."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_shim import HostKernels
from cuda_shim.memory import HostPicture
from cuda_shim.on_machine import put_kernels_on
from odd_scores import make_scores
from standin_cuda import Machine

from segcam.errors import CudaError
from segcam.geometry import fit, resize_axis, taps
from segcam.kernels.cuda import reference
from segcam.kernels.cuda.driver import Driver
from segcam.kernels.cuda.picture import DevicePicture, PictureKind
from segcam.kernels.cuda.postprocess import COUNTS_BYTES, Grid, Postprocess, PostprocessPlan, color_table
from segcam.kernels.cuda.preprocess import Preprocess, PreprocessPlan
from segcam.kernels.cuda.ptx import read_ptx

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
KIND = PictureKind("nv12", 34, 140)
DEEP = PictureKind("p010", 34, 140)


def device_picture(kind: PictureKind, address: int) -> DevicePicture:
    """In one block, rows 512 bytes apart."""
    return DevicePicture(kind, (address, address + 512 * 34), (512, 512))


def host_picture(kind: PictureKind) -> HostPicture:
    """As ``device_picture`` has it; the last row of a plane ends with its last sample."""
    return HostPicture(kind, (0, 0), (0, 0), align=512)


@pytest.mark.parametrize("source", [KIND, DEEP], ids=lambda kind: str(kind.format))
def test_a_frame_goes_through_both(inside: Driver, machine: Machine, kernels: HostKernels, source: PictureKind) -> None:
    """Two frames, one after the other, on one stream; nothing is allocated after the launchers are made."""
    put_kernels_on(machine, kernels)
    placement = fit((34, 140), (64, 128), "letterbox")
    first = PreprocessPlan(source, placement, (64, 128), MEAN, STD, rgb=True)
    scores = make_scores("smooth", 19, 8, 16, 3).astype(np.float16)
    axes = [(resize_axis(n, m), to.inverse()) for n, m, to in ((64, 8, placement.y), (128, 16, placement.x))]
    y, x = (taps(n, m, to.then(grid)) for n, m, (grid, to) in ((34, 8, axes[0]), (140, 16, axes[1])))
    last = PostprocessPlan(Grid.nchw("float16", 19, 8, 16), y, x)
    random = np.random.default_rng(1)
    table = color_table(KIND.colors, random.integers(0, 256, (256, 3), np.uint8), np.full(256, 0.5))
    blocks = [
        inside.allocate(n)
        for n in (512 * 51, first.nbytes, scores.nbytes, 34 * 140, COUNTS_BYTES, table.nbytes, 512 * 51)
    ]
    picture, fed, held, labels, counts, colors, painted = (block.address for block in blocks)
    stream = inside.stream()
    modules = [inside.load_module(read_ptx(name)) for name in ("preprocess", "postprocess")]
    preprocess, postprocess = (
        Preprocess(inside, modules[0], first, stream),
        Postprocess(inside, modules[1], last, stream),
    )
    inside.upload(held, scores, stream)
    inside.upload(colors, table, stream)
    allocated = machine.counts["cuMemAlloc"]
    for seed in (1, 2):
        host = host_picture(source).fill(seed)
        inside.upload(picture, host.planes[0].bytes, stream)
        inside.upload(picture + 512 * 34, host.planes[1].bytes, stream)
        preprocess.launch(device_picture(source, picture), fed, stream, cleared=counts)
        postprocess.launch(
            held, stream, labels=labels, counts=counts, colors=colors, source=device_picture(source, picture),
            overlay=device_picture(KIND, painted),
        )  # fmt: skip
        got_fed = np.empty((3, 64, 128), np.float16)
        got_labels, got_counts = np.empty((34, 140), np.uint8), np.empty(256, np.uint32)
        got = host_picture(KIND)
        inside.download(got_fed, fed, stream)
        inside.download(got_labels, labels, stream)
        inside.download(got_counts, counts, stream)
        inside.download(got.planes[0].bytes, painted, stream)
        inside.download(got.planes[1].bytes, painted + 512 * 34, stream)
        stream.synchronize()
        real = reference.preprocess(source, host.arrays(), placement, (64, 128), MEAN, STD, rgb=True)
        np.testing.assert_allclose(got_fed, real, rtol=2.0**-11, atol=2e-5)
        want_labels, want_counts = reference.class_map(scores, y, x)
        np.testing.assert_array_equal(got_labels, want_labels)
        np.testing.assert_array_equal(got_counts, want_counts)
        want_planes = reference.overlay(source, host.arrays(), want_labels, table, KIND)
        for plane, want in zip(got.arrays(), want_planes, strict=True):
            np.testing.assert_array_equal(plane, want)
    assert machine.counts["cuMemAlloc"] == allocated
    for closable in (preprocess, postprocess, *modules, stream, *blocks):
        closable.close()


def test_a_failed_upload_leaves_no_memory(inside: Driver, machine: Machine, kernels: HostKernels) -> None:
    put_kernels_on(machine, kernels)
    plan = PreprocessPlan(KIND, fit((34, 140), (64, 128)), (64, 128), MEAN, STD, rgb=True)
    module, stream = inside.load_module(read_ptx("preprocess")), inside.stream()
    used = machine.leftovers()
    machine.fail("cuMemcpyHtoDAsync", at=1)
    with pytest.raises(CudaError):
        Preprocess(inside, module, plan, stream)
    assert {kind: count for kind, count in machine.leftovers().items() if "unction" not in kind} == {
        kind: count for kind, count in used.items() if "unction" not in kind
    }
