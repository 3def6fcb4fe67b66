# SPDX-License-Identifier: Apache-2.0
"""An engine in a supervised process: a crash or a hang in native code costs the runs in it, not the parent."""

from __future__ import annotations

import fcntl
import os
import sys
import threading
import time
from dataclasses import dataclass

from edgerun.clock import Clock, SystemClock
from edgerun.errors import EngineError
from edgerun.infer.engine import EngineChoice, EngineSlot, FailureKind, RunError
from edgerun.infer.slot_memory import ArraySlot, block_bytes, carve_slots, shared_block
from edgerun.infer.worker_messages import Op, pack, specs_from_json
from edgerun.infer.worker_process import REAP_S, WorkerGoneError, WorkerProcess
from edgerun.tensor import TensorSpec

MAX_SLOTS = 128  # their requests fit into the channel, so that submit never blocks on a hung worker
HEALTHY_RUNS = 100  # a worker that answered so many has earned an immediate restart

F_ADD_SEALS, F_SEAL_SHRINK = 1033, 0x0002  # linux/fcntl.h


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker is supervised. The first restart is immediate, then the back-off doubles up to its maximum."""

    hang_timeout_s: float = 2.0  # one run
    load_timeout_s: float = 120.0
    restart_backoff_s: float = 0.1
    max_backoff_s: float = 5.0
    stop_grace_s: float = 1.0  # from hanging up to SIGKILL
    restarts_itself: bool = True  # on the next submit; else submit raises until restart()


class WorkerEngine:
    """The Engine contract over a worker process. Slots lie in one memfd that outlives any worker.

    No thread of its own: of the threads in `wait`, one reads the channel and hands the others their results. It
    also sees the worker die or hang, kills and reaps it, and fails all pending runs. All state is under `_changed`,
    which is let go while reading and while starting a worker. Time limits of runs are real time, as the worker is a
    real process; only the back-off goes by the clock.
    """

    def __init__(self, choice: EngineChoice, options: WorkerOptions | None = None, clock: Clock | None = None) -> None:
        if reason := self.unavailable_reason():
            raise EngineError(reason)
        self._choice = choice
        self._options = options or WorkerOptions()
        self._clock = clock or SystemClock()
        self._changed = threading.Condition(threading.Lock())
        self._slots: tuple[ArraySlot, ...] = ()
        self._pending: dict[int, None] = {}  # in the order of submission; the first one runs
        self._ended: dict[int, RunError | None] = {}
        self._running_since_ns = 0
        self._process: WorkerProcess | None = None
        self._starting: WorkerProcess | None = None
        self._is_starting = self._is_reading = self._is_warm = self._closed = False
        self._hang = ""  # why the present worker is being killed
        self._answers = self._failures = self.restarts = 0
        self._failed_ns = 0
        self.last_failure = ""
        self._specs: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]] | None = None
        self._memory_fd = os.memfd_create("edgerun-slots", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            self._process = self._started()
        except BaseException:
            os.close(self._memory_fd)
            raise

    @classmethod
    def unavailable_reason(cls) -> str | None:
        if sys.platform != "linux":
            return f"a worker needs Linux (memfd, SEQPACKET); this is {sys.platform}. Use the engine in-process."
        return None

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._specs[0] if self._specs else ()

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._specs[1] if self._specs else ()

    @property
    def pid(self) -> int | None:
        """Of the present worker; None while there is none."""
        process = self._process
        return process.pid if process else None

    def slots(self, count: int) -> tuple[ArraySlot, ...]:
        """Allocate `count` slots in shared memory. They stay valid across restarts, and readable after close."""
        with self._changed:
            process = self._idle_process()
            if self._slots:
                raise RunError(FailureKind.MISUSE, f"slots were allocated already: {len(self._slots)}")
            if count > MAX_SLOTS:
                raise ValueError(f"slots = {count}; expected at most {MAX_SLOTS}")
            size = block_bytes(self.inputs, self.outputs, count)
            os.ftruncate(self._memory_fd, size)
            fcntl.fcntl(self._memory_fd, F_ADD_SEALS, F_SEAL_SHRINK)  # else a stray truncate is our SIGBUS
            self._slots = carve_slots(self.inputs, self.outputs, count, shared_block(self._memory_fd, size))
            self._ask(process, Op.MAP, count)
            return self._slots

    def warm_up(self) -> None:
        """Warm this worker up, and each one that replaces it."""
        with self._changed:
            self._ask(self._idle_process(), Op.WARM_UP)
            self._is_warm = True

    def submit(self, slot: EngineSlot) -> None:
        """Queue one run. Blocks for back-off and loading if the worker has died; raises RunError if it can't start."""
        with self._changed:
            self._require_free(slot)
            if not self._sent(self._living_process(), slot.index) and len(self._pending) == 1:
                del self._pending[slot.index]  # it died idle: nobody waits, so nobody has noticed yet
                if not self._is_reading and self._process is not None:
                    self._bury(self._process)
                self._sent(self._living_process(), slot.index)

    def wait(self, slot: EngineSlot, timeout_s: float | None = None) -> None:
        """See Engine.wait; without `timeout_s`, `options.hang_timeout_s` holds.

        A run's time counts from the later of its submission and the worker's last answer, so a queue is no hang.
        """
        limit_s = self._options.hang_timeout_s if timeout_s is None else timeout_s
        with self._changed:
            if slot.index not in self._pending and slot.index not in self._ended:
                raise RunError(FailureKind.MISUSE, f"slot {slot.index} has no run to wait for; submit it first")
            while slot.index not in self._ended:
                self._wait_for_news(limit_s)
            error = self._ended.pop(slot.index)
        if error is not None:
            raise error

    def restart(self) -> None:
        """Replace the worker now (after back-off); pending runs raise RunError DIED. For a supervisor's thread."""
        with self._changed:
            self._require_open()
            if (process := self._process) is not None:
                process.kill()
                self._changed.wait_for(lambda: not self._is_reading)
                if self._process is process:  # no reader buried it
                    self._bury(process)
            self._revive()

    def close(self) -> None:
        """End the worker within `stop_grace_s` (then SIGKILL) and free its memory; idempotent, from any thread."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            if self._starting is not None:
                self._starting.kill()
            self._changed.wait_for(lambda: not self._is_starting)
            if self._process is not None:
                self._process.hang_up()
            self._changed.wait_for(lambda: not self._is_reading)
            if self._process is not None:
                self._bury(self._process)
            self._slots = ()
            os.close(self._memory_fd)

    # Runs

    def _sent(self, process: WorkerProcess, index: int) -> bool:
        """Queue a run; False when the worker is gone. The slot is pending either way."""
        if not self._pending:
            self._running_since_ns = time.monotonic_ns()
        self._pending[index] = None
        try:
            process.send(pack(Op.RUN, index))
        except WorkerGoneError:
            return False
        return True

    def _wait_for_news(self, limit_s: float) -> None:
        left_s = limit_s - (time.monotonic_ns() - self._running_since_ns) / 1e9
        if left_s <= 0:
            self._kill_hung(limit_s)
            left_s = REAP_S
        if self._is_reading or self._process is None:
            self._changed.wait(left_s)
        else:
            self._read(self._process, left_s)

    def _kill_hung(self, limit_s: float) -> None:
        if self._process is not None and not self._hang:
            self._hang = f"slot {next(iter(self._pending))} ran past {limit_s:g} s; the worker was killed"
            self._process.kill()

    def _read(self, process: WorkerProcess, timeout_s: float) -> None:
        """Take one message from the worker, without the lock while it waits."""
        self._is_reading = True
        self._changed.release()
        answer, is_gone = None, False
        try:
            answer = process.receive(timeout_s)
        except WorkerGoneError:
            is_gone = True
        except TimeoutError:
            pass
        finally:
            self._changed.acquire()
            self._is_reading = False
            self._changed.notify_all()
        if answer is not None:
            self._end_run(*answer)
        elif is_gone or self._hang:
            self._bury(process)

    def _end_run(self, op: Op, index: int, elapsed_ns: int, text: str) -> None:
        self._running_since_ns = time.monotonic_ns()
        self._answers += 1
        if self._answers == HEALTHY_RUNS:
            self._failures = 0
        if index not in self._pending:
            return
        del self._pending[index]
        self._slots[index].run_ns = elapsed_ns
        kind = FailureKind.NON_FINITE if op is Op.NON_FINITE else FailureKind.THREW
        self._ended[index] = None if op is Op.DONE else RunError(kind, text)

    def _bury(self, process: WorkerProcess) -> None:
        """Reap a worker that is gone or must go, and fail what was pending on it."""
        self._process = None
        cause = process.end(self._options.stop_grace_s)
        kind = FailureKind.CLOSED if self._closed else FailureKind.HUNG if self._hang else FailureKind.DIED
        reason = "the engine was closed" if self._closed else self._hang or f"the worker died: {cause}"
        self._ended.update({index: RunError(kind, reason) for index in self._pending})
        self._pending.clear()
        self._note_failure(reason)
        self._hang = ""
        self._changed.notify_all()

    # The worker's life

    def _living_process(self) -> WorkerProcess:
        if self._process is None:
            if not self._options.restarts_itself:
                raise RunError(FailureKind.DIED, f"no worker: {self.last_failure}; call restart()")
            self._revive()
        if self._process is None:
            raise RunError(FailureKind.DIED, f"no worker: {self.last_failure}")
        return self._process

    def _revive(self) -> None:
        """Start a worker unless there is one, without the lock meanwhile. Raises RunError or EngineError."""
        self._changed.wait_for(lambda: not self._is_starting)
        self._require_open()
        if self._process is not None:
            return
        self._is_starting = True
        self._changed.release()
        process = None
        try:
            self._clock.sleep_until(self._failed_ns + self._backoff_ns())
            process = self._started()
        except EngineError as error:
            self._note_failure(str(error))
            raise
        finally:
            self._changed.acquire()
            self._process = process
            self._is_starting = False
            self.restarts += process is not None
            self._changed.notify_all()
        self._require_open()

    def _backoff_ns(self) -> int:
        if self._failures <= 1:
            return 0
        doubled_s = self._options.restart_backoff_s * 2.0 ** min(self._failures - 2, 30)
        return int(1e9 * min(doubled_s, self._options.max_backoff_s))

    def _note_failure(self, reason: str) -> None:
        self._failures += 1
        self._answers = 0
        self._failed_ns = self._clock.now_ns()
        self.last_failure = reason

    def _started(self) -> WorkerProcess:
        """A worker with its graph loaded, and as far as the last one was: slots mapped, warmed up."""
        process = WorkerProcess(self._choice, self._memory_fd)
        self._starting = process
        try:
            if self._closed:
                raise RunError(FailureKind.CLOSED, "the engine was closed")
            self._bring_up(process)
        except WorkerGoneError:
            raise RunError(FailureKind.DIED, f"{self._what()}: the worker died: {process.end(REAP_S)}") from None
        except TimeoutError:
            process.kill()
            limit_s = self._options.load_timeout_s
            raise RunError(FailureKind.HUNG, f"{self._what()}: not ready after {limit_s:g} s; worker killed") from None
        except BaseException:
            process.end(self._options.stop_grace_s)
            raise
        finally:
            self._starting = None
        return process

    def _bring_up(self, process: WorkerProcess) -> None:
        specs = specs_from_json(process.expect(Op.LOADED, self._options.load_timeout_s))
        if self._specs is not None and specs != self._specs:
            raise EngineError(f"{self._what()}: its tensors changed since it was first loaded; load the package again")
        self._specs = specs
        if self._slots:
            process.ask(Op.MAP, len(self._slots), self._options.load_timeout_s)
        if self._is_warm:
            process.ask(Op.WARM_UP, 0, self._options.load_timeout_s)

    def _ask(self, process: WorkerProcess, op: Op, argument: int = 0) -> None:
        try:
            process.ask(op, argument, self._options.load_timeout_s)
        except WorkerGoneError:
            self._bury(process)
            raise RunError(FailureKind.DIED, f"{self._what()}: {self.last_failure}") from None
        except TimeoutError:
            self._hang = f"{op.name} took more than {self._options.load_timeout_s:g} s; the worker was killed"
            process.kill()
            self._bury(process)
            raise RunError(FailureKind.HUNG, f"{self._what()}: {self.last_failure}") from None

    def _what(self) -> str:
        return self._choice.graph or f"engine {self._choice.engine}"

    # Misuse

    def _idle_process(self) -> WorkerProcess:
        self._require_open()
        if self._pending or self._is_reading:
            raise RunError(FailureKind.MISUSE, f"runs of slots {list(self._pending)} are pending; wait for them first")
        return self._living_process()

    def _require_free(self, slot: EngineSlot) -> None:
        self._require_open()
        if not 0 <= slot.index < len(self._slots) or self._slots[slot.index] is not slot:
            raise RunError(FailureKind.MISUSE, f"slot {slot.index} is not this engine's; it has {len(self._slots)}")
        if slot.index in self._pending or slot.index in self._ended:
            raise RunError(FailureKind.MISUSE, f"slot {slot.index} was submitted twice; wait for its run first")

    def _require_open(self) -> None:
        if self._closed:
            raise RunError(FailureKind.CLOSED, "the engine is closed; load it again")
