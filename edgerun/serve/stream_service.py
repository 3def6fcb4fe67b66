# SPDX-License-Identifier: Apache-2.0
"""`edgerun.v1.StreamService`: packets in, one answer for each frame out, a summary at the end.

The event loop only moves messages. Decoding and inference run in the two threads of the stream's pipeline; what
they answer waits in an outbox. While that is full no further request is read, so nothing grows unbounded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TypeAlias

import grpc

from edgerun.answer import Answer
from edgerun.clock import Clock
from edgerun.decode.raw import RawDecoder
from edgerun.infer.engine import EngineSlot
from edgerun.pipeline import StreamPipeline
from edgerun.result import Segmentation
from edgerun.serve.deployment import Deployment
from edgerun.serve.opening import Opening, RefusedError, parse_open
from edgerun.session import Session
from edgerun.slot import SlotClosedError
from edgerun.source import Packet
from edgerun.v1 import stream_pb2 as pb
from edgerun.v1 import stream_pb2_grpc as pb_grpc
from edgerun.wire import answer_to_wire, summary_to_wire

log = logging.getLogger(__name__)
Requests: TypeAlias = AsyncIterator[pb.StreamRequest]
Context: TypeAlias = "grpc.aio.ServicerContext[pb.StreamRequest, pb.StreamResponse]"


class StreamService(pb_grpc.StreamServiceServicer):
    """Serves the streams of one deployment."""

    def __init__(self, deployment: Deployment, clock: Clock) -> None:
        self._deployment = deployment
        self._clock = clock

    async def Stream(  # noqa: N802  # as in the proto
        self, request_iterator: Requests, context: Context
    ) -> None:
        """A coroutine that writes, not a generator: when the client goes, it is cancelled here and now."""
        try:
            opening = await _first(request_iterator, self._deployment)
            stream = _LiveStream(self._deployment, opening, self._clock)
            try:
                await stream.converse(request_iterator, context)
            finally:
                await stream.end()
            await context.write(stream.summary())
        except RefusedError as error:
            await context.abort(error.status, str(error))


async def _first(requests: Requests, deployment: Deployment) -> Opening:
    async for request in requests:
        return parse_open(request, deployment)
    raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "the stream ended before its `open` message")


class _LiveStream:
    """One stream from `opened` to `summary`. Raises RefusedError when the device has no place left for it."""

    def __init__(self, deployment: Deployment, opening: Opening, clock: Clock) -> None:
        self._deployment = deployment
        self._loop = asyncio.get_running_loop()
        self._outbox: asyncio.Queue[pb.StreamResponse | None] = asyncio.Queue()  # bounded by `_has_room`
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._fault: RefusedError | None = None
        self._last_id = -1
        self._restarts_before = deployment.worker_restarts
        self._deadline_ns = opening.deadline_ns
        self._session = Session(
            policy=opening.policy, deadline_ns=opening.deadline_ns, clock=clock, emit=self._emit_from_thread
        )
        self._slot = _leased_slot(deployment)
        limits = deployment.limits(raw=isinstance(opening.feed, RawDecoder))
        self._pipeline = StreamPipeline(
            self._session, deployment.model, self._slot, opening.feed, limits, deployment.spans
        )
        self._pipeline.start()

    async def converse(self, requests: Requests, context: Context) -> None:
        """Say that the stream is open, then answer until all is answered. Raises RefusedError on a wrong request."""
        reader = asyncio.create_task(self._read(requests))
        try:
            await context.write(pb.StreamResponse(opened=self._deployment.opened(self._deadline_ns)))
            while (response := await self._outbox.get()) is not None:
                self._regulate()
                await context.write(response)
        finally:
            reader.cancel()
        if self._fault is not None:
            raise self._fault

    async def end(self) -> None:
        """Cancel what is left and give the slot back: before the client hears of the end, so that it can come again."""
        # Shielded: were this task cancelled too, the slot would still be given back, by the thread.
        await asyncio.shield(asyncio.to_thread(self._end))

    def _end(self) -> None:
        self._pipeline.cancel()
        self._deployment.return_slot(self._slot)

    def summary(self) -> pb.StreamResponse:
        return summary_to_wire(self._session.ledger, self._deployment.worker_restarts - self._restarts_before)

    def _emit_from_thread(self, answer: Answer[Segmentation]) -> None:
        """Conversion happens in the answering thread; only the hand-over touches the loop."""
        message = answer_to_wire(answer)
        with suppress(RuntimeError):  # the loop is gone: the server is shutting down
            self._loop.call_soon_threadsafe(self._deliver, message)

    def _deliver(self, response: pb.StreamResponse | None) -> None:
        self._outbox.put_nowait(response)
        self._regulate()

    def _regulate(self) -> None:
        """Stop reading when answers pile up. What the pipeline holds by then, a bounded number, still fits in."""
        if self._outbox.qsize() < self._deployment.profile.queues.answers:
            self._has_room.set()
        else:
            self._has_room.clear()

    async def _read(self, requests: Requests) -> None:
        """Ends by delivering None, after the last answer."""
        try:
            async for request in requests:
                await self._accept(request)
                await self._has_room.wait()
            await asyncio.to_thread(self._pipeline.close)
        except RefusedError as error:
            self._fault = error
            await asyncio.to_thread(self._pipeline.cancel)
        except Exception as error:  # the edge: whatever it is, the client must hear of an end
            if not isinstance(error, SlotClosedError):  # that one has been logged where it began
                log.exception("a stream failed")
            self._fault = RefusedError(grpc.StatusCode.INTERNAL, "the stream failed in this server; its log says why")
            await asyncio.to_thread(self._pipeline.cancel)
        finally:
            self._deliver(None)

    async def _accept(self, request: pb.StreamRequest) -> None:
        packet = self._packet(request)
        self._session.receive(packet.unit_id, request.frame.capture_ns, request.frame.age_ns)
        if self._pipeline.inbox.full:
            await asyncio.to_thread(self._pipeline.inbox.put, packet)
        else:
            self._pipeline.inbox.put(packet)

    def _packet(self, request: pb.StreamRequest) -> Packet:
        if request.WhichOneof("kind") != "frame":
            raise RefusedError(
                grpc.StatusCode.INVALID_ARGUMENT,
                "a second `open` came; after the first message a stream carries frames only",
            )
        frame = request.frame
        if frame.frame_id <= self._last_id:
            raise RefusedError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"frame_id {frame.frame_id} came after {self._last_id}; number frames upwards, each once",
            )
        self._last_id = frame.frame_id
        return Packet(unit_id=frame.frame_id, data=frame.data, due_ns=0, is_key=frame.key)


def _leased_slot(deployment: Deployment) -> EngineSlot:
    slot = deployment.lease_slot()
    if slot is None:
        raise RefusedError(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"all {deployment.capacity} streams of this device are in use; close one or raise limits.max_streams",
        )
    return slot
