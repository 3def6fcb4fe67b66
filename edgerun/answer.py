# SPDX-License-Identifier: Apache-2.0
"""The one terminal answer that each frame gets, and the ledger that proves it."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Generic, TypeVar

Result = TypeVar("Result", covariant=True)


class DropReason(enum.Enum):
    """Why a frame has no result."""

    SUPERSEDED = "superseded"  # a newer frame took its place (LATEST)
    DEADLINE = "deadline"  # its deadline passed before the engine was free
    OVERLOAD = "overload"  # the decoder fell behind and skipped to a key frame
    UNDECODABLE = "undecodable"  # its bytes are damaged
    FAILED = "failed"  # the engine threw, hung or gave non-finite numbers
    CANCELLED = "cancelled"  # the client ended the stream


class Policy(enum.Enum):
    """What a stream does with frames it can't answer in time."""

    LATEST = "latest"  # newer supersedes older; late is dropped
    EVERY = "every"  # lossless with back-pressure; late is answered with late = True


@dataclass(frozen=True, slots=True)
class Answer(Generic[Result]):
    """A terminal answer: `result` when OK, `reason` when DROPPED."""

    frame_id: int
    capture_ns: int
    age_ns: int
    stage_ns: Mapping[str, int]
    result: Result | None = None
    reason: DropReason | None = None
    late: bool = False
    no_picture: bool = False  # a coded unit of headers only: not a frame, not in the ledger

    @property
    def ok(self) -> bool:
        return self.reason is None and not self.no_picture


@dataclass(slots=True)
class Ledger:
    """Frames in, and what became of each. Not thread-safe: one owner writes it."""

    frames_in: int = 0
    ok: int = 0
    late: int = 0
    dropped: Counter[DropReason] = field(default_factory=Counter)

    def count(self, reason: DropReason | None, *, late: bool = False) -> None:
        if reason is None:
            self.ok += 1
            self.late += late
        else:
            self.dropped[reason] += 1

    @property
    def open(self) -> int:
        """Frames not answered yet; zero at the end of a stream, or the ledger doesn't balance."""
        return self.frames_in - self.ok - sum(self.dropped.values())

    def by_reason(self) -> Mapping[str, int]:
        return MappingProxyType({reason.value: self.dropped[reason] for reason in DropReason})
