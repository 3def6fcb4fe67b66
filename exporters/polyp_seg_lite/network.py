# SPDX-License-Identifier: Apache-2.0
"""The network of polyp-seg-lite: plain convolutions only, laid out for INT8.

The encoder is a MobileNet-like chain of 1x1 -> depthwise 3x3 -> 1x1 convolutions. Its shape was chosen so
that a ShuffleNetV2 can be poured into it without loss (see `pretrained.py`): channel shuffles, splits and
concatenations, which cost INT8 graphs more than they save, become zeros and ones inside the 1x1 kernels.
The decoder joins its skips by addition and upsamples by nearest neighbour, both of which stay in 8 bits.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

STEM_CHANNELS = 24
STAGE_CHANNELS = (48, 96, 192)
STAGE_UNITS = (4, 8, 4)
DECODER_CHANNELS = 64
FINE_CHANNELS = 48
HEAD_CHANNELS = 32


class ConvNorm(nn.Sequential):
    """A bias-free convolution with its batch normalisation, which export folds into one."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
        )

    @property
    def conv(self) -> nn.Conv2d:
        conv = self[0]
        assert isinstance(conv, nn.Conv2d)
        return conv

    @property
    def norm(self) -> nn.BatchNorm2d:
        norm = self[1]
        assert isinstance(norm, nn.BatchNorm2d)
        return norm


class Unit(nn.Module):
    """1x1, ReLU, depthwise 3x3, 1x1, ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.expand = ConvNorm(inputs, outputs, 1)
        self.spatial = ConvNorm(outputs, outputs, 3, stride, groups=outputs)
        self.project = ConvNorm(outputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.project(self.spatial(F.relu(self.expand(x)))))


class Stage(nn.Sequential):
    """Units of which the first halves the resolution."""

    def __init__(self, inputs: int, outputs: int, units: int) -> None:
        super().__init__(*(Unit(inputs if i == 0 else outputs, outputs, 2 if i == 0 else 1) for i in range(units)))


class Join(nn.Module):
    """Coarse map, upsampled, plus the 1x1 of a finer one, then a dense 3x3: the layer INT8 gains most on."""

    def __init__(self, coarse: int, fine: int, width: int) -> None:
        super().__init__()
        self.reduce = ConvNorm(coarse, width, 1)
        self.lateral = ConvNorm(fine, width, 1)
        self.merge = ConvNorm(width, width, 3)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        raised = F.interpolate(self.reduce(coarse), scale_factor=2, mode="nearest")
        return F.relu(self.merge(F.relu(raised + self.lateral(fine))))


class PolypSegLite(nn.Module):
    """Normalised RGB [B, 3, H, W] (H, W multiples of 32) -> mask logits [B, 1, H/4, W/4]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, STEM_CHANNELS, 3, stride=2)
        widths = (STEM_CHANNELS, *STAGE_CHANNELS)
        self.stages = nn.ModuleList(
            Stage(a, b, units) for a, b, units in zip(widths, STAGE_CHANNELS, STAGE_UNITS, strict=False)
        )
        self.join16 = Join(STAGE_CHANNELS[2], STAGE_CHANNELS[1], DECODER_CHANNELS)
        self.join8 = Join(DECODER_CHANNELS, STAGE_CHANNELS[0], DECODER_CHANNELS)
        self.join4 = Join(DECODER_CHANNELS, STEM_CHANNELS, FINE_CHANNELS)
        self.head = ConvNorm(FINE_CHANNELS, HEAD_CHANNELS, 3)
        self.logit = nn.Conv2d(HEAD_CHANNELS, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        s4 = F.max_pool2d(F.relu(self.stem(x)), 3, 2, 1)
        s8 = self.stages[0](s4)
        s16 = self.stages[1](s8)
        s32 = self.stages[2](s16)
        fine = self.join4(self.join8(self.join16(s32, s16), s8), s4)
        logits: Tensor = self.logit(F.relu(self.head(fine)))
        return logits
