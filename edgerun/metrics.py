# SPDX-License-Identifier: Apache-2.0
"""Accuracy: the one implementation for exporters, benchmarks and tests. Masks are boolean or zero / non-zero."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Mask = NDArray[Any]


def dice(found: Mask, truth: Mask) -> float:
    """2 |A and B| / (|A| + |B|). Two empty masks agree: 1."""
    a, b = _same_shape(found, truth)
    total = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return 2 * int(np.count_nonzero(a & b)) / total if total else 1.0


def mean_dice(pairs: Iterable[tuple[Mask, Mask]]) -> float:
    """Mean over images of each image's Dice, as polyp papers report it; nan without images."""
    scores = [dice(found, truth) for found, truth in pairs]
    return math.fsum(scores) / len(scores) if scores else math.nan


def hd95(found: Mask, truth: Mask, spacing: tuple[float, float] = (1.0, 1.0)) -> float:
    """The 95th percentile of the distances between two mask outlines, both ways, in units of `spacing`.

    `spacing` is (row, column), a pixel's size. Two empty masks: 0; one empty: inf. With square pixels the
    distances are OpenCV's exact ones, in float32.
    """
    a, b = _same_shape(found, truth)
    if not a.any() or not b.any():
        return 0.0 if a.any() == b.any() else math.inf
    edge_a, edge_b = surface(a), surface(b)
    there, back = _distances(edge_a, edge_b, spacing), _distances(edge_b, edge_a, spacing)
    return float(np.percentile(np.concatenate((there, back)), 95))


def surface(mask: Mask) -> NDArray[np.bool_]:
    """The pixels of a mask that touch its outside by an edge; the border of the picture counts as outside."""
    inside = np.pad(np.asarray(mask) != 0, 1)
    core = inside[1:-1, 1:-1]
    deep = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    return np.asarray(core & ~deep, np.bool_)


def _distances(
    sources: NDArray[np.bool_], targets: NDArray[np.bool_], spacing: tuple[float, float]
) -> NDArray[np.float64]:
    """From each source pixel to the nearest target pixel."""
    if spacing[0] == spacing[1]:
        away = np.where(targets, 0, 1).astype(np.uint8)
        field = cv2.distanceTransform(away, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        return np.asarray(field[sources], np.float64) * spacing[0]
    # OpenCV knows square pixels only: all pairs, a block of sources at a time
    points = np.argwhere(sources) * np.asarray(spacing)
    others = np.argwhere(targets) * np.asarray(spacing)
    blocks = (points[i : i + 256] for i in range(0, len(points), 256))
    return np.concatenate([np.sqrt(((b[:, None] - others) ** 2).sum(-1).min(axis=1)) for b in blocks])


def auroc(scores: ArrayLike, truth: ArrayLike) -> float:
    """The chance that a positive scores above a negative, ties counting half; nan when a class is absent."""
    s, t = np.asarray(scores, np.float64).ravel(), np.asarray(truth).ravel() != 0
    positives, negatives = int(t.sum()), int((~t).sum())
    if not positives or not negatives:
        return math.nan
    _, place, count = np.unique(s, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(count) - (count - 1) / 2
    above = mean_rank[place][t].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def f1(found: ArrayLike, truth: ArrayLike) -> float:
    """F1 of yes/no answers, which is Dice over cases; 1 when there was nothing to find and nothing was found."""
    return dice(np.asarray(found).ravel(), np.asarray(truth).ravel())


def false_positive_rate(found: Iterable[Mask]) -> float:
    """The share of pictures without a finding in which a mask has any pixel; nan without pictures."""
    marked = [bool(np.any(mask)) for mask in found]
    return sum(marked) / len(marked) if marked else math.nan


def _same_shape(found: Mask, truth: Mask) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    a, b = np.asarray(found) != 0, np.asarray(truth) != 0
    if a.shape != b.shape:
        raise ValueError(f"masks differ in shape: found {a.shape}, truth {b.shape}")
    return a, b
