# SPDX-License-Identifier: Apache-2.0
"""Logits on the model's grid -> regions in source pixels."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgerun.frame import Geometry
from edgerun.kernels.threshold import threshold
from edgerun.result import Box, Region, Segmentation

OUTLINE_ZOOM = 4  # outlines are traced on the grid enlarged by this
SUPPRESSED_LOGIT = -1.0
POLYP_LABEL = 1


def segment(
    logits: NDArray[np.float32],
    model: Geometry,
    stride: tuple[float, float],
    *,
    probability: float = 0.5,
    min_region_fraction: float = 0.0,
) -> Segmentation:
    """Find the regions of a binary mask.

    `logits` [1, 1, h, w]; `model` maps the model's input to the source, `stride` (x, y) is how many input pixels a
    logit stands for. A region is inside where the probability exceeds `probability`; regions below
    `min_region_fraction` of the grid are taken out of the mask, not only of the list, and what lies in the padding of
    a letterbox is no region. The result holds a copy: the engine's buffer may be reused at once.
    """
    grid = logits[0, 0] - np.float32(math.log(probability / (1 - probability)))
    _suppress_small(grid, min_region_fraction)
    geometry = grid_geometry(model, stride)
    if not (grid > 0).any():
        return Segmentation(grid, geometry, ())
    return Segmentation(grid, geometry, _regions(grid, geometry))


def grid_geometry(model: Geometry, stride: tuple[float, float]) -> Geometry:
    """The geometry of a grid of which each cell covers `stride` pixels of the model's input."""
    return Geometry(
        model.source_width,
        model.source_height,
        model.scale_x * stride[0],
        model.scale_y * stride[1],
        model.offset_x / stride[0],
        model.offset_y / stride[1],
    )


def mask_in_source(found: Segmentation, box: Box | None = None) -> NDArray[np.uint8]:
    """The mask, 0 or 1, of the whole source picture or of `box` in it."""
    g = found.geometry
    area = box or Box(0, 0, g.source_width, g.source_height)
    out = np.empty((area.height, area.width), np.uint8)
    threshold(found.logits, g, (area.x, area.y, area.width, area.height), out)
    return out


def _suppress_small(grid: NDArray[np.float32], min_region_fraction: float) -> None:
    smallest = min_region_fraction * grid.size
    if smallest <= 1:
        return
    inside = (grid > 0).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(inside, connectivity=8)
    for label in np.flatnonzero(stats[:, cv2.CC_STAT_AREA] < smallest):
        if label:
            grid[labels == label] = SUPPRESSED_LOGIT


def _regions(grid: NDArray[np.float32], geometry: Geometry) -> tuple[Region, ...]:
    height, width = grid.shape
    fine = cv2.resize(grid, (width * OUTLINE_ZOOM, height * OUTLINE_ZOOM), interpolation=cv2.INTER_LINEAR)
    rows, columns = _picture_in_fine(geometry, fine.shape[0], fine.shape[1])
    inside = np.zeros(fine.shape, np.uint8)
    np.greater(fine[rows, columns], 0, out=inside[rows, columns], casting="unsafe")
    count, labels, stats, _ = cv2.connectedComponentsWithStats(inside, connectivity=8)
    regions = (_region(label, labels, fine, stats[label], geometry) for label in range(1, count))
    return tuple(sorted(regions, key=lambda region: -region.score))


def _picture_in_fine(g: Geometry, height: int, width: int) -> tuple[slice, slice]:
    """The fine cells whose centres lie in the picture: all of them, unless the fit is a letterbox."""

    def span(size: int, offset: float, scale: float, source: int) -> slice:
        first = math.ceil(OUTLINE_ZOOM * offset - 0.5)
        last = math.ceil(OUTLINE_ZOOM * (offset + source / scale) - 0.5)
        return slice(max(0, first), min(size, last))

    return span(height, g.offset_y, g.scale_y, g.source_height), span(width, g.offset_x, g.scale_x, g.source_width)


def _region(
    label: int,
    labels: NDArray[np.number[Any]],
    fine: NDArray[np.number[Any]],
    stats: NDArray[np.number[Any]],
    g: Geometry,
) -> Region:
    x, y, w, h, area = (int(value) for value in stats)
    crop = slice(y, y + h), slice(x, x + w)
    member = (labels[crop] == label).astype(np.uint8)
    logits = np.asarray(fine[crop], np.float32)[member > 0]
    outlines, _ = cv2.findContours(member, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_TC89_L1, offset=(x, y))
    return Region(
        label=POLYP_LABEL,
        score=float(np.mean(1 / (1 + np.exp(-logits)))),
        area_px=area * g.scale_x * g.scale_y / OUTLINE_ZOOM**2,
        outline_px=_outline_in_source(np.asarray(outlines[0])[:, 0, :], g),
        box=_box_in_source(x, y, w, h, g),
    )


def _outline_in_source(outline: NDArray[np.number[Any]], g: Geometry) -> NDArray[np.float32]:
    points = ((outline + 0.5) / OUTLINE_ZOOM - (g.offset_x, g.offset_y)) * (g.scale_x, g.scale_y) - 0.5
    return np.asarray(np.clip(points, 0, (g.source_width - 1, g.source_height - 1)), np.float32)


def _box_in_source(x: int, y: int, w: int, h: int, g: Geometry) -> Box:
    """The source pixels that the fine cells [x, x + w) x [y, y + h) reach, cut to the picture."""
    left = max(0, math.floor((x / OUTLINE_ZOOM - g.offset_x) * g.scale_x))
    top = max(0, math.floor((y / OUTLINE_ZOOM - g.offset_y) * g.scale_y))
    right = min(g.source_width, math.ceil(((x + w) / OUTLINE_ZOOM - g.offset_x) * g.scale_x))
    bottom = min(g.source_height, math.ceil(((y + h) / OUTLINE_ZOOM - g.offset_y) * g.scale_y))
    return Box(left, top, max(1, right - left), max(1, bottom - top))
