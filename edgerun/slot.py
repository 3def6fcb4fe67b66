# SPDX-License-Identifier: Apache-2.0
"""The bounded hand-over between two stages: the only place where a frame may wait."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

from edgerun.answer import Policy

Item = TypeVar("Item")


class SlotClosedError(Exception):
    """Nothing more will come (take), or nothing more is wanted (put)."""


class Slot(Generic[Item]):
    """A hand-over of at most `capacity` items from any threads to any threads.

    LATEST never blocks the producer: `put` gives back the oldest item it had to push out, for the caller to
    account for and release. EVERY blocks the producer until there is room. Waits are woken, never polled.
    """

    def __init__(self, policy: Policy, capacity: int = 1) -> None:
        if capacity < 1:
            raise ValueError(f"slot capacity is {capacity}; expected at least 1")
        self._policy = policy
        self._capacity = capacity
        self._items: deque[Item] = deque(maxlen=capacity)
        self._changed = threading.Condition()
        self._closed = False
        self.puts = 0
        self.superseded = 0

    def put(self, item: Item) -> Item | None:
        """Hand over `item`. Returns the item it superseded, if any. Raises SlotClosedError after `close`."""
        with self._changed:
            if self._policy is Policy.EVERY:
                self._changed.wait_for(lambda: len(self._items) < self._capacity or self._closed)
            if self._closed:
                raise SlotClosedError
            pushed_out = self._items.popleft() if len(self._items) == self._capacity else None
            self._items.append(item)
            self.puts += 1
            self.superseded += pushed_out is not None
            self._changed.notify_all()
            return pushed_out

    def take(self, timeout_s: float | None = None) -> Item:
        """The oldest item; waits for one. Raises SlotClosedError when closed and empty, TimeoutError on time-out."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._items or self._closed, timeout_s):
                raise TimeoutError
            if not self._items:
                raise SlotClosedError
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Refuse further puts; items already in it can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def drain(self) -> list[Item]:
        """Take all that waits, at once: what a cancelled stream must still account for."""
        with self._changed:
            items = list(self._items)
            self._items.clear()
            self._changed.notify_all()
            return items

    @property
    def full(self) -> bool:
        """Whether a `put` would have to wait, or supersede, if it came now."""
        return len(self) == self._capacity

    def __len__(self) -> int:
        with self._changed:
            return len(self._items)
