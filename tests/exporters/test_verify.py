# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch", reason="exporters need torch: pip install edgerun[exporters]")
pytest.importorskip("edgerun.kernels._native", reason="needs the native kernels: pip install -e .")

from edgerun.model_package import Manifest, parse_manifest
from exporters.polyp_seg_lite.dataset import Sample
from exporters.polyp_seg_lite.evaluation import polyp_free_crops
from exporters.verify import Case, dice_of, false_positives_of, found_mask, median_ms, processor, speed_ratios

Image = NDArray[np.uint8]
DECLARED = Path(__file__).parent.parent.parent / "exporters" / "polyp_seg_lite" / "model.toml"


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return parse_manifest(DECLARED)


def bright(image: Image) -> NDArray[np.float32]:
    """A network that marks what is brighter than 128."""
    assert image.shape == (1, 3, 320, 320)
    grey = cv2.resize(image[0].mean(axis=0), (80, 80), interpolation=cv2.INTER_AREA)
    return np.asarray(grey - 128, np.float32)[None, None]


def disc(width: int, height: int) -> Case:
    mask = np.zeros((height, width), np.uint8)
    cv2.circle(mask, (width // 2, height // 2), height // 4, 255, -1)
    return Case(np.repeat(mask[..., None], 3, axis=2), mask)


@pytest.mark.parametrize(("width", "height"), [(640, 480), (331, 297), (1225, 966)])
def test_a_perfect_network_scores_nearly_one(manifest: Manifest, width: int, height: int) -> None:
    assert dice_of(manifest, {"a": bright}, [disc(width, height)])["a"] > 0.985


def test_the_mask_equals_bilinear_logits_above_zero(manifest: Manifest) -> None:
    case = disc(622, 531)
    small = cv2.resize(case.image, (320, 320), interpolation=cv2.INTER_AREA).transpose(2, 0, 1)[None]
    logits = bright(np.ascontiguousarray(small, np.uint8))[0, 0]
    expected = cv2.resize(logits, (622, 531), interpolation=cv2.INTER_LINEAR) > 0
    found = found_mask(manifest, case.image, bright) > 0
    assert (found != expected).mean() < 1e-3


def test_false_positives_count_pictures(manifest: Manifest) -> None:
    dark, speck = np.zeros((320, 320, 3), np.uint8), np.zeros((320, 320, 3), np.uint8)
    speck[10:14, 10:14] = 255  # one cell of the grid: below min_region_fraction
    found = false_positives_of(manifest, {"a": bright}, [dark, speck, disc(320, 320).image, dark])
    assert found == {"a": 0.25}


def test_speed_is_best_engine_over_best_engine() -> None:
    times = {"fp32/a": 10.0, "fp32/b": 6.0, "int8/a": 4.0, "int8/b": 5.0}
    assert speed_ratios(times, "int8") == {"best": 1.5, "a": 2.5, "b": 1.2}


def test_every_runner_is_timed() -> None:
    calls: list[str] = []

    def runner(name: str) -> NDArray[np.float32]:
        calls.append(name)
        return np.zeros((1, 1, 1, 1), np.float32)

    times = median_ms({"x": lambda _: runner("x"), "y": lambda _: runner("y")}, np.zeros((1,), np.uint8), rounds=3)
    assert set(times) == {"x", "y"}
    assert all(t >= 0 for t in times.values())
    assert calls[-6:] == ["x", "y"] * 3


def test_the_processor_is_named() -> None:
    assert "(" in processor()


def test_crops_hold_no_polyp_pixel() -> None:
    mask = np.zeros((100, 120), np.uint8)
    mask[40:60, 50:70] = 255
    image = np.repeat(mask[..., None], 3, axis=2)
    crops = polyp_free_crops([Sample("a", image, mask), Sample("full", image, np.full_like(mask, 255))])
    assert [c.shape for c in crops] == [(50, 50, 3)]
    assert not crops[0].any()
