# SPDX-License-Identifier: Apache-2.0
"""The asyncio client: open a stream, send frames, iterate over answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import TypeAlias

import grpc

from edgerun.answer import Answer, Ledger, Policy
from edgerun.clock import Clock, SystemClock
from edgerun.errors import StreamError
from edgerun.frame import Colour, PixelFormat
from edgerun.result import Segmentation
from edgerun.v1 import stream_pb2 as pb
from edgerun.v1 import stream_pb2_grpc as pb_grpc
from edgerun.wire import MAX_MESSAGE_BYTES, answer_from_wire, ledger_from_wire, policy_to_wire, raw_video_to_wire

Encoding: TypeAlias = "pb.RawVideo | pb.CodedVideo"


def raw_video(pixel_format: PixelFormat, width: int, height: int, colour: Colour = Colour()) -> Encoding:
    """Pictures as bytes: planes one after another, rows unpadded."""
    return raw_video_to_wire(pixel_format, width, height, colour)


def coded_video(codec: str, extradata: bytes = b"") -> Encoding:
    """Access units of a codec, by FFmpeg's name (h264, hevc, mpeg1video, mjpeg, ...)."""
    return pb.CodedVideo(codec=codec, extradata=extradata)


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What the server said when it opened the stream."""

    model: str
    model_version: str
    model_sha256: str
    precision: str
    engine: str
    deadline_ns: int


class AsyncStream:
    """One open stream. Send and iterate from two tasks; `ledger` is there when the iteration has ended."""

    def __init__(self, call: grpc.aio.StreamStreamCall[pb.StreamRequest, pb.StreamResponse], clock: Clock) -> None:
        self._call = call
        self._clock = clock
        self.info: StreamInfo | None = None
        self.ledger: Ledger | None = None
        self.worker_restarts = 0

    async def send(self, frame_id: int, data: bytes, *, capture_ns: int | None = None, key: bool = False) -> None:
        """Send one picture or access unit; waits while the transport is full. `capture_ns` is this side's clock."""
        now = self._clock.now_ns()
        captured = now if capture_ns is None else capture_ns
        frame = pb.FrameData(frame_id=frame_id, capture_ns=captured, age_ns=now - captured, data=data, key=key)
        try:
            await self._call.write(pb.StreamRequest(frame=frame))
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, grpc.RpcError) as error:
            raise _stream_error(error) from error

    async def finish(self) -> None:
        """No more frames: the server answers what it has and ends with the summary."""
        await self._call.done_writing()

    async def answers(self) -> AsyncIterator[Answer[Segmentation]]:
        """Every answer, as it comes; ends after the summary. Raises StreamError when the server breaks off."""
        try:
            while (response := await self._call.read()) is not grpc.aio.EOF:
                if response.HasField("answer"):
                    yield answer_from_wire(response.answer)
                elif response.HasField("summary"):
                    self.ledger = ledger_from_wire(response.summary)
                    self.worker_restarts = response.summary.worker_restarts
        except grpc.RpcError as error:
            raise _stream_error(error) from error
        if self.ledger is None:
            raise StreamError("the server ended the stream without a summary; frames may be unanswered")

    def cancel(self) -> None:
        self._call.cancel()

    async def opened(self) -> StreamInfo:
        """Wait for the server's word that the stream is open."""
        try:
            response = await self._call.read()
        except grpc.RpcError as error:
            raise _stream_error(error) from error
        if response is grpc.aio.EOF or not response.HasField("opened"):
            raise StreamError("the server did not open the stream; is it an edgerun server of this version?")
        o = response.opened
        return StreamInfo(o.model, o.model_version, o.model_sha256, o.precision, o.engine, o.deadline_ns)


class AsyncClient:
    """A connection to a server. `async with AsyncClient("127.0.0.1:8001") as client: ...`"""

    def __init__(self, address: str, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._channel = grpc.aio.insecure_channel(
            address,
            options=[
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ],
        )
        self._stub = pb_grpc.StreamServiceStub(self._channel)

    async def open_stream(
        self, model: str, encoding: Encoding, *, policy: Policy = Policy.LATEST, deadline_ns: int = 0
    ) -> AsyncStream:
        """Open a stream and wait until the server has. `deadline_ns` 0 takes the model's default."""
        message = pb.Open(model=model, deadline_ns=deadline_ns, policy=policy_to_wire(policy))
        if isinstance(encoding, pb.RawVideo):
            message.raw.CopyFrom(encoding)
        else:
            message.coded.CopyFrom(encoding)
        stream = AsyncStream(self._stub.Stream(), self._clock)
        try:
            await stream._call.write(pb.StreamRequest(open=message))
        except grpc.RpcError as error:
            raise _stream_error(error) from error
        stream.info = await stream.opened()
        return stream

    async def close(self) -> None:
        await self._channel.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _stream_error(error: Exception) -> StreamError:
    if isinstance(error, grpc.aio.AioRpcError):
        return StreamError(f"{error.code().name}: {error.details()}")
    return StreamError(str(error) or type(error).__name__)
