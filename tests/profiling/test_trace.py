# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgerun.clock import VirtualClock
from edgerun.errors import SinkError
from edgerun.profiling.spans import Spans
from edgerun.profiling.trace import check_trace_path, trace_events, write_trace


def spans() -> Spans:
    """Frame 1 alone, then frames 2 and 3 of two streams, whose inference overlaps."""
    recorded = Spans(VirtualClock(), ("decode", "infer"))
    for frame_id, decode, infer in ((1, (0, 4000), (4000, 9000)), (2, (10000, 12000), (12000, 20000))):
        recorded.record("decode", frame_id, *decode)
        recorded.record("infer", frame_id, *infer)
    recorded.record("infer", 3, 15000, 22000)
    return recorded


def test_a_span_is_a_slice_on_the_track_of_its_stage() -> None:
    events = list(trace_events(spans().snapshot()))
    names = {event["tid"]: event["args"]["name"] for event in events if event.get("name") == "thread_name"}
    slices = [event for event in events if event["ph"] == "X"]
    assert [(names[e["tid"]], e["args"]["frame"], e["ts"], e["dur"]) for e in slices] == [
        ("decode", 1, 0.0, 4.0),
        ("infer", 1, 4.0, 5.0),
        ("decode", 2, 10.0, 2.0),
        ("infer", 2, 12.0, 8.0),
        ("infer 2", 3, 15.0, 7.0),
    ]


def test_arrows_join_the_spans_of_a_frame() -> None:
    flows = [(e["ph"], e["id"], e["ts"]) for e in trace_events(spans().snapshot()) if e.get("cat") == "frame"]
    assert flows == [("s", 1, 0.0), ("t", 1, 4.0), ("s", 2, 10.0), ("t", 2, 12.0), ("t", 3, 15.0)]


def test_the_file_is_json_and_counts_what_was_overwritten(tmp_path: Path) -> None:
    recorded = Spans(VirtualClock(), ("infer",), capacity=2)
    for frame_id in range(5):
        recorded.record("infer", frame_id, frame_id * 10, frame_id * 10 + 5)
    write_trace(recorded.snapshot(), tmp_path / "t.json")
    trace = json.loads((tmp_path / "t.json").read_text())
    assert trace["otherData"] == {"overwritten_spans": 3}
    assert sum(event["ph"] == "X" for event in trace["traceEvents"]) == 2


def test_a_place_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match=r"--trace .*absent/t\.json: can't be written"):
        check_trace_path(tmp_path / "absent" / "t.json")
    with pytest.raises(SinkError, match="Choose another file"):
        write_trace(spans().snapshot(), tmp_path)
