# SPDX-License-Identifier: Apache-2.0
"""What clients of any maker expect beside `edgerun.v1`: KServe v2, health and reflection, started and ended as one.

Imported when a server starts and not before: the generated module claims KServe's names in protobuf's one pool, so a
process that has it can't import tritonclient.
"""

from __future__ import annotations

import grpc
from grpc_health.v1 import health

from edgerun.clock import Clock
from edgerun.serve.allocator import keep_freed_memory
from edgerun.serve.deployment import Deployment
from edgerun.serve.health import add_health_and_reflection
from edgerun.serve.kserve_model import served_model
from edgerun.serve.kserve_service import SERVICE, KServeService, add_kserve
from edgerun.v1 import stream_pb2


class StandardServices:
    """`drain` before the server stops, `close` after it has and before the deployment is closed."""

    def __init__(self, kserve: KServeService, health_servicer: health.aio.HealthServicer) -> None:
        self._kserve = kserve
        self._health = health_servicer

    async def drain(self) -> None:
        """From here on, health says NOT_SERVING."""
        await self._health.enter_graceful_shutdown()

    def close(self) -> None:
        self._kserve.close()


async def add_standard_services(server: grpc.aio.Server, deployment: Deployment, clock: Clock) -> StandardServices:
    """Also tunes this process's malloc for messages of their size."""
    keep_freed_memory()
    streams = stream_pb2.DESCRIPTOR.services_by_name["StreamService"].full_name
    kserve = add_kserve(server, served_model(deployment), clock)
    return StandardServices(kserve, await add_health_and_reflection(server, (SERVICE, streams)))
