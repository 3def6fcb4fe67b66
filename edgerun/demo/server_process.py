# SPDX-License-Identifier: Apache-2.0
"""`edgerun serve` as a child process that ends with its parent, however the parent ends."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from types import TracebackType
from typing import IO

from edgerun.errors import EngineError

PR_SET_PDEATHSIG = 1  # linux/prctl.h
STOP_S = 5.0


class ServerProcess:
    """Starts in the constructor and waits until the server says that it is ready. A context manager."""

    def __init__(self, arguments: Sequence[str]) -> None:
        command = [sys.executable, "-m", "edgerun", "serve", "--grpc", "127.0.0.1:0", *arguments]
        with tempfile.TemporaryFile("w+") as errors:  # a file, since nobody reads a pipe while frames flow
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # Ctrl-C is for the parent, which stops the server when it has its answers
                preexec_fn=_end_with_parent,
            )
            try:
                self.address = self._wait_until_ready(errors)
            except BaseException:  # Ctrl-C too
                self.stop()
                raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def _wait_until_ready(self, errors: IO[str]) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if " grpc=" in line:
            return line.partition(" grpc=")[2].split()[0]
        self.stop()
        errors.seek(0)
        reason = errors.read().strip().rpartition("\n")[2] or f"the server ended with {self._process.returncode}"
        raise EngineError(reason.removeprefix("edgerun: "))

    def stop(self) -> None:
        """SIGTERM, then SIGKILL; reaps. Idempotent."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.communicate(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


_LIBC = ctypes.CDLL(None)


def _end_with_parent() -> None:
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
