# SPDX-License-Identifier: Apache-2.0
"""The flow of one stream: receive -> decode -> preprocess -> infer -> postprocess -> answer.

Two threads a stream, named after what they do: `decode` turns access units into frames, `infer` answers frames.
Between them a slot of bounded size; under LATEST it holds one frame and a newer one takes its place.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from edgerun.answer import DropReason, Policy
from edgerun.decode import NoPicture, Outcome, Undecodable
from edgerun.errors import EdgerunError, ModelError
from edgerun.frame import Frame
from edgerun.infer.engine import Engine, EngineSlot
from edgerun.model_package import ModelPackage
from edgerun.postprocess.segmentation import segment
from edgerun.preprocess.plan import PreprocessPlan, picture_size, plan_for
from edgerun.profiling.spans import Spans
from edgerun.result import Segmentation
from edgerun.session import Receipt, Session
from edgerun.slot import Slot, SlotClosedError
from edgerun.source import Packet

log = logging.getLogger(__name__)
Item = TypeVar("Item")
STAGES = ("decode", "queue", "preprocess", "infer", "postprocess")  # what a pipeline records spans of


@dataclass(frozen=True, slots=True)
class PipelineLimits:
    """How much of a stream may wait where, and how long a run may take before its worker is given up."""

    units: int
    decoded_frames: int
    hang_timeout_s: float


class Feed(Protocol):
    """Turns what a client sends into frames; raw pictures come out as they went in."""

    def decode(self, packet: Packet) -> Iterator[Outcome]: ...

    def flush(self) -> Iterator[Outcome]: ...

    def skip_to_key(self) -> None: ...


class Model:
    """A package with the engine that runs one of its graphs. Raises ModelError when no picture can go through it."""

    def __init__(self, package: ModelPackage, engine: Engine) -> None:
        self.package = package
        self.engine = engine
        self._input = package.inputs[0]
        self._output = package.outputs[0]
        height, width = picture_size(self._input, package.preprocess)
        if self._output.dtype != "float32" or len(self._output.shape) != 4 or self._output.shape[:2] != (1, 1):
            raise ModelError(f"model output {self._output}; a mask needs float32[1, 1, h, w]. Export the model again.")
        self._stride = (width / self._output.shape[3], height / self._output.shape[2])

    def plan(self, frame: Frame) -> PreprocessPlan:
        return plan_for(frame, self.package.preprocess, self._input)

    def answer(self, slot: EngineSlot, plan: PreprocessPlan) -> Segmentation:
        """Read a finished slot. The result owns its memory."""
        declared = self.package.postprocess
        return segment(
            slot.outputs[self._output.name],
            plan.geometry,
            self._stride,
            probability=declared.threshold,
            min_region_fraction=declared.min_region_fraction,
        )

    def write(self, frame: Frame, plan: PreprocessPlan, slot: EngineSlot) -> None:
        plan.write(frame.planes, slot.inputs[self._input.name])


@contextmanager
def stage(name: str, receipt: Receipt, spans: Spans) -> Iterator[None]:
    """Time the block, once for the receipt and for the spans."""
    begin = spans.now_ns()
    try:
        yield
    finally:
        end = spans.now_ns()
        receipt.stage_ns[name] = end - begin
        spans.record(name, receipt.frame_id, begin, end)


class StreamPipeline:
    """Runs one session over one leased engine slot. `close()` drains, `cancel()` doesn't; both join the threads.

    Either may be called from any thread, after `start`, and `cancel` while another thread is in `close`.
    """

    def __init__(
        self, session: Session, model: Model, slot: EngineSlot, feed: Feed, limits: PipelineLimits, spans: Spans
    ) -> None:
        self._session = session
        self._spans = spans
        self._model = model
        self._slot = slot
        self._feed = feed
        self._limits = limits
        self._plan: PreprocessPlan | None = None
        self.inbox: Slot[Packet] = Slot(Policy.EVERY, limits.units)
        latest = session.policy is Policy.LATEST
        self._ready: Slot[Frame] = Slot(session.policy, 1 if latest else limits.decoded_frames)
        self._threads = [
            threading.Thread(target=self._guard, args=(self._decode_loop,), name="edgerun-decode", daemon=True),
            threading.Thread(target=self._guard, args=(self._infer_loop,), name="edgerun-infer", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Answer what has been received, then end."""
        self.inbox.close()
        self._join()

    def cancel(self) -> None:
        """Drop what has been received as CANCELLED, then end; a running inference finishes unheard."""
        self.inbox.close()
        self.inbox.drain()
        self._session.abandon(DropReason.CANCELLED)
        self._release(self._ready.drain())
        self._join()

    def _join(self) -> None:
        for thread in self._threads:
            thread.join()
        # Nothing is owed after a drain; after a cancel a frame may be that was received meanwhile.
        self._session.abandon(DropReason.CANCELLED)

    def _guard(self, loop: Callable[[], None]) -> None:
        """A fault of ours in one thread must not leave frames unanswered: the stream ends with them FAILED."""
        try:
            loop()
        except SlotClosedError:
            pass  # the other thread has given up, and answered all frames
        except Exception:
            log.exception("a stream's %s thread failed", threading.current_thread().name)
            self.inbox.close()
            self.inbox.drain()
            self._ready.close()
            self._release(self._ready.drain())
            self._session.abandon(DropReason.FAILED)

    def _decode_loop(self) -> None:
        for packet in _items(self.inbox):
            if self._has_fallen_behind(packet):
                self._feed.skip_to_key()
            receipt, begin = self._session.receipt(packet.unit_id), self._session.clock.now_ns()
            complete_ns = begin if receipt is None else receipt.received_ns
            for outcome in self._feed.decode(packet):
                self._hand_over(outcome, complete_ns, self._session.clock.now_ns() - begin)
                begin = self._session.clock.now_ns()
        for outcome in self._feed.flush():
            self._hand_over(outcome, self._session.clock.now_ns(), 0)
        self._ready.close()

    def _has_fallen_behind(self, packet: Packet) -> bool:
        """Under LATEST, a unit whose deadline has passed before it is decoded: catch up at the next key unit."""
        receipt = self._session.receipt(packet.unit_id)
        return self._session.policy is Policy.LATEST and receipt is not None and self._session.overdue(receipt)

    def _hand_over(self, outcome: Outcome, complete_ns: int, decode_ns: int) -> None:
        """`complete_ns`: when the unit came that let the picture out. Waiting for it (B pictures) makes none late."""
        unit_id = outcome.frame_id if isinstance(outcome, Frame) else outcome.unit_id
        receipt = self._session.receipt(unit_id)
        if receipt is None:
            self._release([outcome] if isinstance(outcome, Frame) else [])
        elif isinstance(outcome, Frame):
            receipt.complete_ns = max(receipt.received_ns, complete_ns)
            if receipt.complete_ns > receipt.received_ns:
                receipt.stage_ns["reorder"] = receipt.complete_ns - receipt.received_ns
            receipt.stage_ns["decode"] = decode_ns
            now_ns = self._session.clock.now_ns()
            self._spans.record("decode", unit_id, now_ns - decode_ns, now_ns)
            outcome.capture_ns = receipt.capture_ns
            self._make_ready(outcome)
        elif isinstance(outcome, NoPicture):
            self._session.withdraw(receipt)
        else:
            undecodable = isinstance(outcome, Undecodable)
            self._session.drop(receipt, DropReason.UNDECODABLE if undecodable else DropReason.OVERLOAD)

    def _make_ready(self, frame: Frame) -> None:
        try:
            superseded = self._ready.put(frame)
        except SlotClosedError:
            frame.release()
            raise
        if superseded is not None:
            receipt = self._session.receipt(superseded.frame_id)
            superseded.release()
            if receipt is not None:
                self._session.drop(receipt, DropReason.SUPERSEDED)

    def _infer_loop(self) -> None:
        for frame in _items(self._ready):
            receipt = self._session.receipt(frame.frame_id)
            try:
                if receipt is not None:
                    self._answer(frame, receipt)
            finally:
                frame.release()

    def _answer(self, frame: Frame, receipt: Receipt) -> None:
        session, now_ns = self._session, self._session.clock.now_ns()
        waited_ns = now_ns - receipt.complete_ns - receipt.stage_ns.get("decode", 0)
        receipt.stage_ns["queue"] = waited_ns
        self._spans.record("queue", receipt.frame_id, now_ns - waited_ns, now_ns)
        if session.policy is Policy.LATEST and session.overdue(receipt):
            session.drop(receipt, DropReason.DEADLINE)
            return
        try:
            result = self._infer(frame, receipt)
        except EdgerunError:
            session.drop(receipt, DropReason.FAILED)
        else:
            session.succeed(receipt, result)

    def _infer(self, frame: Frame, receipt: Receipt) -> Segmentation:
        with stage("preprocess", receipt, self._spans):
            plan = self._plan_for(frame)
            self._model.write(frame, plan, self._slot)
        with stage("infer", receipt, self._spans):
            self._model.engine.submit(self._slot)
            self._model.engine.wait(self._slot, self._limits.hang_timeout_s)
        with stage("postprocess", receipt, self._spans):
            return self._model.answer(self._slot, plan)

    def _plan_for(self, frame: Frame) -> PreprocessPlan:
        if self._plan is None or not self._plan.fits(frame):
            self._plan = self._model.plan(frame)
        return self._plan

    @staticmethod
    def _release(frames: list[Frame]) -> None:
        for frame in frames:
            frame.release()


def _items(slot: Slot[Item]) -> Iterator[Item]:
    """What comes out of a slot until it is closed and empty."""
    while True:
        try:
            yield slot.take()
        except SlotClosedError:
            return
