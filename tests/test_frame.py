# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerun.frame import Frame, Geometry, PixelFormat, ReleasedFrameError, plane_shapes


def test_the_last_holder_gives_the_memory_back() -> None:
    released: list[int] = []
    one = Frame((np.zeros((2, 2, 3), np.uint8),), PixelFormat.BGR, 2, 2, on_release=lambda: released.append(1))
    two = one.share()
    one.release()
    assert not released
    assert two.planes[0].shape == (2, 2, 3)
    two.release()
    assert released == [1]


def test_use_after_release_raises() -> None:
    gone = Frame((np.zeros((4, 6, 3), np.uint8),), PixelFormat.RGB, 6, 4, frame_id=9)
    gone.release()
    with pytest.raises(ReleasedFrameError, match="frame 9 was released"):
        _ = gone.planes
    with pytest.raises(ReleasedFrameError, match="can't be shared"):
        gone.share()
    with pytest.raises(ReleasedFrameError, match="released twice"):
        gone.release()


@pytest.mark.parametrize(
    ("pixel_format", "shapes"),
    [
        (PixelFormat.I420, ((5, 7), (3, 4), (3, 4))),
        (PixelFormat.NV12, ((5, 7), (3, 8))),
        (PixelFormat.RGB, ((5, 7, 3),)),
        (PixelFormat.MONO, ((5, 7),)),
    ],
)
def test_plane_shapes_of_odd_pictures(pixel_format: PixelFormat, shapes: tuple[tuple[int, ...], ...]) -> None:
    assert plane_shapes(pixel_format, 7, 5) == shapes


def test_wrong_planes_are_named() -> None:
    with pytest.raises(ValueError, match=r"MONO 3x2 has planes \(\(2, 3\),\), found \(\(3, 2\),\)"):
        Frame((np.zeros((3, 2), np.uint8),), PixelFormat.MONO, 3, 2)
    with pytest.raises(ValueError, match="picture is 0x2"):
        plane_shapes(PixelFormat.RGB, 0, 2)


@settings(derandomize=True, max_examples=60)
@given(
    scale=st.floats(0.05, 20),
    offset=st.floats(0, 100),
    x=st.floats(-10, 2000),
    y=st.floats(-10, 2000),
)
def test_geometry_is_its_own_inverse(scale: float, offset: float, x: float, y: float) -> None:
    geometry = Geometry(640, 480, scale, scale * 0.75, offset, offset / 2)
    assert geometry.to_source(*geometry.to_model(x, y)) == pytest.approx((x, y), abs=1e-6 * max(1, scale))
