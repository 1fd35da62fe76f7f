"""What programs over libnvcuvid.c look with: the pictures that it must show, made from the same bits, and small videos.

Its pictures follow from the bits that FFmpeg hands to it, which are the slices of one packet: who knows the packet with
a time stamp knows every sample of the picture with that time stamp.
"""

from __future__ import annotations

import ctypes
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from av1_frames import shown_bits

from segcam.frame import Frame
from segcam.kernels.cuda.driver import Driver

FNV_PRIME, FNV_START = 16777619, 2166136261


def make_video(
    path: Path | str,
    codec: str,
    size: tuple[int, int],
    pix_fmt: str = "yuv420p",
    frames: int = 12,
    options: dict[str, str] | None = None,
) -> None:
    """Noise, 25 pictures a second, the same for the same arguments."""
    rng = np.random.default_rng(frames)
    quick = {"libx264": {"preset": "ultrafast"}, "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"}}
    quick |= {"libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"}, "libsvtav1": {"preset": "12"}}
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25, options={**quick[codec], **(options or {})})
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        for number in range(frames):
            noise = rng.integers(0, 255, (size[1], size[0], 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(noise, "rgb24").reformat(format=pix_fmt)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _units(data: bytes, framed: bool) -> Iterator[bytes]:
    if not framed:
        yield from (unit for unit in re.split(b"\x00*\x00\x00\x01", data) if unit)
        return
    while data:
        end = 4 + int.from_bytes(data[:4], "big")
        yield data[4:end]
        data = data[end:]


def _seed(data: bytes) -> int:
    seed = FNV_START
    for byte in data:
        seed = (seed ^ byte) * FNV_PRIME & 0xFFFFFFFF
    return seed


def seeds(path: Path | str) -> list[int]:
    """What each picture of the file is made from, in order of presentation."""
    # Time stamps may begin again within a file.
    pieces: list[list[tuple[int, int]]] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        name, framed = stream.codec_context.name, container.format.name != "mpegts"
        if name == "libdav1d":
            return [_seed(tiles) for tiles in shown_bits(path)]
        for packet in container.demux(stream):
            data = bytes(packet)
            if not data:
                continue
            if name in ("h264", "hevc"):
                slices = [
                    unit
                    for unit in _units(data, framed)
                    if (1 <= unit[0] & 31 <= 5 if name == "h264" else unit[0] >> 1 & 63 < 32)
                ]
                data = b"".join(b"\0\0\1" + unit for unit in slices)
            assert packet.pts is not None
            if not pieces or packet.pts <= pieces[-1][0][0]:
                pieces.append([])
            pieces[-1].append((packet.pts, _seed(data)))
    return [seed for piece in pieces for _, seed in sorted(piece)]


def painted(seed: int, width: int, height: int, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Y (H, W) and UV (H/2, W/2, 2) of that picture: uint8, or the upper bits of uint16."""
    planes = []
    for p, rows in ((0, height), (1, height // 2)):
        x, y = np.arange(-(-width // 2) * 2 if p else width), np.arange(rows)[:, None]
        value = ((seed >> 8 * p) + (3 + 4 * p) * x + (5 + 6 * p) * y) & ((1 << bits) - 1)
        planes.append(value.astype(np.uint8) if bits == 8 else (value << (16 - bits)).astype(np.uint16))
    return planes[0], planes[1].reshape(height // 2, -1, 2)


def record(path: Path | str, into: Path) -> None:
    """Appends the pictures of the file as they really are, decoded here, for NVDEC_PICTURES. Of even sizes."""
    made = seeds(path)
    with av.open(str(path)) as container, into.open("ab") as file:
        for number, picture in enumerate(container.decode(video=0)):
            wide = "10" in picture.format.name
            planes = picture.reformat(format="p010le" if wide else "nv12").planes
            nbytes = picture.width << wide
            file.write(struct.pack("=IIII", made[number], 10 if wide else 8, nbytes, picture.height * 3 // 2))
            for plane in planes:
                file.write(np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:, :nbytes].tobytes())
        assert number + 1 == len(made)


def on_device(gpu: Driver, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """The samples that lie at the addresses of a frame's planes, as ``painted`` has them."""
    assert frame.device is not None and frame.planes == () and frame.format == "nv12"
    dtype = np.dtype(np.uint8 if frame.device.format == "nv12" else np.uint16)
    planes = []
    with gpu.current():
        stream = gpu.stream()
        for address, pitch, rows in zip(
            frame.device.addresses, frame.device.pitches, (frame.height, frame.height // 2), strict=True
        ):
            assert pitch > frame.width * dtype.itemsize
            data = np.zeros((rows, pitch), np.uint8)
            gpu.download(data, address, stream)
            stream.synchronize()
            planes.append(np.ascontiguousarray(data[:, : frame.width * dtype.itemsize]).view(dtype))
        stream.close()
    return planes[0], planes[1].reshape(frame.height // 2, -1, 2)


def check(gpu: Driver, frame: Frame, seed: int, bits: int = 8) -> None:
    """That the frame is on the GPU and every sample is what the picture of that seed must have."""
    wanted, found = painted(seed, frame.width, frame.height, bits), on_device(gpu, frame)
    for mine, other in zip(found, wanted, strict=True):
        assert mine.dtype == other.dtype and np.array_equal(mine, other), (frame.index, mine, other)


def check_host(frame: Frame, seed: int, bits: int = 8) -> None:
    """That a frame which came down has the picture's samples, rounded to 8 bits."""
    host = frame.to_host()
    assert host.device is None and (host.pts, host.width, host.height) == (frame.pts, frame.width, frame.height)
    luma, chroma = painted(seed, frame.width, frame.height, bits)
    mine = host.planes[1] if host.format == "nv12" else np.stack(host.planes[1:], axis=-1)
    for found, wanted in ((host.planes[0], luma), (mine, chroma)):
        eight = wanted if bits == 8 else np.minimum(np.rint(wanted / 256), 255).astype(np.uint8)
        assert np.array_equal(found, eight), (frame.index, found, eight)


def current_context() -> int | None:
    """The handle of the CUDA context that is current in this thread."""
    handle = ctypes.c_void_p()
    assert ctypes.CDLL("libcuda.so.1").cuCtxGetCurrent(ctypes.byref(handle)) == 0
    return handle.value
