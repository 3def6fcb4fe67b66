# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from edgerun.metrics import auroc, dice, f1, false_positive_rate, hd95, mean_dice, surface

Bools = NDArray[np.bool_]
masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))


def mask(*rows: str) -> Bools:
    return np.array([[c == "#" for c in row] for row in rows])


def test_dice_by_hand() -> None:
    assert dice(mask("##.", "..."), mask(".##", "...")) == 0.5
    assert dice(mask("##", "##"), mask("#.", "..")) == pytest.approx(2 * 1 / 5)
    assert dice(mask(".."), mask("#.")) == 0.0
    assert dice(mask(".."), mask("..")) == 1.0


def test_dice_takes_any_non_zero_as_inside() -> None:
    assert dice(np.array([[255, 0]], np.uint8), np.array([[1, 0]], np.int64)) == 1.0


def test_dice_refuses_masks_of_different_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(1, 2\), truth \(2, 1\)"):
        dice(np.zeros((1, 2)), np.zeros((2, 1)))


def test_mean_dice_weighs_images_not_pixels() -> None:
    small, big = np.ones((1, 1)), np.ones((100, 100))
    assert mean_dice([(small, small), (np.zeros_like(big), big)]) == 0.5
    assert math.isnan(mean_dice([]))


@given(masks)
def test_dice_of_itself_is_one_and_symmetric(a: Bools) -> None:
    b = np.roll(a, 1, axis=0)
    assert dice(a, a) == 1.0
    assert dice(a, b) == dice(b, a)
    assert 0.0 <= dice(a, b) <= 1.0


def test_surface_by_hand() -> None:
    assert np.array_equal(surface(mask(".....", ".###.", ".###.", ".###.", ".....")),
                          mask(".....", ".###.", ".#.#.", ".###.", "....."))  # fmt: skip
    assert np.array_equal(surface(mask("###", "###", "###")), mask("###", "#.#", "###"))


def test_hd95_of_two_points() -> None:
    a, b = np.zeros((8, 8)), np.zeros((8, 8))
    a[1, 1], b[4, 5] = 1, 1
    assert hd95(a, b) == pytest.approx(5.0)
    assert hd95(a, b, (2.0, 2.0)) == pytest.approx(10.0)
    assert hd95(a, b, (4.0, 1.0)) == pytest.approx(math.hypot(12, 4))


def test_hd95_of_a_shifted_square() -> None:
    a, b = np.zeros((30, 30)), np.zeros((30, 30))
    a[5:15, 5:15], b[5:15, 8:18] = 1, 1
    assert hd95(a, b) == pytest.approx(3.0)


def test_hd95_of_empty_masks() -> None:
    empty, full = np.zeros((3, 3)), np.ones((3, 3))
    assert hd95(empty, empty) == 0.0
    assert hd95(empty, full) == math.inf
    assert hd95(full, empty) == math.inf


@given(masks)
def test_hd95_is_symmetric_and_zero_on_itself(a: Bools) -> None:
    b = np.roll(a, 1, axis=1)
    assert hd95(a, a) == 0.0
    assert hd95(a, b) == pytest.approx(hd95(b, a))


@given(masks)
def test_hd95_with_equal_and_nearly_equal_spacing_agree(a: Bools) -> None:
    b = np.rot90(a, 2)
    assert hd95(a, b, (1.0, 1.0)) == pytest.approx(hd95(a, b, (1.0, 1.0 + 1e-9)), rel=1e-5)


def test_auroc_by_hand() -> None:
    assert auroc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]) == 0.75
    assert auroc([1, 2, 3], [0, 0, 1]) == 1.0
    assert auroc([3, 2, 1], [0, 0, 1]) == 0.0
    assert auroc([5, 5, 5, 5], [0, 1, 0, 1]) == 0.5
    assert math.isnan(auroc([1, 2], [1, 1]))


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=2, max_size=30))
def test_auroc_equals_counting_pairs(cases: list[tuple[int, bool]]) -> None:
    positives = [s for s, t in cases if t]
    negatives = [s for s, t in cases if not t]
    found = auroc([s for s, _ in cases], [t for _, t in cases])
    if not positives or not negatives:
        assert math.isnan(found)
        return
    wins = sum((p > n) + 0.5 * (p == n) for p in positives for n in negatives)
    assert found == pytest.approx(wins / (len(positives) * len(negatives)))


def test_f1_by_hand() -> None:
    assert f1([1, 1, 0, 0], [1, 0, 1, 0]) == 0.5
    assert f1([0, 0], [0, 0]) == 1.0


def test_false_positive_rate_counts_pictures() -> None:
    assert false_positive_rate([mask(".."), mask("##"), mask(".#"), mask("..")]) == 0.5
    assert math.isnan(false_positive_rate([]))
