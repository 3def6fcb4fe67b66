# SPDX-License-Identifier: Apache-2.0
"""MPEG-2, H.264 and HEVC in Pixel Data (PS3.5 8.2.5 to 8.2.10): one bit stream for all frames."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from edgerun.decode.dicom.attributes import PixelLayout
from edgerun.decode.planes import colour_of
from edgerun.errors import DecodeError
from edgerun.frame import ColourMatrix

_COLOUR_SPACES = {ColourMatrix.BT601: "ITU601", ColourMatrix.BT709: "ITU709"}
_BARE = {"mpeg2video": "mpegvideo", "h264": "h264", "hevc": "hevc"}


class VideoCursor:
    """Frames in order are decoded once; going back begins again at the first. One thread at a time, by its lock."""

    def __init__(self, stream: bytes, codec: str, layout: PixelLayout) -> None:
        self._stream, self._codec, self._layout = stream, codec, layout
        self._lock = threading.Lock()
        self._frames: Iterator[VideoFrame] = iter(())
        self._next = 0
        self._is_begun = False

    def rgb(self, index: int) -> NDArray[np.uint8]:
        """[H, W, 3]. Raises DecodeError when the stream ends before, or is damaged."""
        with self._lock:
            if not self._is_begun or index < self._next:
                self._frames, self._next, self._is_begun = self._decoded(), 0, True
            try:
                while self._next <= index:
                    picture = next(self._frames)
                    self._next += 1
            except StopIteration:
                self._is_begun = False
                raise DecodeError(f"the video ends after {self._next} frames; frame {index} was asked for") from None
            except (av.FFmpegError, ValueError, MemoryError) as error:
                self._is_begun = False
                raise DecodeError(f"FFmpeg can't decode frame {self._next} ({type(error).__name__})") from error
            return self._to_rgb(picture)

    def _decoded(self) -> Iterator[VideoFrame]:
        limit = {"max_pixels": str(4 * self._layout.rows * self._layout.columns + 65536)}
        with av.open(io.BytesIO(self._stream), format=container_format(self._stream, self._codec)) as container:
            assert isinstance(container, InputContainer)
            if not container.streams.video or container.streams.video[0].codec_context.name != self._codec:
                raise DecodeError(f"the pixel data holds no {self._codec} video")
            track = container.streams.video[0]
            track.codec_context.options = limit
            track.thread_count = 1
            yield from container.decode(track)

    def _to_rgb(self, picture: VideoFrame) -> NDArray[np.uint8]:
        if (picture.height, picture.width) != (self._layout.rows, self._layout.columns):
            raise DecodeError(
                f"the video is {picture.width}x{picture.height}; "
                f"the data set says {self._layout.columns}x{self._layout.rows}"
            )
        space = _COLOUR_SPACES[colour_of(picture).matrix]
        return np.asarray(picture.reformat(format="rgb24", src_colorspace=space).to_ndarray(), np.uint8)


def container_format(stream: bytes, codec: str) -> str:
    """FFmpeg's demuxer by the first bytes. Never its own guess: some of its formats open other files."""
    if stream[4:8] == b"ftyp":
        return "mp4"
    if stream[:1] == b"\x47" and stream[188:189] in (b"\x47", b""):
        return "mpegts"
    if stream[:4] == b"\x00\x00\x01\xba":
        return "mpeg"
    return _BARE[codec]
