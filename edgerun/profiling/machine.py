# SPDX-License-Identifier: Apache-2.0
"""A fingerprint of the machine that a measurement was made on: enough to compare, naming neither people nor sites."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil

# What decides the speed of INT8 and FP16 kernels, in the spelling of /proc/cpuinfo on x86 and ARM.
_X86_FLAGS = {"avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"}
_ARM_FLAGS = {"asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve"}


@dataclass(frozen=True, slots=True)
class Machine:
    """No host name, user name, serial number or path. `usable_cores` are those this process may run on."""

    cpu: str
    board: str | None
    architecture: str
    physical_cores: int | None
    logical_cores: int | None
    usable_cores: int
    instruction_sets: tuple[str, ...]
    memory_mb: int
    governor: str | None
    system: str
    kernel: str
    python: str
    packages: dict[str, str | None]


def machine_fingerprint(packages: Iterable[str] = ()) -> Machine:
    """`packages` are distribution names; one that is not installed has the version None."""
    cpuinfo = _cpuinfo()
    flags = set((cpuinfo.get("flags") or cpuinfo.get("Features") or "").split())
    return Machine(
        cpu=cpuinfo.get("model name") or platform.processor() or "unknown",
        board=_line("/proc/device-tree/model"),
        architecture=platform.machine(),
        physical_cores=psutil.cpu_count(logical=False),
        logical_cores=psutil.cpu_count(),
        usable_cores=_usable_cores(),
        instruction_sets=tuple(sorted(flags & (_X86_FLAGS | _ARM_FLAGS))),
        memory_mb=round(psutil.virtual_memory().total / 1e6),
        governor=_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        system=_system(),
        kernel=platform.release(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        packages={name: _version(name) for name in packages},
    )


def _cpuinfo() -> dict[str, str]:
    """Of the first CPU; empty where there is no /proc."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.strip().split("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _line(path: str) -> str | None:
    """A one-line file of the kernel; device-tree strings end in a NUL."""
    try:
        return Path(path).read_text(errors="replace").strip("\0\n ") or None
    except OSError:
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
