# SPDX-License-Identifier: Apache-2.0
"""OpenVINO on the CPU: an extra on x86, the fastest int8 there."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgerun.errors import EngineError
from edgerun.infer.engine import EngineChoice, FailureKind, RunError
from edgerun.infer.in_process import InProcessEngine, one_line, require_fixed_shape
from edgerun.infer.slot_memory import ArraySlot
from edgerun.tensor import TensorSpec

OLDEST = (2024, 0)


class OpenVinoEngine(InProcessEngine):
    """One compiled model; each slot has its infer request over the slot's own arrays."""

    @classmethod
    def unavailable_reason(cls) -> str | None:
        if importlib.util.find_spec("openvino") is None:
            return "openvino is not installed; run: pip install 'edgerun[openvino]'"
        try:
            version = importlib.metadata.version("openvino")
        except importlib.metadata.PackageNotFoundError:
            return None  # from the vendor's archive: no metadata
        if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < OLDEST:
            return f"openvino is {version}; expected {OLDEST[0]}.{OLDEST[1]} or newer. Upgrade it."
        return None

    def _load(self, choice: EngineChoice) -> tuple[Sequence[TensorSpec], Sequence[TensorSpec]]:
        import openvino

        self._ov = openvino
        self._compiled = _compiled_from_graph(openvino, choice)
        self._requests: dict[int, Any] = {}
        inputs = [_spec(choice.graph, port) for port in self._compiled.inputs]
        return inputs, [_spec(choice.graph, port) for port in self._compiled.outputs]

    def _bind(self, slot: ArraySlot) -> None:
        request = self._compiled.create_infer_request()
        for index, array in enumerate(slot.inputs.values()):
            request.set_input_tensor(index, self._ov.Tensor(array, shared_memory=True))
        for index, array in enumerate(slot.outputs.values()):
            request.set_output_tensor(index, self._ov.Tensor(array, shared_memory=True))
        self._requests[slot.index] = (request, slot)

    def _unbind(self, index: int) -> None:
        self._requests.pop(index, None)

    def _run(self, slot: ArraySlot, timeout_s: float | None) -> None:
        try:
            self._requests[slot.index][0].infer(share_outputs=True)
        except RuntimeError as error:
            raise RunError(FailureKind.THREW, f"openvino: {one_line(error)}") from error

    def close(self) -> None:
        super().close()
        self._compiled = None


def _compiled_from_graph(ov: Any, choice: EngineChoice) -> Any:
    if not Path(choice.graph).is_file():
        raise EngineError(f"{choice.graph}: no such graph; expected an ONNX file")
    try:
        return ov.Core().compile_model(choice.graph, "CPU", _properties(choice))
    except RuntimeError as error:
        raise EngineError(f"{choice.graph}: openvino can't load it: {one_line(error)}") from error


def _properties(choice: EngineChoice) -> dict[str, Any]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",  # its default is bf16 on newer CPUs: a silent loss of precision
        "INFERENCE_NUM_THREADS": choice.threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # EngineChoice.cpus pins the whole worker instead
    }


def _spec(graph: str, port: Any) -> TensorSpec:
    name = _name(port)
    shape = [side.get_length() if side.is_static else None for side in port.get_partial_shape()]
    return TensorSpec(name, port.get_element_type().to_dtype().name, require_fixed_shape(graph, name, shape))


def _name(port: Any) -> str:
    """The graph's own name: a port may carry those of fused neighbours too (Identity, Cast)."""
    names = set(port.get_names())
    friendly = str(port.get_node().get_friendly_name()).removesuffix("/sink_port_0")
    return friendly if friendly in names or not names else min(names)
