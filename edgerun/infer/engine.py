# SPDX-License-Identifier: Apache-2.0
"""The contract of an inference engine, wherever it runs: in this process or in a supervised worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from edgerun.tensor import TensorSpec

Tensor = NDArray[Any]


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


class Engine(Protocol):
    """A loaded graph. One thread may submit while another waits; each slot has one run at a time."""

    @property
    def inputs(self) -> Sequence[TensorSpec]: ...

    @property
    def outputs(self) -> Sequence[TensorSpec]: ...

    @classmethod
    def unavailable_reason(cls) -> str | None:
        """None when this engine can run here, else why it can't and what to install."""
        ...

    def slots(self, count: int) -> Sequence[EngineSlot]:
        """Allocate `count` slots. Called once, before the first run."""
        ...

    def warm_up(self) -> None:
        """Run until the first real run costs what the hundredth costs."""
        ...

    def submit(self, slot: EngineSlot) -> None:
        """Queue one run of `slot`. Doesn't block on the run."""
        ...

    def wait(self, slot: EngineSlot, timeout_s: float | None = None) -> None:
        """Block until the run of `slot` has ended.

        Raises EngineError when it threw, hung past `timeout_s`, or took its process along; the slot is then
        free again and its outputs are undefined.
        """
        ...

    def close(self) -> None:
        """Free everything. Idempotent."""
        ...
