# SPDX-License-Identifier: Apache-2.0
"""The threshold equals its NumPy reference wherever the logit isn't within rounding of the level."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgerun.frame import Geometry
from edgerun.kernels import reference
from edgerun.kernels.planes import Window
from edgerun.kernels.threshold import threshold


@st.composite
def cases(draw: st.DrawFn) -> tuple[NDArray[np.float32], Geometry, Window, float]:
    columns, rows = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    width, height = draw(st.integers(1, 200)), draw(st.integers(1, 60))
    left, top = draw(st.sampled_from([0.0, 1.0, -2.0, 2.5])), draw(st.sampled_from([0.0, 3.0]))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    logits = rng.normal(0, 3, (rows, columns + 2)).astype(np.float32)[:, :columns]
    if draw(st.booleans()):  # smooth, with large constant regions, as models give them
        logits = np.asarray(cv2.GaussianBlur(logits, (0, 0), 2), np.float32).reshape(rows, columns)
    x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    window = x, y, draw(st.integers(1, width - x)), draw(st.integers(1, height - y))
    geometry = Geometry(width, height, width / columns, height / rows, left, top)
    return logits, geometry, window, draw(st.sampled_from([0.0, -0.7]))


@settings(derandomize=True, max_examples=300, deadline=None)
@given(case=cases())
def test_equals_the_reference(case: tuple[NDArray[np.float32], Geometry, Window, float]) -> None:
    logits, geometry, window, level = case
    padded = np.full((window[3], window[2] + 5), 7, np.uint8)
    threshold(logits, geometry, window, padded[:, : window[2]], level)
    expected = reference.threshold(logits, geometry, window, level)
    clear = np.abs(reference.interpolate(logits, geometry, window) - level) > 1e-5
    np.testing.assert_array_equal(padded[:, : window[2]][clear], expected[clear])
    assert (padded[:, : window[2]] <= 1).all()
    assert (padded[:, window[2] :] == 7).all()


def test_reference_agrees_with_opencv() -> None:
    logits = np.random.default_rng(1).normal(0, 3, (20, 30)).astype(np.float32)
    geometry = Geometry(300, 100, 10.0, 5.0)
    expected = cv2.resize(logits, (300, 100), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(reference.interpolate(logits, geometry, (0, 0, 300, 100)), expected, atol=1e-3)


def test_windows_of_one_picture_agree() -> None:
    logits = np.random.default_rng(2).normal(0, 3, (12, 16)).astype(np.float32)
    geometry = Geometry(161, 97, 161 / 16, 97 / 12)
    whole, part = np.empty((97, 161), np.uint8), np.empty((31, 55), np.uint8)
    threshold(logits, geometry, (0, 0, 161, 97), whole)
    threshold(logits, geometry, (40, 20, 55, 31), part)
    np.testing.assert_array_equal(part, whole[20:51, 40:95])


def test_one_sided_logits_fill_the_window() -> None:
    geometry = Geometry(64, 64, 16.0, 16.0)
    for value in (5.0, -5.0, 0.0):
        out = np.full((64, 64), 7, np.uint8)
        threshold(np.full((4, 4), value, np.float32), geometry, (0, 0, 64, 64), out)
        assert (out == int(value > 0)).all()


def test_a_wrong_call_says_what_is_expected() -> None:
    logits, geometry = np.zeros((4, 4), np.float32), Geometry(64, 64, 16.0, 16.0)
    window, out = (0, 0, 8, 8), np.zeros((8, 8), np.uint8)
    with pytest.raises(ValueError, match=r"logits have shape \(1, 4, 4\); expected \[rows, columns\]"):
        threshold(logits[None], geometry, window, out)
    with pytest.raises(ValueError, match=r"logits is float64 \(4, 4\); expected float32"):
        threshold(logits.astype(np.float64), geometry, window, out)
    with pytest.raises(ValueError, match="inside the 64x64 picture"):
        threshold(logits, geometry, (60, 0, 8, 8), out)
    with pytest.raises(ValueError, match=r"out is uint8 \(8, 8\); expected uint8 \(4, 8\)"):
        threshold(logits, geometry, (0, 0, 8, 4), out)
    with pytest.raises(ValueError, match="expected above 0"):
        threshold(logits, Geometry(64, 64, 0.0, 1.0), window, out)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out 0 is read-only"):
        threshold(logits, geometry, window, out)


def test_wide_grids_are_classified_in_several_chunks() -> None:
    logits = np.asarray(cv2.GaussianBlur(np.random.default_rng(3).normal(0, 3, (9, 900)), (0, 0), 3), np.float32)
    for width in (300, 900, 2000):  # source pixels per cell from a third to over two
        geometry, window = Geometry(width, 40, width / 900, 40 / 9), (5, 0, width - 7, 40)
        out = np.empty((40, width - 7), np.uint8)
        threshold(logits, geometry, window, out)
        clear = np.abs(reference.interpolate(logits, geometry, window)) > 1e-5
        np.testing.assert_array_equal(out[clear], reference.threshold(logits, geometry, window)[clear])
