# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import getpass
import json
import platform
from dataclasses import asdict
from importlib.metadata import version

from edgerun.profiling.machine import machine_fingerprint


def test_it_says_what_a_measurement_depends_on() -> None:
    machine = machine_fingerprint(["numpy", "no-such-package"])
    assert machine.architecture == platform.machine()
    assert machine.cpu
    assert machine.usable_cores >= 1
    assert machine.memory_mb > 100
    assert platform.python_version() in machine.python
    assert machine.packages == {"numpy": version("numpy"), "no-such-package": None}


def test_it_names_neither_host_nor_user_nor_paths() -> None:
    text = json.dumps(asdict(machine_fingerprint(["numpy"])))
    words = set(text.replace('"', " ").replace(",", " ").split())
    assert platform.node() not in words
    assert getpass.getuser() not in words
    assert "/home" not in text
    assert "/usr" not in text
