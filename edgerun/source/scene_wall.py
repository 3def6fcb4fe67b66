# SPDX-License-Identifier: Apache-2.0
"""The colon of a synthetic scene: a tube that repeats along its axis, with folds, polyps and a painted lining.

Lengths are in tube radii. Rows of every map run along the axis (`z`), columns around it (`theta`); both wrap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgerun.source.scene_polyp import Polyp, grow_polyp, paint_polyp, plan_polyps

Map = NDArray[np.float32]

LENGTH = 12.0  # the tube repeats after this many radii
SHAPE_SIZE = (768, 384)  # rows, columns of the maps of shape
PAINT_SIZE = (1920, 1024)  # rows, columns of the maps of colour
LOG_ALBEDO_SCALE = 64.0  # paint = 220 + 64 ln(albedo): 8 bits hold 1.6 % steps, below the sensor noise
LOG_ALBEDO_OFFSET = 220.0


@dataclass(frozen=True, slots=True)
class Wall:
    """Everything that doesn't change while the camera moves."""

    radius: Map  # [768, 384] distance of the lining from the axis
    polyp: Map  # [768, 384] 0 on mucosa, 1 on a polyp, 0.5 at its border
    paint: NDArray[np.uint8]  # [1920, 1024, 4] coded ln(albedo) of R, G, B; strength of the mottle
    grain: NDArray[np.uint8]  # [1920, 1024, 2] wetness and mottle, 128 on average
    polyps: tuple[Polyp, ...]


def wrapped_noise(rng: np.random.Generator, size: tuple[int, int], cell: int) -> Map:
    """Smooth noise of about unit variance that wraps on both axes. `cell` px must divide both sides of `size`."""
    rows, columns = size[0] // cell, size[1] // cell
    grid = np.pad(rng.standard_normal((rows, columns), dtype=np.float32), 2, mode="wrap")
    big = cv2.resize(grid, None, fx=cell, fy=cell, interpolation=cv2.INTER_CUBIC)
    return np.asarray(big[2 * cell : -2 * cell, 2 * cell : -2 * cell] * 1.35, dtype=np.float32)


def octaves(rng: np.random.Generator, size: tuple[int, int], cell: int, count: int, gain: float = 0.5) -> Map:
    """`count` octaves of wrapped noise, the first of `cell` px, each with `gain` times the amplitude of the last."""
    total = np.zeros(size, dtype=np.float32)
    for octave in range(count):
        total += gain**octave * wrapped_noise(rng, size, cell >> octave)
    return total


def build_wall(rng: np.random.Generator) -> Wall:
    """One colon. Takes some tenths of a second, most of it paint."""
    radius = _folded_tube(rng)
    polyps = plan_polyps(rng, LENGTH)
    label = np.zeros(SHAPE_SIZE, dtype=np.float32)
    for polyp in polyps:
        radius, own = grow_polyp(radius, polyp, LENGTH, rng)
        label = np.maximum(label, own)
    paint = _mucosa(rng)
    for polyp in polyps:
        paint_polyp(paint, polyp, LENGTH, label)
    coded = np.clip(paint, 0, 255).astype(np.uint8)
    return Wall(radius, label, cv2.GaussianBlur(coded, (3, 3), 0.6).astype(np.uint8), _grain(rng), polyps)


def _axes(size: tuple[int, int]) -> tuple[Map, Map]:
    """z [rows, 1] and theta [1, columns] of the cell centres."""
    z = (np.arange(size[0], dtype=np.float32)[:, None] + 0.5) * np.float32(LENGTH / size[0])
    theta = (np.arange(size[1], dtype=np.float32)[None, :] + 0.5) * np.float32(2 * math.pi / size[1])
    return z, theta


def _folded_tube(rng: np.random.Generator) -> Map:
    """Haustra between semilunar folds: each fold takes an arc of the circumference and wavers along the axis."""
    z, theta = _axes(SHAPE_SIZE)
    radius = 1.0 + 0.06 * octaves(rng, SHAPE_SIZE, 64, 3)
    radius += 0.07 * np.cos(3 * theta + rng.uniform(0, 2 * math.pi))  # three taeniae make the lumen triangular
    place, depth = 0.0, rng.uniform(0.2, 0.42)
    while place < LENGTH - 0.35:
        radius -= _fold(rng, z, theta, place, depth)
        place += rng.uniform(0.5, 1.15)
    return np.clip(radius, 0.3, None).astype(np.float32)


def _fold(rng: np.random.Generator, z: Map, theta: Map, place: float, depth: float) -> Map:
    """How far one fold stands into the lumen, [rows, columns]."""
    middle, arc = rng.uniform(0, 2 * math.pi), rng.uniform(0.35, 1.0)
    waver = sum(rng.uniform(0, 0.09) * np.sin(k * theta + rng.uniform(0, 2 * math.pi)) for k in (1, 2, 3, 5))
    away = np.mod(z - place - waver + LENGTH / 2, LENGTH) - LENGTH / 2
    width = np.where(away > 0, rng.uniform(0.05, 0.1), rng.uniform(0.09, 0.2))
    ridge = 1.0 / (1.0 + (away / width) ** 2) - 0.04
    crest = np.clip((np.cos(theta - middle) + 2 * arc - 1) / (2 * arc), 0, 1) ** 0.6
    return np.asarray(depth * rng.uniform(0.5, 1.3) * crest * np.clip(ridge, 0, None), dtype=np.float32)


def _mucosa(rng: np.random.Generator) -> Map:
    """Coded ln(albedo) of the lining without polyps and a mottle of 0, float [1920, 1024, 4]."""
    green, blue = rng.uniform(0.36, 0.56), rng.uniform(0.52, 0.78)
    base = np.log([0.95, 0.95 * green, 0.95 * green * blue])
    patches = octaves(rng, PAINT_SIZE, 128, 4, 0.6)
    fine = octaves(rng, PAINT_SIZE, 8, 3, 0.8) * rng.uniform(0.6, 1.4)
    vessels = _vessels(rng) * rng.uniform(0.25, 1.1)
    mucus = np.clip(octaves(rng, PAINT_SIZE, 64, 4, 0.55) - rng.uniform(1.2, 3.2), 0, 1)
    paint = np.zeros((*PAINT_SIZE, 4), dtype=np.float32)
    weights = ((0.05, 0.015, 0.16, 0.0), (0.11, 0.03, 0.50, 0.25), (0.13, 0.035, 0.42, -0.5))
    for channel, (patch, grain, vessel, slime) in enumerate(weights):
        log_albedo = base[channel] + patch * patches + grain * fine - vessel * vessels + slime * mucus
        paint[..., channel] = LOG_ALBEDO_OFFSET + LOG_ALBEDO_SCALE * log_albedo
    return paint


def _grain(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Wetness (where glints sit) and mottle (pits and gyri of polyps), [1920, 1024, 2]."""
    drops = octaves(rng, PAINT_SIZE, 16, 3, 0.85)
    wet = drops + 1.3 * octaves(rng, PAINT_SIZE, 128, 2)
    cell = int(rng.choice([8, 16]))
    mottle = np.tanh(1.5 * (octaves(rng, PAINT_SIZE, cell, 2, 0.7) - wrapped_noise(rng, PAINT_SIZE, 4 * cell)))
    return np.clip(np.dstack([128 + 26 * wet, 128 + 64 * mottle]), 0, 255).astype(np.uint8)


def _vessels(rng: np.random.Generator) -> Map:
    """Branching vessels, 0 to about 1, [1920, 1024]: drawn on a canvas with a margin that is folded back."""
    margin = 256
    canvas = np.zeros((PAINT_SIZE[0] + 2 * margin, PAINT_SIZE[1] + 2 * margin), dtype=np.uint8)
    for _ in range(int(rng.integers(14, 40))):
        start = rng.uniform((margin, margin), (canvas.shape[1] - margin, canvas.shape[0] - margin))
        _branch(rng, canvas, start, rng.uniform(0, 2 * math.pi), int(rng.integers(2, 5)))
    folded = canvas[margin:-margin].copy()
    np.maximum(folded[:margin], canvas[-margin:], out=folded[:margin])
    np.maximum(folded[-margin:], canvas[:margin], out=folded[-margin:])
    inner = folded[:, margin:-margin].copy()
    np.maximum(inner[:, :margin], folded[:, -margin:], out=inner[:, :margin])
    np.maximum(inner[:, -margin:], folded[:, :margin], out=inner[:, -margin:])
    return cv2.GaussianBlur(inner, (0, 0), 1.2).astype(np.float32) / 255


def _branch(rng: np.random.Generator, canvas: NDArray[np.uint8], start: Map, heading: float, width: int) -> None:
    """Draw one vessel as a wandering line that thins and forks."""
    steps = int(rng.integers(8, 18))
    headings = heading + np.cumsum(rng.normal(0, 0.28, steps))
    points = start + np.cumsum(np.stack([np.cos(headings), np.sin(headings)], axis=1) * 9.0, axis=0)
    cv2.polylines(canvas, [np.round(points * 16).astype(np.int32)], False, 90 + 40 * width, width, cv2.LINE_AA, 4)
    if width <= 1:
        return
    for side in (-1, 1):
        fork = points[int(rng.integers(steps // 2, steps))]
        _branch(rng, canvas, fork, float(headings[-1]) + side * rng.uniform(0.3, 0.9), width - 1)
