# SPDX-License-Identifier: Apache-2.0
"""A tiny network through export, calibration and lowering."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

pytest.importorskip("torch", reason="exporters need torch: pip install edgerun[exporters]")
pytest.importorskip("onnx", reason="exporters need onnx: pip install edgerun[exporters]")
pytest.importorskip("onnxscript", reason="exporters need onnxscript: pip install edgerun[exporters]")

import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgerun.errors import ModelError
from edgerun.tensor import TensorSpec
from exporters.calibrate import METHODS, CalibrationTable, observe, table_of
from exporters.equalise import channel_peaks, equalised
from exporters.export import FromBytes, onnx_from_torch
from exporters.lower import PAIR_SUM, Target, int8_from_onnx, weight_scales

IMAGE = TensorSpec("image", "uint8", (1, 3, 32, 32))
LOGITS = TensorSpec("logits", "float32", (1, 1, 8, 8))
Bytes = NDArray[np.uint8]


class Tiny(nn.Module):
    """Every operator of polyp-seg-lite once."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8))
        self.spatial = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1, groups=8, bias=False), nn.BatchNorm2d(8))
        self.project = nn.Conv2d(8, 8, 1)
        self.logit = nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = F.max_pool2d(F.relu(self.stem(x)), 3, 2, 1)
        coarse = F.relu(self.project(self.spatial(fine)))
        out: Tensor = self.logit(F.relu(F.interpolate(coarse, scale_factor=2, mode="nearest") + fine))
        return out


def images(count: int) -> Iterator[Bytes]:
    rng = np.random.default_rng(0)
    for _ in range(count):
        coarse = rng.integers(0, 256, (1, 3, 8, 8), dtype=np.uint8)
        yield coarse.repeat(4, axis=2).repeat(4, axis=3)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(1)
    tiny = Tiny()
    for module in tiny.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    return tiny.eval()


@pytest.fixture(scope="module")
def fp32(network: nn.Module) -> onnx.ModelProto:
    return onnx_from_torch(network, IMAGE, LOGITS)


@pytest.fixture(scope="module")
def table(fp32: onnx.ModelProto) -> CalibrationTable:
    return table_of(observe(fp32, ({"image": x} for x in images(8))), "minmax", 8)


def run(model: onnx.ModelProto, image: Bytes) -> NDArray[np.float32]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.x64quantprecision", "1")  # s8 x s8 on AVX2 without VNNI
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": image})[0])


def optimised(model: onnx.ModelProto, folder: Path) -> list[str]:
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    options.add_session_config_entry("session.qdqisint8allowed", "1")  # what ARM builds do by default
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node]


def test_the_float_graph_equals_torch(network: nn.Module, fp32: onnx.ModelProto) -> None:
    for image in images(3):
        with torch.no_grad():
            expected = FromBytes(network)(torch.from_numpy(image)).numpy()
        assert np.abs(run(fp32, image) - expected).max() < 1e-4


def test_the_float_graph_is_plain(fp32: onnx.ModelProto) -> None:
    assert [o.version for o in fp32.opset_import if not o.domain] == [17]
    assert [n.op_type for n in fp32.graph.node][:3] in (["Cast", "Sub", "Div"], ["Cast", "Sub", "Mul"])
    assert not {"BatchNormalization", "Identity"} & {n.op_type for n in fp32.graph.node}
    assert b".py" not in fp32.SerializeToString()  # no stack traces of the exporting machine


def test_equalising_changes_the_weights_and_not_the_function(fp32: onnx.ModelProto) -> None:
    peaks = channel_peaks(fp32, ({"image": x} for x in images(4)))
    even = equalised(fp32, peaks)
    assert even.SerializeToString() != fp32.SerializeToString()
    for image in images(4):
        assert run(even, image) == pytest.approx(run(fp32, image), abs=1e-4)
    spatial = next(n for n in even.graph.node if "network.spatial.0.weight" in n.input)
    before, after = peaks[spatial.output[0]], channel_peaks(even, ({"image": x} for x in images(4)))[spatial.output[0]]
    assert after.max() / after.min() == pytest.approx(np.sqrt(before.max() / before.min()), rel=1e-3)


def test_other_shapes_than_declared_are_refused(network: nn.Module) -> None:
    with pytest.raises(ModelError, match=r"expected logits: float32\[1, 1, 4, 4\], found logits\[1, 1, 8, 8\]"):
        onnx_from_torch(network, IMAGE, TensorSpec("logits", "float32", (1, 1, 4, 4)))


@pytest.mark.parametrize("target", Target)
def test_int8_is_close_to_float(fp32: onnx.ModelProto, table: CalibrationTable, target: Target) -> None:
    lowered = int8_from_onnx(fp32, table, target)
    low, high = table.ranges["logits"]
    for image in images(8):
        assert np.abs(run(lowered, image) - run(fp32, image)).max() < 0.05 * (high - low)


@pytest.mark.parametrize("target", Target)
def test_the_first_node_is_the_normalisation(fp32: onnx.ModelProto, table: CalibrationTable, target: Target) -> None:
    graph = int8_from_onnx(fp32, table, target).graph
    values = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    first = graph.node[0]
    assert first.op_type == "DequantizeLinear"
    assert first.input[0] == graph.input[0].name == "image"
    assert values[first.input[1]] == np.float32(1 / 128)
    assert values[first.input[2]] == 128
    assert values[first.input[2]].dtype == np.uint8
    assert "Cast" not in {n.op_type for n in graph.node}


@pytest.mark.parametrize("target", Target)
def test_no_float_convolution_remains(
    fp32: onnx.ModelProto, table: CalibrationTable, target: Target, tmp_path: Path
) -> None:
    found = optimised(int8_from_onnx(fp32, table, target), tmp_path)
    assert found.count("QLinearConv") == 4
    assert found.count("QLinearAdd") == 1
    assert not {"Conv", "FusedConv", "Add", "Relu"} & set(found)


def test_one_table_serves_both_targets_and_survives_its_file(table: CalibrationTable, tmp_path: Path) -> None:
    table.write(tmp_path / "calibration.json")
    read = CalibrationTable.read(tmp_path / "calibration.json")
    assert (read.method, read.samples) == ("minmax", 8)
    for name, expected in table.ranges.items():
        assert read.ranges[name] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_stays_inside_what_was_seen(fp32: onnx.ModelProto, method: str) -> None:
    histograms = observe(fp32, ({"image": x} for x in images(4)))
    for name, (low, high) in table_of(histograms, method, 4).ranges.items():
        assert min(0.0, histograms[name].low) <= low <= 0 <= high <= max(0.0, histograms[name].high)


def test_a_graph_without_the_normalisation_is_refused(fp32: onnx.ModelProto, table: CalibrationTable) -> None:
    bare = onnx.ModelProto()
    bare.CopyFrom(fp32)
    del bare.graph.node[0]
    with pytest.raises(ModelError, match="begins with Sub, "):
        int8_from_onnx(bare, table, Target.CPU_X86)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(1, 3), (2, 1), (3, 3), (8, 1), (5, 2)]))
def test_neighbouring_weights_never_overflow_vpmaddubsw(seed: int, shape: tuple[int, int]) -> None:
    inputs, side = shape
    weight = np.random.default_rng(seed).standard_normal((4, inputs, side, side)).astype(np.float32)
    weight[0] = 0.7  # all at the limit
    scale = weight_scales(weight, bounded_pairs=True)
    steps = np.rint(weight / scale.reshape(-1, 1, 1, 1)).transpose(0, 2, 3, 1).reshape(4, -1)
    assert np.abs(steps).max() <= 127
    if inputs > 1:
        pairs = np.abs(steps[:, 1:]) + np.abs(steps[:, :-1])
        assert pairs.max(initial=0) <= PAIR_SUM
        assert 255 * PAIR_SUM < 2**15


def test_depthwise_weights_keep_the_full_range() -> None:
    weight = np.full((4, 1, 3, 3), 0.5, np.float32)
    assert weight_scales(weight, bounded_pairs=True) == pytest.approx(0.5 / 127)
