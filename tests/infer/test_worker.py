# SPDX-License-Identifier: Apache-2.0
"""Supervision: what becomes of runs, slots and descriptors when a worker dies, hangs, throws, or loses its parent."""

from __future__ import annotations

import gc
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from edgerun.clock import VirtualClock
from edgerun.errors import EngineError
from edgerun.infer.engine import EngineChoice, EngineSlot, FailureKind, NullPlan, RunError
from edgerun.infer.worker import WorkerEngine, WorkerOptions
from edgerun.infer.worker_messages import choice_from_json, choice_to_json
from edgerun.infer.worker_process import death_reason
from edgerun.tensor import TensorSpec

Supervised = Callable[..., WorkerEngine]
PATIENT_S = 30.0  # never reached, however busy the machine

ORPHAN = """
import sys
sys.path[:] = {path!r}
from edgerun.infer.engine import EngineChoice, NullPlan
from edgerun.infer.worker import WorkerEngine
from edgerun.tensor import TensorSpec
spec = TensorSpec("x", "uint8", (4,))
engine = WorkerEngine(EngineChoice("null", null=NullPlan((spec,), (), hang_on=(1,))))
(slot,) = engine.slots(1)
engine.submit(slot)
print(engine.pid, flush=True)
sys.stdin.read()
"""


def run(engine: WorkerEngine, slot: EngineSlot, timeout_s: float = PATIENT_S) -> None:
    engine.submit(slot)
    engine.wait(slot, timeout_s)


def failure(engine: WorkerEngine, slot: EngineSlot, timeout_s: float = PATIENT_S) -> RunError:
    """What `wait` raises for a run that was submitted."""
    with pytest.raises(RunError) as caught:
        engine.wait(slot, timeout_s)
    return caught.value


def run_in_threads(engine: WorkerEngine, slots: Sequence[EngineSlot], count: int) -> list[RunError]:
    """Each slot in a thread of its own, `count` times; what failed."""

    def drive(slot: EngineSlot) -> list[RunError]:
        failures: list[RunError] = []
        for _ in range(count):
            engine.submit(slot)
            try:
                engine.wait(slot, PATIENT_S)
            except RunError as error:
                failures.append(error)
        return failures

    with ThreadPoolExecutor(len(slots)) as pool:
        return [error for failures in pool.map(drive, slots) for error in failures]


def kill_and_see_it_dead(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def present_pid(engine: WorkerEngine) -> int:
    assert engine.pid is not None
    return engine.pid


def children() -> list[int]:
    return [child.pid for child in psutil.Process().children()]


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def test_death_in_a_run_fails_all_pending_runs_and_slots_survive(supervised: Supervised) -> None:
    engine = supervised(die_on=(2,))
    slots = engine.slots(3)
    first_pid = engine.pid
    run(engine, slots[0])
    for slot in slots:
        engine.submit(slot)
    for slot in reversed(slots):
        error = failure(engine, slot)
        assert error.kind is FailureKind.DIED
        assert str(error) == "the worker died: SIGKILL"
    slots[1].outputs["root"][:] = -1
    run(engine, slots[1])
    assert (slots[1].outputs["root"] == 3).all()
    assert engine.pid != first_pid
    assert engine.restarts == 1


def test_killed_from_outside_during_a_run(supervised: Supervised) -> None:
    engine = supervised(hang_on=(1,))
    (slot,) = engine.slots(1)
    engine.submit(slot)
    os.kill(present_pid(engine), signal.SIGKILL)
    assert failure(engine, slot).kind is FailureKind.DIED


def test_death_while_idle_costs_no_run(supervised: Supervised) -> None:
    engine = supervised()
    (slot,) = engine.slots(1)
    kill_and_see_it_dead(present_pid(engine))
    run(engine, slot)
    assert engine.restarts == 1


def test_throwing_keeps_the_worker(supervised: Supervised) -> None:
    engine = supervised(fail_on=(1,))
    (slot,) = engine.slots(1)
    pid = engine.pid
    engine.submit(slot)
    error = failure(engine, slot)
    assert error.kind is FailureKind.THREW
    assert "run 1 fails, as planned" in str(error)
    run(engine, slot)
    assert engine.pid == pid
    assert engine.restarts == 0


def test_hanging_worker_is_killed_in_time_and_replaced(supervised: Supervised) -> None:
    engine = supervised(hang_on=(2,))
    slots = engine.slots(2)
    run(engine, slots[0])
    pid = present_pid(engine)
    began = time.monotonic()
    engine.submit(slots[0])
    engine.submit(slots[1])
    error = failure(engine, slots[1], timeout_s=0.1)
    assert 0.1 <= time.monotonic() - began < 5
    assert error.kind is FailureKind.HUNG
    assert str(error) == "slot 0 ran past 0.1 s; the worker was killed"
    assert failure(engine, slots[0]).kind is FailureKind.HUNG
    assert not psutil.pid_exists(pid)
    run(engine, slots[0])
    assert engine.restarts == 1


def test_hang_timeout_of_the_options_holds_without_one(supervised: Supervised) -> None:
    engine = supervised(WorkerOptions(hang_timeout_s=0.1), hang_on=(1,))
    (slot,) = engine.slots(1)
    engine.submit(slot)
    with pytest.raises(RunError, match=r"ran past 0\.1 s"):
        engine.wait(slot)


def test_a_full_queue_never_blocks_submit(supervised: Supervised) -> None:
    engine = supervised(WorkerOptions(stop_grace_s=0.05), hang_on=(1,))
    with pytest.raises(ValueError, match="slots = 129; expected at most 128"):
        engine.slots(129)
    slots = engine.slots(128)
    for slot in slots:
        engine.submit(slot)
    assert {failure(engine, slot, 0.1).kind for slot in slots} == {FailureKind.HUNG}


def test_a_queue_is_no_hang(supervised: Supervised) -> None:
    engine = supervised(delay_ns=250_000_000)
    slots = engine.slots(4)
    for slot in slots:
        engine.submit(slot)
    engine.wait(slots[-1], timeout_s=0.8)  # after 1 s: four runs of 0.25 s, none of them over 0.8 s
    assert engine.restarts == 0


def test_threads_wait_for_different_slots(supervised: Supervised) -> None:
    engine = supervised(fail_on=(7,))
    slots = engine.slots(4)
    failures = run_in_threads(engine, slots, 200)
    assert [str(error) for error in failures] == ["null engine: run 7 fails, as planned"]


def test_threads_survive_a_death_together(supervised: Supervised) -> None:
    engine = supervised(die_on=(40,))
    slots = engine.slots(3)
    failures = run_in_threads(engine, slots, 25)
    assert {error.kind for error in failures} == {FailureKind.DIED}
    assert engine.restarts >= 1


def test_close_fails_a_pending_run(supervised: Supervised) -> None:
    engine = supervised(WorkerOptions(stop_grace_s=0.05), hang_on=(1,))
    (slot,) = engine.slots(1)
    engine.submit(slot)
    kinds: list[FailureKind] = []
    waiter = threading.Thread(target=lambda: kinds.append(failure(engine, slot).kind))
    waiter.start()
    engine.close()
    waiter.join()
    assert kinds == [FailureKind.CLOSED]


def test_back_off_doubles_from_the_second_failure_in_a_row(supervised: Supervised) -> None:
    clock = VirtualClock()
    engine = supervised(WorkerOptions(restart_backoff_s=0.5, max_backoff_s=0.75), clock, die_on=(1,))
    (slot,) = engine.slots(1)
    for expected_ms in (0, 0, 500, 750):
        submitter = threading.Thread(target=engine.submit, args=(slot,))
        submitter.start()
        if expected_ms:
            clock.wait_for_sleepers(1)
            clock.advance(expected_ms * 1_000_000 - 1)
            assert engine.pid is None
            clock.advance(1)
        submitter.join()
        assert failure(engine, slot).kind is FailureKind.DIED
    assert engine.restarts == 3


def test_explicit_restart_fails_pending_runs(supervised: Supervised) -> None:
    engine = supervised(hang_on=(1,))
    (slot,) = engine.slots(1)
    engine.submit(slot)
    engine.restart()
    assert failure(engine, slot).kind is FailureKind.DIED
    assert engine.restarts == 1


def test_without_automatic_restart_submit_raises(supervised: Supervised) -> None:
    engine = supervised(WorkerOptions(restarts_itself=False), die_on=(1,))
    (slot,) = engine.slots(1)
    engine.submit(slot)
    failure(engine, slot)
    with pytest.raises(RunError, match=r"no worker: the worker died: SIGKILL; call restart\(\)"):
        engine.submit(slot)
    engine.restart()
    engine.submit(slot)


def test_signals_of_the_group_are_left_to_the_parent(supervised: Supervised) -> None:
    engine = supervised()
    (slot,) = engine.slots(1)
    pid = present_pid(engine)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
        run(engine, slot)
    assert engine.pid == pid


def test_a_worker_outlives_the_thread_that_started_it(supervised: Supervised) -> None:
    engines: list[WorkerEngine] = []
    thread = threading.Thread(target=lambda: engines.append(supervised()))
    thread.start()
    thread.join()
    (slot,) = engines[0].slots(1)
    run(engines[0], slot)
    assert engines[0].restarts == 0


def test_a_hung_worker_dies_with_its_parent() -> None:
    script = ORPHAN.format(path=[str(Path(entry).absolute()) for entry in sys.path])
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        worker = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    try:
        assert select.select([worker], [], [], 10)[0], "the worker outlived its parent by 10 s"
    finally:
        os.close(worker)


def test_nothing_is_left_after_many_lives() -> None:
    spec = TensorSpec("x", "uint8", (4,))
    choice = EngineChoice("null", null=NullPlan((spec,), (spec,), die_on=(2,)))
    open_before, children_before = descriptors(), children()
    for life in range(20):
        engine = WorkerEngine(choice)
        (slot,) = engine.slots(1)
        run(engine, slot)
        if life % 4 == 0:
            engine.submit(slot)
            failure(engine, slot)
        engine.close()
        engine.close()
    del slot, engine
    assert descriptors() == open_before
    assert children() == children_before


def test_failed_start_leaves_nothing(tmp_path: Path) -> None:
    open_before, children_before = descriptors(), children()
    with pytest.raises(EngineError, match="no plan"):
        WorkerEngine(EngineChoice("null"))
    with pytest.raises(EngineError, match=r"gone\.onnx: no such graph"):
        WorkerEngine(EngineChoice("onnxruntime", str(tmp_path / "gone.onnx")))
    assert descriptors() == open_before
    assert children() == children_before


def test_worker_is_pinned(supervised: Supervised) -> None:
    spec = TensorSpec("x", "uint8", (4,))
    plan = NullPlan((spec,), (spec,))
    cpu = min(os.sched_getaffinity(0))
    engine = WorkerEngine(EngineChoice("null", null=plan, cpus=(cpu,)))
    try:
        assert os.sched_getaffinity(present_pid(engine)) == {cpu}
    finally:
        engine.close()
    with pytest.raises(EngineError, match=r"cpus = \[1023\]; this process may use"):
        WorkerEngine(EngineChoice("null", null=plan, cpus=(1023,)))


def test_choices_cross_the_channel_unchanged() -> None:
    spec = TensorSpec("x", "uint8", (4, 2))
    plan = NullPlan((spec,), (spec,), 2.5, 7, (1,), (2,), (3,), (4, 5))
    for choice in (EngineChoice("null", null=plan, cpus=(0, 1)), EngineChoice("openvino", "a.onnx", 4, True)):
        assert choice_from_json(choice_to_json(choice)) == choice


@pytest.mark.parametrize(
    ("returncode", "reason"), [(-11, "SIGSEGV"), (3, "exit code 3"), (-64, "SIGRTMAX"), (None, "it doesn't end")]
)
def test_death_reasons(returncode: int | None, reason: str) -> None:
    assert death_reason(returncode) == reason
