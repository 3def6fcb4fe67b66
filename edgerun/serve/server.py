# SPDX-License-Identifier: Apache-2.0
"""The gRPC server: binds, says that it is ready, and ends in order on SIGINT or SIGTERM."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc

from edgerun.clock import Clock
from edgerun.errors import ConfigError
from edgerun.serve.deployment import Deployment
from edgerun.serve.stream_service import StreamService
from edgerun.v1 import stream_pb2_grpc as pb_grpc

DRAIN_S = 2.0
LAST_PORT = 65535
KEEPALIVE_MS = 10_000  # a client whose machine has gone away holds its place no longer than twice this
THREADS_PER_STREAM = 2  # one may wait for room in the pipeline while another one ends it


def run_server(deployment: Deployment, address: str, clock: Clock, on_ready: Callable[[int], None]) -> None:
    """Serve until a signal. `on_ready` gets the bound port. Raises ConfigError when the address can't be bound."""
    asyncio.run(_serve(deployment, address, clock, on_ready))


async def _serve(deployment: Deployment, address: str, clock: Clock, on_ready: Callable[[int], None]) -> None:
    from edgerun.serve.standard_services import add_standard_services  # not beside tritonclient: see there

    limit = deployment.profile.limits.max_message_bytes
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", limit),
            ("grpc.max_send_message_length", limit),
            ("grpc.so_reuseport", 0),  # a second server on the same port is a fault, not a partner
            ("grpc.keepalive_time_ms", KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_MS),
            ("grpc.http2.max_pings_without_data", 0),  # no limit
        ]
    )
    pb_grpc.add_StreamServiceServicer_to_server(StreamService(deployment, clock), server)  # type: ignore[no-untyped-call]
    standard = await add_standard_services(server, deployment, clock)
    port = _bind(server, address)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(THREADS_PER_STREAM * deployment.capacity, "edgerun-serve"))
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await server.start()
    on_ready(port)
    await stop.wait()
    await standard.drain()
    await server.stop(DRAIN_S)
    standard.close()


def _bind(server: grpc.aio.Server, address: str) -> int:
    port_text = address.rpartition(":")[2]
    if not port_text.isdecimal() or int(port_text) > LAST_PORT:  # gRPC would take it modulo 65536
        raise ConfigError(f"--grpc {address}: expected HOST:PORT with a port of 0 to {LAST_PORT}; port 0 takes any.")
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if port == 0:
        raise ConfigError(
            f"--grpc {address}: can't listen there: it is in use, or not an address of this machine. "
            "Choose another one; port 0 takes any."
        )
    return int(port)
