"""Which bits of an AV1 file each picture is made from: frames may be hidden in one packet and shown in a later one.

FFmpeg's filter "trace_headers", which shares no code with its NVDEC path beyond the reading of headers, says where the
headers end and which of the eight kept frames is shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import av
from av.bitstream import BitStreamFilterContext

_FRAME_HEADER, _TILE_GROUP, _FRAME = 3, 4, 6
_LINE = re.compile(r"^\s*(\d+)\s+(\S+)\s+([01]+) = (-?\d+)")


def _units(data: bytes, trace: str) -> Iterator[tuple[int, dict[str, int], bytes]]:
    """Type, header fields and what follows the headers, of each OBU."""
    at = 0
    for part in trace.split("OBU header")[1:]:
        fields: dict[str, int] = {}
        end = total = 0
        for position, name, bits, value in filter(None, (_groups(line) for line in part.splitlines())):
            fields[name] = int(value)
            end = int(position) + len(bits)
            if name == "obu_size":
                total = end // 8 + int(value)
        yield fields["obu_type"], fields, data[at + -(-end // 8) : at + total]
        at += total
    assert at == len(data)


def _groups(line: str) -> tuple[str, ...] | None:
    match = _LINE.match(line)
    return match.groups() if match else None


def shown_bits(path: Path | str) -> list[bytes]:
    """The tiles of each picture, in order of presentation."""
    shown: list[bytes] = []
    kept = [b""] * 8
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    try:
        with av.open(str(path)) as container:
            tracer = BitStreamFilterContext("trace_headers", container.streams.video[0])
            for packet in container.demux(video=0):
                data = bytes(packet)
                if not data:
                    continue
                with av.logging.Capture() as lines:
                    tracer.filter(packet)
                for header, tiles in _frames(_units(data, "".join(text for _, _, text in lines))):
                    if header.get("show_existing_frame"):
                        shown.append(kept[header["frame_to_show_map_idx"]])
                        continue
                    if header["show_frame"]:
                        shown.append(tiles)
                    everything = 255 if header["frame_type"] == 0 and header["show_frame"] else 0
                    refreshed = header.get("refresh_frame_flags", everything)
                    kept = [tiles if refreshed >> slot & 1 else old for slot, old in enumerate(kept)]
    finally:
        av.logging.set_level(level)
    return shown


def _frames(units: Iterator[tuple[int, dict[str, int], bytes]]) -> Iterator[tuple[dict[str, int], bytes]]:
    """Headers and all tiles, which may come in several OBUs."""
    header: dict[str, int] | None = None
    tiles = b""
    for kind, fields, data in units:
        if kind in (_FRAME_HEADER, _FRAME):
            if header is not None:
                yield header, tiles
            header, tiles = fields, b""
        if kind in (_FRAME, _TILE_GROUP):
            tiles += data
    if header is not None:
        yield header, tiles
