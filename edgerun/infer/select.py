# SPDX-License-Identifier: Apache-2.0
"""Which engine runs a graph: the first of an order that is available here, and why the others were passed over."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgerun.clock import Clock
from edgerun.errors import EngineError, ModelError
from edgerun.infer.engine import Engine, EngineChoice
from edgerun.tensor import TensorSpec

if TYPE_CHECKING:
    from edgerun.device_profile import DeviceProfile  # pydantic is slow to import, and no worker needs it
    from edgerun.infer.in_process import InProcessEngine
    from edgerun.infer.worker import WorkerOptions
    from edgerun.model_package import GraphFile

ENGINES = ("openvino", "onnxruntime", "null")
LOWERED_FOR_X86 = "int8-cpu-x86"  # exporters/lower.py keeps sums of products within 16 bits there


@dataclass(frozen=True, slots=True)
class LoadedEngine:
    """An engine, its name, and the reason of each engine before it in the order that can't be used here."""

    engine: Engine
    name: str
    passed_over: tuple[str, ...] = ()


def engine_class(name: str) -> type[InProcessEngine]:
    """Raises EngineError on an unknown name. Imports edgerun's adapter only, not the library behind it."""
    match name:
        case "onnxruntime":
            from edgerun.infer.onnxruntime import OnnxRuntimeEngine

            return OnnxRuntimeEngine
        case "openvino":
            from edgerun.infer.openvino import OpenVinoEngine

            return OpenVinoEngine
        case "null":
            from edgerun.infer.null import NullEngine

            return NullEngine
    raise EngineError(f"engine = {name!r}; expected one of {', '.join(ENGINES)}")


def engine_from_choice(choice: EngineChoice, clock: Clock | None = None) -> InProcessEngine:
    """Load in this process: for the worker, exporters, tests and micro-benchmarks."""
    return engine_class(choice.engine)(choice, clock)


def first_available(order: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The first engine of `order` that can run here and the reasons of those before it.

    Raises EngineError with every reason when none can; so an order of one is an explicit choice.
    """
    reasons: list[str] = []
    for name in order:
        reason = engine_class(name).unavailable_reason()
        if reason is None:
            return name, tuple(reasons)
        reasons.append(f"{name}: {reason}")
    raise EngineError(f"no engine of [{', '.join(order)}] can run here. " + " ".join(reasons))


def load_engine(
    choice: EngineChoice,
    order: Sequence[str],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    worker: WorkerOptions | None = None,
    clock: Clock | None = None,
) -> LoadedEngine:
    """Load `choice.graph` in a worker with the first available engine of `order` (`choice.engine` is replaced).

    An available engine that can't load the graph raises: another engine or precision is never taken silently.
    Raises ModelError when the graph's tensors aren't `inputs` and `outputs`, the manifest's.
    """
    from edgerun.infer.worker import WorkerEngine

    name, passed_over = first_available(order)
    engine = WorkerEngine(dataclasses.replace(choice, engine=name), worker, clock)
    try:
        require_specs(choice.graph, engine, inputs, outputs)
    except ModelError:
        engine.close()
        raise
    return LoadedEngine(engine, name, passed_over)


def load_engine_for(
    profile: DeviceProfile,
    graph: GraphFile,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    engine: str | None = None,
    clock: Clock | None = None,
) -> LoadedEngine:
    """Load a package's graph as a device profile says, or with `engine` and no other."""
    from edgerun.infer.worker import WorkerOptions

    worker = WorkerOptions(
        hang_timeout_s=profile.worker.hang_timeout_ms / 1e3,
        restart_backoff_s=profile.worker.restart_backoff_ms / 1e3,
        max_backoff_s=profile.worker.max_backoff_ms / 1e3,
    )
    choice = EngineChoice(
        "",
        str(graph.path),
        threads=profile.threads.infer,
        cpus=profile.worker.cpus,
        sums_fit_16_bits=graph.id == LOWERED_FOR_X86,
    )
    order = (engine,) if engine else profile.engines_for(graph.id)
    return load_engine(choice, order, inputs, outputs, worker=worker, clock=clock)


def require_specs(graph: str, engine: Engine, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
    """Raise ModelError with all differences between the graph's tensors and the manifest's; order doesn't count."""
    faults = _differences("input", engine.inputs, inputs) + _differences("output", engine.outputs, outputs)
    if faults:
        raise ModelError(f"{graph}: " + " ".join(faults) + " Package the model again.")


def _differences(side: str, found: Sequence[TensorSpec], expected: Sequence[TensorSpec]) -> list[str]:
    found_by, expected_by = ({spec.name: spec for spec in specs} for specs in (found, expected))
    faults = [f"{side} {name} is in the graph, not in the manifest." for name in found_by if name not in expected_by]
    for name, spec in expected_by.items():
        if name not in found_by:
            faults.append(f"{side} {spec} is in the manifest, not in the graph.")
        elif found_by[name] != spec:
            faults.append(f"{side} {found_by[name]} in the graph; expected {spec}.")
    return faults
