# SPDX-License-Identifier: Apache-2.0
"""What all engines that run in the calling thread share: `submit` marks, `wait` runs.

In-process engines are for the worker, exporters, tests and micro-benchmarks: a hung one can't be killed.
"""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from edgerun.clock import Clock, SystemClock
from edgerun.errors import EngineError
from edgerun.infer.engine import EngineChoice, EngineSlot, FailureKind, RunError, Tensor
from edgerun.infer.slot_memory import ArraySlot, carve_slots
from edgerun.tensor import TensorSpec

WARM_UP_RUNS = 20
WARM_UP_NS = 2_000_000_000
SCRATCH = -1  # the index of the slot that warm_up runs, so that no caller's slot is touched


class InProcessEngine(ABC):
    """A graph in this process. Subclasses load it, bind each slot's arrays once, and run."""

    def __init__(self, choice: EngineChoice, clock: Clock | None = None) -> None:
        if reason := self.unavailable_reason():
            raise EngineError(f"engine {choice.engine}: {reason}")
        self._clock = clock or SystemClock()
        self._slots: tuple[ArraySlot, ...] = ()
        self._pending: set[int] = set()
        self._closed = threading.Event()
        inputs, outputs = self._load(choice)
        self._inputs = tuple(inputs)
        self._outputs = tuple(outputs)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._outputs

    @classmethod
    @abstractmethod
    def unavailable_reason(cls) -> str | None: ...

    @abstractmethod
    def _load(self, choice: EngineChoice) -> tuple[Sequence[TensorSpec], Sequence[TensorSpec]]:
        """Load the graph; return the specs of its inputs and outputs. Raises EngineError."""

    @abstractmethod
    def _bind(self, slot: ArraySlot) -> None:
        """Make runs of `slot.index` read and write the slot's arrays."""

    @abstractmethod
    def _unbind(self, index: int) -> None: ...

    @abstractmethod
    def _run(self, slot: ArraySlot, timeout_s: float | None) -> None:
        """Run once, in this thread. Only the null engine can honour `timeout_s`."""

    def slots(self, count: int, memory: memoryview | None = None) -> tuple[ArraySlot, ...]:
        """Allocate `count` slots, in `memory` if given (see slot_memory). Once."""
        self._require_open()
        if self._slots:
            raise RunError(FailureKind.MISUSE, f"slots were allocated already: {len(self._slots)}")
        self._slots = carve_slots(self._inputs, self._outputs, count, memory)
        for slot in self._slots:
            self._bind(slot)
        return self._slots

    def warm_up(self) -> None:
        """Run a scratch slot of zeros until the time of a run has stopped falling, 20 runs or 2 s."""
        self._require_open()
        (scratch,) = carve_slots(self._inputs, self._outputs, 1)
        scratch.index = SCRATCH
        self._bind(scratch)
        try:
            self._run_until_steady(scratch)
        finally:
            self._unbind(SCRATCH)

    def _run_until_steady(self, scratch: ArraySlot) -> None:
        began_ns, best_ns = self._clock.now_ns(), 1 << 62
        for count in range(1, WARM_UP_RUNS + 1):
            start_ns = self._clock.now_ns()
            self._run(scratch, None)
            end_ns = self._clock.now_ns()
            is_steady = end_ns - start_ns > 0.98 * best_ns
            best_ns = min(best_ns, end_ns - start_ns)
            if end_ns - began_ns > WARM_UP_NS or (count >= 3 and is_steady):
                return

    def submit(self, slot: EngineSlot) -> None:
        self._require_open()
        self._require_own(slot)
        if slot.index in self._pending:
            raise RunError(FailureKind.MISUSE, f"slot {slot.index} was submitted twice; wait for its run first")
        self._pending.add(slot.index)

    def wait(self, slot: EngineSlot, timeout_s: float | None = None) -> None:
        """Run `slot` in this thread. An in-process run can't be interrupted: `timeout_s` is for the null engine."""
        if slot.index not in self._pending:
            raise RunError(FailureKind.MISUSE, f"slot {slot.index} has no run to wait for; submit it first")
        self._pending.discard(slot.index)
        self._require_open()
        own = self._slots[slot.index]
        start_ns = self._clock.now_ns()
        self._run(own, timeout_s)
        own.run_ns = self._clock.now_ns() - start_ns
        if name := non_finite_output(own):
            raise RunError(FailureKind.NON_FINITE, f"output {name} holds NaN or infinity")

    def close(self) -> None:
        if self._closed.is_set():
            return
        self._closed.set()
        for slot in self._slots:
            self._unbind(slot.index)
        self._slots = ()

    def _require_open(self) -> None:
        if self._closed.is_set():
            raise RunError(FailureKind.CLOSED, "the engine is closed; load it again")

    def _require_own(self, slot: EngineSlot) -> None:
        if not 0 <= slot.index < len(self._slots) or self._slots[slot.index] is not slot:
            raise RunError(FailureKind.MISUSE, f"slot {slot.index} is not this engine's; it has {len(self._slots)}")


def non_finite_output(slot: ArraySlot) -> str | None:
    """The first float output that holds NaN or infinity. Allocates nothing."""
    for name, array in slot.outputs.items():
        if array.dtype.kind == "f" and not _is_finite(array):
            return name
    return None


def _is_finite(array: Tensor) -> bool:
    # NaN survives a maximum. Two passes without allocation cost half of one sum, and a sum may overflow.
    flat = array.reshape(-1)
    return math.isfinite(np.maximum.reduce(flat)) and math.isfinite(np.minimum.reduce(flat))


def require_fixed_shape(graph: str, name: str, shape: Sequence[object]) -> tuple[int, ...]:
    """`shape` as integers. Raises EngineError on a dimension that is symbolic, unknown or empty."""
    if all(isinstance(side, int) and side > 0 for side in shape):
        return tuple(int(str(side)) for side in shape)
    shown = ", ".join("?" if side is None else str(side) for side in shape)
    raise EngineError(f"{graph}: tensor {name} has shape [{shown}]; expected fixed sides. Export with a fixed shape.")


def one_line(error: BaseException) -> str:
    """The message without its line breaks and runs of spaces, at most 400 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 400 else text[:397] + "..."
