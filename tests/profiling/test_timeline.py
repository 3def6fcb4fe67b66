# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from edgerun.profiling.timeline import Timeline


@pytest.mark.parametrize("count", [0, 5, 8, 9, 16, 17, 1000])
def test_it_covers_the_run_evenly_within_its_capacity(count: int) -> None:
    timeline = Timeline(columns=2, capacity=8)
    for at in range(count):
        timeline.append((at, -at))
    kept = timeline.rows()[:, 0].tolist()
    assert kept == list(range(0, count, timeline.stride))
    assert len(timeline) == len(kept) <= 8
    assert timeline.rows()[:, 1].tolist() == [-at for at in kept]
    assert count <= 8 or len(kept) >= 4


@pytest.mark.parametrize("capacity", [0, 1, 7])
def test_an_odd_capacity_is_refused(capacity: int) -> None:
    with pytest.raises(ValueError, match="expected an even number"):
        Timeline(1, capacity)
