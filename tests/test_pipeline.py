# SPDX-License-Identifier: Apache-2.0
"""One stream through decode, inference and answer. Time is virtual, so what is late is late by design."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from edgerun.answer import Answer, DropReason, Policy
from edgerun.clock import Clock, SystemClock, VirtualClock
from edgerun.decode import NoPicture, Outcome
from edgerun.decode.raw import RawDecoder
from edgerun.errors import ModelError
from edgerun.frame import Colour, Frame, PixelFormat
from edgerun.infer.engine import Engine, EngineChoice, NullPlan
from edgerun.infer.null import NullEngine
from edgerun.infer.worker import WorkerEngine, WorkerOptions
from edgerun.model_package import Manifest, ModelPackage
from edgerun.pipeline import STAGES, Feed, Model, PipelineLimits, StreamPipeline
from edgerun.profiling.spans import Spans
from edgerun.result import Box, Segmentation
from edgerun.session import Session
from edgerun.slot import SlotClosedError
from edgerun.source import Packet
from edgerun.tensor import TensorSpec

MS = 1_000_000
RUN_NS = 100 * MS  # of the null engine on virtual time
WIDTH, HEIGHT = 8, 6
FRAME_BYTES = WIDTH * HEIGHT * 3 // 2
WAIT_S = 20.0  # for a thread that has nothing left to wait for
IMAGE, LOGITS = TensorSpec("image", "uint8", (1, 3, 16, 16)), TensorSpec("logits", "float32", (1, 1, 4, 4))


def package(image: TensorSpec = IMAGE, logits: TensorSpec = LOGITS) -> ModelPackage:
    def declared(spec: TensorSpec) -> dict[str, object]:
        return {"name": spec.name, "dtype": spec.dtype, "shape": spec.shape}

    manifest = Manifest.model_validate({
        "name": "null", "version": "1.0.0", "task": "segmentation", "family": "null", "license": "Apache-2.0",
        "modality": ["ES"], "body_part": ["COLON"], "provenance": {},
        "inputs": [declared(image)], "outputs": [declared(logits)],
        "preprocess": {"fit": "stretch", "filter": "area", "layout": "planar", "order": "rgb"},
        "postprocess": {"kind": "segmentation"},
        "labels": [{"value": 1, "name": "polyp", "code": {"scheme": "SCT", "value": "1", "meaning": "Polyp"}}],
        "graphs": {"fp32": "fp32.onnx"}, "default": {"deadline_ms": 50.0},
    })  # fmt: skip
    return ModelPackage(Path("null"), manifest, {"fp32.onnx": "0" * 64})


class CountingFeed:
    """Raw I420 whose frames tell when they are released; `sizes` gives single units another size."""

    def __init__(self, sizes: dict[int, tuple[int, int]] | None = None) -> None:
        self._sizes = sizes or {}
        self.made = 0
        self.released = 0

    def decode(self, packet: Packet) -> Iterator[Outcome]:
        width, height = self._sizes.get(packet.unit_id, (WIDTH, HEIGHT))
        for outcome in RawDecoder(PixelFormat.I420, width, height, Colour()).decode(packet):
            yield self._counted(outcome) if isinstance(outcome, Frame) else outcome

    def flush(self) -> Iterator[Outcome]:
        return iter(())

    def skip_to_key(self) -> None:
        pass

    def _counted(self, frame: Frame) -> Frame:
        self.made += 1
        return Frame(
            frame.planes, frame.pixel_format, frame.width, frame.height, frame_id=frame.frame_id, on_release=self._count
        )

    def _count(self) -> None:
        self.released += 1


class Stream:
    """A pipeline over one engine, and what it answered."""

    def __init__(
        self, engine: Engine, clock: Clock, policy: Policy, feed: Feed, deadline_ns: int, hang_timeout_s: float
    ) -> None:
        self.answers: list[Answer[Segmentation]] = []
        self._answered = threading.Condition()
        self.session = Session(policy=policy, deadline_ns=deadline_ns, clock=clock, emit=self._emit)
        spans = Spans(clock, STAGES)
        limits = PipelineLimits(units=16, decoded_frames=2, hang_timeout_s=hang_timeout_s)
        self.pipeline = StreamPipeline(self.session, Model(package(), engine), engine.slots(1)[0], feed, limits, spans)
        self.pipeline.start()

    def _emit(self, answer: Answer[Segmentation]) -> None:
        with self._answered:
            self.answers.append(answer)
            self._answered.notify_all()

    def put(self, *frame_ids: int, data: bytes = bytes(FRAME_BYTES)) -> None:
        for frame_id in frame_ids:
            self.session.receive(frame_id)
            self.pipeline.inbox.put(Packet(frame_id, data, 0, is_key=True))

    def wait_for(self, count: int) -> None:
        with self._answered:
            assert self._answered.wait_for(lambda: len(self.answers) >= count, WAIT_S), self.fates

    @property
    def fates(self) -> dict[int, str]:
        """What became of each frame, in the order of the answers."""
        return {answer.frame_id: answer.reason.value if answer.reason else "ok" for answer in self.answers}

    def balanced(self) -> bool:
        ledger = self.session.ledger
        real = [answer for answer in self.answers if not answer.no_picture]
        return ledger.open == 0 and ledger.frames_in == len(real) and ledger.ok == sum(answer.ok for answer in real)


Open = Callable[..., Stream]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def streams() -> Iterator[list[tuple[Stream, Engine]]]:
    """Whatever a test opened is closed after it, and its ledger balances."""
    opened: list[tuple[Stream, Engine]] = []
    yield opened
    for stream, engine in opened:
        stream.pipeline.cancel()
        engine.close()
        assert stream.balanced()


@pytest.fixture
def open_stream(streams: list[tuple[Stream, Engine]], clock: VirtualClock) -> Open:
    """On virtual time, with the null engine in this process."""

    def opened(policy: Policy, feed: Feed | None = None, deadline_ns: int = 10**12, **plan: object) -> Stream:
        choice = EngineChoice("null", null=NullPlan((IMAGE,), (LOGITS,), 1.0, **plan))  # type: ignore[arg-type]
        engine = NullEngine(choice, clock)
        streams.append((Stream(engine, clock, policy, feed or CountingFeed(), deadline_ns, 0.05), engine))
        return streams[-1][0]

    return opened


def step(stream: Stream, clock: VirtualClock, runs: int = 1) -> None:
    """Let `runs` runs of the engine end, one after the other."""
    for _ in range(runs):
        clock.wait_for_sleepers(1)
        count = len(stream.answers)
        clock.advance(RUN_NS)
        stream.wait_for(count + 1)


def test_a_frame_goes_through_every_stage(open_stream: Open) -> None:
    stream = open_stream(Policy.EVERY)
    stream.put(7)
    stream.pipeline.close()
    (answer,) = stream.answers
    assert answer.result is not None
    assert answer.result.regions[0].box == Box(0, 0, WIDTH, HEIGHT)
    assert set(answer.stage_ns) == {"queue", "decode", "preprocess", "infer", "postprocess"}


def test_latest_answers_the_newest(open_stream: Open, clock: VirtualClock) -> None:
    feed = CountingFeed()
    stream = open_stream(Policy.LATEST, feed, delay_ns=RUN_NS)
    stream.put(0)
    clock.wait_for_sleepers(1)
    stream.put(1, 2, 3, 4)
    stream.wait_for(3)
    step(stream, clock)
    step(stream, clock)
    stream.pipeline.close()
    assert stream.fates == {1: "superseded", 2: "superseded", 3: "superseded", 0: "ok", 4: "ok"}
    assert feed.made == feed.released == 5


def test_every_answers_all_in_order_and_says_what_is_late(open_stream: Open, clock: VirtualClock) -> None:
    feed = CountingFeed()
    stream = open_stream(Policy.EVERY, feed, deadline_ns=RUN_NS * 5 // 2, delay_ns=RUN_NS)
    stream.put(*range(6))
    step(stream, clock, runs=6)
    stream.pipeline.close()
    assert [answer.frame_id for answer in stream.answers] == list(range(6))
    assert [answer.late for answer in stream.answers] == [False, False, True, True, True, True]
    assert stream.session.ledger.late == 4
    assert feed.made == feed.released == 6


def test_the_stages_add_up_to_the_age(open_stream: Open, clock: VirtualClock) -> None:
    stream = open_stream(Policy.EVERY, delay_ns=RUN_NS)
    stream.put(0, 1, 2)
    step(stream, clock, runs=3)
    for answer in stream.answers:
        assert sum(answer.stage_ns.values()) == answer.age_ns == RUN_NS * (answer.frame_id + 1)
        assert answer.stage_ns["infer"] == RUN_NS


class Reordering(CountingFeed):
    """The picture of each even unit comes out after that of the next one."""

    def __init__(self) -> None:
        super().__init__()
        self._held: list[Outcome] = []

    def decode(self, packet: Packet) -> Iterator[Outcome]:
        if packet.unit_id % 2 == 0:
            self._held += super().decode(packet)
        else:
            yield from super().decode(packet)
            yield from self._held
            self._held = []


def test_waiting_for_the_unit_that_lets_a_picture_out_makes_it_older_but_not_late(
    open_stream: Open, clock: VirtualClock
) -> None:
    stream = open_stream(Policy.EVERY, Reordering(), deadline_ns=RUN_NS // 2)
    stream.put(0)
    clock.advance(RUN_NS)
    stream.put(1)
    stream.wait_for(2)
    answers = {answer.frame_id: answer for answer in stream.answers}
    assert not answers[0].late
    assert answers[0].age_ns == sum(answers[0].stage_ns.values()) == answers[0].stage_ns["reorder"] == RUN_NS
    assert "reorder" not in answers[1].stage_ns


def test_what_would_be_late_is_dropped_before_and_after_the_run(open_stream: Open, clock: VirtualClock) -> None:
    stream = open_stream(Policy.LATEST, deadline_ns=RUN_NS // 2, delay_ns=RUN_NS)
    stream.put(0)
    clock.wait_for_sleepers(1)
    stream.put(1)
    clock.advance(RUN_NS)
    stream.wait_for(2)
    assert stream.fates == {0: "deadline", 1: "deadline"}
    assert "infer" in stream.answers[0].stage_ns
    assert "infer" not in stream.answers[1].stage_ns, "a run for a frame that is late already is wasted"


@pytest.mark.parametrize("policy", list(Policy))
def test_a_run_that_fails_costs_its_frame_only(open_stream: Open, policy: Policy) -> None:
    stream = open_stream(policy, fail_on=(2,), nan_on=(3,), hang_on=(5,))
    for frame_id in range(6):
        stream.put(frame_id)
        stream.wait_for(frame_id + 1)
    assert list(stream.fates.values()) == ["ok", "failed", "failed", "ok", "failed", "ok"]


@pytest.mark.parametrize("fault", ["hang_on", "die_on"])
def test_a_worker_that_hangs_or_dies_is_replaced(streams: list[tuple[Stream, Engine]], fault: str) -> None:
    clock = SystemClock()
    plan = NullPlan((IMAGE,), (LOGITS,), 1.0, **{fault: (2,)})  # type: ignore[arg-type]
    engine = WorkerEngine(EngineChoice("null", null=plan), WorkerOptions(), clock)
    stream = Stream(engine, clock, Policy.EVERY, CountingFeed(), 10**12, hang_timeout_s=0.5)
    streams.append((stream, engine))
    stream.put(0, 1, 2)
    stream.pipeline.close()
    assert stream.fates == {0: "ok", 1: "failed", 2: "ok"}
    assert engine.restarts == 1


@pytest.mark.parametrize("size", [0, 1, FRAME_BYTES - 1, FRAME_BYTES + 1])
def test_a_picture_of_the_wrong_size_is_undecodable(open_stream: Open, size: int) -> None:
    stream = open_stream(Policy.EVERY)
    stream.put(0)
    stream.put(1, data=bytes(size))
    stream.put(2)
    stream.pipeline.close()
    assert stream.fates == {1: "undecodable", 0: "ok", 2: "ok"}
    assert stream.session.ledger.dropped == {DropReason.UNDECODABLE: 1}


def test_pictures_may_change_their_size(open_stream: Open) -> None:
    stream = open_stream(Policy.EVERY, CountingFeed({1: (4, 4), 2: (4, 4)}))
    stream.put(0)
    stream.put(1, 2, data=bytes(24))
    stream.put(3)
    stream.pipeline.close()
    boxes = [answer.result.regions[0].box for answer in stream.answers if answer.result]
    assert boxes == [Box(0, 0, 8, 6), Box(0, 0, 4, 4), Box(0, 0, 4, 4), Box(0, 0, 8, 6)]


class HeadersFirst(CountingFeed):
    """Unit 0 is headers only; unit 1 comes out with the flush."""

    def decode(self, packet: Packet) -> Iterator[Outcome]:
        if packet.unit_id == 0:
            yield NoPicture(0)
        elif packet.unit_id == 1:
            self._held = list(super().decode(packet))
        else:
            yield from super().decode(packet)

    def flush(self) -> Iterator[Outcome]:
        return iter(self._held)


def test_headers_are_no_frame_and_the_end_brings_what_was_held_back(open_stream: Open) -> None:
    stream = open_stream(Policy.EVERY, HeadersFirst())
    stream.put(0, 1, 2)
    stream.pipeline.close()
    assert [answer.frame_id for answer in stream.answers if answer.no_picture] == [0]
    assert [answer.frame_id for answer in stream.answers if answer.ok] == [2, 1]
    assert stream.session.ledger.frames_in == 2


@contextmanager
def cancelling(stream: Stream) -> Iterator[None]:
    thread = threading.Thread(target=stream.pipeline.cancel)
    thread.start()
    yield
    thread.join(WAIT_S)
    assert not thread.is_alive()


@pytest.mark.parametrize("policy", list(Policy))
def test_cancelling_answers_all_at_once_and_lets_everything_go(
    open_stream: Open, clock: VirtualClock, policy: Policy
) -> None:
    feed = CountingFeed()
    before = set(threading.enumerate())
    stream = open_stream(policy, feed, delay_ns=RUN_NS)
    stream.put(0)
    clock.wait_for_sleepers(1)
    stream.put(*range(1, 9))
    with cancelling(stream):
        stream.wait_for(9)  # while the engine is still running
        clock.advance(RUN_NS)
    superseded = [answer.frame_id for answer in stream.answers if answer.reason is DropReason.SUPERSEDED]
    cancelled = [answer.frame_id for answer in stream.answers if answer.reason is DropReason.CANCELLED]
    assert sorted(superseded + cancelled) == list(range(9))
    assert 0 in cancelled
    assert policy is Policy.LATEST or not superseded
    assert feed.made == feed.released
    assert set(threading.enumerate()) == before
    with pytest.raises(SlotClosedError):
        stream.put(9)


def test_cancelling_twice_and_after_the_end_is_harmless(open_stream: Open) -> None:
    stream = open_stream(Policy.EVERY)
    stream.put(0)
    stream.pipeline.close()
    stream.pipeline.cancel()
    stream.pipeline.cancel()
    assert stream.fates == {0: "ok"}


class BrokenFeed(CountingFeed):
    """A defect of ours: unit 2 raises in the decoding thread, or is released too early and raises in the other."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self._where = where

    def decode(self, packet: Packet) -> Iterator[Outcome]:
        if packet.unit_id == 2 and self._where == "decode":
            raise RuntimeError("a defect")
        for outcome in super().decode(packet):
            if packet.unit_id == 2 and isinstance(outcome, Frame):
                outcome.release()
            yield outcome


@pytest.mark.parametrize("where", ["decode", "infer"])
def test_a_defect_in_a_thread_fails_the_stream_instead_of_hanging_it(open_stream: Open, where: str) -> None:
    feed = BrokenFeed(where)
    stream = open_stream(Policy.EVERY, feed)
    stream.put(0, 1)
    stream.wait_for(2)
    stream.put(2)
    stream.wait_for(3)
    stream.pipeline.close()
    assert stream.fates == {0: "ok", 1: "ok", 2: "failed"}
    assert feed.made == feed.released
    with pytest.raises(SlotClosedError):
        stream.put(3)


def test_results_own_their_memory(open_stream: Open) -> None:
    stream = open_stream(Policy.EVERY)
    stream.put(0, 1)
    stream.pipeline.close()
    one, other = (answer.result for answer in stream.answers)
    assert one is not None
    assert other is not None
    assert not np.shares_memory(one.logits, other.logits)


@pytest.mark.parametrize(
    ("image", "logits"),
    [
        (TensorSpec("image", "float32", (1, 3, 16, 16)), LOGITS),
        (IMAGE, TensorSpec("logits", "float32", (1, 2, 4, 4))),
        (IMAGE, TensorSpec("logits", "float32", (1, 4, 4))),
    ],
)
def test_a_model_that_takes_no_picture_or_gives_no_mask_is_refused(image: TensorSpec, logits: TensorSpec) -> None:
    engine = NullEngine(EngineChoice("null", null=NullPlan((image,), (logits,))))
    with pytest.raises(ModelError, match="Export the model"):
        Model(package(image, logits), engine)
    engine.close()
