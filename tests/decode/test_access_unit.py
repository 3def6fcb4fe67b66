# SPDX-License-Identifier: Apache-2.0
"""What a coded unit holds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerun.decode.access_unit import UnitKind, nal_length_bytes, unit_kind

PICTURE, KEY, HEADERS = UnitKind(True, False), UnitKind(True, True), UnitKind(False, False)
MALFORMED = UnitKind(True, False, True)
START = b"\x00\x00\x01"
SPS, PPS, AUD, SEI = b"\x67\x42\x00\x0a", b"\x68\xce\x38\x80", b"\x09\x10", b"\x06\x05\x02ab\x80"
RECOVERY = b"\x06\x05\x02ab\x06\x01\xc4\x80"  # a user message, then a recovery point


def annex_b(*nals: bytes) -> bytes:
    return b"".join(b"\x00" + START + nal for nal in nals)


def with_length(*nals: bytes) -> bytes:
    return b"".join(len(nal).to_bytes(4, "big") + nal for nal in nals)


@pytest.mark.parametrize(
    ("codec", "data", "length", "kind"),
    [
        ("h264", annex_b(AUD, SPS, PPS), 0, HEADERS),
        ("h264", annex_b(AUD, SPS, PPS, b"\x65\x88" + bytes(90)), 0, KEY),
        ("h264", annex_b(AUD, SEI, b"\x41\x9a" + b"\xff" * 90), 0, PICTURE),
        ("h264", annex_b(RECOVERY, b"\x41\x9a"), 0, KEY),
        ("h264", annex_b(SEI + b"\x11" * 200, b"\x65\x88"), 0, KEY),
        ("h264", with_length(SPS, PPS), 4, HEADERS),
        ("h264", with_length(SPS, PPS, b"\x65\x88"), 4, KEY),
        ("h264", with_length(SPS)[:-1], 4, MALFORMED),
        ("h264", annex_b(SPS) + bytes(2000), 0, MALFORMED),
        ("h264", b"garbage", 0, MALFORMED),
        ("h264", b"", 0, MALFORMED),
        ("hevc", annex_b(b"\x40\x01", b"\x42\x01"), 0, HEADERS),
        ("hevc", annex_b(b"\x40\x01", b"\x26\x01\xaf"), 0, KEY),
        ("hevc", annex_b(b"\x02\x01\xd0"), 0, PICTURE),
        ("mpeg1video", START + b"\xb3" + bytes(8) + START + b"\xb8" + bytes(4), 0, HEADERS),
        ("mpeg1video", START + b"\xb7", 0, HEADERS),
        ("mpeg1video", START + b"\x00\x00\x0f\xff\xf8", 0, KEY),
        ("mpeg2video", START + b"\x00\x00\x57\xff\xf8", 0, PICTURE),
        ("mpeg4", START + b"\xb0\x01", 0, HEADERS),
        ("mpeg4", START + b"\xb6\x10", 0, KEY),
        ("mpeg4", START + b"\xb6\x50", 0, PICTURE),
        ("vp8", b"\x10", 0, KEY),
        ("vp8", b"\x01", 0, HEADERS),
        ("mjpeg", b"\xff\xd8", 0, KEY),
        ("vp9", b"\x82", 0, PICTURE),
    ],
)
def test_kinds(codec: str, data: bytes, length: int, kind: UnitKind) -> None:
    assert unit_kind(codec, data, length) == kind


def test_length_bytes_come_from_the_container() -> None:
    assert nal_length_bytes("h264", b"\x01\x64\x00\x1e\xff") == 4
    assert nal_length_bytes("h264", b"\x01\x64\x00\x1e\xfd") == 2
    assert nal_length_bytes("h264", annex_b(SPS)) == 0
    assert nal_length_bytes("hevc", b"\x01" + bytes(20) + b"\x03") == 4
    assert nal_length_bytes("mpeg1video", b"\x01" * 40) == 0
    assert nal_length_bytes("h264", b"") == 0


@settings(derandomize=True, max_examples=200, deadline=None)
@given(
    st.sampled_from(["h264", "hevc", "mpeg1video", "mpeg4", "vp8", "other"]),
    st.lists(st.sampled_from([b"\x00", START, b"\x06", b"\xff", b"\x80", b"\x67", b"\xb3", b"ab"])).map(b"".join),
    st.integers(0, 4),
)
def test_any_bytes_have_a_kind(codec: str, data: bytes, length: int) -> None:
    unit_kind(codec, data, length)
