# SPDX-License-Identifier: Apache-2.0
"""Does a video file end where its container says? Reads box, block and packet headers only, never pixels.

Only what a container states can be missed: an elementary stream (.h264, MPEG-1 without PS) states no length, and a
file that was cut exactly between two packets of a streaming container looks whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_MP4_BOXES = {b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"mfra", b"sidx", b"free", b"skip", b"wide", b"uuid"}
_PS_TAIL_BYTES = 1 << 18  # over a hundred packs, so one start code at least is a real one
_EBML_MASTERS = {0x18538067: "Segment", 0x1F43B675: "Cluster"}  # may have an unknown size when written live
_EBML_CHILDREN = {0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367} | {
    0xE7, 0xA3, 0xA0, 0xA7, 0xAB, 0xEC, 0xBF, 0x1A45DFA3,
}  # fmt: skip


def missing_end(path: Path, container: str) -> str | None:
    """What the container promises beyond the end of the file, or None. `container` is FFmpeg's demuxer name."""
    walk = next((walk for name, walk in _WALKS.items() if name in container.split(",")), None)
    if walk is None:
        return None
    with path.open("rb") as file:
        return walk(file, os.fstat(file.fileno()).st_size)


def mp4_boxes(file: BinaryIO, size: int) -> dict[bytes, tuple[int, int]]:
    """Top-level boxes by type: where the last of each begins and where it says that it ends (ISO 14496-12, 4.2)."""
    boxes: dict[bytes, tuple[int, int]] = {}
    at = 0
    while at + 8 <= size:
        file.seek(at)
        header = file.read(16)
        length, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        end = size if length == 0 else at + length
        if kind not in _MP4_BOXES or end < at + 8:
            break  # padding or other bytes after the last box: not for us to judge
        boxes[kind] = (at, end)
        at = end
    return boxes


def _mp4_end(file: BinaryIO, size: int) -> str | None:
    for kind, (start, end) in mp4_boxes(file, size).items():
        if kind in (b"mdat", b"moof", b"moov") and end > size:
            return f"its {kind.decode()} box at byte {start} ends at byte {end}, the file at byte {size}"
    return None


def _ps_end(file: BinaryIO, size: int) -> str | None:
    """ISO 11172-1 2.4.3 and 13818-1 2.5.3: packs and packets with lengths; the end code is optional."""
    base = max(0, size - _PS_TAIL_BYTES)
    file.seek(base)
    tail = file.read()
    at = tail.find(b"\x00\x00\x01\xba")
    while 0 <= at < len(tail):
        if tail[at : at + 3] != b"\x00\x00\x01"[: len(tail) - at]:
            at = tail.find(b"\x00\x00\x01\xba", at + 1)  # padding between packs
            continue
        end = _ps_element_end(tail, at)
        if end is None:
            return None
        if end > len(tail):
            return f"its packet at byte {base + at} ends at byte {base + end} or later, the file at byte {size}"
        at = end
    return None


def _ps_element_end(data: bytes, at: int) -> int | None:
    """Where the pack header or packet at `at` ends; None at the program end code or where no length is given."""
    code = data[at + 3] if at + 3 < len(data) else None
    if code == 0xB9:
        return None
    if code == 0xBA:
        is_mpeg2 = at + 4 < len(data) and data[at + 4] >> 6 == 1
        return at + 12 if not is_mpeg2 else at + 14 + (data[at + 13] & 7 if at + 13 < len(data) else 0)
    if at + 6 > len(data):
        return at + 6
    length = int.from_bytes(data[at + 4 : at + 6], "big")
    return at + 6 + length if length else None


def _ebml_number(file: BinaryIO, keep_marker: bool) -> tuple[int, bool] | None:
    """A variable-length number (RFC 8794, 4) and whether it means "unknown"; None at the end of the file."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    rest = file.read(length - 1)
    if len(rest) != length - 1:
        return None
    value = int.from_bytes(first + rest, "big")
    payload = value & ((1 << 7 * length) - 1)
    return (value if keep_marker else payload), payload == (1 << 7 * length) - 1


def _mkv_end(file: BinaryIO, size: int) -> str | None:
    at = 0
    while at < size:
        file.seek(at)
        element = _ebml_number(file, keep_marker=True)
        if element is None or element[0] not in _EBML_CHILDREN | _EBML_MASTERS.keys():
            return None
        length = _ebml_number(file, keep_marker=False)
        if length is None:
            return f"its element at byte {at} has no size: the file ends at byte {size}"
        body, name = file.tell(), _EBML_MASTERS.get(element[0])
        if not length[1] and body + length[0] > size:
            return f"its {name or 'block'} at byte {at} ends at byte {body + length[0]}, the file at byte {size}"
        at = body if length[1] or name == "Segment" else body + length[0]
    return None


def _avi_end(file: BinaryIO, size: int) -> str | None:
    end = 8 + int.from_bytes(file.read(8)[4:8], "little")
    return f"its RIFF header says {end} bytes, the file has {size}" if end > size else None


def _ts_end(file: BinaryIO, size: int) -> str | None:
    head = file.read(189)
    if len(head) < 189 or head[0] != 0x47 or head[188] != 0x47 or size % 188 == 0:
        return None
    return f"its last packet has {size % 188} of 188 bytes"


_WALKS: dict[str, Callable[[BinaryIO, int], str | None]] = {
    "mp4": _mp4_end,
    "mpeg": _ps_end,
    "matroska": _mkv_end,
    "avi": _avi_end,
    "mpegts": _ts_end,
}
