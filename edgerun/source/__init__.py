# SPDX-License-Identifier: Apache-2.0
"""Where pictures come from: a source gives coded access units, numbered and dated, in decoding order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol


@dataclass(frozen=True, slots=True)
class VideoFormat:
    """What a decoder needs before the first packet, and how the pictures are paced."""

    codec: str  # FFmpeg's name: h264, hevc, mpeg1video, mjpeg, mpeg4, ...
    extradata: bytes  # parameter sets that the container holds; empty when they travel in the packets
    width: int = 0  # 0: not known before the first picture
    height: int = 0
    fps: Fraction = Fraction(0)  # nominal: what the container says, or the pace that was asked for; 0: not known
    time_base: Fraction = Fraction(1, 1_000_000_000)  # of the container; packets are already in nanoseconds


@dataclass(frozen=True, slots=True)
class Packet:
    """One access unit: what codes one picture."""

    unit_id: int  # 0, 1, 2, ... in decoding order
    data: bytes
    due_ns: int  # when to hand it over, counted from the start of playing; never decreases
    is_key: bool
    is_corrupt: bool = False  # the demuxer knows that bytes are missing
    show_ns: int | None = None  # when its picture is to be seen, on the scale of due_ns; None: the container has no pts


@dataclass(frozen=True, slots=True)
class Truncation:
    """Where a source breaks off before its proper end."""

    packets: int  # that could be read
    after_ns: int  # when the last of them was due
    at_byte: int
    detail: str

    def __str__(self) -> str:
        where = f"{self.after_ns / 1e9:.2f} s ({self.packets} packets, byte {self.at_byte})"
        return f"breaks off after {where}: {self.detail}"


class Source(Protocol):
    """Iterate once, in one thread. Making it and iterating raise SourceError with what, which and the repair."""

    @property
    def format(self) -> VideoFormat: ...

    @property
    def truncated(self) -> Truncation | None:
        """Known after the last packet; None before it, and for a source that ended as it should."""
        ...

    def __iter__(self) -> Iterator[Packet]: ...

    def close(self) -> None: ...
