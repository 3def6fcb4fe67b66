# SPDX-License-Identifier: Apache-2.0
"""Train polyp-seg-lite: `python -m exporters.polyp_seg_lite.train --data DIR --out DIR [--pretrained FILE]`.

The schedule is fixed before the run and the last averaged weights are what is kept: no checkpoint is chosen
by its score on the 200 test images.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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


def normalise(images: Tensor) -> Tensor:
    """uint8 RGB -> (x - 128) / 128, exact in float32."""
    return (images.float() - 128) / 128


def boundary_weight(mask: Image) -> NDArray[np.float32]:
    """1 in flat areas, up to 6 where a 31-pixel window sees both classes (F3Net, AAAI 2020)."""
    share = cv2.blur(mask, (31, 31)).astype(np.float32) - mask.astype(np.float32)
    return 1 + 5 / 255 * np.abs(share)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with Kvasir-SEG and reference_anupam")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pretrained", type=Path, help="FastestDet's shufflenetv2.pth")
    parser.add_argument("--resume", type=Path, help="start from these weights of this network")
    parser.add_argument("--synthetic", type=int, default=0, help="synthetic scenes added to the training images")
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--score-every", type=int, default=20)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    cv2.setNumThreads(1)
    train = [shrink(s) for s in read_split(args.data, "train")]
    train += synthetic_samples(args.synthetic)
    test = read_split(args.data, "val")
    network = PolypSegLite()
    if args.pretrained:
        pour_shufflenet(load_shufflenet(args.pretrained), network, make_batch(train[:32], 1)[0])
    if args.resume:
        network.load_state_dict(torch.load(args.resume, weights_only=True))
    fit(network, train, test, args)


def fit(network: PolypSegLite, train: list[Sample], test: list[Sample], args: argparse.Namespace) -> None:
    network.to(memory_format=torch.channels_last)
    average = copy.deepcopy(network)
    encoder = [*network.stem.parameters(), *network.stages.parameters()]
    known = {id(p) for p in encoder}
    decoder = [p for p in network.parameters() if id(p) not in known]
    slow = 0.4 if args.pretrained or args.resume else 1.0
    groups = [{"params": encoder, "lr": args.rate * slow}, {"params": decoder, "lr": args.rate}]
    optimiser = torch.optim.AdamW(groups, weight_decay=1e-2)
    steps = args.epochs * (len(train) // args.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, [g["lr"] for g in groups], total_steps=steps + 1, pct_start=0.05, div_factor=20, final_div_factor=50
    )
    log = (args.out / "log.jsonl").open("a")
    with ThreadPoolExecutor(1) as pool:
        for epoch in range(args.epochs):
            began, losses = time.perf_counter(), []
            network.train()
            for batch in batches(train, args.batch, epoch, pool):
                losses.append(step(network, optimiser, *batch))
                schedule.step()
                average_into(average, network, min(0.998, (1 + schedule.last_epoch) / (10 + schedule.last_epoch)))
            row = {"epoch": epoch, "loss": float(np.mean(losses)), "seconds": time.perf_counter() - began}
            if (epoch + 1) % args.score_every == 0 or epoch + 1 == args.epochs:
                row["test_dice"] = mean_dice(average, test)
            log.write(json.dumps(row) + "\n")
            log.flush()
            print(row, flush=True)
            torch.save(average.state_dict(), args.out / "average.pth")


def step(
    network: PolypSegLite, optimiser: torch.optim.Optimizer, images: Tensor, masks: Tensor, weights: Tensor
) -> float:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(images)
    logits = F.interpolate(logits.float(), size=masks.shape[2:], mode="bilinear", align_corners=False)
    loss = structure_loss(logits, masks, weights)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()
    return float(loss.detach())


if __name__ == "__main__":
    main()
