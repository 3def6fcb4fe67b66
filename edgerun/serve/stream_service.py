# SPDX-License-Identifier: Apache-2.0
"""`edgerun.v1.StreamService`: packets in, one answer for each frame out, a summary at the end.

The event loop only moves messages. Decoding and inference run in the two threads of the stream's pipeline; what
they answer waits in an outbox whose length stops the reading of further requests, so nothing grows unbounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TypeAlias

import grpc

from edgerun.answer import Answer
from edgerun.clock import Clock
from edgerun.errors import DecodeError
from edgerun.pipeline import StreamPipeline
from edgerun.result import Segmentation
from edgerun.serve.deployment import Deployment
from edgerun.serve.opening import InvalidOpenError, Opening, parse_open
from edgerun.session import Session
from edgerun.slot import SlotClosedError
from edgerun.source import Packet
from edgerun.v1 import stream_pb2 as pb
from edgerun.v1 import stream_pb2_grpc as pb_grpc
from edgerun.wire import answer_to_wire, summary_to_wire

Requests: TypeAlias = AsyncIterator[pb.StreamRequest]
Context: TypeAlias = "grpc.aio.ServicerContext[pb.StreamRequest, pb.StreamResponse]"


class StreamService(pb_grpc.StreamServiceServicer):
    """Serves the streams of one deployment."""

    def __init__(self, deployment: Deployment, clock: Clock) -> None:
        self._deployment = deployment
        self._clock = clock

    async def Stream(self, request_iterator: Requests, context: Context) -> AsyncIterator[pb.StreamResponse]:
        opening = await self._open(request_iterator, context)
        slot = self._deployment.lease_slot()
        if slot is None:
            capacity = self._deployment.capacity
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"all {capacity} streams of this device are in use; close one or raise limits.max_streams",
            )
        assert slot is not None
        loop = asyncio.get_running_loop()
        stream = _LiveStream(self._deployment, opening, self._clock, loop)
        try:
            pipeline = StreamPipeline(
                stream.session, self._deployment.model, slot, opening.feed, self._deployment.limits
            )
            async for response in stream.run(request_iterator, pipeline):
                yield response
        finally:
            self._deployment.return_slot(slot)

    async def _open(self, requests: Requests, context: Context) -> Opening:
        try:
            first = await anext(aiter(requests))
            return parse_open(first, self._deployment)
        except StopAsyncIteration:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the stream ended before its `open` message")
        except InvalidOpenError as error:
            await context.abort(error.status, str(error))
        except DecodeError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        raise AssertionError("abort raises")


class _LiveStream:
    """One stream from `opened` to `summary`."""

    def __init__(self, deployment: Deployment, opening: Opening, clock: Clock, loop: asyncio.AbstractEventLoop) -> None:
        self._deployment = deployment
        self._opening = opening
        self._loop = loop
        self._outbox: asyncio.Queue[pb.StreamResponse | None] = asyncio.Queue()  # bounded by `_room`
        self._room = asyncio.Semaphore(deployment.profile.queues.answers)
        self._fault: BaseException | None = None
        self.session = Session(
            policy=opening.policy, deadline_ns=opening.deadline_ns, clock=clock, emit=self._emit_from_thread
        )

    def _emit_from_thread(self, answer: Answer[Segmentation]) -> None:
        """Conversion happens in the answering thread; only the hand-over touches the loop."""
        message = answer_to_wire(answer)
        with suppress(RuntimeError):  # the loop is gone: the server is shutting down
            self._loop.call_soon_threadsafe(self._outbox.put_nowait, message)

    async def run(self, requests: Requests, pipeline: StreamPipeline) -> AsyncIterator[pb.StreamResponse]:
        pipeline.start()
        yield pb.StreamResponse(opened=self._deployment.opened(self._opening.deadline_ns))
        reader = asyncio.create_task(self._read(requests, pipeline))
        try:
            while (response := await self._outbox.get()) is not None:
                self._room.release()
                yield response
            if self._fault is not None:
                raise self._fault
            yield summary_to_wire(self.session.ledger, self._deployment.worker_restarts)
        finally:
            if not reader.done():
                reader.cancel()
                await asyncio.shield(asyncio.to_thread(pipeline.cancel))

    async def _read(self, requests: Requests, pipeline: StreamPipeline) -> None:
        """Each received frame takes a place in the outbox; reading stops while none is free."""
        try:
            async for request in requests:
                await self._room.acquire()
                await self._accept(request, pipeline)
            await asyncio.to_thread(pipeline.close)
        except (ValueError, SlotClosedError) as error:
            self._fault = error
            await asyncio.to_thread(pipeline.cancel)
        self._outbox.put_nowait(None)

    async def _accept(self, request: pb.StreamRequest, pipeline: StreamPipeline) -> None:
        if request.WhichOneof("kind") != "frame":
            raise ValueError("a second `open` came; after the first message a stream carries frames only")
        frame = request.frame
        self.session.receive(frame.frame_id, frame.capture_ns, frame.age_ns)
        packet = Packet(unit_id=frame.frame_id, data=frame.data, due_ns=0, is_key=frame.key, is_corrupt=False)
        if pipeline.inbox.full:
            await asyncio.to_thread(pipeline.inbox.put, packet)
        else:
            pipeline.inbox.put(packet)
