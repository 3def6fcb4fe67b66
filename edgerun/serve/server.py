# SPDX-License-Identifier: Apache-2.0
"""The gRPC server: binds, says that it is ready, and ends in order on SIGINT or SIGTERM."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import grpc

from edgerun.clock import Clock
from edgerun.errors import ConfigError
from edgerun.serve.deployment import Deployment
from edgerun.serve.stream_service import StreamService
from edgerun.v1 import stream_pb2_grpc as pb_grpc

DRAIN_S = 2.0


def run_server(deployment: Deployment, address: str, clock: Clock, on_ready: Callable[[int], None]) -> None:
    """Serve until a signal. `on_ready` gets the bound port. Raises ConfigError when the address can't be bound."""
    asyncio.run(_serve(deployment, address, clock, on_ready))


async def _serve(deployment: Deployment, address: str, clock: Clock, on_ready: Callable[[int], None]) -> None:
    limit = deployment.profile.limits.max_message_bytes
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", limit),
            ("grpc.max_send_message_length", limit),
            ("grpc.so_reuseport", 0),  # a second server on the same port is a fault, not a partner
        ]
    )
    pb_grpc.add_StreamServiceServicer_to_server(StreamService(deployment, clock), server)
    port = _bind(server, address)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await server.start()
    on_ready(port)
    await stop.wait()
    await server.stop(DRAIN_S)


def _bind(server: grpc.aio.Server, address: str) -> int:
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        port = 0
        reason = str(error)
    else:
        reason = "the address is in use or not this machine's"
    if port == 0:
        raise ConfigError(
            f"--grpc {address}: can't listen there ({reason}). Choose another HOST:PORT; port 0 takes any."
        )
    return int(port)
