# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle

import numpy as np
import numpy.typing as npt
import pytest

from edgerun.profiling.histogram import LatencyHistogram


def histogram_of(durations_ns: npt.NDArray[np.int64]) -> LatencyHistogram:
    histogram = LatencyHistogram()
    for duration_ns in durations_ns:
        histogram.record_ns(int(duration_ns))
    return histogram


def lognormal_ns(seed: int, count: int, median_ms: float = 15) -> npt.NDArray[np.int64]:
    return (median_ms * 1e6 * np.exp(np.random.default_rng(seed).normal(0, 0.6, count))).astype(np.int64)


@pytest.mark.parametrize("count", [1, 2, 10, 999, 20_000])
@pytest.mark.parametrize("percent", [0, 1, 50, 90, 99, 99.9, 100])
def test_percentiles_are_numpys_to_three_significant_digits(count: int, percent: float) -> None:
    durations_ns = lognormal_ns(count, count)
    ranked = np.sort(durations_ns)
    expected = int(ranked[max(1, int(np.ceil(round(percent * count / 100, 6)))) - 1])
    found = histogram_of(durations_ns).percentile_ns(percent)
    assert expected <= found <= expected * (1 + 1 / 1024)


@pytest.mark.parametrize("percent", [50, 99, 99.9])
def test_percentiles_agree_with_np_percentile_on_a_dense_sample(percent: float) -> None:
    durations_ns = lognormal_ns(1, 50_000)
    found = histogram_of(durations_ns).percentile_ns(percent)
    assert found == pytest.approx(np.percentile(durations_ns, percent), rel=0.003)


@pytest.mark.parametrize("value", [0, 1, 1023, 1024, 2047, 2048, 2049, 4095, 4096, 10**6, 2**41, 2**42 - 2**32])
def test_every_value_is_in_a_bucket_no_wider_than_a_thousandth_of_it(value: int) -> None:
    histogram = LatencyHistogram()
    histogram.record_ns(value)
    histogram.record_ns(value * 2 + 10)  # so that the bucket's own bound is the answer, not the maximum
    assert value <= histogram.percentile_ns(50) <= value + value // 1024


def test_extremes_count_and_mean_are_exact() -> None:
    durations_ns = lognormal_ns(2, 5000)
    histogram = histogram_of(durations_ns)
    assert histogram.count == 5000
    assert histogram.min_ns == durations_ns.min()
    assert histogram.max_ns == durations_ns.max() == histogram.percentile_ns(100)
    assert histogram.mean_ns == pytest.approx(durations_ns.mean(), rel=1e-12)


def test_merging_is_recording_all_in_one() -> None:
    first, second = lognormal_ns(3, 700), lognormal_ns(4, 300, median_ms=90)
    merged = histogram_of(first)
    merged.merge(histogram_of(second))
    merged.merge(LatencyHistogram())
    whole = histogram_of(np.concatenate([first, second]))
    for percent in (0, 10, 50, 99, 99.9, 100):
        assert merged.percentile_ns(percent) == whole.percentile_ns(percent)
    assert (merged.count, merged.min_ns, merged.max_ns) == (whole.count, whole.min_ns, whole.max_ns)
    assert merged.mean_ns == whole.mean_ns


def test_merging_into_an_empty_one_takes_its_minimum() -> None:
    merged = LatencyHistogram()
    merged.merge(histogram_of(np.array([50, 70])))
    assert (merged.min_ns, merged.max_ns, merged.count) == (50, 70, 2)


def test_it_crosses_processes() -> None:
    histogram = histogram_of(lognormal_ns(5, 100))
    assert pickle.loads(pickle.dumps(histogram)).max_ns == histogram.max_ns  # noqa: S301


def test_longer_than_73_minutes_is_counted_and_the_maximum_stays_exact() -> None:
    histogram = histogram_of(np.array([2**43, 2**44]))
    assert histogram.max_ns == histogram.percentile_ns(100) == 2**44
    assert histogram.count == 2


def test_rebinned_loses_nothing_within_the_edges() -> None:
    durations_ns = lognormal_ns(6, 3000)
    edges_ns = np.geomspace(1e5, 1e10, 40)
    counts = histogram_of(durations_ns).rebinned(edges_ns)
    expected, _ = np.histogram(durations_ns, edges_ns)
    assert counts.sum() == 3000
    assert np.abs(counts - expected).max() <= 5  # those within half a bucket of an edge


def test_what_makes_no_sense_is_refused() -> None:
    empty = LatencyHistogram()
    with pytest.raises(ValueError, match="duration is -1 ns"):
        empty.record_ns(-1)
    with pytest.raises(ValueError, match="empty histogram has no percentile"):
        empty.percentile_ns(50)
    with pytest.raises(ValueError, match="empty histogram has no mean"):
        _ = empty.mean_ns
    with pytest.raises(ValueError, match="percentile is 101"):
        empty.percentile_ns(101)
