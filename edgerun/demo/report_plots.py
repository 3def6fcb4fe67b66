# SPDX-License-Identifier: Apache-2.0
"""The plots of the report as inline SVG: values in, text out. Colours are CSS classes of the page around them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from edgerun.demo.report import STAGES, Distribution, LatencySeries, Milliseconds
from edgerun.demo.report_terminal import counted, short_ms

_DIGIT_PX = 7.2  # of the 12 px text that labels are set in


@dataclass(slots=True)
class Plot:
    """A plot area within margins, and the axes' scales. `x` and `y` turn values into pixels."""

    label: str
    width: int
    height: int
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    x_is_log: bool = False
    left: int = 44
    right: int = 12
    top: int = 26
    bottom: int = 40
    parts: list[str] = field(default_factory=list)

    def x(self, value: float) -> float:
        low, high = self.x_range
        if self.x_is_log:
            value, low, high = math.log10(max(value, low)), math.log10(low), math.log10(high)
        return round(self.left + (value - low) / (high - low) * (self.width - self.left - self.right), 1)

    def y(self, value: float) -> float:
        low, high = self.y_range
        inside = min(max(value, low), high)
        return round(self.floor - (inside - low) / (high - low) * (self.floor - self.top), 1)

    @property
    def floor(self) -> int:
        return self.height - self.bottom

    def text(self, x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> None:
        self.parts.append(f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>')

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        self.parts.append(f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" class="{kind}"/>')

    def path(self, points: str, kind: str) -> None:
        if points:
            self.parts.append(f'<path d="{points}" class="{kind}"/>')

    def area(self, x: float, y: float, width: float, height: float, kind: str, tip: str) -> None:
        """A rectangle with a tooltip."""
        box = f'x="{x}" y="{y}" width="{max(width, 0.1):.1f}" height="{max(height, 0):.1f}"'
        self.parts.append(f'<rect {box} class="{kind}"><title>{escape(tip)}</title></rect>')

    def svg(self) -> str:
        head = f'<svg viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(self.label)}">'
        return head + "".join(self.parts) + "</svg>"


def latency_plot(series: LatencySeries, order: Sequence[str], p99_ms: float, width: int) -> str:
    """Stacked mean per stage, the slowest frame as a line, and a row of marks for each reason that dropped frames."""
    rows = len(series.dropped)
    edges = [*series.t_s, max(series.end_s, series.t_s[-1] + (1e-3 if len(series.t_s) > 1 else 1.0))]
    top_ms = _latency_top_ms(series, p99_ms)
    label = f"Latency of answered frames over time, up to {short_ms(top_ms)} ms"
    is_wide = width > 600
    drops_px = rows * (18 if is_wide else 30)
    height, left = (340, 96 if rows else 44) if is_wide else (270, 44)
    plot = Plot(label, width, height + drops_px, (edges[0], edges[-1]), (0, top_ms), left=left, bottom=44 + drops_px)
    _y_axis(plot, "ms per frame")
    below = [0.0] * len(series.t_s)
    for stage, means in latency_layers(series, order).items():
        above = [low + value for low, value in zip(below, means, strict=True)]
        plot.path(_band(plot, edges, below, above, series.total_mean_ms), f"fill {stage_class(stage)}")
        below = above
    plot.path(_steps(plot, edges, series.total_max_ms), "slowest")
    _drop_rows(plot, series, edges, is_wide)
    _time_axis(plot, plot.floor + 20 + drops_px)
    _latency_tips(plot, series, edges)
    return plot.svg()


def latency_layers(series: LatencySeries, order: Sequence[str]) -> dict[str, list[float]]:
    """What to stack: the stages in order, then `other`, the part of the total that no stage accounts for."""
    used = {stage: [value or 0.0 for value in series.mean_ms[stage]] for stage in order if stage in series.mean_ms}
    sums = [sum(values) for values in zip(*used.values(), strict=True)] or [0.0] * len(series.t_s)
    other = [max(0.0, (total or 0.0) - known) for total, known in zip(series.total_mean_ms, sums, strict=True)]
    is_worth_showing = sum(other) > 0.01 * sum(total or 0.0 for total in series.total_mean_ms)
    return {**used, **({"other": other} if is_worth_showing else {})}


def distribution_plot(
    rows: Iterable[tuple[str, str, Distribution, Milliseconds]], limit_ms: float | None, width: int
) -> str:
    """A histogram per row (label, class, distribution, summary) on one log axis, with its percentiles.

    `limit_ms`, if any, is drawn across the last row.
    """
    drawn = [row for row in rows if row[2].counts]
    limits = [] if limit_ms is None else [limit_ms]
    lowest = min(*limits, *(row[2].edges_ms[0] for row in drawn), math.inf) / 1.25
    highest = max(*limits, *(row[2].edges_ms[-1] for row in drawn), 0) * 1.25
    row_px, head_px = (184, 66) if width > 400 else (150, 66)
    height = len(drawn) * row_px + 40
    plot = Plot(
        "Distribution on a log axis", width, height, (lowest, highest), (0, 1), x_is_log=True, left=14, right=14
    )
    _log_axis(plot)
    for at, (label, kind, distribution, times) in enumerate(drawn):
        floor = (at + 1) * row_px
        plot.text(plot.left, floor - row_px + 36, label, "strong")
        plot.text(plot.width - plot.right, floor - row_px + 36, counted(times.count, "frame"), "soft", "end")
        _histogram_row(plot, distribution, kind, floor, row_px - head_px - 12)
        _percentile_marks(plot, times, floor, row_px - head_px)
        if limit_ms is not None and at == len(drawn) - 1:
            x = plot.x(limit_ms)
            plot.line(x, floor - row_px + head_px, x, floor, "limit")
            plot.text(x - 6, floor - row_px + head_px + 28, f"{limit_ms:g}", "limit-text", "end")
    return plot.svg()


def memory_plot(t_s: Sequence[float], rss_mb: Mapping[str, Sequence[float]], width: int) -> str:
    """Stacked RSS of each process over time."""
    edges = [*t_s, t_s[-1] + (t_s[-1] - t_s[0]) / max(1, len(t_s) - 1) or t_s[-1] + 1]
    sums = [sum(values) for values in zip(*rss_mb.values(), strict=True)]
    plot = Plot("Memory over time by process", width, 296, (edges[0], edges[-1]), (0, max(*sums, 1.0) * 1.1), left=52)
    _y_axis(plot, "MB resident")
    below = [0.0] * len(t_s)
    for at, values in enumerate(rss_mb.values()):
        above = [low + value for low, value in zip(below, values, strict=True)]
        plot.path(_band(plot, edges, below, above, above), f"fill p{at % 8}")
        below = above
    _time_axis(plot, plot.floor + 16)
    for at, begin in enumerate(t_s):
        parts = ", ".join(f"{name} {values[at]:,.0f}" for name, values in rss_mb.items())
        tip = f"{begin:.1f} s: {sums[at]:,.0f} MB ({parts})"
        plot.area(plot.x(begin), plot.top, plot.x(edges[at + 1]) - plot.x(begin), plot.floor - plot.top, "tip", tip)
    return plot.svg()


def linear_ticks(low: float, high: float, about: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten within the range, some `about` of them."""
    rough = (high - low) / max(1, about)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 9) for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten within the range, and more between when that is short."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if high > 20 * low else (1, 1.5, 2, 3, 5, 7)
    ticks = (factor * 10.0**power for power in powers for factor in factors)
    return [float(f"{tick:.3g}") for tick in ticks if low <= tick <= high]


def _latency_top_ms(series: LatencySeries, p99_ms: float) -> float:
    """Room for the slowest frame, unless that would flatten the rest: then it is clipped, and marked so."""
    slowest = max((value for value in series.total_max_ms if value is not None), default=1.0)
    usual = max((value for value in series.total_mean_ms if value is not None), default=1.0)
    return max(min(slowest, 2.5 * max(p99_ms, usual)) * 1.08, 1e-3)


def _band(
    plot: Plot,
    edges: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    present: Sequence[float | None],
) -> str:
    """A filled step area, in one piece for each run of points that have a value."""
    pieces = []
    for first, last in _runs(present):
        forth = [f"{plot.x(edges[at + side])},{plot.y(high[at])}" for at in range(first, last) for side in (0, 1)]
        back = [
            f"{plot.x(edges[at + side])},{plot.y(low[at])}" for at in reversed(range(first, last)) for side in (1, 0)
        ]
        pieces.append("M" + "L".join(forth + back) + "Z")
    return "".join(pieces)


def _steps(plot: Plot, edges: Sequence[float], values: Sequence[float | None]) -> str:
    pieces = []
    for first, last in _runs(values):
        points = [
            f"{plot.x(edges[at + side])},{plot.y(values[at] or 0)}" for at in range(first, last) for side in (0, 1)
        ]
        pieces.append("M" + "L".join(points))
    return "".join(pieces)


def _runs(values: Sequence[float | None]) -> list[tuple[int, int]]:
    """The (first, end) of each stretch without None."""
    runs, first = [], None
    for at, value in enumerate([*values, None]):
        if value is not None and first is None:
            first = at
        elif value is None and first is not None:
            runs.append((first, at))
            first = None
    return runs


def _drop_rows(plot: Plot, series: LatencySeries, edges: Sequence[float], is_wide: bool) -> None:
    """Below the plot: a row of marks for each reason, its name beside it, or above it on a phone."""
    for row, (reason, counts) in enumerate(series.dropped.items()):
        y = plot.floor + 8 + row * 18 if is_wide else plot.floor + 19 + row * 30
        plot.line(plot.left, y + 6.5, plot.width - plot.right, y + 6.5, "grid")
        for at, count in enumerate(counts):
            if count:
                width = max(2.5, plot.x(edges[at + 1]) - plot.x(edges[at]) - 0.5)
                plot.area(plot.x(edges[at]), y, width, 13, f"d-{reason}", f"{edges[at]:.1f} s: {count} {reason}")
        if is_wide:
            plot.text(plot.left - 8, y + 10.5, reason, "soft", "end")
        else:
            plot.text(plot.left, y - 3, reason, "soft")


def _latency_tips(plot: Plot, series: LatencySeries, edges: Sequence[float]) -> None:
    """Unseen columns with a tooltip each; a triangle where the slowest frame is above the plot."""
    for at, begin in enumerate(series.t_s):
        x, mean, slowest = plot.x(begin), series.total_mean_ms[at], series.total_max_ms[at]
        width = plot.x(edges[at + 1]) - x
        stages = ", ".join(f"{name} {short_ms(values[at])}" for name, values in series.mean_ms.items())
        tip = f"{begin:.1f} s: mean {short_ms(mean)} ms, slowest {short_ms(slowest)} ms ({stages})"
        if slowest is not None and slowest > plot.y_range[1]:
            middle = x + width / 2
            plot.path(f"M{middle - 4:.1f},{plot.top + 8}h8l-4,-7Z", "clipped")
        plot.area(
            x, plot.top, width, plot.floor - plot.top, "tip", tip if mean is not None else f"{begin:.1f} s: no answer"
        )


def _histogram_row(plot: Plot, distribution: Distribution, kind: str, floor: int, height: int) -> None:
    most = max(distribution.counts)
    for at, count in enumerate(distribution.counts):
        if count:
            low, high = distribution.edges_ms[at], distribution.edges_ms[at + 1]
            # A single frame among thousands must still be seen.
            bar = max(1.5, count / most * height)
            tip = f"{short_ms(low)} to {short_ms(high)} ms: {counted(count, 'frame')}"
            plot.area(plot.x(low), floor - bar, plot.x(high) - plot.x(low) - 0.6, bar, kind, tip)
    plot.line(plot.left, floor, plot.width - plot.right, floor, "axis")


def _percentile_marks(plot: Plot, times: Milliseconds, floor: int, height: int) -> None:
    """Lines at p50 and p99, a triangle below the maximum; each with its value, where that collides with no other."""
    if times.p50 is None or times.p99 is None or times.max is None:
        return
    y = floor - height
    taken: list[tuple[float, float]] = []
    for name, value, shift in (("p99", times.p99, 0.0), ("p50", times.p50, -1.0), ("max", times.max, -0.5)):
        x, text = plot.x(value), f"{name} {short_ms(value)}"
        width = len(text) * _DIGIT_PX
        begin = min(max(x + shift * width + 4 * (1 + 2 * shift), 0), plot.width - width)
        if name == "max":
            plot.path(f"M{x - 4:.1f},{floor + 8}h8l-4,-7Z", "clipped")
        else:
            plot.line(x, y - 10, x, floor, "mark")
        if all(begin + width + 8 < low or begin > high + 8 for low, high in taken):
            plot.text(round(begin, 1), y, text, "number")
            taken.append((begin, begin + width))
        elif name == "max" and times.max > 1.2 * times.p99:
            plot.text(round(begin, 1), floor - 10, text, "number")


def _y_axis(plot: Plot, unit: str) -> None:
    for tick in linear_ticks(*plot.y_range, 5):
        y = plot.y(tick)
        plot.line(plot.left, y, plot.width - plot.right, y, "axis" if tick == 0 else "grid")
        plot.text(plot.left - 8, y + 4, f"{tick:,g}" if tick < 1e5 else f"{tick:,.0f}", "soft", "end")
    plot.text(0, 12, unit, "soft")


def _time_axis(plot: Plot, y: float) -> None:
    low, high = plot.x_range
    in_minutes = high - low > 300
    scale = 60 if in_minutes else 1
    for tick in linear_ticks(low / scale, high / scale, 8 if plot.width > 600 else 4):
        plot.text(plot.x(tick * scale), y, f"{tick:g}", "soft", "middle")
    plot.text(plot.width - plot.right, y + 18, f"time since the start, {'min' if in_minutes else 's'}", "soft", "end")


def _log_axis(plot: Plot) -> None:
    right = -math.inf
    for tick in log_ticks(*plot.x_range):
        x, text = plot.x(tick), f"{tick:,g}"
        plot.line(x, 24, x, plot.floor, "grid")
        if x - right > len(text) * _DIGIT_PX + 6:
            plot.text(x, plot.floor + 16, text, "soft", "middle")
            right = x
    plot.text(plot.width - plot.right, plot.floor + 34, "ms, log scale", "soft", "end")


def stage_class(stage: str) -> str:
    """The CSS class of a stage's colour; stages that the style sheet doesn't know share the neutral one."""
    return f"s-{stage}" if stage in STAGES else "s-other"
