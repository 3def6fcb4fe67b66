# SPDX-License-Identifier: Apache-2.0
"""Is a lowered graph as accurate as the original, and faster? Through edgerun's own pre- and postprocessing."""

from __future__ import annotations

import platform
import re
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import nn

from edgerun.frame import Colour, PixelFormat
from edgerun.metrics import dice, false_positive_rate
from edgerun.model_package import Manifest
from edgerun.postprocess.segmentation import mask_in_source, segment
from edgerun.preprocess.plan import PreprocessPlan
from exporters.export import FromBytes

Image = NDArray[np.uint8]
Logits = NDArray[np.float32]
Runner = Callable[[Image], Logits]  # model input [1, 3, H, W] -> logits; valid until the next call
WARM_UP_RUNS = 5


@dataclass(frozen=True, slots=True)
class Case:
    """An RGB picture [H, W, 3] and the truth about it [H, W], non-zero inside."""

    image: Image
    mask: Image


def runners_of(graphs: Mapping[str, Path]) -> dict[str, Runner]:
    """`graph/engine` -> one-thread runner, for every graph on every CPU engine that is installed."""
    runners = {f"{graph}/onnxruntime": onnxruntime_runner(path) for graph, path in graphs.items()}
    try:
        import openvino
    except ImportError:
        return runners
    core = openvino.Core()
    return runners | {f"{graph}/openvino": _openvino_runner(core, path) for graph, path in graphs.items()}


def onnxruntime_runner(path: Path) -> Runner:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    # s8 x s8 is wrong by default on AVX2 without VNNI; exact this way. u8 x s8 graphs of ours need nothing.
    options.add_session_config_entry("session.x64quantprecision", "1" if "arm" in path.stem else "0")
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda image: np.asarray(session.run(None, {name: image})[0], np.float32)


def _openvino_runner(core: Any, path: Path) -> Runner:
    one_thread = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(path, "CPU", one_thread).create_infer_request()
    return lambda image: np.asarray(request.infer([image])[0], np.float32)


def plan_of(manifest: Manifest, image: Image) -> PreprocessPlan:
    height, width = image.shape[:2]
    spec = manifest.inputs[0].spec
    return PreprocessPlan(
        manifest.preprocess, spec, pixel_format=PixelFormat.RGB, width=width, height=height, colour=Colour()
    )


def model_input(manifest: Manifest, image: Image) -> Image:
    """The picture as serving would hand it to the engine."""
    out = np.empty(manifest.inputs[0].shape, np.uint8)
    plan_of(manifest, image).write((np.ascontiguousarray(image),), out)
    return out


def found_mask(manifest: Manifest, image: Image, runner: Runner) -> Image:
    """The mask in the picture's own pixels, 0 or 1, as serving would draw it."""
    plan = plan_of(manifest, image)
    fed = np.empty(manifest.inputs[0].shape, np.uint8)
    plan.write((np.ascontiguousarray(image),), fed)
    logits = runner(fed)
    stride = (fed.shape[3] / logits.shape[3], fed.shape[2] / logits.shape[2])
    declared = manifest.postprocess
    found = segment(
        logits,
        plan.geometry,
        stride,
        probability=declared.threshold,
        min_region_fraction=declared.min_region_fraction,
    )
    return mask_in_source(found)


def worst_difference(network: nn.Module, runner: Runner, inputs: Iterable[Image]) -> float:
    """The largest |torch - graph| over all logits of all inputs."""
    module = FromBytes(network).eval()
    with torch.no_grad():
        return max(float(np.abs(module(torch.from_numpy(x)).numpy() - runner(x)).max()) for x in inputs)


def dice_of(manifest: Manifest, runners: Mapping[str, Runner], cases: Iterable[Case]) -> dict[str, float]:
    """Mean per-image Dice of each runner at the pictures' own resolution."""
    scores: dict[str, list[float]] = {name: [] for name in runners}
    for case in cases:
        for name, runner in runners.items():
            scores[name].append(dice(found_mask(manifest, case.image, runner), case.mask))
    return {name: statistics.fmean(values) for name, values in scores.items()}


def false_positives_of(manifest: Manifest, runners: Mapping[str, Runner], images: Sequence[Image]) -> dict[str, float]:
    """The share of `images`, all without a finding, on which each runner marks anything."""
    return {
        name: false_positive_rate(found_mask(manifest, image, runner) for image in images)
        for name, runner in runners.items()
    }


def median_ms(runners: Mapping[str, Runner], image: Image, rounds: int = 200) -> dict[str, float]:
    """Median time of one run of each, in interleaved rounds: what disturbs one disturbs all."""
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(WARM_UP_RUNS):
        for runner in runners.values():
            runner(image)
    for _ in range(rounds):
        for name, runner in runners.items():
            began = time.perf_counter()
            runner(image)
            seconds[name].append(time.perf_counter() - began)
    return {name: 1e3 * statistics.median(values) for name, values in seconds.items()}


def speed_ratios(milliseconds: Mapping[str, float], graph: str, reference: str = "fp32") -> dict[str, float]:
    """How much faster `graph` is than `reference`: per engine, and `best` = best engine for each."""

    def times(of: str) -> dict[str, float]:
        return {engine: ms for key, ms in milliseconds.items() for g, engine in [key.split("/")] if g == of}

    slow, fast = times(reference), times(graph)
    return {"best": min(slow.values()) / min(fast.values())} | {e: slow[e] / fast[e] for e in slow}


def processor() -> str:
    """The processor's name and whether it has the dot products that INT8 gains most from."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(re.split(r"\s*:\s*", line, maxsplit=1) for line in text.splitlines() if ":" in line)
    flags = facts.get("flags", facts.get("Features", "")).split()
    found = [name for name in ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "asimddp", "i8mm") if name in flags]
    return f"{facts.get('model name', platform.machine())} ({', '.join(found)})"
