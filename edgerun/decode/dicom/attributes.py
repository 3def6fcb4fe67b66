# SPDX-License-Identifier: Apache-2.0
"""A data set's attributes as plain values. Runs once, at opening: nothing later touches pydicom."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from edgerun.decode.dicom.lut import LookupTable, Rescale, VoiFunction, Window, expanded_segments
from edgerun.errors import DecodeError

PHOTOMETRIC_INTERPRETATIONS = {
    "MONOCHROME1": 1, "MONOCHROME2": 1, "PALETTE COLOR": 1, "RGB": 3, "YBR_FULL": 3, "YBR_FULL_422": 3,
    "YBR_PARTIAL_420": 3, "YBR_PARTIAL_422": 3, "YBR_ICT": 3, "YBR_RCT": 3,
}  # fmt: skip
_ALLOCATED = {"PixelData": (1, 8, 16, 32), "FloatPixelData": (32,), "DoubleFloatPixelData": (64,)}


@dataclass(frozen=True, slots=True)
class PixelLayout:
    """The Image Pixel module (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    frames: int
    samples: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_signed: bool
    is_float: bool
    photometric_interpretation: str
    is_planar: bool  # native only: colour by plane

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of stored pixels."""
        kind = "f" if self.is_float else "i" if self.is_signed else "u"
        return np.dtype(f"{kind}{max(8, self.bits_allocated) // 8}")

    @property
    def stored_range(self) -> tuple[int, int]:
        """The smallest and largest value that BitsStored can hold."""
        half = 1 << (self.bits_stored - 1)
        return (-half, half - 1) if self.is_signed else (0, 2 * half - 1)


@dataclass(frozen=True, slots=True)
class Spacing:
    """Millimetres between rows and between columns, and the attribute that says so: ImagerPixelSpacing is measured
    at the detector, not in the patient (PS3.3 10.7.1.3)."""

    row_mm: float
    column_mm: float
    attribute: str


@dataclass(frozen=True, slots=True)
class Padding:
    """Stored values from low to high are no picture (PS3.3 C.7.5.1.1.2)."""

    low: int
    high: int

    def mask(self, stored: NDArray[Any]) -> NDArray[np.bool_]:
        return (stored >= self.low) & (stored <= self.high)


@dataclass(frozen=True, slots=True, eq=False)
class Overlay:
    """An overlay plane (PS3.3 C.9.2). `bits` is None where it lies in unused bits of the pixels (retired)."""

    rows: int
    columns: int
    origin: tuple[int, int]  # row, column of its first pixel; 1, 1 is the image's
    first_frame: int
    frames: int
    is_roi: bool
    bits: NDArray[np.uint8] | None  # packed, the lowest bit first
    bit_position: int
    label: str


@dataclass(frozen=True, slots=True)
class FrameFacts:
    """What may differ from frame to frame (PS3.3 C.7.6.16)."""

    modality: Rescale | LookupTable = field(default_factory=Rescale)
    windows: tuple[Window, ...] = ()
    voi_luts: tuple[LookupTable, ...] = ()
    spacing: Spacing | None = None


def pixel_layout(dataset: Dataset, keyword: str) -> PixelLayout:
    """Raises DecodeError on values that no image can have."""
    photometric = str(dataset.PhotometricInterpretation).strip()
    is_float = keyword != "PixelData"
    allocated = int(dataset.get("BitsAllocated") or (32 if keyword == "FloatPixelData" else 64))
    stored = allocated if is_float else int(dataset.BitsStored)
    layout = PixelLayout(
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        frames=int(_first(dataset.get("NumberOfFrames")) or 1),
        samples=int(dataset.SamplesPerPixel),
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=int(dataset.get("HighBit", stored - 1)),
        is_signed=is_float or int(dataset.PixelRepresentation) == 1,
        is_float=is_float,
        photometric_interpretation=photometric,
        is_planar=int(dataset.get("PlanarConfiguration") or 0) == 1,
    )
    _check(layout, keyword)
    return layout


def _check(layout: PixelLayout, keyword: str) -> None:
    expected = PHOTOMETRIC_INTERPRETATIONS.get(layout.photometric_interpretation)
    faults = []
    if min(layout.rows, layout.columns, layout.frames) < 1:
        faults.append(f"{layout.columns}x{layout.rows} pixels in {layout.frames} frames; each must be at least 1")
    if expected is None:
        faults.append(f"photometric interpretation is none of {', '.join(PHOTOMETRIC_INTERPRETATIONS)}")
    elif layout.samples != expected:
        faults.append(f"{layout.samples} samples per pixel; {layout.photometric_interpretation} has {expected}")
    if layout.bits_allocated not in _ALLOCATED[keyword]:
        faults.append(f"BitsAllocated = {layout.bits_allocated}; {keyword} has one of {_ALLOCATED[keyword]}")
    if not 1 <= layout.bits_stored <= layout.high_bit + 1 <= layout.bits_allocated:
        faults.append(f"BitsStored = {layout.bits_stored}, HighBit = {layout.high_bit} in {layout.bits_allocated} bits")
    if faults:
        raise DecodeError("; ".join(faults))


def frame_facts(dataset: Dataset, layout: PixelLayout) -> tuple[FrameFacts, ...]:
    """One for all frames, or one for each where the functional groups differ."""
    shared = (_item(dataset, "SharedFunctionalGroupsSequence"), dataset)
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    if not per_frame:
        return (_facts(shared, layout),)
    return tuple(_facts((groups, *shared), layout) for groups in per_frame)


def _facts(places: tuple[Dataset, ...], layout: PixelLayout) -> FrameFacts:
    voi = _found(places, "FrameVOILUTSequence", ("WindowCenter", "VOILUTSequence"))
    return FrameFacts(
        modality=_modality(places, layout),
        windows=_windows(voi),
        voi_luts=tuple(_lut(item, layout.is_signed) for item in voi.get("VOILUTSequence") or ()),
        spacing=_spacing(places),
    )


def _found(places: Iterable[Dataset], group: str, keywords: tuple[str, ...]) -> Dataset:
    """The first of the places that has one of the attributes, in its functional group or by itself."""
    for place in places:
        for item in (_item(place, group), place):
            if any(_first(item.get(keyword)) is not None for keyword in keywords):
                return item
    return Dataset()


def _modality(places: tuple[Dataset, ...], layout: PixelLayout) -> Rescale | LookupTable:
    """A Modality LUT instead of a rescale (PS3.3 C.11.1); an RT Dose has its scaling (C.8.8.3)."""
    source = _found(places, "PixelValueTransformationSequence", ("RescaleSlope", "ModalityLUTSequence"))
    table = _item(source, "ModalityLUTSequence")
    if "LUTDescriptor" in table:
        return _lut(table, layout.is_signed)
    scaling = _first(_found(places, "", ("DoseGridScaling",)).get("DoseGridScaling"))
    if scaling is not None:
        return Rescale(_finite(scaling), 0.0, str(places[-1].get("DoseUnits", "")))
    slope, intercept = _first(source.get("RescaleSlope")), _first(source.get("RescaleIntercept"))
    if slope is None:
        return Rescale()
    return Rescale(_finite(slope), _finite(intercept or 0.0), str(_first(source.get("RescaleType")) or ""))


def _windows(voi: Dataset) -> tuple[Window, ...]:
    function = VoiFunction(str(_first(voi.get("VOILUTFunction")) or "LINEAR").strip().upper())
    centers, widths = _many(voi.get("WindowCenter")), _many(voi.get("WindowWidth"))
    names = [str(name) for name in _many(voi.get("WindowCenterWidthExplanation"))]
    windows = []
    for k, (center, width) in enumerate(zip(centers, widths)):  # noqa: B905 - as many as there are pairs
        smallest = 1.0 if function is VoiFunction.LINEAR else math.ulp(0.0)
        if _finite(width) >= smallest:  # others mean nothing: PS3.3 C.11.2.1.2.1
            windows.append(Window(_finite(center), float(width), function, names[k] if k < len(names) else ""))
    return tuple(windows)


def _spacing(places: tuple[Dataset, ...]) -> Spacing | None:
    for attribute in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        values = _many(_found(places, "PixelMeasuresSequence", (attribute,)).get(attribute))
        if len(values) == 2 and all(_finite(value) > 0 for value in values):
            return Spacing(float(values[0]), float(values[1]), attribute)
    return None


def padding_of(dataset: Dataset, layout: PixelLayout) -> Padding | None:
    value = _first(dataset.get("PixelPaddingValue"))
    if value is None or layout.is_float:
        return None
    limit = _first(dataset.get("PixelPaddingRangeLimit"))
    ends = sorted(_as_stored(int(v), layout) for v in (value, value if limit is None else limit))
    return Padding(ends[0], ends[1])


def _as_stored(value: int, layout: PixelLayout) -> int:
    """Written with the wrong sign by some: a 16-bit value means its bits."""
    if layout.is_signed and value > 0x7FFF and layout.bits_allocated == 16:
        return value - 0x10000
    if not layout.is_signed and value < 0:
        return value & 0xFFFF
    return value


def palette_of(dataset: Dataset, layout: PixelLayout) -> tuple[LookupTable, ...]:
    """Red, green and blue (PS3.3 C.7.6.3.1.5); empty for other photometric interpretations."""
    if layout.photometric_interpretation != "PALETTE COLOR":
        return ()
    return tuple(_palette(dataset, colour, layout) for colour in ("Red", "Green", "Blue"))


def _palette(dataset: Dataset, colour: str, layout: PixelLayout) -> LookupTable:
    descriptor = dataset[f"{colour}PaletteColorLookupTableDescriptor"].value
    segmented = dataset.get(f"Segmented{colour}PaletteColorLookupTableData")
    if segmented is None:
        return _table(descriptor, dataset[f"{colour}PaletteColorLookupTableData"].value, layout.is_signed)
    words = np.frombuffer(bytes(segmented), "<u2" if dataset.original_encoding[1] is not False else ">u2")
    entries = expanded_segments(words.tolist())
    return _table(descriptor, entries, layout.is_signed)


def _lut(item: Dataset, is_signed: bool) -> LookupTable:
    name = str(item.get("LUTExplanation") or item.get("ModalityLUTType") or "")
    return _table(item.LUTDescriptor, item.LUTData, is_signed, name)


def _table(descriptor: Any, data: Any, is_signed: bool, name: str = "") -> LookupTable:
    """Descriptor: entries (0 is 65536), first mapped value, bits of an entry."""
    count, first, bits = (int(value) for value in descriptor)
    count = (count & 0xFFFF) or 1 << 16
    if is_signed and first > 0x7FFF:
        first -= 0x10000
    if isinstance(data, bytes):
        entries = np.frombuffer(data, np.uint8 if len(data) < 2 * count else "<u2")
    else:
        entries = np.asarray(_many(data), np.int64) & 0xFFFF
        if bits == 8 and len(entries) * 2 in (count, count + 1):  # two entries to a word
            entries = entries.astype("<u2").view(np.uint8)
    if len(entries) < count or not 1 <= bits <= 16:
        raise DecodeError(f"a look-up table has {len(entries)} entries of {bits} bits; its descriptor says {count}")
    return LookupTable(first, bits, entries[:count].astype(np.uint16), name)


def overlays_of(dataset: Dataset, layout: PixelLayout) -> tuple[Overlay, ...]:
    """Groups 6000 to 601E, the even ones."""
    groups = (group for group in range(0x6000, 0x6020, 2) if (group, 0x0010) in dataset)
    return tuple(_overlay(partial(_value, dataset, group), layout) for group in groups)


def _overlay(value: Callable[[int], Any], layout: PixelLayout) -> Overlay:
    rows, columns, frames = int(value(0x0010)), int(value(0x0011)), int(value(0x0015) or 1)
    origin = _many(value(0x0050)) or [1, 1]
    data = value(0x3000)
    bits = None if data is None else np.frombuffer(bytes(data), np.uint8)
    if min(rows, columns, frames) < 1 or (bits is not None and 8 * len(bits) < rows * columns * frames):
        raise DecodeError(
            f"an overlay of {columns}x{rows} in {frames} frames has {0 if bits is None else len(bits)} bytes"
        )
    if bits is None and (rows, columns) != (layout.rows, layout.columns):
        raise DecodeError(f"an overlay of {columns}x{rows} can't lie in pixels of {layout.columns}x{layout.rows}")
    return Overlay(
        rows, columns, (int(origin[0]), int(origin[1])),
        first_frame=int(value(0x0051) or 1) - 1,
        frames=frames if bits is not None else layout.frames,
        is_roi=value(0x0040) == "R",
        bits=bits,
        bit_position=int(value(0x0102) or 0),
        label=str(value(0x1500) or ""),
    )  # fmt: skip


def _value(dataset: Dataset, group: int, element: int) -> Any:
    return dataset[group, element].value if (group, element) in dataset else None


def _item(dataset: Dataset, keyword: str) -> Dataset:
    items = dataset.get(keyword) if keyword else None
    return items[0] if items else Dataset()


def _many(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str | bytes | int | float) else list(value)


def _first(value: Any) -> Any:
    """The only or first of several values; None when empty."""
    values = _many(value)
    return values[0] if values else None


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise DecodeError("an attribute that must be a finite number is not")
    return number
