# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading

import pytest

from edgerun.answer import Policy
from edgerun.slot import Slot, SlotClosedError


def test_latest_gives_back_what_it_pushed_out() -> None:
    slot: Slot[int] = Slot(Policy.LATEST)
    assert slot.put(1) is None
    assert slot.put(2) == 1
    assert (slot.take(), slot.puts, slot.superseded) == (2, 2, 1)


def test_every_makes_the_producer_wait_for_room() -> None:
    slot: Slot[int] = Slot(Policy.EVERY, capacity=2)
    produced: list[int] = []

    def produce() -> None:
        for item in range(50):
            slot.put(item)
            produced.append(item)
        slot.close()

    producer = threading.Thread(target=produce)
    producer.start()
    taken = []
    for _ in range(50):
        taken.append(slot.take(timeout_s=30))
        assert len(slot) <= 2
    producer.join()
    with pytest.raises(SlotClosedError):
        slot.take()
    assert taken == produced == list(range(50))
    assert slot.superseded == 0


def test_a_closed_slot_gives_what_it_holds_and_takes_nothing() -> None:
    slot: Slot[int] = Slot(Policy.EVERY, capacity=3)
    slot.put(1)
    slot.close()
    with pytest.raises(SlotClosedError):
        slot.put(2)
    assert slot.take() == 1
    with pytest.raises(SlotClosedError):
        slot.take()


def test_close_wakes_a_waiting_producer_and_a_waiting_consumer() -> None:
    full: Slot[int] = Slot(Policy.EVERY)
    full.put(1)
    empty: Slot[int] = Slot(Policy.EVERY)
    ended: list[str] = []

    def run(name: str, action: object) -> None:
        with pytest.raises(SlotClosedError):
            action()  # type: ignore[operator]
        ended.append(name)

    threads = [
        threading.Thread(target=run, args=("producer", lambda: full.put(2))),
        threading.Thread(target=run, args=("consumer", empty.take)),
    ]
    for thread in threads:
        thread.start()
    full.close()
    empty.close()
    for thread in threads:
        thread.join(30)
    assert sorted(ended) == ["consumer", "producer"]


def test_drain_empties_and_makes_room() -> None:
    slot: Slot[int] = Slot(Policy.EVERY, capacity=2)
    slot.put(1)
    slot.put(2)
    assert slot.full
    assert slot.drain() == [1, 2]
    assert not slot.full


def test_take_times_out() -> None:
    with pytest.raises(TimeoutError):
        Slot[int](Policy.EVERY).take(timeout_s=0)


def test_a_capacity_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="capacity is 0; expected at least 1"):
        Slot[int](Policy.LATEST, capacity=0)
