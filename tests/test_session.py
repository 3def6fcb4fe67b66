# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerun.answer import Answer, DropReason, Policy
from edgerun.clock import VirtualClock
from edgerun.frame import Geometry
from edgerun.result import Segmentation
from edgerun.session import Session

NOTHING = Segmentation(np.full((2, 2), -1, np.float32), Geometry(8, 8, 4, 4), ())
DEADLINE_NS = 1000


class Stream:
    """A session on virtual time, with what it answered."""

    def __init__(self, policy: Policy) -> None:
        self.clock = VirtualClock(5_000)
        self.answers: list[Answer[Segmentation]] = []
        self.session = Session(policy=policy, deadline_ns=DEADLINE_NS, clock=self.clock, emit=self.answers.append)


def test_an_answer_in_time_is_ok_and_tells_the_whole_age() -> None:
    stream = Stream(Policy.LATEST)
    receipt = stream.session.receive(3, capture_ns=77, age_ns=200)
    stream.clock.advance(DEADLINE_NS)
    stream.session.succeed(receipt, NOTHING)
    (answer,) = stream.answers
    assert (answer.ok, answer.late, answer.frame_id, answer.capture_ns, answer.age_ns) == (True, False, 3, 77, 1200)


@pytest.mark.parametrize(
    ("policy", "reason", "late"), [(Policy.LATEST, DropReason.DEADLINE, 0), (Policy.EVERY, None, 1)]
)
def test_a_late_answer_is_dropped_or_marked(policy: Policy, reason: DropReason | None, late: int) -> None:
    stream = Stream(policy)
    receipt = stream.session.receive(0)
    stream.clock.advance(DEADLINE_NS + 1)
    stream.session.succeed(receipt, NOTHING)
    assert stream.answers[0].reason is reason
    assert stream.session.ledger.late == late


def test_a_number_that_is_still_open_is_refused() -> None:
    stream = Stream(Policy.EVERY)
    stream.session.receive(4)
    with pytest.raises(ValueError, match="frame_id 4 was sent twice"):
        stream.session.receive(4)


def test_the_result_of_a_cancelled_frame_is_discarded() -> None:
    stream = Stream(Policy.EVERY)
    receipt = stream.session.receive(0)
    stream.session.abandon(DropReason.CANCELLED)
    stream.session.succeed(receipt, NOTHING)
    assert [answer.reason for answer in stream.answers] == [DropReason.CANCELLED]
    assert stream.session.ledger.open == 0


def test_a_unit_without_a_picture_leaves_the_ledger() -> None:
    stream = Stream(Policy.EVERY)
    stream.session.withdraw(stream.session.receive(0))
    assert stream.answers[0].no_picture
    assert stream.session.ledger.frames_in == 0


EVENTS = st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["receive", "succeed", "drop", "withdraw", "wait"])))


@settings(derandomize=True, max_examples=200)
@given(EVENTS, st.sampled_from(Policy))
def test_the_ledger_balances_whatever_happens(events: list[tuple[int, str]], policy: Policy) -> None:
    stream = Stream(policy)
    session = stream.session
    for frame_id, event in events:
        receipt = session.receipt(frame_id)
        if event == "wait":
            stream.clock.advance(400)
        elif event == "receive" and receipt is None:
            session.receive(frame_id)
        elif receipt is None:
            continue
        elif event == "succeed":
            session.succeed(receipt, NOTHING)
        elif event == "drop":
            session.drop(receipt, DropReason.SUPERSEDED)
        elif event == "withdraw":
            session.withdraw(receipt)
    session.abandon(DropReason.CANCELLED)
    ledger = session.ledger
    assert ledger.open == 0
    assert ledger.frames_in == sum(not answer.no_picture for answer in stream.answers)
    assert ledger.ok == sum(answer.ok for answer in stream.answers)
