# SPDX-License-Identifier: Apache-2.0
"""A picture as the camera gave it, where it came from, and who still holds its memory."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.uint8]


class PixelFormat(enum.Enum):
    """8-bit layouts. Planar formats have chroma planes of ceil(W/2) x ceil(H/2)."""

    I420 = "i420"  # Y [H, W], U, V [ceil(H/2), ceil(W/2)]
    NV12 = "nv12"  # Y [H, W], UV interleaved [ceil(H/2), 2 * ceil(W/2)]
    BGR = "bgr"  # [H, W, 3]
    RGB = "rgb"  # [H, W, 3]
    MONO = "mono"  # [H, W]


class ColourMatrix(enum.Enum):
    """Which luma weights turn YCbCr into RGB (ITU-R BT.601 or BT.709)."""

    BT601 = "bt601"
    BT709 = "bt709"


@dataclass(frozen=True, slots=True)
class Colour:
    """How YCbCr is coded. Without signalling, video of 720 lines and more is BT.709, smaller is BT.601."""

    matrix: ColourMatrix = ColourMatrix.BT709
    full_range: bool = False


def plane_shapes(pixel_format: PixelFormat, width: int, height: int) -> tuple[tuple[int, ...], ...]:
    """Shapes of the planes, in rows first. Raises ValueError on an empty picture."""
    if width < 1 or height < 1:
        raise ValueError(f"picture is {width}x{height}; both sides must be at least 1")
    half_w, half_h = (width + 1) // 2, (height + 1) // 2
    match pixel_format:
        case PixelFormat.I420:
            return (height, width), (half_h, half_w), (half_h, half_w)
        case PixelFormat.NV12:
            return (height, width), (half_h, 2 * half_w)
        case PixelFormat.BGR | PixelFormat.RGB:
            return ((height, width, 3),)
        case PixelFormat.MONO:
            return ((height, width),)


@dataclass(frozen=True, slots=True)
class Geometry:
    """Maps model pixels to source pixels: x_source + 0.5 = (x_model + 0.5 - offset_x) * scale_x, same for y."""

    source_width: int
    source_height: int
    scale_x: float
    scale_y: float
    offset_x: float = 0.0
    offset_y: float = 0.0

    def to_source(self, x: float, y: float) -> tuple[float, float]:
        return (x + 0.5 - self.offset_x) * self.scale_x - 0.5, (y + 0.5 - self.offset_y) * self.scale_y - 0.5

    def to_model(self, x: float, y: float) -> tuple[float, float]:
        return (x + 0.5) / self.scale_x - 0.5 + self.offset_x, (y + 0.5) / self.scale_y - 0.5 + self.offset_y


class ReleasedFrameError(RuntimeError):
    """Pixels were asked for after the last holder let go: the memory may hold another picture by now."""


class Frame:
    """A counted lease on the planes of one picture.

    Whoever gets a Frame holds one count. `share()` adds one for a second holder, `release()` gives one back; at
    zero `on_release` runs (in the releasing thread) and `planes` raises. Counts are thread-safe, pixels are not.
    Rows may be padded: planes are views with their own strides, the last axis always contiguous.
    """

    __slots__ = (
        "_holders", "_lock", "_on_release", "_planes",
        "capture_ns", "colour", "frame_id", "height", "pixel_format", "pts", "time_base", "width",
    )  # fmt: skip

    def __init__(
        self,
        planes: tuple[Plane, ...],
        pixel_format: PixelFormat,
        width: int,
        height: int,
        *,
        frame_id: int = 0,
        pts: int | None = None,
        time_base: Fraction = Fraction(1, 1000),
        capture_ns: int = 0,
        colour: Colour = Colour(),
        on_release: Callable[[], None] | None = None,
    ) -> None:
        expected = plane_shapes(pixel_format, width, height)
        found = tuple(p.shape for p in planes)
        if found != expected:
            raise ValueError(f"{pixel_format.name} {width}x{height} has planes {expected}, found {found}")
        self._planes = planes
        self._holders = 1
        self._lock = threading.Lock()
        self._on_release = on_release
        self.pixel_format = pixel_format
        self.width = width
        self.height = height
        self.frame_id = frame_id
        self.pts = pts
        self.time_base = time_base
        self.capture_ns = capture_ns
        self.colour = colour

    @property
    def planes(self) -> tuple[Plane, ...]:
        """Views into the leased memory; valid until this holder's `release()`."""
        if self._holders == 0:
            raise ReleasedFrameError(f"frame {self.frame_id} was released; share() it before handing it on")
        return self._planes

    def share(self) -> Frame:
        """Add a holder. Returns the same frame, for `slot.put(frame.share())`."""
        with self._lock:
            if self._holders == 0:
                raise ReleasedFrameError(f"frame {self.frame_id} was released; it can't be shared any more")
            self._holders += 1
        return self

    def release(self) -> None:
        """Give one count back. Raises ReleasedFrameError when there was none left."""
        with self._lock:
            if self._holders == 0:
                raise ReleasedFrameError(f"frame {self.frame_id} was released twice")
            self._holders -= 1
            last = self._holders == 0
        if last and self._on_release is not None:
            self._on_release()
