# SPDX-License-Identifier: Apache-2.0
"""Camera planes to model input in one pass: resize, colour conversion and packing, uint8 to uint8.

Whole-number arithmetic, equal to `edgerun.kernels.reference.resize_pack` to the last bit:
the source is summed with 8-bit row weights, then with 14-bit column weights; that sum is rounded half up, once, to 6
fractional bits; YCbCr is averaged as YCbCr and converted per output pixel with 13-bit coefficients; the result is
rounded half up and clamped. MONO is repeated on the three channels as it is, whatever its range.
"""

from __future__ import annotations

import enum

import numpy as np
from numpy.typing import NDArray

from edgerun.frame import Colour, Geometry, PixelFormat, Plane, plane_shapes
from edgerun.kernels import _native
from edgerun.kernels.planes import FORMAT_CODE, check_planes, check_writeable
from edgerun.kernels.taps import COLUMN_WEIGHT_BITS, ROW_WEIGHT_BITS, Axis, Filter, Fit, Placement, axis_taps, place
from edgerun.kernels.ycbcr import ycbcr_to_rgb

__all__ = ["ChannelOrder", "Filter", "Fit", "Layout", "ResizePack"]

_MAX_SIDE = 16384  # keeps every product of the tap tables far from 2^63


class Layout(enum.Enum):
    PLANAR = "planar"  # [3, H, W]
    INTERLEAVED = "interleaved"  # [H, W, 3]


class ChannelOrder(enum.Enum):
    RGB = "rgb"
    BGR = "bgr"


class ResizePack:
    """A plan for frames of one size and format. Allocates here and never again; one thread at a time."""

    __slots__ = ("_native", "_pixel_format", "_shapes", "geometry", "out_shape")

    def __init__(
        self,
        *,
        pixel_format: PixelFormat,
        width: int,
        height: int,
        colour: Colour,
        out_width: int,
        out_height: int,
        fit: Fit = Fit.STRETCH,
        filter: Filter = Filter.AREA,
        layout: Layout = Layout.PLANAR,
        order: ChannelOrder = ChannelOrder.RGB,
        pad_value: int = 128,
    ) -> None:
        _check_sides(width, height, out_width, out_height)
        if not 0 <= pad_value <= 255:
            raise ValueError(f"pad_value is {pad_value}; expected 0 to 255")
        placement = place(fit, width, height, out_width, out_height)
        self._pixel_format = pixel_format
        self._shapes = plane_shapes(pixel_format, width, height)
        self.geometry = geometry_of(placement, width, height)
        self.out_shape = (3, out_height, out_width) if layout is Layout.PLANAR else (out_height, out_width, 3)
        x, y, chroma_x, chroma_y = (
            axis_taps(filter, Axis(picture, subsample, inner), bits)
            for subsample in (1, 2)
            for picture, inner, bits in (
                (width, placement.width, COLUMN_WEIGHT_BITS),
                (height, placement.height, ROW_WEIGHT_BITS),
            )
        )
        self._native = _native.ResizePack(
            FORMAT_CODE[pixel_format], width, (out_width, out_height), (placement.left, placement.top), pad_value,
            layout is Layout.INTERLEAVED, order is ChannelOrder.BGR, ycbcr_to_rgb(colour).as_tuple(),
            x.start, x.weight, y.start, y.weight, chroma_x.start, chroma_x.weight, chroma_y.start, chroma_y.weight,
        )  # fmt: skip

    def write(self, planes: tuple[Plane, ...], out: NDArray[np.uint8]) -> None:
        """Fill `out`: C-contiguous uint8 of `out_shape`, any number of leading axes of 1. Runs without the GIL."""
        check_planes(planes, self._shapes, self._pixel_format)
        self._check_out(out)
        self._native.write(planes[0], planes[1 % len(planes)], planes[2 % len(planes)], out)

    def _check_out(self, out: NDArray[np.uint8]) -> None:
        shape = out.shape
        extra = len(shape) - 3
        if out.dtype != np.uint8 or extra < 0 or shape[extra:] != self.out_shape or shape[:extra] != (1,) * extra:
            raise ValueError(
                f"output is {out.dtype} {shape}; expected uint8 {self.out_shape}, leading axes of 1 allowed"
            )
        if not out.flags.c_contiguous:
            raise ValueError(f"output has strides {out.strides}; expected a C-contiguous buffer")
        check_writeable((out,), "output")


def geometry_of(placement: Placement, width: int, height: int) -> Geometry:
    return Geometry(
        width, height, width / placement.width, height / placement.height, float(placement.left), float(placement.top)
    )


def _check_sides(width: int, height: int, out_width: int, out_height: int) -> None:
    for name, side in (("width", width), ("height", height), ("out_width", out_width), ("out_height", out_height)):
        if not 1 <= side <= _MAX_SIDE:
            raise ValueError(f"{name} is {side}; expected 1 to {_MAX_SIDE}")
