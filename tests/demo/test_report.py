# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import json
import re
import threading
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from edgerun.answer import Answer, DropReason
from edgerun.clock import VirtualClock
from edgerun.demo.report import (
    Accuracy,
    DemoRecorder,
    DemoReport,
    ModelFacts,
    SourceFacts,
    write_atomically,
    write_json,
)
from edgerun.demo.report_html import html_page, write_html
from edgerun.demo.report_plots import linear_ticks, log_ticks
from edgerun.demo.report_terminal import print_report, share, short_ms
from edgerun.profiling.machine import Machine
from edgerun.profiling.memory import MemoryRecord, ProcessTotals

NASTY_NAME = "<script>alert('x')</script>&\"polyp\".mp4"
STAGE_NS = {
    "decode": 2_000_000,
    "queue": 500_000,
    "preprocess": 600_000,
    "infer": 10_000_000,
    "postprocess": 1_100_000,
    "transport": 300_000,
}
MACHINE = Machine(
    "Test CPU", None, "x86_64", 2, 4, 2, ("avx2",), 8000, None, "Linux", "6.1", "CPython 3.11", {"a": None}
)
MODEL = ModelFacts("polyp-seg", "1.0.0", "INT8", "onnxruntime 1.23", "ab" * 32, "int8-cpu-x86.onnx")
VOID_TAGS = {"meta", "br", "line", "rect", "path"}


def memory_record(samples: int = 9) -> MemoryRecord:
    main = np.linspace(150e6, 180e6, samples).astype(np.int64)
    worker = np.full(samples, 400_000_000)
    totals = {"main": ProcessTotals(181_000_000, 900, 1, 50, 5), "worker": ProcessTotals(420_000_000, 800, 0, 40, 4)}
    return MemoryRecord(np.arange(samples) * 250_000_000, {"main": main, "worker": worker}, totals, 580_000_000)


def record_frames(recorder: DemoRecorder, clock: VirtualClock, reasons: list[DropReason | None]) -> None:
    """One frame per reason at 50 fps; None is an answer, its inference 1 µs slower with each frame."""
    for frame_id, reason in enumerate(reasons):
        recorder.frame_in(frame_id, clock.now_ns())
        stage_ns = {**STAGE_NS, "infer": 10_000_000 + 1000 * frame_id}
        age_ns = sum(stage_ns.values())
        recorder.answer(Answer(frame_id, clock.now_ns(), age_ns, stage_ns, None, reason))
        recorder.stage("overlay", 250_000)
        recorder.composited(frame_id, 300_000, age_ns + 9_000_000 if reason is None else None)
        clock.advance(20_000_000)


def report_of(
    reasons: list[DropReason | None],
    *,
    name: str = "clip.mp4",
    memory: MemoryRecord | None = None,
    accuracy: Accuracy | None = None,
    interrupted: bool = False,
) -> DemoReport:
    clock = VirtualClock()
    recorder = DemoRecorder(clock)
    record_frames(recorder, clock, reasons)
    source = SourceFacts("file", name, 1920, 1080, 50.0, len(reasons))
    return recorder.report(
        source, MODEL, MACHINE, memory=memory, accuracy=accuracy, worker_restarts=2, interrupted=interrupted
    )


def full_report() -> DemoReport:
    reasons: list[DropReason | None] = [None] * 90
    reasons[10:13] = [DropReason.SUPERSEDED] * 3
    reasons[40], reasons[41] = DropReason.DEADLINE, DropReason.UNDECODABLE
    return report_of(reasons, memory=memory_record(), accuracy=Accuracy(0.87654, 40, 50, 0.02), interrupted=True)


class Outline(HTMLParser):
    """Fails on a tag that is closed out of order; keeps the visible text and the tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.shown: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID_TAGS or tag == "rect":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.shown.append(data)


def test_the_json_has_every_key_of_the_schema() -> None:
    found = json.loads(json.dumps(full_report().to_json()))
    assert found["schema_version"] == 1
    assert set(found) >= {
        *("frames", "stages_ms", "annotation_age_ms", "native_video", "memory", "model", "machine", "source"),
        *("accuracy", "worker_restarts", "seconds", "edgerun_version", "interrupted"),
    }
    assert found["frames"] == {
        "in": 90,
        "ok": 85,
        "late": 0,
        "dropped": dict(superseded=3, deadline=1, overload=0, undecodable=1, failed=0, cancelled=0),  # noqa: C408
        "open": 0,
    }
    assert set(found["stages_ms"]) == {*STAGE_NS, "overlay", "total"}
    assert set(found["stages_ms"]["infer"]) == {"p50", "p99", "p999", "max", "mean", "count"}
    assert {"p50", "p99", "max"} <= set(found["annotation_age_ms"])
    assert {"frames", "shown", "added_ms"} <= set(found["native_video"])
    assert {"peak_rss_mb", "peak_rss_mb_by_process", "timeline"} <= set(found["memory"])
    assert set(found["model"]) == {"name", "version", "precision", "engine", "sha256", "graph"}
    assert set(found["accuracy"]) == {"dice", "frames_with_polyp", "polyp_free_frames", "false_positive_rate"}
    source_keys = {"kind", "path_name", "width", "height", "fps", "frames", "truncated", "truncation"}
    assert set(found["source"]) == source_keys


def test_the_numbers_are_those_recorded() -> None:
    report = full_report()
    infer = report.stages_ms["infer"]
    assert infer.count == 85
    assert infer.max == pytest.approx(10.089)
    assert infer.p50 == pytest.approx(10.045, rel=0.001)
    total = report.stages_ms["total"]
    assert total.max == pytest.approx((sum(STAGE_NS.values()) + 89_000) / 1e6)
    assert report.annotation_age_ms.max == pytest.approx(9 + (total.max or 0))
    assert report.native_video.shown == 90
    assert report.native_video.annotated == 85
    assert report.seconds == pytest.approx(1.8)
    assert report.memory is not None
    assert report.memory.peak_rss_mb_by_process == {"main": 181.0, "worker": 420.0}
    assert report.memory.page_faults_by_process == {"main": 901, "worker": 800}


def test_a_total_that_is_measured_wins_over_the_age() -> None:
    clock = VirtualClock()
    recorder = DemoRecorder(clock)
    recorder.frame_in(0, 0)
    recorder.answer(Answer(0, 0, 5_000_000, {"infer": 1_000_000, "total": 7_000_000}, "mask", late=True))
    report = recorder.report(SourceFacts("file", "x", 1, 1, 1.0), MODEL, MACHINE)
    assert report.stages_ms["total"].max == pytest.approx(7)
    assert report.frames.late == 1


def test_answers_from_several_threads_are_all_counted() -> None:
    recorder = DemoRecorder(VirtualClock(), plot_rows=64)

    def answer_many(first: int) -> None:
        for frame_id in range(first, 2000, 4):
            reason = DropReason.OVERLOAD if first else None
            recorder.answer(Answer(frame_id, 0, 1000, STAGE_NS, None, reason))

    for frame_id in range(2000):
        recorder.frame_in(frame_id, frame_id)
    threads = [threading.Thread(target=answer_many, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    frames = recorder.report(SourceFacts("file", "x", 1, 1, 1.0), MODEL, MACHINE).frames
    assert (frames.entered, frames.ok, frames.dropped["overload"], frames.open) == (2000, 500, 1500, 0)


def test_frames_without_an_answer_are_open() -> None:
    clock = VirtualClock()
    recorder = DemoRecorder(clock)
    for frame_id in range(3):
        recorder.frame_in(frame_id, 0)
    recorder.answer(Answer(1, 0, 5, {}, "mask"))
    report = recorder.report(SourceFacts("file", "x", 1, 1, 1.0), MODEL, MACHINE, interrupted=True)
    assert report.frames.open == 2
    assert "2 frames without an answer" in html_page(report)


def test_the_points_over_time_are_the_recorded_frames() -> None:
    series = full_report().latency_series
    assert series.frames_per_point == 1
    assert series.t_s[:3] == [0.0, 0.02, 0.04]
    assert series.mean_ms["decode"][0] == pytest.approx(2)
    assert series.mean_ms["decode"][10] is None
    assert series.total_max_ms[12] is None
    assert sum(series.dropped["superseded"]) == 3
    assert set(series.dropped) == {"superseded", "deadline", "undecodable"}


def test_a_long_run_stays_small_in_memory_and_on_the_page() -> None:
    clock = VirtualClock()
    recorder = DemoRecorder(clock, plot_rows=2048)
    stage_ns = {f"stage {at}": 1_000_000 + at for at in range(7)} | STAGE_NS
    reasons = list(DropReason)
    for frame_id in range(9000):
        recorder.frame_in(frame_id, clock.now_ns())
        reason = reasons[frame_id % 6] if frame_id % 7 == 0 else None
        recorder.answer(Answer(frame_id, 0, 20_000_000 + 7919 * frame_id % 10**9, stage_ns, None, reason))
        recorder.composited(frame_id, 1000 + frame_id, 10_000_000 + 9973 * frame_id % 10**8)
        clock.advance(16_666_667)
    report = recorder.report(SourceFacts("file", "x.mp4", 1, 1, 60.0), MODEL, MACHINE, memory=memory_record(2048))
    assert len(report.latency_series.t_s) <= 240
    assert sum(report.frames.dropped.values()) == 1286
    assert len(html_page(report).encode()) < 1_000_000
    assert len(json.dumps(report.to_json())) < 200_000


def test_too_many_stages_are_refused() -> None:
    recorder = DemoRecorder(VirtualClock())
    for at in range(7):  # nine are known from the start
        recorder.stage(f"stage {at}", 1)
    with pytest.raises(ValueError, match="'stage 7' is one too many; expected at most 16"):
        recorder.stage("stage 7", 1)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("/home/ada/clips/a b.mp4", "a b.mp4"),
        ("C:\\clips\\a.mp4", "a.mp4"),
        ("rtsp://user:secret@10.0.0.5:554/stream1?token=abc", "stream1"),
        ("rtsp://user:secret@10.0.0.5:554", "10.0.0.5:554"),
        ("what?.mp4", "what?.mp4"),
        ("camera", "camera"),
    ],
)
def test_of_a_source_only_the_last_part_of_its_name_is_kept(given: str, kept: str) -> None:
    assert SourceFacts("file", given, 1, 1, 1.0).path_name == kept


@pytest.mark.parametrize("reasons", [[], [None], [DropReason.FAILED], [DropReason.FAILED] * 5, [None] * 300])
@pytest.mark.parametrize("with_memory", [False, True])
def test_the_page_is_well_formed_whatever_happened(reasons: list[DropReason | None], with_memory: bool) -> None:
    outline = Outline(html_page(report_of(reasons, memory=memory_record(1) if with_memory else None)))
    text = " ".join(outline.shown)
    assert "Not a medical device" in text
    assert "nan" not in text.lower().split()
    assert "None" not in text


def test_the_page_shows_its_headline_numbers_and_plots() -> None:
    page = html_page(full_report())
    outline = Outline(page)
    text = " ".join(outline.shown)
    for expected in ("85 of 90 frames answered", "94.44 %", "0.877", "580", "INT8", "log scale", "ms per frame"):
        assert expected in text
    assert outline.tags.count("svg") == 6  # three plots, each for a desk and for a phone
    assert "stopped before the end" in text


def test_the_page_escapes_what_it_is_given() -> None:
    page = html_page(report_of([None, None], name=NASTY_NAME))
    outline = Outline(page)
    assert "script" not in outline.tags
    assert NASTY_NAME.rpartition("/")[2] in "".join(outline.shown)


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = html_page(full_report())
    assert re.findall(r"https?:|//|@import|url\(|src=|href=", page) == []
    assert {"script", "link", "img", "iframe"}.isdisjoint(Outline(page).tags)


def test_files_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    report = full_report()
    write_json(report, tmp_path / "report.json")
    write_html(report, tmp_path / "report.html")
    assert json.loads((tmp_path / "report.json").read_text())["frames"]["in"] == 90
    with pytest.raises(TypeError):
        write_atomically(tmp_path / "report.json", 5)  # type: ignore[arg-type]
    assert json.loads((tmp_path / "report.json").read_text())["frames"]["in"] == 90
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]


def printed(report: DemoReport, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_report(report, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_terminal_has_80_columns_and_no_escape_codes_in_a_file() -> None:
    text = printed(full_report())
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "\x1b" not in text
    assert "90 in = 85 ok + 5 dropped (3 superseded, 1 deadline, 1 undecodable)" in " ".join(text.split())
    assert "peak memory" in text
    assert "580 MB (main 181, worker 420)" in text


@pytest.mark.parametrize("reasons", [[], [DropReason.CANCELLED]])
def test_the_terminal_does_without_answers(reasons: list[DropReason | None]) -> None:
    text = printed(report_of(reasons))
    assert f"{len(reasons)} in = 0 ok" in text
    assert "annotation age" not in text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0.0421, "0.042"), (4.312, "4.31"), (31.44, "31.4"), (1204.4, "1,204")]
)
def test_milliseconds_are_short(value: float | None, text: str) -> None:
    assert short_ms(value) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 0, "-"),
        (0, 9, "0 %"),
        (9, 9, "100 %"),
        (999_999, 1_000_000, "99.99 %"),
        (1, 10**6, "0.01 %"),
        (1, 2, "50 %"),
    ],
)
def test_a_share_says_all_or_none_only_when_it_is(part: int, whole: int, text: str) -> None:
    assert share(part, whole) == text


def test_ticks_are_round_and_within_the_range() -> None:
    assert linear_ticks(0, 50, 5) == [0, 10, 20, 30, 40, 50]
    assert linear_ticks(0.3, 1.1, 4) == [0.4, 0.6, 0.8, 1.0]
    assert log_ticks(4, 130) == [5, 10, 20, 50, 100]
    assert log_ticks(12, 60) == [15, 20, 30, 50]
