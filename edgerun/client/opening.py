# SPDX-License-Identifier: Apache-2.0
"""How a stream begins, and what its end is called: the same for both clients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import grpc

from edgerun.answer import Policy
from edgerun.errors import StreamError
from edgerun.frame import Colour, PixelFormat
from edgerun.v1 import stream_pb2 as pb
from edgerun.wire import MAX_MESSAGE_BYTES, policy_to_wire, raw_video_to_wire

Encoding: TypeAlias = "pb.RawVideo | pb.CodedVideo"

CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
)


def raw_video(pixel_format: PixelFormat, width: int, height: int, colour: Colour = Colour()) -> Encoding:
    """Pictures as bytes: planes one after another, rows unpadded."""
    return raw_video_to_wire(pixel_format, width, height, colour)


def coded_video(codec: str, extradata: bytes = b"") -> Encoding:
    """Access units of a codec, by FFmpeg's name (h264, hevc, mpeg1video, mjpeg, ...)."""
    return pb.CodedVideo(codec=codec, extradata=extradata)


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What the server said when it opened the stream."""

    model: str
    model_version: str
    model_sha256: str
    precision: str
    engine: str
    deadline_ns: int


def open_request(model: str, encoding: Encoding, policy: Policy, deadline_ns: int) -> pb.StreamRequest:
    message = pb.Open(model=model, deadline_ns=deadline_ns, policy=policy_to_wire(policy))
    if isinstance(encoding, pb.RawVideo):
        message.raw.CopyFrom(encoding)
    else:
        message.coded.CopyFrom(encoding)
    return pb.StreamRequest(open=message)


def stream_info(response: object) -> StreamInfo:
    """From the server's first response. Raises StreamError when that is anything else."""
    if not isinstance(response, pb.StreamResponse) or not response.HasField("opened"):
        raise StreamError("the server did not open the stream; is it an edgerun server of this version?")
    o = response.opened
    return StreamInfo(o.model, o.model_version, o.model_sha256, o.precision, o.engine, o.deadline_ns)


def stream_error(error: BaseException) -> StreamError:
    """gRPC's error in one line: `NOT_FOUND: model 'x' is not served here; ...`."""
    if isinstance(error, grpc.aio.AioRpcError | grpc.Call):
        return StreamError(f"{error.code().name}: {' '.join(str(error.details()).split())}")
    return StreamError(" ".join(str(error).split()) or type(error).__name__)
