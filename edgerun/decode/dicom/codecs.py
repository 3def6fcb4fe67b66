# SPDX-License-Identifier: Apache-2.0
"""Which decoder reads which transfer syntax: one table, and no other decoder is ever tried."""

from __future__ import annotations

import enum
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from edgerun.decode.dicom.attributes import PixelLayout
from edgerun.decode.dicom.codestream import Codestream, jpeg2000_header, jpeg_header
from edgerun.decode.dicom.part10 import inflate
from edgerun.errors import DecodeError

# Samples as unsigned or signed integers, [H, W] or [H, W, 3], and whether they are RGB (None: as the data set says).
Decoded = tuple[NDArray[Any], bool | None]
_CODEC_FAULTS = (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError, zlib.error)


class Storage(enum.Enum):
    NATIVE = "native"
    FRAMES = "frames"  # each frame compressed by itself
    VIDEO = "video"


@dataclass(frozen=True, slots=True)
class TransferSyntax:
    """`decoder` names the library. `codec` is FFmpeg's name of a video codec."""

    name: str
    storage: Storage
    decoder: str
    decode: Callable[[bytes, PixelLayout], Decoded] | None = None
    codec: str = ""


def decode_frame(syntax: TransferSyntax, data: bytes, layout: PixelLayout) -> Decoded:
    """One compressed frame. Raises DecodeError, whatever the bytes."""
    assert syntax.decode is not None  # Storage.FRAMES has one
    try:
        pixels, is_rgb = syntax.decode(data, layout)
    except _CODEC_FAULTS as error:
        raise DecodeError(f"{syntax.decoder} can't decode the frame ({type(error).__name__}: {error!s:.80})") from error
    expected = (layout.rows, layout.columns) + ((layout.samples,) if layout.samples > 1 else ())
    if pixels.shape != expected:
        raise DecodeError(f"the decoded frame has the shape {pixels.shape}; the data set says {expected}")
    return pixels, is_rgb


def _jpeg(data: bytes, layout: PixelLayout) -> Decoded:
    """All processes of T.81 with Huffman coding. The colour transform is undone later, in one place, by us."""
    header = _checked(jpeg_header(data), layout)
    space = "rgb" if header.samples == 3 else None  # the same in and out: libjpeg leaves the samples alone
    pixels = imagecodecs.jpeg8_decode(data, colorspace=space, outcolorspace=space)
    return pixels, None if header.is_ybr is None else not header.is_ybr


def _jpeg_ls(data: bytes, layout: PixelLayout) -> Decoded:
    header = _checked(jpeg_header(data), layout)
    if header.process != 0xF7:  # another decoder's header ahead of the one CharLS would follow
        raise DecodeError(f"the frame is JPEG (SOF {header.process:02X}), not JPEG-LS")
    return imagecodecs.jpegls_decode(data), None


def _jpeg2000(data: bytes, layout: PixelLayout) -> Decoded:
    """RCT and ICT are undone by the decoder when the codestream has them (PS3.5 8.2.4)."""
    header = _checked(jpeg2000_header(data), layout)
    pixels = imagecodecs.jpeg2k_decode(data, numthreads=1)
    declared_ybr_full = layout.photometric_interpretation == "YBR_FULL" and not header.is_colour_transformed
    return pixels, header.samples == 3 and not declared_ybr_full


def _checked(header: Codestream, layout: PixelLayout) -> Codestream:
    """Before native code allocates what the frame asks for."""
    found = (header.columns, header.rows, header.samples)
    expected = (layout.columns, layout.rows, layout.samples)
    if found != expected:
        raise DecodeError(f"the compressed frame is {found} (columns, rows, samples); the data set says {expected}")
    if header.precision > max(8, layout.bits_allocated):
        raise DecodeError(f"the compressed frame has {header.precision} bits; BitsAllocated = {layout.bits_allocated}")
    return header


def _rle(data: bytes, layout: PixelLayout) -> Decoded:
    """PS3.5 annex G: a segment for each byte of each sample, so colour comes by plane."""
    if layout.bits_allocated == 1:  # packed bits, one segment
        size = (layout.rows * layout.columns + 7) // 8
        packed = _rle_samples(data, np.dtype(np.uint8), 1)
        return unpacked_bits(packed[:size].tobytes(), 0, layout), None
    dtype = np.dtype(f"<u{layout.bits_allocated // 8}")
    count = layout.rows * layout.columns * layout.samples
    samples = _rle_samples(data, dtype, layout.samples)
    if len(samples) < count:
        raise DecodeError(f"the RLE frame has {len(samples)} samples; expected {count}")
    return _by_pixel(samples[:count], layout, is_planar=True), None


def _rle_samples(data: bytes, dtype: np.dtype[Any], samples: int) -> NDArray[Any]:
    segments = int.from_bytes(data[:4], "little")
    if segments != samples * dtype.itemsize:
        raise DecodeError(f"the RLE frame has {segments} segments; expected {samples * dtype.itemsize} (PS3.5 G.2)")
    return np.frombuffer(imagecodecs.dicomrle_decode(data, dtype=dtype), dtype)


def _deflated_frame(data: bytes, layout: PixelLayout) -> Decoded:
    """Deflated Image Frame Compression (PS3.5 8.2): a native frame, deflated by itself."""
    size = native_frame_bytes(layout)
    plain = inflate(data, size + 2)  # may be padded
    if len(plain) < size:
        raise DecodeError(f"the frame inflates to {len(plain)} bytes; expected {size}")
    return native_pixels(plain, 0, layout, is_little_endian=True), None


def native_frame_bits(layout: PixelLayout) -> int:
    """PS3.5 8.1.1, 8.2: frames follow each other without padding, even within a byte."""
    per_pixel = 2 if layout.photometric_interpretation == "YBR_FULL_422" else layout.samples
    return layout.rows * layout.columns * per_pixel * layout.bits_allocated


def native_frame_bytes(layout: PixelLayout) -> int:
    return (native_frame_bits(layout) + 7) // 8


def native_pixels(data: bytes, first_bit: int, layout: PixelLayout, is_little_endian: bool) -> NDArray[Any]:
    """[H, W] or [H, W, 3] from the bytes of one frame; `first_bit` is not 0 only for packed bits."""
    if layout.bits_allocated == 1:
        return unpacked_bits(data, first_bit, layout)
    kind = "f" if layout.is_float else "u"
    cells = np.frombuffer(data, f"{'<' if is_little_endian else '>'}{kind}{layout.bits_allocated // 8}")
    cells = cells[: native_frame_bits(layout) // layout.bits_allocated]
    if cells.dtype.byteorder == (">" if sys.byteorder == "little" else "<"):
        cells = cells.astype(cells.dtype.newbyteorder("="))
    if layout.photometric_interpretation == "YBR_FULL_422":
        return _from_422(cells, layout)
    return _by_pixel(cells, layout, layout.is_planar)


def unpacked_bits(data: bytes, first_bit: int, layout: PixelLayout) -> NDArray[np.uint8]:
    """PS3.5 8.1.1: the first pixel is in the lowest bit."""
    count = layout.rows * layout.columns * layout.samples
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[first_bit : first_bit + count]
    return _by_pixel(bits, layout, layout.is_planar)


def _by_pixel(samples: NDArray[Any], layout: PixelLayout, is_planar: bool) -> NDArray[Any]:
    if layout.samples == 1:
        return samples.reshape(layout.rows, layout.columns)
    if is_planar:
        planes = samples.reshape(layout.samples, layout.rows, layout.columns)
        return np.ascontiguousarray(np.moveaxis(planes, 0, -1))
    return samples.reshape(layout.rows, layout.columns, layout.samples)


def _from_422(cells: NDArray[Any], layout: PixelLayout) -> NDArray[Any]:
    """Y Y Cb Cr for each two pixels of a row (PS3.3 C.7.6.3.1.2); chroma is repeated."""
    if layout.columns % 2:
        raise DecodeError(f"YBR_FULL_422 with {layout.columns} columns; it needs an even number")
    groups = cells.reshape(layout.rows, layout.columns // 2, 4)
    pixels = np.empty((layout.rows, layout.columns, 3), cells.dtype)
    pixels[:, 0::2, 0], pixels[:, 1::2, 0] = groups[..., 0], groups[..., 1]
    pixels[:, :, 1:] = np.repeat(groups[..., 2:], 2, axis=1)
    return pixels


def _native(name: str) -> TransferSyntax:
    return TransferSyntax(name, Storage.NATIVE, "NumPy")


def _frames(name: str, decoder: str, decode: Callable[[bytes, PixelLayout], Decoded]) -> TransferSyntax:
    return TransferSyntax(name, Storage.FRAMES, decoder, decode)


def _video(name: str, codec: str) -> TransferSyntax:
    return TransferSyntax(name, Storage.VIDEO, "FFmpeg", codec=codec)


_TURBO, _CHARLS, _OPENJPEG = "libjpeg-turbo", "CharLS", "OpenJPEG"
TRANSFER_SYNTAXES = {
    "1.2.840.10008.1.2": _native("Implicit VR Little Endian"),
    "1.2.840.10008.1.2.1": _native("Explicit VR Little Endian"),
    "1.2.840.10008.1.2.1.99": _native("Deflated Explicit VR Little Endian"),
    "1.2.840.10008.1.2.2": _native("Explicit VR Big Endian"),
    "1.2.840.10008.1.2.5": _frames("RLE Lossless", "imagecodecs RLE", _rle),
    "1.2.840.10008.1.2.8.1": _frames("Deflated Image Frame Compression", "zlib", _deflated_frame),
    "1.2.840.10008.1.2.4.50": _frames("JPEG Baseline (Process 1)", _TURBO, _jpeg),
    "1.2.840.10008.1.2.4.51": _frames("JPEG Extended (Process 2 and 4)", _TURBO, _jpeg),
    "1.2.840.10008.1.2.4.53": _frames("JPEG Spectral Selection (Process 6 and 8)", _TURBO, _jpeg),  # retired
    "1.2.840.10008.1.2.4.55": _frames("JPEG Full Progression (Process 10 and 12)", _TURBO, _jpeg),  # retired
    "1.2.840.10008.1.2.4.57": _frames("JPEG Lossless (Process 14)", _TURBO, _jpeg),
    "1.2.840.10008.1.2.4.70": _frames("JPEG Lossless (Process 14 SV1)", _TURBO, _jpeg),
    "1.2.840.10008.1.2.4.80": _frames("JPEG-LS Lossless", _CHARLS, _jpeg_ls),
    "1.2.840.10008.1.2.4.81": _frames("JPEG-LS Near-Lossless", _CHARLS, _jpeg_ls),
    "1.2.840.10008.1.2.4.90": _frames("JPEG 2000 (Lossless Only)", _OPENJPEG, _jpeg2000),
    "1.2.840.10008.1.2.4.91": _frames("JPEG 2000", _OPENJPEG, _jpeg2000),
    "1.2.840.10008.1.2.4.201": _frames("HTJ2K (Lossless Only)", _OPENJPEG, _jpeg2000),
    "1.2.840.10008.1.2.4.202": _frames("HTJ2K with RPCL (Lossless Only)", _OPENJPEG, _jpeg2000),
    "1.2.840.10008.1.2.4.203": _frames("HTJ2K", _OPENJPEG, _jpeg2000),
    **{
        f"1.2.840.10008.1.2.4.{number}{suffix}": _video(name, codec)
        for number, name, codec in (
            (100, "MPEG2 Main Profile / Main Level", "mpeg2video"),
            (101, "MPEG2 Main Profile / High Level", "mpeg2video"),
            (102, "MPEG-4 AVC/H.264 High Profile 4.1", "h264"),
            (103, "MPEG-4 AVC/H.264 BD-compatible", "h264"),
            (104, "MPEG-4 AVC/H.264 High Profile 4.2 For 2D", "h264"),
            (105, "MPEG-4 AVC/H.264 High Profile 4.2 For 3D", "h264"),
            (106, "MPEG-4 AVC/H.264 Stereo High Profile 4.2", "h264"),
            (107, "HEVC/H.265 Main Profile 5.1", "hevc"),
            (108, "HEVC/H.265 Main 10 Profile 5.1", "hevc"),
        )
        for suffix in (("", ".1") if number < 107 else ("",))  # .1: fragmentable
    },
}
