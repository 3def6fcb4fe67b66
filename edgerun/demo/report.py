# SPDX-License-Identifier: Apache-2.0
"""What a demo run measured: a recorder for its loop, and the report that is written, shown and printed from it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgerun import __version__
from edgerun.answer import Answer, DropReason, Ledger
from edgerun.clock import Clock
from edgerun.profiling.histogram import LatencyHistogram
from edgerun.profiling.machine import Machine
from edgerun.profiling.memory import MemoryRecord
from edgerun.profiling.timeline import Timeline

SCHEMA_VERSION = 1
STAGES = ("decode", "queue", "preprocess", "infer", "postprocess", "transport", "overlay", "encode", "total")
_REASONS = tuple(DropReason)
_MAX_STAGES = 16
_MAX_POINTS = 240  # of a plot over time
_BINS_PER_DECADE = 50


@dataclass(frozen=True, slots=True)
class Milliseconds:
    """A distribution in ms, to three significant digits; None where nothing was counted."""

    p50: float | None
    p99: float | None
    p999: float | None
    max: float | None
    mean: float | None
    count: int

    @classmethod
    def of(cls, histogram: LatencyHistogram) -> Milliseconds:
        if not histogram.count:
            return cls(None, None, None, None, None, 0)
        p50, p99, p999 = (_ms(histogram.percentile_ns(percent)) for percent in (50, 99, 99.9))
        return cls(p50, p99, p999, _ms(histogram.max_ns), _ms(histogram.mean_ns), histogram.count)


@dataclass(frozen=True, slots=True)
class FrameCounts:
    """The ledger. `open` frames have no answer: zero, unless the run broke off."""

    entered: int
    ok: int
    late: int
    dropped: Mapping[str, int]
    open: int


@dataclass(frozen=True, slots=True)
class NativeVideo:
    """The lane that never waits: `added_ms` is what compositing added to each frame shown.

    `annotated` frames were shown with a result that was not stale, be it that nothing was found. `recorded` of those
    shown are in overlay.mp4; `recording` says why, when they aren't all.
    """

    frames: int
    shown: int
    annotated: int
    added_ms: Milliseconds
    recorded: int | None = None
    recording: str | None = None


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """In MB of 10^6 bytes. Pages that processes share count in each of them."""

    peak_rss_mb: float
    peak_rss_mb_by_process: Mapping[str, float]
    page_faults_by_process: Mapping[str, int]
    context_switches_by_process: Mapping[str, int]
    timeline: Mapping[str, Any]  # {"t_s": [...], "rss_mb": {process: [...]}}


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The model that answered. `sha256` is of the graph file."""

    name: str
    version: str
    precision: str
    engine: str
    sha256: str
    graph: str


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """Where the frames came from. Of a path or URL only its last part is kept: no folder, no host, no password."""

    kind: str
    path_name: str
    width: int
    height: int
    fps: float
    frames: int | None = None
    truncated: bool = False
    truncation: str | None = None

    def __post_init__(self) -> None:
        name = self.path_name.partition("?")[0] if "://" in self.path_name else self.path_name
        last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
        object.__setattr__(self, "path_name", last.rpartition("@")[2] if "://" in self.path_name else last)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Against ground truth. `dice` is the mean over frames with a polyp; None where there is no such frame."""

    dice: float | None
    frames_with_polyp: int
    polyp_free_frames: int
    false_positive_rate: float | None


@dataclass(frozen=True, slots=True)
class LatencySeries:
    """Consecutive frames in groups, for a plot over time. Lists go with `t_s`; None where a group has no answer."""

    frames_per_point: int
    t_s: list[float] = field(default_factory=list)
    end_s: float = 0.0
    mean_ms: dict[str, list[float | None]] = field(default_factory=dict)
    total_mean_ms: list[float | None] = field(default_factory=list)
    total_max_ms: list[float | None] = field(default_factory=list)
    dropped: dict[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Distribution:
    """Counts between successive edges, which are evenly spaced in the logarithm."""

    edges_ms: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class DemoReport:
    """All that the JSON, the page and the terminal show. Times are of answered frames; drops are in `frames`."""

    frames: FrameCounts
    stages_ms: Mapping[str, Milliseconds]
    annotation_age_ms: Milliseconds
    native_video: NativeVideo
    memory: MemoryUse | None
    model: ModelFacts
    machine: Machine
    source: SourceFacts
    accuracy: Accuracy | None
    worker_restarts: int
    seconds: float
    interrupted: bool
    latency_series: LatencySeries
    total_distribution: Distribution
    annotation_age_distribution: Distribution
    edgerun_version: str = __version__
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`; `frames.entered` is called `in` there."""
        plain = asdict(self)
        frames = plain["frames"]
        plain["frames"] = {"in": frames.pop("entered"), **frames}
        return {"schema_version": plain.pop("schema_version"), **plain}


class DemoRecorder:
    """Counts every frame of a demo run, in memory that is fixed at the start.

    `answer` may be called from any thread. `frame_in` and `composited` may each have a thread of its own, and so may
    `stage` for each stage: these take no lock. Percentiles are of all answered frames, never thinned; the plot over
    time gets coarser in long runs.
    """

    def __init__(self, clock: Clock, plot_rows: int = 65536) -> None:
        self._clock = clock
        self._start_ns = clock.now_ns()
        self._answering = threading.Lock()
        self._entered = 0
        self._without_picture = 0
        self._entered_ns: dict[int, int] = {}  # of the frames that wait for their answer
        self._ledger = Ledger()
        self._stages = {stage: LatencyHistogram() for stage in STAGES}
        self._columns: dict[str, int] = {}
        self._rows = Timeline(3 + _MAX_STAGES, plot_rows)
        self._composited = 0
        self._annotation_age = LatencyHistogram()
        self._added = LatencyHistogram()

    def frame_in(self, frame_id: int, t_ns: int) -> None:
        """A frame came from the source, at `t_ns` of the recorder's clock."""
        self._entered += 1
        self._entered_ns[frame_id] = t_ns

    def answer(self, answer: Answer[object]) -> None:
        """The terminal answer to a frame. Its `total` stage is what `stage_ns` says, or else its age.

        A unit without a picture was no frame: it leaves the ledger again.
        """
        with self._answering:
            if answer.no_picture:
                self._without_picture += 1
                self._entered_ns.pop(answer.frame_id, None)
            else:
                self._count_answer(answer)

    @property
    def frames_in(self) -> int:
        return self._entered - self._without_picture

    def _count_answer(self, answer: Answer[object]) -> None:
        t_ns = self._entered_ns.pop(answer.frame_id, self._clock.now_ns())
        self._ledger.count(answer.reason, late=answer.late)
        total_ns = answer.stage_ns.get("total", answer.age_ns)
        row = [t_ns, 0 if answer.reason is None else 1 + _REASONS.index(answer.reason), total_ns] + [0] * _MAX_STAGES
        for stage, duration_ns in answer.stage_ns.items():
            if stage != "total":
                row[3 + self._column(stage)] = duration_ns
            if answer.ok and stage != "total":
                self._stages[stage].record_ns(duration_ns)
        if answer.ok:
            self._stages["total"].record_ns(total_ns)
        self._rows.append(row)

    def stage(self, stage: str, duration_ns: int) -> None:
        """A stage outside the answers: overlay and encode, which run in the video lane."""
        self._declare(stage)
        self._stages[stage].record_ns(duration_ns)

    def composited(self, frame_id: int, added_ns: int, annotation_age_ns: int | None) -> None:
        """A frame was shown. `annotation_age_ns` is None when the result it shows is stale, or there is none."""
        self._composited += 1
        self._added.record_ns(added_ns)
        if annotation_age_ns is not None:
            self._annotation_age.record_ns(annotation_age_ns)

    def report(
        self,
        source: SourceFacts,
        model: ModelFacts,
        machine: Machine,
        *,
        memory: MemoryRecord | None = None,
        accuracy: Accuracy | None = None,
        worker_restarts: int = 0,
        interrupted: bool = False,
        recorded: int | None = None,
        recording: str | None = None,
    ) -> DemoReport:
        """Call it when the threads that record have ended."""
        total = self._stages["total"]
        return DemoReport(
            frames=self._frame_counts(),
            stages_ms={
                name: Milliseconds.of(each) for name, each in self._stages.items() if each.count or each is total
            },
            annotation_age_ms=Milliseconds.of(self._annotation_age),
            native_video=self._native_video(recorded, recording),
            memory=None if memory is None else _memory_use(memory, self._start_ns),
            model=model,
            machine=machine,
            source=source,
            accuracy=accuracy,
            worker_restarts=worker_restarts,
            seconds=round((self._clock.now_ns() - self._start_ns) / 1e9, 3),
            interrupted=interrupted,
            latency_series=_latency_series(self._rows, self._columns, self._start_ns),
            total_distribution=_distribution(total),
            annotation_age_distribution=_distribution(self._annotation_age),
        )

    def _frame_counts(self) -> FrameCounts:
        self._ledger.frames_in = self.frames_in
        ledger = self._ledger
        return FrameCounts(ledger.frames_in, ledger.ok, ledger.late, dict(ledger.by_reason()), ledger.open)

    def _native_video(self, recorded: int | None, recording: str | None) -> NativeVideo:
        annotated, added = self._annotation_age.count, Milliseconds.of(self._added)
        return NativeVideo(self.frames_in, self._composited, annotated, added, recorded, recording)

    def _column(self, stage: str) -> int:
        """The plot column of a stage, given at first sight."""
        self._declare(stage)
        return self._columns.setdefault(stage, len(self._columns))

    def _declare(self, stage: str) -> None:
        if stage in self._stages:
            return
        if len(self._stages) >= _MAX_STAGES:
            raise ValueError(
                f"stage {stage!r} is one too many; expected at most {_MAX_STAGES}: {', '.join(self._stages)}"
            )
        self._stages[stage] = LatencyHistogram()


def write_json(report: DemoReport, path: Path) -> None:
    """Atomically: a reader sees the old file or the whole new one."""
    write_atomically(path, json.dumps(report.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_atomically(path: Path, text: str) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _ms(ns: float) -> float:
    return round(ns / 1e6, 4)


def _memory_use(record: MemoryRecord, start_ns: int) -> MemoryUse:
    starts = np.arange(0, len(record.at_ns), max(1, -(-len(record.at_ns) // _MAX_POINTS)))

    def peaks_mb(values: npt.NDArray[np.int64]) -> list[float]:
        return [round(float(peak) / 1e6, 1) for peak in np.maximum.reduceat(values, starts)] if len(values) else []

    totals = record.totals.items()
    return MemoryUse(
        peak_rss_mb=round(record.peak_rss_bytes / 1e6, 1),
        peak_rss_mb_by_process={name: round(each.peak_rss_bytes / 1e6, 1) for name, each in totals},
        page_faults_by_process={name: each.minor_faults + each.major_faults for name, each in totals},
        context_switches_by_process={
            name: each.voluntary_switches + each.involuntary_switches for name, each in totals
        },
        timeline={
            "t_s": [round(float(at - start_ns) / 1e9, 3) for at in record.at_ns[starts]],
            "rss_mb": {name: peaks_mb(values) for name, values in record.rss_bytes.items()},
        },
    )


def _latency_series(timeline: Timeline, columns: Mapping[str, int], start_ns: int) -> LatencySeries:
    rows = timeline.rows()
    if not len(rows):
        return LatencySeries(timeline.stride)
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    per_point = -(-len(rows) // _MAX_POINTS)
    starts = np.arange(0, len(rows), per_point)
    answered = rows[:, 1] == 0
    ok = np.add.reduceat(answered.astype(np.int64), starts)

    def of_answered(
        values: npt.NDArray[np.int64], reduce: Callable[..., Any], divisor: npt.NDArray[np.int64]
    ) -> list[float | None]:
        reduced = reduce(np.where(answered, values, 0), starts)
        return [_ms(value / by) if count else None for value, by, count in zip(reduced, divisor, ok, strict=True)]

    seconds = (rows[:, 0] - start_ns) / 1e9
    step = float(np.median(np.diff(seconds))) if len(rows) > 1 else 0.0
    drops = {
        reason.value: np.add.reduceat(rows[:, 1] == 1 + at, starts, dtype=int) for at, reason in enumerate(_REASONS)
    }
    return LatencySeries(
        frames_per_point=per_point * timeline.stride,
        t_s=[round(float(t), 3) for t in seconds[starts]],
        end_s=round(float(seconds[-1]) + step, 3),
        mean_ms={stage: of_answered(rows[:, 3 + at], np.add.reduceat, ok) for stage, at in columns.items()},
        total_mean_ms=of_answered(rows[:, 2], np.add.reduceat, ok),
        total_max_ms=of_answered(rows[:, 2], np.maximum.reduceat, np.ones_like(ok)),
        dropped={reason: counts.tolist() for reason, counts in drops.items() if counts.any()},
    )


def _distribution(histogram: LatencyHistogram) -> Distribution:
    if not histogram.count:
        return Distribution()
    ends = np.log10([max(1000, histogram.min_ns), max(1000, histogram.max_ns)]) * _BINS_PER_DECADE
    edges = 10.0 ** (np.arange(int(ends[0]) - 1, int(ends[1]) + 3) / _BINS_PER_DECADE)
    counts = histogram.rebinned(np.concatenate([[0.0], edges[1:]]))
    return Distribution([_ms(edge) for edge in edges], counts.tolist())
