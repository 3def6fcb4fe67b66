# SPDX-License-Identifier: Apache-2.0
"""What one coded unit holds, read from its headers: is there a picture, and can decoding begin here?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_LARGEST_HEADER_UNIT_BYTES = 1024  # more than this without a picture is a picture whose start was damaged
_RECOVERY_POINT = 6  # SEI payload type, H.264 D.1.7


@dataclass(frozen=True, slots=True)
class UnitKind:
    has_picture: bool  # so it seems, or something is wrong with it
    is_key: bool
    is_malformed: bool = False  # not even a picture's start is in it


_PICTURE = UnitKind(has_picture=True, is_key=False)
_KEY = UnitKind(has_picture=True, is_key=True)
_HEADERS = UnitKind(has_picture=False, is_key=False)
_MALFORMED = UnitKind(has_picture=True, is_key=False, is_malformed=True)


def nal_length_bytes(codec: str, extradata: bytes) -> int:
    """Bytes of the length before each NAL unit (ISO 14496-15: avcC, hvcC); 0 when start codes separate them."""
    at = {"h264": 4, "hevc": 21}.get(codec)
    if at is None or len(extradata) <= at or extradata[0] != 1:
        return 0
    return (extradata[at] & 3) + 1


def unit_kind(codec: str, data: bytes, length_bytes: int = 0) -> UnitKind:
    """Only a unit that is small and well-formed and has nothing but headers is one without a picture."""
    match codec:
        case "h264" | "hevc":
            kind = _nal_kind(codec, data, length_bytes)
        case "mpeg1video" | "mpeg2video":
            kind = _mpeg_kind(data)
        case "mpeg4":
            kind = _mpeg4_kind(data)
        case "vp8":
            return _vp8_kind(data)
        case "mjpeg" | "ffv1":
            return _KEY
        case _:
            return _PICTURE
    return _MALFORMED if not kind.has_picture and len(data) > _LARGEST_HEADER_UNIT_BYTES else kind


def _nal_kind(codec: str, data: bytes, length_bytes: int) -> UnitKind:
    can_begin, has_header = False, False
    for nal in _nals_with_length(data, length_bytes) if length_bytes else _nals_with_start_code(data):
        if not nal:
            return _MALFORMED
        kind = nal[0] & 31 if codec == "h264" else nal[0] >> 1 & 63
        if 1 <= kind <= 5 if codec == "h264" else kind < 32:  # a coded slice
            return _KEY if can_begin or kind == 5 or (codec == "hevc" and 16 <= kind <= 23) else _PICTURE
        can_begin |= codec == "h264" and kind == 6 and _has_recovery_point(nal[1:])
        has_header = True
    return _HEADERS if has_header else _MALFORMED


def _nals_with_length(data: bytes, length_bytes: int) -> Iterator[bytes]:
    """NAL units, payloads cut to what headers need; an empty one where the lengths don't add up."""
    at = 0
    while at < len(data):
        begin = at + length_bytes
        at = begin + int.from_bytes(data[at:begin], "big")
        yield data[begin : min(at, begin + 64)] if at <= len(data) else b""


def _nals_with_start_code(data: bytes) -> Iterator[bytes]:
    at = data.find(b"\x00\x00\x01")
    while at >= 0:
        following = data.find(b"\x00\x00\x01", at + 3, at + 67)
        yield data[at + 3 : following if following >= 0 else at + 67]
        at = following if following >= 0 else data.find(b"\x00\x00\x01", at + 67 - 2)


def _has_recovery_point(sei: bytes) -> bool:
    at = 0
    while at < len(sei) - 1 and sei[at] != 0x80:
        kind, at = _sei_number(sei, at)
        if kind == _RECOVERY_POINT:
            return True
        size, at = _sei_number(sei, at)
        at += size
    return False


def _sei_number(sei: bytes, at: int) -> tuple[int, int]:
    """H.264 7.3.2.3.1: bytes of 255 add up, the first smaller one ends the number."""
    value = 0
    while at < len(sei) and sei[at] == 255:
        value, at = value + 255, at + 1
    return value + (sei[at] if at < len(sei) else 0), at + 1


def _mpeg_kind(data: bytes) -> UnitKind:
    """ISO 11172-2 2.4.2.5: the picture's coding type follows 10 bits of temporal reference; 1 is intra."""
    at = data.find(b"\x00\x00\x01\x00")
    if at < 0:
        return _HEADERS if data[:3] == b"\x00\x00\x01" and data[3:4] >= b"\xb2" else _MALFORMED
    return _KEY if at + 5 < len(data) and data[at + 5] >> 3 & 7 == 1 else _PICTURE


def _mpeg4_kind(data: bytes) -> UnitKind:
    """ISO 14496-2 6.2.5: vop_coding_type 0 is intra."""
    at = data.find(b"\x00\x00\x01\xb6")
    if at < 0:
        return _HEADERS if data[:3] == b"\x00\x00\x01" else _MALFORMED
    return _KEY if at + 4 < len(data) and data[at + 4] >> 6 == 0 else _PICTURE


def _vp8_kind(data: bytes) -> UnitKind:
    """RFC 6386 9.1: bit 0 is clear in key frames, bit 4 is set when the frame is to be shown."""
    if not data:
        return _MALFORMED
    return UnitKind(has_picture=bool(data[0] & 16), is_key=not data[0] & 1)
