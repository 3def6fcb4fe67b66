# SPDX-License-Identifier: Apache-2.0
"""One worker process, from its start to its end: the channel to it, and what it died of."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys

from edgerun.errors import EngineError
from edgerun.infer.engine import EngineChoice
from edgerun.infer.worker_messages import MAX_MESSAGE_BYTES, Op, choice_to_json, pack, unpack

# -I ignores the environment and the working directory; the worker then imports what its parent would.
BOOT = """\
import socket, sys
channel = socket.socket(fileno=int(sys.argv[1]))
start = __import__("json").loads(channel.recv(1 << 16))
sys.path[:] = start["import_path"]
from edgerun.infer.worker_main import main
main(channel, start)
"""
REAP_S = 5.0


class WorkerGoneError(Exception):
    """The worker's end of the channel is closed."""


class WorkerProcess:
    """A child with three descriptors: the channel, the slots' memory, and a lifeline that ends it with us.

    Any thread may send; one at a time receives. Waits are real time: the other end is a real process.
    """

    def __init__(self, choice: EngineChoice, memory_fd: int) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        lifeline_fd, self._lifeline = os.pipe()
        try:
            self._child = _spawn(theirs.fileno(), memory_fd, lifeline_fd)
        except OSError as error:
            self._channel.close()
            os.close(self._lifeline)
            raise EngineError(f"can't start a worker with {sys.executable}: {error}") from error
        finally:
            theirs.close()
            os.close(lifeline_fd)
        self._poll = select.poll()
        self._poll.register(self._channel, select.POLLIN)
        self._buffer = bytearray(MAX_MESSAGE_BYTES)
        start = {
            "choice": choice_to_json(choice), "import_path": [os.path.abspath(entry) for entry in sys.path],
            "memory_fd": memory_fd, "lifeline_fd": lifeline_fd,
        }  # fmt: skip
        with contextlib.suppress(WorkerGoneError):  # the first receive tells
            self.send(json.dumps(start).encode())

    @property
    def pid(self) -> int:
        return self._child.pid

    def send(self, message: bytes) -> None:
        """Raises WorkerGoneError when nobody can read it any more."""
        try:
            self._channel.send(message)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise WorkerGoneError from error

    def receive(self, timeout_s: float) -> tuple[Op, int, int, str]:
        """The next message. Raises TimeoutError, or WorkerGoneError when the worker's end is closed."""
        if not self._poll.poll(max(0, int(timeout_s * 1e3 + 0.999))):
            raise TimeoutError
        try:
            size = self._channel.recv_into(self._buffer)
        except OSError as error:
            raise WorkerGoneError from error
        if size == 0:
            raise WorkerGoneError
        try:
            return unpack(bytes(memoryview(self._buffer)[:size]))
        except (struct.error, ValueError) as error:  # a process that writes nonsense is as good as gone
            self.kill()
            raise WorkerGoneError from error

    def ask(self, op: Op, argument: int, timeout_s: float) -> None:
        """Send a request other than RUN and wait for READY. Raises EngineError, WorkerGoneError, TimeoutError."""
        self.send(pack(op, argument))
        self.expect(Op.READY, timeout_s)

    def expect(self, op: Op, timeout_s: float) -> str:
        """The text of the next message, which must be `op`. Raises EngineError with the worker's reason else."""
        found, _, _, text = self.receive(timeout_s)
        if found is not op:
            raise EngineError(text or f"worker answered {found.name}; expected {op.name}")
        return text

    def kill(self) -> None:
        """SIGKILL. Safe from any thread; whoever receives finds the channel closed."""
        self._child.kill()

    def hang_up(self) -> None:
        """Ask the worker to end after its present run, and wake whoever receives."""
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)

    def end(self, grace_s: float) -> str:
        """Hang up, wait, kill if need be, reap, and free all descriptors. Returns what it died of. Idempotent."""
        self.hang_up()
        killed = False
        try:
            self._child.wait(grace_s)
        except subprocess.TimeoutExpired:
            killed = True
            self._child.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(REAP_S)
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        self._channel.close()
        return "killed" if killed else death_reason(self._child.returncode)


def _spawn(channel_fd: int, memory_fd: int, lifeline_fd: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-c", BOOT, str(channel_fd), "edgerun-infer"],
        pass_fds=(channel_fd, memory_fd, lifeline_fd),
        stdin=subprocess.DEVNULL,
        stdout=2,  # a chatty native library must not write into the parent's results
        start_new_session=True,  # the terminal's Ctrl-C is the parent's to handle
    )


def death_reason(returncode: int | None) -> str:
    """A return code in words: "SIGSEGV", "exit code 3"."""
    if returncode is None:
        return "it doesn't end"
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return signal.Signals(-returncode).name
    except ValueError:
        return f"signal {-returncode}"
