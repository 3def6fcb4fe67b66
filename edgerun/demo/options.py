# SPDX-License-Identifier: Apache-2.0
"""What `edgerun demo` was asked for, checked before anything starts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from edgerun.answer import Policy
from edgerun.errors import ConfigError

SYNTHETIC_SIZE = (1920, 1080)
SYNTHETIC_SECONDS = 10.0
SYNTHETIC_FPS = 30.0
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
        if self.fps is not None and not (math.isfinite(self.fps) and 0 < self.fps <= 240):
            faults.append(f"--fps {self.fps:g}; expected above 0, up to 240")
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
    """"1920x1080" -> (1920, 1080). Raises ConfigError."""
    width, separator, height = text.lower().partition("x")
    if not (separator and width.isdecimal() and height.isdecimal()):
        raise ConfigError(f"--size {text}; expected WIDTHxHEIGHT in pixels, such as 1920x1080")
    return int(width), int(height)
