# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from edgerun.errors import ModelError
from edgerun.frame import Colour, ColourMatrix, Frame, PixelFormat, plane_shapes
from edgerun.kernels import reference
from edgerun.kernels.resize_pack import ChannelOrder, Filter, Fit, Layout
from edgerun.model_package import Preprocess
from edgerun.preprocess.plan import picture_size, plan_for
from edgerun.tensor import TensorSpec

PLANAR = TensorSpec("image", "uint8", (1, 3, 24, 32))
INTERLEAVED = TensorSpec("image", "uint8", (1, 24, 32, 3))


def declared(
    layout: Literal["planar", "interleaved"] = "planar", fit: Literal["stretch", "letterbox"] = "stretch"
) -> Preprocess:
    return Preprocess(fit=fit, filter="area", layout=layout, order="rgb", pad_value=7)


def frame(
    width: int = 80, height: int = 60, pixel_format: PixelFormat = PixelFormat.I420, colour: Colour = Colour()
) -> Frame:
    rng = np.random.default_rng(5)
    planes = tuple(rng.integers(0, 256, shape, np.uint8) for shape in plane_shapes(pixel_format, width, height))
    return Frame(planes, pixel_format, width, height, colour=colour)


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize(("layout", "spec"), [("planar", PLANAR), ("interleaved", INTERLEAVED)])
def test_it_writes_what_the_manifest_declares(
    layout: Literal["planar", "interleaved"], spec: TensorSpec, fit: Literal["stretch", "letterbox"]
) -> None:
    picture = frame(64, 90)
    out = np.zeros(spec.shape, np.uint8)
    plan = plan_for(picture, declared(layout, fit), spec)
    plan.write(picture.planes, out)
    expected = reference.resize_pack(
        picture.planes, pixel_format=PixelFormat.I420, width=64, height=90, colour=picture.colour, out_width=32,
        out_height=24, fit=Fit(fit), filter=Filter.AREA, layout=Layout(layout), order=ChannelOrder.RGB, pad_value=7,
    )  # fmt: skip
    np.testing.assert_array_equal(out[0], expected)
    assert (plan.geometry.source_width, plan.geometry.source_height) == (64, 90)


def test_another_size_format_or_colour_needs_another_plan() -> None:
    plan = plan_for(frame(), declared(), PLANAR)
    assert plan.fits(frame())
    assert not plan.fits(frame(width=82))
    assert not plan.fits(frame(height=62))
    assert not plan.fits(frame(pixel_format=PixelFormat.NV12))
    assert not plan.fits(frame(colour=Colour(ColourMatrix.BT601)))


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ("float32", (1, 3, 24, 32)),
        ("uint8", (3, 24, 32)),
        ("uint8", (2, 3, 24, 32)),
        ("uint8", (1, 1, 24, 32)),
        ("uint8", (1, 24, 32, 3)),
    ],
)
def test_an_input_that_takes_no_picture_is_the_models_fault(dtype: str, shape: tuple[int, ...]) -> None:
    spec = TensorSpec("image", dtype, shape)
    with pytest.raises(ModelError, match=r"model input .*need uint8\[1, 3, H, W\]\. Export"):
        plan_for(frame(), declared(), spec)


def test_rows_come_before_columns() -> None:
    assert picture_size(PLANAR, declared()) == (24, 32)
    assert picture_size(INTERLEAVED, declared("interleaved")) == (24, 32)
