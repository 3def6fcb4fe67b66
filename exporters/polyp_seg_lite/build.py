# SPDX-License-Identifier: Apache-2.0
"""Weights -> the shipped package: `python -m exporters.polyp_seg_lite.build --weights FILE --data DIR --out DIR`.

Export, equalise and calibrate on training images, lower, verify on the test images, write. Ends with 1 and writes
nothing when the accuracy gates are missed.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import onnx
import torch

from edgerun.errors import ModelError
from edgerun.model_package import Manifest, parse_manifest
from exporters.calibrate import METHODS, CalibrationTable, observe, table_of
from exporters.equalise import channel_peaks, equalised
from exporters.export import onnx_from_torch
from exporters.lower import Target, int8_from_onnx
from exporters.package import write_package
from exporters.polyp_seg_lite.card import model_card
from exporters.polyp_seg_lite.dataset import EVALUATION_SEEDS, read_split
from exporters.polyp_seg_lite.evaluation import SCENES, polyp_free_crops, synthetic_cases
from exporters.polyp_seg_lite.network import PolypSegLite
from exporters.verify import (
    Case,
    Runner,
    dice_of,
    false_positives_of,
    median_ms,
    model_input,
    onnxruntime_runner,
    processor,
    runners_of,
    speed_ratios,
    worst_difference,
)

HERE = Path(__file__).parent
CALIBRATE_EVERY = 4  # of the 800 training images
METHOD = "least-error"  # chosen on training images: closest to FP32's Dice there
MAX_LOGIT_DIFFERENCE = 1e-3
MAX_DICE_POINTS_LOST = 0.5
SPEED_GOAL = 1.7
ROUNDS = 200
PARITY_IMAGES = 16


@dataclass(frozen=True, slots=True)
class Graphs:
    """What was made from the weights, and what that took."""

    network: PolypSegLite
    models: Mapping[str, onnx.ModelProto]
    table: CalibrationTable


def make_graphs(weights: Path, data: Path, manifest: Manifest, method: str) -> Graphs:
    network = PolypSegLite()
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    network.eval()
    image = manifest.inputs[0].spec
    exported = onnx_from_torch(network, image, manifest.outputs[0].spec)
    samples = [{image.name: model_input(manifest, s.image)} for s in read_split(data, "train")[::CALIBRATE_EVERY]]
    fp32 = equalised(exported, channel_peaks(exported, samples))  # shipped: calibration.json is about this graph
    table = table_of(observe(fp32, samples), method, len(samples))
    lowered = {target.value: int8_from_onnx(fp32, table, target) for target in Target}
    return Graphs(network, {"fp32": fp32} | lowered, table)


def measure(graphs: Graphs, paths: Mapping[str, Path], data: Path, manifest: Manifest) -> dict[str, Any]:
    """The report, but for what it says of the package itself."""
    test = read_split(data, "val")
    cases = [Case(s.image, s.mask) for s in test]
    crops = polyp_free_crops(test)
    synthetic, free = synthetic_cases()
    here = runners_of({k: v for k, v in paths.items() if k != Target.CPU_ARM.value})
    runners = here | {f"{Target.CPU_ARM.value}/onnxruntime": onnxruntime_runner(paths[Target.CPU_ARM.value])}
    parity = [model_input(manifest, case.image) for case in cases[:PARITY_IMAGES]]
    accuracy = {
        "kvasir_dice": dice_of(manifest, runners, cases),
        "crops_false_positive_rate": false_positives_of(manifest, runners, crops),
        "synthetic_dice": dice_of(manifest, runners, synthetic),
        "synthetic_false_positive_rate": false_positives_of(manifest, runners, free),
    }
    return {
        "parity": {
            "images": len(parity),
            "worst_logit_difference": worst_difference(graphs.network, here["fp32/onnxruntime"], parity),
        },
        "evaluation": {
            "kvasir_images": len(cases),
            "crops": len(crops),
            "synthetic_scenes": SCENES,
            "synthetic_first_seed": EVALUATION_SEEDS,
            "synthetic_polyp_frames": len(synthetic),
            "synthetic_free_frames": len(free),
        },
        "accuracy": accuracy,
        "speed": _speed(here, parity[0]),
    }


def _speed(runners: Mapping[str, Runner], image: Any) -> dict[str, Any]:
    times = median_ms(runners, image, ROUNDS)
    ratio = speed_ratios(times, Target.CPU_X86.value)
    return {"threads": 1, "rounds": ROUNDS, "processor": processor(), "median_ms": times, "ratio": ratio}


def gates(measured: Mapping[str, Any]) -> dict[str, Any]:
    """What a package must reach. Speed is recorded and not enforced: a busy machine can't measure it."""
    dice = measured["accuracy"]["kvasir_dice"]
    lost = 100 * (dice["fp32/onnxruntime"] - min(v for k, v in dice.items() if k.startswith("int8")))
    return {
        "dice_points_lost": lost,
        "dice_points_lost_limit": MAX_DICE_POINTS_LOST,
        "worst_logit_difference_limit": MAX_LOGIT_DIFFERENCE,
        "is_accurate": lost <= MAX_DICE_POINTS_LOST
        and measured["parity"]["worst_logit_difference"] <= MAX_LOGIT_DIFFERENCE,
        "speed_goal": SPEED_GOAL,
        "reached_speed_goal": measured["speed"]["ratio"]["best"] >= SPEED_GOAL,
    }


def build(weights: Path, data: Path, out: Path, method: str = METHOD) -> dict[str, Any]:
    """Write the package to `out` and return its report. Raises ModelError when a gate is missed."""
    declared = parse_manifest(HERE / "model.toml")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    manifest = declared.model_copy(update={"provenance": {**declared.provenance, "weights_sha256": digest}})
    graphs = make_graphs(weights, data, manifest, method)
    with tempfile.TemporaryDirectory() as scratch:
        paths = {graph: Path(scratch) / manifest.graphs[graph] for graph in graphs.models}  # type: ignore[index]
        for graph, path in paths.items():
            onnx.save(graphs.models[graph], path)
        measured = measure(graphs, paths, data, manifest)
    report = {
        "package": {"name": manifest.name, "version": manifest.version},
        "calibration": {"method": graphs.table.method, "samples": graphs.table.samples},
        **measured,
        "gates": gates(measured),
    }
    if not report["gates"]["is_accurate"]:
        raise ModelError(f"{manifest.name}: gates missed, nothing written: {report['gates']}. Calibrate otherwise.")
    licence = (HERE / "weights_license.txt").read_text(encoding="utf-8")
    write_package(out, manifest, graphs.models, graphs.table, report, model_card(report), licence)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="state dict of PolypSegLite")
    parser.add_argument("--data", type=Path, required=True, help="folder with Kvasir-SEG and reference_anupam")
    parser.add_argument("--out", type=Path, required=True, help="the package folder; replaced when there")
    parser.add_argument("--method", choices=METHODS, default=METHOD)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        report = build(args.weights, args.data, args.out, args.method)
    except ModelError as error:
        print(error, file=sys.stderr)
        return 1
    print(model_card(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
