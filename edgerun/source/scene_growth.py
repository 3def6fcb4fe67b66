# SPDX-License-Identifier: Apache-2.0
"""Draws the lobes of a polyp into a rendered view: ellipsoids met by each ray, lumpy, with a texture of their own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from edgerun.source.scene_polyp import Bytes, Lobe, Map, Polyp, as_map

EDGE_SHARPNESS = np.float32(45)  # of an outline: it fades over 1/45 of the lobe's semi-axis
ONES = np.ones((1, 3), dtype=np.float32)
LUMP_WAVES = np.array([[4.1, 1.3, -2.2], [-1.9, 4.7, 2.6], [2.4, -2.8, 5.2]], dtype=np.float32)  # radians per semi-axis


VIEW_LAYERS = ("rays", "distance", "log_light", "facing", "label", "paint", "grain")


@dataclass(frozen=True, slots=True)
class View:
    """What each pixel shows so far; growths are drawn into it in place. All [h, w, ...]."""

    rays: Map  # [h, w, 3] unit directions in tube coordinates
    distance: Map  # radii from the camera
    log_light: Map
    facing: Map  # cosine between normal and ray
    label: Map  # 0 to 1, polyp above 0.5
    paint: Bytes  # [h, w, 4]
    grain: Bytes  # [h, w, 4]


@dataclass(frozen=True, slots=True)
class Foothold:
    """Where a polyp stands at one moment: its foot and directions in tube coordinates, the camera at the origin."""

    foot: Map  # [3]
    basis: Map  # [3, 3] rows: around, along, towards the axis, turned as the polyp is
    scale: float  # of the polyp, so that it doesn't swallow the camera


def draw_growth(view: View, polyp: Polyp, hold: Foothold, window: tuple[slice, slice], grain: Bytes, base: Map) -> None:
    """Draw every lobe of `polyp` within `window`; `base` is the coded ln(albedo) of the mucosa, [3]."""
    own = np.append(base + 64.0 * np.asarray(polyp.tint, np.float32), 255.0 * polyp.mottle).astype(np.float32)
    plain = np.append(base, 0.0).astype(np.float32)
    part = View(*(getattr(view, name)[window] for name in VIEW_LAYERS))
    if polyp.stalk is not None:
        _draw_lobe(part, polyp.stalk, polyp, hold, grain, plain, is_polyp=False)
    for lobe in polyp.lobes:
        _draw_lobe(part, lobe, polyp, hold, grain, own, is_polyp=True)


def window_of(
    hold: Foothold, polyp: Polyp, rotation: Map, shape: tuple[int, ...], half_angle: float
) -> tuple[slice, slice] | None:
    """Rows and columns that can show the polyp, None when it's out of the picture."""
    middle = hold.foot + hold.basis[2] * np.float32(polyp.size * hold.scale)
    right, down, ahead = (float(v) for v in rotation.T @ middle)
    distance = math.sqrt(right * right + down * down + ahead * ahead)
    angle = math.atan2(math.hypot(right, down), ahead)
    focal = shape[0] / (2 * half_angle)
    toward = math.atan2(down, right)
    x, y = shape[1] / 2 + focal * angle * math.cos(toward), shape[0] / 2 + focal * angle * math.sin(toward)
    reach = focal * math.asin(min(0.97, 1.5 * polyp.size * hold.scale / distance)) + 3
    if angle > 1.9:
        return None
    rows = slice(max(0, int(y - reach)), min(shape[0], int(y + reach)))
    columns = slice(max(0, int(x - reach)), min(shape[1], int(x + reach)))
    return (rows, columns) if rows.start < rows.stop and columns.start < columns.stop else None


def _draw_lobe(
    view: View, lobe: Lobe, polyp: Polyp, hold: Foothold, grain: Bytes, colour: Map, *, is_polyp: bool
) -> None:
    centre = hold.foot + (np.asarray(lobe.centre, np.float32) * np.float32(hold.scale)) @ hold.basis
    to_unit = np.ascontiguousarray(hold.basis / (np.asarray(lobe.axes, np.float32)[:, None] * np.float32(hold.scale)))
    origin = -(to_unit @ centre)
    ways = as_map(cv2.transform(view.rays, to_unit))  # in here the lobe is the unit sphere
    a, b = _dot(ways, ways), as_map(cv2.transform(ways, origin[None]))
    away = np.float32(origin @ origin)
    root = as_map(cv2.sqrt(np.maximum(b * b - a * (away - 1), 0)))
    distance = -(b + root) / a
    point = as_map(ways * distance[..., None] + origin)
    lumps = as_map(cv2.transform(point, LUMP_WAVES)) + np.float32(polyp.turn * 9)
    swell = as_map(cv2.transform(np.sin(lumps), ONES * np.float32(0.5 * polyp.relief)))
    miss = as_map(cv2.sqrt(np.maximum(away - b * b / a, 0)))  # of the ray from the lobe's centre
    cover = np.clip((1 + swell - miss) * EDGE_SHARPNESS + 0.5, 0, 1)
    soft = np.float32((0.22 if is_polyp else 0.4) * polyp.size)
    cover *= np.clip((view.distance - distance) / soft + 0.5, 0, 1)
    cover *= distance > 0
    bumpy = point - as_map(cv2.transform(np.cos(lumps), np.ascontiguousarray(LUMP_WAVES.T * np.float32(polyp.relief))))
    normal = as_map(cv2.transform(bumpy, np.ascontiguousarray(to_unit.T)))
    facing = np.clip(-_dot(normal, view.rays) / as_map(cv2.sqrt(_dot(normal, normal))), 0, 1)
    _blend_shape(view, cover, distance, facing, is_polyp=is_polyp)
    _blend_skin(view, cover, as_map(point * np.float32(polyp.size / 0.3)), grain, colour)


def _blend_shape(view: View, cover: Map, distance: Map, facing: Map, *, is_polyp: bool) -> None:
    """Put a lobe's distance, light and label over the view where `cover` is 1."""
    light = as_map(cv2.log((0.32 + 0.68 * facing) / (distance * distance + 0.15))) + np.float32(0.25)
    for below, above in ((view.distance, distance), (view.log_light, light), (view.facing, facing)):
        below += cover * (above - below)
    if is_polyp:
        np.maximum(view.label, cover, out=view.label)
    else:
        np.multiply(view.label, 1 - cover, out=view.label)


def _blend_skin(view: View, cover: Map, point: Map, grain: Bytes, colour: Map) -> None:
    """Put a lobe's paint and grain over the view where `cover` is 1; `point` is on a sphere, [h, w, 3]."""
    spread = 170.0 / (1.2 + np.maximum(point[..., 2], -1))  # stereographic: the texture keeps its shape to the rim
    x, y = as_map(point[..., 0] * spread + 400), as_map(point[..., 1] * spread + 400)
    mine = cv2.remap(grain, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    mine = cv2.add(mine, np.array([6, 0, 0, 0], dtype=np.float64))  # a polyp is wet
    own = np.empty_like(view.paint)
    own[:] = np.clip(colour, 0, 255).astype(np.uint8)
    rest = 1 - cover
    view.paint[:] = cv2.blendLinear(own, np.ascontiguousarray(view.paint), cover, rest)
    view.grain[:] = cv2.blendLinear(mine, np.ascontiguousarray(view.grain), cover, rest)


def _dot(left: Map, right: Map) -> Map:
    return as_map(cv2.transform(left * right, ONES))
