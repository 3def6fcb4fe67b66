# SPDX-License-Identifier: Apache-2.0
"""One model on this device: its verified package, the graph that was chosen, and the worker that runs it."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType

from edgerun.clock import Clock
from edgerun.device_profile import DeviceProfile
from edgerun.infer.engine import EngineSlot
from edgerun.infer.select import load_engine_for
from edgerun.infer.worker import WorkerEngine
from edgerun.model_package import GraphFile, ModelPackage
from edgerun.pipeline import STAGES, Model, PipelineLimits
from edgerun.profiling.spans import Spans
from edgerun.v1 import stream_pb2 as pb


def choose_graph(package: ModelPackage, profile: DeviceProfile, precision: str | None) -> GraphFile:
    """The graph of the asked precision, or the first of the profile's preference that the package has.

    Raises ModelError or ConfigError when there is none: a precision is never swapped in silence.
    """
    return package.graph(precision or profile.precision_for(package.precisions))


class Deployment:
    """Loads and warms up in the constructor; a context manager. Slots are leased one a stream. Thread-safe.

    The constructor raises EngineError, ModelError or ConfigError, and leaves no worker then.
    """

    def __init__(
        self,
        package: ModelPackage,
        profile: DeviceProfile,
        clock: Clock,
        *,
        engine: str | None = None,
        precision: str | None = None,
    ) -> None:
        self.profile = profile
        self.spans = Spans(clock, STAGES)
        self.graph = choose_graph(package, profile, precision)
        loaded = load_engine_for(profile, self.graph, package.inputs, package.outputs, engine=engine, clock=clock)
        assert isinstance(loaded.engine, WorkerEngine)
        self._engine, self._engine_name = loaded.engine, loaded.name
        self.passed_over = loaded.passed_over
        self.capacity = profile.limits.max_streams
        self._lock = threading.Lock()
        try:
            self.model = Model(package, self._engine)
            slots = self._engine.slots(self.capacity + profile.slots.engine)
            self._free: deque[EngineSlot] = deque(slots[: self.capacity], maxlen=self.capacity)
            self.unary_slots: tuple[EngineSlot, ...] = slots[self.capacity :]  # KServe's, never leased
            self._engine.warm_up()
        except BaseException:
            self.close()
            raise

    def limits(self, *, raw: bool) -> PipelineLimits:
        """For one stream. A raw picture is as large as a decoded one, so as few of them may wait."""
        return PipelineLimits(
            units=self.profile.slots.inbox if raw else self.profile.queues.answers,
            decoded_frames=self.profile.slots.inbox,
            hang_timeout_s=self.profile.worker.hang_timeout_ms / 1e3,
        )

    @property
    def engine_name(self) -> str:
        return self._engine_name

    @property
    def worker_restarts(self) -> int:
        return self._engine.restarts

    @property
    def default_deadline_ns(self) -> int:
        return round(self.model.package.manifest.default.deadline_ms * 1e6)

    def lease_slot(self) -> EngineSlot | None:
        """A slot for one stream, or None when all are taken."""
        with self._lock:
            return self._free.popleft() if self._free else None

    def return_slot(self, slot: EngineSlot) -> None:
        with self._lock:
            self._free.append(slot)

    def opened(self, deadline_ns: int) -> pb.Opened:
        package = self.model.package
        return pb.Opened(
            model=package.name,
            model_version=package.version,
            model_sha256=self.graph.sha256,
            precision=self.graph.id.split("-")[0],
            engine=self._engine_name,
            deadline_ns=deadline_ns,
        )

    def close(self) -> None:
        self._engine.close()

    def __enter__(self) -> Deployment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
