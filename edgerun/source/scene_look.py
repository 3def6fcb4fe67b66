# SPDX-License-Identifier: Apache-2.0
"""How light becomes a picture: exposure, colour in shadow, glints and the curve of the sensor."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from edgerun.source.scene_growth import View
from edgerun.source.scene_polyp import Bytes, Map, as_bytes, as_map
from edgerun.source.scene_wall import LOG_ALBEDO_OFFSET, LOG_ALBEDO_SCALE

NOISE_MEAN = 10  # room that a developed picture leaves for unsigned noise to be added


@dataclass(frozen=True, slots=True)
class Look:
    """How light becomes a picture."""

    gain: float
    shine: float
    noise: float
    half_angle: float  # radians from the centre of the picture to its top edge
    bleed: tuple[float, float, float] = (0.80, 1.0, 1.07)  # how fast R, G, B fall off into the shadow

    @staticmethod
    def draw(rng: np.random.Generator) -> Look:
        return Look(
            gain=rng.uniform(1.0, 1.5),
            shine=rng.uniform(0.5, 1.0),
            noise=rng.uniform(0.8, 1.8),
            half_angle=rng.uniform(0.62, 0.82),
        )

    def develop(self, view: View, exposure: float) -> Bytes:
        """The picture, uint8 RGB [h, w, 3]. Shadows are redder than lights: tissue scatters red the furthest."""
        light = float(np.exp(view.log_light[::4, ::4]).mean())
        log_gain = math.log(self.gain * exposure * 0.62 / (light + 0.12)) - LOG_ALBEDO_OFFSET / LOG_ALBEDO_SCALE
        *albedos, strength = cv2.split(view.paint)
        wetness, mottle, _, _ = cv2.split(view.grain)
        glint = self._glints(as_bytes(wetness), view.facing, view.log_light)
        spots = as_map(cv2.multiply(as_map(mottle) - 128, as_map(strength), scale=1 / (64 * 255)))
        out = []
        for albedo, power, spot in zip(albedos, self.bleed, (0.25, 1.0, 0.9), strict=True):
            stops = cv2.addWeighted(albedo, 1 / LOG_ALBEDO_SCALE, view.log_light, power, log_gain, dtype=cv2.CV_32F)
            linear = as_map(cv2.exp(cv2.scaleAdd(spots, spot, stops))) + glint
            out.append(as_bytes((1 - as_map(cv2.exp(linear * np.float32(-1.5)))) * np.float32(255 - NOISE_MEAN)))
        return as_bytes(cv2.merge(out))

    def _glints(self, wetness: Bytes, facing: Map, log_light: Map) -> Map:
        """Mirror images of the lamp, added light [h, w]: where the wet wall faces the lamp but for its fine relief."""
        wet = as_map(
            cv2.addWeighted(wetness, 0.0020 * self.shine, facing, 1.0, -1.0 - 0.355 * self.shine, dtype=cv2.CV_32F)
        )
        wet += log_light * np.float32(0.035)  # the mirror image of a distant lamp is weak
        return np.asarray(np.clip(wet * 22, 0, 1) ** 2 * np.float32(2.5), dtype=np.float32)
