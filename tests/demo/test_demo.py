# SPDX-License-Identifier: Apache-2.0
"""`edgerun demo` as its user runs it: a command, its exit code, what it writes and what it leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest
from av.video.stream import VideoStream

from tests.coded_video import write_video
from tests.live_server import command

END_S = 60.0
SMALL = ("--size", "64x48", "--seconds", "0.5")
TAG = "EDGERUN_TEST_RUN"


class DemoRun:
    """One run of the command in a folder of its own."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        self.out = folder / "out"
        self._tag = uuid.uuid4().hex
        self.process = subprocess.Popen(
            command("demo", "--out", self.out, *arguments),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, TAG: self._tag},
        )  # fmt: skip
        self.stdout = self.stderr = ""

    def wait_until(self, condition: Callable[[], object]) -> None:
        while not condition():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.02)
                pytest.fail(f"ended too early: {self.process.communicate()}")

    @property
    def plays(self) -> bool:
        return self.out.is_dir() and any(self.out.glob(".overlay.mp4*.part"))

    def end(self) -> int:
        self.stdout, self.stderr = self.process.communicate(timeout=END_S)
        return self.process.returncode

    @property
    def report(self) -> dict[str, Any]:
        loaded = json.loads((self.out / "report.json").read_text(encoding="utf-8"))
        assert isinstance(loaded, dict)
        return loaded

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.out.iterdir())

    @property
    def processes_left(self) -> list[str]:
        return [process.name() for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(TAG) == self._tag and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


def finished(folder: Path, *arguments: object, code: int = 0) -> DemoRun:
    run = DemoRun(folder, *arguments)
    assert run.end() == code, run.stderr
    assert run.processes_left == []
    return run


def assert_balanced(frames: Mapping[str, Any]) -> None:
    assert frames["in"] == frames["ok"] + sum(frames["dropped"].values())
    assert frames["open"] == 0


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    return finished(tmp_path_factory.mktemp("demo"), *SMALL)


def test_it_writes_a_video_and_two_reports_and_nothing_else(small_run: DemoRun) -> None:
    assert small_run.files == ["overlay.mp4", "report.html", "report.json"]
    assert small_run.stderr == ""
    assert f"Wrote overlay.mp4, report.json and report.html to {small_run.out}" in small_run.stdout
    with av.open(str(small_run.out / "overlay.mp4")) as recorded:
        assert sum(1 for _ in recorded.decode(video=0)) == small_run.report["native_video"]["recorded"] == 15
    assert "<html" in (small_run.out / "report.html").read_text(encoding="utf-8")


def test_the_report_has_what_was_promised(small_run: DemoRun) -> None:
    report = small_run.report
    assert_balanced(report["frames"])
    assert report["frames"]["in"] == 15
    assert set(report["frames"]["dropped"]) == {
        "superseded", "deadline", "overload", "undecodable", "failed", "cancelled",
    }  # fmt: skip
    for stage in ("decode", "queue", "preprocess", "infer", "postprocess", "transport", "overlay", "encode", "total"):
        assert {"p50", "p99", "p999", "max"} <= set(report["stages_ms"][stage])
    assert {"p50", "p99", "max"} <= set(report["annotation_age_ms"])
    assert report["memory"]["peak_rss_mb"] > 0
    assert {"client", "server"} <= set(report["memory"]["peak_rss_mb_by_process"])
    assert {"name", "precision", "sha256"} <= set(report["model"])
    assert len(report["model"]["sha256"]) == 64
    assert report["machine"]
    assert 0 <= report["accuracy"]["dice"] <= 1
    assert report["interrupted"] is False
    assert report["source"]["truncated"] is False
    assert report["worker_restarts"] == 0


def test_the_stages_of_a_frame_add_up_to_its_total(small_run: DemoRun) -> None:
    stages = small_run.report["stages_ms"]
    parts = ("queue", "decode", "preprocess", "infer", "postprocess", "transport")
    assert sum(stages[name]["mean"] for name in parts) == pytest.approx(stages["total"]["mean"], rel=0.02)


def test_ctrl_c_while_playing_ends_in_order(tmp_path: Path) -> None:
    """Also where the next picture is due in ten seconds only."""
    clip = write_video(tmp_path / "clip.mp4", 12, b_frames=0)
    run = DemoRun(tmp_path, "--source", clip, "--fps", "0.1")
    run.wait_until(lambda: run.plays)
    run.process.send_signal(signal.SIGINT)
    assert run.end() == 130
    assert run.processes_left == []
    report = run.report
    assert report["interrupted"] is True
    assert_balanced(report["frames"])
    assert report["frames"]["in"] < 12
    assert [name for name in run.files if name != "overlay.mp4"] == ["report.html", "report.json"]
    assert "stopped before the end" in run.stdout
    assert run.stderr == ""


def test_ctrl_c_while_rendering_leaves_nothing(tmp_path: Path) -> None:
    run = DemoRun(tmp_path, "--size", "640x360", "--seconds", "600")
    run.wait_until(run.out.is_dir)
    run.process.send_signal(signal.SIGINT)
    assert run.end() == 130
    assert run.processes_left == []
    assert run.stderr == ""
    assert not run.out.exists()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With B pictures, and its index in front."""
    folder = tmp_path_factory.mktemp("clip")
    return write_video(folder / "clip.mp4", 60, b_frames=2, gop=12, container={"movflags": "faststart"})


def test_a_truncated_file_plays_what_it_holds_and_says_where_it_ends(tmp_path: Path, clip: Path) -> None:
    short = tmp_path / "short.mp4"
    short.write_bytes(clip.read_bytes()[: clip.stat().st_size * 2 // 3])
    run = finished(tmp_path, "--source", short)
    report = run.report
    assert report["source"]["truncated"] is True
    assert "breaks off after" in report["source"]["truncation"]
    assert "short.mp4 breaks off after" in " ".join(run.stdout.split())
    assert_balanced(report["frames"])
    assert 20 < report["frames"]["in"] < 60
    assert report["native_video"]["shown"] > 20


def test_damage_in_the_middle_is_counted_and_the_stream_goes_on(tmp_path: Path, clip: Path) -> None:
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(with_noise(clip, units=range(20, 23)))
    report = finished(tmp_path, "--source", damaged).report
    assert_balanced(report["frames"])
    assert report["frames"]["in"] == 60
    assert report["frames"]["dropped"]["undecodable"] >= 3
    assert report["frames"]["in"] - report["frames"]["dropped"]["undecodable"] > 40, "up to the next key picture"
    assert report["frames"]["ok"] > 0
    assert report["source"]["truncated"] is False


def with_noise(path: Path, units: range) -> bytes:
    """The file with the payload of some of its coded units overwritten."""
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert isinstance(stream, VideoStream)
        places = [(packet.pos, packet.size) for packet in container.demux(stream) if packet.pos is not None]
    for position, size in places[units.start : units.stop]:
        noise = np.random.default_rng(position).integers(0, 256, size, np.uint8)
        data[position : position + size] = noise.tobytes()
    return bytes(data)


def test_headers_alone_are_no_frames(tmp_path: Path) -> None:
    """A raw MPEG-1 stream ends with a sequence end code of its own."""
    clip = write_video(tmp_path / "clip.mpg", 20, codec="mpeg1video", b_frames=0, size=(128, 96))
    report = finished(tmp_path, "--source", clip).report
    assert_balanced(report["frames"])
    assert report["frames"]["in"] == report["source"]["frames"] == 20
