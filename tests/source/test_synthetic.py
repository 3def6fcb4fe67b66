# SPDX-License-Identifier: Apache-2.0
"""The synthetic scene is repeatable, smooth in time, plausible in colour, and right about where its polyps are."""

from __future__ import annotations

import itertools
import subprocess
import sys
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray

from edgerun.source.synthetic import SceneFrame, SyntheticScene

SEED = 2


@pytest.fixture(scope="module")
def scene() -> SyntheticScene:
    return SyntheticScene(200, 160, fps=30.0, seed=SEED)


@pytest.fixture(scope="module")
def half_seconds(scene: SyntheticScene) -> list[SceneFrame]:
    """Forty frames over 20 s."""
    return [scene.frame(index) for index in range(0, 600, 15)]


@pytest.fixture(scope="module")
def first_frames() -> list[SceneFrame]:
    """The starts of four seeds, most of which show a polyp."""
    return [SyntheticScene(160, 128, seed=seed).frame(0) for seed in range(1, 5)]


def _digest(frame: SceneFrame) -> int:
    return zlib.crc32(frame.mask.tobytes(), zlib.crc32(frame.image.tobytes()))


def _iou(left: NDArray[np.bool_], right: NDArray[np.bool_]) -> float:
    return float((left & right).sum() / max(1, (left | right).sum()))


def test_frame_has_the_promised_shape_and_type(scene: SyntheticScene) -> None:
    frame = scene.frame(0)
    assert (frame.image.shape, frame.mask.shape) == ((160, 200, 3), (160, 200))
    assert {frame.image.dtype, frame.mask.dtype} == {np.dtype(np.uint8)}


def test_any_order_and_any_instance_give_the_same_bytes(scene: SyntheticScene) -> None:
    other = SyntheticScene(200, 160, fps=30.0, seed=SEED)
    backwards = [_digest(other.frame(index)) for index in (90, 7, 0)]
    assert backwards == [_digest(scene.frame(index)) for index in (0, 7, 90)][::-1]


def test_another_process_gives_the_same_bytes(scene: SyntheticScene) -> None:
    code = (
        "import zlib; from edgerun.source.synthetic import SyntheticScene;"
        f"f = SyntheticScene(200, 160, fps=30.0, seed={SEED}).frame(12);"
        "print(zlib.crc32(f.mask.tobytes(), zlib.crc32(f.image.tobytes())))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(told.stdout) == _digest(scene.frame(12))


def test_the_picture_depends_on_time_and_not_on_the_rate(scene: SyntheticScene) -> None:
    fast = SyntheticScene(200, 160, fps=60.0, seed=SEED)
    assert [_digest(fast.frame(2 * i)) for i in (0, 5, 101)] == [_digest(scene.frame(i)) for i in (0, 5, 101)]


def test_frames_counts_from_zero(scene: SyntheticScene) -> None:
    together = [_digest(frame) for frame in scene.frames(3, threads=2)]
    assert together == [_digest(scene.frame(index)) for index in range(3)]


def test_polyps_come_and_go(half_seconds: list[SceneFrame]) -> None:
    areas = [int(np.count_nonzero(frame.mask)) for frame in half_seconds]
    assert areas.count(0) >= 2
    assert sum(area > 200 for area in areas) >= 5


def test_mask_is_black_or_white_and_only_where_there_is_a_picture(half_seconds: list[SceneFrame]) -> None:
    dark = np.max([frame.image.max(axis=2) for frame in half_seconds], axis=0) == 0
    assert dark.any()
    for frame in half_seconds:
        assert set(np.unique(frame.mask)) <= {0, 255}
        assert not frame.mask[dark].any()


def test_mask_lies_on_what_looks_different(first_frames: list[SceneFrame]) -> None:
    """The mean colour within a mask isn't that of the ring around it."""
    contrasts = []
    for frame in first_frames:
        inside = frame.mask > 0
        grown = np.roll(inside, 6, 0) | np.roll(inside, -6, 0) | np.roll(inside, 6, 1) | np.roll(inside, -6, 1)
        ring = grown & ~inside & (frame.image.max(axis=2) > 20)
        if inside.sum() > 100:
            contrasts.append(np.abs(frame.image[inside].mean(axis=0) - frame.image[ring].mean(axis=0)).max())
    assert len(contrasts) >= 2
    assert min(contrasts) > 8


@pytest.mark.parametrize("size", [(400, 320), (800, 640)])
def test_mask_and_picture_agree_across_resolutions(
    size: tuple[int, int], half_seconds: list[SceneFrame], scene: SyntheticScene
) -> None:
    number = int(np.argmax([np.count_nonzero(frame.mask) for frame in half_seconds]))
    big, factor = SyntheticScene(*size, seed=SEED).frame(15 * number), size[0] // 200
    small = half_seconds[number]
    assert _iou(big.mask[factor // 2 :: factor, factor // 2 :: factor] > 0, small.mask > 0) > 0.9
    shrunk = big.image.reshape(160, factor, 200, factor, 3).mean(axis=(1, 3))
    assert np.abs(shrunk - small.image).mean() < 8


def test_seeds_give_different_scenes(first_frames: list[SceneFrame]) -> None:
    for one, other in itertools.combinations(first_frames, 2):
        assert np.abs(one.image.astype(np.int16) - other.image).mean() > 8


def test_motion_is_smooth(scene: SyntheticScene) -> None:
    pictures = [scene.frame(index).image.astype(np.int16) for index in range(40)]
    steps = [float(np.abs(b - a).mean()) for a, b in itertools.pairwise(pictures)]
    assert min(steps) > 0.1
    assert max(steps) < 12


def test_colours_are_those_of_mucosa(half_seconds: list[SceneFrame]) -> None:
    lit = np.concatenate([frame.image[frame.image.max(axis=2) > 30] for frame in half_seconds])
    red, green, blue = lit.mean(axis=0)
    assert 110 < red < 200
    assert 0.4 < green / red < 0.75
    assert blue < green


@pytest.mark.parametrize("size", [(32, 32), (640, 97), (97, 641)])
def test_odd_sizes_render(size: tuple[int, int]) -> None:
    frame = SyntheticScene(*size, seed=1).frame(3)
    assert frame.image.shape == (size[1], size[0], 3)
    assert frame.image.any()


@pytest.mark.parametrize(("size", "named"), [((31, 64), "width is 31"), ((64, 8193), "height is 8193")])
def test_sizes_out_of_range_are_refused(size: tuple[int, int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        SyntheticScene(*size)


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_rates_that_are_not_rates_are_refused(fps: float) -> None:
    with pytest.raises(ValueError, match="fps"):
        SyntheticScene(64, 64, fps=fps)
