# SPDX-License-Identifier: Apache-2.0
"""The blend equals its NumPy reference and leaves every byte outside the marks as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgerun.frame import Colour, PixelFormat, Plane, plane_shapes
from edgerun.kernels import reference
from edgerun.kernels.blend import blend
from edgerun.kernels.planes import Window

FILL, CONTOUR = (0, 255, 3), (250, 3, 77)


def planes_of(pixel_format: PixelFormat, width: int, height: int, padding: int, seed: int) -> tuple[Plane, ...]:
    rng = np.random.default_rng(seed)
    shapes = plane_shapes(pixel_format, width, height)
    return tuple(rng.integers(0, 256, (s[0], s[1] + padding, *s[2:]), dtype=np.uint8)[:, : s[1]] for s in shapes)


def marks_of(width: int, height: int, run: int, seed: int) -> NDArray[np.uint8]:
    """Runs of equal marks, as masks have them."""
    coarse = np.random.default_rng(seed).integers(0, 3, (-(-height // 3), -(-width // run)), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(3, axis=0).repeat(run, axis=1)[:height, :width])


@st.composite
def windows(draw: st.DrawFn) -> tuple[int, int, Window]:
    width, height = draw(st.integers(1, 300)), draw(st.integers(1, 20))
    x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return width, height, (x, y, draw(st.integers(1, width - x)), draw(st.integers(1, height - y)))


@settings(derandomize=True, max_examples=300, deadline=None)
@given(
    pixel_format=st.sampled_from(PixelFormat),
    where=windows(),
    padding=st.sampled_from([0, 13]),
    run=st.sampled_from([1, 2, 7, 70, 400]),
    alphas=st.tuples(st.integers(0, 256), st.integers(0, 256)),
    seed=st.integers(0, 1000),
)
def test_equals_the_reference(
    pixel_format: PixelFormat,
    where: tuple[int, int, Window],
    padding: int,
    run: int,
    alphas: tuple[int, int],
    seed: int,
) -> None:
    width, height, window = where
    planes = planes_of(pixel_format, width, height, padding, seed)
    marks = marks_of(window[2], window[3], run, seed)
    expected = reference.blend(planes, pixel_format, Colour(), marks, window, FILL, CONTOUR, *alphas)
    blend(planes, pixel_format, Colour(), marks, window, FILL, CONTOUR, *alphas)
    for plane, truth in zip(planes, expected, strict=True):
        np.testing.assert_array_equal(plane, truth)


@pytest.mark.parametrize("pixel_format", [PixelFormat.I420, PixelFormat.NV12])
@pytest.mark.parametrize("run", [3, 700])
def test_wide_chroma_goes_through_several_chunks(pixel_format: PixelFormat, run: int) -> None:
    planes = planes_of(pixel_format, 3001, 5, 0, 1)
    marks = marks_of(2999, 5, run, 2)
    arguments = pixel_format, Colour(), marks, (2, 0, 2999, 5), FILL, CONTOUR, 100, 200
    expected = reference.blend(planes, *arguments)
    blend(planes, *arguments)
    for plane, truth in zip(planes, expected, strict=True):
        np.testing.assert_array_equal(plane, truth)


@pytest.mark.parametrize("pixel_format", PixelFormat)
def test_bytes_outside_the_marks_stay(pixel_format: PixelFormat) -> None:
    planes = planes_of(pixel_format, 131, 37, 9, 5)
    before = [plane.copy() for plane in planes]
    marks = marks_of(90, 30, 5, 6)
    blend(planes, pixel_format, Colour(), marks, (11, 3, 90, 30), FILL, CONTOUR, 128, 256)
    marked = np.zeros((37, 131), bool)
    marked[3:33, 11:101] = marks > 0
    assert (planes[0][~marked] == before[0][~marked]).all()
    assert (planes[0][marked] != before[0][marked]).any()
    for plane, old in zip(planes[1:], before[1:], strict=True):
        changed = (plane != old).reshape(plane.shape[0], 66, -1).any(axis=-1)
        luma_of_changed = changed.repeat(2, axis=0).repeat(2, axis=1)[:37, :131]
        assert changed.any()
        assert marked[luma_of_changed].all()


def test_full_alpha_replaces_and_zero_leaves() -> None:
    planes = planes_of(PixelFormat.RGB, 70, 2, 0, 1)
    before = planes[0].copy()
    marks = np.ones((2, 70), np.uint8)
    blend(planes, PixelFormat.RGB, Colour(), marks, (0, 0, 70, 2), FILL, CONTOUR, 0)
    assert (planes[0] == before).all()
    blend(planes, PixelFormat.RGB, Colour(), marks, (0, 0, 70, 2), FILL, CONTOUR, 256)
    assert (planes[0] == np.array(FILL)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": (30, 0, 4, 4)}, "must be at least 1x1 inside the 32x16 picture"),
        ({"window": (0, 0, 0, 4)}, "must be at least 1x1"),
        ({"marks": np.zeros((4, 5), np.uint8)}, r"marks is uint8 \(4, 5\); expected uint8 \(4, 4\)"),
        ({"marks": np.zeros((4, 4), np.int32)}, "marks is int32"),
        ({"marks": np.zeros((4, 4), np.int8)}, "marks is int8"),
        ({"marks": np.zeros((4, 8), np.uint8)[:, ::2]}, "marks has strides"),
        ({"window": (-1, 0, 4, 4)}, "must be at least 1x1"),
        ({"window": (0, 14, 4, 4)}, "must be at least 1x1"),
        ({"alpha_256": 257}, "alpha_256 is 257; expected 0 to 256"),
        ({"contour_alpha_256": -1}, "contour_alpha_256 is -1"),
        ({"fill_rgb": (0, 0, 256)}, r"colour is \(0, 0, 256\); expected red, green and blue"),
        ({"planes": ()}, "needs planes"),
        ({"planes": (np.zeros((16, 32), np.uint8), np.zeros((8, 30), np.uint8))}, r"plane 1 has shape"),
    ],
)
def test_a_wrong_call_says_what_is_expected(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "planes": planes_of(PixelFormat.NV12, 32, 16, 0, 0), "pixel_format": PixelFormat.NV12, "colour": Colour(),
        "marks": np.zeros((4, 4), np.uint8), "window": (0, 0, 4, 4), "fill_rgb": FILL, "contour_rgb": CONTOUR,
        "alpha_256": 128,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        blend(**{**arguments, **change})


def test_a_read_only_picture_is_refused() -> None:
    planes = planes_of(PixelFormat.MONO, 8, 8, 0, 0)
    planes[0].flags.writeable = False
    with pytest.raises(ValueError, match="MONO plane 0 is read-only"):
        blend(planes, PixelFormat.MONO, Colour(), np.ones((8, 8), np.uint8), (0, 0, 8, 8), FILL, CONTOUR, 128)
