# SPDX-License-Identifier: Apache-2.0
"""Always-on spans: which stage worked on which frame, from when to when, in a preallocated ring per thread."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import numpy.typing as npt

from edgerun.clock import Clock

_Write = Callable[[int, int, int, int], None]  # begin_ns, end_ns, stage, frame_id
_FIELDS = 4  # begin_ns, end_ns, stage, frame_id
SPAN_DTYPE = np.dtype(
    [("begin_ns", np.int64), ("end_ns", np.int64), ("stage", np.int64), ("frame_id", np.int64), ("lane", np.int64)]
)


class _Ring:
    """The spans of one thread, the only one that writes it; any thread may copy it."""

    # An array takes an item in a quarter of the time that a NumPy array does.
    __slots__ = ("begun", "cells", "owner", "size", "written")

    def __init__(self, capacity: int) -> None:
        self.cells = array("q", bytes(8 * _FIELDS * capacity))
        self.size = _FIELDS * capacity
        self.begun = 0
        self.written = 0
        self.owner = threading.current_thread()

    def write(self, begin_ns: int, end_ns: int, stage: int, frame_id: int) -> None:
        cells = self.cells
        at = self.begun * _FIELDS % self.size
        self.begun += 1
        cells[at] = begin_ns
        cells[at + 1] = end_ns
        cells[at + 2] = stage
        cells[at + 3] = frame_id
        self.written += 1

    def copy(self) -> tuple[npt.NDArray[np.int64], int]:
        """Rows (begin_ns, end_ns, stage, frame_id), oldest first, and how many were overwritten before them.

        A row that the owner may have been writing during the copy is left out, as a seqlock would.
        """
        capacity = self.size // _FIELDS
        newest = self.written
        rows = np.array(self.cells, dtype=np.int64).reshape(capacity, _FIELDS)
        oldest = max(0, self.begun - capacity)
        return rows[np.arange(oldest, max(oldest, newest)) % capacity], oldest


class Span:
    """One timed block. Recorded when it ends, by an exception too."""

    __slots__ = ("_begin_ns", "_frame_id", "_now_ns", "_stage", "_write")

    def __init__(self, now_ns: Callable[[], int], write: _Write, stage: int, frame_id: int) -> None:
        self._now_ns = now_ns
        self._write = write
        self._stage = stage
        self._frame_id = frame_id

    def __enter__(self) -> None:
        self._begin_ns = self._now_ns()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write(self._begin_ns, self._now_ns(), self._stage, self._frame_id)


@dataclass(frozen=True, slots=True)
class SpanSnapshot:
    """The spans of all threads by begin time: `records` of SPAN_DTYPE; `stage` indexes `stages`.

    `lane` tells threads apart that were alive together; `overwritten` counts the spans the rings no longer hold.
    """

    records: npt.NDArray[np.void]
    stages: tuple[str, ...]
    overwritten: int

    def durations_ns(self, stage: str) -> npt.NDArray[np.int64]:
        of_stage = self.records[self.records["stage"] == self.stages.index(stage)]
        durations: npt.NDArray[np.int64] = of_stage["end_ns"] - of_stage["begin_ns"]
        return durations


class Spans:
    """Records spans of declared `stages`: `with spans.span("infer", frame_id): ...`, from any thread.

    Each thread gets a ring of `capacity` spans at its first one, and inherits that of a thread that has ended:
    memory is bounded by the threads alive at once. A full ring overwrites its oldest.
    """

    def __init__(self, clock: Clock, stages: Sequence[str], capacity: int = 4096) -> None:
        if capacity < 1:
            raise ValueError(f"span capacity is {capacity}; expected at least 1")
        self.now_ns = clock.now_ns
        self.stages = tuple(stages)
        self._stage_index = {stage: index for index, stage in enumerate(self.stages)}
        self._capacity = capacity
        self._rings: list[_Ring] = []
        self._adopting = threading.Lock()
        self._thread = threading.local()

    def span(self, stage: str, frame_id: int) -> Span:
        """A context manager. Raises ValueError for a stage that wasn't declared."""
        try:
            return Span(self.now_ns, self._write(), self._stage_index[stage], frame_id)
        except KeyError:
            raise self._undeclared(stage) from None

    def record(self, stage: str, frame_id: int, begin_ns: int, end_ns: int) -> None:
        """A span measured elsewhere: a wait between two threads, say."""
        try:
            self._write()(begin_ns, end_ns, self._stage_index[stage], frame_id)
        except KeyError:
            raise self._undeclared(stage) from None

    def snapshot(self) -> SpanSnapshot:
        """What the rings hold now. Writers go on meanwhile."""
        with self._adopting:
            copies = [ring.copy() for ring in self._rings]
        records = np.empty(sum(len(rows) for rows, _ in copies), SPAN_DTYPE)
        at = 0
        for lane, (rows, _) in enumerate(copies):
            part = records[at : at + len(rows)]
            for column, name in enumerate(("begin_ns", "end_ns", "stage", "frame_id")):
                part[name] = rows[:, column]
            part["lane"] = lane
            at += len(rows)
        in_order = records[np.argsort(records["begin_ns"], kind="stable")]
        return SpanSnapshot(in_order, self.stages, sum(overwritten for _, overwritten in copies))

    def _write(self) -> _Write:
        """That of the calling thread's ring."""
        try:
            write: _Write = self._thread.write
        except AttributeError:
            write = self._thread.write = self._adopt_ring().write
        return write

    def _adopt_ring(self) -> _Ring:
        with self._adopting:
            for ring in self._rings:
                if not ring.owner.is_alive():
                    ring.owner = threading.current_thread()
                    return ring
            self._rings.append(_Ring(self._capacity))
            return self._rings[-1]

    def _undeclared(self, stage: str) -> ValueError:
        return ValueError(f"stage {stage!r} was not declared; expected one of {', '.join(self.stages)}. Add it there")
