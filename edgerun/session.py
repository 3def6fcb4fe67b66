# SPDX-License-Identifier: Apache-2.0
"""One stream's state: what it was opened with, its ledger, and the frames that are still owed an answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from edgerun.answer import Answer, DropReason, Ledger, Policy
from edgerun.clock import Clock
from edgerun.result import Segmentation

Emit = Callable[[Answer[Segmentation]], None]


@dataclass(slots=True)
class Receipt:
    """What is remembered of a frame from its arrival to its answer. Times are this machine's clock."""

    frame_id: int
    capture_ns: int  # sender's clock, echoed
    age_at_receipt_ns: int
    received_ns: int
    complete_ns: int  # when all that its picture needs had come: the deadline counts from here
    stage_ns: dict[str, int] = field(default_factory=dict)


class Session:
    """Gives each frame exactly one terminal answer. Thread-safe; answers are emitted in the answering thread."""

    def __init__(self, *, policy: Policy, deadline_ns: int, clock: Clock, emit: Emit) -> None:
        self.policy = policy
        self.deadline_ns = deadline_ns
        self.clock = clock
        self.ledger = Ledger()
        self._emit = emit
        self._open: dict[int, Receipt] = {}
        self._lock = threading.Lock()

    def receive(self, frame_id: int, capture_ns: int = 0, age_ns: int = 0) -> Receipt:
        """Enter a frame into the ledger. Raises ValueError on a number that is still unanswered."""
        now = self.clock.now_ns()
        receipt = Receipt(frame_id, capture_ns, age_ns, received_ns=now, complete_ns=now)
        with self._lock:
            if frame_id in self._open:
                raise ValueError(f"frame_id {frame_id} was sent twice; number frames upwards")
            self._open[frame_id] = receipt
            self.ledger.frames_in += 1
        return receipt

    def receipt(self, frame_id: int) -> Receipt | None:
        """The receipt of a frame that is still owed an answer."""
        with self._lock:
            return self._open.get(frame_id)

    def overdue(self, receipt: Receipt) -> bool:
        return self.clock.now_ns() > receipt.complete_ns + self.deadline_ns

    def succeed(self, receipt: Receipt, result: Segmentation) -> None:
        """Answer with a result: `late` under EVERY, dropped as DEADLINE under LATEST when the deadline has passed."""
        late = self.overdue(receipt)
        if late and self.policy is Policy.LATEST:
            self.drop(receipt, DropReason.DEADLINE)
        else:
            self._answer(receipt, result, None, late=late)

    def drop(self, receipt: Receipt, reason: DropReason) -> None:
        self._answer(receipt, None, reason, late=False)

    def withdraw(self, receipt: Receipt) -> None:
        """The unit held no picture: it was no frame after all."""
        with self._lock:
            if self._open.pop(receipt.frame_id, None) is None:
                return
            self.ledger.frames_in -= 1
        self._emit(Answer(receipt.frame_id, receipt.capture_ns, self._age(receipt), {}, no_picture=True))

    def abandon(self, reason: DropReason) -> None:
        """Drop all that is still owed: what the ledger needs when a stream ends early."""
        with self._lock:
            owed = list(self._open.values())
        for receipt in owed:
            self.drop(receipt, reason)

    def _answer(self, receipt: Receipt, result: Segmentation | None, reason: DropReason | None, *, late: bool) -> None:
        with self._lock:
            if self._open.pop(receipt.frame_id, None) is None:
                return  # cancelled while it was running: its result is discarded
            self.ledger.count(reason, late=late)
        age = self._age(receipt)
        stage_ns = dict(receipt.stage_ns)  # a cancelled frame's own thread may still be adding to them
        self._emit(Answer(receipt.frame_id, receipt.capture_ns, age, stage_ns, result, reason, late))

    def _age(self, receipt: Receipt) -> int:
        return receipt.age_at_receipt_ns + self.clock.now_ns() - receipt.received_ns
