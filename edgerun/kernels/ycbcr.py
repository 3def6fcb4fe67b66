# SPDX-License-Identifier: Apache-2.0
"""YCbCr to RGB and back in whole numbers (ITU-R BT.601-7 2.5, BT.709-6 3)."""

from __future__ import annotations

import functools
import math
from dataclasses import astuple, dataclass

from edgerun.frame import Colour, ColourMatrix, PixelFormat

SAMPLE_BITS = 6  # of fraction, in what enters the conversion
COEFFICIENT_BITS = 13

Rgb = tuple[int, int, int]

_RED_BLUE_WEIGHTS = {ColourMatrix.BT601: (0.299, 0.114), ColourMatrix.BT709: (0.2126, 0.0722)}


@dataclass(frozen=True, slots=True)
class YcbcrToRgb:
    """Gains are scaled by `1 << COEFFICIENT_BITS`; field order is that of the native struct."""

    y_offset: int
    y_gain: int
    r_from_v: int
    g_from_u: int
    g_from_v: int
    b_from_u: int

    def as_tuple(self) -> tuple[int, int, int, int, int, int]:
        values: tuple[int, int, int, int, int, int] = astuple(self)
        return values


def ycbcr_to_rgb(colour: Colour) -> YcbcrToRgb:
    """Coefficients for 8-bit samples; limited range is 16..235 for luma, 16..240 for chroma."""
    red, blue = _RED_BLUE_WEIGHTS[colour.matrix]
    green = 1 - red - blue
    luma, chroma = (1.0, 1.0) if colour.full_range else (255 / 219, 255 / 224)
    r_from_v, b_from_u = 2 * (1 - red) * chroma, 2 * (1 - blue) * chroma
    gains = luma, r_from_v, -b_from_u * blue / green, -r_from_v * red / green, b_from_u
    y_gain, r_v, g_u, g_v, b_u = (math.floor(g * (1 << COEFFICIENT_BITS) + 0.5) for g in gains)
    return YcbcrToRgb(0 if colour.full_range else 16, y_gain, r_v, g_u, g_v, b_u)


@functools.lru_cache(maxsize=256)
def pixel_bytes(rgb: Rgb, pixel_format: PixelFormat, colour: Colour) -> Rgb:
    """The colour in a format's own components, in the order of its planes. MONO is full-range luma, three times.

    Raises ValueError on values outside 0 to 255.
    """
    if len(rgb) != 3 or min(rgb) < 0 or max(rgb) > 255:
        raise ValueError(f"colour is {rgb}; expected red, green and blue of 0 to 255")
    match pixel_format:
        case PixelFormat.RGB:
            return rgb
        case PixelFormat.BGR:
            return rgb[2], rgb[1], rgb[0]
        case PixelFormat.MONO:
            luma = _ycbcr(rgb, Colour(colour.matrix, full_range=True))[0]
            return luma, luma, luma
        case PixelFormat.I420 | PixelFormat.NV12:
            return _ycbcr(rgb, colour)


def _ycbcr(rgb: Rgb, colour: Colour) -> Rgb:
    red, blue = _RED_BLUE_WEIGHTS[colour.matrix]
    luma = red * rgb[0] + (1 - red - blue) * rgb[1] + blue * rgb[2]
    u, v = (rgb[2] - luma) / (2 * (1 - blue)), (rgb[0] - luma) / (2 * (1 - red))
    y_scale, y_offset, c_scale = (1.0, 0, 1.0) if colour.full_range else (219 / 255, 16, 224 / 255)
    y, u, v = luma * y_scale + y_offset, u * c_scale + 128, v * c_scale + 128
    return _u8(y), _u8(u), _u8(v)


def _u8(value: float) -> int:
    return min(255, max(0, math.floor(value + 0.5)))
