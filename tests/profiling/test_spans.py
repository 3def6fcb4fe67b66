# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading

import pytest

from edgerun.clock import VirtualClock
from edgerun.profiling.spans import Spans


def test_a_span_holds_its_stage_frame_and_both_ends() -> None:
    clock = VirtualClock(start_ns=5)
    spans = Spans(clock, ("decode", "infer"))
    with spans.span("infer", 7):
        clock.advance(30)
    snapshot = spans.snapshot()
    assert snapshot.records.tolist() == [(5, 35, 1, 7, 0)]
    assert snapshot.durations_ns("infer").tolist() == [30]
    assert snapshot.durations_ns("decode").tolist() == []


def test_spans_nest_and_are_recorded_when_the_block_throws() -> None:
    clock = VirtualClock()
    spans = Spans(clock, ("outer", "inner"))

    def fail() -> None:
        with spans.span("outer", 1):
            clock.advance(1)
            with spans.span("inner", 1):
                clock.advance(2)
                raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert spans.snapshot().records.tolist() == [(0, 3, 0, 1, 0), (1, 3, 1, 1, 0)]


@pytest.mark.parametrize("count", [0, 7, 8, 9, 21])
def test_a_full_ring_overwrites_its_oldest_and_counts_them(count: int) -> None:
    spans = Spans(VirtualClock(), ("infer",), capacity=8)
    for frame_id in range(count):
        spans.record("infer", frame_id, frame_id, frame_id + 1)
    snapshot = spans.snapshot()
    assert snapshot.records["frame_id"].tolist() == list(range(max(0, count - 8), count))
    assert snapshot.overwritten == max(0, count - 8)


def test_a_snapshot_merges_the_threads_by_begin_time() -> None:
    spans = Spans(VirtualClock(), ("infer",))
    both_wrote = threading.Barrier(2)

    def write(first: int) -> None:
        for frame_id in range(first, 10, 2):
            spans.record("infer", frame_id, frame_id * 10, frame_id * 10 + 5)
        both_wrote.wait()

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = spans.snapshot().records
    assert records["frame_id"].tolist() == list(range(10))
    assert sorted(set(records["lane"].tolist())) == [0, 1]


def test_a_new_thread_inherits_the_ring_of_one_that_ended() -> None:
    spans = Spans(VirtualClock(), ("infer",))
    for frame_id in range(5):
        thread = threading.Thread(target=spans.record, args=("infer", frame_id, frame_id, frame_id))
        thread.start()
        thread.join()
    records = spans.snapshot().records
    assert records["frame_id"].tolist() == list(range(5))
    assert set(records["lane"].tolist()) == {0}


def test_a_snapshot_while_another_thread_writes_holds_no_torn_row() -> None:
    spans = Spans(VirtualClock(), ("infer",), capacity=16)
    stop = threading.Event()

    def write() -> None:
        frame_id = 0
        while not stop.is_set():
            frame_id += 1
            spans.record("infer", frame_id, 2 * frame_id, 3 * frame_id)

    writer = threading.Thread(target=write)
    writer.start()
    snapshots = [spans.snapshot().records for _ in range(300)]
    stop.set()
    writer.join()
    for records in snapshots:
        assert (records["begin_ns"] == 2 * records["frame_id"]).all()
        assert (records["end_ns"] == 3 * records["frame_id"]).all()


def test_an_undeclared_stage_is_refused_with_the_repair() -> None:
    spans = Spans(VirtualClock(), ("decode", "infer"))
    with pytest.raises(ValueError, match="'inference' was not declared; expected one of decode, infer"):
        spans.span("inference", 1)
    with pytest.raises(ValueError, match="not declared"):
        spans.record("inference", 1, 0, 1)
    with pytest.raises(ValueError, match="capacity is 0"):
        Spans(VirtualClock(), ("infer",), capacity=0)
