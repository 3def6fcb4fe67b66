# SPDX-License-Identifier: Apache-2.0
"""From a camera's planes to a model's input, as the manifest declares it: for serving and proving alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgerun.errors import ModelError
from edgerun.frame import Colour, Frame, Geometry, PixelFormat, Plane
from edgerun.kernels.resize_pack import ChannelOrder, Filter, Fit, Layout, ResizePack
from edgerun.model_package import Preprocess
from edgerun.tensor import TensorSpec


class PreprocessPlan:
    """The fused resize-and-pack of one stream's frames. Built once for a size and format; no allocation per frame."""

    def __init__(
        self,
        declared: Preprocess,
        model_input: TensorSpec,
        *,
        pixel_format: PixelFormat,
        width: int,
        height: int,
        colour: Colour,
    ) -> None:
        layout = Layout(declared.layout)
        out_height, out_width = picture_size(model_input, declared)
        self._key = (pixel_format, width, height, colour)
        self._pack = ResizePack(
            pixel_format=pixel_format,
            width=width,
            height=height,
            colour=colour,
            out_width=out_width,
            out_height=out_height,
            fit=Fit(declared.fit),
            filter=Filter(declared.filter),
            layout=layout,
            order=ChannelOrder(declared.order),
            pad_value=declared.pad_value,
        )

    @property
    def geometry(self) -> Geometry:
        """Pixels of the model's input <-> pixels of the source."""
        return self._pack.geometry

    def fits(self, frame: Frame) -> bool:
        """Whether this plan was built for frames like `frame`."""
        return self._key == (frame.pixel_format, frame.width, frame.height, frame.colour)

    def write(self, planes: tuple[Plane, ...], out: NDArray[np.uint8]) -> None:
        """Fill `out`, the model's uint8 input, from one picture."""
        self._pack.write(planes, out)


def plan_for(frame: Frame, declared: Preprocess, model_input: TensorSpec) -> PreprocessPlan:
    """The plan for frames like `frame`."""
    return PreprocessPlan(
        declared,
        model_input,
        pixel_format=frame.pixel_format,
        width=frame.width,
        height=frame.height,
        colour=frame.colour,
    )


def picture_size(spec: TensorSpec, declared: Preprocess) -> tuple[int, int]:
    """Rows and columns of a [1, 3, H, W] or [1, H, W, 3] uint8 input. Raises ModelError on any other."""
    channel_axis = 1 if Layout(declared.layout) is Layout.PLANAR else 3
    if spec.dtype != "uint8" or len(spec.shape) != 4 or spec.shape[0] != 1 or spec.shape[channel_axis] != 3:
        expected = "uint8[1, 3, H, W]" if channel_axis == 1 else "uint8[1, H, W, 3]"
        raise ModelError(f"model input {spec}; camera pictures need {expected}. Export the model with uint8 input.")
    return (spec.shape[2], spec.shape[3]) if channel_axis == 1 else (spec.shape[1], spec.shape[2])
