# SPDX-License-Identifier: Apache-2.0
"""A synthetic colonoscopy: seeded, endless, at any size and rate, with the truth about its polyps.

A tube with folds and polyps is seen by a camera that carries its own light. The wall is a height field over
(z, theta); which part of it is visible is settled in polar coordinates around the axis with a running minimum,
the shaded result is resampled to the picture. Nothing is kept from one frame to the next.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from edgerun.source.scene_camera import LABEL_REACH, Journey, Pose, aperture, foothold, ray_directions
from edgerun.source.scene_growth import View, draw_growth, window_of
from edgerun.source.scene_look import NOISE_MEAN, Look
from edgerun.source.scene_polyp import Bytes, Map, PolypShape, as_bytes, as_map
from edgerun.source.scene_unfold import WallGrid
from edgerun.source.scene_wall import LENGTH, PAINT_SIZE, build_wall

MIN_SIDE, MAX_SIDE = 32, 8192
VIEW_ASPECT = 1.25  # the lit picture is no wider than this; the rest is black, as processors show it
RENDER_HEIGHT = 450  # rows that are shaded; taller pictures are enlarged from it
FINE_GRID, SMALL_GRID, SMALL_HEIGHT = (384, 256, 320), (256, 176, 224), 360  # columns, depths, angles; px
NOISE_MARGIN = 61


@dataclass(frozen=True, slots=True)
class SceneFrame:
    """One picture and its truth. Both arrays are the caller's."""

    image: Bytes  # [H, W, 3] RGB
    mask: Bytes  # [H, W], 255 on the visible part of every polyp, else 0


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
        self._grid = WallGrid(*(FINE_GRID if height > SMALL_HEIGHT else SMALL_GRID))
        self._shape = self._wall.shape_maps(self._grid.columns)
        self._look = Look.draw(rng)
        self._view_width = min(width, round(VIEW_ASPECT * height))
        self._lit = aperture(rng, self._view_width, height)
        render_height = min(height, RENDER_HEIGHT)
        render_width = max(16, round(self._view_width * render_height / height))
        self._rays = ray_directions(render_width, render_height, self._look.half_angle)
        self._vignette = np.asarray(0.9 * (self._rays[..., 2] - 1), dtype=np.float32)
        self._noise = _noise_tile(rng, self._view_width, height, self._look.noise)

    def frame(self, index: int) -> SceneFrame:
        """The scene at `index / fps` seconds, to the nearest microsecond."""
        microseconds = round(index * 1e6 / self.fps)
        pose = self._journey.at(microseconds / 1e6)
        picture, label = self._render(pose)
        size = (self._view_width, self.height)
        if picture.shape[:2] != (size[1], size[0]):
            picture = as_bytes(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC))
            label = as_map(cv2.resize(label, size, interpolation=cv2.INTER_LINEAR))
        noisy = cv2.add(picture, _shifted(self._noise, microseconds, *size))
        return self._framed(as_bytes(noisy), label)

    def frames(self, count: int, threads: int = 1) -> Iterator[SceneFrame]:
        """The first `count` frames in order, each thread at most two frames ahead of what is taken."""
        ahead: deque[Future[SceneFrame]] = deque(maxlen=2 * threads)
        with ThreadPoolExecutor(threads, "edgerun-scene") as pool:
            for index in range(count):
                if len(ahead) == ahead.maxlen:
                    yield ahead.popleft().result()
                ahead.append(pool.submit(self.frame, index))
            while ahead:
                yield ahead.popleft().result()

    def _framed(self, picture: Bytes, label: Map) -> SceneFrame:
        """Picture and truth within the aperture, on black of the full size."""
        image = np.zeros((self.height, self.width, 3), dtype=np.uint8)
        mask = np.zeros((self.height, self.width), dtype=np.uint8)
        left = (self.width - self._view_width) // 2
        across = slice(left, left + self._view_width)
        cv2.copyTo(picture, self._lit, image[:, across])
        np.multiply(self._lit, label > 0.5, out=mask[:, across])
        return SceneFrame(image, mask)

    def _render(self, pose: Pose) -> tuple[Bytes, Map]:
        """The picture [h, w, 3] without noise, and the label [h, w], at the rendering size."""
        rays = as_map(cv2.transform(self._rays, pose.rotation))
        right, down, ahead = cv2.split(rays)
        lateral, theta = cv2.cartToPolar(right, down)
        x, y = self._grid.place_of(as_map(theta), as_map(cv2.phase(ahead, lateral)))
        near, far = (cv2.remap(layer, x, y, cv2.INTER_LINEAR) for layer in self._layers(pose))
        depth, log_light, facing, label = (as_map(channel) for channel in cv2.split(near))
        height, distance = (as_map(channel) for channel in cv2.split(far)[:2])
        view = View(rays, distance, log_light, facing, label, *self._paint_at(as_map(theta), depth, height))
        self._grow(view, pose)
        np.add(view.log_light, self._vignette, out=view.log_light)
        return self._look.develop(view, pose.exposure), label

    def _grow(self, view: View, pose: Pose) -> None:
        """Draw the standing polyps within reach, far ones first."""
        stood = zip(self._wall.polyps, self._wall.feet, strict=True)
        placed = [(self._journey.ahead(polyp, pose.z), polyp, foot) for polyp, foot in stood]
        for ahead, polyp, foot in sorted(placed, key=lambda item: -item[0]):
            if polyp.shape is PolypShape.FLAT or ahead > LABEL_REACH:
                continue
            hold = foothold(pose, polyp, ahead, foot)
            window = window_of(hold, polyp, pose.rotation, view.label.shape, self._look.half_angle)
            if window is not None:
                draw_growth(view, polyp, hold, window, self._wall.grain, self._wall.base)

    def _layers(self, pose: Pose) -> tuple[Map, Map]:
        """What each direction off the axis sees of the wall, both [angle, theta, 4].

        First z in the tube, ln(light), cosine to the normal and label; then height over the plain tube and distance.
        """
        grid, z = self._grid, self._grid.z[:, None]
        radius = grid.rows_at(self._shape[0], pose.z)
        wall = grid.seen_from(radius, pose)
        log_light, facing, distance = grid.shade(wall)
        log_light += grid.rows_at(self._shape[1], pose.z)
        label = grid.rows_at(self._shape[2], pose.z)
        label[grid.z > LABEL_REACH] = 0
        depth = np.repeat(z + np.float32(pose.z), wall.shape[1], axis=1)
        # Four channels each, although the second needs two: OpenCV samples those about three times as fast.
        layers = cv2.merge([depth, log_light, facing, label]), cv2.merge([1 - radius, distance, distance, distance])
        first, second = grid.unfold(wall, *(as_map(layer) for layer in layers))
        return first, second

    def _paint_at(self, theta: Map, depth: Map, height: Map) -> tuple[Bytes, Bytes]:
        """Paint [h, w, 4] and grain [h, w, 4] at tube coordinates [h, w]."""
        rows, columns = PAINT_SIZE
        x = theta * np.float32(columns / (2 * math.pi)) - np.float32(0.5)
        y = np.mod(depth, np.float32(LENGTH)) * np.float32(rows / LENGTH) - np.float32(0.5)
        lifted = y + height * np.float32(0.8 * rows / LENGTH)
        paint = cv2.remap(self._wall.paint, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        grain = cv2.remap(self._wall.grain, x, lifted, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        return as_bytes(paint), as_bytes(grain)


def _noise_tile(rng: np.random.Generator, width: int, height: int, strength: float) -> Bytes:
    """Sensor noise around NOISE_MEAN, [height + margin, width + margin, 3]: grey grain with some colour.

    Repeats after 1024 px, which the eye doesn't find and which keeps the work of a large scene small.
    """
    rows, columns = min(height + NOISE_MARGIN, 1024), min(width + NOISE_MARGIN, 1024)
    grain = rng.standard_normal((rows, columns), dtype=np.float32)
    grey = as_map(cv2.GaussianBlur(grain, (0, 0), max(0.5, height / 1500))) * np.float32(1.8)
    tile = rng.standard_normal((rows, columns, 3), dtype=np.float32) * np.float32(0.6) + grey[..., None]
    coded = as_bytes(np.clip(np.round(tile * np.float32(strength) + NOISE_MEAN), 0, 255))
    missing = (height + NOISE_MARGIN - rows, width + NOISE_MARGIN - columns)
    return np.pad(coded, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="wrap")


def _shifted(tile: Bytes, key: int, width: int, height: int) -> Bytes:
    """A view of the tile at a place that depends on `key` alone (multiplicative hash, Knuth TAOCP 6.4)."""
    mixed = ((key & 0xFFFFFFFF) * 2654435761) & 0xFFFFFFFF
    y, x = (mixed >> 8) % NOISE_MARGIN, (mixed >> 20) % NOISE_MARGIN
    return tile[y : y + height, x : x + width]
