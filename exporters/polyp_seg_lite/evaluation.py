# SPDX-License-Identifier: Apache-2.0
"""The pictures that polyp-seg-lite is judged on: none of them was trained or calibrated on."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from edgerun.source.synthetic import SyntheticScene
from exporters.polyp_seg_lite.dataset import EVALUATION_SEEDS, Sample
from exporters.verify import Case, Image

CROP_SIDES = (0.6, 0.5, 0.4, 0.3)  # of the shorter side of the picture
CROP_STEPS = 5
SCENES = 16
SCENE_SIZE = (640, 480)
SCENE_FRAMES = range(0, 40, 3)
POLYP_SHARE = 0.005  # a synthetic frame counts as showing a polyp from this share of its pixels


def polyp_free_crops(samples: Iterable[Sample]) -> list[Image]:
    """Of each image the largest, then first, square on a fixed grid that holds no polyp pixel, if there is one."""
    crops = (_polyp_free_crop(sample) for sample in samples)
    return [crop for crop in crops if crop is not None]


def _polyp_free_crop(sample: Sample) -> Image | None:
    height, width = sample.mask.shape
    for share in CROP_SIDES:
        side = int(share * min(height, width))
        for y in np.linspace(0, height - side, CROP_STEPS).astype(int):
            for x in np.linspace(0, width - side, CROP_STEPS).astype(int):
                if not sample.mask[y : y + side, x : x + side].any():
                    return np.ascontiguousarray(sample.image[y : y + side, x : x + side])
    return None


def synthetic_cases(scenes: int = SCENES) -> tuple[list[Case], list[Image]]:
    """Frames with a polyp, with their truth, and frames without one, of scenes that training never saw."""
    shown: list[Case] = []
    free: list[Image] = []
    for seed in range(EVALUATION_SEEDS, EVALUATION_SEEDS + scenes):
        scene = SyntheticScene(*SCENE_SIZE, fps=1.0, seed=seed)
        for index in SCENE_FRAMES:
            frame = scene.frame(index)
            polyp = np.count_nonzero(frame.mask)
            if polyp >= POLYP_SHARE * frame.mask.size:
                shown.append(Case(frame.image, frame.mask))
            elif not polyp:
                free.append(frame.image)
    return shown, free
