# SPDX-License-Identifier: Apache-2.0
"""Coded video to frames, one outcome for each unit, whatever the bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import av
from av.codec.context import ThreadType
from av.packet import Packet as AvPacket
from av.stream import Stream
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from edgerun.decode import CodedFormat, CodedUnit, NoPicture, Outcome, Skipped, Undecodable
from edgerun.decode.access_unit import nal_length_bytes, unit_kind
from edgerun.decode.planes import frame_from_av
from edgerun.errors import DecodeError

__all__ = ["CODECS", "MAX_PIXELS", "NoPicture", "Skipped", "Undecodable", "VideoDecoder"]

# A name that comes over the network picks a decoder, so only these: software, widely tested, one picture a unit.
CODECS = frozenset(
    {"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "mjpeg", "vp8", "vp9", "av1", "ffv1", "h263", "theora"}
    | {"dvvideo", "prores", "msmpeg4v2", "msmpeg4v3", "wmv1", "wmv2", "wmv3", "vc1", "png", "huffyuv"}
)
_PREFERRED_DECODERS = {"av1": "libdav1d"}  # FFmpeg's own needs hardware
MAX_PIXELS = 8192 * 4320
# A picture may wait for 16 others (H.264 A.3.1: max_dec_frame_buffering), each of two fields; after that it is lost.
_LONGEST_REORDERING_UNITS = 32


@dataclass(slots=True, eq=False)
class _Ticket:
    """Travels with a unit through FFmpeg and comes back on the picture that the unit coded.

    PyAV finds an opaque object again by its id(), for the whole process: an int that two decoders share (all small
    ones are) would be forgotten when either lets go. So each unit has an object of its own.
    """

    unit: CodedUnit
    number: int
    gop: int  # counts key units
    lost: Undecodable | Skipped  # what it becomes if no picture comes out
    is_open: bool = True


class VideoDecoder:
    """One stream's decoder. Not thread-safe; decoding itself releases the GIL.

    Frames keep `unit_id` as frame_id, `due_ns` as capture_ns and `show_ns` as pts. They come out in display order.
    No frame threads: those add a frame of delay each. `threads` above 1 decode the slices of one picture in parallel.

    A picture predicted from a damaged one is itself wrong, and FFmpeg doesn't mark it. With `withhold_until_key` the
    units after damage are Undecodable until a key unit; without, they come out as the viewer of the video sees them.
    """

    def __init__(
        self,
        format: CodedFormat,
        threads: int = 1,
        max_pixels: int = MAX_PIXELS,
        withhold_until_key: bool = False,
    ) -> None:
        if format.width * format.height > max_pixels:
            raise DecodeError(
                f"{format.codec}: pictures are {format.width}x{format.height}; at most {max_pixels} pixels are "
                "decoded. Raise max_pixels, or send a smaller picture."
            )
        self._codec = format.codec
        self._length_bytes = nal_length_bytes(format.codec, format.extradata)
        self._max_pixels = max_pixels
        self._withholds = withhold_until_key
        self._damage: _Ticket | None = None  # the first in the latest damaged group of pictures
        self._context = _open_context(format, threads, max_pixels)
        self._reformatter = VideoReformatter()
        self._tickets: deque[_Ticket] = deque()  # in the decoder, oldest first
        self._units_in = 0
        self._gop = 0
        self._is_skipping = False
        self._is_resuming = False
        self._owed: list[Outcome] = []

    def decode(self, packet: CodedUnit) -> Iterator[Outcome]:
        """Feed one unit. Damage never raises: it is an outcome, of this unit or of an earlier one."""
        return iter(self._paid() + self._decode(packet))

    def flush(self) -> Iterator[Outcome]:
        """End of stream: what is still inside comes out, or is lost. The decoder can go on with a key unit."""
        pictures, _ = self._receive(None)
        outcomes = self._paid() + self._outcomes(pictures)
        self._context.flush_buffers()
        return iter(outcomes + self._overdue(self._units_in + 1))

    def skip_to_key(self) -> None:
        """Fallen behind: drop units, as Skipped, until a key unit comes. What is inside comes with the next call."""
        if not self._is_skipping:
            self._owed = list(self.flush())
            self._is_skipping = True

    def _decode(self, packet: CodedUnit) -> list[Outcome]:
        kind = unit_kind(self._codec, packet.data, self._length_bytes)
        if not kind.has_picture:
            pictures, _ = self._feed(packet.data, None)
            return [*self._outcomes(pictures), NoPicture(packet.unit_id, "the unit holds only headers")]
        is_key = packet.is_key or kind.is_key
        if self._is_skipping and not is_key:
            return [Skipped(packet.unit_id)]
        # Up to the next key unit, a unit without a picture may have needed one that was skipped.
        self._is_resuming, self._is_skipping = self._is_skipping or (self._is_resuming and not is_key), False
        ticket = self._ticket(packet, is_key)
        pictures, failure = self._feed(packet.data, ticket)
        outcomes = self._outcomes(pictures)
        if kind.is_malformed:
            failure = failure or "no picture begins in the unit"
        if failure is not None and ticket.is_open:
            outcomes.append(self._damaged(ticket, failure))
        return outcomes + self._overdue(self._units_in - _LONGEST_REORDERING_UNITS)

    def _paid(self) -> list[Outcome]:
        owed, self._owed = self._owed, []
        return owed

    def _ticket(self, packet: CodedUnit, is_key: bool) -> _Ticket:
        self._gop += is_key
        lost = Skipped(packet.unit_id) if self._is_resuming and not is_key else None
        ticket = _Ticket(packet, self._units_in, self._gop, lost or Undecodable(packet.unit_id, "no picture came out"))
        self._units_in += 1
        self._tickets.append(ticket)
        return ticket

    def _feed(self, data: bytes, ticket: _Ticket | None) -> tuple[list[VideoFrame], str | None]:
        if not data:
            return [], "the unit is empty"  # FFmpeg would take it for the end of the stream
        coded: AvPacket[Stream] = AvPacket(len(data))
        coded.update(data)  # a copy: PyAV's zero-copy packets lack the padding that FFmpeg's readers overrun into
        coded.opaque = ticket
        return self._receive(coded)

    def _receive(self, coded: AvPacket[Stream] | None) -> tuple[list[VideoFrame], str | None]:
        try:
            return self._context.decode(coded), None
        except (av.FFmpegError, MemoryError) as error:
            return [], getattr(error, "strerror", None) or "out of memory"

    def _outcomes(self, pictures: list[VideoFrame]) -> list[Outcome]:
        """Pictures whose unit has been answered already (a second one of it, or a late one) are let go."""
        outcomes: list[Outcome] = []
        for picture in pictures:
            ticket = picture.opaque
            if isinstance(ticket, _Ticket) and ticket.is_open:
                outcomes.append(self._outcome(picture, ticket))
        return outcomes

    def _outcome(self, picture: VideoFrame, ticket: _Ticket) -> Outcome:
        unit, ticket.is_open = ticket.unit, False
        if picture.is_corrupt or unit.is_corrupt:
            return self._damaged(ticket, "the picture is damaged")
        if self._withholds and self._rests_on_damage(ticket):
            return Undecodable(unit.unit_id, "the picture may rest on a damaged one")
        if picture.width * picture.height > self._max_pixels:
            return Undecodable(unit.unit_id, f"the picture has more than {self._max_pixels} pixels")
        return frame_from_av(
            picture, self._reformatter, frame_id=unit.unit_id, capture_ns=unit.due_ns, pts_ns=unit.show_ns
        )

    def _rests_on_damage(self, ticket: _Ticket) -> bool:
        return self._damage is not None and ticket.gop == self._damage.gop and ticket.number > self._damage.number

    def _damaged(self, ticket: _Ticket, why: str) -> Undecodable:
        ticket.is_open = False
        if self._damage is None or (ticket.gop, -ticket.number) > (self._damage.gop, -self._damage.number):
            self._damage = ticket
        return Undecodable(ticket.unit.unit_id, why)

    def _overdue(self, before_number: int) -> list[Outcome]:
        outcomes: list[Outcome] = []
        while self._tickets and (not self._tickets[0].is_open or self._tickets[0].number < before_number):
            ticket = self._tickets.popleft()
            if ticket.is_open and isinstance(ticket.lost, Undecodable):
                outcomes.append(self._damaged(ticket, ticket.lost.why))
            elif ticket.is_open:
                ticket.is_open = False
                outcomes.append(ticket.lost)
        return outcomes


def _open_context(format: CodedFormat, threads: int, max_pixels: int) -> VideoCodecContext:
    if format.codec not in CODECS:
        raise DecodeError(f"codec {format.codec!r:.40} is unknown; expected one of {', '.join(sorted(CODECS))}.")
    context = _create(format.codec)
    context.options = {"max_pixels": str(max_pixels)}
    context.thread_count = threads
    context.thread_type = ThreadType.SLICE
    context.copy_opaque = True
    if format.extradata:
        context.extradata = format.extradata
    if format.width and format.height:  # some codecs have it only in the container (FFV1)
        context.width, context.height = format.width, format.height
    try:
        context.open()
    except (av.FFmpegError, ValueError, MemoryError) as error:
        raise DecodeError(
            f"{format.codec}: the decoder refuses its {len(format.extradata)} bytes of extradata ({error}). "
            "Send the parameter sets as the container holds them."
        ) from error
    return context


def _create(codec: str) -> VideoCodecContext:
    preferred = _PREFERRED_DECODERS.get(codec, codec)
    try:
        context = av.CodecContext.create(preferred if preferred in av.codecs_available else codec, "r")
    except (av.FFmpegError, ValueError) as error:
        raise DecodeError(
            f"codec {codec}: this FFmpeg has no decoder for it ({error}). Install PyAV from PyPI, or send H.264."
        ) from error
    assert isinstance(context, VideoCodecContext)  # every name in CODECS is video
    return context
