# SPDX-License-Identifier: Apache-2.0
"""Memory, page faults and context switches of a process and its descendants, as the kernel counts them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil

from edgerun.clock import Clock
from edgerun.profiling.timeline import Timeline

_PROC = Path("/proc")
_SERIES = 8  # processes told apart by name; the rest share the last series
_REST = "others"


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """One reading. Faults and switches count from the start of the process; switches are those of its live threads.

    Resident pages shared between processes count in each one's RSS; PSS shares them out, but reading it walks the
    page tables under the process's mmap lock (milliseconds), so it is None unless asked for.
    """

    pid: int
    rss_bytes: int
    peak_rss_bytes: int
    pss_bytes: int | None
    minor_faults: int
    major_faults: int
    voluntary_switches: int
    involuntary_switches: int


def read_process(pid: int, *, with_pss: bool = False) -> ProcessMemory:
    """Raises ProcessLookupError when it has ended. Off Linux the peak is that of this reading, and faults are zero."""
    if not (_PROC / "self" / "status").exists():
        return _read_process_portably(pid)
    try:
        status = _fields(_PROC / str(pid) / "status")
        if "VmRSS" not in status:  # a zombie, or a kernel thread
            raise ProcessLookupError(f"process {pid} has no memory; it has ended")
        # proc(5): the second field of stat, in brackets, may itself hold spaces; minflt and majflt are 10 and 12.
        stat = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        threads = [_fields_if_alive(task / "status") for task in _tasks(pid)]
        pss_bytes = _fields(_PROC / str(pid) / "smaps_rollup")["Pss"] * 1024 if with_pss else None
    except FileNotFoundError:
        raise ProcessLookupError(f"process {pid} has ended") from None
    return ProcessMemory(
        pid=pid,
        rss_bytes=status["VmRSS"] * 1024,
        peak_rss_bytes=status["VmHWM"] * 1024,
        pss_bytes=pss_bytes,
        minor_faults=int(stat[7]),
        major_faults=int(stat[9]),
        voluntary_switches=sum(thread.get("voluntary_ctxt_switches", 0) for thread in threads),
        involuntary_switches=sum(thread.get("nonvoluntary_ctxt_switches", 0) for thread in threads),
    )


def read_tree(pid: int, *, with_pss: bool = False) -> tuple[ProcessMemory, ...]:
    """The process and all its descendants that live, the process itself first."""
    readings = (_read_if_alive(each, with_pss) for each in (pid, *_descendants(pid)))
    return tuple(reading for reading in readings if reading is not None)


@dataclass(slots=True)
class ProcessTotals:
    """What one name used in a run, summed over the processes that had it (a restarted worker's, say)."""

    peak_rss_bytes: int = 0
    minor_faults: int = 0
    major_faults: int = 0
    voluntary_switches: int = 0
    involuntary_switches: int = 0

    def add(self, now: ProcessMemory, before: ProcessMemory | None) -> None:
        self.peak_rss_bytes = max(self.peak_rss_bytes, now.peak_rss_bytes)
        for count in ("minor_faults", "major_faults", "voluntary_switches", "involuntary_switches"):
            grown = getattr(now, count) - (getattr(before, count) if before else 0)
            setattr(self, count, getattr(self, count) + max(0, grown))


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """A run's memory. `rss_bytes[name]` goes with `at_ns`; names keep the order in which they appeared.

    `peak_rss_bytes` is the largest sampled sum, but no less than the kernel's own peak of any one process.
    """

    at_ns: npt.NDArray[np.int64]
    rss_bytes: dict[str, npt.NDArray[np.int64]]
    totals: dict[str, ProcessTotals]
    peak_rss_bytes: int


@dataclass(slots=True)
class MemorySampler:
    """Samples a process tree into a bounded timeline: a context manager around a thread, or call `sample` yourself.

    Processes are told apart by name: `root_name`, then what `name` was told, then the kernel's name for them.
    """

    clock: Clock
    period_ns: int = 250_000_000
    capacity: int = 2048
    pid: int = field(default_factory=os.getpid)
    root_name: str = "main"
    _names: dict[int, str] = field(default_factory=dict)
    _series: list[str] = field(default_factory=list)
    _totals: dict[str, ProcessTotals] = field(default_factory=dict)
    _before: dict[int, ProcessMemory] = field(default_factory=dict)
    _peak_bytes: int = 0
    _timeline: Timeline = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        self._timeline = Timeline(1 + _SERIES, self.capacity)

    def name(self, pid: int, name: str) -> None:
        """Call process `pid` this from now on; a worker that was restarted keeps its series by keeping its name."""
        self._names[pid] = name

    def sample(self) -> None:
        """Take one sample, on the calling thread."""
        with self._lock:
            readings = read_tree(self.pid)
            row = [self.clock.now_ns()] + [0] * _SERIES
            for reading in readings:
                name, column = self._series_of(reading.pid)
                row[1 + column] += reading.rss_bytes
                self._totals.setdefault(name, ProcessTotals()).add(reading, self._before.get(reading.pid))
            self._before = {reading.pid: reading for reading in readings}
            self._peak_bytes = max(self._peak_bytes, sum(row[1:]))
            self._timeline.append(row)

    def record(self) -> MemoryRecord:
        with self._lock:
            rows = self._timeline.rows()
            peaks = [totals.peak_rss_bytes for totals in self._totals.values()]
            return MemoryRecord(
                at_ns=rows[:, 0],
                rss_bytes={name: rows[:, 1 + column] for column, name in enumerate(self._series)},
                totals=dict(self._totals),
                peak_rss_bytes=max(self._peak_bytes, *peaks, 0),
            )

    def stop(self) -> None:
        """Ask the thread to end at its next wake-up, at most a period from now."""
        self._stopped.set()

    def close(self) -> None:
        """Stop, and wait for the thread."""
        self.stop()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def __enter__(self) -> MemorySampler:
        self.sample()
        self._thread = threading.Thread(target=self._run, name="memory-sampler", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        next_ns = self.clock.now_ns() + self.period_ns
        while not self._stopped.is_set():
            self.clock.sleep_until(next_ns)
            self.sample()
            next_ns = max(next_ns, self.clock.now_ns()) + self.period_ns

    def _series_of(self, pid: int) -> tuple[str, int]:
        name = self.root_name if pid == self.pid else self._names.get(pid) or _process_name(pid)
        if name not in self._series:
            if len(self._series) >= _SERIES - 1:
                name = _REST
            if name not in self._series:
                self._series.append(name)
        return name, self._series.index(name)


def _read_if_alive(pid: int, with_pss: bool) -> ProcessMemory | None:
    try:
        return read_process(pid, with_pss=with_pss)
    except ProcessLookupError:
        return None


def _read_process_portably(pid: int) -> ProcessMemory:
    try:
        process = psutil.Process(pid)
        rss_bytes, switches = process.memory_info().rss, process.num_ctx_switches()
    except psutil.Error:
        raise ProcessLookupError(f"process {pid} has ended") from None
    return ProcessMemory(pid, rss_bytes, rss_bytes, None, 0, 0, switches.voluntary, switches.involuntary)


def _descendants(pid: int) -> Iterator[int]:
    """From proc(5) task/children where the kernel has it: psutil would read every process of the machine."""
    try:
        children = [int(child) for task in _tasks(pid) for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        yield from _descendants_portably(pid)
        return
    for child in children:
        yield child
        yield from _descendants(child)


def _descendants_portably(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return []


def _process_name(pid: int) -> str:
    try:
        return str(psutil.Process(pid).name())
    except psutil.Error:
        return _REST


def _tasks(pid: int) -> list[Path]:
    """The live threads of a process. One may end before it is read."""
    return list((_PROC / str(pid) / "task").iterdir())


def _fields_if_alive(path: Path) -> dict[str, int]:
    try:
        return _fields(path)
    except (FileNotFoundError, ProcessLookupError):
        return {}


def _fields(path: Path) -> dict[str, int]:
    """The numeric lines of a /proc file of `Name:  number [kB]` lines."""
    found = {}
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        first = value.split(None, 1)[:1]
        if first and first[0].isdigit():
            found[name] = int(first[0])
    return found
