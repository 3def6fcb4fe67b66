# SPDX-License-Identifier: Apache-2.0
"""The report as one HTML file that needs nothing else: no script, no font, no network."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path

from edgerun.demo.report import DemoReport, write_atomically
from edgerun.demo.report_plots import distribution_plot, latency_layers, latency_plot, memory_plot, stage_class
from edgerun.demo.report_style import STYLE
from edgerun.demo.report_terminal import counted, share, short_ms, stages_in_order

_WIDE, _HALF, _PHONE = 1000, 484, 330
ANNOTATION_LIMIT_MS = 120.0  # FDA DEN200055 (GI Genius): delay of the marks
_WHY = {
    "superseded": "a newer frame took its place",
    "deadline": "its deadline passed before the engine was free",
    "overload": "the decoder fell behind and skipped to a key frame",
    "undecodable": "its bytes are damaged",
    "failed": "the engine threw, hung or gave non-finite numbers",
    "cancelled": "the stream was ended first",
}


def write_html(report: DemoReport, path: Path) -> None:
    """Atomically, as `write_json`."""
    write_atomically(path, html_page(report))


def html_page(report: DemoReport) -> str:
    sections = (
        _headline(report),
        _notices(report),
        _tiles(report),
        _latency_card(report),
        _pair(_distribution_card(report), _ledger_card(report)),
        _stage_card(report),
        _pair(_memory_card(report), _facts_card("Model", _model_facts(report))),
        _pair(_facts_card("Source", _source_facts(report)), _facts_card("Machine", _machine_facts(report))),
        _footer(report),
    )
    title = escape(f"{report.source.path_name} · edgerun demo")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{title}</title><style>{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(sections)
        + "\n</main></body></html>\n"
    )


def _headline(report: DemoReport) -> str:
    frames, source, model = report.frames, report.source, report.model
    dropped = sum(frames.dropped.values())
    finding = (
        "Every frame answered"
        if frames.ok == frames.entered
        else f"{frames.ok:,} of {frames.entered:,} frames answered"
    )
    if not frames.entered:
        finding = "No frames came in"
    rest = f"{dropped:,} dropped, each with its reason. " if dropped else ""
    facts = (
        f"{source.path_name} · {source.width} × {source.height}, {source.fps:g} fps · {_duration(report.seconds)} · "
    )
    facts += f"{model.name} {model.version}, {model.precision} on {model.engine}"
    return (
        f'<header><p class="eyebrow"><b>edgerun</b> demo report</p><h1>{escape(finding)}</h1>'
        f'<p class="lead">{escape(rest)}{escape(facts)}</p></header>'
    )


def _notices(report: DemoReport) -> str:
    notices = []
    if report.interrupted:
        notices.append("The run was stopped before the end of the source.")
    if report.source.truncated:
        notices.append(f"The source was cut short: {report.source.truncation or 'no reason given'}.")
    if report.frames.open:
        notices.append(f"{counted(report.frames.open, 'frame')} without an answer: the ledger does not balance.")
    if report.worker_restarts:
        notices.append(f"The inference worker was restarted {counted(report.worker_restarts, 'time')}.")
    return "".join(f'<p class="notice">{escape(notice)}</p>' for notice in notices)


def _tiles(report: DemoReport) -> str:
    frames, age, total, video = report.frames, report.annotation_age_ms, report.stages_ms["total"], report.native_video
    tiles = [
        ("Answered", share(frames.ok, frames.entered), "", f"{frames.ok:,} of {frames.entered:,}" + _late(frames.late)),
        ("Annotation age, p99", short_ms(age.p99), "ms", f"p50 {short_ms(age.p50)} · max {short_ms(age.max)}"),
        ("End to end, p99", short_ms(total.p99), "ms", f"p50 {short_ms(total.p50)} · p99.9 {short_ms(total.p999)}"),
        (
            "Added to native video, p99.9",
            short_ms(video.added_ms.p999),
            "ms",
            f"{video.shown:,} of {video.frames:,} frames shown",
        ),
    ]
    if report.memory:
        names = " · ".join(f"{name} {mb:,.0f}" for name, mb in report.memory.peak_rss_mb_by_process.items())
        tiles.append(("Peak memory", f"{report.memory.peak_rss_mb:,.0f}", "MB", names))
    tiles.append(_quality_tile(report))
    return '<section class="tiles">' + "".join(_tile(*tile) for tile in tiles) + "</section>"


def _quality_tile(report: DemoReport) -> tuple[str, str, str, str]:
    model, accuracy = report.model, report.accuracy
    if accuracy is None or accuracy.dice is None:
        return "Model", model.precision, "", f"{model.name} {model.version}"
    alarms = accuracy.false_positive_rate
    detail = f"{model.name}, {model.precision}"
    detail += f" · false positives {100 * alarms:.1f} %" if alarms is not None else ""
    return f"Dice, {accuracy.frames_with_polyp:,} frames", f"{accuracy.dice:.3f}", "", detail


def _tile(label: str, number: str, unit: str, detail: str) -> str:
    suffix = f" <small>{escape(unit)}</small>" if unit and number != "-" else ""
    return (
        f'<div class="tile"><p class="label">{escape(label)}</p><p class="big">{escape(number)}{suffix}</p>'
        f'<p class="detail">{escape(detail)}</p></div>'
    )


def _latency_card(report: DemoReport) -> str:
    series = report.latency_series
    if not series.t_s:
        return _card("Where the time goes", '<p class="soft">No frame was answered or dropped.</p>')
    order = [stage for stage, _ in stages_in_order(report)]
    order += [stage for stage in series.mean_ms if stage not in order]
    legend = [(stage, stage_class(stage)) for stage in latency_layers(series, order)]
    p99 = report.stages_ms["total"].p99 or 1.0
    grouped = series.frames_per_point
    note = f"Mean of each {grouped} frames by stage" if grouped > 1 else "Each frame by stage"
    if series.dropped:
        note += "; below it, when frames were dropped and why"
    legend_html = _legend(legend) + '<span class="key"><i class="rule"></i>slowest frame</span>'
    plots = _by_width(lambda width: latency_plot(series, order, p99, width), _WIDE)
    return _card("Where the time goes", plots, note + ".", legend_html)


def _distribution_card(report: DemoReport) -> str:
    title = "Latency and annotation age"
    rows = [
        ("End to end", "h-total", report.total_distribution, report.stages_ms["total"]),
        ("Annotation age", "h-age", report.annotation_age_distribution, report.annotation_age_ms),
    ]
    if not any(distribution.counts for _, _, distribution, _ in rows):
        return _card(title, '<p class="soft">No frame was answered.</p>')
    limit = ANNOTATION_LIMIT_MS if report.annotation_age_ms.count else None
    note = "Answered frames by latency. Lines: p50 and p99; triangle: the slowest."
    if limit:
        note += f" Dashed: {limit:g} ms, the annotation delay published in FDA DEN200055, for comparison."
    return _card(title, _by_width(lambda width: distribution_plot(rows, limit, width), _HALF), note)


def _ledger_card(report: DemoReport) -> str:
    frames = report.frames
    dropped = sum(frames.dropped.values())
    parts = [("ok", frames.ok), *frames.dropped.items(), ("open", frames.open)]
    whole = max(1, frames.entered)
    bar = "".join(
        f'<i class="d-{name}" style="width:{100 * count / whole:.3f}%" title="{escape(name)} {count:,}"></i>'
        for name, count in parts
        if count
    )
    most = max([*frames.dropped.values(), 1])
    rows = "".join(_ledger_row(name, count, whole, most) for name, count in frames.dropped.items())
    balance = f"{frames.entered:,} in = {frames.ok:,} answered + {dropped:,} dropped"
    balance += f" + {frames.open:,} open" if frames.open else ""
    body = f'<p class="balance">{balance}</p><div class="whole">{bar}</div><ul class="ledger">{rows}</ul>'
    note = (
        f"Of all frames, {share(frames.ok, frames.entered)} were answered{_late(frames.late)}."
        if frames.entered
        else ""
    )
    return _card("What became of each frame", body, note)


def _ledger_row(reason: str, count: int, whole: int, most: int) -> str:
    bar = f'<i class="d-{reason}" style="width:{100 * count / most:.1f}%"></i>' if count else ""
    return (
        f'<li class="{"" if count else "none"}"><b>{escape(reason)}</b><span class="count">{count:,}</span>'
        f'<span class="track">{bar}</span><span class="why">{escape(_WHY[reason])}'
        f"{f' · {share(count, whole)}' if count else ''}</span></li>"
    )


def _stage_card(report: DemoReport) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("p50", "p99", "p99.9", "max", "mean", "frames"))
    rows = []
    for stage, times in stages_in_order(report):
        values = (times.p50, times.p99, times.p999, times.max, times.mean)
        cells = "".join(f"<td>{short_ms(value)}</td>" for value in values) + f"<td>{times.count:,}</td>"
        swatch = "" if stage == "total" else f'<i class="swatch {stage_class(stage)}"></i>'
        rows.append(f'<tr class="{"sum" if stage == "total" else ""}"><th>{swatch}{escape(stage)}</th>{cells}</tr>')
    head = f"<thead><tr><th>stage</th>{head}</tr></thead>"
    table = f'<div class="scroll"><table class="stages">{head}<tbody>{"".join(rows)}</tbody></table></div>'
    return _card(
        "Stage by stage",
        table,
        "Milliseconds of answered frames, overlay and encode of all frames shown, to three significant digits.",
    )


def _memory_card(report: DemoReport) -> str:
    memory = report.memory
    if memory is None or not memory.timeline["t_s"]:
        return _card("Memory", '<p class="soft">Not sampled.</p>')
    t_s, rss_mb = memory.timeline["t_s"], memory.timeline["rss_mb"]
    legend = _legend(
        (f"{name}, peak {memory.peak_rss_mb_by_process[name]:,.0f} MB", f"p{at % 8}") for at, name in enumerate(rss_mb)
    )
    note = "Resident memory by process, stacked; pages that processes share count in each."
    return _card("Memory", _by_width(lambda width: memory_plot(t_s, rss_mb, width), _HALF), note, legend)


def _model_facts(report: DemoReport) -> list[tuple[str, str]]:
    model, accuracy = report.model, report.accuracy
    facts = [
        ("name", f"{model.name} {model.version}"),
        ("precision", model.precision),
        ("engine", model.engine),
        ("graph", model.graph),
        ("SHA-256", model.sha256),
    ]
    if accuracy:
        dice = "-" if accuracy.dice is None else f"{accuracy.dice:.4f}"
        rate = "-" if accuracy.false_positive_rate is None else f"{100 * accuracy.false_positive_rate:.2f} %"
        facts += [
            ("Dice", f"{dice} over {accuracy.frames_with_polyp:,} frames with a polyp"),
            ("false positives", f"{rate} of {accuracy.polyp_free_frames:,} polyp-free frames"),
        ]
    return facts


def _source_facts(report: DemoReport) -> list[tuple[str, str]]:
    source, video = report.source, report.native_video
    return [
        ("name", source.path_name),
        ("kind", source.kind),
        ("picture", f"{source.width} × {source.height}, {source.fps:g} fps"),
        ("frames", "unknown" if source.frames is None else f"{source.frames:,}"),
        ("cut short", (source.truncation or "yes") if source.truncated else "no"),
        ("shown", f"{video.shown:,} of {video.frames:,}, {video.annotated:,} with marks"),
    ]


def _machine_facts(report: DemoReport) -> list[tuple[str, str]]:
    machine = report.machine
    cores = f"{machine.logical_cores or '?'} ({machine.physical_cores or '?'} physical)"
    facts = [
        ("CPU", machine.cpu),
        ("board", machine.board or ""),
        ("cores", f"{machine.usable_cores} usable of {cores}"),
        ("instructions", " ".join((machine.architecture, *machine.instruction_sets))),
        ("memory", f"{machine.memory_mb:,} MB"),
        ("governor", machine.governor or "not visible"),
        ("system", f"{machine.system}, kernel {machine.kernel}"),
        ("Python", machine.python),
        *((name, version or "not installed") for name, version in machine.packages.items()),
    ]
    return [(name, value) for name, value in facts if value]


def _facts_card(title: str, facts: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    return _card(title, f"<dl>{rows}</dl>")


def _footer(report: DemoReport) -> str:
    return (
        "<footer><p><b>For research and education only. Not a medical device.</b> "
        "Not for diagnosis, treatment or any clinical decision.</p>"
        f"<p>edgerun {escape(report.edgerun_version)}. Percentiles are of answered frames (overlay and encode: of "
        "all shown); dropped ones are in the "
        "ledger. The same numbers are in report.json.</p></footer>"
    )


def _card(title: str, body: str, note: str = "", legend: str = "") -> str:
    note_html = f'<p class="soft">{escape(note)}</p>' if note else ""
    legend_html = f'<p class="legend">{legend}</p>' if legend else ""
    return f'<section class="card"><h2>{escape(title)}</h2>{note_html}{legend_html}{body}</section>'


def _pair(left: str, right: str) -> str:
    return f'<div class="pair">{left}{right}</div>'


def _legend(entries: Iterable[tuple[str, str]]) -> str:
    return "".join(f'<span class="key"><i class="swatch {kind}"></i>{escape(name)}</span>' for name, kind in entries)


def _by_width(draw: Callable[[int], str], width: int) -> str:
    """The plot twice, for a desk and for a phone: text that is scaled with its plot can't be read on both."""
    return f'<div class="wide">{draw(width)}</div><div class="phone">{draw(_PHONE)}</div>'


def _late(late: int) -> str:
    return f", {late:,} of them late" if late else ""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)} min {rest:.0f} s" if minutes else f"{rest:.1f} s"
