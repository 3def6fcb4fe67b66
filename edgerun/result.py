# SPDX-License-Identifier: Apache-2.0
"""What a model found in a frame, in the frame's own pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgerun.frame import Geometry


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of whole source pixels: columns x to x + width - 1."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """One connected component of a label."""

    label: int
    score: float  # mean probability inside
    area_px: float
    outline_px: NDArray[np.float32]  # [N, 2], x then y, closed
    box: Box


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """A binary mask as logits on the model's grid, and its regions, best first.

    A source pixel is inside where the bilinear interpolation of `logits` at its centre, by `geometry`, is positive:
    regions too small to report are already negative there.
    """

    logits: NDArray[np.float32]  # [h, w]
    geometry: Geometry  # grid cells <-> source pixels
    regions: tuple[Region, ...]

    @property
    def score(self) -> float:
        """Of the best region; 0 when nothing was found."""
        return self.regions[0].score if self.regions else 0.0
