# SPDX-License-Identifier: Apache-2.0
"""Ranges of a graph's activations over sample inputs, in one pass and bounded memory.

Each tensor keeps one histogram whose span doubles (bins merge in pairs, exactly) when a value falls outside,
so memory doesn't grow with the number of samples. One table serves every lowering.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Range = tuple[float, float]
BINS = 4096  # even; half of them each side of zero


@dataclass(slots=True)
class Histogram:
    """Counts of values over [-span, span]; `low` and `high` are exact."""

    span: float = 2.0**-10
    low: float = float("inf")
    high: float = float("-inf")
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def add(self, values: Floats) -> None:
        low, high = float(values.min()), float(values.max())
        if not np.isfinite([low, high]).all():
            raise ValueError("an activation isn't finite; the graph overflows on this sample")
        self.low, self.high = min(self.low, low), max(self.high, high)
        while max(-low, high) >= self.span:
            self._double()
        index = ((values.ravel() + np.float32(self.span)) * np.float32(BINS / 2 / self.span)).astype(np.int32)
        self.counts += np.bincount(np.minimum(index, BINS - 1), minlength=BINS)

    def _double(self) -> None:
        merged = self.counts.reshape(-1, 2).sum(axis=1)
        self.counts = np.zeros(BINS, np.int64)
        self.counts[BINS // 4 : BINS // 4 * 3] = merged
        self.span *= 2

    @property
    def edges(self) -> NDArray[np.float64]:
        return np.linspace(-self.span, self.span, BINS + 1, dtype=np.float64)

    @property
    def centres(self) -> NDArray[np.float64]:
        return np.asarray((self.edges[1:] + self.edges[:-1]) / 2)


def min_max(h: Histogram) -> Range:
    return h.low, h.high


def percentile(h: Histogram, keep: float = 0.99999) -> Range:
    """Leave out at most (1 - keep) / 2 of the values at each end."""
    share = np.cumsum(h.counts) / h.counts.sum()
    outside = (1 - keep) / 2
    low = h.edges[np.searchsorted(share, outside, side="right")]
    high = h.edges[min(int(np.searchsorted(share, 1 - outside)) + 1, BINS)]
    return max(h.low, float(low)), min(h.high, float(high))


def least_error(h: Histogram) -> Range:
    """The clip of [low, high] that gives 8 bits the least expected squared error (rounding plus clipping)."""
    return _best_clip(h, _squared_error)


def entropy(h: Histogram) -> Range:
    """The clip of [low, high] whose 256-level histogram has the least Kullback-Leibler divergence."""
    return _best_clip(h, _divergence)


def _best_clip(h: Histogram, cost: Callable[[Histogram, float, float], float]) -> Range:
    clips = [(h.low * s, h.high * s) for s in np.linspace(0.3, 1.0, 71)]
    best: Range = min(reversed(clips), key=lambda clip: cost(h, *clip))
    return best


def _squared_error(h: Histogram, low: float, high: float) -> float:
    step = max(high - low, 1e-12) / 255
    beyond = np.maximum(low - h.centres, 0) + np.maximum(h.centres - high, 0)
    error = np.where(beyond > 0, beyond**2, step**2 / 12)
    return float((h.counts * error).sum())


def _divergence(h: Histogram, low: float, high: float) -> float:
    step = max(high - low, 1e-12) / 255
    level = np.clip(np.rint((h.centres - low) / step), 0, 255).astype(np.intp)
    used = h.counts > 0
    mass = np.bincount(level, h.counts, 256)
    width = np.bincount(level[used], minlength=256)
    p = h.counts[used] / h.counts.sum()
    q = mass[level[used]] / width[level[used]] / h.counts.sum()
    return float((p * np.log(p / q)).sum())


METHODS: dict[str, Callable[[Histogram], Range]] = {
    "minmax": min_max,
    "percentile": percentile,
    "least-error": least_error,
    "entropy": entropy,
}


def observe(model: onnx.ModelProto, samples: Iterable[Mapping[str, NDArray[np.uint8]]]) -> dict[str, Histogram]:
    """A histogram of every float tensor that a node of `model` computes."""
    session, names = session_with_all_outputs(model)
    histograms = {name: Histogram() for name in names}
    for sample in samples:
        for name, values in zip(names, session.run(names, dict(sample)), strict=True):
            histograms[name].add(values)
    return histograms


def session_with_all_outputs(model: onnx.ModelProto) -> tuple[ort.InferenceSession, list[str]]:
    """A one-thread session that gives every float tensor of `model`, and their names."""
    shaped = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    known = {v.name: v for v in (*shaped.graph.value_info, *shaped.graph.output)}
    floats = [
        known[name]
        for node in shaped.graph.node
        for name in node.output
        if name in known and known[name].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    ]
    del shaped.graph.output[:]
    shaped.graph.output.extend(floats)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # fusing would hide tensors
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(shaped.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session, [v.name for v in floats]


@dataclass(frozen=True, slots=True)
class CalibrationTable:
    """Tensor name -> (low, high), always containing zero, with the method and sample count that gave it."""

    method: str
    samples: int
    ranges: Mapping[str, Range]

    def write(self, path: Path) -> None:
        rows = {name: [float(f"{v:.8g}") for v in r] for name, r in self.ranges.items()}
        path.write_text(json.dumps({"method": self.method, "samples": self.samples, "ranges": rows}, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> CalibrationTable:
        raw = json.loads(path.read_text())
        return cls(raw["method"], raw["samples"], {k: (v[0], v[1]) for k, v in raw["ranges"].items()})


def table_of(histograms: Mapping[str, Histogram], method: str, samples: int) -> CalibrationTable:
    choose = METHODS[method]
    ranges = {name: choose(h) for name, h in histograms.items()}
    return CalibrationTable(method, samples, {n: (min(0.0, lo), max(0.0, hi)) for n, (lo, hi) in ranges.items()})
