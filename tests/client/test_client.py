# SPDX-License-Identifier: Apache-2.0
"""Both clients against the real server, and the blocking one against servers that do as they please."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from edgerun.answer import Answer, DropReason, Policy
from edgerun.client import AsyncClient, VideoStream, coded_video, raw_video
from edgerun.errors import StreamError
from edgerun.frame import PixelFormat
from edgerun.result import Segmentation
from edgerun.v1 import stream_pb2 as pb
from edgerun.v1 import stream_pb2_grpc as pb_grpc
from tests.live_server import HEIGHT, MODEL, WIDTH, LiveServer, small_profile

WAIT_S = 30.0
I420 = raw_video(PixelFormat.I420, WIDTH, HEIGHT)
PICTURE = bytes(WIDTH * HEIGHT * 3 // 2)
LARGE = bytes(1_000_000)  # more than a transport takes in when nobody reads


def ignore(_: Answer[Segmentation]) -> None:
    pass


@contextmanager
def ends_its_threads() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = set(threading.enumerate()) - before
    assert not [thread.name for thread in left if thread.name.startswith("edgerun")]
    for thread in left:  # gRPC's own
        thread.join(WAIT_S)
        assert not thread.is_alive(), thread.name


# The real server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer("--profile", small_profile(tmp_path_factory.mktemp("profile"))) as started:
        yield started


def test_frames_are_answered_and_the_ledger_comes_at_the_end(server: LiveServer) -> None:
    answers: list[Answer[Segmentation]] = []
    with ends_its_threads():
        with VideoStream(server.address, MODEL, I420, answers.append, policy=Policy.EVERY) as stream:
            assert stream.info.model == MODEL
            assert stream.info.deadline_ns > 0
            for frame_id in range(10):
                assert stream.send(frame_id, PICTURE, capture_ns=frame_id)
            with pytest.raises(StreamError, match="has not ended"):
                _ = stream.ledger
        assert stream.ledger.ok == stream.ledger.frames_in == 10
        assert stream.worker_restarts == 0
    assert [(answer.frame_id, answer.capture_ns) for answer in answers] == [(n, n) for n in range(10)]


def test_an_exception_in_the_block_cancels(server: LiveServer) -> None:
    def camera_loop() -> None:
        with stream:
            stream.send(0, PICTURE)
            raise ZeroDivisionError

    with ends_its_threads():
        stream = VideoStream(server.address, MODEL, I420, ignore)
        with pytest.raises(ZeroDivisionError):
            camera_loop()
        with pytest.raises(StreamError, match="was ended here"):
            stream.send(1, PICTURE)
        stream.close()
        stream.close()


def test_finishing_twice_is_harmless_and_nothing_can_be_sent_after_it(server: LiveServer) -> None:
    with VideoStream(server.address, MODEL, I420, ignore) as stream:
        assert stream.finish(WAIT_S) == stream.finish(WAIT_S)
        with pytest.raises(StreamError, match="was ended here"):
            stream.send(0, PICTURE)


def test_a_fault_in_the_callers_own_code_comes_back_to_it(server: LiveServer) -> None:
    def fails(_: Answer[Segmentation]) -> None:
        raise KeyError("a defect of the caller's")

    with ends_its_threads():
        stream = VideoStream(server.address, MODEL, I420, fails)
        stream.send(0, PICTURE)
        with pytest.raises(KeyError, match="defect"):
            stream.finish(WAIT_S)
        stream.close()


def test_a_number_that_is_none_is_refused_at_once(server: LiveServer) -> None:
    with VideoStream(server.address, MODEL, I420, ignore) as stream:
        with pytest.raises(ValueError):
            stream.send(-1, PICTURE)
        stream.send(0, PICTURE)
        assert stream.finish(WAIT_S).frames_in == 1


def test_a_clock_that_runs_ahead_gives_an_age_of_zero(server: LiveServer) -> None:
    answers: list[Answer[Segmentation]] = []
    with VideoStream(server.address, MODEL, I420, answers.append, policy=Policy.EVERY) as stream:
        stream.send(0, PICTURE, capture_ns=2**62)
    assert answers[0].ok
    assert answers[0].age_ns < WAIT_S * 1e9


def test_what_the_server_refuses_is_one_line(server: LiveServer) -> None:
    with ends_its_threads(), pytest.raises(StreamError, match=r"^NOT_FOUND: model 'other' is not served here.*$"):
        VideoStream(server.address, "other", I420, ignore)


def test_no_server_is_one_line() -> None:
    with ends_its_threads(), pytest.raises(StreamError, match=r"^UNAVAILABLE: [^\n]+$"):
        VideoStream("127.0.0.1:9", MODEL, I420, ignore)


def test_the_death_of_the_server_reaches_the_sender(tmp_path: Path) -> None:
    with ends_its_threads():
        dying = LiveServer("--profile", small_profile(tmp_path))
        answered = threading.Event()
        stream = VideoStream(dying.address, MODEL, I420, lambda _: answered.set(), policy=Policy.EVERY)
        stream.send(0, PICTURE)
        assert answered.wait(WAIT_S)
        (worker,) = dying.children
        dying.process.kill()
        dying.process.communicate()
        with pytest.raises(StreamError, match="UNAVAILABLE"):
            all(stream.send(frame_id, PICTURE) or True for frame_id in range(1, 10**6))
        with pytest.raises(StreamError, match="UNAVAILABLE"):
            stream.finish(WAIT_S)
        stream.close()
        worker.wait(WAIT_S)


def test_the_asyncio_client(server: LiveServer) -> None:
    async def flow() -> None:
        async with AsyncClient(server.address) as client:
            with pytest.raises(StreamError, match="NOT_FOUND"):
                await client.open_stream("other", I420)
            stream = await client.open_stream(MODEL, I420, policy=Policy.EVERY)
            assert stream.info is not None
            assert stream.info.model == MODEL

            async def send() -> None:
                for frame_id in range(12):
                    await stream.send(frame_id, PICTURE if frame_id else b"short", capture_ns=frame_id)
                await stream.finish()

            sending = asyncio.create_task(send())
            answers = [answer async for answer in stream.answers()]
            await sending
            assert {a.frame_id: a.reason for a in answers} == {0: DropReason.UNDECODABLE} | dict.fromkeys(range(1, 12))
            assert stream.ledger is not None
            assert (stream.ledger.frames_in, stream.ledger.ok, stream.ledger.open) == (12, 11, 0)
            with pytest.raises(StreamError):
                await stream.send(12, PICTURE)
            other = await client.open_stream(MODEL, I420)
            await other.send(3, PICTURE)
            await other.send(3, PICTURE)
            with pytest.raises(StreamError, match="INVALID_ARGUMENT: frame_id 3 came after 3"):
                _ = [answer async for answer in other.answers()]

    asyncio.run(flow())


# Servers that do as they please

Behaviour = Callable[[Iterator[pb.StreamRequest], grpc.ServicerContext], Iterator[pb.StreamResponse]]
OPENED = pb.StreamResponse(opened=pb.Opened(model=MODEL))


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[str]:
    class Service(pb_grpc.StreamServiceServicer):
        def Stream(
            self, requests: Iterator[pb.StreamRequest], context: grpc.ServicerContext
        ) -> Iterator[pb.StreamResponse]:
            return behaviour(requests, context)

    pool = ThreadPoolExecutor(2)
    server = grpc.server(pool)
    pb_grpc.add_StreamServiceServicer_to_server(Service(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait(WAIT_S)
    pool.shutdown()


class Reluctant:
    """Reads nothing until it is told to; then answers everything."""

    def __init__(self) -> None:
        self.reads = threading.Event()
        self.received: list[int] = []
        self._came = threading.Condition()

    def __call__(
        self, requests: Iterator[pb.StreamRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.StreamResponse]:
        next(requests)
        yield OPENED
        self.reads.wait(WAIT_S)
        for request in requests:
            with self._came:
                self.received.append(request.frame.frame_id)
                self._came.notify_all()
            yield pb.StreamResponse(answer=pb.Answer(frame_id=request.frame.frame_id, status=pb.ANSWER_STATUS_OK))
        yield pb.StreamResponse(summary=pb.Summary(frames_in=len(self.received), ok=len(self.received)))

    def wait_for(self, count: int) -> None:
        with self._came:
            assert self._came.wait_for(lambda: len(self.received) >= count, WAIT_S)


def fill(stream: VideoStream) -> int:
    """Send units until one is refused. Returns its number."""
    return next(number for number in range(1000) if not stream.send(number, LARGE, key=number == 0))


def test_a_camera_is_never_held_up() -> None:
    reluctant = Reluctant()
    raw = raw_video(PixelFormat.BGR, 1000, 1000)
    with serving(reluctant) as address, VideoStream(address, MODEL, raw, ignore, in_flight=3) as stream:
        refused = fill(stream)
        assert 3 <= refused < 50, "what waits is bounded"
        assert not stream.send(refused + 1, LARGE)
        reluctant.reads.set()
        reluctant.wait_for(refused)
        assert stream.send(refused + 2, LARGE), "raw pictures stand alone"
        ledger = stream.finish(WAIT_S)
    assert reluctant.received == [*range(refused), refused + 2]
    assert ledger.ok == len(reluctant.received)


def test_after_a_refused_unit_coded_video_goes_on_with_a_key() -> None:
    reluctant = Reluctant()
    with serving(reluctant) as address, VideoStream(address, MODEL, coded_video("h264"), ignore, in_flight=3) as stream:
        refused = fill(stream)
        reluctant.reads.set()
        reluctant.wait_for(refused)
        assert not stream.send(refused + 1, b"P"), "it would be decoded from a picture that never came"
        assert not stream.send(refused + 2, b"P")
        assert stream.send(refused + 3, b"I", key=True)
        assert stream.send(refused + 4, b"P")
        stream.finish(WAIT_S)
    assert reluctant.received == [*range(refused), refused + 3, refused + 4]


def test_a_key_unit_without_room_is_refused_as_well() -> None:
    reluctant = Reluctant()
    with ends_its_threads(), serving(reluctant) as address:
        stream = VideoStream(address, MODEL, coded_video("h264"), ignore, in_flight=1)
        refused = fill(stream)
        assert not stream.send(refused + 1, LARGE, key=True)
        assert not stream.send(refused + 2, LARGE)
        reluctant.reads.set()
        stream.close()  # with frames unsent


def test_a_server_that_does_not_answer_in_time() -> None:
    reluctant = Reluctant()
    with ends_its_threads(), serving(reluctant) as address:
        stream = VideoStream(address, MODEL, I420, ignore)
        stream.send(0, PICTURE)
        with pytest.raises(StreamError, match=r"has not answered every frame within 0\.05 s"):
            stream.finish(0.05)
        reluctant.reads.set()
        assert stream.finish(WAIT_S).ok == 1
        stream.close()


def test_a_stream_without_a_summary_is_not_in_order() -> None:
    def forgetful(requests: Iterator[pb.StreamRequest], _: grpc.ServicerContext) -> Iterator[pb.StreamResponse]:
        yield OPENED
        yield from ()

    with serving(forgetful) as address:
        stream = VideoStream(address, MODEL, I420, ignore)
        with pytest.raises(StreamError, match="without a summary"):
            stream.finish(WAIT_S)
        stream.close()


@pytest.mark.parametrize("replies", [[], [pb.StreamResponse(summary=pb.Summary())], [pb.StreamResponse()]])
def test_a_server_of_another_kind_is_told_apart(replies: list[pb.StreamResponse]) -> None:
    def foreign(requests: Iterator[pb.StreamRequest], _: grpc.ServicerContext) -> Iterator[pb.StreamResponse]:
        yield from replies

    with ends_its_threads(), serving(foreign) as address, pytest.raises(StreamError, match="did not open the stream"):
        VideoStream(address, MODEL, I420, ignore)


def test_a_reason_that_is_unknown_here_is_said_and_not_guessed() -> None:
    def newer(requests: Iterator[pb.StreamRequest], _: grpc.ServicerContext) -> Iterator[pb.StreamResponse]:
        yield OPENED
        yield pb.StreamResponse(answer=pb.Answer(status=pb.ANSWER_STATUS_DROPPED, reason=99))  # type: ignore[arg-type]

    with serving(newer) as address:
        stream = VideoStream(address, MODEL, I420, ignore)
        with pytest.raises(StreamError, match="drop reason 99 is unknown to this client"):
            stream.finish(WAIT_S)
        stream.close()
