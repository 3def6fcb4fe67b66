# SPDX-License-Identifier: Apache-2.0
"""The model card: prose here, every number from the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Report = Mapping[str, Any]


def model_card(report: Report) -> str:
    """Markdown."""
    return _TEXT.format(
        **report["package"],
        **report["calibration"],
        accuracy=_accuracy_table(report),
        speed=_speed_table(report),
        parity=report["parity"]["worst_logit_difference"],
        parity_images=report["parity"]["images"],
        counts=report["evaluation"],
        lost=report["gates"]["dice_points_lost"],
        lost_limit=report["gates"]["dice_points_lost_limit"],
        ratio=report["speed"]["ratio"]["best"],
        rounds=report["speed"]["rounds"],
        processor=report["speed"]["processor"],
    )


def _accuracy_table(report: Report) -> str:
    measured = report["accuracy"]
    heads = {
        "kvasir_dice": "Dice, Kvasir-SEG test",
        "crops_false_positive_rate": "false positives, polyp-free crops",
        "synthetic_dice": "Dice, synthetic",
        "synthetic_false_positive_rate": "false positives, synthetic",
    }
    lines = ["| graph / engine | " + " | ".join(heads.values()) + " |", "|---|" + "---|" * len(heads)]
    for runner in measured["kvasir_dice"]:
        cells = (f"{measured[column][runner]:.4f}" for column in heads)
        lines.append(f"| {runner} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _speed_table(report: Report) -> str:
    times = report["speed"]["median_ms"]
    return "\n".join(["| graph / engine | median ms |", "|---|---|", *(f"| {k} | {v:.2f} |" for k, v in times.items())])


_TEXT = """# {name} {version}

Marks colorectal polyps in a colonoscopy picture: uint8 RGB [1, 3, 320, 320] -> mask logits [1, 1, 80, 80].

**Research and education only. Not a medical device.** Not designed or validated for the diagnosis, treatment or
monitoring of patients; not cleared by any regulatory body. Licence: see LICENSE beside this file.

## Data
- Trained on 800 of the 1000 images of Kvasir-SEG (Jha et al., MMM 2020; research and education only) and on one frame
  each of 240 of edgerun's synthetic scenes (seeds 0 to 239), by `exporters/polyp_seg_lite/train.py`.
- Tested on the other {counts[kvasir_images]} images, by the public split of
  AnupamPatil899/endoscopy-polyp-segmentation. The last averaged weights were kept: no checkpoint was chosen by its test
  score. The test scores of the first of the two training stages were seen before the second was planned.
- Evaluation scenes have seeds from {counts[synthetic_first_seed]} up, which training never saw.
- Kvasir-SEG doesn't mark which frames are of one patient, so patients may be on both sides of the split. Nearly every
  picture in it shows a polyp: false positives on healthy video will be more frequent than any figure here suggests.
- Encoder initialised from the ShuffleNetV2 0.5x of FastestDet (dog-qiuqiu, BSD-3-Clause), itself trained on ImageNet.

## Accuracy
Through edgerun's own preprocessing and postprocessing (regions below the package's `min_region_fraction` removed);
Dice is the mean of each image's, against the mask at the picture's own resolution. Polyp-free crops are
{counts[crops]} squares of test images that hold no polyp pixel; synthetic frames are {counts[synthetic_polyp_frames]}
with and {counts[synthetic_free_frames]} without a polyp, of {counts[synthetic_scenes]} scenes that training never saw.
A false positive is a picture without a polyp on which anything is marked.

{accuracy}

INT8 loses {lost:.2f} points of Dice at most (limit {lost_limit}). The float graph differs from the PyTorch network by
{parity:.1e} at most, over {parity_images} images.

## Speed
One thread, median of {rounds} interleaved rounds on {processor}: only the ratios mean something elsewhere.

{speed}

INT8 on its best engine is {ratio:.2f} times as fast as FP32 on its best.

## INT8
Channels equalised between convolutions, then ranges from {samples} training images ({method}); one table for all
lowerings (calibration.json). In the x86 graph no two neighbouring weights sum above 128, so that processors without
VNNI compute it exactly.
"""
