# SPDX-License-Identifier: Apache-2.0
"""The report in the terminal: 80 columns, and plain text where the output is a file."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgerun.demo.report import STAGES, DemoReport, Milliseconds

TITLE = "Milliseconds per answered frame; overlay and encode: per frame shown"


def print_report(report: DemoReport, console: Console) -> None:
    console.print(_stage_table(report))
    lines = Table.grid(padding=(0, 2))
    lines.add_column(style="bold", no_wrap=True)
    lines.add_column(overflow="fold")
    for label, text in _lines(report):
        lines.add_row(label, Text(text))
    console.print(lines)


def short_ms(value: float | None) -> str:
    """Three significant digits or so, never an exponent: 0.042, 4.31, 31.4, 1,204."""
    if value is None:
        return "-"
    decimals = 3 if value < 0.1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{decimals}f}"


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def share(part: int, whole: int) -> str:
    """A percentage that says 100 only when it is all, and 0 only when it is none."""
    if not whole:
        return "-"
    percent = 100 * part / whole
    if 0 < part < whole:
        percent = min(max(percent, 0.01), 99.99)
    return f"{percent:.2f}".rstrip("0").rstrip(".") + " %"


def stages_in_order(report: DemoReport) -> list[tuple[str, Milliseconds]]:
    """As a frame goes through them, those unknown to STAGES after the others, the total last."""
    known = {stage: index for index, stage in enumerate(STAGES[:-1])}
    order = sorted(report.stages_ms, key=lambda stage: (stage == "total", known.get(stage, len(known))))
    return [(stage, report.stages_ms[stage]) for stage in order]


def _stage_table(report: DemoReport) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        title=TITLE,
        title_justify="left",
        pad_edge=False,
    )
    table.add_column("stage", min_width=14)
    for heading in ("p50", "p99", "p99.9", "max", "frames"):
        table.add_column(heading, justify="right", min_width=9)
    for stage, times in stages_in_order(report):
        if stage == "total":
            table.add_section()
        cells = [short_ms(value) for value in (times.p50, times.p99, times.p999, times.max)]
        table.add_row(Text(stage), *cells, f"{times.count:,}", style="bold" if stage == "total" else "")
    return table


def _lines(report: DemoReport) -> list[tuple[str, str]]:
    age, video, model = report.annotation_age_ms, report.native_video, report.model
    lines = [("frames", _ledger_line(report))]
    if age.count:
        lines.append(
            ("annotation age", f"p50 {short_ms(age.p50)}  p99 {short_ms(age.p99)}  max {short_ms(age.max)} ms")
        )
    if video.added_ms.count:
        added = f"p99.9 {short_ms(video.added_ms.p999)} ms added"
        lines.append(("native video", f"{video.shown:,} of {video.frames:,} frames shown, {added}"))
    if video.recording:
        lines.append(("recording", video.recording))
    if report.memory:
        by_process = ", ".join(f"{name} {mb:,.0f}" for name, mb in report.memory.peak_rss_mb_by_process.items())
        lines.append(("peak memory", f"{report.memory.peak_rss_mb:,.0f} MB ({by_process})"))
    lines.append(("model", f"{model.name} {model.version}, {model.precision}, {model.engine}"))
    if report.accuracy and report.accuracy.dice is not None:
        lines.append(("Dice", f"{report.accuracy.dice:.3f} over {report.accuracy.frames_with_polyp:,} frames"))
    if report.accuracy and report.accuracy.false_positive_rate is not None:
        rate, free = report.accuracy.false_positive_rate, report.accuracy.polyp_free_frames
        lines.append(("false alarms", f"on {100 * rate:.1f} % of {free:,} frames without a polyp"))
    if report.worker_restarts:
        lines.append(("worker", f"restarted: {counted(report.worker_restarts, 'time')}"))
    if report.source.truncated:
        lines.append(("cut short", f"{report.source.path_name} {report.source.truncation or ''}"))
    if report.interrupted:
        lines.append(("interrupted", "stopped before the end of the source"))
    return lines


def _ledger_line(report: DemoReport) -> str:
    frames = report.frames
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in frames.dropped.items() if count)
    line = f"{frames.entered:,} in = {frames.ok:,} ok + {sum(frames.dropped.values()):,} dropped"
    line += f" ({dropped})" if dropped else ""
    line += f" + {frames.open:,} open" if frames.open else ""
    return line + (f"; {frames.late:,} late" if frames.late else "")
