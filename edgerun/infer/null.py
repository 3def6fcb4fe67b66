# SPDX-License-Identifier: Apache-2.0
"""An engine without a network: the full contract, known outputs, and faults on request."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from edgerun.errors import EngineError
from edgerun.infer.engine import EngineChoice, FailureKind, NullPlan, RunError
from edgerun.infer.in_process import SCRATCH, InProcessEngine
from edgerun.infer.slot_memory import ArraySlot
from edgerun.tensor import TensorSpec


class NullEngine(InProcessEngine):
    """Fills every output with `plan.constant`. Faults strike the runs that the plan names."""

    runs = 0
    _plan: NullPlan

    @classmethod
    def unavailable_reason(cls) -> str | None:
        return None

    def _load(self, choice: EngineChoice) -> tuple[Sequence[TensorSpec], Sequence[TensorSpec]]:
        if choice.null is None:  # there is no graph to read specs from
            raise EngineError("engine null: no plan; give EngineChoice(null=NullPlan(inputs, outputs))")
        self._plan = choice.null
        return choice.null.inputs, choice.null.outputs

    def _bind(self, slot: ArraySlot) -> None:
        pass

    def _unbind(self, index: int) -> None:
        pass

    def _run(self, slot: ArraySlot, timeout_s: float | None) -> None:
        if slot.index == SCRATCH:
            return
        self.runs += 1
        self._strike(timeout_s)
        if self._plan.delay_ns:
            self._clock.sleep_until(self._clock.now_ns() + self._plan.delay_ns)
        value = float("nan") if self.runs in self._plan.nan_on else self._plan.constant
        for array in slot.outputs.values():
            array.fill(value if array.dtype.kind == "f" else self._plan.constant)

    def _strike(self, timeout_s: float | None) -> None:
        if self.runs in self._plan.fail_on:
            raise RunError(FailureKind.THREW, f"null engine: run {self.runs} fails, as planned")
        if self.runs in self._plan.hang_on:
            self._hang(timeout_s)
        if self.runs in self._plan.die_on:
            os.kill(os.getpid(), signal.SIGKILL)

    def _hang(self, timeout_s: float | None) -> None:
        if self._closed.wait(timeout_s):
            raise RunError(FailureKind.CLOSED, "the engine was closed during the run")
        raise RunError(FailureKind.HUNG, f"null engine: run {self.runs} hung past {timeout_s} s, as planned")
