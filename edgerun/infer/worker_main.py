# SPDX-License-Identifier: Apache-2.0
"""The life of a worker process: load one engine, map the slots, run them until the parent hangs up.

Started only by worker_process.py. It never outlives its parent, and leaves the decision to stop to it.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import fcntl
import gc
import os
import select
import signal
import socket
import traceback
from pathlib import Path
from typing import Any, NoReturn

from edgerun.errors import EdgerunError
from edgerun.infer.engine import EngineChoice, FailureKind, RunError
from edgerun.infer.in_process import InProcessEngine, one_line
from edgerun.infer.select import engine_from_choice
from edgerun.infer.slot_memory import ArraySlot, block_bytes, shared_block
from edgerun.infer.worker_messages import HEADER, MAX_MESSAGE_BYTES, Op, choice_from_json, pack, specs_to_json

PR_SET_NAME = 15  # linux/prctl.h
OOM_SCORE = 500  # short of memory, the kernel ends the worker before the lane that shows native video


def main(channel: socket.socket, start: dict[str, Any]) -> NoReturn:
    """Serve the parent at the other end of `channel`. `start` is worker_process.py's first message."""
    try:
        _live(channel, start)
    except BaseException:  # noqa: BLE001  # the process ends here, and says why
        traceback.print_exc()
        os._exit(1)
    os._exit(0)  # native libraries may hang or crash while they are taken down


def _live(channel: socket.socket, start: dict[str, Any]) -> None:
    _live_and_die_with_parent(start["lifeline_fd"])
    choice = choice_from_json(start["choice"])
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the parent is gone: so are we
        try:
            _pin(choice)
            engine = engine_from_choice(choice)
        except Exception as error:  # noqa: BLE001  # whatever it is, the parent must hear of it
            channel.send(pack(Op.THREW, text=_reason(error)))
            return
        channel.send(pack(Op.LOADED, text=specs_to_json(engine.inputs, engine.outputs)))
        _serve(channel, engine, start["memory_fd"])


def _live_and_die_with_parent(lifeline_fd: int) -> None:
    # Ctrl-C and systemd's SIGTERM reach the whole group; the parent drains its streams first, then hangs up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    faulthandler.enable()
    # When the parent's end of the lifeline closes, the kernel sends SIGIO, whose default is death: also during a
    # hung native call that holds the GIL. (PR_SET_PDEATHSIG would fire at the end of the *thread* that started us.)
    fcntl.fcntl(lifeline_fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline_fd, fcntl.F_SETFL, fcntl.fcntl(lifeline_fd, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([lifeline_fd], [], [], 0)[0]:  # it closed before we asked for the signal
        os._exit(1)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_NAME, b"edgerun-infer", 0, 0, 0)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))


def _pin(choice: EngineChoice) -> None:
    if not choice.cpus:
        return
    try:
        os.sched_setaffinity(0, choice.cpus)
    except OSError as error:
        here = sorted(os.sched_getaffinity(0))
        raise RunError(FailureKind.MISUSE, f"cpus = {list(choice.cpus)}; this process may use {here}") from error


def _serve(channel: socket.socket, engine: InProcessEngine, memory_fd: int) -> None:
    slots: tuple[ArraySlot, ...] = ()
    buffer = bytearray(MAX_MESSAGE_BYTES)
    while channel.recv_into(buffer):  # 0 bytes: the parent hung up
        op, argument, _ = HEADER.unpack_from(buffer)
        if op == Op.RUN:
            channel.send(_run(engine, slots[argument]))
            continue
        try:
            if op == Op.MAP:
                slots = _map(engine, memory_fd, argument)
            elif op == Op.WARM_UP:
                _warm_up(engine)
            answer = pack(Op.READY)
        except Exception as error:  # noqa: BLE001  # as above
            answer = pack(Op.THREW, text=_reason(error))
        channel.send(answer)


def _run(engine: InProcessEngine, slot: ArraySlot) -> bytes:
    try:
        engine.submit(slot)
        engine.wait(slot)
    except RunError as error:
        op = Op.NON_FINITE if error.kind is FailureKind.NON_FINITE else Op.THREW
        return pack(op, slot.index, slot.run_ns, _reason(error))
    except Exception as error:  # noqa: BLE001  # a defect in an engine costs one frame, not the worker
        return pack(Op.THREW, slot.index, 0, _reason(error))
    return pack(Op.DONE, slot.index, slot.run_ns)


def _map(engine: InProcessEngine, memory_fd: int, count: int) -> tuple[ArraySlot, ...]:
    memory = shared_block(memory_fd, block_bytes(engine.inputs, engine.outputs, count))
    return engine.slots(count, memory)


def _warm_up(engine: InProcessEngine) -> None:
    engine.warm_up()
    gc.collect()
    gc.freeze()  # what lives now lives for good: no later collection walks it


def _reason(error: BaseException) -> str:
    text = one_line(error)
    return text if isinstance(error, EdgerunError) else f"{type(error).__name__}: {text}"
