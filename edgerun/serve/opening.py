# SPDX-License-Identifier: Apache-2.0
"""The first message of a stream, checked whole: every fault of it is named in one reply."""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from edgerun.answer import Policy
from edgerun.decode.raw import RawDecoder
from edgerun.decode.video import VideoDecoder
from edgerun.errors import DecodeError
from edgerun.frame import PixelFormat
from edgerun.pipeline import Feed
from edgerun.serve.deployment import Deployment
from edgerun.source import VideoFormat
from edgerun.v1 import stream_pb2 as pb
from edgerun.wire import colour_from_wire, pixel_format_from_wire, policy_from_wire


class RefusedError(Exception):
    """Why a request is refused, and the gRPC status that says so. It ends the stream."""

    def __init__(self, status: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Opening:
    """What a valid `open` asked for."""

    policy: Policy
    deadline_ns: int
    feed: Feed


def parse_open(request: pb.StreamRequest, deployment: Deployment) -> Opening:
    """Check a stream's first message. Raises RefusedError."""
    if request.WhichOneof("kind") != "open":
        raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "a stream begins with `open`; a frame came first")
    message = request.open
    if message.model != deployment.model.package.name:
        served = deployment.model.package.name
        raise RefusedError(
            grpc.StatusCode.NOT_FOUND, f"model {message.model!r:.80} is not served here; this server has {served!r}"
        )
    policy = policy_from_wire(message.policy)
    faults = [] if policy is not None else [f"policy = {message.policy}; expected POLICY_LATEST or POLICY_EVERY"]
    encoding = message.WhichOneof("encoding")
    if encoding is None:
        faults.append("encoding is missing; set `raw` or `coded`")
    elif encoding == "raw":
        faults += _raw_faults(message.raw, deployment)
    if faults or policy is None:
        raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "; ".join(faults))
    return Opening(policy, message.deadline_ns or deployment.default_deadline_ns, _feed(message, deployment))


def _raw_faults(raw: pb.RawVideo, deployment: Deployment) -> list[str]:
    faults, limits = [], deployment.profile.limits
    if pixel_format_from_wire(raw.pixel_format) is None:
        faults.append(f"raw.pixel_format = {raw.pixel_format}; expected I420, NV12, BGR, RGB or MONO")
    if not (0 < raw.width <= limits.max_width and 0 < raw.height <= limits.max_height):
        largest = f"{limits.max_width}x{limits.max_height}"
        faults.append(f"raw picture is {raw.width}x{raw.height}; expected 1x1 to {largest}")
    return faults


def _feed(message: pb.Open, deployment: Deployment) -> Feed:
    if message.WhichOneof("encoding") == "raw":
        raw = message.raw
        pixel_format = pixel_format_from_wire(raw.pixel_format) or PixelFormat.RGB
        return RawDecoder(pixel_format, raw.width, raw.height, colour_from_wire(raw))
    profile = deployment.profile
    try:
        return VideoDecoder(
            VideoFormat(message.coded.codec, message.coded.extradata),
            threads=profile.threads.decode,
            max_pixels=profile.limits.max_width * profile.limits.max_height,
            withhold_until_key=True,  # docs/decisions/0004
        )
    except DecodeError as error:
        raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
