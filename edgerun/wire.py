# SPDX-License-Identifier: Apache-2.0
"""Answers on the wire: the one place where protobuf messages and edgerun's own types meet."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from edgerun.answer import Answer, DropReason, Ledger, Policy
from edgerun.errors import StreamError
from edgerun.frame import Colour, ColourMatrix, Geometry, PixelFormat
from edgerun.result import Box, Region, Segmentation
from edgerun.v1 import stream_pb2 as pb

MAX_MESSAGE_BYTES = 64 << 20  # a raw 8-bit 4K RGB frame is 25 MB

_POLICIES = {Policy.LATEST: pb.POLICY_LATEST, Policy.EVERY: pb.POLICY_EVERY}
_PIXEL_FORMATS = {
    PixelFormat.I420: pb.PIXEL_FORMAT_I420,
    PixelFormat.NV12: pb.PIXEL_FORMAT_NV12,
    PixelFormat.BGR: pb.PIXEL_FORMAT_BGR,
    PixelFormat.RGB: pb.PIXEL_FORMAT_RGB,
    PixelFormat.MONO: pb.PIXEL_FORMAT_MONO,
}
_MATRICES = {ColourMatrix.BT601: pb.COLOUR_MATRIX_BT601, ColourMatrix.BT709: pb.COLOUR_MATRIX_BT709}
_REASONS = {
    DropReason.SUPERSEDED: pb.DROP_REASON_SUPERSEDED,
    DropReason.DEADLINE: pb.DROP_REASON_DEADLINE,
    DropReason.OVERLOAD: pb.DROP_REASON_OVERLOAD,
    DropReason.UNDECODABLE: pb.DROP_REASON_UNDECODABLE,
    DropReason.FAILED: pb.DROP_REASON_FAILED,
    DropReason.CANCELLED: pb.DROP_REASON_CANCELLED,
}
_POLICY_OF: dict[int, Policy] = {value: key for key, value in _POLICIES.items()}
_PIXEL_FORMAT_OF: dict[int, PixelFormat] = {value: key for key, value in _PIXEL_FORMATS.items()}
_MATRIX_OF: dict[int, ColourMatrix] = {value: key for key, value in _MATRICES.items()}
_REASON_OF: dict[int, DropReason] = {value: key for key, value in _REASONS.items()}


def policy_to_wire(policy: Policy) -> pb.Policy:
    return _POLICIES[policy]


def policy_from_wire(value: int) -> Policy | None:
    """None for a value that this version doesn't know."""
    return _POLICY_OF.get(value)


def raw_video_to_wire(pixel_format: PixelFormat, width: int, height: int, colour: Colour) -> pb.RawVideo:
    return pb.RawVideo(
        pixel_format=_PIXEL_FORMATS[pixel_format],
        width=width,
        height=height,
        colour_matrix=_MATRICES[colour.matrix],
        full_range=colour.full_range,
    )


def pixel_format_from_wire(value: int) -> PixelFormat | None:
    return _PIXEL_FORMAT_OF.get(value)


def colour_from_wire(raw: pb.RawVideo) -> Colour:
    """Unspecified means by size: 720 lines and more are BT.709, fewer BT.601."""
    by_size = ColourMatrix.BT709 if raw.height >= 720 else ColourMatrix.BT601
    return Colour(_MATRIX_OF.get(raw.colour_matrix, by_size), raw.full_range)


def answer_to_wire(answer: Answer[Segmentation]) -> pb.StreamResponse:
    message = pb.Answer(
        frame_id=answer.frame_id,
        status=_status(answer),
        no_picture=answer.no_picture,
        reason=pb.DROP_REASON_UNSPECIFIED if answer.reason is None else _REASONS[answer.reason],
        late=answer.late,
        capture_ns=answer.capture_ns,
        age_ns=answer.age_ns,
        stages=[pb.StageTime(stage=stage, duration_ns=ns) for stage, ns in answer.stage_ns.items()],
    )
    if answer.result is not None:
        message.segmentation.CopyFrom(segmentation_to_wire(answer.result))
    return pb.StreamResponse(answer=message)


def _status(answer: Answer[Segmentation]) -> pb.AnswerStatus:
    if answer.no_picture:
        return pb.ANSWER_STATUS_UNSPECIFIED
    return pb.ANSWER_STATUS_OK if answer.ok else pb.ANSWER_STATUS_DROPPED


def answer_from_wire(message: pb.Answer) -> Answer[Segmentation]:
    result = None
    if message.WhichOneof("result") == "segmentation":
        result = segmentation_from_wire(message.segmentation)
    dropped = message.status == pb.ANSWER_STATUS_DROPPED
    return Answer(
        frame_id=message.frame_id,
        capture_ns=message.capture_ns,
        age_ns=message.age_ns,
        stage_ns={entry.stage: entry.duration_ns for entry in message.stages},
        result=result,
        reason=_reason_from_wire(message.reason) if dropped else None,
        late=message.late,
        no_picture=message.no_picture,
    )


def _reason_from_wire(value: int) -> DropReason:
    try:
        return _REASON_OF[value]
    except KeyError:
        raise StreamError(f"drop reason {value} is unknown to this client; update edgerun on this side") from None


def segmentation_to_wire(found: Segmentation) -> pb.Segmentation:
    height, width = found.logits.shape
    g = found.geometry
    return pb.Segmentation(
        grid_width=width,
        grid_height=height,
        logits_f16=np.clip(found.logits, -6e4, 6e4).astype("<f2").tobytes(),
        geometry=pb.Geometry(
            source_width=g.source_width,
            source_height=g.source_height,
            scale_x=g.scale_x,
            scale_y=g.scale_y,
            offset_x=g.offset_x,
            offset_y=g.offset_y,
        ),
        regions=[_region_to_wire(region) for region in found.regions],
        score=found.score,
    )


def _region_to_wire(region: Region) -> pb.Region:
    return pb.Region(
        label=region.label,
        score=region.score,
        area_px=region.area_px,
        outline_px=region.outline_px.ravel().tolist(),
        box_x=region.box.x,
        box_y=region.box.y,
        box_width=region.box.width,
        box_height=region.box.height,
    )


def segmentation_from_wire(message: pb.Segmentation) -> Segmentation:
    shape = (message.grid_height, message.grid_width)
    logits = np.frombuffer(message.logits_f16, "<f2")
    if logits.size != shape[0] * shape[1]:
        raise StreamError(f"segmentation grid is {shape}, but {logits.size} logits came; the server is at fault")
    g = message.geometry
    geometry = Geometry(g.source_width, g.source_height, g.scale_x, g.scale_y, g.offset_x, g.offset_y)
    regions = tuple(_region_from_wire(region) for region in message.regions)
    return Segmentation(logits.astype(np.float32).reshape(shape), geometry, regions)


def _region_from_wire(message: pb.Region) -> Region:
    outline = np.asarray(message.outline_px, np.float32).reshape(-1, 2)
    box = Box(message.box_x, message.box_y, message.box_width, message.box_height)
    return Region(message.label, message.score, message.area_px, outline, box)


def summary_to_wire(ledger: Ledger, worker_restarts: int) -> pb.StreamResponse:
    drops = [pb.DropCount(reason=_REASONS[r], count=n) for r, n in sorted(ledger.dropped.items(), key=str)]
    summary = pb.Summary(
        frames_in=ledger.frames_in, ok=ledger.ok, late=ledger.late, dropped=drops, worker_restarts=worker_restarts
    )
    return pb.StreamResponse(summary=summary)


def ledger_from_wire(summary: pb.Summary) -> Ledger:
    ledger = Ledger(frames_in=summary.frames_in, ok=summary.ok, late=summary.late)
    ledger.dropped.update(_drop_counts(summary.dropped))
    return ledger


def _drop_counts(counts: Iterable[pb.DropCount]) -> dict[DropReason, int]:
    return {_reason_from_wire(entry.reason): entry.count for entry in counts}
