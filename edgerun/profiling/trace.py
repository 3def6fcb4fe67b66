# SPDX-License-Identifier: Apache-2.0
"""Spans as a trace file that Perfetto and chrome://tracing open: a track per stage, an arrow along each frame.

Format: "Trace Event Format", Google. Times are the monotonic clock's, in microseconds; nothing in it names a patient
or a file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgerun.errors import SinkError
from edgerun.profiling.spans import SpanSnapshot

Event = dict[str, Any]
TRACKS_PER_STAGE = 64  # spans of one stage that overlap (of several streams) lie beside each other


def trace_events(snapshot: SpanSnapshot) -> Iterator[Event]:
    """Complete events ("X") on their tracks, and flow events ("s", "t") that join the spans of a frame."""
    yield {"ph": "M", "pid": 1, "name": "process_name", "args": {"name": "edgerun"}}
    free_ns: list[list[int]] = [[] for _ in snapshot.stages]  # when each track of a stage is free again
    seen: set[tuple[int, int]] = set()
    for begin_ns, end_ns, stage, frame_id in _rows(snapshot):
        track = _track(free_ns[stage], begin_ns, end_ns)
        tid = 1 + stage * TRACKS_PER_STAGE + track
        if (stage, track) not in seen:
            seen.add((stage, track))
            yield _track_name(tid, snapshot.stages[stage], track)
        place = {"pid": 1, "tid": tid, "ts": begin_ns / 1e3}
        yield {
            "ph": "X", "name": snapshot.stages[stage], "dur": (end_ns - begin_ns) / 1e3, "args": {"frame": frame_id},
            **place,
        }  # fmt: skip
        yield {"ph": "s" if stage == 0 else "t", "cat": "frame", "name": "frame", "id": frame_id, **place}


def write_trace(snapshot: SpanSnapshot, path: Path) -> None:
    """Raises SinkError when it can't be written."""
    trace = {"traceEvents": list(trace_events(snapshot)), "otherData": {"overwritten_spans": snapshot.overwritten}}
    try:
        path.write_text(json.dumps(trace, separators=(",", ":")), encoding="utf-8")
    except OSError as error:
        raise _unwritable(path, error) from error


def check_trace_path(path: Path) -> None:
    """Raises SinkError unless a file can be written at `path`; leaves it as it was, or empty."""
    try:
        path.open("a", encoding="utf-8").close()
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> SinkError:
    return SinkError(f"--trace {path}: can't be written ({error.strerror}). Choose another file.")


def _rows(snapshot: SpanSnapshot) -> Iterator[tuple[int, int, int, int]]:
    records = snapshot.records
    columns = (records[name].tolist() for name in ("begin_ns", "end_ns", "stage", "frame_id"))
    return zip(*columns, strict=True)


def _track(free_ns: list[int], begin_ns: int, end_ns: int) -> int:
    """The first track that is free at `begin_ns`; the last one takes what no other has room for."""
    for track, free in enumerate(free_ns):
        if free <= begin_ns:
            free_ns[track] = end_ns
            return track
    if len(free_ns) < TRACKS_PER_STAGE:
        free_ns.append(end_ns)
    return len(free_ns) - 1


def _track_name(tid: int, stage: str, track: int) -> Event:
    name = stage if track == 0 else f"{stage} {track + 1}"
    return {"ph": "M", "pid": 1, "tid": tid, "name": "thread_name", "args": {"name": name}}
