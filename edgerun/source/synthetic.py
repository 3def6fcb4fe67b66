# SPDX-License-Identifier: Apache-2.0
"""A synthetic colonoscopy: seeded, endless, at any size and rate, with the truth about its polyps.

A tube with folds and polyps is seen by a camera that carries its own light. The wall is a height field over
(z, theta); which part of it is visible is settled in polar coordinates around the axis with a running minimum,
the shaded result is resampled to the picture. Nothing is kept from one frame to the next.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgerun.source.scene_camera import Journey, Pose, aperture, ray_directions
from edgerun.source.scene_wall import (
    LENGTH,
    LOG_ALBEDO_OFFSET,
    LOG_ALBEDO_SCALE,
    PAINT_SIZE,
    SHAPE_SIZE,
    build_wall,
)

Map = NDArray[np.float32]

MIN_SIDE, MAX_SIDE = 32, 8192
VIEW_ASPECT = 1.25  # the lit picture is no wider than this; the rest is black, as processors show it
RENDER_HEIGHT = 450  # rows that are shaded; taller pictures are enlarged from it
HALF_ANGLE = 0.88  # radians from the centre of the picture to its top edge
NEAR_Z, FAR_Z, DEPTHS = -1.1, 9.0, 256
ANGLES, MAX_ANGLE = 256, 2.2  # radians off the axis
LABEL_REACH = 4.5  # radii ahead; beyond it a polyp is in the dark and isn't called visible
NOISE_MEAN = 10
NOISE_MARGIN = 61


@dataclass(frozen=True, slots=True)
class SceneFrame:
    """One picture and its truth. Both arrays are the caller's."""

    image: NDArray[np.uint8]  # [H, W, 3] RGB
    mask: NDArray[np.uint8]  # [H, W], 255 on the visible part of every polyp, else 0


class SyntheticScene:
    """A colonoscopy in `width` x `height` pixels. `frame` is a pure function, safe to call from any thread."""

    def __init__(self, width: int, height: int, *, fps: float = 30.0, seed: int = 0) -> None:
        """Takes some tenths of a second. Raises ValueError on a side outside 32 to 8192 px or a rate that isn't > 0."""
        for name, side in (("width", width), ("height", height)):
            if not MIN_SIDE <= side <= MAX_SIDE:
                raise ValueError(f"scene {name} is {side} px; expected {MIN_SIDE} to {MAX_SIDE}")
        if not (math.isfinite(fps) and fps > 0):
            raise ValueError(f"scene fps is {fps}; expected a finite rate above 0 Hz")
        self.width, self.height, self.fps, self.seed = width, height, fps, seed
        rng = np.random.Generator(np.random.PCG64(seed))
        self._wall = build_wall(rng)
        self._journey = Journey(rng, self._wall.polyps, LENGTH)
        self._grid = _WallGrid()
        self._look = _Look.draw(rng)
        self._view_width = min(width, round(VIEW_ASPECT * height))
        self._lit = aperture(rng, self._view_width, height)
        render_height = min(height, RENDER_HEIGHT)
        render_width = max(16, round(self._view_width * render_height / height))
        self._rays = ray_directions(render_width, render_height, HALF_ANGLE)
        self._noise = _noise_tile(rng, self._view_width, height, self._look.noise)

    def frame(self, index: int) -> SceneFrame:
        """The scene at `index / fps` seconds, to the nearest microsecond."""
        microseconds = round(index * 1e6 / self.fps)
        pose = self._journey.at(microseconds / 1e6)
        picture, label = self._render(pose)
        size = (self._view_width, self.height)
        if picture.shape[:2] != (size[1], size[0]):
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC)
            label = cv2.resize(label, size, interpolation=cv2.INTER_LINEAR)
        picture = cv2.add(picture, _shifted(self._noise, microseconds, *size))
        return self._framed(picture, label)

    def frames(self, count: int) -> Iterator[SceneFrame]:
        """The first `count` frames."""
        return (self.frame(index) for index in range(count))

    def _framed(self, picture: NDArray[np.uint8], label: Map) -> SceneFrame:
        """Picture and truth within the aperture, on black of the full size."""
        image = np.zeros((self.height, self.width, 3), dtype=np.uint8)
        mask = np.zeros((self.height, self.width), dtype=np.uint8)
        left = (self.width - self._view_width) // 2
        across = slice(left, left + self._view_width)
        cv2.copyTo(picture, self._lit, image[:, across])
        cv2.bitwise_and(cv2.compare(label, 0.5, cv2.CMP_GT), self._lit, mask[:, across])
        return SceneFrame(image, mask)

    def _render(self, pose: Pose) -> tuple[NDArray[np.uint8], Map]:
        """The picture [h, w, 3] without noise, and the label [h, w], at the rendering size."""
        layers, lifted = self._layers(pose)
        rays = cv2.transform(self._rays, pose.rotation)
        right, down, ahead = cv2.split(rays)
        lateral, theta = cv2.cartToPolar(right, down)
        angle = cv2.phase(ahead, lateral)
        columns = theta * np.float32(SHAPE_SIZE[1] / (2 * math.pi)) + np.float32(0.5)  # the layers have a wrapped margin
        rows = np.minimum(angle, np.float32(MAX_ANGLE)) * np.float32((ANGLES - 1) / MAX_ANGLE)
        seen = cv2.remap(layers, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        depth, log_light, facing, label = cv2.split(seen)
        paint, grain = self._paint_at(theta, depth, cv2.remap(lifted, columns, rows, cv2.INTER_LINEAR))
        return self._look.develop(paint, grain, log_light, facing, pose.exposure), label

    def _layers(self, pose: Pose) -> tuple[Map, Map]:
        """What each direction sees: [angle, theta, 4] z in the tube, ln(light), cosine to the normal, label; height.

        The height of the wall over the plain tube, [angle, theta], keeps the fine grain from stretching on slopes.
        """
        radius = self._grid.rows_at(self._wall.radius, pose.z)
        wall = self._grid.seen_from(radius, pose)
        shading = self._grid.shade(wall)
        label = self._grid.rows_at(self._wall.polyp, pose.z)
        label[self._grid.z > LABEL_REACH] = 0
        depth = np.broadcast_to(self._grid.z[:, None] + np.float32(pose.z), wall.shape)
        surface = cv2.merge([np.ascontiguousarray(depth), *shading, label])
        return self._grid.unfold(wall, surface, 1 - radius)

    def _paint_at(self, theta: Map, depth: Map, height: Map) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Paint [h, w, 4] and grain [h, w, 2] at tube coordinates [h, w]."""
        rows, columns = PAINT_SIZE
        x = theta * np.float32(columns / (2 * math.pi)) - np.float32(0.5)
        y = np.mod(depth, np.float32(LENGTH)) * np.float32(rows / LENGTH) - np.float32(0.5)
        lifted = y + height * np.float32(0.8 * rows / LENGTH)
        paint = cv2.remap(self._wall.paint, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        grain = cv2.remap(self._wall.grain, x, lifted, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        return paint, grain


class _WallGrid:
    """The part of the wall around the camera, sampled at fixed distances from it; [DEPTHS, columns] throughout."""

    def __init__(self) -> None:
        near, far = math.asinh(NEAR_Z / 0.7), math.asinh(FAR_Z / 0.7)
        self.z = (0.7 * np.sinh(np.linspace(near, far, DEPTHS))).astype(np.float32)
        theta = (np.arange(SHAPE_SIZE[1], dtype=np.float32) + 0.5) * np.float32(2 * math.pi / SHAPE_SIZE[1])
        self._cos, self._sin = np.cos(theta), np.sin(theta)
        self._step = np.gradient(self.z)[:, None]
        self._column = np.arange(SHAPE_SIZE[1], dtype=np.int64)
        angles = np.linspace(0, MAX_ANGLE, ANGLES, dtype=np.float32)
        self._angles = angles[:, None]
        self._map_x = np.ascontiguousarray(np.broadcast_to(self._column.astype(np.float32), (ANGLES, SHAPE_SIZE[1])))

    def rows_at(self, surface: Map, z: float) -> Map:
        """Rows of a wall map at this grid's depths ahead of `z`, a new array."""
        rows = surface.shape[0]
        place = (self.z + z) * (rows / LENGTH) - 0.5
        below = np.floor(place).astype(np.int64)
        part = (place - below).astype(np.float32)[:, None]
        low = surface[below % rows]
        return np.asarray(low + part * (surface[(below + 1) % rows] - low), dtype=np.float32)

    def seen_from(self, radius: Map, pose: Pose) -> Map:
        """Distance of the wall from the axis of view: the camera's offset and the bend ahead move the tube sideways."""
        curve = np.sign(self.z) * self.z**2 / (1 + 0.12 * np.abs(self.z))
        centre = np.exp(-0.35 * np.maximum(self.z, 0))
        x = (pose.bend[0] * curve - pose.offset[0] * centre).astype(np.float32)
        y = (pose.bend[1] * curve - pose.offset[1] * centre).astype(np.float32)
        wall = radius + x[:, None] * self._cos + y[:, None] * self._sin
        return np.maximum(wall, np.float32(0.05), out=wall)

    def shade(self, wall: Map) -> tuple[Map, Map]:
        """ln(light) and the cosine between normal and view, for a light at the camera."""
        slope_z = np.empty_like(wall)
        slope_z[1:-1] = wall[2:] - wall[:-2]
        slope_z[0], slope_z[-1] = slope_z[1], slope_z[-2]
        slope_z /= 2 * self._step
        wide = np.concatenate([wall[:, -1:], wall, wall[:, :1]], axis=1)
        slope_t = (wide[:, 2:] - wide[:, :-2]) * np.float32(SHAPE_SIZE[1] / (4 * math.pi)) / wall
        distance2 = wall * wall + (self.z**2)[:, None]
        facing = (wall - self.z[:, None] * slope_z) / np.sqrt(distance2 * (1 + slope_z**2 + slope_t**2))
        np.clip(facing, 0, 1, out=facing)
        light = (0.30 + 0.70 * facing) / (distance2 + 0.15)
        return cv2.log(light), facing

    def unfold(self, wall: Map, *surfaces: Map) -> tuple[Map, ...]:
        """Each of `surfaces` [DEPTHS, columns, ...] as seen from the camera, [ANGLES, columns + 2, ...], wrapped.

        Along one theta a ray at angle a meets the wall at the first depth whose own angle is <= a.
        """
        own = cv2.phase(np.ascontiguousarray(np.broadcast_to(self.z[:, None], wall.shape)), wall)
        shade = np.minimum.accumulate(own, axis=0)
        first = np.ceil(np.minimum(shade, MAX_ANGLE) * ((ANGLES - 1) / MAX_ANGLE)).astype(np.int64)
        columns = wall.shape[1]
        # Depths whose running minimum is above the angle of row k: those with ceil(.) > k.
        counts = np.bincount((first * columns + self._column).ravel(), minlength=(ANGLES + 1) * columns)
        counts = counts[: (ANGLES + 1) * columns].reshape(ANGLES + 1, columns)
        hit = DEPTHS - np.cumsum(counts, axis=0)[:ANGLES]
        hit = np.clip(hit, 1, DEPTHS - 1)
        flat = hit * columns + self._column
        before, after = own.ravel()[flat - columns], own.ravel()[flat]
        part = np.clip((before - self._angles) / np.maximum(before - after, np.float32(1e-6)), 0, 1)
        map_y = (hit - 1 + part).astype(np.float32)
        seen = (cv2.remap(s, self._map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for s in surfaces)
        return tuple(np.concatenate([s[:, -1:], s, s[:, :1]], axis=1) for s in seen)


@dataclass(frozen=True, slots=True)
class _Look:
    """How light becomes a picture."""

    gain: float
    shine: float
    noise: float
    bleed: tuple[float, float, float]

    @staticmethod
    def draw(rng: np.random.Generator) -> _Look:
        return _Look(rng.uniform(0.9, 1.25), rng.uniform(0.4, 1.0), rng.uniform(0.8, 2.0), (0.80, 1.0, 1.07))

    def develop(
        self, paint: NDArray[np.uint8], grain: NDArray[np.uint8], log_light: Map, facing: Map, exposure: float
    ) -> NDArray[np.uint8]:
        """The picture, uint8 RGB [h, w, 3]. Shadows are redder than lights: tissue scatters red the furthest."""
        light = float(np.exp(log_light[::4, ::4]).mean())
        log_gain = math.log(self.gain * exposure * 0.62 / (light + 0.12))
        *albedos, strength = cv2.split(paint)
        wetness, mottle = cv2.split(grain)
        glint = self._glints(wetness, facing)
        spots = cv2.multiply(cv2.subtract(mottle, 128, dtype=cv2.CV_32F), strength, scale=1 / (64 * 255), dtype=cv2.CV_32F)
        out = []
        for albedo, power, spot in zip(albedos, self.bleed, (0.25, 1.0, 0.9), strict=True):
            stops = cv2.addWeighted(albedo, 1 / LOG_ALBEDO_SCALE, log_light, power, 0, dtype=cv2.CV_32F)
            stops += spots * np.float32(spot)
            linear = cv2.exp(stops + np.float32(log_gain - LOG_ALBEDO_OFFSET / LOG_ALBEDO_SCALE))
            linear += glint
            out.append(1 - cv2.exp(linear * np.float32(-1.5)))
        return cv2.convertScaleAbs(cv2.merge(out), alpha=255.0 - NOISE_MEAN)

    def _glints(self, wetness: NDArray[np.uint8], facing: Map) -> Map:
        """Mirror images of the lamp, added light [h, w]: where the wet wall faces the lamp but for its fine relief."""
        wet = cv2.addWeighted(wetness, 0.0020 * self.shine, facing, 1.0, -1.0 - 0.38 * self.shine, dtype=cv2.CV_32F)
        return np.asarray(np.clip(wet * 22, 0, 1) ** 2 * np.float32(2.5), dtype=np.float32)


def _noise_tile(rng: np.random.Generator, width: int, height: int, strength: float) -> NDArray[np.uint8]:
    """Sensor noise around NOISE_MEAN, [height + margin, width + margin, 3]: grey grain with some colour."""
    shape = (height + NOISE_MARGIN, width + NOISE_MARGIN)
    grey = cv2.GaussianBlur(rng.standard_normal(shape, dtype=np.float32), (0, 0), max(0.5, height / 1500)) * 1.8
    tile = rng.standard_normal((*shape, 3), dtype=np.float32) * 0.6 + grey[..., None]
    return np.clip(np.round(tile * strength + NOISE_MEAN), 0, 255).astype(np.uint8)


def _shifted(tile: NDArray[np.uint8], key: int, width: int, height: int) -> NDArray[np.uint8]:
    """A view of the tile at a place that depends on `key` alone (multiplicative hash, Knuth TAOCP 6.4)."""
    mixed = ((key & 0xFFFFFFFF) * 2654435761) & 0xFFFFFFFF
    y, x = (mixed >> 8) % NOISE_MARGIN, (mixed >> 20) % NOISE_MARGIN
    return tile[y : y + height, x : x + width]
