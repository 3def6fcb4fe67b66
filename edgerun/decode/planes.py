# SPDX-License-Identifier: Apache-2.0
"""FFmpeg's picture as ours: views of the same memory where the layout is one of ours, else one conversion."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import VideoReformatter

from edgerun.frame import Colour, ColourMatrix, Frame, PixelFormat, Plane, plane_shapes

NANOSECOND = Fraction(1, 1_000_000_000)

_LAYOUTS = {
    "yuv420p": PixelFormat.I420,
    "yuvj420p": PixelFormat.I420,  # the same planes in full range
    "nv12": PixelFormat.NV12,
    "bgr24": PixelFormat.BGR,
    "rgb24": PixelFormat.RGB,
    "gray": PixelFormat.MONO,
}
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG
# AVColorSpace (ITU-T H.273): 4 FCC, 5 BT.470BG and 6 SMPTE 170M share 601's weights or nearly; 9 and 10 are BT.2020,
# whose weights lie nearer to 709's.
_MATRICES = dict.fromkeys((4, 5, 6), ColourMatrix.BT601) | dict.fromkeys((1, 7, 9, 10), ColourMatrix.BT709)


def frame_from_av(
    picture: VideoFrame, reformatter: VideoReformatter, *, frame_id: int, capture_ns: int, pts_ns: int | None
) -> Frame:
    """Planes are read-only views that keep `picture` alive: the decoder may still predict from that memory."""
    colour = colour_of(picture)
    if picture.format.name not in _LAYOUTS:
        picture = _converted(picture, reformatter)
    pixel_format = _LAYOUTS[picture.format.name]
    shapes = plane_shapes(pixel_format, picture.width, picture.height)
    planes = tuple(_view(plane, shape) for plane, shape in zip(picture.planes, shapes, strict=True))
    return Frame(
        planes, pixel_format, picture.width, picture.height,
        frame_id=frame_id, pts=pts_ns, time_base=NANOSECOND, capture_ns=capture_ns, colour=colour,
    )  # fmt: skip


def colour_of(picture: VideoFrame) -> Colour:
    """As signalled; without signalling 720 lines and more are BT.709."""
    by_size = ColourMatrix.BT709 if picture.height >= 720 else ColourMatrix.BT601
    is_full_range = picture.color_range == _FULL_RANGE or picture.format.name.startswith("yuvj")
    return Colour(_MATRICES.get(picture.colorspace, by_size), is_full_range)


def _converted(picture: VideoFrame, reformatter: VideoReformatter) -> VideoFrame:
    """To 8 bits and 4:2:0, matrix and range kept; RGB-like to BGR, grey to MONO."""
    name = picture.format.name
    if name.startswith(("gray", "mono", "ya")):
        return reformatter.reformat(picture, format="gray")
    if picture.format.is_rgb or picture.format.has_palette:
        return reformatter.reformat(picture, format="bgr24")
    full = picture.color_range == _FULL_RANGE or name.startswith("yuvj")
    signalled = 2 if full else 1
    return reformatter.reformat(
        picture, format="yuvj420p" if full else "yuv420p", src_color_range=signalled, dst_color_range=signalled
    )


def _view(plane: VideoPlane, shape: tuple[int, ...]) -> Plane:
    """Rows lie `line_size` bytes apart; a negative one means that the picture is stored bottom up."""
    stored = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, abs(plane.line_size))
    rows = (stored if plane.line_size > 0 else stored[::-1])[: shape[0]]
    strides = (rows.strides[0], *((shape[2], 1) if len(shape) == 3 else (1,)))
    return np.lib.stride_tricks.as_strided(rows, shape, strides, writeable=False)
