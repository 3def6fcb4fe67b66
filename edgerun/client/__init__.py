# SPDX-License-Identifier: Apache-2.0
"""What a device maker imports: `VideoStream` for a camera loop, `AsyncClient` for asyncio."""

from edgerun.client.aio import AsyncClient, AsyncStream
from edgerun.client.opening import Encoding, StreamInfo, coded_video, raw_video
from edgerun.client.stream import VideoStream

__all__ = ["AsyncClient", "AsyncStream", "Encoding", "StreamInfo", "VideoStream", "coded_video", "raw_video"]
