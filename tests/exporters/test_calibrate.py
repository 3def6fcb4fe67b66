# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("onnx", reason="exporters need onnx: pip install edgerun[exporters]")

from exporters.calibrate import BINS, Histogram, entropy, least_error, min_max, percentile


def histogram_of(*parts: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.add(part)
    return histogram


def test_no_value_is_lost_when_the_span_doubles() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(0, 10.0**k, 1000).astype(np.float32) for k in range(-3, 4)]
    histogram = histogram_of(*parts)
    assert histogram.counts.sum() == 7000
    assert len(histogram.counts) == BINS
    assert min_max(histogram) == (min(float(p.min()) for p in parts), max(float(p.max()) for p in parts))


@given(st.integers(0, 1000))
def test_the_order_of_samples_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    small, big = rng.normal(0, 1, 100).astype(np.float32), rng.normal(0, 100, 100).astype(np.float32)
    one, other = histogram_of(small, big), histogram_of(big, small)
    assert one.span == other.span
    assert np.abs(one.counts - other.counts).sum() <= 2  # float rounding at the edge of a bin


def test_percentile_leaves_out_the_tail_only() -> None:
    values = np.concatenate((np.linspace(0, 1, 100_000), [1000.0])).astype(np.float32)
    low, high = percentile(histogram_of(values), keep=0.9999)
    assert low == 0.0
    assert 1.0 <= high < 2.0


@pytest.mark.parametrize("method", [least_error, entropy])
def test_a_far_outlier_is_clipped_and_a_flat_spread_is_not(method: object) -> None:
    assert callable(method)
    flat = np.linspace(0, 1, 50_000, dtype=np.float32)
    assert method(histogram_of(flat))[1] > 0.95
    tailed = np.concatenate((np.random.default_rng(0).exponential(1, 500_000), [40.0])).astype(np.float32)
    assert method(histogram_of(tailed))[1] < 30


def test_an_overflowing_graph_is_refused() -> None:
    with pytest.raises(ValueError, match="isn't finite"):
        Histogram().add(np.array([np.inf], np.float32))
