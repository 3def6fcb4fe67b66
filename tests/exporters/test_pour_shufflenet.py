# SPDX-License-Identifier: Apache-2.0
"""The encoder computes what the ShuffleNetV2 computes whose weights were poured into it."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="exporters need torch: pip install edgerun[exporters]")
pytest.importorskip("cv2")

import torch
from torch import Tensor
from torch.nn import functional as F

from exporters.polyp_seg_lite.network import STAGE_CHANNELS, STAGE_UNITS, STEM_CHANNELS, PolypSegLite
from exporters.polyp_seg_lite.pretrained import StateDict, pour_shufflenet

BRANCHES = {"branch_main": ((0, 1), (3, 4), (5, 6)), "branch_proj": ((0, 1), (2, 3))}  # (convolution, norm)


def published_layout() -> StateDict:
    """Random weights under the names and shapes of the published file."""
    torch.manual_seed(0)
    state = _conv_norm("first_conv.0", "first_conv.1", (STEM_CHANNELS, 3, 3, 3))
    inputs = STEM_CHANNELS
    for s, (outputs, units) in enumerate(zip(STAGE_CHANNELS, STAGE_UNITS, strict=True)):
        for u in range(units):
            p, half = f"stage{s + 2}.{u}.", outputs // 2
            first = inputs if u == 0 else half
            shapes = ((half, first, 1, 1), (half, 1, 3, 3), (half, half, 1, 1))
            for (c, n), shape in zip(BRANCHES["branch_main"], shapes, strict=True):
                state |= _conv_norm(f"{p}branch_main.{c}", f"{p}branch_main.{n}", shape)
            if u == 0:
                for (c, n), shape in zip(
                    BRANCHES["branch_proj"], ((inputs, 1, 3, 3), (half, inputs, 1, 1)), strict=True
                ):
                    state |= _conv_norm(f"{p}branch_proj.{c}", f"{p}branch_proj.{n}", shape)
        inputs = outputs
    return state


def _conv_norm(conv: str, norm: str, shape: tuple[int, ...]) -> StateDict:
    fan_in = shape[1] * shape[2] * shape[3]
    outputs = shape[0]
    return {
        f"{conv}.weight": torch.randn(shape) * (2 / fan_in) ** 0.5,
        f"{norm}.weight": torch.rand(outputs) + 0.5,
        f"{norm}.bias": torch.randn(outputs) * 0.2,
        f"{norm}.running_mean": torch.randn(outputs) * 0.2,
        f"{norm}.running_var": torch.rand(outputs) + 0.5,
    }


def apply(state: StateDict, conv: str, norm: str, x: Tensor, stride: int = 1, *, padding: int | None = None) -> Tensor:
    weight = state[f"{conv}.weight"]
    around = weight.shape[-1] // 2 if padding is None else padding
    y = F.conv2d(x, weight, None, stride, around, groups=x.shape[1] // weight.shape[1])
    mean, var, gain, shift = (state[f"{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(y, mean, var, gain, shift)


def branch_main(state: StateDict, p: str, x: Tensor, stride: int) -> Tensor:
    p += "branch_main."
    x = F.relu(apply(state, p + "0", p + "1", x))
    x = apply(state, p + "3", p + "4", x, stride)
    return F.relu(apply(state, p + "5", p + "6", x))


def branch_proj(state: StateDict, p: str, x: Tensor) -> Tensor:
    p += "branch_proj."
    x = apply(state, p + "0", p + "1", x, 2)
    return F.relu(apply(state, p + "2", p + "3", x))


def unit(state: StateDict, p: str, x: Tensor, *, downsamples: bool) -> Tensor:
    """A ShuffleNetV2 unit as published (Ma et al., ECCV 2018, figure 3 c and d)."""
    if downsamples:
        return torch.cat((branch_proj(state, p, x), branch_main(state, p, x, 2)), 1)
    return torch.cat((x[:, 0::2], branch_main(state, p, x[:, 1::2], 1)), 1)


def shufflenet(state: StateDict, rgb: Tensor) -> list[Tensor]:
    """Normalised RGB -> the feature maps at strides 4, 8, 16, 32.

    The one thing that isn't ShuffleNetV2's: its stem pads with black, here with 128, which is our zero.
    """
    bgr = F.pad((rgb * 128 + 128).flip(1) / 255, (1, 1, 1, 1), value=128 / 255)
    stem = apply(state, "first_conv.0", "first_conv.1", bgr, 2, padding=0)
    maps = [F.max_pool2d(F.relu(stem), 3, 2, 1)]
    for s, units in enumerate(STAGE_UNITS):
        x = maps[-1]
        for u in range(units):
            x = unit(state, f"stage{s + 2}.{u}.", x, downsamples=u == 0)
        maps.append(x)
    return maps


def encoder(network: PolypSegLite, x: Tensor) -> list[Tensor]:
    maps = [F.max_pool2d(F.relu(network.stem(x)), 3, 2, 1)]
    for stage in network.stages:
        maps.append(stage(maps[-1]))
    return maps


@torch.no_grad()
def test_poured_encoder_equals_shufflenet() -> None:
    state = published_layout()
    network = PolypSegLite()
    settle = torch.rand(2, 3, 64, 64) * 2 - 1
    pour_shufflenet(state, network, settle)
    images = torch.rand(2, 3, 64, 96) * 2 - 1
    for expected, found in zip(shufflenet(state, images), encoder(network.eval(), images), strict=True):
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
