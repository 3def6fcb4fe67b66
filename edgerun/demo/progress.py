# SPDX-License-Identifier: Apache-2.0
"""The live line in the terminal while a demo renders and plays."""

from __future__ import annotations

from collections import deque
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from edgerun.answer import Answer
from edgerun.result import Segmentation

RECENT = 60  # answers that the shown latency is the median of


class RenderProgress:
    """A bar over the frames that are rendered before the clock starts."""

    def __init__(self, console: Console, frames: int) -> None:
        self._bar = Progress(
            TextColumn("rendering the scene"), BarColumn(), MofNCompleteColumn(), console=console, transient=True
        )
        self._task = self._bar.add_task("", total=frames)

    def advance(self) -> None:
        self._bar.advance(self._task)

    def __enter__(self) -> RenderProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


class PlayProgress:
    """Counts while playing. `frame_in` and `answered` may come from two threads; the line is drawn by a third."""

    def __init__(self, console: Console) -> None:
        self._line = Progress(
            SpinnerColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
            transient=True,
            refresh_per_second=5,
        )
        self._task = self._line.add_task("", total=None, text="waiting for the first frame")
        self._entered = self._without_picture = self._ok = self._dropped = 0
        self._recent: deque[int] = deque(maxlen=RECENT)

    def frame_in(self) -> None:
        self._entered += 1
        if self._entered % 6 == 0:
            self._line.update(self._task, text=self._text())

    def answered(self, answer: Answer[Segmentation]) -> None:
        if answer.no_picture:
            self._without_picture += 1
        elif answer.ok:
            self._ok += 1
            self._recent.append(answer.age_ns)
        else:
            self._dropped += 1

    def _text(self) -> str:
        recent = sorted(self._recent)
        latency = f"{recent[len(recent) // 2] / 1e6:5.1f} ms" if recent else "    - ms"
        entered = self._entered - self._without_picture
        return f"in {entered:5d}   answered {self._ok:5d}   dropped {self._dropped:3d}   median latency {latency}"

    def __enter__(self) -> PlayProgress:
        self._line.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line.stop()
