# SPDX-License-Identifier: Apache-2.0
"""Runs for callers that hold no slot: a few engine slots, one thread each, and a line of bounded length before them.

All state belongs to the event loop. A thread takes one job at a time: writes the inputs, runs, reads the outputs; so a
request costs one hop out of the loop and one back. As many runs as there are slots can stand in the engine's queue
before a frame of a stream, and no more.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from edgerun.clock import Clock
from edgerun.errors import EdgerunError
from edgerun.infer.engine import Engine, EngineSlot

Result = TypeVar("Result")


class PoolFullError(EdgerunError):
    """Every slot is taken and the line is full."""


class ExpiredError(EdgerunError):
    """The time for a run was over before the run began."""


@dataclass(frozen=True, slots=True)
class RunTimes:
    """Nanoseconds. `queue` is all the waiting: for a slot, and for the engine."""

    queue_ns: int
    input_ns: int
    infer_ns: int
    output_ns: int


class RunPool:
    """Starts its threads in the constructor; call `close` before the engine is closed. For one event loop."""

    def __init__(
        self, engine: Engine, slots: Sequence[EngineSlot], *, max_waiting: int, hang_timeout_s: float, clock: Clock
    ) -> None:
        self._clock = clock
        self._max_waiting = max_waiting
        self._hang_timeout_s = hang_timeout_s
        self._runners = [_Runner(engine, slot, hang_timeout_s, clock) for slot in slots]
        self._idle = list(self._runners)
        self._waiting: dict[asyncio.Future[_Runner], None] = {}  # in order of arrival

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def run(
        self,
        write: Callable[[EngineSlot], None],
        read: Callable[[EngineSlot], Result],
        deadline_ns: int | None = None,
    ) -> tuple[Result, RunTimes]:
        """Call `write`, run, and call `read`, in a thread, with a slot that is theirs for that time.

        Raises PoolFullError, ExpiredError, and what the three raise. Cancelled while waiting, nothing runs; cancelled
        while running, the run finishes unheard.
        """
        received_ns = self._clock.now_ns()
        if deadline_ns is not None and received_ns >= deadline_ns:
            raise ExpiredError("the time for this run was over when it arrived")
        runner = self._idle.pop() if self._idle else await self._queue(deadline_ns)
        ended: asyncio.Future[tuple[Result, RunTimes]] = asyncio.get_running_loop().create_future()
        job = _Job(write, read, received_ns, ended, lambda: self._give_back(runner))
        runner.mailbox.put(job)
        return await ended

    async def _queue(self, deadline_ns: int | None) -> _Runner:
        if len(self._waiting) >= self._max_waiting:
            raise PoolFullError(
                f"{len(self._runners)} runs are under way and {self._max_waiting} wait, all that this device allows; "
                "send fewer at once, or raise slots.engine or queues.answers of its profile"
            )
        loop = asyncio.get_running_loop()
        ticket: asyncio.Future[_Runner] = loop.create_future()
        self._waiting[ticket] = None
        timer = None
        if deadline_ns is not None:
            timer = loop.call_later((deadline_ns - self._clock.now_ns()) / 1e9, _expire, ticket)
        try:
            return await ticket
        except asyncio.CancelledError:
            if ticket.done() and not ticket.cancelled() and ticket.exception() is None:
                self._give_back(ticket.result())  # both came in one turn of the loop
            raise
        finally:
            self._waiting.pop(ticket, None)
            if timer is not None:
                timer.cancel()

    def _give_back(self, runner: _Runner) -> None:
        for ticket in self._waiting:
            if not ticket.done():
                del self._waiting[ticket]
                ticket.set_result(runner)
                return
        self._idle.append(runner)

    def close(self) -> None:
        """End the threads after their present run, or leave one that hangs to the end of its engine. Blocks."""
        for runner in self._runners:
            runner.mailbox.put(None)
        for runner in self._runners:
            runner.thread.join(self._hang_timeout_s)


def _expire(ticket: asyncio.Future[_Runner]) -> None:
    if not ticket.done():
        ticket.set_exception(ExpiredError("the time for this run was over before a slot was free"))


class _Job(Generic[Result]):
    """One run. `end` is called in the runner's thread; the loop does the rest."""

    def __init__(
        self,
        write: Callable[[EngineSlot], None],
        read: Callable[[EngineSlot], Result],
        received_ns: int,
        ended: asyncio.Future[tuple[Result, RunTimes]],
        give_back: Callable[[], None],
    ) -> None:
        self.write = write
        self.read = read
        self.received_ns = received_ns
        self._ended = ended
        self._give_back = give_back
        self._loop = ended.get_loop()

    def end(self, result: tuple[Result, RunTimes] | BaseException) -> None:
        with suppress(RuntimeError):  # the loop is gone: the server is shutting down
            self._loop.call_soon_threadsafe(self._settle, result)

    def _settle(self, result: tuple[Result, RunTimes] | BaseException) -> None:
        self._give_back()
        if self._ended.done():
            return  # cancelled
        if isinstance(result, BaseException):
            self._ended.set_exception(result)
        else:
            self._ended.set_result(result)


class _Runner:
    """A slot and its thread. The mailbox holds one job at most: only an idle runner is given one."""

    def __init__(self, engine: Engine, slot: EngineSlot, hang_timeout_s: float, clock: Clock) -> None:
        self._engine = engine
        self._slot = slot
        self._hang_timeout_s = hang_timeout_s
        self._clock = clock
        self.mailbox: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._loop, name=f"edgerun-unary-{slot.index}", daemon=True)
        self.thread.start()

    def _loop(self) -> None:
        while (job := self.mailbox.get()) is not None:
            try:
                job.end(self._carry_out(job))
            except Exception as error:  # noqa: BLE001  # it is the caller's to judge
                job.end(error)
            del job  # it holds a request, and the next one may be long in coming

    def _carry_out(self, job: _Job[Any]) -> tuple[Any, RunTimes]:
        now, slot = self._clock.now_ns, self._slot
        begin_ns = now()
        job.write(slot)
        written_ns = now()
        self._engine.submit(slot)
        self._engine.wait(slot, self._hang_timeout_s)
        run_ns, ran_ns = slot.run_ns, now()
        result = job.read(slot)
        queue_ns = begin_ns - job.received_ns + max(0, ran_ns - written_ns - run_ns)
        return result, RunTimes(queue_ns, written_ns - begin_ns, run_ns, now() - ran_ns)
