# SPDX-License-Identifier: Apache-2.0
"""Marks go where the result says and nowhere else, and never pretend to be younger than they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgerun.frame import Colour, Frame, Geometry, PixelFormat, Plane, plane_shapes
from edgerun.kernels import reference
from edgerun.overlay.compose import OverlayStyle, draw_result, draw_status, is_of_size, status
from edgerun.postprocess.segmentation import segment
from edgerun.result import Segmentation

GRID = 16
FRESH, STALE = OverlayStyle().fresh_ns, OverlayStyle().stale_ns
WITHOUT_MARKS = OverlayStyle(fill_alpha=0, contour_alpha=0)  # the score is still written
Bools = NDArray[np.bool_]


def picture(pixel_format: PixelFormat, width: int, height: int, seed: int = 3) -> Frame:
    rng = np.random.default_rng(seed)
    planes = tuple(rng.integers(0, 256, shape, np.uint8) for shape in plane_shapes(pixel_format, width, height))
    return Frame(planes, pixel_format, width, height, colour=Colour())


def grey(pixel_format: PixelFormat, width: int, height: int, level: int = 200) -> Frame:
    planes = tuple(np.full(shape, level, np.uint8) for shape in plane_shapes(pixel_format, width, height))
    return Frame(planes, pixel_format, width, height)


def disc(width: int, height: int, x: float = 0.5, y: float = 0.5, radius: float = 0.25) -> Segmentation:
    """A disc at (x, y), all as shares of the picture."""
    rows, columns = (np.mgrid[0:GRID, 0:GRID] + 0.5) / GRID
    logits = (radius - np.hypot(columns - x, rows - y)) * 40
    geometry = Geometry(width, height, width / GRID, height / GRID)
    return segment(logits[None, None].astype(np.float32), geometry, (1, 1))


def copies(frame: Frame) -> tuple[Plane, ...]:
    return tuple(plane.copy() for plane in frame.planes)


def drawn(
    frame: Frame, found: Segmentation, age_ns: int = 0, style: OverlayStyle = OverlayStyle()
) -> tuple[Plane, ...]:
    planes = copies(frame)
    draw_result(planes, frame, found, age_ns, style)
    return planes


def changed(before: tuple[Plane, ...], after: tuple[Plane, ...]) -> tuple[Bools, ...]:
    """Of each plane the samples that differ, [rows, columns]: of any channel in packed and interleaved planes."""
    differ = [a != b for a, b in zip(before, after, strict=True)]
    return tuple(plane.any(axis=2) if plane.ndim == 3 else plane for plane in differ)


def label_of(found: Segmentation, width: int, height: int) -> Bools:
    """The pixels that the scores are written on: none of them comes out of two greys as it was."""
    frames = (grey(PixelFormat.MONO, width, height, level) for level in (90, 200))
    one, other = (changed(frame.planes, drawn(frame, found, style=WITHOUT_MARKS))[0] for frame in frames)
    return one | other


def mask_of(found: Segmentation) -> Bools:
    g = found.geometry
    return reference.threshold(found.logits, g, (0, 0, g.source_width, g.source_height)).astype(bool)


def wholly_marked(mask: Bools) -> Bools:
    """The chroma samples of 4:2:0 all of whose luma pixels inside the picture are marked."""
    height, width = mask.shape
    even = np.pad(mask, ((0, height % 2), (0, width % 2)), mode="edge")
    return np.asarray(even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2).all(axis=(1, 3)))


def assert_only_marks_changed(frame: Frame, found: Segmentation) -> None:
    mask = mask_of(found)
    luma, *chroma = changed(frame.planes, drawn(frame, found))
    assert not (luma & ~mask & ~label_of(found, frame.width, frame.height)).any()
    for plane in chroma:
        samples = plane.reshape(plane.shape[0], -1, 2).any(axis=2) if frame.pixel_format is PixelFormat.NV12 else plane
        assert not (samples & ~wholly_marked(mask)).any()


@pytest.mark.parametrize("pixel_format", list(PixelFormat))
@pytest.mark.parametrize("size", [(160, 120), (161, 121)])
def test_pixels_outside_the_marks_keep_every_bit(pixel_format: PixelFormat, size: tuple[int, int]) -> None:
    found = disc(*size)
    frame = picture(pixel_format, *size)
    assert_only_marks_changed(frame, found)
    mask = mask_of(found) & ~label_of(found, *size)
    luma = changed(frame.planes, drawn(frame, found))[0]
    assert luma[mask].mean() > 0.9, "the marks themselves are drawn"


SIDES = st.integers(1, 90)
SHARES = st.floats(-0.1, 1.1)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.sampled_from(PixelFormat), SIDES, SIDES, SHARES, SHARES, st.floats(0.05, 2.0))
def test_marks_are_cut_at_the_edges_of_any_picture(
    pixel_format: PixelFormat, width: int, height: int, x: float, y: float, radius: float
) -> None:
    assert_only_marks_changed(picture(pixel_format, width, height), disc(width, height, x, y, radius))


@pytest.mark.parametrize("pixel_format", list(PixelFormat))
@pytest.mark.parametrize("size", [(64, 1), (1, 64), (1, 1), (2, 2)])
def test_the_smallest_pictures_can_be_drawn_on(pixel_format: PixelFormat, size: tuple[int, int]) -> None:
    frame = picture(pixel_format, *size)
    planes = drawn(frame, disc(*size, radius=2))
    draw_status(planes, frame, 10**12, OverlayStyle())
    assert [plane.shape for plane in planes] == [plane.shape for plane in frame.planes]


def test_marks_fade_with_their_age_and_hide_when_stale() -> None:
    frame, found = grey(PixelFormat.MONO, 160, 120), disc(160, 120)
    inside = (64, 80)
    ages = [0, FRESH, (FRESH + STALE) // 2, STALE - 30_000_000, STALE, 10 * STALE]
    style = OverlayStyle(fill_alpha=0.5)
    strengths = [200 - int(drawn(frame, found, age, style)[0][inside]) for age in ages]
    assert strengths[0] == strengths[1] > strengths[2] > strengths[3] > strengths[4] == strengths[5] == 0
    for age in ages[4:]:
        assert not any(plane.any() for plane in changed(frame.planes, drawn(frame, found, age)))


@pytest.mark.parametrize(
    ("age_ns", "text"),
    [(None, "no result yet"), (34_000_000, "34 ms"), (STALE, "no result for 0.4 s"), (12 * 10**9, "for 12.0 s")],
)
def test_the_watchdog_says_how_old_the_last_result_is(age_ns: int | None, text: str) -> None:
    assert text in status(age_ns, OverlayStyle())[0]


def test_the_status_is_on_the_picture_and_its_colour_planes_stay() -> None:
    frame = grey(PixelFormat.I420, 320, 240)
    planes = copies(frame)
    draw_status(planes, frame, None, OverlayStyle())
    luma, *chroma = changed(frame.planes, planes)
    assert luma.any()
    assert not luma[:200].any(), "it stands at the bottom"
    assert not any(plane.any() for plane in chroma)


def test_a_decoders_own_frame_is_refused() -> None:
    frame, found = picture(PixelFormat.I420, 160, 120), disc(160, 120)
    before = copies(frame)
    for plane in frame.planes:
        plane.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        draw_result(frame.planes, frame, found, 0)
    with pytest.raises(ValueError, match="read-only"):
        draw_status(frame.planes, frame, 0, OverlayStyle())
    assert not any(plane.any() for plane in changed(before, frame.planes))


def test_every_region_is_marked() -> None:
    frame = grey(PixelFormat.MONO, 160, 120)
    one, other = disc(160, 120, 0.25, 0.5, 0.15), disc(160, 120, 0.75, 0.5, 0.15)
    both = replace(one, logits=np.maximum(one.logits, other.logits), regions=one.regions + other.regions)
    luma = changed(frame.planes, drawn(frame, both))[0]
    assert luma[60, 40]
    assert luma[60, 120]
    assert not luma[60, 80]


def test_a_result_of_another_size_is_known_as_such() -> None:
    assert is_of_size(disc(160, 120), grey(PixelFormat.MONO, 160, 120))
    assert not is_of_size(disc(160, 120), grey(PixelFormat.MONO, 120, 160))
