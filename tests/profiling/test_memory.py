# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgerun.clock import VirtualClock
from edgerun.profiling import memory
from edgerun.profiling.memory import MemorySampler, ProcessMemory, read_process, read_tree

ON_LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
MEBIBYTE = 1 << 20


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is up (it wrote a byte) and sleeps until its standard input closes."""
    code = "import sys; sys.stdout.write('.'); sys.stdout.flush(); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"."
        yield process
        process.kill()


@ON_LINUX
def test_this_process_is_read_as_the_kernel_sees_it() -> None:
    reading = read_process(os.getpid(), with_pss=True)
    assert reading.pid == os.getpid()
    assert 5 * MEBIBYTE < reading.rss_bytes <= reading.peak_rss_bytes
    assert reading.pss_bytes is not None
    assert 0 < reading.pss_bytes <= reading.rss_bytes + MEBIBYTE
    assert reading.minor_faults > 100
    assert reading.voluntary_switches + reading.involuntary_switches > 0
    assert read_process(os.getpid()).pss_bytes is None


@ON_LINUX
def test_memory_that_was_freed_stays_in_the_peak_and_its_faults_are_counted() -> None:
    before = read_process(os.getpid())
    touched = np.ones(64 * MEBIBYTE, np.uint8)
    during = read_process(os.getpid())
    del touched
    after = read_process(os.getpid())
    assert during.rss_bytes - before.rss_bytes > 48 * MEBIBYTE
    assert after.peak_rss_bytes >= during.rss_bytes - MEBIBYTE
    assert during.minor_faults > before.minor_faults


@ON_LINUX
def test_a_tree_holds_the_children(child: subprocess.Popen[bytes]) -> None:
    assert {os.getpid(), child.pid} <= {reading.pid for reading in read_tree(os.getpid())}


@ON_LINUX
def test_a_process_that_ended_is_said_so(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    with pytest.raises(ProcessLookupError, match="has ended"):
        read_process(child.pid)
    assert child.pid not in {reading.pid for reading in read_tree(os.getpid())}


def test_without_proc_psutil_reads_what_it_can(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, child: subprocess.Popen[bytes]
) -> None:
    monkeypatch.setattr(memory, "_PROC", tmp_path)
    readings = {reading.pid: reading for reading in read_tree(os.getpid())}
    assert readings[os.getpid()].rss_bytes > MEBIBYTE
    assert readings[child.pid].peak_rss_bytes == readings[child.pid].rss_bytes
    child.kill()
    child.wait()
    with pytest.raises(ProcessLookupError, match="has ended"):
        read_process(child.pid)


def test_the_sampler_tells_processes_apart_by_name(child: subprocess.Popen[bytes]) -> None:
    clock = VirtualClock(start_ns=1000)
    sampler = MemorySampler(clock, root_name="client")
    sampler.name(child.pid, "worker")
    for _ in range(3):
        sampler.sample()
        clock.advance(10)
    record = sampler.record()
    assert record.at_ns.tolist() == [1000, 1010, 1020]
    assert {"client", "worker"} <= set(record.rss_bytes)
    assert (record.rss_bytes["worker"] > MEBIBYTE).all()
    sums = np.sum(list(record.rss_bytes.values()), axis=0)
    peaks = [totals.peak_rss_bytes for totals in record.totals.values()]
    assert record.peak_rss_bytes == max(int(sums.max()), *peaks)
    assert record.totals["worker"].peak_rss_bytes >= record.rss_bytes["worker"].max()


@ON_LINUX
def test_faults_are_counted_once_over_many_samples() -> None:
    sampler = MemorySampler(VirtualClock())
    for _ in range(5):
        sampler.sample()
    counted = sampler.record().totals["main"].minor_faults
    assert counted <= read_process(os.getpid()).minor_faults


def test_a_run_of_any_length_stays_in_its_timeline() -> None:
    clock = VirtualClock()
    sampler = MemorySampler(clock, capacity=4)
    for _ in range(11):
        sampler.sample()
        clock.advance(1)
    assert sampler.record().at_ns.tolist() == [0, 4, 8]


def test_more_processes_than_series_share_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = [read_process(os.getpid())] * 12
    names = iter(f"name {at}" for at in range(12))
    monkeypatch.setattr(memory, "read_tree", lambda _: tuple(readings))
    monkeypatch.setattr(memory, "_process_name", lambda _: next(names))
    sampler = MemorySampler(VirtualClock(), pid=-1)
    sampler.sample()
    record = sampler.record()
    assert list(record.rss_bytes)[-1] == "others"
    assert len(record.rss_bytes) == 8
    assert record.rss_bytes["others"][0] == 5 * readings[0].rss_bytes


def test_the_thread_samples_once_a_period_until_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = VirtualClock()
    reading = read_process(os.getpid())
    sampled = threading.Semaphore(0)

    def read_and_tell(_: int) -> tuple[ProcessMemory, ...]:
        sampled.release()
        return (reading,)

    monkeypatch.setattr(memory, "read_tree", read_and_tell)
    sampler = MemorySampler(clock, period_ns=100)
    with sampler:
        for at in range(4):
            sampled.acquire()
            clock.wait_for_sleepers(1)
            if at == 3:
                sampler.stop()
            clock.advance(100)
    assert sampler.record().at_ns.tolist() == [0, 100, 200, 300, 400]
