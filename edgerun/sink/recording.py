# SPDX-License-Identifier: Apache-2.0
"""A recording: an MP4 that is there whole, or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import av.container
import numpy as np
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.stream import VideoStream

from edgerun.encoder import H264_ENCODERS, first_encoder, options_of, pixel_format_of
from edgerun.errors import SinkError
from edgerun.frame import ColourMatrix, Frame, PixelFormat, Plane

ENCODERS = (*H264_ENCODERS, "mpeg4")
_TIME_BASE = Fraction(1, 60_000)  # exact for 24, 25, 30, 50, 60 and the 1001s; MPEG-4 allows at most 65535
# ultrafast: the live lane shares the device's cores with inference.
_OPTIONS = {
    "libx264": {"preset": "ultrafast", "crf": "23"},
    "libopenh264": {"rc_mode": "quality"},
    "mpeg4": {"qmin": "2", "qmax": "3"},
}
_MATRICES = {ColourMatrix.BT709: 1, ColourMatrix.BT601: 6}  # AVColorSpace
_PACKED = {PixelFormat.BGR: "bgr24", PixelFormat.RGB: "rgb24", PixelFormat.MONO: "gray"}


def check_writable(path: Path) -> None:
    """SinkError unless a file can be made at `path` now. Leaves nothing behind."""
    if path.is_dir():
        raise SinkError(f"{path}: is a folder; expected the name of a file. Name a file in it.")
    if not path.parent.is_dir():
        raise SinkError(f"{path}: its folder {path.parent} is not there; expected a folder. Create it first.")
    try:
        handle, probe = tempfile.mkstemp(prefix=".edgerun-", dir=path.parent)
        os.close(handle)
        os.unlink(probe)
    except OSError as error:
        raise SinkError(
            f"{path}: can't write in {path.parent} ({error.strerror}). Grant permission or choose another folder."
        ) from error


class Recording:
    """Encodes frames into `path` (MP4) as they come; one thread at a time.

    The file is made under a hidden temporary name beside `path` and takes its name in `close`. Leaving the `with`
    block by an exception (Ctrl-C too) discards it, and a recording without frames leaves no file. Odd sizes are padded
    to even ones by repeating the last column or row of luma: 4:2:0 chroma covers it already. `encoder` is what was
    chosen among `encoders`: the first that opens here.
    """

    def __init__(
        self,
        path: Path,
        width: int,
        height: int,
        fps: Fraction | float,
        encoders: Sequence[str] = ENCODERS,
        threads: int = 1,
    ) -> None:
        check_writable(path)
        self.path, self.width, self.height = path, width, height
        self.frames = 0
        self._coded_size = (width + width % 2, height + height % 2)
        self._fps = Fraction(fps).limit_denominator(1001)
        self.encoder = self._choose(encoders)
        self._last_pts = -1
        self._first_ns: int | None = None
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", suffix=".part", dir=path.parent)
        os.fchmod(handle, 0o666 & ~_umask())  # mkstemp gives the file to its owner alone
        os.close(handle)
        self._part = Path(name)
        try:
            self._container = av.open(f"file:{name}", "w", format="mp4", options={"movflags": "+faststart"})
            self._stream = self._add_stream(threads)
        except BaseException:
            self._part.unlink(missing_ok=True)
            raise
        self._is_open = True

    def put(self, frame: Frame) -> None:
        """Encode one frame; the caller keeps its lease. SinkError when it can't be written, on a full disk say."""
        if (frame.width, frame.height) != (self.width, self.height):
            found = f"{frame.width}x{frame.height}"
            raise SinkError(f"{self.path}: frame {frame.frame_id} is {found}; expected {self.width}x{self.height}.")
        picture = self._picture(frame)
        if self.frames == 0:  # the encoder opens with its first frame
            self._stream.codec_context.colorspace = _MATRICES[frame.colour.matrix]
            self._stream.codec_context.color_range = 2 if frame.colour.full_range else 1
        picture.pts, picture.time_base = self._pts(frame), _TIME_BASE
        self._write(picture)
        self.frames += 1

    def close(self) -> None:
        """Finish the file and give it its name. Safe to call again."""
        if not self._is_open:
            return
        if self.frames == 0:
            self.discard()
            return
        self._write(None)
        try:
            self._container.close()
            os.replace(self._part, self.path)
        except (av.FFmpegError, OSError) as error:
            raise self._failed(error) from error
        except BaseException:  # Ctrl-C while the index is moved to the front
            self.discard()
            raise
        self._is_open = False

    def discard(self) -> None:
        """Leave nothing behind. Safe to call again."""
        self._is_open = False
        with suppress(av.FFmpegError, OSError, ValueError):
            self._container.close()
        self._part.unlink(missing_ok=True)

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def _choose(self, encoders: Sequence[str]) -> str:
        chosen = first_encoder(encoders, *self._coded_size)
        if chosen is None:
            size = f"{self._coded_size[0]}x{self._coded_size[1]}"
            raise SinkError(
                f"{self.path}: none of {', '.join(encoders)} opens here for {size}. Install PyAV from PyPI."
            )
        return chosen

    def _add_stream(self, threads: int) -> VideoStream:
        stream = self._container.add_stream(self.encoder, rate=self._fps)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = self._coded_size
        stream.pix_fmt = pixel_format_of(self.encoder)
        stream.time_base = stream.codec_context.time_base = _TIME_BASE
        stream.codec_context.options = options_of(self.encoder, _OPTIONS)
        stream.codec_context.thread_count = threads
        return stream

    def _pts(self, frame: Frame) -> int:
        """The frame's own time from the first one on; never twice the same, whatever the source says."""
        paced_ns = int(self.frames * 1_000_000_000 / self._fps)
        at_ns = paced_ns if frame.pts is None else int(frame.pts * frame.time_base * 1_000_000_000)
        if self._first_ns is None:
            self._first_ns = at_ns
        pts = round((at_ns - self._first_ns) * _TIME_BASE.denominator / 1_000_000_000)
        self._last_pts = max(pts, self._last_pts + 1)
        return self._last_pts

    def _picture(self, frame: Frame) -> VideoFrame:
        if frame.pixel_format in _PACKED:
            return self._converted(frame)
        picture = VideoFrame(*self._coded_size, "yuv420p" if frame.pixel_format is PixelFormat.I420 else "nv12")
        for plane, pixels in zip(picture.planes, frame.planes, strict=True):
            _fill(plane, pixels)
        return picture

    def _converted(self, frame: Frame) -> VideoFrame:
        """Packed pixels in the matrix and range that the frame would have as video."""
        pad = [(0, self._coded_size[1] - self.height), (0, self._coded_size[0] - self.width)]
        pixels = np.pad(frame.planes[0], [*pad, (0, 0)][: frame.planes[0].ndim], "edge")
        return VideoFrame.from_ndarray(pixels, _PACKED[frame.pixel_format]).reformat(
            format="yuv420p",
            dst_colorspace=_MATRICES[frame.colour.matrix] if frame.colour.matrix is ColourMatrix.BT709 else 5,
            dst_color_range=2 if frame.colour.full_range else 1,
        )

    def _write(self, picture: VideoFrame | None) -> None:
        try:
            for packet in self._stream.encode(picture):
                self._container.mux(packet)
        except (av.FFmpegError, OSError) as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> SinkError:
        self.discard()
        why = getattr(error, "strerror", None) or str(error)
        return SinkError(f"{self.path}: can't be written ({why}) and was discarded. Free some space and run again.")


def _fill(plane: VideoPlane, pixels: Plane) -> None:
    """Copy, and repeat the last row and column into an even size."""
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    height, width = pixels.shape
    rows[:height, :width] = pixels
    rows[:height, width : width + 1] = pixels[:, -1:]
    rows[height : height + 1, : width + 1] = rows[height - 1, : width + 1]


def _umask() -> int:
    """There is no way to ask but to set it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
