# SPDX-License-Identifier: Apache-2.0
"""The blocking client: the asyncio one on a thread of its own, for programs whose main loop is the camera's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeVar

from edgerun.answer import Answer, Ledger, Policy
from edgerun.client.aio import AsyncClient, AsyncStream, Encoding, StreamInfo
from edgerun.clock import Clock, SystemClock
from edgerun.errors import StreamError
from edgerun.result import Segmentation

OnAnswer = Callable[[Answer[Segmentation]], None]
T = TypeVar("T")


class VideoStream:
    """Sends frames without waiting for anybody; answers arrive in `on_answer`, on the client's own thread.

    A context manager: leaving it normally finishes the stream and waits for every answer, leaving it by an
    exception cancels. At most `in_flight` frames are unsent: `send` then returns False and the frame is the
    caller's to account for, so that a slow network never holds up a camera.
    """

    def __init__(
        self,
        address: str,
        model: str,
        encoding: Encoding,
        on_answer: OnAnswer,
        *,
        policy: Policy = Policy.LATEST,
        deadline_ns: int = 0,
        in_flight: int = 32,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._on_answer = on_answer
        self._unsent = threading.BoundedSemaphore(in_flight)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="edgerun-client", daemon=True)
        self._thread.start()
        try:
            self._client, self._stream = self._call(self._open(address, model, encoding, policy, deadline_ns))
        except BaseException:
            self._stop_loop()
            raise
        self._sends: asyncio.Queue[tuple[int, bytes, int, bool] | None] = asyncio.Queue()  # bounded by `_unsent`
        self._sending = self._start(self._send_loop())
        self._receiving = self._start(self._receive_loop())

    @property
    def info(self) -> StreamInfo:
        assert self._stream.info is not None
        return self._stream.info

    @property
    def ledger(self) -> Ledger:
        """The server's account. Raises StreamError before the stream has ended in order."""
        if self._stream.ledger is None:
            raise StreamError("the stream has not ended; its ledger comes with the summary")
        return self._stream.ledger

    @property
    def worker_restarts(self) -> int:
        return self._stream.worker_restarts

    def send(self, frame_id: int, data: bytes, *, capture_ns: int | None = None, key: bool = False) -> bool:
        """Hand one frame to the sending thread. False, and nothing sent, when `in_flight` are waiting already."""
        if self._receiving.done():
            self._receiving.result()
            raise StreamError("the server has ended the stream")
        if not self._unsent.acquire(blocking=False):
            return False
        captured = self._clock.now_ns() if capture_ns is None else capture_ns
        self._loop.call_soon_threadsafe(self._sends.put_nowait, (frame_id, data, captured, key))
        return True

    def finish(self, timeout_s: float | None = None) -> Ledger:
        """No more frames: wait for every answer and the summary."""
        self._loop.call_soon_threadsafe(self._sends.put_nowait, None)
        self._receiving.result(timeout_s)
        return self.ledger

    def close(self) -> None:
        """Cancel whatever is open and end the thread. Idempotent."""
        if self._loop.is_closed():
            return
        self._call(self._shut())
        self._stop_loop()

    def __enter__(self) -> VideoStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._stream.ledger is None:
                self.finish()
        finally:
            self.close()

    async def _open(
        self, address: str, model: str, encoding: Encoding, policy: Policy, deadline_ns: int
    ) -> tuple[AsyncClient, AsyncStream]:
        client = AsyncClient(address, self._clock)
        try:
            return client, await client.open_stream(model, encoding, policy=policy, deadline_ns=deadline_ns)
        except BaseException:
            await client.close()
            raise

    async def _send_loop(self) -> None:
        while (item := await self._sends.get()) is not None:
            frame_id, data, captured, key = item
            await self._stream.send(frame_id, data, capture_ns=captured, key=key)
            self._unsent.release()
        await self._stream.finish()

    async def _receive_loop(self) -> None:
        async for answer in self._stream.answers():
            self._on_answer(answer)

    async def _shut(self) -> None:
        self._stream.cancel()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)
        await self._client.close()

    def _start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return self._start(work).result()

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
