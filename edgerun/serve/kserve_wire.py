# SPDX-License-Identifier: Apache-2.0
"""Tensor bytes in and out of protobuf messages without the copies that a protobuf library makes.

A ModelInferRequest is split at its top level: views of `raw_input_contents`, and a small rest for protobuf. A reply
is put together the other way round, straight from the slot. The encoding: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

Buffer: TypeAlias = bytes | memoryview

VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5
RAW_INPUT_CONTENTS = 7
RAW_OUTPUT_CONTENTS = 6
INFER_RESPONSE = 2  # of ModelStreamInferResponse
MAX_FIELDS = 1024  # at the top level of one request, so that a hostile one costs a bounded time


class WireError(ValueError):
    """The bytes aren't a message."""


def split_request(wire: bytes) -> tuple[bytes, list[memoryview]]:
    """The message without its raw tensors, and views of those in order. Raises WireError."""
    view = memoryview(wire)
    rest: list[memoryview] = []
    raw: list[memoryview] = []
    for number, kind, begin, payload, end in _fields(view):
        if number == RAW_INPUT_CONTENTS and kind == DELIMITED:
            raw.append(view[payload:end])
        else:
            rest.append(view[begin:end])
    return b"".join(rest), raw


def join_reply(head: bytes, tensors: Sequence[Buffer]) -> bytes:
    """A serialised ModelInferResponse and its raw outputs as one message: one copy of each tensor."""
    return b"".join(_reply_parts(head, tensors))


def join_stream_reply(head: bytes, tensors: Sequence[Buffer]) -> bytes:
    """The same inside a ModelStreamInferResponse."""
    parts = list(_reply_parts(head, tensors))
    size = sum(map(nbytes, parts))
    return b"".join([_delimited(INFER_RESPONSE, size), *parts])


def nbytes(buffer: Buffer) -> int:
    return len(buffer) if isinstance(buffer, bytes) else buffer.nbytes


def _reply_parts(head: bytes, tensors: Iterable[Buffer]) -> Iterator[Buffer]:
    yield head
    for tensor in tensors:
        yield _delimited(RAW_OUTPUT_CONTENTS, nbytes(tensor))
        yield tensor


def _delimited(number: int, size: int) -> bytes:
    """The tag and length that precede a field's bytes."""
    out = bytearray([number << 3 | DELIMITED])
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    out.append(size)
    return bytes(out)


def _fields(view: memoryview) -> Iterator[tuple[int, int, int, int, int]]:
    """(number, wire type, begin of the tag, begin and end of the payload) of each top-level field."""
    at, count = 0, 0
    while at < len(view):
        count += 1
        if count > MAX_FIELDS:
            raise WireError(f"more than {MAX_FIELDS} fields; expected one for each tensor and parameter")
        tag, payload = _varint(view, at)
        end = payload
        kind = tag & 7
        if kind == DELIMITED:
            size, payload = _varint(view, payload)
            end = payload + size
        elif kind == VARINT:
            end = _varint(view, payload)[1]
        elif kind in (FIXED64, FIXED32):
            end = payload + (8 if kind == FIXED64 else 4)
        else:
            raise WireError(f"wire type {kind} at byte {at}; expected 0, 1, 2 or 5")
        if end > len(view):
            raise WireError(f"field {tag >> 3} ends at byte {end}; the message has {len(view)}")
        yield tag >> 3, kind, at, payload, end
        at = end


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """The number at `at` and where it ends."""
    value = 0
    for place, byte in enumerate(view[at : at + 10]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise WireError(f"a number at byte {at} has no end")
