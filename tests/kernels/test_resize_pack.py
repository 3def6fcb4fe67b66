# SPDX-License-Identifier: Apache-2.0
"""resize-pack equals its NumPy reference to the last bit; the reference itself is held against OpenCV."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgerun.frame import Colour, ColourMatrix, PixelFormat, Plane, plane_shapes
from edgerun.kernels import reference
from edgerun.kernels.resize_pack import ChannelOrder, Filter, Fit, Layout, ResizePack
from edgerun.kernels.taps import COLUMN_WEIGHT_BITS, Axis, axis_taps

COLOURS = [Colour(matrix, full_range) for matrix in ColourMatrix for full_range in (False, True)]


def random_planes(pixel_format: PixelFormat, width: int, height: int, padding: int = 0) -> tuple[Plane, ...]:
    """Noise; rows are `padding` bytes longer than the picture's."""
    rng = np.random.default_rng([width, height, padding])
    planes = []
    for shape in plane_shapes(pixel_format, width, height):
        row = int(np.prod(shape[1:]))
        padded: NDArray[np.uint8] = rng.integers(0, 256, (shape[0], row + padding), dtype=np.uint8)
        strides = (row + padding, *padded[:, :row].reshape(shape).strides[1:])
        planes.append(np.lib.stride_tricks.as_strided(padded, shape, strides))
    return tuple(planes)


@settings(derandomize=True, max_examples=250, deadline=None)
@given(
    pixel_format=st.sampled_from(PixelFormat),
    size=st.tuples(st.integers(1, 150), st.integers(1, 40)),
    out_size=st.tuples(st.integers(1, 140), st.integers(1, 40)),
    padding=st.sampled_from([0, 1, 37]),
    colour=st.sampled_from(COLOURS),
    fit=st.sampled_from(Fit),
    filter=st.sampled_from(Filter),
    layout=st.sampled_from(Layout),
    order=st.sampled_from(ChannelOrder),
)
def test_equals_the_reference(
    pixel_format: PixelFormat, size: tuple[int, int], out_size: tuple[int, int], padding: int, colour: Colour,
    fit: Fit, filter: Filter, layout: Layout, order: ChannelOrder,
) -> None:  # fmt: skip
    planes = random_planes(pixel_format, *size, padding)
    (width, height), (out_width, out_height) = size, out_size
    plan = ResizePack(
        pixel_format=pixel_format, width=width, height=height, colour=colour, out_width=out_width,
        out_height=out_height, fit=fit, filter=filter, layout=layout, order=order, pad_value=99,
    )  # fmt: skip
    out = np.full((1, *plan.out_shape), 7, np.uint8)
    plan.write(planes, out)
    expected = reference.resize_pack(
        planes, pixel_format=pixel_format, width=width, height=height, colour=colour, out_width=out_width,
        out_height=out_height, fit=fit, filter=filter, layout=layout, order=order, pad_value=99,
    )  # fmt: skip
    np.testing.assert_array_equal(out[0], expected)


@pytest.mark.parametrize("pixel_format", PixelFormat)
@pytest.mark.parametrize("width", [1, 2, 63, 64, 65, 1031])
@pytest.mark.parametrize("filter", Filter)
def test_equals_the_reference_at_block_edges(pixel_format: PixelFormat, width: int, filter: Filter) -> None:
    planes = random_planes(pixel_format, width, 19)
    for out_width in (1, 63, 64, 65, 129):
        plan = plan_of(pixel_format, width, 19, out_width, 7, filter)
        out = np.empty(plan.out_shape, np.uint8)
        plan.write(planes, out)
        expected = reference.resize_pack(
            planes,
            pixel_format=pixel_format,
            width=width,
            height=19,
            colour=Colour(),
            out_width=out_width,
            out_height=7,
            filter=filter,
        )
        np.testing.assert_array_equal(out, expected)


def test_the_same_plan_serves_many_frames() -> None:
    plan = plan_of(PixelFormat.NV12, 33, 21, 8, 8, Filter.BILINEAR)
    first, second = random_planes(PixelFormat.NV12, 33, 21), random_planes(PixelFormat.NV12, 33, 21, 5)
    outs = [np.empty(plan.out_shape, np.uint8) for _ in range(3)]
    for planes, out in zip((first, second, first), outs, strict=True):
        plan.write(planes, out)
    np.testing.assert_array_equal(outs[0], outs[2])


@pytest.mark.parametrize("filter", Filter)
def test_reference_agrees_with_opencv_on_rgb(filter: Filter) -> None:
    (picture,) = smooth_bgr()
    interpolation = cv2.INTER_LINEAR if filter is Filter.BILINEAR else cv2.INTER_AREA
    expected = cv2.resize(picture, (96, 64), interpolation=interpolation)
    got = reference.resize_pack(
        (picture,), pixel_format=PixelFormat.BGR, width=320, height=240, colour=Colour(), out_width=96, out_height=64,
        filter=filter, layout=Layout.INTERLEAVED, order=ChannelOrder.BGR,
    )  # fmt: skip
    assert np.abs(got.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("filter", Filter)
def test_reference_agrees_with_opencv_on_i420(filter: Filter) -> None:
    (picture,) = smooth_bgr()
    i420 = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420), np.uint8)
    planes = i420[:240], i420[240:300].reshape(120, 160), i420[300:].reshape(120, 160)
    interpolation = cv2.INTER_LINEAR if filter is Filter.BILINEAR else cv2.INTER_AREA
    expected = cv2.resize(cv2.cvtColor(i420, cv2.COLOR_YUV2RGB_I420), (96, 64), interpolation=interpolation)
    got = reference.resize_pack(
        planes, pixel_format=PixelFormat.I420, width=320, height=240, colour=Colour(ColourMatrix.BT601),
        out_width=96, out_height=64, filter=filter, layout=Layout.INTERLEAVED,
    )  # fmt: skip
    assert np.abs(got.astype(int) - expected).mean() < 1.5


@pytest.mark.parametrize("colour", COLOURS)
def test_grey_stays_grey_and_spans_its_range(colour: Colour) -> None:
    black, white = (0, 255) if colour.full_range else (16, 235)
    plan = ResizePack(pixel_format=PixelFormat.I420, width=4, height=4, colour=colour, out_width=2, out_height=2)
    for luma, expected in ((black, 0), (white, 255)):
        planes = np.full((4, 4), luma, np.uint8), np.full((2, 2), 128, np.uint8), np.full((2, 2), 128, np.uint8)
        out = np.empty(plan.out_shape, np.uint8)
        plan.write(planes, out)
        assert (out == expected).all()


@settings(derandomize=True, max_examples=100, deadline=None)
@given(
    filter=st.sampled_from(Filter),
    picture=st.integers(1, 5000),
    subsample=st.sampled_from([1, 2]),
    out_size=st.integers(1, 700),
)
def test_taps_are_whole_and_inside_the_plane(filter: Filter, picture: int, subsample: int, out_size: int) -> None:
    axis = Axis(picture, subsample, out_size)
    taps = axis_taps(filter, axis, COLUMN_WEIGHT_BITS)
    assert (taps.weight.sum(axis=1, dtype=np.int64) == 1 << COLUMN_WEIGHT_BITS).all()
    assert taps.start.min() >= 0
    assert taps.start.max() + taps.weight.shape[1] <= axis.plane_size


def test_letterbox_centres_the_picture_and_pads_around_it() -> None:
    plan = plan_of(PixelFormat.MONO, 160, 80, 64, 64, Filter.AREA, Fit.LETTERBOX)
    out = np.empty(plan.out_shape, np.uint8)
    plan.write((np.full((80, 160), 10, np.uint8),), out)
    assert (out[:, 16:48] == 10).all()
    assert (out[:, :16] == 128).all()
    assert (out[:, 48:] == 128).all()


@settings(derandomize=True, max_examples=100, deadline=None)
@given(
    size=st.tuples(st.integers(1, 4000), st.integers(1, 4000)),
    out_size=st.tuples(st.integers(1, 640), st.integers(1, 640)),
    fit=st.sampled_from(Fit),
    point=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_geometry_goes_there_and_back(
    size: tuple[int, int], out_size: tuple[int, int], fit: Fit, point: tuple[float, float]
) -> None:
    geometry = plan_of(PixelFormat.MONO, *size, *out_size, Filter.AREA, fit).geometry
    x, y = point[0] * size[0] - 0.5, point[1] * size[1] - 0.5
    model_x, model_y = geometry.to_model(x, y)
    assert -0.5 - 1e-6 <= model_x <= out_size[0] - 0.5 + 1e-6
    assert -0.5 - 1e-6 <= model_y <= out_size[1] - 0.5 + 1e-6
    assert geometry.to_source(model_x, model_y) == pytest.approx((x, y), abs=1e-6)


def test_a_wrong_call_says_what_is_expected() -> None:
    plan = plan_of(PixelFormat.I420, 8, 6, 4, 4, Filter.AREA)
    planes = random_planes(PixelFormat.I420, 8, 6)
    out = np.empty((3, 4, 4), np.uint8)
    read_only = out.copy()
    read_only.flags.writeable = False
    wide = np.zeros((6, 16), np.uint8)
    for bad_planes, bad_out, message in (
        (planes[:2], out, "I420 has 3 planes, found 2"),
        ((planes[0][:5], *planes[1:]), out, r"plane 0 has shape \(5, 8\); expected \(6, 8\)"),
        ((planes[0].astype(np.int8), *planes[1:]), out, "plane 0 is int8; expected uint8"),
        ((wide[:, ::2], *planes[1:]), out, "strides"),
        (planes, np.empty((4, 4, 3), np.uint8), r"output is uint8 \(4, 4, 3\); expected uint8 \(3, 4, 4\)"),
        (planes, np.empty((2, 3, 4, 4), np.uint8), r"leading axes of 1"),
        (planes, np.empty((3, 4, 4), np.float32), "output is float32"),
        (planes, np.empty((3, 4, 8), np.uint8)[..., ::2], "C-contiguous"),
        (planes, read_only, "read-only"),
    ):
        with pytest.raises(ValueError, match=message):
            plan.write(bad_planes, bad_out)  # type: ignore[arg-type]


@pytest.mark.parametrize(("field", "value"), [("width", 0), ("out_height", -1), ("height", 20000), ("pad_value", 256)])
def test_a_wrong_plan_names_the_field(field: str, value: int) -> None:
    fields: dict[str, Any] = {"width": 8, "height": 6, "out_width": 4, "out_height": 4, "pad_value": 128, field: value}
    with pytest.raises(ValueError, match=f"{field} is {value}; expected"):
        ResizePack(pixel_format=PixelFormat.MONO, colour=Colour(), **fields)


def plan_of(
    pixel_format: PixelFormat, width: int, height: int, out_width: int, out_height: int, filter: Filter,
    fit: Fit = Fit.STRETCH,
) -> ResizePack:  # fmt: skip
    return ResizePack(
        pixel_format=pixel_format, width=width, height=height, colour=Colour(), out_width=out_width,
        out_height=out_height, filter=filter, fit=fit,
    )  # fmt: skip


def smooth_bgr() -> tuple[NDArray[np.uint8]]:
    coarse = np.random.default_rng(3).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return (np.asarray(cv2.resize(coarse, (320, 240), interpolation=cv2.INTER_CUBIC), np.uint8),)
