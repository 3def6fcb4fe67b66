# SPDX-License-Identifier: Apache-2.0
"""Drawn pictures as a camera would send them: H.264, low delay, ready before the clock starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction

import av
import numpy as np
from av.packet import Packet as AvPacket
from av.stream import Stream
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from edgerun.encoder import H264_ENCODERS, first_encoder, options_of, pixel_format_of
from edgerun.errors import SourceError
from edgerun.source import Packet, Truncation, VideoFormat

ENCODERS = (*H264_ENCODERS, "mpeg4", "mjpeg")
_CODECS = {"mpeg4": "mpeg4", "mjpeg": "mjpeg"}  # all others give h264
_OPTIONS = {
    "libx264": {"preset": "veryfast", "tune": "zerolatency", "crf": "20", "x264-params": "scenecut=0:open-gop=0"},
    "libopenh264": {"rc_mode": "quality"},
    "mpeg4": {"qmin": "2", "qmax": "3"},
    "mjpeg": {"qmin": "2", "qmax": "3"},
}
_BT709, _LIMITED, _FULL = 1, 1, 2


class CodedSceneSource:
    """Encodes all of `frames` (RGB uint8 [height, width, 3]) when made, then plays them at `fps`.

    Key pictures come once a second, with their parameter sets; there are no B pictures, so unit n is picture n. Width
    and height must be even (4:2:0). `progress` hears how many pictures are coded so far.
    """

    def __init__(
        self,
        frames: Iterable[NDArray[np.uint8]],
        width: int,
        height: int,
        fps: Fraction | float,
        *,
        progress: Callable[[int], None] | None = None,
        encoders: Sequence[str] = ENCODERS,
        threads: int = 2,
    ) -> None:
        if width < 2 or height < 2 or width % 2 or height % 2:
            raise SourceError(f"synthetic scene: {width}x{height}; expected even sides of at least 2.")
        self._fps = Fraction(fps).limit_denominator(1001)
        self.encoder = _chosen(encoders, width, height)
        context = _open_encoder(self.encoder, width, height, self._fps, threads)
        self._packets = tuple(self._coded(context, frames, progress))
        codec = _CODECS.get(self.encoder, "h264")
        self._format = VideoFormat(codec, context.extradata or b"", width, height, self._fps, 1 / self._fps)

    @property
    def format(self) -> VideoFormat:
        return self._format

    @property
    def truncated(self) -> Truncation | None:
        return None

    def __iter__(self) -> Iterator[Packet]:
        return iter(self._packets)

    def __len__(self) -> int:
        return len(self._packets)

    def close(self) -> None:
        """Forget the coded pictures."""
        self._packets = ()

    def _coded(
        self, context: VideoCodecContext, frames: Iterable[NDArray[np.uint8]], progress: Callable[[int], None] | None
    ) -> Iterator[Packet]:
        unit_id = 0
        for index, pixels in enumerate(frames):
            for coded in context.encode(_picture(pixels, index, context)):
                yield self._packet(unit_id, coded)
                unit_id += 1
            if progress is not None:
                progress(index + 1)
        for coded in context.encode(None):
            yield self._packet(unit_id, coded)
            unit_id += 1

    def _packet(self, unit_id: int, coded: AvPacket[Stream]) -> Packet:
        due_ns = int(unit_id * 1_000_000_000 / self._fps)
        return Packet(unit_id, bytes(coded), due_ns, coded.is_keyframe, show_ns=due_ns)


def _chosen(encoders: Sequence[str], width: int, height: int) -> str:
    encoder = first_encoder(encoders, width, height)
    if encoder is None:
        raise SourceError(f"synthetic scene: none of {', '.join(encoders)} opens here. Install PyAV from PyPI.")
    return encoder


def _open_encoder(name: str, width: int, height: int, fps: Fraction, threads: int) -> VideoCodecContext:
    context = av.CodecContext.create(name, "w")
    assert isinstance(context, VideoCodecContext)
    context.width, context.height, context.pix_fmt = width, height, pixel_format_of(name)
    context.framerate, context.time_base = fps, 1 / fps
    context.gop_size, context.max_b_frames = max(1, round(fps)), 0
    context.thread_count = threads
    context.colorspace, context.color_primaries, context.color_trc = _BT709, _BT709, _BT709
    context.color_range = _FULL if name == "mjpeg" else _LIMITED
    context.options = options_of(name, _OPTIONS)
    context.open()
    return context


def _picture(pixels: NDArray[np.uint8], index: int, context: VideoCodecContext) -> VideoFrame:
    expected = (context.height, context.width, 3)
    if pixels.shape != expected or pixels.dtype != np.uint8:
        found = f"{pixels.dtype} {pixels.shape}"
        raise SourceError(f"synthetic scene: picture {index} is {found}; expected RGB uint8 {expected}.")
    picture = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24").reformat(
        format=context.pix_fmt, dst_colorspace=_BT709, dst_color_range=context.color_range
    )
    picture.pts, picture.time_base = index, context.time_base
    return picture
