# SPDX-License-Identifier: Apache-2.0
"""Coded units in, one outcome for each out: clean, damaged, dropped, garbage, cut, skipped."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerun.decode import CodedFormat, NoPicture, Outcome, Skipped, Undecodable
from edgerun.decode.video import VideoDecoder
from edgerun.errors import DecodeError
from edgerun.frame import Colour, ColourMatrix, Frame, PixelFormat, ReleasedFrameError
from edgerun.source import Packet, VideoFormat
from edgerun.source.file import FileSource
from tests.coded_video import HEIGHT, WIDTH, cut, frame_ids, luma, number_in, real_video, write_video

COUNT = 40
PYRAMID = {"x264-params": "b-pyramid=normal:bframes=3"}


@dataclass(frozen=True, slots=True)
class Clip:
    format: VideoFormat
    packets: tuple[Packet, ...]


def clip(path: Path) -> Clip:
    source = FileSource(path)
    packets = tuple(source)
    source.close()
    return Clip(source.format, packets)


@pytest.fixture(scope="module", params=["h264", "mpeg1video", "mpeg2video", "mpeg4", "mjpeg"])
def any_clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Clip:
    codec = str(request.param)
    encoder = "libx264" if codec == "h264" else codec
    if encoder not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {encoder}")
    path = tmp_path_factory.mktemp("clips") / ("v.mpg" if codec.startswith(("mpeg1", "mpeg2")) else "v.mkv")
    is_mjpeg = codec == "mjpeg"
    write_video(
        path, COUNT, codec=encoder, b_frames=0 if is_mjpeg else 2, options=PYRAMID if codec == "h264" else {},
        pixel_format="yuvj420p" if is_mjpeg else "yuv420p",
    )  # fmt: skip
    return clip(path)


@pytest.fixture(scope="module")
def mpeg1_clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return clip(write_video(tmp_path_factory.mktemp("mpeg1") / "v.mpg", COUNT, codec="mpeg1video"))


def outcomes(format: CodedFormat, packets: Iterable[Packet], **options: bool) -> list[Outcome]:
    decoder = VideoDecoder(format, **options)
    found = [outcome for packet in packets for outcome in decoder.decode(packet)]
    return found + list(decoder.flush())


def ids(found: Sequence[Outcome]) -> list[int]:
    return [one.frame_id if isinstance(one, Frame) else one.unit_id for one in found]


def balances(found: Sequence[Outcome], packets: Sequence[Packet]) -> bool:
    return sorted(ids(found)) == sorted(packet.unit_id for packet in packets)


def damaged(packet: Packet, seed: int, flips: int = 6) -> Packet:
    chance, data = random.Random(seed), bytearray(packet.data)
    for _ in range(flips):
        data[chance.randrange(len(data) // 4, len(data))] ^= 1 << chance.randrange(8)
    return replace(packet, data=bytes(data))


def test_answers_bear_the_number_of_the_unit_that_carried_the_picture(any_clip: Clip) -> None:
    found = outcomes(any_clip.format, any_clip.packets)
    frames = [one for one in found if isinstance(one, Frame)]
    assert [number_in(frame.planes[0]) for frame in frames] == list(range(COUNT)), "display order"
    assert sorted(frame_ids(found)) == list(range(COUNT))
    in_display_order = sorted(any_clip.packets, key=lambda packet: (packet.show_ns or 0, packet.unit_id))
    assert [frame.frame_id for frame in frames] == [packet.unit_id for packet in in_display_order]
    by_id = {packet.unit_id: packet for packet in any_clip.packets}
    assert all((f.capture_ns, f.pts) == (by_id[f.frame_id].due_ns, by_id[f.frame_id].show_ns) for f in frames)


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_two_decoders_side_by_side_keep_their_numbers(any_clip: Clip, lag: int) -> None:
    """PyAV keys opaque objects by id() for the whole process: equal small ints would be lost here."""
    decoders = [VideoDecoder(any_clip.format), VideoDecoder(any_clip.format)]
    found: list[list[Outcome]] = [[], []]
    for step in range(COUNT + lag):
        for which, at in enumerate((step, step - lag)):
            if 0 <= at < COUNT:
                found[which] += decoders[which].decode(any_clip.packets[at])
    for which in (0, 1):
        found[which] += decoders[which].flush()
        assert sorted(frame_ids(found[which])) == list(range(COUNT))


def test_without_b_pictures_nothing_waits(tmp_path: Path) -> None:
    zero_delay = write_video(tmp_path / "v.mp4", 10, codec="mpeg4", b_frames=0)
    short = clip(zero_delay)
    decoder = VideoDecoder(short.format)
    delays = [packet.unit_id - one for packet in short.packets for one in ids(list(decoder.decode(packet)))]
    assert max(delays, default=0) <= 1  # MPEG-4 may hold one without the low_delay flag


@pytest.mark.parametrize("seed", range(3))
def test_flipped_bits_leave_one_outcome_a_unit(any_clip: Clip, seed: int) -> None:
    bad = set(random.Random(seed).sample(range(1, COUNT), 8))
    packets = [damaged(p, seed) if p.unit_id in bad else p for p in any_clip.packets]
    found = outcomes(any_clip.format, packets)
    assert balances(found, packets)
    lost = {one.unit_id for one in found if isinstance(one, Undecodable)}
    assert any_clip.format.codec == "mjpeg" or lost & bad
    assert frame_ids(found), "decoding goes on"


@pytest.mark.parametrize("seed", range(3))
def test_units_that_never_arrive_shift_no_numbers(any_clip: Clip, seed: int) -> None:
    missing = set(random.Random(seed).sample(range(1, COUNT), 6))
    packets = [packet for packet in any_clip.packets if packet.unit_id not in missing]
    found = outcomes(any_clip.format, packets)
    assert balances(found, packets)
    truth = {f.frame_id: number_in(f.planes[0]) for f in _frames(outcomes(any_clip.format, any_clip.packets))}
    for frame in _frames(outcomes(any_clip.format, packets, withhold_until_key=True)):
        if frame.frame_id < min(missing):
            assert number_in(frame.planes[0]) == truth[frame.frame_id]


def _frames(found: Iterable[Outcome]) -> list[Frame]:
    return [one for one in found if isinstance(one, Frame)]


def test_after_damage_pictures_are_withheld_until_the_next_key_unit_if_asked(any_clip: Clip) -> None:
    truth = {f.frame_id: number_in(f.planes[0]) for f in _frames(outcomes(any_clip.format, any_clip.packets))}
    keys = [packet.unit_id for packet in any_clip.packets if packet.is_key]
    bad = 1 if any_clip.format.codec == "mjpeg" else keys[1] + 1
    packets = [replace(p, data=b"\x00" * 64) if p.unit_id == bad else p for p in any_clip.packets]
    found = outcomes(any_clip.format, packets, withhold_until_key=True)
    assert balances(found, packets)
    next_key = min(key for key in keys if key > bad)
    kept = _frames(found)
    assert {f.frame_id for f in kept} >= set(range(bad)) | set(range(next_key + 4, COUNT))
    assert not {f.frame_id for f in kept} & set(range(bad, next_key))
    trusted = [f for f in kept if f.frame_id < bad or f.frame_id > next_key + 3]
    assert all(number_in(f.planes[0]) == truth[f.frame_id] for f in trusted)


@settings(derandomize=True, max_examples=40, deadline=None)
@given(
    codec=st.sampled_from(["h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "mjpeg", "vp8", "vp9"]),
    units=st.lists(st.binary(max_size=300), max_size=12),
    at=st.integers(0, 12),
)
def test_garbage_never_raises(codec: str, units: list[bytes], at: int) -> None:
    packets = [Packet(unit_id, data, 0, False) for unit_id, data in enumerate(units)]
    decoder = VideoDecoder(VideoFormat(codec, b""))
    found: list[Outcome] = []
    for packet in packets:
        if packet.unit_id == at:
            decoder.skip_to_key()
        found += decoder.decode(packet)
    assert balances(found + list(decoder.flush()), packets)


@settings(derandomize=True, max_examples=25, deadline=None)
@given(seed=st.integers(0, 1 << 16), garbage=st.sets(st.integers(0, COUNT - 1)), skips=st.sets(st.integers(0, COUNT)))
def test_garbage_between_good_units_keeps_the_balance(
    mpeg1_clip: Clip, seed: int, garbage: set[int], skips: set[int]
) -> None:
    chance = random.Random(seed)
    decoder, found, fed = VideoDecoder(mpeg1_clip.format), list[Outcome](), []
    for packet in mpeg1_clip.packets:
        if packet.unit_id in skips:
            decoder.skip_to_key()
        if packet.unit_id in garbage:
            packet = replace(packet, data=chance.randbytes(chance.randrange(200)), is_key=chance.random() < 0.2)
        fed.append(packet)
        found += decoder.decode(packet)
    assert balances(found + list(decoder.flush()), fed)


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.mpg"])
@pytest.mark.parametrize("share", [0.35, 0.6, 0.93])
def test_a_cut_file_is_in_the_ledger_to_its_last_unit(tmp_path: Path, name: str, share: float) -> None:
    codec = "mpeg1video" if name == "v.mpg" else "mpeg4"
    path = write_video(tmp_path / name, COUNT, codec=codec, container={"movflags": "+faststart"} if "4" in name else {})
    short = clip(cut(path, int(path.stat().st_size * share) | 1))
    found = outcomes(short.format, short.packets)
    assert balances(found, short.packets)
    assert len(_frames(found)) >= len(short.packets) - 2
    if short.packets[-1].is_corrupt:
        assert Undecodable(short.packets[-1].unit_id) in found


def test_a_unit_lost_without_a_word_is_reported_while_the_stream_goes_on(any_clip: Clip) -> None:
    """Only the start of a picture: most decoders say nothing, and nothing comes out."""
    begin = {"h264": b"\x00\x00\x00\x02\x01\x9a", "mpeg4": b"\x00\x00\x01\xb6\x50"}
    stump = begin.get(any_clip.format.codec, any_clip.packets[2].data[:12])
    packets = [*any_clip.packets[:2], replace(any_clip.packets[2], data=stump), *any_clip.packets[3:]]
    decoder = VideoDecoder(any_clip.format)
    before_the_end = [one for packet in packets for one in decoder.decode(packet)]
    assert Undecodable(2) in before_the_end
    assert balances(before_the_end + list(decoder.flush()), packets)


def test_header_units_are_used_and_are_no_frames(mpeg1_clip: Clip) -> None:
    first = mpeg1_clip.packets[0]
    at = first.data.index(b"\x00\x00\x01\x00")
    split = [replace(first, data=first.data[:at]), replace(first, unit_id=1, data=first.data[at:])]
    rest = [replace(packet, unit_id=packet.unit_id + 1) for packet in mpeg1_clip.packets[1:]]
    packets = [*split, *rest, Packet(COUNT + 1, b"\x00\x00\x01\xb7", 0, False)]
    found = outcomes(VideoFormat("mpeg1video", b""), packets)
    assert balances(found, packets)
    assert [one.unit_id for one in found if isinstance(one, NoPicture)] == [0, COUNT + 1]
    assert len(_frames(found)) == COUNT


def test_skipping_drops_units_up_to_the_next_key_unit(any_clip: Clip) -> None:
    keys = [packet.unit_id for packet in any_clip.packets if packet.is_key]
    decoder, found = VideoDecoder(any_clip.format), list[Outcome]()
    start = 1 if any_clip.format.codec == "mjpeg" else keys[1] + 3
    for packet in any_clip.packets:
        if packet.unit_id in (start, start + 1):
            decoder.skip_to_key()  # a second call changes nothing
        found += decoder.decode(replace(packet, is_key=False))  # it finds key units by itself
    found += decoder.flush()
    assert balances(found, any_clip.packets)
    skipped = {one.unit_id for one in found if isinstance(one, Skipped)}
    next_key = min(key for key in keys if key >= start)
    assert skipped >= set(range(start, next_key))
    assert set(frame_ids(found)) >= set(range(start)) | set(range(next_key + 3, COUNT))
    assert not [one for one in found if isinstance(one, Undecodable)]


def test_a_decoder_goes_on_after_a_flush(mpeg1_clip: Clip) -> None:
    decoder = VideoDecoder(mpeg1_clip.format)
    for _ in range(2):
        found = [one for packet in mpeg1_clip.packets for one in decoder.decode(packet)] + list(decoder.flush())
        assert len(_frames(found)) == COUNT
    assert list(decoder.flush()) == []


def test_planes_are_views_of_the_decoders_memory_with_its_row_length(tmp_path: Path) -> None:
    width = 150
    narrow = clip(write_video(tmp_path / "v.m1v", 3, codec="mpeg1video", size=(width, HEIGHT)))
    first = _frames(outcomes(narrow.format, narrow.packets))[0]
    y, u, v = first.planes
    assert first.pixel_format is PixelFormat.I420
    assert (y.shape, u.shape, v.shape) == ((HEIGHT, width), (HEIGHT // 2, width // 2), (HEIGHT // 2, width // 2))
    assert y.strides[0] > width, "FFmpeg pads its rows"
    assert not y.flags.owndata
    assert not y.flags.writeable
    assert isinstance(_owner(y), av.video.plane.VideoPlane)
    plane = _owner(y)
    assert isinstance(plane, av.video.plane.VideoPlane)
    assert y.ctypes.data == plane.buffer_ptr
    assert y.strides[0] == plane.line_size
    assert np.abs(y.astype(int) - (16 + luma(0, width) * (219 / 255))).mean() < 12


def _owner(pixels: object) -> object:
    """What a view's memory belongs to."""
    while (base := getattr(pixels, "base", None)) is not None:
        pixels = base
    return pixels.obj if isinstance(pixels, memoryview) else pixels


def test_a_lease_ends(mpeg1_clip: Clip) -> None:
    frame = _frames(outcomes(mpeg1_clip.format, mpeg1_clip.packets))[0]
    second = frame.share()
    frame.release()
    assert second.planes[0].shape == (HEIGHT, WIDTH)
    second.release()
    with pytest.raises(ReleasedFrameError, match="was released"):
        _ = frame.planes


def test_a_frame_outlives_its_decoder(mpeg1_clip: Clip) -> None:
    decoder = VideoDecoder(mpeg1_clip.format)
    frame = next(one for packet in mpeg1_clip.packets for one in decoder.decode(packet) if isinstance(one, Frame))
    before = frame.planes[0].copy()
    for packet in mpeg1_clip.packets[5:]:
        list(decoder.decode(packet))
    del decoder
    assert np.array_equal(frame.planes[0], before)


@pytest.mark.parametrize("size", [(135, 97), (134, 97), (135, 96)])
def test_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    path = write_video(tmp_path / "v.mkv", 4, codec="ffv1", b_frames=0, size=size)
    for frame in _frames(outcomes(clip(path).format, clip(path).packets)):
        assert (frame.width, frame.height) == size
        assert frame.planes[1].shape == ((size[1] + 1) // 2, (size[0] + 1) // 2)
        assert frame.planes[0].strides[1] == 1


@pytest.mark.parametrize(
    ("pixel_format", "expected", "colour"),
    [
        ("yuv422p", PixelFormat.I420, Colour(ColourMatrix.BT601, False)),
        ("yuv444p", PixelFormat.I420, Colour(ColourMatrix.BT601, False)),
        ("yuv420p10le", PixelFormat.I420, Colour(ColourMatrix.BT601, False)),
        ("gray", PixelFormat.MONO, Colour(ColourMatrix.BT601, False)),
        ("gray10le", PixelFormat.MONO, Colour(ColourMatrix.BT601, False)),
        ("bgr0", PixelFormat.BGR, Colour(ColourMatrix.BT601, False)),
    ],
)
def test_other_layouts_are_converted_once(
    tmp_path: Path, pixel_format: str, expected: PixelFormat, colour: Colour
) -> None:
    path = write_video(tmp_path / "v.mkv", 3, codec="ffv1", b_frames=0, pixel_format=pixel_format)
    frames = _frames(outcomes(clip(path).format, clip(path).packets))
    assert len(frames) == 3
    for number, frame in enumerate(frames):
        assert frame.pixel_format is expected
        seen = frame.planes[0] if expected is not PixelFormat.BGR else frame.planes[0][:, :, 1]
        assert number_in(np.ascontiguousarray(seen)) == number
        if expected is PixelFormat.I420:
            assert np.abs(seen - (16 + luma(number) * (219 / 255))).max() <= 3


def test_full_range_stays_full_range(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.avi", 2, codec="mjpeg", b_frames=0, pixel_format="yuvj422p")
    frame = _frames(outcomes(clip(path).format, clip(path).packets))[0]
    assert frame.colour.full_range
    assert frame.pixel_format is PixelFormat.I420


def test_a_new_size_comes_with_the_frames_that_have_it(tmp_path: Path) -> None:
    small = clip(write_video(tmp_path / "a.m1v", 5, codec="mpeg1video", size=(128, 96)))
    large = clip(write_video(tmp_path / "b.m1v", 5, codec="mpeg1video", size=(192, 128)))
    packets = [*small.packets, *(replace(p, unit_id=p.unit_id + 5) for p in large.packets)]
    found = outcomes(VideoFormat("mpeg1video", b""), packets)
    assert balances(found, packets)
    assert {(f.width, f.height) for f in _frames(found)} == {(128, 96), (192, 128)}
    assert len(_frames(found)) >= 9


def test_pictures_beyond_the_limit_are_refused(mpeg1_clip: Clip) -> None:
    with pytest.raises(DecodeError, match=r"pictures are 128x96; at most 5000 pixels .* Raise max_pixels"):
        VideoDecoder(mpeg1_clip.format, max_pixels=5000)
    unknown_size = VideoFormat("mpeg1video", b"")
    decoder = VideoDecoder(unknown_size, max_pixels=5000)
    found = [one for packet in mpeg1_clip.packets for one in decoder.decode(packet)] + list(decoder.flush())
    assert Counter(type(one) for one in found) == {Undecodable: COUNT}
    assert balances(found, mpeg1_clip.packets)


@pytest.mark.parametrize("codec", ["", "aac", "nonsense", "h264_cuvid", "h264\n", "x" * 300])
def test_an_unknown_codec_is_refused(codec: str) -> None:
    with pytest.raises(DecodeError, match="is unknown; expected one of av1, ") as caught:
        VideoDecoder(VideoFormat(codec, b""))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("extradata", [b"\x01", bytes(40), b"\x01" + b"\xff" * 60])
def test_impossible_extradata_is_refused_or_harmless(any_clip: Clip, extradata: bytes) -> None:
    try:
        decoder = VideoDecoder(replace(any_clip.format, extradata=extradata))
    except DecodeError:
        return
    found = [one for packet in any_clip.packets for one in decoder.decode(packet)] + list(decoder.flush())
    assert balances(found, any_clip.packets)


@pytest.mark.parametrize(
    ("name", "units", "damaged_units"),
    [
        ("colonoscopy_Pediculado3.mpg", 646, {645}),  # its last picture has 10 of 15 slices in the file
        ("colonoscopy_Polypileocecalvalve1.mpg", 199, set[int]()),
        ("laparoscopy_rvim_endo.mp4", 250, set[int]()),
    ],
)
def test_real_clips_are_in_the_ledger_to_the_last_frame(name: str, units: int, damaged_units: set[int]) -> None:
    source = FileSource(real_video(name))
    decoder, seen, lost = VideoDecoder(source.format), set[int](), set[int]()
    for packet in source:
        _sort(decoder.decode(packet), seen, lost)
    _sort(decoder.flush(), seen, lost)
    source.close()
    assert lost == damaged_units
    assert seen == set(range(units)) - damaged_units


def _sort(found: Iterable[Outcome], seen: set[int], lost: set[int]) -> None:
    for one in found:
        number = one.frame_id if isinstance(one, Frame) else one.unit_id
        assert number not in seen | lost
        (seen if isinstance(one, Frame) else lost).add(number)
