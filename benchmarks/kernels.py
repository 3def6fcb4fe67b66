# SPDX-License-Identifier: Apache-2.0
"""The kernels against OpenCV's passes for the same work, one thread each, rounds of both interleaved.

`python -m benchmarks.kernels [--json FILE]`. A ratio is the baseline's time over edgerun's, the median over the rounds.
OpenCV writes into buffers that exist, and is given what it needs ready made: colour pictures, masks, chroma masks.
The blend has two baselines, both with ready masks and an opaque contour. "region only, best" touches nothing but the
marked region. "copy + addWeighted" is the usual idiom: mark a copy of the whole picture, then blend the region of both;
the goal is stated against that one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from edgerun.frame import Colour, ColourMatrix, Geometry, PixelFormat, Plane
from edgerun.kernels import _native
from edgerun.kernels.blend import blend
from edgerun.kernels.planes import Window
from edgerun.kernels.resize_pack import Filter, ResizePack
from edgerun.kernels.threshold import threshold
from edgerun.profiling.machine import machine_fingerprint

Call = Callable[[], object]

WIDTH, HEIGHT, SIDE = 1920, 1080, 320
BT601 = Colour(ColourMatrix.BT601)  # what cv2.cvtColor assumes
ROUND_NS = 4_000_000
ALPHA = 96
FILL, CONTOUR = (0, 200, 80), (255, 230, 0)


PACKAGES = "edgerun", "numpy", "opencv-python-headless"


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    goal: float | None
    edgerun: Call
    baseline: str
    opencv: tuple[Call, ...]  # ways to do the baseline; the fastest counts


@dataclass(frozen=True, slots=True)
class Row:
    case: str
    edgerun_ms: float
    baseline: str
    baseline_ms: float
    ratio: float
    goal: float | None


def main() -> None:
    parser = argparse.ArgumentParser(description="edgerun's kernels against OpenCV")
    parser.add_argument("--json", type=Path, help="append a line of JSON per row to this file")
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    rows = [measure(case, options.rounds) for case in cases()]
    show(rows)
    if options.json:
        append(options.json, rows)


def cases() -> Iterator[Case]:
    yield from resize_cases()
    yield from blend_cases()
    yield threshold_case()


def measure(case: Case, rounds: int) -> Row:
    """Median times and the median of the rounds' ratios, against the way of OpenCV's that is fastest."""
    baseline = min(case.opencv, key=lambda call: min(timed(call, 3) for _ in range(5)))
    repeats = [max(1, int(ROUND_NS / timed(call, 5))) for call in (case.edgerun, baseline)]
    pairs = [(timed(case.edgerun, repeats[0]), timed(baseline, repeats[1])) for _ in range(rounds)]
    ours, theirs = (statistics.median(side) / 1e6 for side in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    return Row(case.name, round(ours, 6), case.baseline, round(theirs, 6), round(ratio, 3), case.goal)


def timed(call: Call, repeats: int) -> float:
    """Nanoseconds per call."""
    start = time.perf_counter_ns()
    for _ in range(repeats):
        call()
    return (time.perf_counter_ns() - start) / repeats


def resize_cases() -> Iterator[Case]:
    for filter, name, goal in ((Filter.BILINEAR, "bilinear", 3.0), (Filter.AREA, "area", 5.0)):
        for pixel_format in (PixelFormat.I420, PixelFormat.NV12, PixelFormat.BGR):
            yield resize_case(pixel_format, filter, f"{name} {pixel_format.name} 1080p to {SIDE}", goal)


def resize_case(pixel_format: PixelFormat, filter: Filter, name: str, goal: float) -> Case:
    packed, planes = picture(pixel_format)
    plan = ResizePack(
        pixel_format=pixel_format, width=WIDTH, height=HEIGHT, colour=BT601,
        out_width=SIDE, out_height=SIDE, filter=filter,
    )  # fmt: skip
    out = np.empty((1, 3, SIDE, SIDE), np.uint8)
    return Case(
        name,
        goal if pixel_format is not PixelFormat.BGR else None,
        lambda: plan.write(planes, out),
        "OpenCV uint8 passes",
        opencv_resizes(packed, pixel_format, cv2.INTER_LINEAR if filter is Filter.BILINEAR else cv2.INTER_AREA),
    )


def opencv_resizes(packed: NDArray[np.uint8], pixel_format: PixelFormat, interpolation: int) -> tuple[Call, ...]:
    rgb, small = np.empty((HEIGHT, WIDTH, 3), np.uint8), np.empty((SIDE, SIDE, 3), np.uint8)
    channels = np.empty((3, SIDE, SIDE), np.uint8)
    code = {
        PixelFormat.I420: cv2.COLOR_YUV2RGB_I420,
        PixelFormat.NV12: cv2.COLOR_YUV2RGB_NV12,
        PixelFormat.BGR: cv2.COLOR_BGR2RGB,
    }[pixel_format]

    def convert_and_resize() -> None:
        if pixel_format is PixelFormat.BGR:  # the order is changed where it is cheap: after the resize
            cv2.resize(packed, (SIDE, SIDE), dst=small, interpolation=interpolation)
            cv2.cvtColor(small, code, dst=small)
        else:
            cv2.cvtColor(packed, code, dst=rgb)
            cv2.resize(rgb, (SIDE, SIDE), dst=small, interpolation=interpolation)

    def with_split() -> None:
        convert_and_resize()
        cv2.split(small, list(channels))

    def with_transpose() -> None:
        convert_and_resize()
        np.copyto(channels, small.transpose(2, 0, 1))

    return with_split, with_transpose


def picture(pixel_format: PixelFormat) -> tuple[NDArray[np.uint8], tuple[Plane, ...]]:
    """A smooth, noisy picture in one buffer, as OpenCV wants it, and as planes."""
    rng = np.random.default_rng(1)
    bgr = cv2.resize(rng.integers(0, 256, (9, 16, 3), dtype=np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    bgr = np.clip(bgr + rng.normal(0, 4, bgr.shape), 0, 255).astype(np.uint8)
    if pixel_format is PixelFormat.BGR:
        return bgr, (bgr,)
    i420 = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420), np.uint8)
    y, chroma = i420[:HEIGHT], i420[HEIGHT:].reshape(2, HEIGHT // 2, WIDTH // 2)
    if pixel_format is PixelFormat.I420:
        return i420, (y, chroma[0], chroma[1])
    nv12 = np.concatenate([y, np.ascontiguousarray(chroma.transpose(1, 2, 0)).reshape(HEIGHT // 2, WIDTH)])
    return nv12, (nv12[:HEIGHT], nv12[HEIGHT:])


def blend_cases() -> Iterator[Case]:
    window, marks = ellipse()
    for pixel_format in (PixelFormat.BGR, PixelFormat.I420):
        name = f"blend {pixel_format.name} 1080p {window[2]}x{window[3]}"
        ours = edgerun_blend(pixel_format, marks, window)
        if pixel_format is PixelFormat.BGR:
            copies = opencv_copy_blends(picture(pixel_format)[0], marks, window)
            yield Case(name, 8.0, ours, "OpenCV copy + addWeighted", copies)
        regions = opencv_blends(picture(pixel_format)[1], marks, window)
        yield Case(name, None, ours, "OpenCV region only, best", regions)


def edgerun_blend(pixel_format: PixelFormat, marks: NDArray[np.uint8], window: Window) -> Call:
    planes = picture(pixel_format)[1]
    return lambda: blend(planes, pixel_format, BT601, marks, window, FILL, CONTOUR, ALPHA, 256)


def ellipse() -> tuple[Window, NDArray[np.uint8]]:
    """A lesion-like region about 300 pixels wide with a contour of 3, at even coordinates."""
    marks = np.zeros((212, 312), np.uint8)
    cv2.ellipse(marks, (156, 106), (150, 100), 0, 0, 360, 1, -1)
    cv2.ellipse(marks, (156, 106), (150, 100), 0, 0, 360, 2, 3)
    return (800, 400, 312, 212), marks


def opencv_blends(planes: tuple[Plane, ...], marks: NDArray[np.uint8], window: Window) -> tuple[Call, ...]:
    regions = [region_of(plane, marks, window) for plane in planes]

    def blend_then_masked_copy() -> None:
        for region, temporary, fill, contour, fill_mask, contour_mask in regions:
            cv2.addWeighted(region, 1 - ALPHA / 256, fill, ALPHA / 256, 0, dst=temporary)
            cv2.copyTo(temporary, fill_mask, region)
            cv2.copyTo(contour, contour_mask, region)

    def masked_copy_then_blend() -> None:  # the contour is not opaque here: a little less work
        for region, temporary, fill, contour, fill_mask, contour_mask in regions:
            np.copyto(temporary, region)
            cv2.copyTo(fill, fill_mask, temporary)
            cv2.copyTo(contour, contour_mask, temporary)
            cv2.addWeighted(region, 1 - ALPHA / 256, temporary, ALPHA / 256, 0, dst=region)

    return blend_then_masked_copy, masked_copy_then_blend


def opencv_copy_blends(picture: Plane, marks: NDArray[np.uint8], window: Window) -> tuple[Call, ...]:
    """The usual idiom: mark a copy of the picture, blend the region of both. With a new copy, and with one kept."""
    region, _, fill, contour, fill_mask, contour_mask = region_of(picture, marks, window)
    (x, y, w, h), kept = window, np.empty_like(picture)

    def blend_with(overlay: NDArray[np.uint8]) -> None:
        marked = overlay[y : y + h, x : x + w]
        cv2.copyTo(fill, fill_mask, marked)
        cv2.addWeighted(region, 1 - ALPHA / 256, marked, ALPHA / 256, 0, dst=region)
        cv2.copyTo(contour, contour_mask, region)

    def new_copy() -> None:
        blend_with(picture.copy())

    def copy_into_kept() -> None:
        np.copyto(kept, picture)
        blend_with(kept)

    return new_copy, copy_into_kept


def region_of(plane: Plane, marks: NDArray[np.uint8], window: Window) -> tuple[NDArray[np.uint8], ...]:
    x, y, w, h = (side * plane.shape[0] // HEIGHT for side in window)
    region = plane[y : y + h, x : x + w]
    small = cv2.resize(marks, (w, h), interpolation=cv2.INTER_NEAREST)
    fill, contour = (np.full_like(region, colour[::-1] if plane.ndim == 3 else colour[0]) for colour in (FILL, CONTOUR))
    masks = (np.where(small == value, 255, 0).astype(np.uint8) for value in (1, 2))
    return region, np.empty_like(region), fill, contour, *masks


def threshold_case() -> Case:
    geometry = Geometry(WIDTH, HEIGHT, WIDTH / SIDE, HEIGHT / SIDE)
    columns, rows = np.arange(SIDE), np.arange(SIDE)[:, None]
    distance = ((columns - 160) / 25) ** 2 + ((rows - 140) / 30) ** 2
    logits = (6 * (1 - distance)).clip(-8, 8).astype(np.float32)
    grid = slice(108, 172), slice(132, 188)  # whole cells, so that OpenCV can do the same window
    window = 132 * 6, 108 * 27 // 8 + 1, 56 * 6, 64 * 27 // 8
    out, scaled = np.empty((window[3], window[2]), np.uint8), np.empty((window[3], window[2]), np.float32)

    zero = np.zeros(1, np.float32)

    def opencv() -> None:
        cv2.resize(logits[grid], (window[2], window[3]), dst=scaled, interpolation=cv2.INTER_LINEAR)
        cv2.compare(scaled, zero, cv2.CMP_GT, dst=out)

    return Case(
        f"threshold {window[2]}x{window[3]}",
        None,
        lambda: threshold(logits, geometry, window, out),
        "OpenCV resize, compare",
        (opencv,),
    )


def show(rows: Iterable[Row]) -> None:
    table = Table("kernel", title=f"{machine_fingerprint().cpu}; OpenCV {cv2.__version__}; one thread each")
    table.add_column("edgerun ms", justify="right")
    table.add_column("baseline")
    for heading in ("its ms", "ratio", "goal"):
        table.add_column(heading, justify="right")
    for row in rows:
        goal = "" if row.goal is None else f">= {row.goal:g}"
        table.add_row(
            row.case, f"{row.edgerun_ms:.4f}", row.baseline, f"{row.baseline_ms:.4f}", f"{row.ratio:.2f}", goal
        )
    Console(width=100, highlight=False).print(table)


def append(path: Path, rows: Iterable[Row]) -> None:
    """One JSON object per line: what was measured, when, on what machine and with which versions."""
    machine = asdict(machine_fingerprint(PACKAGES))
    versions = machine.pop("packages") | {"python": machine.pop("python"), "x86_level": _native.x86_level}
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    with path.open("a", encoding="utf-8") as file:
        for row in rows:
            record = {"date": date, **asdict(row), "machine": machine, "versions": versions}
            file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
