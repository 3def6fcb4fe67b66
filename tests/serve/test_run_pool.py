# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from edgerun.clock import SystemClock
from edgerun.infer.engine import EngineChoice, EngineSlot, FailureKind, NullPlan, RunError
from edgerun.infer.worker import WorkerEngine
from edgerun.serve.run_pool import ExpiredError, PoolFullError, RunPool
from edgerun.tensor import TensorSpec

SPEC = TensorSpec("x", "uint8", (4,))


@contextmanager
def pool_of(count: int, waiting: int = 2, **plan: Any) -> Iterator[RunPool]:
    """Of a null engine in a worker."""
    engine = WorkerEngine(EngineChoice("null", null=NullPlan((SPEC,), (TensorSpec("y", "uint8", (4,)),), 7, **plan)))
    pool = RunPool(engine, engine.slots(count), max_waiting=waiting, hang_timeout_s=0.5, clock=SystemClock())
    try:
        yield pool
    finally:
        pool.close()
        engine.close()


def write(slot: EngineSlot) -> None:
    slot.inputs["x"][:] = 1


def read(slot: EngineSlot) -> list[int]:
    return list(map(int, np.array(slot.outputs["y"])))


class Gate:
    """A `write` that holds its slot until it is opened."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.opened = threading.Event()

    def write(self, slot: EngineSlot) -> None:
        self.entered.release()
        assert self.opened.wait(10)


def play(pool: RunPool, scene: Callable[[Gate], Awaitable[None]]) -> None:
    gate = Gate()

    async def run() -> None:
        try:
            await asyncio.wait_for(scene(gate), 10)
        finally:
            gate.opened.set()

    asyncio.run(run())


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_results_and_times() -> None:
    with pool_of(2) as pool:
        result, times = asyncio.run(pool.run(write, read))
    assert result == [7] * 4
    assert min(times.queue_ns, times.input_ns, times.infer_ns, times.output_ns) > 0


def test_the_line_is_bounded_and_in_order() -> None:
    order: list[int] = []

    async def scene(gate: Gate) -> None:
        first = asyncio.create_task(pool.run(gate.write, read))
        await asyncio.to_thread(gate.entered.acquire)
        line = [
            asyncio.create_task(pool.run(write, lambda slot, number=number: order.append(number)))  # type: ignore[misc]
            for number in range(2)
        ]
        await settled()
        assert pool.waiting == 2
        with pytest.raises(PoolFullError, match="1 runs are under way and 2 wait"):
            await pool.run(write, read)
        gate.opened.set()
        await asyncio.gather(first, *line)

    with pool_of(1) as pool:
        play(pool, scene)
    assert order == [0, 1]


def test_cancellation_and_time_take_a_run_out_of_the_line() -> None:
    begun: list[str] = []

    async def scene(gate: Gate) -> None:
        first = asyncio.create_task(pool.run(gate.write, read))
        await asyncio.to_thread(gate.entered.acquire)
        cancelled = asyncio.create_task(pool.run(lambda _: begun.append("cancelled"), read))
        await settled()
        cancelled.cancel()
        deadline_ns = SystemClock().now_ns() + 1_000_000
        with pytest.raises(ExpiredError, match="before a slot was free"):
            await pool.run(lambda _: begun.append("expired"), read, deadline_ns)
        with pytest.raises(ExpiredError, match="when it arrived"):
            await pool.run(lambda _: begun.append("late"), read, deadline_ns)
        assert pool.waiting == 0
        first.cancel()  # it runs to its end unheard, and its slot comes back
        gate.opened.set()
        assert (await pool.run(write, read))[0] == [7] * 4

    with pool_of(1) as pool:
        play(pool, scene)
    assert begun == []


def test_a_run_that_fails_costs_no_slot() -> None:
    async def scene(_: Gate) -> None:
        for kind in (FailureKind.THREW, FailureKind.DIED, FailureKind.THREW):  # a new worker counts from 1 again
            with pytest.raises(RunError) as error:
                await pool.run(write, read)
            assert error.value.kind is kind
        with pytest.raises(ZeroDivisionError):
            await pool.run(divide_by_zero, read)

    with pool_of(1, fail_on=(1,), die_on=(2,)) as pool:
        play(pool, scene)


def test_a_run_that_hangs_ends() -> None:
    async def scene(_: Gate) -> None:
        with pytest.raises(RunError, match=r"ran past 0\.5 s"):
            await pool.run(write, read)

    with pool_of(1, hang_on=(1,)) as pool:
        play(pool, scene)


def divide_by_zero(_: EngineSlot) -> None:
    raise ZeroDivisionError
