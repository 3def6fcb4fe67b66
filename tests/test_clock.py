# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading

from edgerun.clock import SystemClock, VirtualClock


def test_sleepers_wake_when_their_time_has_come_and_not_before() -> None:
    clock = VirtualClock(1000)
    woken: list[int] = []

    def sleeper(until_ns: int) -> None:
        clock.sleep_until(until_ns)
        woken.append(until_ns)

    threads = {ns: threading.Thread(target=sleeper, args=(ns,)) for ns in (2000, 3000)}
    for thread in threads.values():
        thread.start()
    clock.wait_for_sleepers(2)
    clock.advance(1500)
    threads[2000].join(30)
    assert woken == [2000]
    clock.advance(500)
    threads[3000].join(30)
    assert woken == [2000, 3000]
    assert clock.now_ns() == 3000


def test_the_past_is_not_waited_for() -> None:
    clock = SystemClock()
    before = clock.now_ns()
    clock.sleep_until(before - 1)
    assert clock.now_ns() >= before
