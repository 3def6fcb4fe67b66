# SPDX-License-Identifier: Apache-2.0
"""A result drawn on a picture. The overlay never lies about its age: it shows it, fades with it, and goes.

Pure functions over the planes of a picture that the caller owns: never over a decoder's own frame, which later
frames are predicted from. Pixels outside the marks keep every bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from edgerun.frame import Frame, PixelFormat, Plane
from edgerun.kernels.blend import MARK_CONTOUR, MARK_FILL, blend
from edgerun.kernels.threshold import threshold
from edgerun.result import Box, Region, Segmentation


@dataclass(frozen=True, slots=True)
class OverlayStyle:
    """Colours are RGB. A result younger than `fresh_ns` is drawn in full, one older than `stale_ns` not at all."""

    fill_rgb: tuple[int, int, int] = (0, 230, 160)
    contour_rgb: tuple[int, int, int] = (0, 255, 180)
    fill_alpha: float = 0.14
    contour_alpha: float = 0.95
    fresh_ns: int = 120_000_000  # the published clinical limit of an annotation's delay (FDA DEN200055)
    stale_ns: int = 400_000_000
    label_names: Mapping[int, str] = field(default_factory=dict)  # of the model package

    def strength(self, age_ns: int) -> float:
        """1 while fresh, falling to 0 when stale."""
        left = (self.stale_ns - age_ns) / (self.stale_ns - self.fresh_ns)
        return min(1.0, max(0.0, left))


def draw_result(
    planes: tuple[Plane, ...], frame: Frame, found: Segmentation, age_ns: int, style: OverlayStyle = OverlayStyle()
) -> None:
    """Blend the regions of `found` into `planes`, a copy of `frame`'s, as strongly as their age allows.

    The result must be of a picture of this size: see `is_of_size`.
    """
    strength = style.strength(age_ns)
    if strength == 0:
        return
    for region in found.regions:
        window = _window(region.box, found)
        marks = marks_of(_mask(found, window), line_px=max(2, frame.height // 270))
        blend(
            planes,
            frame.pixel_format,
            frame.colour,
            marks,
            (window.x, window.y, window.width, window.height),
            fill_rgb=style.fill_rgb,
            contour_rgb=style.contour_rgb,
            alpha_256=round(256 * style.fill_alpha * strength),
            contour_alpha_256=round(256 * style.contour_alpha * strength),
        )
        _draw_score(planes, frame, region, style)


def is_of_size(found: Segmentation, frame: Frame) -> bool:
    """Whether `found` speaks of pictures of this size. After a change of size old results fit no longer."""
    return (found.geometry.source_width, found.geometry.source_height) == (frame.width, frame.height)


def marks_of(mask: NDArray[np.uint8], line_px: int) -> NDArray[np.uint8]:
    """Fill inside the mask, contour on its inner rim of `line_px` pixels; a rim along the picture's edge counts."""
    size = 2 * line_px + 1
    inner = cv2.erode(mask, np.ones((size, size), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return (mask * MARK_CONTOUR - inner * (MARK_CONTOUR - MARK_FILL)).astype(np.uint8)


def status(age_ns: int | None, style: OverlayStyle) -> tuple[str, int]:
    """What the watchdog says, and how brightly."""
    if age_ns is None:
        return "AI: no result yet", 150
    if age_ns >= style.stale_ns:
        return f"AI: no result for {age_ns / 1e9:.1f} s", 255
    return f"AI {age_ns / 1e6:3.0f} ms", 200


def draw_status(planes: tuple[Plane, ...], frame: Frame, age_ns: int | None, style: OverlayStyle) -> None:
    """The watchdog on the picture: how old the last successful inference is, or that there is none."""
    text, level = status(age_ns, style)
    scale = frame.height / 1080
    _label(planes, frame, text, round(28 * scale), frame.height - round(28 * scale), level)


def _mask(found: Segmentation, window: Box) -> NDArray[np.uint8]:
    out = np.empty((window.height, window.width), np.uint8)
    threshold(found.logits, found.geometry, (window.x, window.y, window.width, window.height), out)
    return out


def _window(box: Box, found: Segmentation) -> Box:
    """`box` grown by one grid cell, since interpolation reaches past the cells, cut to the picture."""
    g = found.geometry
    grow_x, grow_y = int(g.scale_x) + 1, int(g.scale_y) + 1
    x, y = max(0, box.x - grow_x), max(0, box.y - grow_y)
    right = min(g.source_width, box.x + box.width + grow_x)
    bottom = min(g.source_height, box.y + box.height + grow_y)
    return Box(x, y, right - x, bottom - y)


def _draw_score(planes: tuple[Plane, ...], frame: Frame, region: Region, style: OverlayStyle) -> None:
    name = style.label_names.get(region.label, str(region.label))
    text = f"{name} {100 * region.score:.0f} %"
    y = region.box.y - frame.height // 90
    if y < frame.height // 24:
        y = region.box.y + region.box.height + frame.height // 24
    _label(planes, frame, text, region.box.x, y, 235)


def _label(planes: tuple[Plane, ...], frame: Frame, text: str, x: int, y: int, level: int) -> None:
    """Text on a darkened plate, on luma alone; `y` is the baseline. Kept inside the picture."""
    scale = max(0.35, frame.height / 1080)
    thickness = max(1, round(2 * scale))
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    pad = max(2, round(8 * scale))
    x = min(max(pad, x), max(pad, frame.width - width - pad))
    y = min(max(height + pad, y), frame.height - below - pad)
    plate = (slice(max(0, y - height - pad), y + below + pad), slice(max(0, x - pad), x + width + pad))
    target = planes[0]
    target[plate] = target[plate] // 4 + 12
    ink: tuple[int, ...] = (level,) if _has_luma(frame.pixel_format) else (level, level, level)
    cv2.putText(target, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, ink, thickness, cv2.LINE_AA)


def _has_luma(pixel_format: PixelFormat) -> bool:
    return pixel_format in (PixelFormat.I420, PixelFormat.NV12, PixelFormat.MONO)
