# SPDX-License-Identifier: Apache-2.0
"""From stored values to meaning (modality) and to grey (VOI): PS3.3 C.11.1, C.11.2 and C.7.6.3.1."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]  # [H, W] or [n], integers or floats


class VoiFunction(enum.Enum):
    """VOI LUT Function (PS3.3 C.11.2.1.3)."""

    LINEAR = "LINEAR"
    LINEAR_EXACT = "LINEAR_EXACT"
    SIGMOID = "SIGMOID"


@dataclass(frozen=True, slots=True)
class Rescale:
    """modality = stored * slope + intercept (PS3.3 C.11.1.1.2)."""

    slope: float = 1.0
    intercept: float = 0.0
    unit: str = ""  # RescaleType, "HU" for example

    def apply(self, stored: Values) -> Values:
        """Integers where slope and intercept are, float32 otherwise."""
        if stored.dtype.kind == "f":
            scaled: Values = stored * stored.dtype.type(self.slope) + stored.dtype.type(self.intercept)
            return scaled
        dtype = self.dtype_for(stored.dtype)
        if dtype.kind == "i":
            scaled = stored.astype(dtype) * dtype.type(self.slope)
            scaled += dtype.type(self.intercept)
            return scaled
        return (stored.astype(np.float64) * self.slope + self.intercept).astype(np.float32)

    def dtype_for(self, stored: np.dtype[Any]) -> np.dtype[Any]:
        """The smaller of int32 and int64 that can't overflow, or float32."""
        if not (self.slope.is_integer() and self.intercept.is_integer()):
            return np.dtype(np.float32)
        largest = abs(self.slope) * 2.0 ** (8 * stored.itemsize) + abs(self.intercept)
        return np.dtype(np.int32 if largest < 2**31 else np.int64 if largest < 2**62 else np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class LookupTable:
    """A Modality, VOI or palette LUT. Values below `first` take the first entry, above the last (PS3.3 C.11.1.1.1)."""

    first: int
    bits: int  # of each entry: the largest possible is 2^bits - 1
    entries: NDArray[np.uint16]
    explanation: str = ""

    def apply(self, values: Values) -> NDArray[np.uint16]:
        index = np.floor(values) if values.dtype.kind == "f" else values
        return self.entries[np.clip(index.astype(np.int64) - self.first, 0, len(self.entries) - 1)]

    def to_unit(self, values: Values) -> NDArray[np.float64]:
        """As a fraction of the largest possible output."""
        return self.apply(values) / float((1 << self.bits) - 1)


@dataclass(frozen=True, slots=True)
class Window:
    """Width is at least 1 for LINEAR and above 0 for the others (PS3.3 C.11.2.1.2.1)."""

    center: float
    width: float
    function: VoiFunction = VoiFunction.LINEAR
    explanation: str = ""

    def to_unit(self, values: Values) -> NDArray[np.float64]:
        """Modality values to 0..1."""
        x = values.astype(np.float64)
        match self.function:
            case VoiFunction.LINEAR:  # C.11.2.1.2.1; a width of 1 is a threshold
                if self.width == 1:
                    return (x > self.center - 0.5).astype(np.float64)
                return np.clip((x - (self.center - 0.5)) / (self.width - 1) + 0.5, 0.0, 1.0)
            case VoiFunction.LINEAR_EXACT:  # C.11.2.1.3.2
                return np.clip((x - self.center) / self.width + 0.5, 0.0, 1.0)
            case VoiFunction.SIGMOID:  # C.11.2.1.3.1; clipped where exp() would overflow
                return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (x - self.center) / self.width, -700.0, 700.0)))


@dataclass(frozen=True, slots=True)
class FullRange:
    """What is used where an instance has no window: the given range, linearly."""

    low: float
    high: float

    def to_unit(self, values: Values) -> NDArray[np.float64]:
        span = self.high - self.low
        return np.clip((values.astype(np.float64) - self.low) / (span if span > 0 else 1.0), 0.0, 1.0)


def to_uint8(unit: NDArray[np.float64]) -> NDArray[np.uint8]:
    """0..1 to 0..255, halves up."""
    return np.floor(unit * 255.0 + 0.5).astype(np.uint8)


def rgb_from_ybr_full(ybr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[..., 3] YBR_FULL to RGB: PS3.3 C.7.6.3.1.2, the inverse of its matrix."""
    y, blue, red = (ybr[..., k].astype(np.float32) for k in range(3))
    blue, red = blue - 128, red - 128
    rgb = np.stack((y + 1.402 * red, y - 0.344136 * blue - 0.714136 * red, y + 1.772 * blue), axis=-1)
    return np.clip(np.floor(rgb + 0.5), 0, 255).astype(np.uint8)


def expanded_segments(words: list[int]) -> list[int]:
    """Segmented palette data to entries (PS3.3 C.7.9.2): discrete, linear, indirect. Raises ValueError, IndexError."""
    entries: list[int] = []
    _expand(words, 0, len(words), None, entries)
    return entries


def _expand(words: list[int], at: int, end: int, count: int | None, entries: list[int]) -> None:
    while at < end and count != 0:
        opcode, length = words[at], words[at + 1]
        if len(entries) + length > 1 << 16:
            raise ValueError("a palette has at most 65536 entries")
        match opcode:
            case 0:  # discrete
                entries.extend(words[at + 2 : at + 2 + length])
                at += 2 + length
            case 1:  # linear, from the entry before
                first, last = entries[-1], words[at + 2]
                entries.extend(round(first + (last - first) * k / length) for k in range(1, length + 1))
                at += 3
            case 2 if count is None:  # indirect: `length` segments from a byte offset; not nested
                offset = (words[at + 2] | words[at + 3] << 16) // 2
                _expand(words, offset, end, length, entries)
                at += 4
            case _:
                raise ValueError(f"segment opcode {opcode}")
        count = None if count is None else count - 1
