# SPDX-License-Identifier: Apache-2.0
"""One short epoch through the real training loop."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the exporters extra: pip install torch==2.13.0")

from exporters.polyp_seg_lite.dataset import Sample, random_view, synthetic_samples  # noqa: E402
from exporters.polyp_seg_lite.network import PolypSegLite  # noqa: E402
from exporters.polyp_seg_lite.train import TrainingStage, fit, make_batch, mean_dice  # noqa: E402


def disc(name: str, x: int, y: int) -> Sample:
    """A bright disc on a dark ground, 96 x 128."""
    rows, columns = np.mgrid[:96, :128]
    mask = np.where((columns - x) ** 2 + (rows - y) ** 2 < 22**2, 255, 0).astype(np.uint8)
    return Sample(name, np.repeat(mask[..., None] // 2 + 60, 3, axis=2), mask)


def test_an_epoch_learns_and_saves_the_average(tmp_path: Path) -> None:
    torch.manual_seed(0)
    train = [disc(str(k), 40 + 6 * k, 40) for k in range(8)]
    stage = TrainingStage(epochs=2, last_epoch=2, synthetic=0, rate=2e-3, batch=4)
    average = fit(PolypSegLite(), train, train[:1], stage, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows[1]["loss"] < rows[0]["loss"]
    assert 0 <= rows[1]["test_dice"] <= 1
    saved = torch.load(tmp_path / "average.pth", weights_only=True)
    assert all(torch.equal(saved[key], value) for key, value in average.state_dict().items())


def test_batches_are_the_same_for_the_same_seed() -> None:
    samples = [disc("a", 50, 50), disc("b", 70, 40)]
    one, two, other = (make_batch(samples, seed) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one[0], other[0])
    images, masks, weights = one
    assert images.shape == (2, 3, 320, 320)
    assert float(images.min()) >= -1
    assert float(images.max()) < 1
    assert set(np.unique(masks.round().numpy())) <= {0.0, 1.0}
    assert float(weights.min()) >= 1


def test_a_view_moves_picture_and_mask_together() -> None:
    rng = np.random.default_rng(0)
    sample = disc("a", 64, 48)
    for _ in range(10):
        image, mask = random_view(sample, 128, rng, polyp_free=0.0)
        if (mask > 200).sum() > 500 and (mask < 50).sum() > 500:
            assert image[mask > 200].mean() > image[mask < 50].mean()


def test_polyp_free_views_have_no_polyp() -> None:
    _, mask = random_view(disc("a", 100, 70), 64, np.random.default_rng(1), polyp_free=1.0)
    assert not mask.any()


def test_dice_of_a_network_that_finds_nothing() -> None:
    network = PolypSegLite()
    assert network.logit.bias is not None
    torch.nn.init.constant_(network.logit.weight, 0.0)
    torch.nn.init.constant_(network.logit.bias, -1.0)
    assert mean_dice(network, [disc("a", 50, 50)]) == 0.0


def test_evaluation_seeds_are_kept_from_training() -> None:
    with pytest.raises(ValueError, match="seeds from 1000 up are kept for evaluation"):
        synthetic_samples(1001)
