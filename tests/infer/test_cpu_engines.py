# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime and OpenVINO in this process: loading, refusals with their reasons, exactness, allocation."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import edgerun.infer.onnxruntime as adapter
from edgerun.errors import EngineError
from edgerun.infer.engine import EngineChoice, FailureKind, RunError
from edgerun.infer.in_process import non_finite_output
from edgerun.infer.onnxruntime import lacks_vnni
from edgerun.infer.select import engine_class, engine_from_choice
from edgerun.infer.slot_memory import carve_slots
from edgerun.tensor import TensorSpec

ENGINES = ["onnxruntime", "openvino"]
Shape = tuple[int | str, ...]


@pytest.fixture(params=ENGINES)
def name(request: pytest.FixtureRequest) -> str:
    if reason := engine_class(request.param).unavailable_reason():
        pytest.skip(reason)
    return str(request.param)


def matmul_graph(path: Path, op: str, kinds: tuple[int, int], shape: Shape, weights: NDArray[np.generic]) -> str:
    """y = op(x, weights), saved with external weights beside it in weights.bin."""
    node = helper.make_node(op, ["x", "w"], ["y"])
    x = helper.make_tensor_value_info("x", kinds[0], shape)
    y = helper.make_tensor_value_info("y", kinds[1], (shape[0], weights.shape[1]))
    graph = helper.make_graph([node], "test", [x], [y], [numpy_helper.from_array(weights, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    return str(path)


def float_graph(path: Path, shape: Shape = (1, 4)) -> str:
    return matmul_graph(path, "MatMul", (TensorProto.FLOAT, TensorProto.FLOAT), shape, np.eye(4, dtype=np.float32))


def test_external_weights_load(tmp_path: Path, name: str) -> None:
    engine = engine_from_choice(EngineChoice(name, float_graph(tmp_path / "a.onnx")))
    (slot,) = engine.slots(1)
    slot.inputs["x"][:] = [[1, 2, 3, 4]]
    engine.submit(slot)
    engine.wait(slot)
    assert slot.outputs["y"].tolist() == [[1, 2, 3, 4]]
    engine.close()


def test_missing_external_weights_are_named(tmp_path: Path, name: str) -> None:
    graph = float_graph(tmp_path / "a.onnx")
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(EngineError, match=rf"a\.onnx: {name} can't load it.*weights\.bin"):
        engine_from_choice(EngineChoice(name, graph))


def test_corrupted_graph_is_refused(tmp_path: Path, name: str) -> None:
    graph = Path(float_graph(tmp_path / "a.onnx"))
    graph.write_bytes(graph.read_bytes()[:40])
    with pytest.raises(EngineError, match=rf"a\.onnx: {name} can't load it"):
        engine_from_choice(EngineChoice(name, str(graph)))


def test_symbolic_shape_is_refused(tmp_path: Path, name: str) -> None:
    graph = float_graph(tmp_path / "a.onnx", ("batch", 4))
    with pytest.raises(EngineError, match=r"tensor x has shape \[(batch|\?), 4\]; expected fixed sides"):
        engine_from_choice(EngineChoice(name, graph))


@pytest.mark.parametrize("activation", [np.uint8, np.int8])
def test_int8_products_are_exact_where_16_bits_would_saturate(
    tmp_path: Path, name: str, activation: type[np.integer[np.typing.NBitBase]]
) -> None:
    weights = np.full((64, 16), 127, np.int8)
    weights[::3] = -128
    kind = int(helper.np_dtype_to_tensor_dtype(np.dtype(activation)))
    graph = matmul_graph(tmp_path / "a.onnx", "MatMulInteger", (kind, TensorProto.INT32), (8, 64), weights)
    engine = engine_from_choice(EngineChoice(name, graph))
    (slot,) = engine.slots(1)
    info = np.iinfo(activation)
    slot.inputs["x"][:] = np.random.default_rng(3).choice([info.min, info.max - 1, info.max], (8, 64))
    engine.submit(slot)
    engine.wait(slot)
    expected = slot.inputs["x"].astype(np.int32) @ weights.astype(np.int32)
    np.testing.assert_array_equal(slot.outputs["y"], expected)
    engine.close()


def test_the_exact_int8_mode_is_accepted(monkeypatch: pytest.MonkeyPatch, root_graph: str) -> None:
    monkeypatch.setattr(adapter, "saturates_int8", lambda: True)  # as on x86 without VNNI
    engine_from_choice(EngineChoice("onnxruntime", root_graph)).close()


def test_a_run_that_throws_is_reported_and_the_next_one_works(tmp_path: Path) -> None:
    node = helper.make_node("Gather", ["table", "x"], ["y"])
    x = helper.make_tensor_value_info("x", TensorProto.INT64, (1,))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1,))
    table = numpy_helper.from_array(np.arange(3, dtype=np.float32), "table")
    graph = helper.make_graph([node], "test", [x], [y], [table])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "g.onnx")
    engine = engine_from_choice(EngineChoice("onnxruntime", str(tmp_path / "g.onnx")))
    (slot,) = engine.slots(1)
    for index, fails in ((7, True), (2, False)):
        slot.inputs["x"][0] = index
        engine.submit(slot)
        if fails:
            with pytest.raises(RunError, match=r"onnxruntime: .*Gather") as caught:
                engine.wait(slot)
            assert caught.value.kind is FailureKind.THREW
        else:
            engine.wait(slot)
            assert slot.outputs["y"][0] == 2
    engine.close()


def test_a_run_allocates_no_tensor(name: str, root_graph: str) -> None:
    engine = engine_from_choice(EngineChoice(name, root_graph))
    (slot,) = engine.slots(1)
    engine.warm_up()
    engine.submit(slot)
    engine.wait(slot)
    tracemalloc.start()
    for _ in range(10):
        engine.submit(slot)
        engine.wait(slot)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 32_768  # Python's small objects; the smaller output alone is 65536 bytes
    engine.close()


@pytest.mark.parametrize(
    ("flags", "expected"), [("sse avx2 fma", True), ("avx2 avx_vnni", False), ("avx512f avx512_vnni", False)]
)
def test_vnni_is_read_from_cpuinfo(flags: str, expected: bool) -> None:
    assert lacks_vnni(f"processor : 0\nflags\t\t: fpu {flags}\nbogomips : 1\n") is expected


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_any_non_finite_number_is_found(dtype: str, value: float) -> None:
    (slot,) = carve_slots([], [TensorSpec("mask", "uint8", (3,)), TensorSpec("y", dtype, (3, 67))], 1)
    slot.outputs["y"][:] = np.finfo(dtype).max  # their sum isn't finite
    assert non_finite_output(slot) is None
    slot.outputs["y"][2, 65] = value
    assert non_finite_output(slot) == "y"
