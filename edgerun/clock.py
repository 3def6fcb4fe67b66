# SPDX-License-Identifier: Apache-2.0
"""Time, as a value that is passed in: whatever waits or measures takes a Clock."""

from __future__ import annotations

import heapq
import threading
import time
from typing import Protocol


class Clock(Protocol):
    """A monotonic clock. Its zero is arbitrary, so its readings never cross machines."""

    def now_ns(self) -> int: ...

    def sleep_until(self, deadline_ns: int) -> None:
        """Block the calling thread until `now_ns() >= deadline_ns`."""
        ...


class SystemClock:
    """CLOCK_MONOTONIC: steps of the wall clock don't move it."""

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def sleep_until(self, deadline_ns: int) -> None:
        while (left := deadline_ns - time.monotonic_ns()) > 0:
            time.sleep(left / 1e9)


class VirtualClock:
    """A clock that stands still until a test calls `advance`; sleepers wake in the order of their deadlines."""

    def __init__(self, start_ns: int = 0) -> None:
        self._now_ns = start_ns
        self._changed = threading.Condition()
        self._sleepers: list[int] = []

    def now_ns(self) -> int:
        with self._changed:
            return self._now_ns

    def sleep_until(self, deadline_ns: int) -> None:
        with self._changed:
            heapq.heappush(self._sleepers, deadline_ns)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._now_ns >= deadline_ns)
            self._sleepers.remove(deadline_ns)
            heapq.heapify(self._sleepers)
            self._changed.notify_all()

    def advance(self, by_ns: int) -> None:
        with self._changed:
            self._now_ns += by_ns
            self._changed.notify_all()

    def wait_for_sleepers(self, count: int) -> None:
        """Block until `count` threads sleep on this clock: how a test knows that it may advance."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._sleepers) >= count)
