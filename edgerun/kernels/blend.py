# SPDX-License-Identifier: Apache-2.0
"""Blend a marked region into a picture, in place, in the picture's own format.

Per byte: new = (old * (256 - alpha) + colour * alpha + 128) >> 8, equal to `edgerun.kernels.reference.blend` to the
last bit. Every byte of a pixel that is not marked keeps its value (next to marked ones it may be written with it, so
no other thread may write the window's rows meanwhile). At 4:2:0 a chroma sample is blended only when all of
its luma pixels inside the picture are marked, so no unmarked pixel changes colour; it then takes the greatest mark.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from edgerun.frame import Colour, PixelFormat, Plane, plane_shapes
from edgerun.kernels import _native
from edgerun.kernels.planes import FORMAT_CODE, Window, check_map, check_planes, check_window, check_writeable
from edgerun.kernels.ycbcr import Rgb, pixel_bytes

MARK_NONE, MARK_FILL, MARK_CONTOUR = 0, 1, 2

_UINT8 = np.dtype(np.uint8)


def blend(
    planes: tuple[Plane, ...],
    pixel_format: PixelFormat,
    colour: Colour,
    marks: NDArray[np.uint8],
    window: Window,
    fill_rgb: Rgb,
    contour_rgb: Rgb,
    alpha_256: int,
    contour_alpha_256: int = 256,
) -> None:
    """Blend `marks` [h, w] at `window` (x, y, w, h): 0 leaves a pixel, 1 is fill, anything else is contour.

    Alphas run from 0 (leave) to 256 (replace). Runs without the GIL; raises ValueError on what doesn't fit together.
    """
    code, fill, contour = _native_tints(pixel_format, colour, fill_rgb, contour_rgb)
    if not _native.blend(planes, code, marks, window, fill, alpha_256, contour, contour_alpha_256):
        check_picture(planes, pixel_format)
        check_writeable(planes, f"{pixel_format.name} plane")
        check_window(window, planes[0].shape[1], planes[0].shape[0])
        check_map("marks", marks, _UINT8, (window[3], window[2]))
        for name, alpha in (("alpha_256", alpha_256), ("contour_alpha_256", contour_alpha_256)):
            if not 0 <= alpha <= 256:
                raise ValueError(f"{name} is {alpha}; expected 0 to 256")
        raise ValueError(f"planes are {[type(plane) for plane in planes]}; expected arrays that offer their buffer")


@functools.lru_cache(maxsize=64)
def _native_tints(pixel_format: PixelFormat, colour: Colour, fill_rgb: Rgb, contour_rgb: Rgb) -> tuple[int, Rgb, Rgb]:
    fill, contour = (pixel_bytes(rgb, pixel_format, colour) for rgb in (fill_rgb, contour_rgb))
    return FORMAT_CODE[pixel_format], fill, contour


def check_picture(planes: tuple[Plane, ...], pixel_format: PixelFormat) -> None:
    """The first plane gives the picture's size; the others must agree with it."""
    if not planes or planes[0].ndim < 2:
        raise ValueError(f"{pixel_format.name} needs planes of rows and columns, found {[p.shape for p in planes]}")
    check_planes(planes, plane_shapes(pixel_format, planes[0].shape[1], planes[0].shape[0]), pixel_format)
