# SPDX-License-Identifier: Apache-2.0
"""From coded units to frames. Each unit that goes in comes out as exactly one of the outcomes below."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from edgerun.frame import Frame


class CodedFormat(Protocol):
    """What a decoder is made from (`edgerun.source.VideoFormat` is one). Sizes may be 0: unknown until decoded."""

    @property
    def codec(self) -> str: ...
    @property
    def extradata(self) -> bytes: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...


class CodedUnit(Protocol):
    """What a decoder is fed with (`edgerun.source.Packet` is one)."""

    @property
    def unit_id(self) -> int: ...
    @property
    def data(self) -> bytes: ...
    @property
    def due_ns(self) -> int: ...
    @property
    def is_key(self) -> bool: ...
    @property
    def is_corrupt(self) -> bool: ...
    @property
    def show_ns(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Undecodable:
    """The unit was damaged, or rests on what was: no picture that could be trusted came out (UNDECODABLE)."""

    unit_id: int
    why: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class NoPicture(Undecodable):
    """The unit held only headers (parameter sets, sequence end). They were used; nothing was lost.

    A kind of Undecodable, so that a ledger which counts each unit balances without knowing of it.
    """


@dataclass(frozen=True, slots=True)
class Skipped:
    """Dropped on the way to the next key unit because the decoder fell behind (OVERLOAD)."""

    unit_id: int


Outcome: TypeAlias = Frame | Undecodable | Skipped
