# SPDX-License-Identifier: Apache-2.0
"""Train polyp-seg-lite: `python -m exporters.polyp_seg_lite.train --data DIR --pretrained FILE --out DIR`.

What is kept is the last averaged weights: no checkpoint is chosen by its score. The scores that are printed while it
runs are on the 200 test images, for the log only.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from exporters.polyp_seg_lite.dataset import Image, Sample, random_view, read_split, shrink, synthetic_samples
from exporters.polyp_seg_lite.network import PolypSegLite
from exporters.polyp_seg_lite.pretrained import load_shufflenet, pour_shufflenet

SIDE = 320
SCORE_EVERY = 10  # epochs


def normalise(images: Tensor) -> Tensor:
    """uint8 RGB -> (x - 128) / 128, exact in float32."""
    return (images.float() - 128) / 128


def boundary_weight(mask: Image) -> NDArray[np.float32]:
    """1 in flat areas, up to 6 where a 31-pixel window sees both classes (F3Net, AAAI 2020)."""
    share = cv2.blur(mask, (31, 31)).astype(np.float32) - mask.astype(np.float32)
    weight: NDArray[np.float32] = 1 + np.float32(5 / 255) * np.abs(share)
    return weight


def structure_loss(logits: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    """Weighted cross-entropy plus weighted IoU."""
    entropy = F.binary_cross_entropy_with_logits(logits, mask, reduction="none")
    entropy = (weight * entropy).sum((2, 3)) / weight.sum((2, 3))
    p = logits.sigmoid()
    both = (p * mask * weight).sum((2, 3))
    either = ((p + mask) * weight).sum((2, 3))
    return (entropy + 1 - (both + 1) / (either - both + 1)).mean()


Batch = tuple[Tensor, Tensor, Tensor]  # images, masks, loss weights


def make_batch(samples: list[Sample], seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    views = [random_view(sample, SIDE, rng) for sample in samples]
    images = torch.from_numpy(np.stack([v[0] for v in views])).permute(0, 3, 1, 2)
    masks = torch.from_numpy(np.stack([v[1] for v in views])).float().div(255)[:, None]
    weights = torch.from_numpy(np.stack([boundary_weight(v[1]) for v in views]))[:, None]
    return normalise(images).contiguous(memory_format=torch.channels_last), masks, weights


def batches(samples: list[Sample], size: int, seed: int, pool: ThreadPoolExecutor) -> Iterator[Batch]:
    """One epoch in random order, the next batch being made while this one trains."""
    order = np.random.default_rng(seed).permutation(len(samples))
    groups = [order[i : i + size] for i in range(0, len(order) - size + 1, size)]

    def submit(k: int) -> Callable[[], Batch]:
        return pool.submit(make_batch, [samples[i] for i in groups[k]], seed * 100_003 + k).result

    ahead = submit(0)
    for k in range(len(groups)):
        ready = ahead()
        if k + 1 < len(groups):
            ahead = submit(k + 1)
        yield ready


@torch.no_grad()
def mean_dice(network: PolypSegLite, samples: list[Sample]) -> float:
    """Mean per-image Dice against the full-resolution masks, OpenCV's area resize standing in for serving's."""
    scores = []
    network.eval()
    for sample in samples:
        small = cv2.resize(sample.image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        logits = network(normalise(torch.from_numpy(small).permute(2, 0, 1)[None]))[0, 0].numpy()
        h, w = sample.mask.shape
        found = cv2.resize(logits, (w, h), interpolation=cv2.INTER_LINEAR) > 0
        truth = sample.mask > 0
        scores.append(2 * (found & truth).sum() / max(1, found.sum() + truth.sum()))
    return float(np.mean(scores))


def average_into(average: PolypSegLite, network: PolypSegLite, decay: float) -> None:
    with torch.no_grad():
        for a, b in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
            if a.dtype.is_floating_point:
                a.lerp_(b, 1 - decay)


@dataclass(frozen=True, slots=True)
class TrainingStage:
    """A one-cycle schedule over `epochs`, ended after `last_epoch` of them; `synthetic` scenes join the images."""

    epochs: int
    last_epoch: int
    synthetic: int
    rate: float
    batch: int = 16


# The shipped weights. The second stage starts from the averaged weights of the first, which was ended early.
RECIPE = (
    TrainingStage(epochs=60, last_epoch=52, synthetic=0, rate=1.5e-3),
    TrainingStage(epochs=70, last_epoch=70, synthetic=240, rate=1.2e-3),
)
ENCODER_RATE = 0.4  # of the stage's: the encoder comes trained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with Kvasir-SEG and reference_anupam")
    parser.add_argument("--pretrained", type=Path, required=True, help="FastestDet's shufflenetv2.pth")
    parser.add_argument("--out", type=Path, required=True, help="log.jsonl and average.pth go there")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    cv2.setNumThreads(1)
    images = [shrink(s) for s in read_split(args.data, "train")]
    test = read_split(args.data, "val")
    network = PolypSegLite()
    pour_shufflenet(load_shufflenet(args.pretrained), network, make_batch(images[:32], 1)[0])
    for stage in RECIPE:
        network = fit(network, images + synthetic_samples(stage.synthetic), test, stage, args.out)


def fit(
    network: PolypSegLite, train: list[Sample], test: list[Sample], stage: TrainingStage, out: Path
) -> PolypSegLite:
    """Returns the averaged network, which is also saved after each epoch."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's stubs
    average = copy.deepcopy(network)
    optimiser, schedule = optimiser_for(network, stage, stage.epochs * (len(train) // stage.batch))
    with ThreadPoolExecutor(1) as pool, (out / "log.jsonl").open("a") as log:
        for epoch in range(stage.last_epoch):
            began, losses = time.perf_counter(), []
            network.train()
            for batch in batches(train, stage.batch, epoch, pool):
                losses.append(step(network, optimiser, *batch))
                schedule.step()
                average_into(average, network, min(0.998, (1 + schedule.last_epoch) / (10 + schedule.last_epoch)))
            row = {"epoch": epoch, "loss": float(np.mean(losses)), "seconds": time.perf_counter() - began}
            if (epoch + 1) % SCORE_EVERY == 0 or epoch + 1 == stage.last_epoch:
                row["test_dice"] = mean_dice(average, test)
            print(json.dumps(row), file=log, flush=True)
            print(row, flush=True)
            torch.save(average.state_dict(), out / "average.pth")
    return average


def optimiser_for(
    network: PolypSegLite, stage: TrainingStage, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.OneCycleLR]:
    encoder = [*network.stem.parameters(), *network.stages.parameters()]
    known = {id(p) for p in encoder}
    decoder = [p for p in network.parameters() if id(p) not in known]
    rates = [stage.rate * ENCODER_RATE, stage.rate]
    groups = [{"params": encoder, "lr": rates[0]}, {"params": decoder, "lr": rates[1]}]
    optimiser = torch.optim.AdamW(groups, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rates, total_steps=steps + 1, pct_start=0.05, div_factor=20, final_div_factor=50
    )
    return optimiser, schedule


def step(
    network: PolypSegLite, optimiser: torch.optim.Optimizer, images: Tensor, masks: Tensor, weights: Tensor
) -> float:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(images)
    logits = F.interpolate(logits.float(), size=masks.shape[2:], mode="bilinear", align_corners=False)
    loss = structure_loss(logits, masks, weights)
    optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()
    return float(loss.detach())


if __name__ == "__main__":
    main()
