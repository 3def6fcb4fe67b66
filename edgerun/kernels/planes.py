# SPDX-License-Identifier: Apache-2.0
"""Checks between Python and native code: past them, nothing is checked any more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgerun.frame import PixelFormat, Plane

Shape: TypeAlias = tuple[int, ...]
Window: TypeAlias = tuple[int, int, int, int]  # x, y, width, height in source pixels

FORMAT_CODE = {  # `enum class Format` in resize_pack.hpp
    PixelFormat.I420: 0,
    PixelFormat.NV12: 1,
    PixelFormat.BGR: 2,
    PixelFormat.RGB: 3,
    PixelFormat.MONO: 4,
}
_UINT8 = np.dtype(np.uint8)


def check_planes(planes: Sequence[Plane], expected: tuple[Shape, ...], pixel_format: PixelFormat) -> None:
    """Raises ValueError unless the planes are uint8 of these shapes with contiguous rows (which may be padded)."""
    if len(planes) != len(expected):
        raise ValueError(f"{pixel_format.name} has {len(expected)} planes, found {len(planes)}")
    for index, (plane, shape) in enumerate(zip(planes, expected, strict=True)):
        if plane.dtype is not _UINT8 and plane.dtype != _UINT8:
            raise ValueError(f"{pixel_format.name} plane {index} is {plane.dtype}; expected uint8")
        if plane.shape != shape:
            raise ValueError(f"{pixel_format.name} plane {index} has shape {plane.shape}; expected {shape}")
        if not has_contiguous_rows(plane):
            raise ValueError(
                f"{pixel_format.name} plane {index} has strides {plane.strides}; only the first may be padded: copy it"
            )


def check_writeable(planes: Sequence[Plane], name: str) -> None:
    for index, plane in enumerate(planes):
        if not plane.flags.writeable:
            raise ValueError(f"{name} {index} is read-only; copy it before it is written to")


def check_window(window: Window, width: int, height: int) -> None:
    """Raises ValueError unless the window has pixels and all of them lie in the picture."""
    x, y, w, h = window
    if x < 0 or y < 0 or w < 1 or h < 1 or x + w > width or y + h > height:
        raise ValueError(
            f"window {window} (x, y, width, height) must be at least 1x1 inside the {width}x{height} picture"
        )


def check_map(name: str, array: NDArray[np.generic], dtype: np.dtype[np.generic], shape: Shape) -> None:
    """Raises ValueError unless the array is a [h, w] map of that type and shape, rows contiguous."""
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"{name} is {array.dtype} {array.shape}; expected {dtype} {shape}")
    if not has_contiguous_rows(array):
        raise ValueError(f"{name} has strides {array.strides}; only the first may be padded: copy it")


def has_contiguous_rows(array: NDArray[np.generic]) -> bool:
    """The strides of axes of one element say nothing."""
    if array.flags.c_contiguous:
        return True
    below = array.itemsize
    for size, stride in zip(array.shape[:0:-1], array.strides[:0:-1], strict=True):
        if size != 1 and stride != below:
            return False
        below *= size
    return array.strides[0] % array.itemsize == 0
