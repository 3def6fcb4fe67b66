# SPDX-License-Identifier: Apache-2.0
"""Ground truth of the synthetic scene, kept small while the clock runs and compared afterwards."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgerun.demo.report import Accuracy
from edgerun.metrics import dice
from edgerun.postprocess.segmentation import mask_in_source
from edgerun.result import Segmentation

SMALLEST_POLYP = 1 / 2000  # of the picture: what is fainter than this at the rim of the view counts as neither


class Truth:
    """Masks by frame number: a bit a pixel, compressed."""

    def __init__(self, width: int, height: int) -> None:
        self._shape = (height, width)
        self._packed: dict[int, bytes] = {}

    def add(self, frame_id: int, mask: NDArray[np.uint8]) -> None:
        self._packed[frame_id] = zlib.compress(np.packbits(mask > 0).tobytes(), 1)

    def mask(self, frame_id: int) -> NDArray[np.bool_]:
        bits = np.frombuffer(zlib.decompress(self._packed[frame_id]), np.uint8)
        count = self._shape[0] * self._shape[1]
        return np.unpackbits(bits, count=count).reshape(self._shape).astype(bool)

    def score(self, found: Mapping[int, Segmentation]) -> Accuracy:
        """Mean Dice over the answered frames with a polyp, and how many of those without one were marked."""
        scores, false_alarms, polyp_free = [], 0, 0
        for frame_id, segmentation in found.items():
            if frame_id not in self._packed:
                continue
            truth = self.mask(frame_id)
            if truth.mean() >= SMALLEST_POLYP:
                scores.append(dice(mask_in_source(segmentation).astype(bool), truth))
            elif not truth.any():
                polyp_free += 1
                false_alarms += bool(segmentation.regions)
        return Accuracy(
            dice=round(float(np.mean(scores)), 4) if scores else None,
            frames_with_polyp=len(scores),
            polyp_free_frames=polyp_free,
            false_positive_rate=round(false_alarms / polyp_free, 4) if polyp_free else None,
        )
