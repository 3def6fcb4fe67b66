# SPDX-License-Identifier: Apache-2.0
"""Polyps of a synthetic scene: ellipsoids that stand on the wall of the tube, and how they are painted."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float32]
Bytes = NDArray[np.uint8]


def as_map(values: object) -> Map:
    """`values` as float32, without a copy where they are already: OpenCV's stubs don't say what they return."""
    return np.asarray(values, dtype=np.float32)


def as_bytes(values: object) -> Bytes:
    """`values` as uint8, without a copy where they are already; fractions are cut off."""
    return np.asarray(values).astype(np.uint8, copy=False)


class PolypShape(enum.Enum):
    """After the Paris classification: 0-Is, 0-Ip, 0-IIa, and a sessile one of several lobes."""

    SESSILE = "sessile"
    PEDUNCULATED = "pedunculated"
    FLAT = "flat"
    LOBED = "lobed"


@dataclass(frozen=True, slots=True)
class Lobe:
    """An ellipsoid: its centre off the polyp's foot (around, along, towards the axis) and its semi-axes, in radii."""

    centre: tuple[float, float, float]
    axes: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Polyp:
    shape: PolypShape
    theta: float  # foot, radians around the axis
    z: float  # foot, radii along the axis
    size: float  # half the width, radii
    turn: float  # radians, of the lobes around the foot
    lobes: tuple[Lobe, ...]
    stalk: Lobe | None  # of mucosa, so not part of the mask
    tint: tuple[float, float, float]  # added to ln(albedo) of R, G, B
    relief: float  # height of the lumps on its lobes, semi-axes
    mottle: float  # contrast of its own texture, in ln(albedo)


def plan_polyps(rng: np.random.Generator, length: float) -> tuple[Polyp, ...]:
    """One to three polyps: a first one near z = 2, and others next to it or half a tube away."""
    polyps = [_plan_polyp(rng, rng.uniform(0, 2 * math.pi), 2.0)]
    for _ in range(int(rng.choice([0, 1, 2], p=[0.35, 0.4, 0.25]))):
        near = rng.random() < 0.35
        place = 2.0 + (rng.uniform(-0.4, 0.4) if near else length / 2 + rng.uniform(-1.0, 1.0))
        polyps.append(_plan_polyp(rng, polyps[-1].theta + rng.uniform(1.3, 5.0), place))
    return tuple(polyps)


def _plan_polyp(rng: np.random.Generator, theta: float, z: float) -> Polyp:
    shape = list(PolypShape)[int(rng.choice(4, p=[0.4, 0.25, 0.15, 0.2]))]
    size = float(np.exp(rng.uniform(math.log(0.17), math.log(0.55))))
    if shape is PolypShape.PEDUNCULATED:
        size = max(0.13, 0.75 * size)
    tints = ((-0.02, -0.25, -0.28), (0.06, 0.15, 0.17), (0.04, 0.02, 0.02), (-0.05, -0.42, -0.40), (0.06, 0.12, 0.02))
    tint = tints[int(rng.choice(5, p=[0.3, 0.25, 0.15, 0.15, 0.15]))]
    scaled = rng.uniform(0.7, 1.25)
    return Polyp(
        shape=shape,
        theta=theta % (2 * math.pi),
        z=z,
        size=size,
        turn=rng.uniform(0, math.pi),
        lobes=_lobes(rng, shape, size),
        stalk=_stalk(rng, size) if shape is PolypShape.PEDUNCULATED else None,
        tint=(tint[0] * scaled, tint[1] * scaled, tint[2] * scaled),
        relief=rng.uniform(0.02, 0.06),
        mottle=rng.uniform(0.04, 0.2),
    )


def _lobes(rng: np.random.Generator, shape: PolypShape, size: float) -> tuple[Lobe, ...]:
    stretch = rng.uniform(0.7, 1.0)
    match shape:
        case PolypShape.SESSILE:
            return (Lobe((0, 0, 0.05 * size), (size, size * stretch, size * rng.uniform(0.7, 1.05))),)
        case PolypShape.PEDUNCULATED:
            return (Lobe((0, 0, rng.uniform(0.9, 1.3) * size), (size, size * stretch, size * rng.uniform(0.8, 1.0))),)
        case PolypShape.FLAT:
            return (Lobe((0, 0, -0.1 * size), (1.2 * size, 1.2 * size * stretch, size * rng.uniform(0.28, 0.42))),)
        case PolypShape.LOBED:
            core = Lobe((0, 0, 0.1 * size), (0.7 * size, 0.7 * size * stretch, 0.6 * size))
            return (core, *(_satellite(rng, size) for _ in range(int(rng.integers(3, 7)))))


def _satellite(rng: np.random.Generator, size: float) -> Lobe:
    angle, far, small = rng.uniform(0, 2 * math.pi), rng.uniform(0.2, 0.52) * size, rng.uniform(0.38, 0.6) * size
    return Lobe(
        (far * math.cos(angle), far * math.sin(angle), rng.uniform(0, 0.45) * size), (small, small, 0.9 * small)
    )


def _stalk(rng: np.random.Generator, size: float) -> Lobe:
    return Lobe((0.0, 0.3 * size, 0.0), (0.42 * size, 0.7 * size, rng.uniform(0.7, 1.0) * size))


def grow_polyp(radius: Map, polyp: Polyp, length: float, rng: np.random.Generator) -> tuple[Map, Map]:
    """`radius` with the polyp on it, and the polyp's own label (0.5 at the border); both like `radius`, new arrays."""
    rows, columns = radius.shape
    row, column = int(polyp.z / length * rows) % rows, int(polyp.theta / (2 * math.pi) * columns) % columns
    # The rest is done with the polyp in the middle of the map, away from the seams.
    shift = (rows // 2 - row, columns // 2 - column)
    wall = np.roll(radius, shift, axis=(0, 1))
    across = (np.arange(columns, dtype=np.float32)[None, :] - columns // 2) * np.float32(2 * math.pi / columns)
    along = (np.arange(rows, dtype=np.float32)[:, None] - rows // 2) * np.float32(length / rows)
    foot = float(np.median(wall[rows // 2 - 4 : rows // 2 + 5, columns // 2 - 4 : columns // 2 + 5]))
    lumps = cv2.GaussianBlur(rng.standard_normal((rows, columns)).astype(np.float32), (0, 0), 10 * polyp.size + 1.5)
    lumps = np.asarray(lumps / (lumps.std() + 1e-6), dtype=np.float32)
    body = np.full_like(wall, np.inf)
    for lobe in polyp.lobes:
        body = _soft_min(body, _lobe_radius(lobe, polyp.turn, foot, across, along), 0.12 * polyp.size)
    body = body + 4 * polyp.relief * polyp.size * lumps
    label = np.clip(0.5 + (wall - body - 0.02 * polyp.size) / (0.12 * polyp.size), 0, 1).astype(np.float32)
    label = as_map(cv2.GaussianBlur(label, (0, 0), 0.8))
    grown = np.maximum(_soft_min(wall, body, 0.10 * polyp.size), 0.12)
    back = (-shift[0], -shift[1])
    return np.roll(grown, back, axis=(0, 1)).astype(np.float32), np.roll(label, back, axis=(0, 1)).astype(np.float32)


def _lobe_radius(lobe: Lobe, turn: float, foot: float, across: Map, along: Map) -> Map:
    """Where the ray from the axis at each (theta, z) meets the ellipsoid; large where it passes by, [rows, columns].

    The point at distance r is linear in r on all three axes of the lobe, so its ellipsoid is a quadratic in r.
    """
    cos, sin = math.cos(turn), math.sin(turn)
    tangent, depth = np.sin(across), np.cos(across)
    slopes = (cos * tangent, -sin * tangent, depth)
    starts = (
        sin * along - lobe.centre[0],
        cos * along - lobe.centre[1],
        np.float32(lobe.centre[2] - foot),
    )
    a = sum((slope / axis) ** 2 for slope, axis in zip(slopes, lobe.axes, strict=True))
    b = sum(s * t / axis**2 for s, t, axis in zip(slopes, starts, lobe.axes, strict=True))
    c = sum((start / axis) ** 2 for start, axis in zip(starts, lobe.axes, strict=True)) - 1.0
    inside = b * b - a * c
    hit = (-b - np.sqrt(np.maximum(inside, 0))) / a
    return as_map(np.where((inside > 0) & (depth > 0), hit, 9.0))


def _soft_min(left: Map, right: Map, soft: float) -> Map:
    """Polynomial smooth minimum: the fillet where a polyp meets the wall is about `soft` radii wide."""
    near = np.maximum(soft - np.abs(np.where(np.isinf(left), 99.0, left) - right), 0) / soft
    return np.asarray(np.minimum(left, right) - near * near * soft * 0.25, dtype=np.float32)


def paint_polyp(paint: Map, polyp: Polyp, length: float, label: Map) -> None:
    """Tint `paint` (coded ln(albedo), in place) where `label` says polyp, around this foot, and set its mottle."""
    rows, columns = paint.shape[:2]
    reach = min(int(2.2 * polyp.size * columns / (2 * math.pi)) + 8, columns // 2 - 1)
    row, column = int(polyp.z / length * rows), int(polyp.theta / (2 * math.pi) * columns)
    at = np.ix_(np.arange(row - reach, row + reach) % rows, np.arange(column - reach, column + reach) % columns)
    mine = cv2.resize(label, (columns, rows), interpolation=cv2.INTER_LINEAR)[at]
    skin = np.clip(mine * 1.6 - 0.3, 0, 1)
    patch = paint[at]
    rim = np.clip(1 - np.abs(mine - 0.5) * 2.2, 0, 1)
    for channel, (tint, edge) in enumerate(zip(polyp.tint, (0.05, 0.12, 0.12), strict=True)):
        patch[..., channel] += 64.0 * (skin * tint - edge * rim)
    patch[..., 3] = np.maximum(patch[..., 3], 255.0 * polyp.mottle * skin)
    paint[at] = patch
