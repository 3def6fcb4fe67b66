# SPDX-License-Identifier: Apache-2.0
"""A latency histogram of fixed size, true to three significant digits from a nanosecond to 73 minutes.

The layout is HdrHistogram's. Its Python package (Apache-2.0) has no aarch64 wheel, so a Jetson would need a compiler.
"""

from __future__ import annotations

import math
from array import array

import numpy as np
import numpy.typing as npt

_HALF_BITS = 10  # 1024 steps in each octave: a step is at most 1/1024 of its value
_HALF = 1 << _HALF_BITS
_MAX_BITS = 42
_BUCKETS = (_MAX_BITS - _HALF_BITS + 1) * _HALF
_LARGEST = (1 << _MAX_BITS) - 1


def _bucket_bounds_ns() -> npt.NDArray[np.int64]:
    """The lowest value of each bucket, and one more: exact up to 2047 ns, then 1024 steps per octave."""
    octaves = np.arange(1, _MAX_BITS - _HALF_BITS, dtype=np.int64)
    steps = np.arange(_HALF, 2 * _HALF, dtype=np.int64)
    above = (steps[None, :] << octaves[:, None]).ravel()
    return np.concatenate([np.arange(2 * _HALF, dtype=np.int64), above, [_LARGEST + 1]])


_BOUNDS_NS = _bucket_bounds_ns()


class LatencyHistogram:
    """Counts of durations. One thread writes; to combine threads or processes, `merge` (it pickles).

    Values above 73 minutes are counted in the last bucket; `count`, `min_ns`, `max_ns` and `mean_ns` are always exact.
    """

    __slots__ = ("_counts", "_sum_ns", "count", "max_ns", "min_ns")

    def __init__(self) -> None:
        self._counts = array("q", bytes(8 * _BUCKETS))
        self._sum_ns = 0
        self.count = 0
        self.min_ns = 0
        self.max_ns = 0

    def record_ns(self, duration_ns: int) -> None:
        """Raises ValueError for a negative duration: two clocks were mixed."""
        if duration_ns < 0:
            raise ValueError(f"duration is {duration_ns} ns; expected 0 or more. Both ends must be of one clock")
        if duration_ns > self.max_ns:
            self.max_ns = duration_ns
        if duration_ns < self.min_ns or not self.count:
            self.min_ns = duration_ns
        self._sum_ns += duration_ns
        self.count += 1
        if duration_ns > _LARGEST:
            duration_ns = _LARGEST
        shift = duration_ns.bit_length() - _HALF_BITS - 1
        self._counts[duration_ns if shift <= 0 else (shift << _HALF_BITS) + (duration_ns >> shift)] += 1

    def merge(self, other: LatencyHistogram) -> None:
        """Add the counts of `other`, which is left as it is."""
        if not other.count:
            return
        self.min_ns = min(self.min_ns, other.min_ns) if self.count else other.min_ns
        self.max_ns = max(self.max_ns, other.max_ns)
        self.count += other.count
        self._sum_ns += other._sum_ns
        own = np.frombuffer(self._counts, np.int64)
        own += np.frombuffer(other._counts, np.int64)

    @property
    def mean_ns(self) -> float:
        self._require_counts("mean")
        return self._sum_ns / self.count

    def percentile_ns(self, percent: float) -> int:
        """The smallest duration that `percent` of all don't exceed, rounded up to its bucket's largest."""
        if not 0 <= percent <= 100:
            raise ValueError(f"percentile is {percent}; expected 0 to 100")
        self._require_counts("percentile")
        # Rounded first: 0.999 * 1000 is a hair above 999 and must not become 1000.
        rank = max(1, math.ceil(round(percent / 100 * self.count, 6)))
        bucket = int(np.searchsorted(np.cumsum(np.frombuffer(self._counts, np.int64)), rank))
        if bucket == _BUCKETS - 1:
            return self.max_ns
        return min(max(int(_BOUNDS_NS[bucket + 1]) - 1, self.min_ns), self.max_ns)

    def rebinned(self, edges_ns: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Counts between successive ascending `edges_ns`, for a plot: a bucket goes whole to where its middle lies."""
        used = np.flatnonzero(np.frombuffer(self._counts, np.int64))
        middles = (_BOUNDS_NS[used] + _BOUNDS_NS[used + 1] - 1) / 2
        counts, _ = np.histogram(middles, edges_ns, weights=np.frombuffer(self._counts, np.int64)[used])
        return counts.astype(np.int64)

    def _require_counts(self, what: str) -> None:
        if not self.count:
            raise ValueError(f"an empty histogram has no {what}; check `count` first")
