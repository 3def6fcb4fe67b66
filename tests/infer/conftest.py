# SPDX-License-Identifier: Apache-2.0
"""Tiny graphs, made here, and engines over them in this process and in workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgerun.infer.engine import EngineChoice, NullPlan
from edgerun.infer.in_process import InProcessEngine
from edgerun.infer.select import engine_class, engine_from_choice
from edgerun.infer.worker import WorkerEngine, WorkerOptions
from edgerun.tensor import TensorSpec

SIDE = 256
X = TensorSpec("x", "float32", (1, SIDE, SIDE))
ROOT = TensorSpec("root", "float32", (1, SIDE, SIDE))
BYTES = TensorSpec("bytes", "uint8", (1, SIDE, SIDE))

Supervised = Callable[..., WorkerEngine]


def save_graph(
    path: Path,
    nodes: list[onnx.NodeProto],
    tensors: Mapping[str, tuple[int, list[str | int | None]]],
    weights: object = None,
) -> Path:
    """Write a graph whose input is `x` and whose outputs are the other `tensors` (ONNX type, shape)."""
    values = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in tensors.items()]
    initializers = [] if weights is None else [numpy_helper.from_array(np.asarray(weights), "weights")]
    graph = helper.make_graph(nodes, "test", values[:1], values[1:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


@pytest.fixture(scope="session")
def root_graph(tmp_path_factory: pytest.TempPathFactory) -> str:
    """root = sqrt(x), through an Identity so that a tensor has two names; bytes = uint8(x)."""
    nodes = [
        helper.make_node("Sqrt", ["x"], ["a"]),
        helper.make_node("Identity", ["a"], ["root"]),
        helper.make_node("Cast", ["x"], ["bytes"], to=TensorProto.UINT8),
    ]
    shape: list[str | int | None] = [1, SIDE, SIDE]
    tensors = {"x": (TensorProto.FLOAT, shape), "root": (TensorProto.FLOAT, shape), "bytes": (TensorProto.UINT8, shape)}
    return str(save_graph(tmp_path_factory.mktemp("graphs") / "root.onnx", nodes, tensors))


def null_choice(constant: float = 3.0, **faults: object) -> EngineChoice:
    return EngineChoice("null", null=NullPlan((X,), (ROOT, BYTES), constant, **faults))  # type: ignore[arg-type]


@pytest.fixture(params=["onnxruntime", "openvino", "null"])
def choice(request: pytest.FixtureRequest, root_graph: str) -> EngineChoice:
    """Each engine over the root graph; the null engine plays x = 9 and gives NaN on its third run."""
    if reason := engine_class(request.param).unavailable_reason():
        pytest.skip(reason)
    return null_choice(3.0, nan_on=(3,)) if request.param == "null" else EngineChoice(request.param, root_graph)


@pytest.fixture(params=["in-process", "worker"])
def engine(request: pytest.FixtureRequest, choice: EngineChoice) -> Iterator[InProcessEngine | WorkerEngine]:
    made = WorkerEngine(choice) if request.param == "worker" else engine_from_choice(choice)
    yield made
    made.close()


@pytest.fixture
def supervised() -> Iterator[Supervised]:
    """Start null workers with planned faults; they are closed at the end."""
    started: list[WorkerEngine] = []

    def start(options: WorkerOptions | None = None, clock: object = None, **faults: object) -> WorkerEngine:
        started.append(WorkerEngine(null_choice(**faults), options, clock))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for worker in started:
        worker.close()
