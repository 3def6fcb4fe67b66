# SPDX-License-Identifier: Apache-2.0
"""The file around the pixels: parsed up to Pixel Data, which stays where it lies until a frame is asked for."""

from __future__ import annotations

import io
import logging
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset, read_partial, read_preamble
from pydicom.tag import BaseTag

from edgerun.errors import DecodeError, SourceError

DEFLATED = "1.2.840.10008.1.2.1.99"
PIXEL_TAGS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
UNDEFINED_LENGTH = 0xFFFFFFFF
# What pydicom raises on bytes that lie: it has no exception of its own for most of it.
PARSER_FAULTS = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, NotImplementedError, OSError,
    RecursionError, TypeError, ValueError, struct.error, zlib.error, BytesLengthException, InvalidDicomError,
)  # fmt: skip
_SILENCED = logging.getLogger("pydicom")
_ONE_PARSER = threading.Lock()


@dataclass(frozen=True, slots=True)
class DicomLimits:
    """What is refused before it is allocated. A sample is one number of one pixel."""

    frame_samples: int = 1 << 28
    total_samples: int = 1 << 36
    frames: int = 1 << 20
    inflated_bytes: int = 1 << 31  # of a deflated data set, which has to be held whole (PS3.5 A.5)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes in a file or in memory, read piece by piece. A file is opened for each piece: no handle is kept."""

    where: Path | bytes

    def open(self) -> BinaryIO:
        try:
            return io.BytesIO(self.where) if isinstance(self.where, bytes) else self.where.open("rb")
        except OSError as error:  # without the path, which may hold a name
            raise SourceError(
                f"the DICOM file can't be opened ({error.strerror}). Check that it is still there."
            ) from None

    def read(self, offset: int, count: int) -> bytes:
        if isinstance(self.where, bytes):
            return self.where[offset : offset + count]
        with self.open() as stream:
            stream.seek(offset)
            return stream.read(count)

    def size(self) -> int:
        with self.open() as stream:
            return stream.seek(0, io.SEEK_END)


@dataclass(frozen=True, slots=True)
class Part10:
    """A data set without its pixels, and where those begin. `pixel_length` may be UNDEFINED_LENGTH."""

    dataset: Dataset
    transfer_syntax: str  # UID; "" when the file doesn't say
    is_little_endian: bool
    pixel_keyword: str
    pixel_vr: str
    pixel_offset: int
    pixel_length: int
    content: ByteRange


@contextmanager
def parser_silenced() -> Iterator[None]:
    """pydicom's warnings and log lines quote values, and values are patient data. One thread at a time."""
    with _ONE_PARSER, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        was_disabled, _SILENCED.disabled = _SILENCED.disabled, True
        try:
            yield
        finally:
            _SILENCED.disabled = was_disabled


def read_part10(content: ByteRange, limits: DicomLimits) -> Part10:
    """Call within `parser_silenced`. Raises SourceError (not such a file, no pixels) or DecodeError (damaged)."""
    with content.open() as stream:
        preamble = stream.read(132)
        if len(preamble) < 132 or preamble[128:] != b"DICM":
            raise SourceError("not a DICOM file: no 'DICM' at byte 128 (PS3.10 7.1). Send a Part 10 file.")
        stream.seek(0)
        try:
            return _parsed(stream, content, limits)
        except PARSER_FAULTS as error:
            # `from None`: pydicom's messages quote values.
            raise DecodeError(f"the data set is damaged ({type(error).__name__}). Send the instance again.") from None


def _parsed(stream: BinaryIO, content: ByteRange, limits: DicomLimits) -> Part10:
    read_preamble(stream, force=False)
    meta = read_dataset(stream, False, True, stop_when=_is_after_meta)
    syntax = str(meta.get("TransferSyntaxUID", ""))
    if syntax == DEFLATED:
        content = ByteRange(_inflated(stream, limits.inflated_bytes))
        stream = content.open()
        dataset = read_dataset(stream, False, True, stop_when=_is_pixels)
        is_little_endian = True
    else:
        stream.seek(0)
        dataset = read_partial(stream, stop_when=_is_pixels)
        is_little_endian = dataset.original_encoding[1] is not False
    return _at_pixels(dataset, syntax, is_little_endian, stream, content)


def _at_pixels(dataset: Dataset, syntax: str, is_little_endian: bool, stream: BinaryIO, content: ByteRange) -> Part10:
    order = "<" if is_little_endian else ">"
    header = stream.read(12)
    group, element = struct.unpack(order + "HH", header[:4]) if len(header) >= 8 else (0, 0)
    keyword = PIXEL_TAGS.get(group << 16 | element)
    if keyword is None:
        raise SourceError("the instance has no pixel data. Send an image.")
    is_explicit = header[4:6] in (b"OB", b"OW", b"OF", b"OD", b"UN")
    (length,) = struct.unpack(order + "L", header[8:12] if is_explicit else header[4:8])
    offset = stream.tell() - len(header) + (12 if is_explicit else 8)
    vr = header[4:6].decode("ascii") if is_explicit else "OW"
    return Part10(dataset, syntax, is_little_endian, keyword, vr, offset, length, content)


def _is_after_meta(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag >> 16 != 2


def _is_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
    return int(tag) in PIXEL_TAGS


def _inflated(stream: BinaryIO, limit_bytes: int) -> bytes:
    """PS3.5 A.5: raw deflate after the file meta information."""
    return inflate(stream.read(), limit_bytes)


def inflate(packed: bytes, limit_bytes: int) -> bytes:
    """Raw deflate with an end. Raises DecodeError above the limit, zlib.error on damage."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    plain = inflater.decompress(packed, limit_bytes)
    if not inflater.eof and inflater.unconsumed_tail:
        raise DecodeError(f"inflates to more than {limit_bytes} bytes. Raise the limit in DicomLimits.")
    return plain
