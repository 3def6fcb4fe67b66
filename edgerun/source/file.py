# SPDX-License-Identifier: Apache-2.0
"""A video file, played packet by packet."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

import av
import av.container
from av.packet import Packet as AvPacket
from av.video.stream import VideoStream

from edgerun.errors import ConfigError, SourceError
from edgerun.source import Packet, Truncation, VideoFormat
from edgerun.source.container_end import missing_end, mp4_boxes

# Demuxers that read one local file and nothing else: no playlists, no image sequences, no text art.
_DEMUXERS = "mov,mp4,matroska,webm,mpeg,mpegvideo,mpegts,avi,h264,hevc,m4v,mjpeg,ivf,flv,asf,ogg,obu,av1,dv,mxf"
_SOUND_DEMUXERS = "wav,mp3,aac,flac"  # opened only to say that there is no picture
_KNOWN = "MP4, MKV, MPEG, TS, AVI or raw H.264"
_LONGEST_GAP_NS = 10_000_000_000  # a longer jump of the time stamps is a discontinuity, not a pause
_LONGEST_UNDATED_HEAD = 32
_NO_RATE = Fraction(25)


class FileSource:
    """Demuxes one video stream, sound ignored. Iterate once; `truncated` is known afterwards.

    `fps` replaces the file's own pace: packet n is due at n / fps. Not thread-safe.
    """

    def __init__(self, path: Path | str, fps: Fraction | float | None = None) -> None:
        if fps is not None and not (math.isfinite(fps) and fps > 0):
            raise ConfigError(f"fps = {fps}; expected a positive number of frames per second, such as 30")
        self._path = Path(path)
        _check_readable(self._path)
        self._container = _open(self._path)
        try:
            self._stream = _video_stream(self._path, self._container)
            self._timeline = _Timeline(self._stream, None if fps is None else Fraction(fps).limit_denominator(1000000))
        except BaseException:
            self._container.close()
            raise
        self._truncated: Truncation | None = None

    @property
    def format(self) -> VideoFormat:
        codec = self._stream.codec_context
        return VideoFormat(
            codec.codec.canonical_name, codec.extradata or b"", codec.width, codec.height,
            self._timeline.fps, self._timeline.time_base,
        )  # fmt: skip

    @property
    def truncated(self) -> Truncation | None:
        return self._truncated

    def __iter__(self) -> Iterator[Packet]:
        packet, failure = None, None
        try:
            for packet in self._packets():
                yield packet
        except av.FFmpegError as error:
            failure = f"the demuxer stopped: {error.strerror}"
        self._truncated = self._where_it_breaks_off(packet, failure)

    def _packets(self) -> Iterator[Packet]:
        # PyAV ends with an empty packet; a container may hold empty samples, too.
        coded = (packet for packet in self._container.demux(self._stream) if packet.size)
        head = list(_until_dated(coded))
        self._timeline.begin(head)
        for unit_id, packet in enumerate(chain(head, coded)):
            yield self._timeline.packet(unit_id, packet)

    def close(self) -> None:
        self._container.close()

    def _where_it_breaks_off(self, last: Packet | None, failure: str | None) -> Truncation | None:
        count = last.unit_id + 1 if last else 0
        detail = missing_end(self._path, self._container.format.name)
        if detail is not None and self._holds_all_samples(count):
            detail = None  # the box lies about its size, or only sound is missing
        if last is not None and last.is_corrupt:
            detail = detail or "its last packet is incomplete"
        detail = detail or failure
        if detail is None:
            return None
        return Truncation(count, last.due_ns if last else 0, self._path.stat().st_size, detail)

    def _holds_all_samples(self, count: int) -> bool:
        """Whether an index from before the first packet (MP4, not fragmented) has been served in full."""
        return bool(self._stream.frames) and count >= self._stream.frames


class _Timeline:
    """Turns a container's time stamps, which may be absent or jump, into nanoseconds that never go back."""

    def __init__(self, stream: VideoStream, fps: Fraction | None) -> None:
        self.time_base = stream.time_base or Fraction(1, 90000)
        own_fps = _nominal_fps(stream)
        self.fps = fps or own_fps
        self._tick_ns = self.time_base * 1_000_000_000
        self._stretch = own_fps / self.fps
        self._frame_ns = int(1_000_000_000 / own_fps)
        self._origin_ns = 0  # the container's time of our zero
        self._due_ns = -self._frame_ns  # in the container's pace

    def begin(self, head: Sequence[AvPacket[VideoStream]]) -> None:
        """`head` ends with the first packet that has a decoding time; those before it are a frame apart."""
        if head and head[-1].dts is not None:
            self._origin_ns = self._ns(head[-1].dts) - (len(head) - 1) * self._frame_ns

    def packet(self, unit_id: int, coded: AvPacket[VideoStream]) -> Packet:
        self._due_ns = self._next_due(coded.dts)
        due_ns = self._due_ns if self._stretch == 1 else int(unit_id * 1_000_000_000 / self.fps)
        show_ns = None if coded.pts is None else max(0, int((self._ns(coded.pts) - self._origin_ns) * self._stretch))
        return Packet(unit_id, bytes(coded), due_ns, coded.is_keyframe, coded.is_corrupt, show_ns)

    def _next_due(self, dts: int | None) -> int:
        expected_ns = self._due_ns + self._frame_ns
        if dts is None:
            return expected_ns
        due_ns = self._ns(dts) - self._origin_ns
        if max(0, self._due_ns) <= due_ns <= expected_ns + _LONGEST_GAP_NS:
            return due_ns
        self._origin_ns = self._ns(dts) - expected_ns
        return expected_ns

    def _ns(self, ticks: int) -> int:
        return int(ticks * self._tick_ns)


def _until_dated(coded: Iterator[AvPacket[VideoStream]]) -> Iterator[AvPacket[VideoStream]]:
    """Packets up to the first with a decoding time: Matroska has none for the first few."""
    for packet in islice(coded, _LONGEST_UNDATED_HEAD):
        yield packet
        if packet.dts is not None:
            return


def _nominal_fps(stream: VideoStream) -> Fraction:
    """The guess from time stamps first: headers lie (one of our clips says 25, plays at 30)."""
    rates = (stream.guessed_rate, stream.average_rate, stream.base_rate)
    return next((rate for rate in rates if rate and 0 < rate <= 1000), _NO_RATE)


def _check_readable(path: Path) -> None:
    try:
        if path.is_dir():
            raise SourceError(f"{path}: is a folder; expected a video file. Name one file in it.")
        with path.open("rb") as file:
            is_empty = not file.read(1)
    except FileNotFoundError:
        raise SourceError(f"{path}: there is no such file; expected a video file. Check the path.") from None
    except OSError as error:
        raise SourceError(f"{path}: can't be read ({error.strerror}). Grant read permission or copy it.") from None
    except ValueError:
        raise SourceError(f"{str(path)!r}: is not a path (it holds a NUL character). Check the path.") from None
    if is_empty:
        raise SourceError(f"{path}: is empty (0 bytes); expected a video ({_KNOWN}). Export or copy it again.")


def _open(path: Path) -> av.container.InputContainer:
    # "file:" and the white lists keep a name or a playlist from reaching the network or other files.
    options = {"format_whitelist": f"{_DEMUXERS},{_SOUND_DEMUXERS}", "protocol_whitelist": "file"}
    try:
        return av.open(f"file:{path.absolute()}", "r", container_options=options, metadata_errors="replace")
    except (av.FFmpegError, ValueError) as error:
        raise SourceError(f"{path}: {_why_not_opened(path)}") from error


def _why_not_opened(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(4096)
        file.seek(0)
        size = path.stat().st_size
        boxes = mp4_boxes(file, size)
    if boxes.keys() & {b"ftyp", b"mdat", b"moov"} and (b"moov" not in boxes or boxes[b"moov"][1] > size):
        return (
            f"was cut at byte {size}, before the end of its index (the moov box), and can't be played. "
            "Export it again, or repair it from the original recording."
        )
    if _is_text(head):
        return f"found plain text; expected a video ({_KNOWN}). Name the video file."
    return f"found no video that can be read; expected {_KNOWN}. Check the file, or convert it to MP4."


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        text = head[: error.start].decode("utf-8")
        if error.start < len(head) - 4:
            return False
    return all(character.isprintable() or character in "\r\n\t\f\ufeff" for character in text)


def _video_stream(path: Path, container: av.container.InputContainer) -> VideoStream:
    pictures = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not pictures:
        sounds = len(container.streams.audio)
        found = f"{sounds} sound stream{'s' * (sounds != 1)}" if sounds else "no stream"
        raise SourceError(f"{path}: found {found} and no picture; expected a video. Name a file with a picture.")
    stream = pictures[0]
    if stream.codec_context is None:
        raise SourceError(f"{path}: this FFmpeg has no decoder for its video. Convert it to H.264.")
    width, height = stream.codec_context.width, stream.codec_context.height
    if width < 1 or height < 1:
        raise SourceError(f"{path}: its picture is {width}x{height}; both sides must be at least 1. Export it again.")
    for other in container.streams:
        if other.index != stream.index:
            other.discard = av.stream.Discard.all
    return stream
