# SPDX-License-Identifier: Apache-2.0
"""A DICOM instance as pixels for a model: stored values, their meaning, and what a reader would see."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import UID

from edgerun.decode.dicom.attributes import (
    FrameFacts,
    Overlay,
    Padding,
    PixelLayout,
    frame_facts,
    overlays_of,
    padding_of,
    palette_of,
    pixel_layout,
)
from edgerun.decode.dicom.codecs import (
    TRANSFER_SYNTAXES,
    Storage,
    TransferSyntax,
    decode_frame,
    native_frame_bits,
    native_pixels,
)
from edgerun.decode.dicom.fragments import FrameFragments, encapsulated_frames, frame_bytes, native_bytes
from edgerun.decode.dicom.lut import FullRange, LookupTable, Window, rgb_from_ybr_full, to_uint8
from edgerun.decode.dicom.part10 import (
    PARSER_FAULTS,
    UNDEFINED_LENGTH,
    ByteRange,
    DicomLimits,
    Part10,
    parser_silenced,
    read_part10,
)
from edgerun.decode.dicom.video import VideoCursor
from edgerun.errors import DecodeError, SourceError

_NATIVE_BY_ENCODING = {(True, True): "1.2.840.10008.1.2", (False, True): "1.2.840.10008.1.2.1"}


@dataclass(frozen=True, slots=True, eq=False)
class DicomImage:
    """One instance. Pixels stay compressed where they lie; each call decodes the one frame it names.

    Thread-safe. Only `stored_pixels` and what is built on it reads the file, which must stay unchanged until then.
    """

    sop_class: str  # name, not UID
    transfer_syntax: TransferSyntax
    layout: PixelLayout
    padding: Padding | None
    overlays: tuple[Overlay, ...]
    palette: tuple[LookupTable, ...]
    _facts: tuple[FrameFacts, ...] = field(repr=False)
    _content: ByteRange = field(repr=False)
    _offset: int = field(repr=False)  # of the first byte of native pixel data
    _length: int = field(repr=False)
    _is_little_endian: bool = field(repr=False)
    _swaps_bytes: bool = field(repr=False)
    _fragments: tuple[FrameFragments, ...] = field(repr=False)
    _video: VideoCursor | None = field(repr=False)

    @property
    def rows(self) -> int:
        return self.layout.rows

    @property
    def columns(self) -> int:
        return self.layout.columns

    @property
    def frames(self) -> int:
        return self.layout.frames

    @property
    def is_colour(self) -> bool:
        return not self.layout.photometric_interpretation.startswith("MONOCHROME")

    def facts(self, frame: int) -> FrameFacts:
        """Rescale, windows, VOI LUTs and spacing of one frame."""
        return self._facts[min(frame, len(self._facts) - 1)]

    def stored_pixels(self, frame: int = 0) -> NDArray[Any]:
        """[H, W] or [H, W, 3] in the declared sign and size, without what lies above BitsStored.

        Colour comes by pixel, chroma at full resolution; JPEG 2000 and video come as RGB.
        """
        with self._named():
            return self._stored(frame)[0]

    def modality_pixels(self, frame: int = 0) -> NDArray[Any]:
        """[H, W] in the unit of the Modality LUT: integers where slope and intercept are, else float32."""
        with self._named():
            self._require_grey()
            return self._modality(self._stored(frame)[0], frame)

    def display_pixels(self, frame: int = 0, window: int | Window | LookupTable = 0) -> NDArray[np.uint8]:
        """[H, W] with 255 for white, or [H, W, 3] RGB, for which `window` means nothing.

        `window` counts the windows first, then the VOI LUTs. An instance without either shows the range of its
        stored bits, up to 8 of them, or of this frame. Padding is black.
        """
        with self._named():
            stored, is_rgb = self._stored(frame)
            if self.palette:
                return _palette_rgb(stored, self.palette)
            if self.is_colour:
                return self._rgb(stored, is_rgb)
            return self._grey(stored, frame, window)

    def padding_mask(self, frame: int = 0) -> NDArray[np.bool_]:
        """[H, W], true where there is no picture."""
        stored = self.stored_pixels(frame)
        return np.zeros(stored.shape[:2], bool) if self.padding is None else self.padding.mask(stored)

    def overlay_mask(self, overlay: int, frame: int = 0) -> NDArray[np.bool_]:
        """[H, W] of the image, true where the overlay is set."""
        with self._named():
            return self._overlay_mask(self.overlays[overlay], frame)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """No file name in a message: it may be a patient's. `from None` would hide what the codec said."""
        try:
            yield
        except DecodeError as error:
            raise DecodeError(f"{self.sop_class}, {self.transfer_syntax.name}: {error}") from error

    def _stored(self, frame: int) -> tuple[NDArray[Any], bool | None]:
        cells, is_rgb = self._cells(frame)
        return _samples(cells, self.layout), is_rgb

    def _cells(self, frame: int) -> tuple[NDArray[Any], bool | None]:
        if not 0 <= frame < self.layout.frames:
            raise IndexError(f"frame {frame} of {self.layout.frames}")
        if self._video is not None:
            return self._video.rgb(frame), True
        if self._fragments:
            data = frame_bytes(self._content, self._fragments[frame])
            return decode_frame(self.transfer_syntax, data, self.layout)
        return self._native(frame), None

    def _native(self, frame: int) -> NDArray[Any]:
        bits = native_frame_bits(self.layout)
        start, end = frame * bits // 8, ((frame + 1) * bits + 7) // 8
        if not self._swaps_bytes:
            data = native_bytes(self._content, self._offset, self._length, start, end - start)
        else:  # PS3.5 A.3: 16-bit words, so neighbouring bytes are exchanged
            low, high = start // 2 * 2, (end + 1) // 2 * 2
            words = np.frombuffer(native_bytes(self._content, self._offset, self._length, low, high - low), "<u2")
            data = words.byteswap().tobytes()[start - low : end - low]
        return native_pixels(data, frame * bits - 8 * start, self.layout, self._is_little_endian)

    def _require_grey(self) -> None:
        if self.is_colour:
            raise DecodeError(f"{self.layout.photometric_interpretation} has no modality values. Use display_pixels.")

    def _modality(self, stored: NDArray[Any], frame: int) -> NDArray[Any]:
        return self.facts(frame).modality.apply(stored)

    def _grey(self, stored: NDArray[Any], frame: int, window: int | Window | LookupTable) -> NDArray[np.uint8]:
        """Up to 16 bits by a table of all stored values: cheaper than arithmetic on a picture, and exact."""
        voi = self._voi(stored, frame, window)
        if self.layout.is_float or self.layout.bits_stored > 16:
            return self._grey_of(stored, frame, voi)
        low, high = self.layout.stored_range
        table = self._grey_of(np.arange(low, high + 1, dtype=np.int32).astype(self.layout.dtype), frame, voi)
        return table[stored.astype(np.int32) - low]

    def _grey_of(self, stored: NDArray[Any], frame: int, voi: Window | LookupTable | FullRange) -> NDArray[np.uint8]:
        grey = to_uint8(np.nan_to_num(voi.to_unit(self._modality(stored, frame))))
        if self.layout.photometric_interpretation == "MONOCHROME1":  # PS3.3 C.7.6.3.1.2: the lowest is white
            grey = 255 - grey
        if self.padding is not None:
            grey[self.padding.mask(stored)] = 0
        return grey

    def _voi(
        self, stored: NDArray[Any], frame: int, window: int | Window | LookupTable
    ) -> Window | LookupTable | FullRange:
        if not isinstance(window, int):
            return window
        facts = self.facts(frame)
        declared: tuple[Window | LookupTable, ...] = (*facts.windows, *facts.voi_luts)
        if declared or window != 0:
            if not 0 <= window < len(declared):
                raise IndexError(f"window {window} of {len(declared)}")
            return declared[window]
        if self.layout.bits_stored <= 8:
            ends = self._modality(np.array(self.layout.stored_range, self.layout.dtype), frame)
        else:
            shown = stored if self.padding is None else stored[~self.padding.mask(stored)]
            shown = shown[np.isfinite(shown)] if self.layout.is_float else shown
            ends = self._modality(shown if shown.size else stored[:1, :1], frame)
        return FullRange(float(ends.min()), float(ends.max()))

    def _rgb(self, stored: NDArray[Any], is_rgb: bool | None) -> NDArray[np.uint8]:
        colour = _to_eight_bits(stored, self.layout.bits_stored)
        if is_rgb is None:
            is_rgb = self.layout.photometric_interpretation == "RGB"
        return colour if is_rgb else rgb_from_ybr_full(colour)

    def _overlay_mask(self, overlay: Overlay, frame: int) -> NDArray[np.bool_]:
        mask = np.zeros((self.layout.rows, self.layout.columns), bool)
        k = frame - overlay.first_frame
        if overlay.frames == 1 and overlay.first_frame == 0:
            k = 0  # one plane for all frames
        if not 0 <= k < overlay.frames:
            return mask
        if overlay.bits is None:
            cells = self._cells(frame)[0]
            return (cells >> overlay.bit_position & 1).astype(bool)
        count = overlay.rows * overlay.columns
        first, last = k * count, (k + 1) * count
        bits = np.unpackbits(overlay.bits[first // 8 : (last + 7) // 8], bitorder="little")
        plane = bits[first % 8 : first % 8 + count].reshape(overlay.rows, overlay.columns)
        top, left = overlay.origin[0] - 1, overlay.origin[1] - 1  # may be negative: PS3.3 C.9.2.1.1
        part = plane[max(0, -top) :, max(0, -left) :]
        target = mask[max(0, top) :, max(0, left) :]
        height, width = min(part.shape[0], target.shape[0]), min(part.shape[1], target.shape[1])
        target[:height, :width] = part[:height, :width]
        return mask


def open_dicom(source: str | Path | bytes, limits: DicomLimits = DicomLimits()) -> DicomImage:
    """Read everything but the pixels. Raises SourceError (no such file, no image) or DecodeError (damaged, refused).

    No message has a value of the data set or the path in it, beyond the names of SOP class and transfer syntax.
    """
    content = ByteRange(source if isinstance(source, bytes) else Path(source))
    with parser_silenced():
        part10 = read_part10(content, limits)
        sop_class, name = _names(part10)
        try:
            return _image(part10, sop_class, limits)
        except (DecodeError, SourceError) as error:
            raise type(error)(f"{sop_class}, {name}: {error}") from None
        except PARSER_FAULTS as error:
            raise DecodeError(f"{sop_class}, {name}: an attribute is missing or damaged ({_fault(error)})") from None


def _names(part10: Part10) -> tuple[str, str]:
    try:
        uid = UID(str(part10.dataset.get("SOPClassUID") or ""))
    except PARSER_FAULTS:
        uid = UID("")
    sop_class = uid.name if uid.name != uid else "unknown SOP class"
    syntax = TRANSFER_SYNTAXES.get(_syntax_uid(part10))
    known = UID(part10.transfer_syntax)
    return sop_class, syntax.name if syntax else known.name if known.name != known else "unknown transfer syntax"


def _syntax_uid(part10: Part10) -> str:
    """As the file says; else by how it is encoded."""
    encoding = part10.dataset.original_encoding
    return part10.transfer_syntax or _NATIVE_BY_ENCODING.get(
        (bool(encoding[0]), bool(encoding[1])), "1.2.840.10008.1.2.2"
    )


def _fault(error: BaseException) -> str:
    """pydicom's AttributeError names the attribute; others may quote its value."""
    name = getattr(error, "name", None)
    return str(name) if isinstance(error, AttributeError) and name else type(error).__name__


def _image(part10: Part10, sop_class: str, limits: DicomLimits) -> DicomImage:
    syntax = TRANSFER_SYNTAXES.get(_syntax_uid(part10))
    if syntax is None:
        raise DecodeError("no decoder for this transfer syntax. Send one of TRANSFER_SYNTAXES.")
    dataset = part10.dataset
    layout = pixel_layout(dataset, part10.pixel_keyword)
    _refuse_bomb(layout, limits)
    is_encapsulated = part10.pixel_length == UNDEFINED_LENGTH
    if is_encapsulated != (syntax.storage is not Storage.NATIVE):
        raise DecodeError(
            f"the pixel data is {'' if is_encapsulated else 'not '}encapsulated, against its transfer syntax"
        )
    fragments = _fragments(part10, layout, syntax)
    return DicomImage(
        sop_class=sop_class,
        transfer_syntax=syntax,
        layout=layout,
        padding=padding_of(dataset, layout),
        overlays=overlays_of(dataset, layout),
        palette=palette_of(dataset, layout),
        _facts=frame_facts(dataset, layout),
        _content=part10.content,
        _offset=part10.pixel_offset,
        _length=part10.pixel_length,
        _is_little_endian=part10.is_little_endian,
        _swaps_bytes=not part10.is_little_endian and layout.bits_allocated <= 8 and part10.pixel_vr == "OW",
        _fragments=fragments,
        _video=_video(part10, layout, syntax, fragments),
    )


def _refuse_bomb(layout: PixelLayout, limits: DicomLimits) -> None:
    per_frame = layout.rows * layout.columns * layout.samples
    if (
        per_frame > limits.frame_samples
        or layout.frames > limits.frames
        or per_frame * layout.frames > limits.total_samples
    ):
        raise DecodeError(
            f"{layout.frames} frames of {layout.columns}x{layout.rows}x{layout.samples} samples; at most "
            f"{limits.frame_samples} a frame and {limits.total_samples} in all are decoded. Raise DicomLimits."
        )


def _fragments(part10: Part10, layout: PixelLayout, syntax: TransferSyntax) -> tuple[FrameFragments, ...]:
    if syntax.storage is Storage.NATIVE:
        return ()
    table = part10.dataset.get("ExtendedOffsetTable") or b""
    extended = struct.unpack(f"<{len(table) // 8}Q", table[: len(table) // 8 * 8])
    frames = 1 if syntax.storage is Storage.VIDEO else layout.frames  # PS3.5 8.2.5: one bit stream
    return encapsulated_frames(part10.content, part10.pixel_offset, frames, extended)


def _video(
    part10: Part10, layout: PixelLayout, syntax: TransferSyntax, fragments: tuple[FrameFragments, ...]
) -> VideoCursor | None:
    if syntax.storage is not Storage.VIDEO:
        return None
    return VideoCursor(frame_bytes(part10.content, fragments[0]), syntax.codec, layout)


def _samples(cells: NDArray[Any], layout: PixelLayout) -> NDArray[Any]:
    """PS3.5 8.1.1: the BitsStored bits up to HighBit, sign extended. Others may hold overlays."""
    if layout.is_float:
        return cells
    size = layout.dtype.itemsize
    bits = cells.astype(f"u{size}", copy=False)  # a codec may give fewer bytes, or the other sign
    below = layout.high_bit + 1 - layout.bits_stored
    above = 8 * size - 1 - layout.high_bit
    if layout.bits_allocated == 1:
        return bits
    if layout.is_signed:
        return (bits << above).view(layout.dtype) >> (above + below)
    return bits if above == 0 and below == 0 else (bits << above) >> (above + below)


def _to_eight_bits(colour: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    if bits == 8:
        return colour.astype(np.uint8, copy=False)
    return to_uint8(colour.astype(np.float64) / float((1 << bits) - 1))


def _palette_rgb(stored: NDArray[Any], palette: tuple[LookupTable, ...]) -> NDArray[np.uint8]:
    return to_uint8(np.stack([table.to_unit(stored) for table in palette], axis=-1))


__all__ = ["DicomImage", "open_dicom"]
