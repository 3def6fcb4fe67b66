# SPDX-License-Identifier: Apache-2.0
"""A recording is read back frame by frame, or nothing is left of it."""

from __future__ import annotations

import os
import resource
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from edgerun.errors import SinkError
from edgerun.frame import Colour, ColourMatrix, Frame, PixelFormat, plane_shapes
from edgerun.sink.recording import Recording, check_writable
from tests.coded_video import luma, number_in

WIDTH, HEIGHT = 128, 96
NS = Fraction(1, 1_000_000_000)


def frame(
    number: int,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    pixel_format: PixelFormat = PixelFormat.I420,
    pts: int | None = None,
    colour: Colour = Colour(ColourMatrix.BT601),
) -> Frame:
    shapes = plane_shapes(pixel_format, *size)
    pixels = luma(number, *size)
    first = np.stack([pixels] * 3, -1) if len(shapes[0]) == 3 else pixels
    chroma = tuple(np.full(shape, 128, np.uint8) for shape in shapes[1:])
    return Frame((first, *chroma), pixel_format, *size, frame_id=number, pts=pts, time_base=NS, colour=colour)


def read_back(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as recorded:
        return list(recorded.decode(video=0))


def files_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize("encoders", [("libx264",), ("mpeg4",)])
@pytest.mark.parametrize("pixel_format", list(PixelFormat))
def test_a_recording_is_read_back_frame_by_frame(
    tmp_path: Path, encoders: tuple[str, ...], pixel_format: PixelFormat
) -> None:
    if encoders[0] not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {encoders[0]}")
    path = tmp_path / "out.mp4"
    with Recording(path, WIDTH, HEIGHT, 25, encoders=encoders) as recording:
        assert recording.encoder == encoders[0]
        for number in range(12):
            recording.put(frame(number, pixel_format=pixel_format))
            assert not path.exists()
    assert recording.frames == 12
    assert files_in(tmp_path) == ["out.mp4"]
    pictures = read_back(path)
    assert [number_in(np.asarray(p.to_ndarray(format="gray"), np.uint8)) for p in pictures] == list(range(12))
    assert [p.time for p in pictures] == pytest.approx([number / 25 for number in range(12)], abs=1e-4)
    is_packed = pixel_format not in (PixelFormat.I420, PixelFormat.NV12)
    expected = 16 + luma(3) * (219 / 255) if is_packed else luma(3).astype(float)
    found = np.frombuffer(memoryview(pictures[3].planes[0]), np.uint8).reshape(HEIGHT, -1)[:, :WIDTH]
    assert np.abs(found - expected).mean() < 6
    with av.open(str(path)) as recorded:
        assert recorded.streams.video[0].codec_context.pix_fmt == "yuv420p"
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "faststart"


def test_the_time_is_the_frames_own(tmp_path: Path) -> None:
    times = [7_000_000_000, 7_040_000_000, 7_500_000_000, 7_500_000_000, 7_400_000_000, 9_000_000_000]
    with Recording(tmp_path / "out.mp4", WIDTH, HEIGHT, 25) as recording:
        for number, at_ns in enumerate(times):
            recording.put(frame(number, pts=at_ns))
    found = [picture.time for picture in read_back(tmp_path / "out.mp4")]
    assert found == pytest.approx([0, 0.04, 0.5, 0.5, 0.5, 2.0], abs=1e-3)
    assert all(a < b for a, b in pairwise(found))


@pytest.mark.parametrize("size", [(129, 97), (130, 97), (129, 96)])
def test_odd_sizes_are_padded_with_their_last_row_and_column(tmp_path: Path, size: tuple[int, int]) -> None:
    for pixel_format in (PixelFormat.I420, PixelFormat.NV12, PixelFormat.BGR):
        with Recording(tmp_path / "out.mp4", *size, 25) as recording:
            for number in range(3):
                recording.put(frame(number, size, pixel_format))
        for number, picture in enumerate(read_back(tmp_path / "out.mp4")):
            assert (picture.width, picture.height) == (size[0] + size[0] % 2, size[1] + size[1] % 2)
            grey = np.asarray(picture.to_ndarray(format="gray"), np.uint8).astype(int)
            assert number_in(grey.astype(np.uint8)) == number
            if size[0] % 2:
                assert np.abs(grey[:, -1] - grey[:, -2]).mean() < 12
            if size[1] % 2:
                assert np.abs(grey[-1] - grey[-2]).mean() < 12


def test_the_colour_of_the_first_frame_is_written(tmp_path: Path) -> None:
    with Recording(tmp_path / "out.mp4", WIDTH, HEIGHT, 25) as recording:
        recording.put(frame(0, colour=Colour(ColourMatrix.BT709, full_range=True)))
    picture = read_back(tmp_path / "out.mp4")[0]
    if recording.encoder == "libx264":
        assert (picture.colorspace, picture.color_range) == (1, 2)


@pytest.mark.parametrize(
    ("matrix", "expected"), [(ColourMatrix.BT601, (81, 90, 240)), (ColourMatrix.BT709, (63, 102, 240))]
)
def test_packed_pixels_become_the_colour_that_is_written(
    tmp_path: Path, matrix: ColourMatrix, expected: tuple[int, int, int]
) -> None:
    red = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    red[:, :, 2] = 255
    with Recording(tmp_path / "out.mp4", WIDTH, HEIGHT, 25) as recording:
        recording.put(Frame((red,), PixelFormat.BGR, WIDTH, HEIGHT, colour=Colour(matrix)))
    planes = read_back(tmp_path / "out.mp4")[0].planes
    assert [memoryview(plane)[40 * plane.line_size + 20] for plane in planes] == pytest.approx(expected, abs=2)


def record_and_raise(path: Path, error: type[BaseException], frames: int) -> None:
    with Recording(path, WIDTH, HEIGHT, 25) as recording:
        for number in range(frames):
            recording.put(frame(number))
        raise error


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("frames", [0, 5])
def test_an_exception_leaves_nothing(tmp_path: Path, error: type[BaseException], frames: int) -> None:
    with pytest.raises(error):
        record_and_raise(tmp_path / "out.mp4", error, frames)
    assert files_in(tmp_path) == []


def test_an_older_recording_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"older")
    with pytest.raises(RuntimeError):
        record_and_raise(path, RuntimeError, 1)
    assert path.read_bytes() == b"older"
    with Recording(path, WIDTH, HEIGHT, 25) as recording:
        recording.put(frame(0))
    assert len(read_back(path)) == 1


def test_a_recording_without_frames_leaves_no_file(tmp_path: Path) -> None:
    with Recording(tmp_path / "out.mp4", WIDTH, HEIGHT, 25) as recording:
        pass
    recording.close()
    assert files_in(tmp_path) == []


def record_noise(path: Path, frames: int) -> None:
    noise = np.random.default_rng(1)
    with Recording(path, 320, 240, 25) as recording:
        for _ in range(frames):
            planes = tuple(noise.integers(0, 255, s, np.uint8) for s in plane_shapes(PixelFormat.I420, 320, 240))
            recording.put(Frame(planes, PixelFormat.I420, 320, 240))


@pytest.mark.parametrize("frames", [2, 30])  # fails at the end; fails on the way
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, frames: int) -> None:
    """A limit on the size of files stands for the disk: both fail in write()."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limit[1]))
    try:
        with pytest.raises(SinkError, match=r"out\.mp4: can't be written \(.*\) and was discarded\. Free some space"):
            record_noise(tmp_path / "out.mp4", frames)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert files_in(tmp_path) == []


def test_a_place_that_can_not_be_written_is_told_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_writable(tmp_path / "out.mp4")
    assert files_in(tmp_path) == []
    with pytest.raises(SinkError, match=r"is a folder; .* Name a file in it"):
        check_writable(tmp_path)
    with pytest.raises(SinkError, match=r"its folder .*none is not there; .* Create it first"):
        Recording(tmp_path / "none" / "out.mp4", WIDTH, HEIGHT, 25)
    if os.geteuid() == 0:  # root writes anywhere but here
        with pytest.raises(SinkError, match=r"can't write in /proc .* choose another folder"):
            check_writable(Path("/proc/out.mp4"))
    else:
        tmp_path.chmod(0o500)
        with pytest.raises(SinkError, match=r"can't write in .* choose another folder"):
            check_writable(tmp_path / "out.mp4")


def test_other_faults(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="none of no_such_encoder opens here for 128x96"):
        Recording(tmp_path / "out.mp4", WIDTH, HEIGHT, 25, encoders=["no_such_encoder"])
    with (
        pytest.raises(SinkError, match="frame 7 is 64x64; expected 128x96"),
        Recording(tmp_path / "out.mp4", WIDTH, HEIGHT, 25) as recording,
    ):
        recording.put(frame(7, (64, 64)))
    assert files_in(tmp_path) == []
