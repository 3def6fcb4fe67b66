# SPDX-License-Identifier: Apache-2.0
"""The real server as a process, spoken to by the real client and, where that is too polite, by bare gRPC."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import av
import grpc
import numpy as np
import psutil
import pytest

from edgerun.answer import Answer, DropReason, Policy
from edgerun.client import Encoding, VideoStream, coded_video, raw_video
from edgerun.errors import StreamError
from edgerun.frame import Frame, PixelFormat
from edgerun.infer.engine import EngineChoice
from edgerun.infer.select import engine_from_choice
from edgerun.model_package import builtin_package, load_package
from edgerun.pipeline import Model
from edgerun.result import Segmentation
from edgerun.source.file import FileSource
from edgerun.v1 import stream_pb2 as pb
from edgerun.v1 import stream_pb2_grpc as pb_grpc
from tests.coded_video import write_video
from tests.live_server import (
    HEIGHT,
    MAX_STREAMS,
    MODEL,
    WIDTH,
    LiveServer,
    eventually,
    flat,
    run,
    scene_planes,
    small_profile,
)

WAIT_S = 30.0
I420 = raw_video(PixelFormat.I420, WIDTH, HEIGHT)
PICTURE = bytes(WIDTH * HEIGHT * 3 // 2)


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_profile(tmp_path_factory.mktemp("profile"))


@pytest.fixture(scope="module")
def server(profile: Path) -> Iterator[LiveServer]:
    with LiveServer("--profile", profile) as started:
        yield started


class Answers:
    """What came back, and a way to wait for it."""

    def __init__(self) -> None:
        self.all: list[Answer[Segmentation]] = []
        self._came = threading.Condition()

    def __call__(self, answer: Answer[Segmentation]) -> None:
        with self._came:
            self.all.append(answer)
            self._came.notify_all()

    def wait_for(self, count: int) -> None:
        with self._came:
            assert self._came.wait_for(lambda: len(self.all) >= count, WAIT_S)

    @property
    def ids(self) -> list[int]:
        return [answer.frame_id for answer in self.all]


def opened(
    server: LiveServer, answers: Answers | None = None, encoding: Encoding = I420, **options: object
) -> VideoStream:
    arguments = {"policy": Policy.EVERY, **options}
    return VideoStream(server.address, MODEL, encoding, answers or Answers(), **arguments)  # type: ignore[arg-type]


def has_room_for_all(server: LiveServer) -> bool:
    """Whether as many streams as the device takes can be opened at once."""
    with ExitStack() as stack:
        try:
            for _ in range(MAX_STREAMS):
                stack.enter_context(opened(server))  # leaving it waits for the end, by when its place is free
        except StreamError:
            return False
    return True


@pytest.fixture(autouse=True)
def leaves_no_slot_taken(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "server" in request.fixturenames:
        server = request.getfixturevalue("server")
        assert eventually(lambda: has_room_for_all(server))


# Pictures


def direct_result(info_engine: str, graph_sha256: str, frame: Frame) -> Segmentation:
    """What the model says without a server."""
    package = load_package(builtin_package(MODEL))
    graph = next(g for g in map(package.graph, package.precisions) if g.sha256 == graph_sha256)
    engine = engine_from_choice(EngineChoice(info_engine, str(graph.path)))
    model, (slot,) = Model(package, engine), engine.slots(1)
    plan = model.plan(frame)
    model.write(frame, plan, slot)
    engine.submit(slot)
    engine.wait(slot)
    result = model.answer(slot, plan)
    engine.close()
    return result


@pytest.mark.parametrize("pixel_format", [PixelFormat.I420, PixelFormat.BGR])
def test_a_raw_picture_gets_the_result_of_a_direct_run(server: LiveServer, pixel_format: PixelFormat) -> None:
    answers, planes = Answers(), scene_planes(20, pixel_format)
    frame = Frame(planes, pixel_format, WIDTH, HEIGHT)
    encoding = raw_video(pixel_format, WIDTH, HEIGHT, frame.colour)
    with opened(server, answers, encoding) as stream:
        assert stream.send(5, flat(planes), capture_ns=123)
        info = stream.info
        ledger = stream.finish(WAIT_S)
    (answer,) = answers.all
    expected = direct_result(info.engine, info.model_sha256, frame)
    assert (answer.frame_id, answer.capture_ns, answer.ok) == (5, 123, True)
    assert answer.result is not None
    np.testing.assert_allclose(answer.result.logits, expected.logits, atol=0.01 * np.abs(expected.logits).max())
    assert answer.result.geometry == expected.geometry
    assert [r.box for r in answer.result.regions] == [r.box for r in expected.regions]
    assert (ledger.frames_in, ledger.ok, ledger.open) == (1, 1, 0)
    assert set(answer.stage_ns) == {"queue", "decode", "preprocess", "infer", "postprocess"}
    assert sum(answer.stage_ns.values()) <= answer.age_ns


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With B pictures: units come out in another order than they go in."""
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    return write_video(tmp_path_factory.mktemp("clip") / "b.mp4", 50, codec=codec, b_frames=2, gop=50)


@pytest.mark.parametrize("first", [0, 7])
def test_every_coded_unit_is_answered_under_its_own_number(server: LiveServer, clip: Path, first: int) -> None:
    """From unit 7 on there is no key picture to begin with: nothing can be decoded, but all of it is answered."""
    answers, source = Answers(), FileSource(clip)
    packets = list(source)[first:]
    with opened(server, answers, coded_video(source.format.codec, source.format.extradata), in_flight=64) as stream:
        for packet in packets:
            assert stream.send(packet.unit_id, packet.data, key=packet.is_key)
        ledger = stream.finish(WAIT_S)
    source.close()
    assert sorted(answers.ids) == [packet.unit_id for packet in packets]
    assert (ledger.frames_in, ledger.open) == (len(packets), 0)
    if first == 0:
        assert answers.ids != sorted(answers.ids), "the clip has no B pictures"
        assert ledger.ok == len(packets)
    else:
        assert ledger.dropped == {DropReason.UNDECODABLE: len(packets)}


def test_a_deadline_that_none_can_meet(server: LiveServer) -> None:
    answers = Answers()
    with opened(server, answers, policy=Policy.LATEST, deadline_ns=1) as stream:
        for frame_id in range(5):
            stream.send(frame_id, PICTURE)
        ledger = stream.finish(WAIT_S)
    assert (ledger.frames_in, ledger.ok, ledger.open) == (5, 0, 0)
    assert {answer.reason for answer in answers.all} <= {DropReason.DEADLINE, DropReason.SUPERSEDED}


def test_a_picture_of_the_wrong_size_costs_itself_only(server: LiveServer) -> None:
    answers = Answers()
    with opened(server, answers) as stream:
        for frame_id, data in enumerate((PICTURE, b"short", b"", PICTURE)):
            stream.send(frame_id, data)
        ledger = stream.finish(WAIT_S)
    assert ledger.ok == 2
    assert ledger.dropped == {DropReason.UNDECODABLE: 2}


# Refusals


def refusal(server: LiveServer, *requests: pb.StreamRequest) -> tuple[grpc.StatusCode, str]:
    """The status that ends a stream of these requests."""
    with grpc.insecure_channel(server.address) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            list(pb_grpc.StreamServiceStub(channel).Stream(iter(requests)))  # type: ignore[no-untyped-call]
        assert isinstance(caught.value, grpc.Call)
        details = str(caught.value.details())
        assert "\n" not in details
        return caught.value.code(), details


def opening(encoding: Encoding | None = I420, model: str = MODEL, policy: int = pb.POLICY_EVERY) -> pb.StreamRequest:
    message = pb.Open(model=model, policy=policy)  # type: ignore[arg-type]
    if isinstance(encoding, pb.RawVideo):
        message.raw.CopyFrom(encoding)
    elif encoding is not None:
        message.coded.CopyFrom(encoding)
    return pb.StreamRequest(open=message)


def frame(frame_id: int) -> pb.StreamRequest:
    return pb.StreamRequest(frame=pb.FrameData(frame_id=frame_id, data=PICTURE))


INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("requests", "status", "words"),
    [
        ([], INVALID, "ended before its `open`"),
        ([frame(0)], INVALID, "begins with `open`"),
        ([opening(model="other")], grpc.StatusCode.NOT_FOUND, "'other' is not served here; this server has"),
        ([opening(policy=0)], INVALID, "policy = 0; expected POLICY_LATEST or POLICY_EVERY"),
        ([opening(policy=77)], INVALID, "policy = 77"),
        ([opening(encoding=None)], INVALID, "encoding is missing; set `raw` or `coded`"),
        ([opening(raw_video(PixelFormat.BGR, 5000, 5000))], INVALID, "5000x5000; expected 1x1 to 4096x4096"),
        ([opening(raw_video(PixelFormat.BGR, 0, 8))], INVALID, "raw picture is 0x8"),
        ([opening(pb.RawVideo(width=8, height=0), policy=0)], INVALID, "policy = 0; expected .*pixel_format = 0.*8x0"),
        ([opening(coded_video("subtitles"))], INVALID, "codec 'subtitles' is unknown; expected one of"),
        ([opening(coded_video(""))], INVALID, "codec '' is unknown"),
        ([opening(), opening()], INVALID, "a second `open` came"),
        ([opening(), pb.StreamRequest()], INVALID, "carries frames only"),
        ([opening(), frame(4), frame(4)], INVALID, "frame_id 4 came after 4; number frames upwards"),
        ([opening(), frame(4), frame(3)], INVALID, "frame_id 3 came after 4"),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(
    server: LiveServer, requests: list[pb.StreamRequest], status: grpc.StatusCode, words: str
) -> None:
    code, details = refusal(server, *requests)
    assert code is status
    assert re.search(words, details), details


def test_a_message_that_is_too_large_ends_its_stream_only(server: LiveServer) -> None:
    large = pb.StreamRequest(frame=pb.FrameData(frame_id=0, data=bytes(2_000_000)))
    assert refusal(server, opening(), large)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_full_device_says_so_and_takes_the_next_when_one_has_gone(server: LiveServer) -> None:
    streams = [opened(server) for _ in range(MAX_STREAMS)]
    try:
        with pytest.raises(StreamError, match=rf"RESOURCE_EXHAUSTED: all {MAX_STREAMS} streams of this device are in"):
            opened(server)
        streams[0].finish(WAIT_S)
        streams.append(opened(server))  # at once: a stream that ended in order has left its place
    finally:
        for stream in streams:
            stream.close()


# Ends that are not in order


def opened_when_there_is_room(server: LiveServer, policy: Policy) -> VideoStream:
    """A client that cancels is gone before the server has heard of it."""
    streams: list[VideoStream] = []

    def attempt() -> bool:
        with suppress(StreamError):
            streams.append(opened(server, policy=policy))
        return bool(streams)

    assert eventually(attempt)
    return streams[0]


def test_a_client_that_cancels_leaves_nothing_behind(server: LiveServer) -> None:
    for round_of in range(24):
        stream = opened_when_there_is_room(server, list(Policy)[round_of % 2])
        for frame_id in range(round_of % 6):
            stream.send(frame_id, PICTURE)
        stream.close()
        if round_of == 3:
            before = server.threads
    assert eventually(lambda: has_room_for_all(server))
    assert server.threads <= before + 12, "twenty streams had two threads each"


KILLED_CLIENT = """
import sys
from edgerun.answer import Policy
from edgerun.client import VideoStream, raw_video
from edgerun.frame import PixelFormat
stream = VideoStream(sys.argv[1], "polyp-seg-lite", raw_video(PixelFormat.I420, 160, 120), print, policy=Policy.EVERY)
for frame_id in range(20):
    stream.send(frame_id, bytes(160 * 120 * 3 // 2))
print("sent", flush=True)
sys.stdin.read()
"""


def test_a_client_that_is_killed_gives_its_place_back(server: LiveServer) -> None:
    command = [sys.executable, "-c", KILLED_CLIENT, server.address]
    clients = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(MAX_STREAMS)
    ]
    for client in clients:
        assert client.stdout is not None
        assert any(line.startswith("sent") for line in client.stdout)
    assert not has_room_for_all(server)
    for client in clients:
        client.kill()
        client.communicate()
    assert eventually(lambda: has_room_for_all(server))


def test_a_client_that_never_reads_is_not_read_either(server: LiveServer) -> None:
    """Its answers wait in its own transport; when it reads at last, nothing is lost."""
    count, sent, all_sent = 120, 0, threading.Event()
    width, height = 400, 300
    small_window = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65536)]

    def requests() -> Iterator[pb.StreamRequest]:
        nonlocal sent
        yield opening(raw_video(PixelFormat.BGR, width, height))
        for frame_id in range(count):
            sent += 1
            yield pb.StreamRequest(frame=pb.FrameData(frame_id=frame_id, data=bytes(3 * width * height)))
        all_sent.set()

    with grpc.insecure_channel(server.address, small_window) as channel:
        responses = pb_grpc.StreamServiceStub(channel).Stream(requests())  # type: ignore[no-untyped-call]
        assert not all_sent.wait(3.0), "the server took everything in"
        assert sent < count - 20
        replies = list(responses)
    assert replies[0].HasField("opened")
    assert [reply.answer.frame_id for reply in replies[1:-1]] == list(range(count))
    assert replies[-1].summary.ok == replies[-1].summary.frames_in == count


# The worker


def worker_of(server: LiveServer) -> psutil.Process:
    (worker,) = server.children
    return worker


def test_a_worker_that_hangs_costs_its_frame_only(server: LiveServer) -> None:
    answers = Answers()
    with opened(server, answers) as stream:
        stream.send(0, PICTURE)
        answers.wait_for(1)
        worker_of(server).suspend()
        stream.send(1, PICTURE)
        stream.send(2, PICTURE)
        ledger = stream.finish(WAIT_S)
        assert stream.worker_restarts == 1
    assert [answer.reason for answer in answers.all] == [None, DropReason.FAILED, None]
    assert ledger.open == 0


def test_a_worker_that_is_killed_is_replaced(server: LiveServer) -> None:
    answers = Answers()
    with opened(server, answers) as stream:
        for frame_id in range(40):
            assert stream.send(frame_id, PICTURE)
            answers.wait_for(frame_id - 3)
            if frame_id == 20:
                worker_of(server).kill()
        ledger = stream.finish(WAIT_S)
        assert stream.worker_restarts == 1
    assert answers.ids == list(range(40))
    assert {answer.reason for answer in answers.all} <= {None, DropReason.FAILED}
    assert answers.all[0].ok
    assert answers.all[-1].ok
    assert (ledger.frames_in, ledger.open) == (40, 0)
    assert ledger.dropped[DropReason.FAILED] <= 2


# The process


def test_sigterm_ends_the_server_and_its_streams_in_order(profile: Path) -> None:
    server = LiveServer("--profile", profile)
    stream = opened(server)
    assert server.stop() == 0
    with pytest.raises(StreamError):
        stream.finish(WAIT_S)
    with pytest.raises(StreamError):
        stream.send(1, PICTURE)
    stream.close()


def test_ctrl_c_ends_the_server_in_order(profile: Path) -> None:
    with LiveServer("--profile", profile) as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(WAIT_S) == 0


def one_line(failed: subprocess.CompletedProcess[str]) -> str:
    assert failed.returncode == 2
    assert failed.stdout == ""
    (line,) = failed.stderr.splitlines()
    return line


def test_a_port_in_use_is_named(server: LiveServer) -> None:
    line = one_line(run("serve", "--grpc", server.address))
    assert server.address in line
    assert "in use" in line


def test_a_package_with_one_byte_flipped_is_refused(tmp_path: Path) -> None:
    package = tmp_path / "package"
    shutil.copytree(builtin_package(MODEL), package)
    graph = package / "fp32.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    line = one_line(run("serve", "--grpc", "127.0.0.1:0", "--model", package))
    assert f"{graph}: sha256 is" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--engine", "abacus"), "engine = 'abacus'"),
        (("--precision", "int1"), "no graph 'int1'"),
        (("--profile", "nowhere.toml"), "nowhere.toml"),
        (("--model", "nowhere"), "nowhere: no such folder"),
    ],
)
def test_what_is_not_there_is_named(arguments: tuple[str, ...], words: str) -> None:
    assert words in one_line(run("serve", "--grpc", "127.0.0.1:0", *arguments))
