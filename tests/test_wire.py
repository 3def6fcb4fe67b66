# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from edgerun.answer import Answer, DropReason, Ledger, Policy
from edgerun.errors import StreamError
from edgerun.frame import Colour, ColourMatrix, Geometry, PixelFormat
from edgerun.result import Box, Region, Segmentation
from edgerun.v1 import stream_pb2 as pb
from edgerun.wire import (
    answer_from_wire,
    answer_to_wire,
    colour_from_wire,
    ledger_from_wire,
    policy_from_wire,
    policy_to_wire,
    raw_video_to_wire,
    segmentation_from_wire,
    summary_to_wire,
)


def found() -> Segmentation:
    logits = np.linspace(-4, 4, 12, dtype=np.float32).reshape(3, 4)
    outline = np.array([[1, 2], [30.5, 2], [30.5, 20]], np.float32)
    return Segmentation(logits, Geometry(64, 48, 16, 16, 0.5, 0), (Region(1, 0.75, 300.0, outline, Box(1, 2, 30, 19)),))


def test_an_answer_survives_the_wire() -> None:
    sent: Answer[Segmentation] = Answer(7, 123, 456, {"infer": 9, "queue": 2}, found(), late=True)
    got = answer_from_wire(pb.StreamResponse.FromString(answer_to_wire(sent).SerializeToString()).answer)
    assert got.result is not None
    assert sent.result is not None
    assert (got.frame_id, got.capture_ns, got.age_ns, got.ok, got.late) == (7, 123, 456, True, True)
    assert dict(got.stage_ns) == {"infer": 9, "queue": 2}
    np.testing.assert_allclose(got.result.logits, sent.result.logits, atol=2e-3)
    assert got.result.geometry == sent.result.geometry
    (region,) = got.result.regions
    assert region.box == Box(1, 2, 30, 19)
    np.testing.assert_array_equal(region.outline_px, sent.result.regions[0].outline_px)


@pytest.mark.parametrize("reason", list(DropReason))
def test_every_drop_reason_has_a_value_on_the_wire(reason: DropReason) -> None:
    got = answer_from_wire(answer_to_wire(Answer(1, 0, 0, {}, reason=reason)).answer)
    assert got.reason is reason
    assert not got.ok


def test_a_unit_without_picture_is_neither_ok_nor_dropped() -> None:
    got = answer_from_wire(answer_to_wire(Answer(1, 0, 0, {}, no_picture=True)).answer)
    assert (got.no_picture, got.ok, got.reason) == (True, False, None)


@pytest.mark.parametrize("policy", list(Policy))
def test_policies(policy: Policy) -> None:
    assert policy_from_wire(policy_to_wire(policy)) is policy
    assert policy_from_wire(0) is None
    assert policy_from_wire(99) is None


def test_the_ledger_survives_the_wire() -> None:
    ledger = Ledger(frames_in=10, ok=6, late=1)
    ledger.dropped.update({DropReason.SUPERSEDED: 3, DropReason.FAILED: 1})
    got = ledger_from_wire(summary_to_wire(ledger, 2).summary)
    assert got == ledger
    assert got.open == 0


@pytest.mark.parametrize(("height", "matrix"), [(480, ColourMatrix.BT601), (720, ColourMatrix.BT709)])
def test_unsignalled_colour_goes_by_size(height: int, matrix: ColourMatrix) -> None:
    assert colour_from_wire(pb.RawVideo(width=640, height=height)).matrix is matrix
    given = raw_video_to_wire(PixelFormat.NV12, 640, height, Colour(ColourMatrix.BT601, full_range=True))
    assert colour_from_wire(given) == Colour(ColourMatrix.BT601, full_range=True)


def test_a_grid_that_lies_about_its_size_is_refused() -> None:
    with pytest.raises(StreamError, match="6 logits came"):
        segmentation_from_wire(pb.Segmentation(grid_width=4, grid_height=4, logits_f16=bytes(12)))


def test_huge_logits_keep_their_sign() -> None:
    extreme = Segmentation(np.array([[-1e30, 1e30]], np.float32), Geometry(2, 1, 1, 1), ())
    got = answer_from_wire(answer_to_wire(Answer(0, 0, 0, {}, extreme)).answer)
    assert got.result is not None
    assert np.isfinite(got.result.logits).all()
    assert (np.sign(got.result.logits) == [[-1, 1]]).all()
