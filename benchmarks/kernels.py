# SPDX-License-Identifier: Apache-2.0
"""The kernels against OpenCV's passes for the same work, one thread each, rounds of both interleaved.

`python -m benchmarks.kernels [--json FILE]`. A ratio is OpenCV's time over edgerun's, the median over the rounds.
OpenCV writes into buffers that exist, and is given what it needs ready made: colour pictures, masks, chroma masks.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
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

Call = Callable[[], object]

WIDTH, HEIGHT, SIDE = 1920, 1080, 320
BT601 = Colour(ColourMatrix.BT601)  # what cv2.cvtColor assumes
ROUND_NS = 4_000_000
ALPHA = 96
FILL, CONTOUR = (0, 200, 80), (255, 230, 0)


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    goal: float | None
    edgerun: Call
    opencv: tuple[Call, ...]  # ways to do the same; the fastest counts


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    edgerun_ms: float
    opencv_ms: float
    ratio: float
    goal: float | None


def main() -> None:
    parser = argparse.ArgumentParser(description="edgerun's kernels against OpenCV")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    rows = [measure(case, options.rounds) for case in cases()]
    show(rows)
    if options.json:
        options.json.write_text(
            json.dumps({"machine": machine(), "rows": [asdict(row) for row in rows]}, indent=1) + "\n"
        )


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
    return Row(case.name, ours, theirs, statistics.median(b / a for a, b in pairs), case.goal)


def timed(call: Call, repeats: int) -> float:
    """Nanoseconds per call."""
    start = time.perf_counter_ns()
    for _ in range(repeats):
        call()
    return (time.perf_counter_ns() - start) / repeats


def resize_cases() -> Iterator[Case]:
    for filter, name, goal in ((Filter.BILINEAR, "bilinear", 3.0), (Filter.AREA, "area", 5.0)):
        for pixel_format in (PixelFormat.I420, PixelFormat.NV12, PixelFormat.BGR):
            yield resize_case(pixel_format, filter, f"{name} {pixel_format.name} 1080p to {SIDE}x{SIDE}", goal)


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
    for pixel_format, goal in ((PixelFormat.BGR, 8.0), (PixelFormat.I420, None)):
        planes = picture(pixel_format)[1]
        yield Case(
            f"blend of a {window[2]}x{window[3]} ellipse on {pixel_format.name} 1080p",
            goal,
            lambda planes=planes, f=pixel_format: blend(planes, f, BT601, marks, window, FILL, CONTOUR, ALPHA, 256),  # type: ignore[misc]
            opencv_blends(picture(pixel_format)[1], marks, window),
        )


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
        f"threshold of logits in a {window[2]}x{window[3]} window",
        None,
        lambda: threshold(logits, geometry, window, out),
        (opencv,),
    )


def show(rows: list[Row]) -> None:
    table = Table("kernel", "edgerun ms", "OpenCV ms", "ratio", "goal", title=machine())
    for row in rows:
        goal = "" if row.goal is None else f">= {row.goal:g}"
        table.add_row(row.name, f"{row.edgerun_ms:.4f}", f"{row.opencv_ms:.4f}", f"{row.ratio:.2f}", goal)
    Console(width=120).print(table)


def machine() -> str:
    model = next(
        (line.split(":")[1].strip() for line in cpuinfo() if line.startswith("model name")), platform.machine()
    )
    return f"{model}; OpenCV {cv2.__version__}; x86-64 level up to {_native.x86_level}; one thread each"


def cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    main()
