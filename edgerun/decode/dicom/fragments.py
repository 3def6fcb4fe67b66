# SPDX-License-Identifier: Apache-2.0
"""Where each frame lies in Pixel Data: PS3.5 A.4 (encapsulated) and 8.1.1 (native). Only offsets are kept."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from edgerun.decode.dicom.part10 import UNDEFINED_LENGTH, ByteRange
from edgerun.errors import DecodeError

_ITEM, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE0DD
_FRAME_STARTS = (b"\xff\xd8", b"\xff\x4f", b"\x00\x00\x00\x0c")  # JPEG SOI, JPEG 2000 SOC, JP2 box
_LARGEST_OFFSET_TABLE = 1 << 26


@dataclass(frozen=True, slots=True)
class Fragment:
    offset: int  # of its bytes in the content
    length: int
    item_offset: int  # of its item tag from the first fragment's, as the offset tables count
    starts_frame: bool


FrameFragments: TypeAlias = tuple[Fragment, ...]


def encapsulated_frames(
    content: ByteRange, offset: int, frames: int, extended_offsets: Sequence[int] = ()
) -> tuple[FrameFragments, ...]:
    """Fragments of each frame: by the extended or basic offset table, else one each, else by how each begins."""
    basic, fragments = _items(content, offset)
    if not fragments:
        raise DecodeError("the pixel data has no fragment")
    if frames == 1:
        return (tuple(fragments),)
    for table in (extended_offsets, basic):
        by_table = _split_at(fragments, set(table)) if len(table) == frames else ()
        if len(by_table) == frames:
            return by_table
    if len(fragments) == frames:
        return tuple((fragment,) for fragment in fragments)
    by_start = _split_at(fragments, {fragment.item_offset for fragment in fragments if fragment.starts_frame})
    if len(by_start) != frames:
        raise DecodeError(f"{frames} frames are declared, {len(fragments)} fragments found that can't be told apart")
    return by_start


def frame_bytes(content: ByteRange, fragments: FrameFragments) -> bytes:
    parts = [content.read(fragment.offset, fragment.length) for fragment in fragments]
    return parts[0] if len(parts) == 1 else b"".join(parts)


def native_bytes(content: ByteRange, offset: int, length: int, start: int, count: int) -> bytes:
    """`count` bytes from `start` in native pixel data. Raises DecodeError where they are not all there."""
    found = min(length, max(0, content.size() - offset)) if length != UNDEFINED_LENGTH else 0
    data = content.read(offset + start, count) if start + count <= found else b""
    if len(data) != count:
        raise DecodeError(f"the frame ends at byte {start + count} of the pixel data, which has {found}")
    return data


def _items(content: ByteRange, offset: int) -> tuple[list[int], list[Fragment]]:
    """The basic offset table and the fragments. What is cut off at the end is left out."""
    fragments: list[Fragment] = []
    basic: list[int] | None = None
    size = content.size()
    first_item = offset
    with content.open() as stream:
        while offset + 8 <= size:
            stream.seek(offset)
            group, element, length = struct.unpack("<HHL", stream.read(8))
            tag, offset = group << 16 | element, offset + 8
            if tag == _SEQUENCE_END:
                break
            if tag != _ITEM or length > size - offset:
                raise DecodeError("the pixel data's fragments are damaged or cut")
            if basic is None:
                basic, first_item = _basic_offsets(stream.read(min(length, _LARGEST_OFFSET_TABLE))), offset + length
            else:
                start = stream.read(min(length, 4))
                fragments.append(Fragment(offset, length, offset - 8 - first_item, start.startswith(_FRAME_STARTS)))
            offset += length
    return basic or [], fragments


def _basic_offsets(table: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(table) // 4}L", table[: len(table) // 4 * 4]))


def _split_at(fragments: list[Fragment], starts: set[int]) -> tuple[FrameFragments, ...]:
    """Empty when the first fragment is no start, or a start is no fragment's."""
    if fragments[0].item_offset not in starts or not starts <= {fragment.item_offset for fragment in fragments}:
        return ()
    frames: list[list[Fragment]] = []
    for fragment in fragments:
        if fragment.item_offset in starts:
            frames.append([])
        frames[-1].append(fragment)
    return tuple(tuple(frame) for frame in frames)
