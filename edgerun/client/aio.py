# SPDX-License-Identifier: Apache-2.0
"""The asyncio client: open a stream, send frames, iterate over answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType

import grpc

from edgerun.answer import Answer, Ledger, Policy
from edgerun.client.opening import CHANNEL_OPTIONS, Encoding, StreamInfo, open_request, stream_error, stream_info
from edgerun.clock import Clock, SystemClock
from edgerun.errors import StreamError
from edgerun.result import Segmentation
from edgerun.v1 import stream_pb2 as pb
from edgerun.v1 import stream_pb2_grpc as pb_grpc
from edgerun.wire import answer_from_wire, ledger_from_wire


class AsyncStream:
    """One open stream. Send and iterate from two tasks; `ledger` is there when the iteration has ended."""

    def __init__(self, call: grpc.aio.StreamStreamCall[pb.StreamRequest, pb.StreamResponse], clock: Clock) -> None:
        self._call = call
        self._clock = clock
        self.info: StreamInfo | None = None
        self.ledger: Ledger | None = None
        self.worker_restarts = 0

    async def send(self, frame_id: int, data: bytes, *, capture_ns: int | None = None, key: bool = False) -> None:
        """Send one picture or access unit; waits while the transport is full. `capture_ns` is this side's clock.

        Raises StreamError when the stream has ended.
        """
        now = self._clock.now_ns()
        captured = now if capture_ns is None else capture_ns
        age = max(0, now - captured)
        frame = pb.FrameData(frame_id=frame_id, capture_ns=captured, age_ns=age, data=data, key=key)
        await self._write(pb.StreamRequest(frame=frame))

    async def finish(self) -> None:
        """No more frames: the server answers what it has and ends with the summary."""
        await self._call.done_writing()

    async def answers(self) -> AsyncIterator[Answer[Segmentation]]:
        """Every answer, as it comes; ends after the summary. Raises StreamError when the server breaks off."""
        try:
            while isinstance(response := await self._call.read(), pb.StreamResponse):  # else EOF
                if response.HasField("answer"):
                    yield answer_from_wire(response.answer)
                elif response.HasField("summary"):
                    self.ledger = ledger_from_wire(response.summary)
                    self.worker_restarts = response.summary.worker_restarts
        except grpc.RpcError as error:
            raise stream_error(error) from error
        if self.ledger is None:
            raise StreamError("the server ended the stream without a summary; frames may be unanswered")

    def cancel(self) -> None:
        self._call.cancel()

    async def begin(self, request: pb.StreamRequest) -> None:
        """Send the opening and wait for the server's word that the stream is open."""
        await self._write(request)
        try:
            self.info = stream_info(await self._call.read())
        except grpc.RpcError as error:
            raise stream_error(error) from error
        except StreamError:
            self.cancel()
            raise

    async def _write(self, request: pb.StreamRequest) -> None:
        try:
            await self._call.write(request)
        except grpc.RpcError as error:
            raise stream_error(error) from error
        except asyncio.InvalidStateError as error:  # the call had ended before
            raise await self._end_of_call() from error

    async def _end_of_call(self) -> StreamError:
        if not self._call.done():
            return StreamError("the stream was finished here; open another one for further frames")
        code, details = await self._call.code(), await self._call.details()
        return StreamError(f"{code.name}: {details or 'the stream has ended'}")


class AsyncClient:
    """A connection to a server. `async with AsyncClient("127.0.0.1:8001") as client: ...`"""

    def __init__(self, address: str, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        self._stub = pb_grpc.StreamServiceStub(self._channel)  # type: ignore[no-untyped-call]

    async def open_stream(
        self, model: str, encoding: Encoding, *, policy: Policy = Policy.LATEST, deadline_ns: int = 0
    ) -> AsyncStream:
        """Open a stream and wait until the server has. `deadline_ns` 0 takes the model's default."""
        stream = AsyncStream(self._stub.Stream(), self._clock)
        await stream.begin(open_request(model, encoding, policy, deadline_ns))
        return stream

    async def close(self) -> None:
        await self._channel.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
