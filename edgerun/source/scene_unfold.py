# SPDX-License-Identifier: Apache-2.0
"""Which part of the wall each direction sees: the wall of a tube is a height field, seen from inside along its axis."""

from __future__ import annotations

import math

import cv2
import numpy as np

from edgerun.source.scene_camera import Pose
from edgerun.source.scene_polyp import Map, as_map
from edgerun.source.scene_wall import LENGTH

NEAR_Z, FAR_Z = -1.1, 8.9  # radii from the camera along the axis
MAX_ANGLE = 2.1  # radians off the axis


class WallGrid:
    """The part of the wall around the camera, sampled at fixed distances from it; [depths, columns] throughout."""

    def __init__(self, columns: int, depths: int, angles: int) -> None:
        """`columns` around the axis, `depths` along it; `unfold` gives pictures of `angles` rows."""
        self.columns, self.depths, self.angles = columns, depths, angles
        near, far = math.asinh(NEAR_Z / 0.7), math.asinh(FAR_Z / 0.7)
        self.z = (0.7 * np.sinh(np.linspace(near, far, depths))).astype(np.float32)
        self._behind = int(np.count_nonzero(self.z < 0))
        theta = (np.arange(columns, dtype=np.float32) + 0.5) * np.float32(2 * math.pi / columns)
        self._cos, self._sin = np.cos(theta), np.sin(theta)
        self._step = np.gradient(self.z)[:, None]
        self._column = np.arange(columns, dtype=np.int64)
        self._angles = np.linspace(0, MAX_ANGLE, angles, dtype=np.float32)[:, None]
        self._map_x = np.ascontiguousarray(np.broadcast_to(self._column.astype(np.float32), (angles, columns)))

    def rows_at(self, surface: Map, z: float) -> Map:
        """Rows of a wall map at this grid's depths ahead of `z`, a new array."""
        rows = surface.shape[0]
        place = (self.z + z) * (rows / LENGTH) - 0.5
        below = np.floor(place).astype(np.int64)
        part = (place - below).astype(np.float32)[:, None]
        low = surface[below % rows]
        return np.asarray(low + part * (surface[(below + 1) % rows] - low), dtype=np.float32)

    def seen_from(self, radius: Map, pose: Pose) -> Map:
        """Distance of the wall from the line of view."""
        return radius * pose.widening(self.z[:, None], self._cos, self._sin)

    def shade(self, wall: Map) -> tuple[Map, Map, Map]:
        """ln(light), the cosine between normal and view, and the distance, for a light at the camera."""
        slope_z = np.empty_like(wall)
        slope_z[1:-1] = wall[2:] - wall[:-2]
        slope_z[0], slope_z[-1] = slope_z[1], slope_z[-2]
        slope_z /= 2 * self._step
        wide = np.concatenate([wall[:, -1:], wall, wall[:, :1]], axis=1)
        slope_t = (wide[:, 2:] - wide[:, :-2]) * np.float32(self.columns / (4 * math.pi)) / wall
        distance2 = wall * wall + (self.z**2)[:, None]
        facing = (wall - self.z[:, None] * slope_z) / np.sqrt(distance2 * (1 + slope_z**2 + slope_t**2))
        np.clip(facing, 0, 1, out=facing)
        light = (0.25 + 0.75 * facing) / (distance2 + 0.15)
        return as_map(cv2.log(light)), facing, np.sqrt(distance2)

    def place_of(self, theta: Map, angle: Map) -> tuple[Map, Map]:
        """Column and row of `unfold`'s pictures that show the direction `angle` off the axis at `theta`, radians."""
        columns = theta * np.float32(self.columns / (2 * math.pi)) + np.float32(0.5)
        return columns, np.minimum(angle, np.float32(MAX_ANGLE)) * np.float32((self.angles - 1) / MAX_ANGLE)

    def unfold(self, wall: Map, *surfaces: Map) -> tuple[Map, ...]:
        """Each of `surfaces` [depths, columns, ...] as seen from the camera, [angles, columns + 2, ...], wrapped.

        Along one theta a ray at angle a meets the wall at the first depth whose own angle is <= a.
        """
        own = as_map(cv2.phase(np.repeat(self.z[:, None], wall.shape[1], axis=1), wall))
        # Behind the camera (angles above 90 degrees) the wall hides what is further back.
        shade = np.empty_like(own)
        np.minimum.accumulate(own[self._behind :], axis=0, out=shade[self._behind :])
        np.maximum.accumulate(own[self._behind - 1 :: -1], axis=0, out=shade[self._behind - 1 :: -1])
        first = np.ceil(np.minimum(shade, MAX_ANGLE) * ((self.angles - 1) / MAX_ANGLE)).astype(np.int64)
        columns = self.columns
        # Depths whose running minimum is above the angle of row k: those with ceil(.) > k.
        counts = np.bincount((first * columns + self._column).ravel(), minlength=(self.angles + 1) * columns)
        hit = self.depths - np.cumsum(counts.reshape(-1, columns), axis=0)[: self.angles]
        hit = np.clip(hit, 1, self.depths - 1)
        flat = hit * columns + self._column
        before, after = own.ravel()[flat - columns], own.ravel()[flat]
        part = np.clip((before - self._angles) / np.maximum(before - after, np.float32(1e-6)), 0, 1)
        map_y = (hit - 1 + part).astype(np.float32)
        seen = (cv2.remap(s, self._map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for s in surfaces)
        wrapped = (cv2.copyMakeBorder(s, 0, 0, 1, 1, cv2.BORDER_WRAP) for s in seen)
        return tuple(as_map(cv2.GaussianBlur(s, (3, 3), 0.7)) for s in wrapped)  # softens the steps of occluding edges
