# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime on the CPU."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from edgerun.errors import EngineError
from edgerun.infer.engine import EngineChoice, FailureKind, RunError
from edgerun.infer.in_process import InProcessEngine, one_line, require_fixed_shape
from edgerun.infer.slot_memory import ArraySlot
from edgerun.tensor import TensorSpec

DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino")
OLDEST = (1, 18)
NUMPY_NAMES = {
    "tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16", "tensor(bool)": "bool",
    "tensor(uint8)": "uint8", "tensor(int8)": "int8", "tensor(uint16)": "uint16", "tensor(int16)": "int16",
    "tensor(uint32)": "uint32", "tensor(int32)": "int32", "tensor(uint64)": "uint64", "tensor(int64)": "int64",
}  # fmt: skip


class OnnxRuntimeEngine(InProcessEngine):
    """One InferenceSession; each slot has its IoBinding over the slot's own arrays, so a run allocates no tensor."""

    @classmethod
    def unavailable_reason(cls) -> str | None:
        if importlib.util.find_spec("onnxruntime") is None:
            return "onnxruntime is not installed; run: pip install 'edgerun[cpu]'"
        version = _installed_version()
        if version is not None and _leading_numbers(version) < OLDEST:
            return f"onnxruntime is {version}; expected {OLDEST[0]}.{OLDEST[1]} or newer. Upgrade it."
        return None

    def _load(self, choice: EngineChoice) -> tuple[Sequence[TensorSpec], Sequence[TensorSpec]]:
        import onnxruntime

        self._session = _session_from_graph(onnxruntime, choice)
        self._bindings: dict[int, Any] = {}
        inputs = [_spec(choice.graph, node) for node in self._session.get_inputs()]
        return inputs, [_spec(choice.graph, node) for node in self._session.get_outputs()]

    def _bind(self, slot: ArraySlot) -> None:
        binding = self._session.io_binding()
        for name, array in slot.inputs.items():
            binding.bind_input(name, "cpu", 0, array.dtype.type, list(array.shape), array.ctypes.data)
        for name, array in slot.outputs.items():
            binding.bind_output(name, "cpu", 0, array.dtype.type, list(array.shape), array.ctypes.data)
        self._bindings[slot.index] = (binding, slot)  # the binding holds bare pointers: keep their memory too

    def _unbind(self, index: int) -> None:
        self._bindings.pop(index, None)

    def _run(self, slot: ArraySlot, timeout_s: float | None) -> None:
        try:
            self._session.run_with_iobinding(self._bindings[slot.index][0])
        except Exception as error:  # onnxruntime's exceptions share no other root
            raise RunError(FailureKind.THREW, f"onnxruntime: {one_line(error)}") from error

    def close(self) -> None:
        super().close()
        self._session = None


def _session_from_graph(ort: Any, choice: EngineChoice) -> Any:
    # A path, not bytes: parsing bytes holds the GIL, and external weights are found beside the path.
    if not Path(choice.graph).is_file():
        raise EngineError(f"{choice.graph}: no such graph; expected an ONNX file")
    try:
        return ort.InferenceSession(choice.graph, _session_options(ort, choice), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no other root
        raise EngineError(f"{choice.graph}: onnxruntime can't load it: {one_line(error)}") from error


def _session_options(ort: Any, choice: EngineChoice) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = choice.threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if choice.spins else "0")
    if saturates_int8() and not choice.sums_fit_16_bits:
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


@cache
def saturates_int8() -> bool:
    """Whether this CPU's int8 products can saturate at 16 bits: x86 without VNNI, where 45 % of S8S8 outputs broke."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        return lacks_vnni(Path("/proc/cpuinfo").read_text())
    except OSError:
        return True  # unknown: exact is slower but never wrong


def lacks_vnni(cpuinfo: str) -> bool:
    """Whether the first `flags` line of /proc/cpuinfo names neither AVX-512 VNNI nor AVX-VNNI."""
    flags = next((line for line in cpuinfo.splitlines() if line.startswith("flags")), "")
    return not {"avx512_vnni", "avx_vnni"} & set(flags.split())


def _spec(graph: str, node: Any) -> TensorSpec:
    if node.type not in NUMPY_NAMES:
        raise EngineError(f"{graph}: tensor {node.name} is {node.type}; expected one of {', '.join(NUMPY_NAMES)}")
    return TensorSpec(node.name, NUMPY_NAMES[node.type], require_fixed_shape(graph, node.name, node.shape))


def _installed_version() -> str | None:
    found = (dist.version for name in DISTRIBUTIONS for dist in importlib.metadata.distributions(name=name))
    return next(found, None)  # None: built from source, without metadata


def _leading_numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
