# SPDX-License-Identifier: Apache-2.0
"""Small videos made for a test. Each picture bears its number, so a test can tell which picture it got."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from edgerun.frame import Frame, Plane

WIDTH, HEIGHT, FPS = 128, 96, Fraction(25)
_BITS = 8
_BLOCK = 16  # one macroblock a bit


def luma(number: int, width: int = WIDTH, height: int = HEIGHT) -> Plane:
    """Noise that moves a little, with `number` in black and white blocks along the top."""
    noise = np.random.default_rng(7).integers(60, 180, (height, width + 2 * 255), np.uint8)
    picture = np.ascontiguousarray(noise[:, 2 * number : 2 * number + width])
    for bit in range(_BITS):
        picture[:_BLOCK, bit * _BLOCK : (bit + 1) * _BLOCK] = 230 if number >> bit & 1 else 20
    return picture


def number_in(pixels: Plane) -> int:
    blocks = [pixels[4:12, bit * _BLOCK + 4 : bit * _BLOCK + 12].mean() for bit in range(_BITS)]
    return sum(1 << bit for bit, mean in enumerate(blocks) if mean > 125)


def picture(number: int, width: int = WIDTH, height: int = HEIGHT, pixel_format: str = "yuv420p") -> VideoFrame:
    grey = VideoFrame.from_ndarray(luma(number, width, height), "gray")
    return grey.reformat(format=pixel_format, src_color_range=2, dst_color_range=1)


def write_video(
    path: Path,
    count: int = 40,
    *,
    codec: str = "libx264",
    b_frames: int = 2,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    gop: int = 12,
    pixel_format: str = "yuv420p",
    with_sound: bool = False,
) -> Path:
    """A video of `count` numbered pictures; `container` goes to the muxer."""
    with av.open(str(path), "w", options=container or {}) as out:
        stream = out.add_stream(codec, rate=FPS)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = size
        stream.pix_fmt = pixel_format
        context = stream.codec_context
        context.gop_size, context.max_b_frames, context.bit_rate, context.thread_count = gop, b_frames, 3_000_000, 1
        context.options = options or {}
        sound = out.add_stream("aac", rate=48_000) if with_sound else None
        for number in range(count):
            frame = picture(number, *size, pixel_format)
            frame.pts, frame.time_base = number, 1 / FPS
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if sound is not None:
            write_silence(out, sound)
    return path


def write_silence(out: av.container.OutputContainer, stream: av.AudioStream, blocks: int = 20) -> None:
    for block in range(blocks):
        silence = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        silence.sample_rate, silence.pts = 48_000, block * 1024
        out.mux(stream.encode(silence))
    out.mux(stream.encode(None))


def cut(path: Path, at_byte: int) -> Path:
    """The first `at_byte` bytes of `path`, in a file beside it."""
    short = path.with_name(f"cut{at_byte}{path.suffix}")
    short.write_bytes(path.read_bytes()[:at_byte])
    return short


def frame_ids(outcomes: Sequence[object]) -> list[int]:
    return [outcome.frame_id for outcome in outcomes if isinstance(outcome, Frame)]


def real_video(name: str) -> Path:
    """A clip of the shared data, or skip."""
    root = Path(os.environ.get("EDGERUN_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    path = root / "video" / name
    if not path.exists():
        pytest.skip(f"{path} is not here; set EDGERUN_TEST_DATA to the folder of the shared data")
    return path
