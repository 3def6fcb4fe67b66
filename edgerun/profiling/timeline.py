# SPDX-License-Identifier: Apache-2.0
"""A whole run in a fixed array: the longer it lasts, the coarser it gets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


class Timeline:
    """Rows of integers in the order they came. When full, every other row is dropped and half as many are kept on.

    So it always covers the run evenly. Extremes can be thinned out: keep those apart. One thread writes.
    """

    def __init__(self, columns: int, capacity: int) -> None:
        if capacity < 2 or capacity % 2:
            raise ValueError(f"timeline capacity is {capacity}; expected an even number of at least 2")
        self._rows = np.zeros((capacity, columns), np.int64)
        self._used = 0
        self._seen = 0
        self.stride = 1

    def append(self, row: Sequence[int]) -> None:
        if self._seen % self.stride == 0:
            if self._used == len(self._rows):
                self._thin()
            self._rows[self._used] = row
            self._used += 1
        self._seen += 1

    def rows(self) -> npt.NDArray[np.int64]:
        """A copy of the rows kept, shape (rows, columns)."""
        kept: npt.NDArray[np.int64] = self._rows[: self._used].copy()
        return kept

    def __len__(self) -> int:
        return self._used

    def _thin(self) -> None:
        self._used //= 2
        self._rows[: self._used] = self._rows[::2]
        self.stride *= 2
