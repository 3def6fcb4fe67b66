# SPDX-License-Identifier: Apache-2.0
"""Which video encoder there is: PyAV from PyPI brings libx264, a device maker's LGPL FFmpeg may not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from types import MappingProxyType

import av

# Software first: a hardware encoder may be listed and still not open, and its quality differs by device.
H264_ENCODERS = ("libx264", "libopenh264", "h264_nvenc", "h264_qsv", "h264_v4l2m2m")
_PIXEL_FORMATS = MappingProxyType({"mjpeg": "yuvj420p"})
_NO_OPTIONS: Mapping[str, str] = MappingProxyType({})


def pixel_format_of(encoder: str) -> str:
    return _PIXEL_FORMATS.get(encoder, "yuv420p")


def first_encoder(candidates: Iterable[str], width: int, height: int) -> str | None:
    """The first of `candidates` that opens here for this size; None when none does."""
    return next((name for name in candidates if _opens(name, width, height)), None)


def options_of(encoder: str, options: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    return dict(options.get(encoder, _NO_OPTIONS))


def _opens(name: str, width: int, height: int) -> bool:
    if name not in av.codecs_available:
        return False
    try:
        context = av.CodecContext.create(name, "w")
        assert isinstance(context, av.VideoCodecContext)
        context.width, context.height, context.pix_fmt = width, height, pixel_format_of(name)
        context.framerate, context.time_base = Fraction(25), Fraction(1, 25)
        context.thread_count = 1
        context.open()
    except (av.FFmpegError, ValueError):
        return False
    return True
