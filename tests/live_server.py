# SPDX-License-Identifier: Apache-2.0
"""`edgerun serve` as a process, small enough that a test can fill it, and pictures to send to it."""

from __future__ import annotations

import platform
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import psutil

from edgerun.device_profile import CONFIG_FOLDERS, PROFILE_OF_MACHINE
from edgerun.frame import PixelFormat, Plane
from edgerun.source.synthetic import SyntheticScene

MODEL = "polyp-seg-lite"
MAX_STREAMS, ANSWERS, MAX_MESSAGE_BYTES = 3, 4, 1_000_000
WIDTH, HEIGHT = 160, 120
END_S = 30.0


def small_profile(folder: Path) -> Path:
    """This machine's profile with room for little."""
    source = next(each for each in CONFIG_FOLDERS if each.is_dir()) / f"{PROFILE_OF_MACHINE[platform.machine()]}.toml"
    text = source.read_text(encoding="utf-8")
    values = {
        "name": '"small"', "answers": ANSWERS, "max_streams": MAX_STREAMS, "max_message_bytes": MAX_MESSAGE_BYTES,
        "hang_timeout_ms": 500,
    }  # fmt: skip
    for key, value in values.items():
        text = re.sub(rf"^{key} = [^#\n]+", f"{key} = {value}", text, count=1, flags=re.MULTILINE)
    path = folder / "small.toml"
    path.write_text(text, encoding="utf-8")
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "edgerun", *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """One command to its end."""
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=60, check=False)


class LiveServer:
    """A context manager; stops the server and checks that it leaves no child."""

    def __init__(self, *arguments: object) -> None:
        self.process = subprocess.Popen(
            command("serve", "--grpc", "127.0.0.1:0", *arguments), stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        ready = self.process.stdout.readline()
        self.address = ready.partition(" grpc=")[2].split()[0]

    @property
    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    @property
    def threads(self) -> int:
        return psutil.Process(self.process.pid).num_threads()

    def stop(self) -> int:
        """SIGTERM. Returns the exit code."""
        children = self.children if self.process.poll() is None else []
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=END_S)
        assert not psutil.wait_procs(children, timeout=END_S)[1], "a child outlives the server"
        return self.process.returncode

    def __enter__(self) -> LiveServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def scene_planes(index: int, pixel_format: PixelFormat, width: int = WIDTH, height: int = HEIGHT) -> tuple[Plane, ...]:
    """A frame of the synthetic scene. I420 has grey chroma: enough to tell one result from another."""
    rgb = SyntheticScene(width, height, seed=1008).frame(index).image
    if pixel_format is PixelFormat.BGR:
        return (np.ascontiguousarray(rgb[..., ::-1]),)
    assert pixel_format is PixelFormat.I420
    luma = rgb.astype(np.uint16).sum(axis=2) // 3
    chroma = np.full(((height + 1) // 2, (width + 1) // 2), 128, np.uint8)
    return luma.astype(np.uint8), chroma, chroma


def flat(planes: Sequence[Plane]) -> bytes:
    return b"".join(plane.tobytes() for plane in planes)


def eventually(attempt: Callable[[], bool], tries: int = 2000) -> bool:
    """Try again until it works; each attempt must itself take some time, a round trip say."""
    return any(attempt() for _ in range(tries))
