# SPDX-License-Identifier: Apache-2.0
"""Evens out the channels between two convolutions, so that one scale for all of them wastes fewer levels.

Convolution, ReLU and max pooling are homogeneous: a channel multiplied by s in the first convolution and divided by
s in those that read it leaves the function as it was (Nagel et al., Data-Free Quantization, ICCV 2019). A depthwise
reader has a weight scale per channel and takes the whole factor for free; a dense one gets its square root, which
shares the imbalance between activations and weights.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from exporters.calibrate import session_with_all_outputs

Floats = NDArray[np.float32]
HOMOGENEOUS = ("Relu", "MaxPool")
DENSE_SHARE = 0.5
SMALLEST_PEAK = 1e-3  # of the largest: a channel that is hardly ever used isn't blown up


def channel_peaks(model: onnx.ModelProto, samples: Iterable[Mapping[str, NDArray[np.uint8]]]) -> dict[str, Floats]:
    """Of each tensor [1, C, H, W], each channel's largest magnitude, averaged over the samples."""
    session, names = session_with_all_outputs(model)
    sums: dict[str, Floats] = {}
    for sample in samples:
        for name, values in zip(names, session.run(names, dict(sample)), strict=True):
            sums[name] = sums.get(name, np.float32(0)) + np.abs(values).max(axis=(0, 2, 3))
    return sums


def equalised(model: onnx.ModelProto, peaks: Mapping[str, Floats]) -> onnx.ModelProto:
    """The same function with other weights. `peaks` need only be right up to a factor per tensor."""
    even = onnx.ModelProto()
    even.CopyFrom(model)
    stored = {i.name: i for i in even.graph.initializer}
    for first, between, readers in _joints(even.graph):
        is_depthwise = all(stored[r.input[1]].dims[1] == 1 for r in readers)
        if len(first.input) < 3 or (not is_depthwise and any(_groups(r) != 1 for r in readers)):
            continue
        peak = np.maximum(peaks[between], SMALLEST_PEAK * peaks[between].max())
        factor = (peak.max() / peak) ** (1.0 if is_depthwise else DENSE_SHARE)
        _multiply(stored[first.input[1]], factor.reshape(-1, 1, 1, 1))
        _multiply(stored[first.input[2]], factor)
        for reader in readers:
            _multiply(stored[reader.input[1]], 1 / factor.reshape((-1, 1, 1, 1) if is_depthwise else (1, -1, 1, 1)))
    return even


def _joints(graph: onnx.GraphProto) -> Iterator[tuple[onnx.NodeProto, str, list[onnx.NodeProto]]]:
    """Each convolution that only convolutions read, with the tensor that they read and themselves."""
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    for first in graph.node:
        between = first.output[0]
        while [n.op_type in HOMOGENEOUS for n in readers[between]] == [True]:
            between = readers[between][0].output[0]
        if first.op_type == "Conv" and readers[between] and all(n.op_type == "Conv" for n in readers[between]):
            yield first, between, readers[between]


def _groups(node: onnx.NodeProto) -> int:
    return next((int(a.i) for a in node.attribute if a.name == "group"), 1)


def _multiply(stored: onnx.TensorProto, factor: Floats) -> None:
    values = (numpy_helper.to_array(stored) * factor).astype(np.float32)
    stored.CopyFrom(numpy_helper.from_array(values, stored.name))
