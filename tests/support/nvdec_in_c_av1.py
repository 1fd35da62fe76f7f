"""AV1 files for programs over libnvcuvid.c."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
from av.bitstream import BitStreamFilterContext
from nvdec_in_c_runs import write


def make(path: Path, frames: int = 20, size: tuple[int, int] = (160, 144), **how: Any) -> Path:
    return write(path, "libsvtav1", size, frames=frames, **how)


def packets(path: Path) -> Iterator[av.Packet]:
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            if packet.size:
                yield packet


def rewrite(
    path: Path, to: Path, filters: str = "", more: tuple[Path, ...] = (), skip: int = 0, **settings: Any
) -> Path:
    """A copy of the packets but the first ones, with those of other files behind; ``settings`` are the container's."""
    pts = 0
    with av.open(str(to), "w") as target, av.open(str(path)) as source:
        stream = source.streams.video[0]
        out = target.add_stream_from_template(stream, opaque=True)
        for name, value in settings.items():
            if name == "turn":
                out.set_display_rotation(value)
            else:
                setattr(out.codec_context, name, value)
        cutter = BitStreamFilterContext(filters, stream, out) if filters else None
        for file in (path, *more):
            for packet in list(packets(file))[skip:]:
                for piece in cutter.filter(packet) if cutter else [packet]:
                    piece.stream = out
                    piece.pts = piece.dts = pts
                    target.mux(piece)
                pts += 40
    return to
