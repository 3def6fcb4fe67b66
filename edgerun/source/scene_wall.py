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

from edgerun.source.scene_polyp import Bytes, Map, Polyp, PolypShape, as_map, grow_polyp, paint_polyp, plan_polyps

LENGTH = 12.0  # the tube repeats after this many radii
SHAPE_SIZE = (768, 384)  # rows, columns of the maps of shape
PAINT_SIZE = (1920, 1024)  # rows, columns of the maps of colour
LOG_ALBEDO_SCALE = 64.0  # paint = 220 + 64 ln(albedo): 8 bits hold 1.6 % steps, below the sensor noise
LOG_ALBEDO_OFFSET = 220.0


@dataclass(frozen=True, slots=True)
class Wall:
    """Everything that doesn't change while the camera moves."""

    radius: Map  # [768, 384] distance of the lining from the axis
    relief: Map  # [768, 384] ln(light) added: ridges catch more of it than pockets
    polyp: Map  # [768, 384] 0 on mucosa, 1 on a polyp, 0.5 at its border
    paint: Bytes  # [1920, 1024, 4] coded ln(albedo) of R, G, B; strength of the mottle
    grain: Bytes  # [1920, 1024, 4] wetness and mottle, 128 on average; nothing (OpenCV samples four at once)
    polyps: tuple[Polyp, ...]
    feet: tuple[float, ...]  # distance of each polyp's foot from the axis
    base: Map  # [3] coded ln(albedo) of the plain lining

    def shape_maps(self, columns: int) -> tuple[Map, Map, Map]:
        """Radius, relief and polyp at another number of columns."""
        size = (columns, SHAPE_SIZE[0])
        maps = (self.radius, self.relief, self.polyp)
        radius, relief, polyp = (as_map(cv2.resize(m, size, interpolation=cv2.INTER_AREA)) for m in maps)
        return radius, relief, polyp


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
    paint, base = _mucosa(rng)
    for polyp in polyps:
        if polyp.shape is PolypShape.FLAT:
            radius, own = grow_polyp(radius, polyp, LENGTH, rng)
            label = np.maximum(label, own)
            paint_polyp(paint, polyp, LENGTH, label)
    feet = tuple(_foot(radius, polyp) for polyp in polyps)
    relief = _relief(radius)
    for polyp in polyps:
        if polyp.shape is not PolypShape.FLAT:
            relief -= _contact(polyp)
    coded = np.clip(paint, 0, 255).astype(np.uint8)
    return Wall(
        radius, relief, label, cv2.GaussianBlur(coded, (3, 3), 0.6).astype(np.uint8), _grain(rng), polyps, feet, base
    )


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
    place, depth = 0.0, rng.uniform(0.25, 0.45)
    while place < LENGTH - 0.35:
        _raise_fold(rng, radius, z, theta, place, depth)
        place += rng.uniform(0.5, 1.15)
    return as_map(np.clip(radius, 0.3, None))


def _raise_fold(rng: np.random.Generator, radius: Map, z: Map, theta: Map, place: float, depth: float) -> None:
    """Take one fold that stands into the lumen off `radius`, in place."""
    middle, arc = rng.uniform(0, 2 * math.pi), rng.uniform(0.35, 1.0)
    waver = sum(rng.uniform(0, 0.09) * np.sin(k * theta + rng.uniform(0, 2 * math.pi)) for k in (1, 2, 3, 5))
    before, behind = np.float32(rng.uniform(0.09, 0.2)), np.float32(rng.uniform(0.05, 0.1))
    reach = round(1.4 / LENGTH * len(z))  # rows: five widths and the waver
    rows = np.arange(-reach, reach) + round(place / LENGTH * len(z))
    away = as_map(z[0] + rows[:, None] * (z[1] - z[0]) - place - waver)
    ridge = 1.0 / (1.0 + (away / np.where(away > 0, behind, before)) ** 2) - np.float32(0.04)
    crest = np.clip((np.cos(theta - middle) + 2 * arc - 1) / (2 * arc), 0, 1) ** 0.6
    radius[rows % len(z)] -= depth * rng.uniform(0.5, 1.3) * crest * np.clip(ridge, 0, None)


def _relief(radius: Map) -> Map:
    """Ambient occlusion, as the height of each place over its surroundings of about 0.2 radii."""
    margin = 40
    padded = np.pad(radius, margin, mode="wrap")
    around = cv2.GaussianBlur(padded, (0, 0), 12.0)[margin:-margin, margin:-margin]
    return np.asarray(0.55 * np.tanh(4.0 * (around - radius)), dtype=np.float32)


def _foot(radius: Map, polyp: Polyp) -> float:
    """Distance from the axis of the wall under a polyp."""
    row, column = int(polyp.z / LENGTH * SHAPE_SIZE[0]), int(polyp.theta / (2 * math.pi) * SHAPE_SIZE[1])
    near = np.ix_(np.arange(row - 3, row + 4) % SHAPE_SIZE[0], np.arange(column - 3, column + 4) % SHAPE_SIZE[1])
    return float(np.median(radius[near]))


def _contact(polyp: Polyp) -> Map:
    """The shade that a standing polyp throws on the wall around its foot, in ln(light)."""
    z, theta = _axes(SHAPE_SIZE)
    across = np.mod(theta - polyp.theta + math.pi, 2 * math.pi) - math.pi
    far = np.sqrt(across**2 + (z - polyp.z) ** 2) / polyp.size
    return np.asarray(0.7 * np.exp(-(np.maximum(far - 0.8, 0) ** 2) * 9), dtype=np.float32)


def _mucosa(rng: np.random.Generator) -> tuple[Map, Map]:
    """Coded ln(albedo) of the lining without polyps and a faint mottle, float [1920, 1024, 4]; its mean, [3]."""
    green, blue = rng.uniform(0.37, 0.56), rng.uniform(0.58, 0.86)
    base = np.log([0.95, 0.95 * green, 0.95 * green * blue])
    patches = octaves(rng, PAINT_SIZE, 128, 4, 0.6)
    fine = octaves(rng, PAINT_SIZE, 8, 3, 0.8) * rng.uniform(0.6, 1.5)
    vessels = _vessels(rng) * rng.uniform(0.3, 1.4)
    mucus = np.clip(octaves(rng, PAINT_SIZE, 64, 5, 0.65) - rng.uniform(1.2, 4.2), 0, 1.5)
    paint = np.full((*PAINT_SIZE, 4), 14, dtype=np.float32)  # mucosa has a faint mottle, too
    weights = ((0.06, 0.02, 0.16, 0.02), (0.13, 0.045, 0.50, 0.16), (0.15, 0.05, 0.42, -0.35))
    for channel, (patch, grain, vessel, slime) in enumerate(weights):
        log_albedo = base[channel] + patch * patches + grain * fine - vessel * vessels + slime * mucus
        paint[..., channel] = LOG_ALBEDO_OFFSET + LOG_ALBEDO_SCALE * log_albedo
    _blow_bubbles(rng, paint)
    return paint, np.asarray(LOG_ALBEDO_OFFSET + LOG_ALBEDO_SCALE * base, dtype=np.float32)


def _blow_bubbles(rng: np.random.Generator, paint: Map) -> None:
    """Draw clusters of small foam bubbles into `paint`: pale rims, a darker film and a bright dot."""
    for _ in range(int(rng.integers(0, 5))):
        middle = rng.uniform((80, 80), (PAINT_SIZE[1] - 80, PAINT_SIZE[0] - 80))
        for _ in range(int(rng.integers(5, 30))):
            x, y = (int(v) for v in middle + rng.normal(0, 22, 2))
            size = int(rng.integers(2, 8))
            cv2.circle(paint, (x, y), size, (214, 190, 182, 0), -1, cv2.LINE_AA)
            cv2.circle(paint, (x, y), size, (232, 212, 204, 0), 1, cv2.LINE_AA)
            cv2.circle(paint, (x - size // 3, y - size // 3), 1, (255, 255, 255, 0), -1, cv2.LINE_AA)


def _grain(rng: np.random.Generator) -> Bytes:
    """Wetness (where glints sit) and mottle (pits and gyri of polyps), [1920, 1024, 4]."""
    drops = 0.55 * octaves(rng, PAINT_SIZE, 16, 3, 1.0)
    wet = drops + 0.9 * octaves(rng, PAINT_SIZE, 128, 2)
    cell = int(rng.choice([4, 8]))
    mottle = np.tanh(0.6 * (octaves(rng, PAINT_SIZE, cell, 2, 0.7) - wrapped_noise(rng, PAINT_SIZE, 4 * cell)))
    grain = np.zeros((*PAINT_SIZE, 4), dtype=np.uint8)
    grain[..., 0] = np.clip(128 + 30 * wet, 0, 255)
    grain[..., 1] = np.clip(128 + 72 * mottle, 0, 255)
    return grain


def _vessels(rng: np.random.Generator) -> Map:
    """Branching vessels, 0 to about 1, [1920, 1024]: drawn on a canvas with a margin that is folded back."""
    margin = 256
    canvas = np.zeros((PAINT_SIZE[0] + 2 * margin, PAINT_SIZE[1] + 2 * margin), dtype=np.uint8)
    for _ in range(int(rng.integers(25, 80))):
        start = rng.uniform((margin, margin), (canvas.shape[1] - margin, canvas.shape[0] - margin))
        _branch(rng, canvas, start, rng.uniform(0, 2 * math.pi), int(rng.integers(2, 5)))
    folded = canvas[margin:-margin].copy()
    np.maximum(folded[:margin], canvas[-margin:], out=folded[:margin])
    np.maximum(folded[-margin:], canvas[:margin], out=folded[-margin:])
    inner = folded[:, margin:-margin].copy()
    np.maximum(inner[:, :margin], folded[:, -margin:], out=inner[:, :margin])
    np.maximum(inner[:, -margin:], folded[:, :margin], out=inner[:, -margin:])
    return as_map(cv2.GaussianBlur(inner, (0, 0), 1.2) / np.float32(255))


def _branch(rng: np.random.Generator, canvas: Bytes, start: NDArray[np.float64], heading: float, width: int) -> None:
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
