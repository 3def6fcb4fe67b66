# SPDX-License-Identifier: Apache-2.0
"""The native video lane: decode, draw the latest marks, record. It never waits for the network or the server."""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from edgerun.answer import Answer, Policy
from edgerun.clock import Clock
from edgerun.demo.report import DemoRecorder
from edgerun.frame import Frame, PixelFormat, Plane, plane_shapes
from edgerun.overlay.compose import OverlayStyle, draw_result, draw_status, is_of_size
from edgerun.result import Segmentation
from edgerun.sink.recording import Recording
from edgerun.slot import Slot, SlotClosedError

RECORDING_QUEUE = 12  # pictures that may wait for the encoder
WARM_PICTURES = 4
RECORDING_NICENESS = 10


@dataclass(frozen=True, slots=True)
class Annotation:
    """The last successful inference."""

    frame_id: int
    capture_ns: int
    found: Segmentation


class LatestAnnotation:
    """Where the client's thread leaves an answer and the video lane picks it up. Thread-safe by one assignment."""

    def __init__(self) -> None:
        self._latest: Annotation | None = None

    def offer(self, answer: Answer[Segmentation]) -> None:
        """Keep `answer` if it has a result. Answers come in display order, which with B pictures isn't capture's."""
        if answer.result is not None:
            self._latest = Annotation(answer.frame_id, answer.capture_ns, answer.result)

    def get(self) -> Annotation | None:
        return self._latest


class PicturePool:
    """Picture memory that is used again: as many buffers as are ever in flight at once, per size."""

    def __init__(self) -> None:
        self._free: deque[tuple[Plane, ...]] = deque(maxlen=RECORDING_QUEUE + 4)

    def copy_of(self, frame: Frame) -> Frame:
        """A writable copy of `frame` on pooled memory; its last `release()` gives the memory back."""
        planes = self._buffers(frame)
        for target, plane in zip(planes, frame.planes, strict=True):
            np.copyto(target, plane)
        return Frame(
            planes,
            frame.pixel_format,
            frame.width,
            frame.height,
            frame_id=frame.frame_id,
            pts=frame.pts,
            time_base=frame.time_base,
            capture_ns=frame.capture_ns,
            colour=frame.colour,
            on_release=lambda: self._free.append(planes),
        )

    def _buffers(self, frame: Frame) -> tuple[Plane, ...]:
        shapes = [plane.shape for plane in frame.planes]
        try:
            planes = self._free.popleft()
        except IndexError:
            return tuple(np.empty(shape, np.uint8) for shape in shapes)
        if [plane.shape for plane in planes] == shapes:
            return planes
        return tuple(np.empty(shape, np.uint8) for shape in shapes)


class VideoLane:
    """Shows each decoded frame with the marks that are known by then, and records what was shown.

    `show` runs in the caller's thread and is all that the overlay adds to native video. The encoder has a thread of
    its own behind a bounded slot; a picture it has no room for is left out of the recording and counted, never
    waited for. The recording ends where the video changes its size. End with `finish` or `discard`.
    """

    def __init__(
        self,
        recording: Recording,
        annotations: LatestAnnotation,
        recorder: DemoRecorder,
        clock: Clock,
        style: OverlayStyle = OverlayStyle(),
    ) -> None:
        self._recording = recording
        self._annotations = annotations
        self._recorder = recorder
        self._clock = clock
        self._style = style
        self._pool = PicturePool()
        self._slot: Slot[Frame] = Slot(Policy.LATEST, RECORDING_QUEUE)
        self._fault: Exception | None = None
        self._ends_with = ""  # why nothing is recorded any more
        self._left_out = 0
        self._warm_up()
        self._thread = threading.Thread(target=self._record_loop, name="demo-record", daemon=True)
        self._thread.start()

    @property
    def recorded(self) -> int:
        """Pictures that are in the recording; final after `finish`."""
        return self._recording.frames

    @property
    def recording_note(self) -> str | None:
        """Why some of the pictures shown are not in the recording; None when all are."""
        late = f"{self._left_out} pictures left out: the encoder was too slow" if self._left_out else ""
        return "; ".join(filter(None, (self._ends_with, late))) or None

    def show(self, frame: Frame) -> None:
        """Composite one frame and hand it to the encoder. Releases `frame`."""
        begin = self._clock.now_ns()
        picture = self._pool.copy_of(frame)
        frame.release()
        annotation = self._annotations.get()
        if annotation is not None and not is_of_size(annotation.found, picture):
            annotation = None
        age = None if annotation is None else begin - annotation.capture_ns
        if annotation is not None and age is not None:
            draw_result(picture.planes, picture, annotation.found, age, self._style)
        draw_status(picture.planes, picture, age, self._style)
        added = self._clock.now_ns() - begin
        self._recorder.stage("overlay", added)
        self._recorder.composited(picture.frame_id, added, age if age is None or age < self._style.stale_ns else None)
        self._record(picture)

    def _warm_up(self) -> None:
        """OpenCV's first text takes some 70 ms and new memory a page fault every 4 KiB: not on a patient's picture."""
        width, height = self._recording.width, self._recording.height
        grey = tuple(np.zeros(shape, np.uint8) for shape in plane_shapes(PixelFormat.I420, width, height))
        native = Frame(grey, PixelFormat.I420, width, height)
        pictures = [self._pool.copy_of(native) for _ in range(WARM_PICTURES)]
        for picture in pictures:
            draw_status(picture.planes, picture, None, self._style)
            picture.release()

    def _record(self, picture: Frame) -> None:
        pushed_out = self._slot.put(picture)
        if pushed_out is not None:
            self._left_out += 1
            pushed_out.release()

    def finish(self) -> None:
        """Encode what waits and put the file under its final name. Raises SinkError if that failed: no file then."""
        self._slot.close()
        self._thread.join()
        if self._fault is not None:
            self._recording.discard()
            raise self._fault
        self._recording.close()

    def discard(self) -> None:
        """Leave no file behind."""
        self._slot.close()
        for picture in self._slot.drain():
            picture.release()
        self._thread.join()
        self._recording.discard()

    def _record_loop(self) -> None:
        _yield_to_the_lane()
        while True:
            try:
                picture = self._slot.take()
            except SlotClosedError:
                return
            try:
                if self._fault is None and self._takes(picture):
                    self._encode(picture)
            except Exception as error:  # noqa: BLE001  # raised by `finish`, on the caller's thread
                self._fault = error
            finally:
                picture.release()

    def _encode(self, picture: Frame) -> None:
        begin = self._clock.now_ns()
        self._recording.put(picture)
        self._recorder.stage("encode", self._clock.now_ns() - begin)

    def _takes(self, picture: Frame) -> bool:
        """An MP4 has pictures of one size."""
        if (picture.width, picture.height) != (self._recording.width, self._recording.height) and not self._ends_with:
            before = f"{self._recording.width}x{self._recording.height}"
            self._ends_with = (
                f"{self._recording.path.name} ends after {self._recording.frames} pictures, where the video changes "
                f"from {before} to {picture.width}x{picture.height}"
            )
        return not self._ends_with


def _yield_to_the_lane() -> None:
    """On Linux a thread has a priority of its own: encoding takes the time that the picture doesn't need."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), RECORDING_NICENESS)
