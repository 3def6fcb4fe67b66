# SPDX-License-Identifier: Apache-2.0
"""The native lane shows every picture, whatever becomes of marks and recording."""

from __future__ import annotations

import shutil
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from edgerun.answer import Answer, DropReason
from edgerun.clock import VirtualClock
from edgerun.demo.report import DemoRecorder, NativeVideo, SourceFacts
from edgerun.demo.video_lane import RECORDING_QUEUE, LatestAnnotation, PicturePool, VideoLane
from edgerun.errors import SinkError
from edgerun.frame import Frame, Geometry, PixelFormat, plane_shapes
from edgerun.overlay.compose import OverlayStyle
from edgerun.postprocess.segmentation import segment
from edgerun.result import Segmentation
from edgerun.sink.recording import Recording
from tests.demo.test_report import MACHINE, MODEL

WIDTH, HEIGHT = 64, 48
MS = 1_000_000


def decoded(number: int, width: int = WIDTH, height: int = HEIGHT) -> Frame:
    """A frame as a decoder gives it: read-only."""
    planes = tuple(np.full(shape, 100 + number, np.uint8) for shape in plane_shapes(PixelFormat.I420, width, height))
    for plane in planes:
        plane.flags.writeable = False
    pts = number * 40 * MS
    return Frame(
        planes, PixelFormat.I420, width, height, frame_id=number, pts=pts, time_base=Fraction(1, 1_000_000_000)
    )


def everywhere(width: int = WIDTH, height: int = HEIGHT) -> Segmentation:
    return segment(np.ones((1, 1, 4, 4), np.float32), Geometry(width, height, width / 4, height / 4), (1, 1))


class Watched(Recording):
    """Keeps what it was given; `gate` holds it up, `defect` breaks it."""

    defect: Exception | None = None

    def __init__(self, path: Path) -> None:
        super().__init__(path, WIDTH, HEIGHT, 25)
        self.given: list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def put(self, frame: Frame) -> None:
        self.entered.set()
        assert self.gate.wait(20)
        if self.defect is not None:
            raise self.defect
        self.given.append(frame.planes[0].copy())
        super().put(frame)


class Show:
    def __init__(self, folder: Path) -> None:
        self.clock = VirtualClock(10**9)
        self.annotations = LatestAnnotation()
        self.recorder = DemoRecorder(self.clock)
        self.recording = Watched(folder / "overlay.mp4")
        self.lane = VideoLane(self.recording, self.annotations, self.recorder, self.clock)

    def answer(self, found: Segmentation | None, age_ns: int = 0, reason: DropReason | None = None) -> None:
        self.annotations.offer(Answer(0, self.clock.now_ns() - age_ns, age_ns, {}, found, reason))

    def native(self) -> NativeVideo:
        facts = SourceFacts("file", "clip.mp4", WIDTH, HEIGHT, 25.0)
        return self.recorder.report(
            facts, MODEL, MACHINE, recorded=self.lane.recorded, recording=self.lane.recording_note
        ).native_video


def test_every_picture_is_shown_and_recorded_and_the_decoders_stay_as_they_were(tmp_path: Path) -> None:
    show = Show(tmp_path)
    show.answer(everywhere())
    frames = [decoded(number) for number in range(10)]
    before = [[plane.copy() for plane in frame.planes] for frame in frames]
    planes = [frame.planes for frame in frames]
    for frame in frames:
        show.lane.show(frame)
        with pytest.raises(RuntimeError, match="released"):
            _ = frame.planes
    show.lane.finish()
    for kept, now in zip(before, planes, strict=True):
        for one, other in zip(kept, now, strict=True):
            np.testing.assert_array_equal(one, other)
    native = show.native()
    assert (native.shown, native.annotated, native.recorded, native.recording) == (10, 10, 10, None)
    with av.open(str(tmp_path / "overlay.mp4")) as recorded:
        assert sum(1 for _ in recorded.decode(video=0)) == 10


def test_the_recording_ends_where_the_video_changes_its_size(tmp_path: Path) -> None:
    show = Show(tmp_path)
    show.answer(everywhere())
    for number, size in enumerate([(WIDTH, HEIGHT)] * 3 + [(32, 32)] * 2 + [(WIDTH, HEIGHT)]):
        show.lane.show(decoded(number, *size))
    show.lane.finish()
    native = show.native()
    assert (native.shown, native.recorded) == (6, 3)
    assert native.annotated == 4, "a result of another size is not drawn"
    assert native.recording == "overlay.mp4 ends after 3 pictures, where the video changes from 64x48 to 32x32"
    with av.open(str(tmp_path / "overlay.mp4")) as recorded:
        assert sum(1 for _ in recorded.decode(video=0)) == 3


def test_a_slow_encoder_loses_pictures_and_holds_up_nobody(tmp_path: Path) -> None:
    show = Show(tmp_path)
    show.recording.gate.clear()
    show.lane.show(decoded(0))
    assert show.recording.entered.wait(20)
    for number in range(1, RECORDING_QUEUE + 6):
        show.lane.show(decoded(number))
    show.recording.gate.set()
    show.lane.finish()
    native = show.native()
    assert (native.shown, native.recorded) == (RECORDING_QUEUE + 6, RECORDING_QUEUE + 1)
    assert native.recording == "5 pictures left out: the encoder was too slow"


def test_a_recording_that_cannot_be_finished_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    show = Show(folder)
    show.lane.show(decoded(0))
    shutil.rmtree(folder)
    with pytest.raises(SinkError, match=r"overlay\.mp4"):
        show.lane.finish()
    show.lane.discard()
    assert not list(tmp_path.iterdir())


def test_a_defect_while_recording_comes_out_of_finish(tmp_path: Path) -> None:
    show = Show(tmp_path)
    show.recording.defect = ValueError("a defect")
    show.lane.show(decoded(0))
    show.lane.show(decoded(1))
    with pytest.raises(ValueError, match="a defect"):
        show.lane.finish()
    assert not list(tmp_path.iterdir())
    assert show.native().shown == 2


def test_discarding_leaves_no_file_and_no_thread(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    show = Show(tmp_path)
    for number in range(5):
        show.lane.show(decoded(number))
    show.lane.discard()
    show.lane.discard()
    assert not list(tmp_path.iterdir())
    assert set(threading.enumerate()) == before


def test_what_is_stale_counts_as_no_annotation(tmp_path: Path) -> None:
    show, style = Show(tmp_path), OverlayStyle()
    show.lane.show(decoded(0))
    show.answer(everywhere(), age_ns=style.fresh_ns)
    show.lane.show(decoded(1))
    show.clock.advance(style.stale_ns - style.fresh_ns)
    show.lane.show(decoded(2))
    show.answer(None, reason=DropReason.FAILED)
    show.lane.show(decoded(3))
    show.lane.finish()
    assert show.native().annotated == 1
    unmarked = [(picture[:12] == 100 + number).all() for number, picture in enumerate(show.recording.given)]
    assert unmarked == [True, False, True, True]


def test_the_last_answer_with_a_result_is_kept_whatever_the_decoding_order() -> None:
    latest = LatestAnnotation()
    reference, between = everywhere(), everywhere()
    latest.offer(Answer(5, 500, 0, {}, between))  # a B picture is captured after the one that is shown after it
    latest.offer(Answer(4, 400, 0, {}, reference))
    latest.offer(Answer(6, 600, 0, {}, None, DropReason.DEADLINE))
    kept = latest.get()
    assert kept is not None
    assert (kept.frame_id, kept.found) == (4, reference)


def test_picture_memory_is_used_again_but_never_while_it_is_held() -> None:
    pool = PicturePool()
    first = pool.copy_of(decoded(0))
    second = pool.copy_of(decoded(1))
    memory = first.planes
    assert not np.shares_memory(first.planes[0], second.planes[0])
    first.release()
    third = pool.copy_of(decoded(2))
    assert np.shares_memory(third.planes[0], memory[0])
    second.release()
    assert pool.copy_of(decoded(3, 32, 32)).planes[0].shape == (32, 32)


def test_a_unit_without_a_picture_was_no_frame() -> None:
    clock = VirtualClock()
    recorder = DemoRecorder(clock)
    for unit in range(4):
        recorder.frame_in(unit, clock.now_ns())
    recorder.answer(Answer(0, 0, 0, {}, no_picture=True))
    recorder.answer(Answer(1, 0, 0, {}))
    recorder.answer(Answer(2, 0, 0, {}, reason=DropReason.OVERLOAD))
    recorder.answer(Answer(3, 0, 0, {}, reason=DropReason.UNDECODABLE))
    counts = recorder.report(SourceFacts("file", "a", 2, 2, 1.0), MODEL, MACHINE).frames
    assert (counts.entered, counts.ok, counts.open) == (3, 1, 0)
    assert recorder.frames_in == 3
