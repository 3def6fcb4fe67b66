# SPDX-License-Identifier: Apache-2.0
"""A float graph and its calibration table -> an INT8 graph in the dialect of one target.

Placement is onnxruntime's QDQ quantiser's; scales come from our table, weights from `weight_scales`. The
camera's bytes go straight into DequantizeLinear(1/128, 128), which is the normalisation, exactly.

Full-range u8 x s8 products overflow the 16-bit pair sums of AVX2 (vpmaddubsw) where there is no VNNI. Three
ways out: halve every weight (reduce_range) and lose a bit everywhere; `session.x64quantprecision = 1`, which
turns the graph into u8 x u8 and costs the whole speed-up there; or, as here for x86, choose each channel's
scale so that no two neighbouring weights sum above 128: 255 * 128 < 2**15, so the instruction is exact with
no option set, on every engine that uses it, for about a third of a bit. On an emulated Haswell (qemu),
onnxruntime and OpenVINO each gave polyp-seg-lite's logits bit by bit as on a processor with VNNI; at full range they
were off by up to 9.7 and 15.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from edgerun.errors import ModelError
from exporters.calibrate import CalibrationTable

Floats = NDArray[np.float32]
OPERATORS = ("Conv", "Add", "Relu", "MaxPool", "Resize")
PAIR_SUM = 128  # two u8 x s8 products fit 16 bits: 255 * 128 = 32640
INPUT_SCALE = 1 / 128
INPUT_ZERO = 128


class Target(enum.Enum):
    """Graph ids of model packages."""

    CPU_X86 = "int8-cpu-x86"  # u8 activations, s8 weights with bounded pairs
    CPU_ARM = "int8-cpu-arm"  # s8 activations, s8 weights over the full range: NEON's dot products are exact


def int8_from_onnx(model: onnx.ModelProto, table: CalibrationTable, target: Target) -> onnx.ModelProto:
    """Lower `model`, which must begin with the normalisation that `exporters.export` writes."""
    graph, normalised = _without_normalisation(model)
    activation = QuantType.QUInt8 if target is Target.CPU_X86 else QuantType.QInt8
    zero = INPUT_ZERO if target is Target.CPU_X86 else 0
    overrides = _weight_overrides(graph, bounded_pairs=target is Target.CPU_X86)
    overrides[normalised] = [
        {"scale": np.array(INPUT_SCALE, np.float32), "zero_point": np.array(zero, np.uint8 if zero else np.int8)}
    ]
    lowered = _quantise(graph, table, activation, overrides, normalised)
    _feed_bytes(lowered, normalised, model.graph.input[0], target)
    onnx.checker.check_model(lowered, full_check=True)
    _check_no_float_convolution(lowered)
    return lowered


def _without_normalisation(model: onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    """A copy that begins at the normalised float tensor, and that tensor's name."""
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    head = list(cut.graph.node[:3])
    if [n.op_type for n in head] not in (["Cast", "Sub", "Div"], ["Cast", "Sub", "Mul"]):
        found = ", ".join(n.op_type for n in head)
        raise ModelError(f"lower: the graph begins with {found}; expected Cast, Sub, Div. Export it with FromBytes.")
    name = head[2].output[0]
    del cut.graph.node[:3]
    image = cut.graph.input[0]
    image.name = name
    image.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    del cut.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(cut), name


def weight_scales(weight: Floats, *, bounded_pairs: bool) -> Floats:
    """One scale per output channel of a convolution's weight [O, I, kH, kW]."""
    rows = weight.reshape(len(weight), -1)
    scale = np.abs(rows).max(axis=1) / 127
    if bounded_pairs and weight.shape[1] > 1:  # depthwise kernels widen to 16 bits and multiply there: exact
        scale = np.maximum(scale, _largest_pair(weight) / PAIR_SUM)
        while (broken := _largest_pair(np.rint(weight / _column(scale))) > PAIR_SUM).any():  # rounding can add one
            scale = np.where(broken, scale * np.float32(1.005), scale)
    return _above_zero(scale)


def _above_zero(scale: Floats) -> Floats:
    return np.asarray(np.maximum(scale, 1e-9), np.float32)  # a channel of zeros still needs a scale


def _column(scale: Floats) -> Floats:
    return _above_zero(scale).reshape(-1, 1, 1, 1)


def _largest_pair(weight: Floats) -> Floats:
    """The largest |a| + |b| over pairs that a kernel may add: neighbours with channels last, or of one pixel."""
    flat = np.abs(weight.transpose(0, 2, 3, 1)).reshape(len(weight), -1)
    neighbours = flat[:, 1:] + flat[:, :-1]
    return np.asarray(neighbours.max(axis=1, initial=0), np.float32)


def _weight_overrides(model: onnx.ModelProto, *, bounded_pairs: bool) -> dict[str, list[dict[str, Any]]]:
    initialisers = {i.name: i for i in model.graph.initializer}
    names = {n.input[1] for n in model.graph.node if n.op_type == "Conv"}
    return {
        name: [
            {"axis": 0, "scale": np.array(s, np.float32), "zero_point": np.array(0, np.int8)}
            for s in weight_scales(numpy_helper.to_array(initialisers[name]), bounded_pairs=bounded_pairs)
        ]
        for name in sorted(names)
    }


def _quantise(
    model: onnx.ModelProto,
    table: CalibrationTable,
    activation: QuantType,
    overrides: dict[str, list[dict[str, Any]]],
    normalised: str,
) -> onnx.ModelProto:
    ranges = {n: tuple(np.array(v, np.float32) for v in r) for n, r in table.ranges.items()}
    ranges[normalised] = (np.array(-1, np.float32), np.array(127 / 128, np.float32))
    quantiser = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=activation,
        tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
        nodes_to_quantize=[],
        nodes_to_exclude=[],
        op_types_to_quantize=list(OPERATORS),
        extra_options={"TensorQuantOverrides": overrides, "ActivationSymmetric": False},
    )
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # the quantiser warns about the activations' exact zero ranges
    try:
        quantiser.quantize_model()
        quantiser.model.topological_sort()
    finally:
        root.setLevel(level)
    lowered: onnx.ModelProto = quantiser.model.model
    return lowered


def _feed_bytes(lowered: onnx.ModelProto, normalised: str, image: onnx.ValueInfoProto, target: Target) -> None:
    """Make the camera's bytes the input: x86 reads them as the quantised tensor, ARM requantises them to s8."""
    graph = lowered.graph
    graph.input[0].CopyFrom(image)
    quantise = next(n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] == normalised)
    if target is Target.CPU_X86:
        graph.node.remove(quantise)
        for node in graph.node:
            node.input[:] = [image.name if name == quantise.output[0] else name for name in node.input]
        first = next(n for n in graph.node if image.name in n.input)
        graph.node.remove(first)
        graph.node.insert(0, first)
        return
    scale = numpy_helper.from_array(np.array(INPUT_SCALE, np.float32), "image_scale")
    zero = numpy_helper.from_array(np.array(INPUT_ZERO, np.uint8), "image_zero_point")
    graph.initializer.extend([scale, zero])
    first = onnx.helper.make_node("DequantizeLinear", [image.name, scale.name, zero.name], [normalised], "normalise")
    graph.node.insert(0, first)


def _check_no_float_convolution(lowered: onnx.ModelProto) -> None:
    made = {name: node.op_type for node in lowered.graph.node for name in node.output}
    floats = [n.name for n in _nodes(lowered, "Conv") if any(made.get(i) != "DequantizeLinear" for i in n.input)]
    if floats:
        raise ModelError(f"lower: {len(floats)} convolutions stayed float, the first is {floats[0]}. Calibrate them.")


def _nodes(model: onnx.ModelProto, op_type: str) -> Iterable[onnx.NodeProto]:
    return (n for n in model.graph.node if n.op_type == op_type)
