# SPDX-License-Identifier: Apache-2.0
"""Pours a published ShuffleNetV2 0.5x into the encoder of polyp-seg-lite, keeping its function.

A ShuffleNetV2 unit de-interleaves its channels, passes the even ones on and convolves the odd ones. Here the
de-interleaving is a permutation written into the 1x1 kernel, and "passes on" is a row of the identity: exact,
since every activation it carries is a ReLU's output. Source of the layout and of the weights: FastestDet
(dog-qiuqiu/FastestDet, BSD-3-Clause), whose backbone was trained on ImageNet with BGR / 255 as its input.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from exporters.polyp_seg_lite.network import ConvNorm, PolypSegLite, Unit

StateDict = dict[str, Tensor]


def load_shufflenet(path: Path) -> StateDict:
    """The published state dict, read without unpickling objects."""
    state: StateDict = torch.load(path, map_location="cpu", weights_only=True)
    return state


def pour_shufflenet(source: StateDict, network: PolypSegLite, images: Tensor) -> None:
    """Initialise `network`'s encoder from `source`, in place.

    `images` [B, 3, H, W], normalised RGB, gives the pass-through channels the statistics under which batch
    normalisation leaves them as they are in training mode too.
    """
    _pour_stem(source, network.stem)
    carried: list[tuple[nn.BatchNorm2d, Tensor]] = []
    for s, stage in enumerate(network.stages):
        for u, unit in enumerate(stage.children()):
            assert isinstance(unit, Unit)
            carried += _pour_unit(source, f"stage{s + 2}.{u}.", unit, downsamples=u == 0)
    _settle(network, carried, images)


def _pour_stem(source: StateDict, stem: ConvNorm) -> None:
    kernel = source["first_conv.0.weight"].flip(1) * (128 / 255)  # BGR / 255 -> RGB, (x - 128) / 128
    with torch.no_grad():
        stem.conv.weight.copy_(kernel)
    _copy_norm(source, "first_conv.1.", stem.norm, slice(None))
    assert stem.norm.running_mean is not None
    stem.norm.running_mean -= kernel.sum((1, 2, 3))  # x / 255 = (128 / 255) * n + 128 / 255


def _copy_norm(source: StateDict, prefix: str, norm: nn.BatchNorm2d, rows: slice) -> None:
    with torch.no_grad():
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(norm, name)[rows] = source[prefix + name]


def _pour_unit(source: StateDict, prefix: str, unit: Unit, *, downsamples: bool) -> list[tuple[nn.BatchNorm2d, Tensor]]:
    """Returns the normalisations with the indices of the channels that they must leave alone."""
    expand, spatial, project = unit.expand.conv.weight, unit.spatial.conv.weight, unit.project.conv.weight
    norms = (unit.expand.norm, unit.spatial.norm, unit.project.norm)
    outputs, inputs = expand.shape[:2]
    half = outputs // 2
    kept, main = slice(0, half), slice(half, outputs)
    through = torch.arange(half)
    b = prefix + "branch_main."
    with torch.no_grad():
        for kernel in (expand, spatial, project):
            kernel.zero_()
        columns = torch.arange(inputs) if downsamples else torch.arange(1, inputs, 2)
        expand[main, columns] = source[b + "0.weight"]
        expand[through, through * (1 if downsamples else 2)] = 1.0
        spatial[main] = source[b + "3.weight"]
        project[main, main] = source[b + "5.weight"]
        for index, norm in zip((1, 4, 6), norms, strict=True):
            _copy_norm(source, f"{b}{index}.", norm, main)
        if not downsamples:
            spatial[kept, 0, 1, 1] = 1.0
            project[through, through] = 1.0
            return [(norm, through) for norm in norms]
        _pour_projection(source, prefix + "branch_proj.", unit, kept)
        return [(norms[0], through)]


def _pour_projection(source: StateDict, prefix: str, unit: Unit, kept: slice) -> None:
    """The second branch of a unit that halves the resolution: depthwise, then 1x1."""
    unit.spatial.conv.weight[kept] = source[prefix + "0.weight"]
    unit.project.conv.weight[kept, kept] = source[prefix + "2.weight"]
    _copy_norm(source, prefix + "1.", unit.spatial.norm, kept)
    _copy_norm(source, prefix + "3.", unit.project.norm, kept)


def _settle(network: PolypSegLite, carried: list[tuple[nn.BatchNorm2d, Tensor]], images: Tensor) -> None:
    """Give each pass-through channel scale = its deviation and shift = its mean, so that the two cancel."""

    def before(norm: nn.Module, args: tuple[Tensor, ...], channels: Tensor) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        seen = args[0][:, channels]
        mean, var = seen.mean((0, 2, 3)), seen.var((0, 2, 3)).clamp_min(1e-6)
        norm.running_mean[channels], norm.running_var[channels] = mean, var
        norm.weight[channels], norm.bias[channels] = (var + norm.eps).sqrt(), mean

    hooks = [norm.register_forward_pre_hook(lambda m, a, c=channels: before(m, a, c)) for norm, channels in carried]
    with torch.no_grad():
        network.eval()(images)
    for hook in hooks:
        hook.remove()
