# SPDX-License-Identifier: Apache-2.0
"""Drawn pictures, coded as a camera would."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from edgerun.errors import SourceError
from edgerun.source.coded_scene import ENCODERS, CodedSceneSource

WIDTH, HEIGHT = 96, 64


def scene(count: int) -> list[NDArray[np.uint8]]:
    ramp = np.linspace(30, 200, WIDTH).astype(np.uint8)
    pictures = []
    for number in range(count):
        red = np.roll(ramp, 2 * number)
        picture = np.stack([red, 230 - red, np.full_like(red, 90)], -1)
        pictures.append(np.ascontiguousarray(np.broadcast_to(picture, (HEIGHT, WIDTH, 3))))
    return pictures


def decoded(source: CodedSceneSource) -> list[NDArray[np.uint8]]:
    context = av.CodecContext.create(source.format.codec, "r")
    assert isinstance(context, av.VideoCodecContext)
    context.thread_count = 1
    if source.format.extradata:
        context.extradata = source.format.extradata
    pictures = []
    for packet in source:
        coded: av.Packet[av.stream.Stream] = av.Packet(len(packet.data))
        coded.update(packet.data)
        frames = context.decode(coded)
        assert len(frames) == 1, "a low-delay stream gives the picture with its packet"
        rgb = frames[0].reformat(format="rgb24", src_colorspace=1).to_ndarray()
        pictures.append(np.asarray(rgb, np.uint8))
    return pictures


@pytest.mark.parametrize("encoder", ["libx264", "mpeg4", "mjpeg"])
def test_each_packet_is_one_picture_in_good_quality(encoder: str) -> None:
    if encoder not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {encoder}")
    heard: list[int] = []
    pictures = scene(25)
    source = CodedSceneSource(pictures, WIDTH, HEIGHT, 10, progress=heard.append, encoders=[encoder], threads=1)
    assert source.encoder == encoder
    assert heard == list(range(1, 26))
    packets = list(source)
    assert [packet.unit_id for packet in packets] == list(range(25))
    assert [packet.due_ns for packet in packets] == [100_000_000 * number for number in range(25)]
    if encoder != "mjpeg":
        assert [packet.unit_id for packet in packets if packet.is_key] == [0, 10, 20]
    errors = [np.abs(a.astype(int) - b).mean() for a, b in zip(decoded(source), pictures, strict=True)]
    assert max(errors) < 4
    assert source.format.fps == Fraction(10)
    assert source.truncated is None


def test_it_can_be_played_again_until_it_is_closed() -> None:
    source = CodedSceneSource(scene(3), WIDTH, HEIGHT, 30, threads=1)
    assert list(source) == list(source)
    assert len(source) == 3
    source.close()
    assert list(source) == []


def test_without_h264_it_falls_back() -> None:
    source = CodedSceneSource(scene(3), WIDTH, HEIGHT, 30, encoders=["no_such_encoder", "mpeg4"], threads=1)
    assert (source.encoder, source.format.codec) == ("mpeg4", "mpeg4")
    assert ENCODERS[-2:] == ("mpeg4", "mjpeg")


def test_faults_are_named() -> None:
    with pytest.raises(SourceError, match="97x64; expected even sides"):
        CodedSceneSource([], 97, 64, 30)
    with pytest.raises(SourceError, match="picture 0 is uint8"):
        CodedSceneSource([np.zeros((4, 4, 3), np.uint8)], WIDTH, HEIGHT, 30)
    with pytest.raises(SourceError, match="none of no_such_encoder opens here"):
        CodedSceneSource(scene(1), WIDTH, HEIGHT, 30, encoders=["no_such_encoder"])
