# SPDX-License-Identifier: Apache-2.0
"""Files of all kinds, whole and cut, and what is said of those that are no video."""

from __future__ import annotations

import os
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import pytest

from edgerun.errors import ConfigError, SourceError
from edgerun.source import Packet, Truncation
from edgerun.source.file import FileSource
from tests.coded_video import FPS, HEIGHT, WIDTH, cut, real_video, write_silence, write_video

COUNT = 40


def played(path: Path, fps: float | None = None) -> tuple[list[Packet], Truncation | None]:
    source = FileSource(path, fps)
    try:
        assert source.truncated is None
        return list(source), source.truncated
    finally:
        source.close()


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("v.mp4", "mpeg4"),
        ("v.mkv", "mpeg4"),
        ("v.avi", "mpeg4"),
        ("v.mpg", "mpeg1video"),
        ("v.mpg", "mpeg2video"),
        ("v.ts", "mpeg2video"),
        ("v.m1v", "mpeg1video"),
        ("v.mp4", "libx264"),
        ("v.mkv", "libx264"),
        ("v.h264", "libx264"),
    ],
)
def test_a_whole_file_plays_to_its_end(tmp_path: Path, name: str, codec: str) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    path = write_video(tmp_path / name, COUNT, codec=codec)
    source = FileSource(path)
    packets = list(source)
    assert (source.format.width, source.format.height) == (WIDTH, HEIGHT)
    assert source.format.fps == FPS
    assert source.format.codec == ("h264" if codec == "libx264" else codec)
    assert [packet.unit_id for packet in packets] == list(range(COUNT))
    assert packets[0].due_ns == 0
    assert all(a.due_ns <= b.due_ns for a, b in pairwise(packets))
    assert packets[-1].due_ns == pytest.approx((COUNT - 1) * 1e9 / FPS, abs=2e6)
    assert packets[0].is_key
    assert not any(packet.is_corrupt for packet in packets)
    assert source.truncated is None
    source.close()


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.avi"])
def test_pictures_are_shown_a_frame_apart_and_never_before_they_are_due(tmp_path: Path, name: str) -> None:
    packets, _ = played(write_video(tmp_path / name, COUNT, codec="mpeg4"))
    shown = sorted(packet.show_ns for packet in packets if packet.show_ns is not None)
    if name != "v.avi":  # AVI has no pts
        assert len(shown) == COUNT
        assert all(packet.show_ns is None or packet.show_ns >= packet.due_ns for packet in packets)
    assert all(abs(b - a - 40_000_000) < 2_000_000 for a, b in pairwise(shown))


def test_fps_replaces_the_pace_of_the_file(tmp_path: Path) -> None:
    packets, _ = played(write_video(tmp_path / "v.mp4", COUNT, codec="mpeg4"), fps=50)
    assert [packet.due_ns for packet in packets] == [unit_id * 20_000_000 for unit_id in range(COUNT)]
    shown = sorted(packet.show_ns for packet in packets if packet.show_ns is not None)
    assert shown[-1] - shown[0] == (COUNT - 1) * 20_000_000


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_an_impossible_pace_is_refused(tmp_path: Path, fps: float) -> None:
    with pytest.raises(ConfigError, match="expected a positive number"):
        FileSource(tmp_path / "v.mp4", fps)


def test_sound_is_ignored(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", COUNT, codec="mpeg4", with_sound=True)
    packets, truncated = played(path)
    assert len(packets) == COUNT
    assert truncated is None


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 0.97])
@pytest.mark.parametrize(
    ("name", "codec", "container"),
    [
        ("v.mp4", "mpeg4", {"movflags": "+faststart"}),
        ("fragmented.mp4", "mpeg4", {"movflags": "frag_keyframe+empty_moov"}),
        ("v.mkv", "mpeg4", {}),
        ("live.mkv", "mpeg4", {"live": "1"}),
        ("v.avi", "mjpeg", {}),
        ("v.mpg", "mpeg1video", {}),
    ],
)
def test_a_cut_file_plays_what_it_holds_and_says_where_it_ends(
    tmp_path: Path, name: str, codec: str, container: dict[str, str], share: float
) -> None:
    is_mjpeg = codec == "mjpeg"
    path = write_video(
        tmp_path / name, COUNT, codec=codec, container=container,
        b_frames=0 if is_mjpeg else 2, pixel_format="yuvj420p" if is_mjpeg else "yuv420p",
    )  # fmt: skip
    at_byte = int(path.stat().st_size * share) | 1  # odd: not on a sector of a program stream
    packets, truncated = played(cut(path, at_byte))
    assert 0 < len(packets) <= COUNT
    assert truncated is not None
    assert (truncated.packets, truncated.at_byte) == (len(packets), at_byte)
    assert truncated.after_ns == packets[-1].due_ns
    assert f"({len(packets)} packets, byte {at_byte})" in str(truncated)


def test_sound_that_is_cut_off_is_no_matter(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", COUNT, codec="mpeg4", container={"movflags": "+faststart"})
    short = path.read_bytes()
    at = short.index(b"mdat") - 4  # claims more than there is, but each picture is there
    size = int.from_bytes(short[at : at + 4], "big")
    path.write_bytes(short[:at] + (size + 500).to_bytes(4, "big") + short[at + 4 :])
    packets, truncated = played(path)
    assert (len(packets), truncated) == (COUNT, None)


@pytest.mark.parametrize("share", [0.001, 0.4, 0.9])
def test_an_mp4_cut_before_its_index_can_not_be_played(tmp_path: Path, share: float) -> None:
    path = write_video(tmp_path / "v.mp4", COUNT, codec="mpeg4")
    with pytest.raises(SourceError, match=r"was cut at byte \d+, before the end of its index .* Export it again"):
        FileSource(cut(path, max(30, int(path.stat().st_size * share))))


def test_bytes_after_the_last_box_are_no_truncation(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", COUNT, codec="mpeg4")
    path.write_bytes(path.read_bytes() + b"\xff" * 777)
    assert played(path)[1] is None


def test_what_is_no_video_is_refused_in_one_line(tmp_path: Path) -> None:
    files = {
        "text.mp4": (b"hello, world\n" * 9, "found plain text; expected a video"),
        "umlaut.mp4": ("Grüße\n".encode() * 2000, "found plain text"),
        "playlist.mp4": (b"#EXTM3U\n#EXTINF:2,\nhttp://localhost:1/a.ts\n", "found plain text"),
        "empty.mp4": (b"", "is empty .0 bytes."),
        "zeros.mp4": (bytes(5000), "found no video that can be read"),
        "start.h264": (b"\x00\x00\x00\x01\x67\x42\x00\x0a" * 40, "its picture is 0x0|found no video"),
    }
    for name, (data, message) in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(SourceError, match=message) as caught:
            FileSource(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(str(tmp_path / name))
    with pytest.raises(SourceError, match=r"there is no such file; .* Check the path"):
        FileSource(tmp_path / "missing.mp4")
    with pytest.raises(SourceError, match=r"is a folder; .* Name one file"):
        FileSource(tmp_path)
    with pytest.raises(SourceError, match="is not a path"):
        FileSource("a\0b.mp4")


def test_a_file_with_sound_only_is_refused(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as out:
        write_silence(out, out.add_stream("aac", rate=48_000))
    with pytest.raises(SourceError, match="found 1 sound stream and no picture"):
        FileSource(tmp_path / "sound.mp4")


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "private.mp4"
    path.write_bytes(b"x")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    if os.geteuid() == 0:  # root reads all
        monkeypatch.setattr(Path, "open", refuse)
    else:
        path.chmod(0)
    with pytest.raises(SourceError, match=r"can't be read \(Permission denied\)\. Grant read permission"):
        FileSource(path)


@pytest.mark.parametrize(
    ("name", "frames", "fps"),
    [
        ("colonoscopy_Pediculado3.mpg", 646, 30),
        ("colonoscopy_Polypileocecalvalve1.mpg", 199, 30),
        ("laparoscopy_rvim_endo.mp4", 250, 25),
    ],
)
def test_real_clips_are_whole(name: str, frames: int, fps: int) -> None:
    source = FileSource(real_video(name))
    packets = list(source)
    assert (len(packets), source.format.fps, source.truncated) == (frames, Fraction(fps), None)
    assert packets[-1].due_ns == pytest.approx((frames - 1) * 1e9 / fps, abs=1e6)
    source.close()
