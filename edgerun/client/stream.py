# SPDX-License-Identifier: Apache-2.0
"""The blocking client, for programs whose main loop is the camera's.

On gRPC's blocking API rather than on an event loop of its own: several loops in one process share gRPC's one
completion queue, and what is left in it for a loop that has closed disturbs the streams of the others.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import TracebackType

import grpc

from edgerun.answer import Answer, Ledger, Policy
from edgerun.client.opening import CHANNEL_OPTIONS, Encoding, open_request, stream_error, stream_info
from edgerun.clock import Clock, SystemClock
from edgerun.errors import StreamError
from edgerun.result import Segmentation
from edgerun.slot import Slot, SlotClosedError
from edgerun.v1 import stream_pb2 as pb
from edgerun.v1 import stream_pb2_grpc as pb_grpc
from edgerun.wire import answer_from_wire, ledger_from_wire

OnAnswer = Callable[[Answer[Segmentation]], None]


class VideoStream:
    """Sends frames without waiting for anybody; answers arrive in `on_answer`, on the client's own thread.

    A context manager: leaving it normally finishes the stream and waits for every answer, leaving it by an
    exception cancels. At most `in_flight` frames are unsent: `send` then returns False and the frame is the
    caller's to account for, so that a slow network never holds up a camera. Coded units rest on each other, so after
    one was refused all are, up to the next key unit.

    One thread sends, finishes and closes; `on_answer` must not. What `on_answer` raises ends the stream, and comes
    out of `send` and `finish`.
    """

    def __init__(
        self,
        address: str,
        model: str,
        encoding: Encoding,
        on_answer: OnAnswer,
        *,
        policy: Policy = Policy.LATEST,
        deadline_ns: int = 0,
        in_flight: int = 32,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._on_answer = on_answer
        self._is_coded = isinstance(encoding, pb.CodedVideo)
        self._awaits_key = False
        self._is_finished = False
        self._fault: Exception | None = None  # what broke the stream off
        self._ledger: Ledger | None = None
        self.worker_restarts = 0
        self._unsent: Slot[pb.StreamRequest] = Slot(Policy.EVERY, in_flight)
        self._channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        stub = pb_grpc.StreamServiceStub(self._channel)  # type: ignore[no-untyped-call]
        try:
            self._call = stub.Stream(self._requests(open_request(model, encoding, policy, deadline_ns)))
            self.info = stream_info(next(self._call, None))
        except grpc.RpcError as error:
            self._let_go()
            raise stream_error(error) from None
        except BaseException:
            self._let_go()
            raise
        self._thread = threading.Thread(target=self._receive, name="edgerun-client", daemon=True)
        self._thread.start()

    @property
    def ledger(self) -> Ledger:
        """The server's account. Raises StreamError before the stream has ended in order."""
        if self._ledger is None:
            raise StreamError("the stream has not ended; its ledger comes with the summary")
        return self._ledger

    def send(self, frame_id: int, data: bytes, *, capture_ns: int | None = None, key: bool = False) -> bool:
        """Hand one frame to the sending thread. False, and nothing sent, when `in_flight` are waiting already.

        Raises StreamError when the stream has ended.
        """
        self._require_open()
        if self._awaits_key and not key:
            return False
        if self._unsent.full:
            self._awaits_key = self._is_coded
            return False
        self._awaits_key = False
        captured = self._clock.now_ns() if capture_ns is None else capture_ns
        frame = pb.FrameData(frame_id=frame_id, capture_ns=captured, data=data, key=key)
        self._unsent.put(pb.StreamRequest(frame=frame))
        return True

    def finish(self, timeout_s: float | None = None) -> Ledger:
        """No more frames: wait for every answer and the summary. Raises StreamError when they don't come in time."""
        if not self._is_finished:
            self._require_open()
            self._is_finished = True
            self._unsent.close()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise StreamError(f"the server has not answered every frame within {timeout_s:g} s")
        if self._fault is not None:
            raise self._fault
        return self.ledger

    def close(self) -> None:
        """Cancel whatever is open and end the thread. Idempotent."""
        self._is_finished = True
        self._let_go()
        self._thread.join()

    def __enter__(self) -> VideoStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._ledger is None:
                self.finish()
        finally:
            self.close()

    def _require_open(self) -> None:
        if self._is_finished:
            raise StreamError("the stream was ended here; open another one for further frames")
        if not self._thread.is_alive():
            raise self._fault or StreamError("the server has ended the stream")

    def _requests(self, opening: pb.StreamRequest) -> Iterator[pb.StreamRequest]:
        """On a thread of gRPC's, which asks for the next one when the transport has room."""
        yield opening
        while True:
            try:
                request = self._unsent.take()
            except SlotClosedError:
                return
            request.frame.age_ns = max(0, self._clock.now_ns() - request.frame.capture_ns)
            yield request

    def _receive(self) -> None:
        try:
            for response in self._call:
                self._take_in(response)
            if self._ledger is None:
                raise StreamError("the server ended the stream without a summary; frames may be unanswered")
        except grpc.RpcError as error:
            self._fault = stream_error(error)
        except Exception as error:  # noqa: BLE001  # handed to the caller's thread
            self._fault = error
            self._call.cancel()

    def _take_in(self, response: pb.StreamResponse) -> None:
        if response.HasField("answer"):
            self._on_answer(answer_from_wire(response.answer))
        elif response.HasField("summary"):
            self._ledger = ledger_from_wire(response.summary)
            self.worker_restarts = response.summary.worker_restarts

    def _let_go(self) -> None:
        """Whatever waits is woken: gRPC's thread by the slot, ours by the end of the call."""
        self._unsent.close()
        self._unsent.drain()
        self._channel.close()
