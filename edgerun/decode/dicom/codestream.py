# SPDX-License-Identifier: Apache-2.0
"""What a compressed frame says of itself. Read before any native code sees it: sizes must be the data set's."""

from __future__ import annotations

from dataclasses import dataclass

from edgerun.errors import DecodeError

# ITU-T T.81 table B.1, and SOF55 of T.87 (JPEG-LS). DHT, JPG and DAC lie among them.
_FRAME_MARKERS = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
_SCAN, _APP0, _APP14 = 0xDA, 0xE0, 0xEE


@dataclass(frozen=True, slots=True)
class Codestream:
    rows: int
    columns: int
    samples: int
    precision: int
    is_signed: bool = False  # JPEG 2000 only
    process: int = 0  # the SOF marker's low byte; 0x4F for JPEG 2000
    is_ybr: bool | None = None  # None: it doesn't say
    is_colour_transformed: bool = False  # JPEG 2000: the decoder gives RGB back


def jpeg_header(data: bytes) -> Codestream:
    """JPEG and JPEG-LS: up to the frame header. Raises DecodeError."""
    if data[:2] != b"\xff\xd8":
        raise DecodeError("the frame doesn't begin with a JPEG SOI marker")
    is_ybr: bool | None = None
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xFF:  # fill byte, T.81 B.1.1.2
            at += 1
            continue
        segment = data[at + 4 : at + 2 + length]
        if marker in _FRAME_MARKERS:
            return _frame_header(marker, segment, is_ybr)
        if marker == _APP14 and len(segment) >= 12 and segment[:5] == b"Adobe":
            is_ybr = segment[11] == 1
        elif marker == _APP0 and segment[:4] == b"JFIF" and is_ybr is None:
            is_ybr = True
        if marker == _SCAN:
            break
        at += 2 + length
    raise DecodeError("the JPEG frame has no frame header")


def _frame_header(marker: int, segment: bytes, is_ybr: bool | None) -> Codestream:
    if len(segment) < 6 or len(segment) < 6 + 3 * segment[5]:
        raise DecodeError("the JPEG frame header is cut")
    rows, columns = int.from_bytes(segment[1:3], "big"), int.from_bytes(segment[3:5], "big")
    samples = segment[5]
    if bytes(segment[6 : 6 + 3 * samples : 3]) == b"RGB":  # component identifiers
        is_ybr = False
    return Codestream(rows, columns, samples, segment[0], process=marker, is_ybr=is_ybr)


def jpeg2000_header(data: bytes) -> Codestream:
    """SIZ and COD (ISO/IEC 15444-1 A.5.1, A.6.1). A JP2 box around the codestream is tolerated."""
    at = data.find(b"\xff\x4f\xff\x51")
    siz = data[at + 6 : at + 45] if at >= 0 else b""
    if len(siz) < 39:
        raise DecodeError("the frame has no JPEG 2000 SIZ marker")
    right, bottom, left, top = (int.from_bytes(siz[k : k + 4], "big") for k in (2, 6, 10, 14))
    samples = int.from_bytes(siz[34:36], "big")
    return Codestream(
        bottom - top, right - left, samples, (siz[36] & 0x7F) + 1, bool(siz[36] & 0x80), 0x4F,
        is_colour_transformed=_is_colour_transformed(data, at),
    )  # fmt: skip


def _is_colour_transformed(data: bytes, at: int) -> bool:
    at += 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0x90:  # SOT
        if data[at + 1] == 0x52 and at + 9 <= len(data):  # COD
            return data[at + 8] == 1
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False
