# SPDX-License-Identifier: Apache-2.0
"""The contract of an inference engine, wherever it runs: in this process or in a supervised worker."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from edgerun.errors import EngineError
from edgerun.tensor import TensorSpec

Tensor = NDArray[Any]


class FailureKind(enum.Enum):
    """Why a run has no result."""

    THREW = "threw"  # the engine reported an error; it goes on
    NON_FINITE = "non_finite"  # a float output holds NaN or infinity; it goes on
    HUNG = "hung"  # it ran past its time limit; a worker is killed
    DIED = "died"  # the worker's process ended; it can be restarted
    CLOSED = "closed"  # the engine was closed first
    MISUSE = "misuse"  # the caller broke the contract: a slot submitted twice, or waited for without a run


class RunError(EngineError):
    """One run, or the start of a worker for it, failed. `kind` is for code, the message for people."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class EngineSlot(Protocol):
    """The inputs and outputs of one run. Whoever holds the slot owns both until it is submitted again."""

    @property
    def index(self) -> int: ...

    @property
    def inputs(self) -> Mapping[str, Tensor]:
        """Writable arrays of the engine's input specs; preprocessing writes straight into them."""
        ...

    @property
    def outputs(self) -> Mapping[str, Tensor]:
        """Arrays of the output specs; valid from `wait` until the next `submit` of this slot."""
        ...

    @property
    def run_ns(self) -> int:
        """What the last run took inside the engine, in nanoseconds; waiting and hand-over are not in it."""
        ...


class Engine(Protocol):
    """A loaded graph. One thread may submit while others wait; each slot has one run at a time."""

    @property
    def inputs(self) -> Sequence[TensorSpec]: ...

    @property
    def outputs(self) -> Sequence[TensorSpec]: ...

    @classmethod
    def unavailable_reason(cls) -> str | None:
        """None when this engine can run here, else why it can't and what to install. Imports nothing heavy."""
        ...

    def slots(self, count: int) -> Sequence[EngineSlot]:
        """Allocate `count` slots. Called once, before the first run."""
        ...

    def warm_up(self) -> None:
        """Run until the first real run costs what the hundredth costs. Slots keep their contents."""
        ...

    def submit(self, slot: EngineSlot) -> None:
        """Queue one run of `slot`. Doesn't block on the run; may block to restart a worker that died."""
        ...

    def wait(self, slot: EngineSlot, timeout_s: float | None = None) -> None:
        """Block until the run of `slot` has ended.

        `timeout_s` says when a run counts as hung, from when it can have begun; it is no deadline for an answer:
        a worker is killed for it. Raises RunError when the run threw, hung, gave non-finite numbers or took its
        process along; the slot is then free again and its outputs are undefined.
        """
        ...

    def close(self) -> None:
        """Free everything; runs that are still pending raise RunError CLOSED. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class NullPlan:
    """What the null engine plays. `*_on` name runs, counted from 1 since it was loaded; warm-up doesn't count."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    constant: float = 0.0
    delay_ns: int = 0
    fail_on: tuple[int, ...] = ()
    nan_on: tuple[int, ...] = ()
    hang_on: tuple[int, ...] = ()
    die_on: tuple[int, ...] = ()  # by SIGKILL; only in a worker


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """Which engine loads which graph, and how: plain data that crosses to a worker."""

    engine: str  # "onnxruntime", "openvino", "null"
    graph: str = ""  # a path; "" for the null engine
    threads: int = 1
    spins: bool = False  # idle threads of the engine spin: a little faster alone, much slower beside a decoder
    cpus: tuple[int, ...] = ()  # pins the worker's process; empty: any
    sums_fit_16_bits: bool = False  # an INT8 graph whose weights can't saturate a CPU without VNNI
    null: NullPlan | None = None
