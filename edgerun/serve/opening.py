# SPDX-License-Identifier: Apache-2.0
"""The first message of a stream, checked whole: every fault of it is named in one reply."""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from edgerun.answer import Policy
from edgerun.decode.raw import RawDecoder
from edgerun.decode.video import VideoDecoder
from edgerun.frame import PixelFormat
from edgerun.pipeline import Feed
from edgerun.serve.deployment import Deployment
from edgerun.source import VideoFormat
from edgerun.v1 import stream_pb2 as pb
from edgerun.wire import colour_from_wire, pixel_format_from_wire, policy_from_wire


class InvalidOpenError(Exception):
    """Why a stream can't be opened, and the gRPC status that says so."""

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
    """Check a stream's first message. Raises InvalidOpenError, or DecodeError for a codec that can't be opened."""
    if request.WhichOneof("kind") != "open":
        raise InvalidOpenError(grpc.StatusCode.INVALID_ARGUMENT, "a stream begins with `open`; a frame came first")
    message = request.open
    if message.model != deployment.model.package.name:
        served = deployment.model.package.name
        raise InvalidOpenError(
            grpc.StatusCode.NOT_FOUND, f"model {message.model!r} is not served here; this server has {served!r}"
        )
    policy = policy_from_wire(message.policy)
    faults = [] if policy is not None else [f"policy = {message.policy}; expected POLICY_LATEST or POLICY_EVERY"]
    encoding = message.WhichOneof("encoding")
    if encoding is None:
        faults.append("encoding is missing; set `raw` or `coded`")
    elif encoding == "raw":
        faults += _raw_faults(message.raw, deployment)
    if faults or policy is None:
        raise InvalidOpenError(grpc.StatusCode.INVALID_ARGUMENT, "; ".join(faults))
    return Opening(policy, message.deadline_ns or deployment.default_deadline_ns, _feed(message, deployment))


def _raw_faults(raw: pb.RawVideo, deployment: Deployment) -> list[str]:
    faults = []
    if pixel_format_from_wire(raw.pixel_format) is None:
        faults.append(f"raw.pixel_format = {raw.pixel_format}; expected I420, NV12, BGR, RGB or MONO")
    if not (
        0 < raw.width <= deployment.profile.limits.max_width and 0 < raw.height <= deployment.profile.limits.max_height
    ):
        limit = f"{deployment.profile.limits.max_width}x{deployment.profile.limits.max_height}"
        faults.append(f"raw picture is {raw.width}x{raw.height}; expected 1x1 to {limit}")
    return faults


def _feed(message: pb.Open, deployment: Deployment) -> Feed:
    if message.WhichOneof("encoding") == "raw":
        raw = message.raw
        pixel_format = pixel_format_from_wire(raw.pixel_format) or PixelFormat.RGB
        return RawDecoder(pixel_format, raw.width, raw.height, colour_from_wire(raw))
    coded = message.coded
    return VideoDecoder(
        VideoFormat(coded.codec, coded.extradata),
        threads=deployment.profile.threads.decode,
        max_pixels=deployment.profile.limits.max_width * deployment.profile.limits.max_height,
        withhold_until_key=True,  # docs/decisions/0004
    )
