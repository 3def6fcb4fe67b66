# SPDX-License-Identifier: Apache-2.0
"""Where the endoscope of a synthetic scene is, where it looks, and what part of the picture it lights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from edgerun.source.scene_growth import Foothold
from edgerun.source.scene_polyp import Bytes, Map, Polyp

LABEL_REACH = 4.5  # radii ahead; beyond it a polyp is in the dark and isn't called visible


@dataclass(frozen=True, slots=True)
class Pose:
    """The camera at one moment. The rotation takes picture directions (right, down, ahead) to tube directions."""

    z: float  # radii along the axis
    offset: tuple[float, float]  # of the camera from the axis, radii
    bend: tuple[float, float]  # of the tube ahead, radii per radius squared
    rotation: Map  # [3, 3]
    exposure: float  # factor on the light

    def widening(self, z: Map, cos: Map, sin: Map) -> Map:
        """Factor from distance off the tube's axis to distance off the line of view, `z` radii ahead of the camera.

        A product, not a sum, so the line of view never leaves the tube; in the dark far end the tube closes.
        """
        ahead = np.maximum(z, 0)
        curve = np.sign(z) * z * z / (1 + 0.25 * np.abs(z))
        near = np.exp(-0.35 * ahead)
        x, y = (bend * curve - offset * near for bend, offset in zip(self.bend, self.offset, strict=True))
        closing = np.sqrt(np.maximum(1 - (ahead / 9) ** 2, 1e-3))
        return np.asarray(closing * np.exp(x * cos + y * sin), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Wave:
    """A slow smooth wander around zero: three sines."""

    amplitudes: tuple[float, ...]
    rates: tuple[float, ...]  # radians per second
    phases: tuple[float, ...]

    def at(self, seconds: float) -> float:
        parts = zip(self.amplitudes, self.rates, self.phases, strict=True)
        return sum(a * math.sin(w * seconds + p) for a, w, p in parts)


def draw_wave(rng: np.random.Generator, amplitude: float, slowest_s: float) -> Wave:
    """A wave of about `amplitude`, with periods of `slowest_s` and below."""
    shares, periods = (0.6, 0.3, 0.1), (1.0, 0.47, 0.19)
    return Wave(
        tuple(amplitude * share for share in shares),
        tuple(2 * math.pi / (slowest_s * period * rng.uniform(0.85, 1.15)) for period in periods),
        tuple(rng.uniform(0, 2 * math.pi) for _ in shares),
    )


class Journey:
    """The camera's path over time; immutable after construction."""

    def __init__(self, rng: np.random.Generator, polyps: tuple[Polyp, ...], length: float) -> None:
        self._polyps, self._length = polyps, length
        self._swing, self._period = rng.uniform(1.6, 2.1), rng.uniform(11, 16)
        self._phase, self._drift = rng.uniform(-0.6, 1.2), rng.uniform(0.03, 0.08)
        self._waves = {
            "x": draw_wave(rng, 0.30, 7.0),
            "y": draw_wave(rng, 0.30, 8.0),
            "yaw": draw_wave(rng, 0.34, 6.5),
            "pitch": draw_wave(rng, 0.30, 7.5),
            "roll": draw_wave(rng, 0.5, 12.0),
            "bend_x": draw_wave(rng, 0.06, 15.0),
            "bend_y": draw_wave(rng, 0.06, 17.0),
            "light": draw_wave(rng, 0.16, 5.0),
        }
        self._aim = rng.uniform(0.5, 0.95)
        curve, heading = rng.uniform(0.02, 0.16), rng.uniform(0, 2 * math.pi)
        self._curve = (curve * math.cos(heading), curve * math.sin(heading))
        self._roll = rng.uniform(0, 2 * math.pi)

    def at(self, seconds: float) -> Pose:
        """The pose `seconds` after the start."""
        wave = {name: wave.at(seconds) for name, wave in self._waves.items()}
        swing = math.sin(2 * math.pi * seconds / self._period + self._phase)
        swing = 0.35 * swing + 0.65 * swing**3
        # Lingers before the first polyp (at z = 2), runs past it and retreats half as far in each period.
        z = 1.0 + self._drift * seconds + self._swing * swing * (0.75 + 0.25 * swing)
        offset = (wave["x"], wave["y"])
        yaw, pitch = self._aimed(z, offset, wave["yaw"], wave["pitch"])
        bend = (self._curve[0] + wave["bend_x"], self._curve[1] + wave["bend_y"])
        rotation = _rotation(yaw, pitch, self._roll + wave["roll"])
        return Pose(z, offset, bend, rotation, math.exp(wave["light"]))

    def _aimed(self, z: float, offset: tuple[float, float], yaw: float, pitch: float) -> tuple[float, float]:
        """The look turned towards polyps within reach, as an endoscopist would."""
        for polyp in self._polyps:
            ahead = self.ahead(polyp, z)
            weight = self._aim * math.exp(-(((ahead - 1.1) / 0.9) ** 4))
            lift = 1.0 - 0.5 * polyp.size
            cos, sin = math.cos(polyp.theta), math.sin(polyp.theta)
            lift = (1.0 - 0.5 * polyp.size) * math.exp(-offset[0] * cos - offset[1] * sin)
            side = math.atan2(lift * cos, max(ahead, 0.5))
            down = math.atan2(lift * sin, max(ahead, 0.5) / math.cos(side))
            yaw, pitch = yaw + weight * (side - yaw), pitch + weight * (down - pitch)
        return yaw, pitch

    def ahead(self, polyp: Polyp, z: float) -> float:
        """Radii from the camera at `z` to the polyp's foot, along the axis; in -2 to length - 2."""
        return (polyp.z - z + 2.0) % self._length - 2.0


def foothold(pose: Pose, polyp: Polyp, ahead: float, foot: float) -> Foothold:
    """Where a polyp stands whose foot is `foot` radii off the tube's axis, `ahead` of the camera."""
    cos, sin = math.cos(polyp.theta), math.sin(polyp.theta)
    wide = foot * float(pose.widening(np.float32(ahead), np.float32(cos), np.float32(sin)))
    plain = np.array([[-sin, cos, 0], [0, 0, 1], [-cos, -sin, 0]], dtype=np.float32)
    c, s = math.cos(polyp.turn), math.sin(polyp.turn)
    turned = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]], dtype=np.float32) @ plain
    top = max(lobe.centre[2] + lobe.axes[2] for lobe in polyp.lobes)
    room = math.hypot(wide, 0.7 * ahead) - 0.3
    rising = max(0.02, min(1.0, (LABEL_REACH - ahead) / 0.8))  # so that nothing pops up in the dark
    scale = max(0.2, min(1.0, room / top)) * rising
    return Foothold(np.array([wide * cos, wide * sin, ahead], dtype=np.float32), turned, scale)


def _rotation(yaw: float, pitch: float, roll: float) -> Map:
    cy, sy, cp, sp, cr, sr = (f(v) for v in (yaw, pitch, roll) for f in (math.cos, math.sin))
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]]) @ np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    return np.asarray(turn @ np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]]), dtype=np.float32)


def ray_directions(width: int, height: int, half_angle: float) -> Map:
    """Unit directions [height, width, 3] of an equidistant lens; `half_angle` radians from centre to top edge."""
    x = (np.arange(width, dtype=np.float32)[None, :] + 0.5 - width / 2) * np.float32(2 * half_angle / height)
    y = (np.arange(height, dtype=np.float32)[:, None] + 0.5 - height / 2) * np.float32(2 * half_angle / height)
    angle = np.sqrt(x * x + y * y) + np.float32(1e-6)
    lateral = np.sin(angle) / angle
    return np.ascontiguousarray(np.dstack([x * lateral, y * lateral, np.cos(angle)]), dtype=np.float32)


def aperture(rng: np.random.Generator, width: int, height: int) -> Bytes:
    """The lit part of the picture, 255 inside an octagon or circle and 0 outside, [height, width]."""
    octagonal, cut, boxed = rng.random() < 0.75, rng.uniform(0.14, 0.32), rng.random() < 0.2
    lit = np.zeros((height, width), dtype=np.uint8)
    if octagonal:
        c, right, bottom = int(cut * height), width - 1, height - 1
        corners = [(c, 0), (right - c, 0), (right, c), (right, bottom - c), (right - c, bottom), (c, bottom)]
        outline = np.array([*corners, (0, bottom - c), (0, c)], dtype=np.int32)
        cv2.fillPoly(lit, [outline], 255)
    else:
        cv2.circle(lit, (width // 2, height // 2), int(0.56 * min(height, width)), 255, -1)
    if boxed:  # the picture of the scope guide, as some processors insert it
        lit[round(0.68 * height) :, : round(0.33 * height)] = 0
    return lit
