# SPDX-License-Identifier: Apache-2.0
"""Raw pictures, sent as they lie in the camera's memory: planes one after another, rows unpadded."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from edgerun.decode import CodedUnit, Outcome, Undecodable
from edgerun.frame import Colour, Frame, PixelFormat, plane_shapes


class RawDecoder:
    """Frames are views of the packet's own bytes: nothing is copied. A wrong size is `Undecodable`."""

    def __init__(self, pixel_format: PixelFormat, width: int, height: int, colour: Colour) -> None:
        self._pixel_format = pixel_format
        self._width, self._height = width, height
        self._colour = colour
        self._shapes = plane_shapes(pixel_format, width, height)
        self.frame_bytes = sum(math.prod(shape) for shape in self._shapes)

    def decode(self, packet: CodedUnit) -> Iterator[Outcome]:
        if len(packet.data) != self.frame_bytes:
            yield Undecodable(packet.unit_id)
            return
        planes, offset = [], 0
        for shape in self._shapes:
            count = math.prod(shape)
            planes.append(np.frombuffer(packet.data, np.uint8, count, offset).reshape(shape))
            offset += count
        yield Frame(
            tuple(planes),
            self._pixel_format,
            self._width,
            self._height,
            frame_id=packet.unit_id,
            colour=self._colour,
        )

    def flush(self) -> Iterator[Outcome]:
        return iter(())

    def skip_to_key(self) -> None:
        """Nothing to skip: every raw picture stands alone."""
