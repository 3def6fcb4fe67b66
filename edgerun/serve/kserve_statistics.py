# SPDX-License-Identifier: Apache-2.0
"""What ModelStatistics reports of one model: counts and nanoseconds that only grow."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgerun.serve.run_pool import RunTimes


@dataclass(slots=True)
class Total:
    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        self.count += 1
        self.ns += ns


@dataclass(slots=True)
class Statistics:
    """Written and read on the event loop only. Requests that were never valid count as failed, as Triton does."""

    success: Total = field(default_factory=Total)
    fail: Total = field(default_factory=Total)
    queue: Total = field(default_factory=Total)
    compute_input: Total = field(default_factory=Total)
    compute_infer: Total = field(default_factory=Total)
    compute_output: Total = field(default_factory=Total)
    last_inference_ms: int = 0  # since 1970: a date, not a duration

    def succeeded(self, total_ns: int, times: RunTimes, date_ms: int) -> None:
        self.success.add(total_ns)
        self.queue.add(times.queue_ns)
        self.compute_input.add(times.input_ns)
        self.compute_infer.add(times.infer_ns)
        self.compute_output.add(times.output_ns)
        self.last_inference_ms = date_ms

    def failed(self, total_ns: int) -> None:
        self.fail.add(total_ns)
