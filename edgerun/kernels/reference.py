# SPDX-License-Identifier: Apache-2.0
"""The kernels in NumPy: the truth that native code is compared with. Written to be read, not to be fast."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgerun.frame import Colour, Geometry, PixelFormat, Plane
from edgerun.kernels.planes import Window
from edgerun.kernels.resize_pack import ChannelOrder, Layout
from edgerun.kernels.taps import (
    COLUMN_WEIGHT_BITS,
    ROW_WEIGHT_BITS,
    Axis,
    Filter,
    Fit,
    Placement,
    Taps,
    axis_taps,
    place,
)
from edgerun.kernels.ycbcr import COEFFICIENT_BITS, SAMPLE_BITS, Rgb, pixel_bytes, ycbcr_to_rgb

Ints = NDArray[np.int64]


def resize_pack(
    planes: tuple[Plane, ...],
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
) -> NDArray[np.uint8]:
    """What `ResizePack(...).write` writes."""
    placement = place(fit, width, height, out_width, out_height)
    mixed = [
        _mix(plane, filter, (width, height), subsample, placement)
        for plane, subsample in _components(planes, pixel_format)
    ]
    rgb = _to_rgb(mixed, pixel_format, colour)
    if order is ChannelOrder.BGR:
        rgb = rgb[..., ::-1]
    out = np.full((out_height, out_width, 3), pad_value, np.uint8)
    out[placement.top :, placement.left :][: placement.height, : placement.width] = rgb
    return np.ascontiguousarray(out.transpose(2, 0, 1)) if layout is Layout.PLANAR else out


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
) -> tuple[Plane, ...]:
    """Blended copies of the planes."""
    x, y, w, h = window
    luma_marks = np.zeros(planes[0].shape[:2], np.uint8)
    luma_marks[y : y + h, x : x + w] = marks
    fill, contour = (pixel_bytes(rgb, pixel_format, colour) for rgb in (fill_rgb, contour_rgb))
    result = tuple(plane.copy() for plane in planes)
    for index, (component, subsample) in enumerate(_components(result, pixel_format)):
        component_marks = luma_marks if subsample == 1 else _chroma_marks(luma_marks)
        for chosen, value, alpha in (
            (component_marks == 1, fill[index], alpha_256),
            (component_marks > 1, contour[index], contour_alpha_256),
        ):
            old = component[chosen].astype(np.int64)
            component[chosen] = (old * (256 - alpha) + value * alpha + 128) >> 8
    return result


def interpolate(logits: NDArray[np.float32], geometry: Geometry, window: Window) -> NDArray[np.float64]:
    """The bilinear logit at each source pixel of the window."""
    x, y, w, h = window
    across = _linear(logits.shape[1], (np.arange(x, x + w) + 0.5) / geometry.scale_x - 0.5 + geometry.offset_x)
    down = _linear(logits.shape[0], (np.arange(y, y + h) + 0.5) / geometry.scale_y - 0.5 + geometry.offset_y)
    return np.asarray(down @ logits.astype(np.float64) @ across.T)


def threshold(logits: NDArray[np.float32], geometry: Geometry, window: Window, level: float = 0.0) -> NDArray[np.uint8]:
    """What `edgerun.kernels.threshold.threshold` writes."""
    return (interpolate(logits, geometry, window) > level).astype(np.uint8)


def _components(planes: tuple[Plane, ...], pixel_format: PixelFormat) -> list[tuple[Plane, int]]:
    """One [rows, columns] view per colour component, with its subsampling."""
    match pixel_format:
        case PixelFormat.I420:
            return [(planes[0], 1), (planes[1], 2), (planes[2], 2)]
        case PixelFormat.NV12:
            return [(planes[0], 1), (planes[1][:, 0::2], 2), (planes[1][:, 1::2], 2)]
        case PixelFormat.BGR | PixelFormat.RGB:
            return [(planes[0][..., c], 1) for c in range(3)]
        case PixelFormat.MONO:
            return [(planes[0], 1)]


def _mix(plane: Plane, kind: Filter, size: tuple[int, int], subsample: int, placement: Placement) -> Ints:
    """The plane at the output pixels, with SAMPLE_BITS of fraction."""
    columns = _matrix(axis_taps(kind, Axis(size[0], subsample, placement.width), COLUMN_WEIGHT_BITS), plane.shape[1])
    rows = _matrix(axis_taps(kind, Axis(size[1], subsample, placement.height), ROW_WEIGHT_BITS), plane.shape[0])
    shift = COLUMN_WEIGHT_BITS + ROW_WEIGHT_BITS - SAMPLE_BITS
    return np.asarray((rows @ plane.astype(np.int64) @ columns.T + (1 << (shift - 1))) >> shift)


def _matrix(taps: Taps, size: int) -> Ints:
    matrix = np.zeros((len(taps.start), size), np.int64)
    for row, start, weight in zip(matrix, taps.start, taps.weight, strict=True):
        row[start : start + len(weight)] += weight
    return matrix


def _to_rgb(mixed: list[Ints], pixel_format: PixelFormat, colour: Colour) -> NDArray[np.uint8]:
    match pixel_format:
        case PixelFormat.I420 | PixelFormat.NV12:
            return _convert(mixed[0], mixed[1], mixed[2], colour)
        case PixelFormat.BGR:
            mixed = mixed[::-1]
        case PixelFormat.MONO:
            mixed = mixed * 3
        case PixelFormat.RGB:
            pass
    return ((np.stack(mixed, axis=-1) + (1 << (SAMPLE_BITS - 1))) >> SAMPLE_BITS).astype(np.uint8)


def _convert(y: Ints, u: Ints, v: Ints, colour: Colour) -> NDArray[np.uint8]:
    c = ycbcr_to_rgb(colour)
    luma = (y - (c.y_offset << SAMPLE_BITS)) * c.y_gain
    u, v = u - (128 << SAMPLE_BITS), v - (128 << SAMPLE_BITS)
    rgb = np.stack([luma + v * c.r_from_v, luma + u * c.g_from_u + v * c.g_from_v, luma + u * c.b_from_u], axis=-1)
    shift = SAMPLE_BITS + COEFFICIENT_BITS
    return np.asarray(np.clip((rgb + (1 << (shift - 1))) >> shift, 0, 255), np.uint8)


def _chroma_marks(luma: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The greatest of the luma marks where none of those inside the picture is 0."""
    height, width = luma.shape
    even = np.pad(luma, ((0, height % 2), (0, width % 2)), mode="edge")
    quads = np.stack([even[dy::2, dx::2] for dy in (0, 1) for dx in (0, 1)])
    return np.where(quads.min(axis=0) > 0, quads.max(axis=0), 0).astype(np.uint8)


def _linear(size: int, position: NDArray[np.floating]) -> NDArray[np.float64]:
    """Interpolation matrix [len(position), size]; positions beyond the ends take the end."""
    position = np.clip(position, 0, size - 1)
    left = np.minimum(position.astype(np.int64), max(size - 2, 0))
    matrix = np.zeros((len(position), size))
    index = np.arange(len(position))
    matrix[index, left] += 1 - (position - left)
    matrix[index, np.minimum(left + 1, size - 1)] += position - left
    return matrix
