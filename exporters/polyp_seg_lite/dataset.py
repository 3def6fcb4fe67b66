# SPDX-License-Identifier: Apache-2.0
"""Kvasir-SEG in memory, and the random views of it that training sees."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgerun.source.synthetic import SyntheticScene

Image = NDArray[np.uint8]
MASK_THRESHOLD = 128  # Kvasir-SEG's masks are JPEGs
EVALUATION_SEEDS = 1000
STORED_SIDE = 448  # training images are kept at this longer side: above the network's 320, below the disk's


@dataclass(frozen=True, slots=True)
class Sample:
    """An RGB image [H, W, 3] and its mask [H, W], 0 or 255."""

    name: str
    image: Image
    mask: Image


def read_split(data: Path, split: str) -> list[Sample]:
    """All samples of `train` (800) or `val` (200) at full resolution, by the published split."""
    listing = json.loads((data / "reference_anupam" / f"kvasir_{split}.json").read_text())
    root = data / "Kvasir-SEG"
    return [_read(root, str(row["filename"])) for row in listing["samples"]]


def _read(root: Path, name: str) -> Sample:
    image = cv2.imread(str(root / "images" / name), cv2.IMREAD_COLOR)
    mask = cv2.imread(str(root / "masks" / name), cv2.IMREAD_GRAYSCALE)
    if image is None or mask is None:
        raise FileNotFoundError(f"{root / 'images' / name} or its mask can't be read: fetch Kvasir-SEG again")
    binary = np.where(mask >= MASK_THRESHOLD, 255, 0).astype(np.uint8)
    return Sample(name, np.ascontiguousarray(image[..., ::-1]), binary)


def shrink(sample: Sample) -> Sample:
    """The sample with its longer side at `STORED_SIDE`, so that augmentation reads little memory."""
    h, w = sample.mask.shape
    scale = STORED_SIDE / max(h, w)
    size = (round(w * scale), round(h * scale))
    image = cv2.resize(sample.image, size, interpolation=cv2.INTER_AREA)
    mask = cv2.resize(sample.mask, size, interpolation=cv2.INTER_AREA)
    return Sample(sample.name, image.astype(np.uint8), mask.astype(np.uint8))


def synthetic_samples(count: int) -> list[Sample]:
    """One frame of each of the scenes seeded 0 to count - 1, of every other one a frame without polyp if it has one.

    Seeds from 1000 up are for evaluation.
    """
    if count > EVALUATION_SEEDS:
        raise ValueError(f"{count} synthetic scenes; seeds from {EVALUATION_SEEDS} up are kept for evaluation")
    return [_synthetic_sample(seed) for seed in range(count)]


def _synthetic_sample(seed: int) -> Sample:
    rng = np.random.default_rng(seed)
    width = int(rng.choice([STORED_SIDE, STORED_SIDE * 9 // 10]))
    height = STORED_SIDE * (9 if rng.random() < 0.5 else 12) // 16
    scene = SyntheticScene(width, height, fps=1.0, seed=seed)
    for index in rng.permutation(40):
        frame = scene.frame(int(index))
        if (np.count_nonzero(frame.mask) > frame.mask.size // 200) == (seed % 2 == 0):
            break
    return Sample(f"synthetic-{seed}", frame.image, frame.mask)


def random_view(sample: Sample, side: int, rng: np.random.Generator, polyp_free: float = 0.06) -> tuple[Image, Image]:
    """One augmented [side, side] view: geometry by one affine warp, then colour and sharpness."""
    matrix = _polyp_free_window(sample, side, rng) if rng.random() < polyp_free else None
    if matrix is None:
        matrix = _random_affine(sample, side, rng)
    border = cv2.BORDER_REFLECT_101 if rng.random() < 0.5 else cv2.BORDER_CONSTANT
    image = cv2.warpAffine(sample.image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=border)
    mask = cv2.warpAffine(sample.mask, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=border)
    return _recolour(image.astype(np.uint8), rng), mask.astype(np.uint8)


def _random_affine(sample: Sample, side: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Source -> view: stretch to the square as serving does, then flip, rotate, zoom, shear, shift."""
    h, w = sample.mask.shape
    centre = np.array([[1, 0, -w / 2], [0, 1, -h / 2], [0, 0, 1]], np.float64)
    stretch = np.diag([side / w, side / h, 1.0])
    zoom = np.exp(rng.uniform(np.log(0.7), np.log(1.6)))
    aspect = np.exp(rng.uniform(-0.2, 0.2))
    angle = rng.uniform(-np.pi, np.pi) if rng.random() < 0.6 else rng.normal(0, 0.15)
    flip = np.diag([rng.choice([-1.0, 1.0]), rng.choice([-1.0, 1.0]), 1.0])
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    skew = np.array([[1, rng.normal(0, 0.06), 0], [rng.normal(0, 0.06), 1, 0], [0, 0, 1]])
    shift = np.eye(3)
    shift[:2, 2] = side / 2 + rng.uniform(-0.15, 0.15, 2) * side
    whole = shift @ np.diag([zoom * aspect, zoom / aspect, 1.0]) @ skew @ turn @ flip @ stretch @ centre
    return np.asarray(whole[:2], np.float64)


def _polyp_free_window(sample: Sample, side: int, rng: np.random.Generator) -> NDArray[np.float64] | None:
    """A crop that holds no polyp pixel, if ten tries find one."""
    h, w = sample.mask.shape
    for _ in range(10):
        edge = int(rng.uniform(0.3, 0.6) * min(h, w))
        x, y = int(rng.integers(0, w - edge)), int(rng.integers(0, h - edge))
        if not sample.mask[y : y + edge, x : x + edge].any():
            scale = side / edge
            return np.array([[scale, 0, -x * scale], [0, scale, -y * scale]])
    return None


def _recolour(image: Image, rng: np.random.Generator) -> Image:
    x = image.astype(np.float32)
    if rng.random() < 0.8:
        x *= np.exp(rng.normal(0, 0.12, 3)).astype(np.float32)  # white balance
        grey = x.mean(axis=2, keepdims=True)
        x = grey + (x - grey) * np.float32(np.exp(rng.normal(0, 0.25)))  # saturation
        x = (x - 110) * np.float32(np.exp(rng.normal(0, 0.2))) + np.float32(110 + rng.normal(0, 18))
    if rng.random() < 0.3:
        x = 255 * (np.clip(x, 0, 255) / 255) ** np.float32(np.exp(rng.normal(0, 0.25)))
    if rng.random() < 0.2:
        x = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.5, 2.0)).astype(np.float32)
    if rng.random() < 0.2:
        x += rng.normal(0, rng.uniform(2, 8), x.shape).astype(np.float32)
    return np.clip(x, 0, 255).astype(np.uint8)
