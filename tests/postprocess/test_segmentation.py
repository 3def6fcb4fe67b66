# SPDX-License-Identifier: Apache-2.0
"""A shape that is drawn in source pixels, sampled on the model's grid, comes back where it was drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgerun.frame import Geometry
from edgerun.kernels.resize_pack import geometry_of
from edgerun.kernels.taps import Fit, place
from edgerun.postprocess.segmentation import OUTLINE_ZOOM, grid_geometry, mask_in_source, segment
from edgerun.result import Box, Segmentation

MODEL, STRIDE = 128, 4
GRID = MODEL // STRIDE
Logits = NDArray[np.float32]


def model_geometry(width: int, height: int, fit: Fit) -> Geometry:
    return geometry_of(place(fit, width, height, MODEL, MODEL), width, height)


def disc_logits(model: Geometry, x: float, y: float, radius: float) -> Logits:
    """A cone over the disc: zero at its rim, in source pixels, one unit a grid cell."""
    grid = grid_geometry(model, (STRIDE, STRIDE))
    rows, columns = np.mgrid[0:GRID, 0:GRID].astype(float)
    at_x, at_y = grid.to_source(columns, rows)
    cell = max(grid.scale_x, grid.scale_y)
    return np.asarray((radius - np.hypot(at_x - x, at_y - y)) / cell, np.float32)


def segmented(logits: Logits, model: Geometry, *, probability: float = 0.5, fraction: float = 0.0) -> Segmentation:
    return segment(logits[None, None], model, (STRIDE, STRIDE), probability=probability, min_region_fraction=fraction)


SIZES = st.tuples(st.integers(200, 1920), st.integers(200, 1080))


@settings(derandomize=True, max_examples=100, deadline=None)
@given(SIZES, st.sampled_from(Fit), st.floats(0.3, 0.7), st.floats(0.3, 0.7), st.floats(0.12, 0.25))
def test_a_disc_is_found_where_it_lies(
    size: tuple[int, int], fit: Fit, share_x: float, share_y: float, share: float
) -> None:
    model = model_geometry(*size, fit)
    grid = grid_geometry(model, (STRIDE, STRIDE))
    cell = max(grid.scale_x, grid.scale_y)
    x, y, radius = share_x * size[0], share_y * size[1], max(share * min(size), 2.5 * cell)
    (region,) = segmented(disc_logits(model, x, y, radius), model).regions
    box, near = region.box, 0.5 * cell + 1
    if radius < min(x, y, size[0] - x, size[1] - y):
        assert box.x == pytest.approx(x - radius, abs=near)
        assert box.y == pytest.approx(y - radius, abs=near)
        assert box.x + box.width == pytest.approx(x + radius, abs=near)
        assert box.y + box.height == pytest.approx(y + radius, abs=near)
        assert region.area_px == pytest.approx(math.pi * radius**2, rel=0.15)
        distances = np.hypot(region.outline_px[:, 0] - x, region.outline_px[:, 1] - y)
        np.testing.assert_allclose(distances, radius, atol=near)
    assert 0.5 < region.score < 1


@pytest.mark.parametrize("fit", list(Fit))
@pytest.mark.parametrize("size", [(640, 360), (360, 640), (123, 77)])
def test_box_and_area_agree_with_the_mask(fit: Fit, size: tuple[int, int]) -> None:
    model = model_geometry(*size, fit)
    found = segmented(disc_logits(model, 0.4 * size[0], 0.6 * size[1], 0.3 * min(size)), model)
    (region,) = found.regions
    mask = mask_in_source(found)
    rows, columns = np.nonzero(mask)
    g = found.geometry
    cell = max(g.scale_x, g.scale_y) / OUTLINE_ZOOM + 1
    edges = (region.box.x, region.box.y, region.box.x + region.box.width, region.box.y + region.box.height)
    np.testing.assert_allclose(edges, (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1), atol=cell)
    assert region.area_px == pytest.approx(mask.sum(), rel=0.05)
    x, y, width, height = region.box.x, region.box.y, region.box.width, region.box.height
    np.testing.assert_array_equal(mask_in_source(found, region.box), mask[y : y + height, x : x + width])


def test_small_regions_leave_the_list_and_the_mask() -> None:
    model = model_geometry(640, 640, Fit.STRETCH)
    large, small = disc_logits(model, 160, 160, 100), disc_logits(model, 480, 480, 30)
    logits = np.maximum(large, small)
    both = segmented(logits, model)
    one = segmented(logits, model, fraction=0.02)
    assert (len(both.regions), len(one.regions)) == (2, 1)
    assert one.regions[0].box.x < 320
    assert mask_in_source(both)[320:, 320:].any()
    assert not mask_in_source(one)[320:, 320:].any()
    np.testing.assert_array_equal(mask_in_source(both)[:320, :320], mask_in_source(one)[:320, :320])


def test_nothing_is_found_where_nothing_is() -> None:
    model = model_geometry(640, 360, Fit.LETTERBOX)
    found = segmented(np.full((GRID, GRID), -3, np.float32), model)
    assert (found.regions, found.score) == ((), 0.0)
    assert not mask_in_source(found).any()


@pytest.mark.parametrize("fit", list(Fit))
@pytest.mark.parametrize("size", [(640, 360), (99, 1000), (33, 31), (1, 1)])
def test_the_whole_picture_is_one_region_of_its_size(fit: Fit, size: tuple[int, int]) -> None:
    model = model_geometry(*size, fit)
    found = segmented(np.full((GRID, GRID), 4, np.float32), model)
    (region,) = found.regions
    assert region.box == Box(0, 0, *size)
    assert region.area_px == pytest.approx(size[0] * size[1], rel=0.2 if 1000 in size else 0.03)
    assert mask_in_source(found).all()


def test_what_lies_in_the_padding_is_no_region() -> None:
    model = model_geometry(640, 320, Fit.LETTERBOX)  # the picture fills rows 32 to 96 of the model's 128
    logits = np.full((GRID, GRID), -5, np.float32)
    logits[1:5, 8:20] = 5
    logits[28:31, 8:20] = 5
    assert segmented(logits, model).regions == ()


def test_a_region_in_the_hole_of_another_one_is_a_region_of_its_own() -> None:
    model = model_geometry(640, 640, Fit.STRETCH)
    ring = np.minimum(disc_logits(model, 320, 320, 250), -disc_logits(model, 320, 320, 180))
    found = segmented(np.maximum(ring, disc_logits(model, 320, 320, 80)), model)
    areas = sorted(region.area_px for region in found.regions)
    assert areas == pytest.approx([math.pi * 80**2, math.pi * (250**2 - 180**2)], rel=0.1)


def test_the_surest_region_comes_first() -> None:
    model = model_geometry(640, 640, Fit.STRETCH)
    logits = np.maximum(3 * disc_logits(model, 480, 480, 100), disc_logits(model, 160, 160, 100))
    found = segmented(logits, model)
    assert found.regions[0].box.x > 320
    assert found.score == found.regions[0].score > found.regions[1].score


def test_a_higher_probability_draws_tighter() -> None:
    model = model_geometry(640, 640, Fit.STRETCH)
    logits = disc_logits(model, 320, 320, 200)
    areas = [segmented(logits, model, probability=p).regions[0].area_px for p in (0.3, 0.5, 0.7)]
    assert areas[0] > areas[1] > areas[2]


def test_the_result_owns_its_memory() -> None:
    model = model_geometry(640, 360, Fit.STRETCH)
    logits = disc_logits(model, 320, 180, 100)
    found = segmented(logits, model)
    before = mask_in_source(found)
    logits.fill(9)
    assert not np.shares_memory(found.logits, logits)
    np.testing.assert_array_equal(mask_in_source(found), before)
