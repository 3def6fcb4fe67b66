# SPDX-License-Identifier: Apache-2.0
"""What `edgerun demo` was asked for, checked before anything starts."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from edgerun.answer import Policy
from edgerun.errors import ConfigError

SYNTHETIC_SIZE = (1920, 1080)
SYNTHETIC_SECONDS = 10.0
SYNTHETIC_FPS = 30.0
SLOWEST_FPS, FASTEST_FPS = 0.1, 240
LARGEST_SIDE = 4096


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """None means what the source says itself, or the defaults of the synthetic scene."""

    source: Path | None = None
    size: tuple[int, int] | None = None
    seconds: float | None = None
    fps: float | None = None
    out: Path = Path("demo-out")
    seed: int = 1008
    model: Path | None = None
    engine: str | None = None
    precision: str | None = None
    policy: Policy = Policy.LATEST

    def __post_init__(self) -> None:
        faults = [*self._number_faults(), *self._size_faults()]
        if faults:
            raise ConfigError("; ".join(faults))

    def _number_faults(self) -> list[str]:
        faults = []
        if self.seconds is not None and not (math.isfinite(self.seconds) and 0 < self.seconds <= 3600):
            faults.append(f"--seconds {self.seconds:g}; expected above 0, up to 3600")
        if self.fps is not None and not SLOWEST_FPS <= self.fps <= FASTEST_FPS:
            faults.append(f"--fps {self.fps:g}; expected {SLOWEST_FPS:g} to {FASTEST_FPS:g}")
        if self.seed < 0:
            faults.append(f"--seed {self.seed}; expected 0 or more")
        return faults

    def _size_faults(self) -> list[str]:
        if self.size is None:
            return []
        if self.source is not None:
            return ["--size is for the synthetic scene; a file has its own. Leave one of --size and --source out"]
        if not all(32 <= side <= LARGEST_SIDE and side % 2 == 0 for side in self.size):
            width, height = self.size
            return [f"--size {width}x{height}; expected even sides of 32 to {LARGEST_SIDE}, such as 1920x1080"]
        return []


def parse_size(text: str) -> tuple[int, int]:
    """ "1920x1080" -> (1920, 1080). Raises ConfigError."""
    match = re.fullmatch(r"([0-9]{1,6})[xX]([0-9]{1,6})", text)
    if match is None:
        raise ConfigError(f"--size {text}; expected WIDTHxHEIGHT in pixels, such as 1920x1080")
    return int(match[1]), int(match[2])
