# SPDX-License-Identifier: Apache-2.0
"""Tap tables: which source samples, with which integer weights, make up each output sample along one axis.

Both filters and both fits come down to these tables, so one kernel serves all. They are worked out in whole numbers:
no table depends on a machine's rounding. Positions follow the half-pixel convention of `edgerun.frame.Geometry`.
Chroma planes of 4:2:0 are taken as centre-sited (MPEG-1, JPEG): a sample lies in the middle of its 2x2 luma pixels.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROW_WEIGHT_BITS = 8
COLUMN_WEIGHT_BITS = 14


class Filter(enum.Enum):
    """BILINEAR: two taps. AREA: mean over the source under an output pixel; bilinear along an axis that grows."""

    BILINEAR = "bilinear"
    AREA = "area"


class Fit(enum.Enum):
    """STRETCH fills the output; LETTERBOX keeps the aspect, centres the picture and pads the rest."""

    STRETCH = "stretch"
    LETTERBOX = "letterbox"


@dataclass(frozen=True, slots=True)
class Placement:
    """The rectangle of the output that the picture fills, in output pixels."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Taps:
    """Output i = sum over t of weight[i, t] * source[start[i] + t]. All of them lie inside the plane."""

    start: NDArray[np.int32]
    weight: NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of one plane: `picture` luma pixels, a plane sample every `subsample` of them, `out_size` outputs."""

    picture: int
    subsample: int
    out_size: int

    @property
    def plane_size(self) -> int:
        return -(-self.picture // self.subsample)

    @property
    def shrinks(self) -> bool:
        return self.picture > self.out_size * self.subsample


def place(fit: Fit, width: int, height: int, out_width: int, out_height: int) -> Placement:
    """Where the picture goes. A letterboxed side is rounded to whole pixels, half up, and is never empty."""
    if fit is Fit.STRETCH:
        return Placement(0, 0, out_width, out_height)
    if out_width * height <= out_height * width:
        inner_w, inner_h = out_width, min(out_height, max(1, _rounded(height * out_width, width)))
    else:
        inner_w, inner_h = min(out_width, max(1, _rounded(width * out_height, height))), out_height
    return Placement((out_width - inner_w) // 2, (out_height - inner_h) // 2, inner_w, inner_h)


def axis_taps(kind: Filter, axis: Axis, weight_bits: int) -> Taps:
    """The table of one axis. Each row of weights sums to exactly `1 << weight_bits`."""
    if kind is Filter.AREA and axis.shrinks:
        return _area_taps(axis, weight_bits)
    return _bilinear_taps(axis, weight_bits)


def _bilinear_taps(axis: Axis, weight_bits: int) -> Taps:
    unit = 2 * axis.out_size * axis.subsample
    index = np.arange(axis.out_size, dtype=np.int64)
    position = (2 * index + 1) * axis.picture - axis.out_size * axis.subsample  # of the output's centre, in units
    left, rest = position // unit, position % unit
    one = 1 << weight_bits
    if axis.plane_size == 1:
        return _table(np.zeros_like(left), np.full((axis.out_size, 1), one))
    second = (2 * rest * one + unit) // (2 * unit)
    second = np.where(left < 0, 0, np.where(left >= axis.plane_size - 1, one, second))
    return _table(np.clip(left, 0, axis.plane_size - 2), np.stack([one - second, second], axis=1))


def _area_taps(axis: Axis, weight_bits: int) -> Taps:
    unit = axis.out_size * axis.subsample  # a plane sample is `unit` long, an output `picture`
    begin = np.arange(axis.out_size, dtype=np.int64) * axis.picture
    end = begin + axis.picture
    taps = int(((end - 1) // unit - begin // unit).max()) + 1
    start = np.minimum(begin // unit, axis.plane_size - taps)
    sample = (start[:, None] + np.arange(taps)) * unit
    overlap = np.minimum(end[:, None], sample + unit) - np.maximum(begin[:, None], sample)
    return _table(start, _apportion(np.maximum(overlap, 0), axis.picture, weight_bits))


def _apportion(share: NDArray[np.int64], whole: int, weight_bits: int) -> NDArray[np.int64]:
    """Shares of `whole` as weights of fixed sum, by the largest remainder; ties go to the earlier tap."""
    scaled = share << weight_bits
    weight, remainder = scaled // whole, scaled % whole
    missing = (1 << weight_bits) - weight.sum(axis=1, keepdims=True)
    rank = np.argsort(np.argsort(-remainder, axis=1, kind="stable"), axis=1)
    return np.asarray(weight + (rank < missing))


def _table(start: NDArray[np.int64], weight: NDArray[np.int64]) -> Taps:
    return Taps(np.ascontiguousarray(start, np.int32), np.ascontiguousarray(weight, np.uint16))


def _rounded(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)
