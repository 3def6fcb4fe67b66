# SPDX-License-Identifier: Apache-2.0
"""What a user gets wrong is one line on stderr, exit code 2, and no file."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import av
import pytest

from edgerun import __version__
from edgerun.cli import main
from edgerun.model_package import builtin_package
from tests.coded_video import write_silence, write_video
from tests.live_server import run

MODEL = "polyp-seg-lite"
SMALL = ("--size", "64x48", "--seconds", "0.5")
Refusal = Callable[..., str]


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Refusal:
    """Run a command in this process. Returns its one line; nothing else may change in the folder."""

    def refused(*arguments: object) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["edgerun", *map(str, arguments)])
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert ended.value.code == 2, printed
        (line,) = printed.err.splitlines()
        assert line.startswith("edgerun: ")
        assert sorted(tmp_path.rglob("*")) == before
        return line

    return refused


def sound_only(path: Path) -> Path:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=48_000)
        assert isinstance(stream, av.AudioStream)
        write_silence(out, stream)
    return path


def test_a_source_that_shows_nothing(refusal: Refusal, tmp_path: Path) -> None:
    empty, text = tmp_path / "empty.mp4", tmp_path / "text.mp4"
    empty.touch()
    text.write_text("a letter about a video\n" * 40, encoding="utf-8")
    for source, words in (
        (tmp_path / "missing.mp4", "there is no such file"),
        (empty, "is empty (0 bytes)"),
        (text, "found plain text"),
        (sound_only(tmp_path / "sound.mp4"), "1 sound stream and no picture"),
        (tmp_path, "is a folder"),
    ):
        line = refusal("demo", "--source", source)
        assert f"{source}: " in line
        assert words in line


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--size", "0x0", "--size 0x0; expected even sides"),
        ("--size", "63x48", "--size 63x48; expected even sides"),
        ("--size", "64", "--size 64; expected WIDTHxHEIGHT"),
        ("--size", "9" * 5000 + "x8", "expected WIDTHxHEIGHT"),
        ("--size", "-8x-8", "expected WIDTHxHEIGHT"),
        ("--seconds", "0", "--seconds 0; expected above 0"),
        ("--seconds", "nan", "--seconds nan; expected"),
        ("--fps", "0", "--fps 0; expected 0.1 to 240"),
        ("--fps", "inf", "--fps inf; expected"),
        ("--seed", "-1", "--seed -1; expected 0 or more"),
        ("--precision", "fp64", "has no graph 'fp64'; it has"),
        ("--engine", "abacus", "engine = 'abacus'; expected one of"),
        ("--model", "nowhere", "nowhere: no such folder"),
        ("--seconds", "soon", "'--seconds'"),
        ("--colour", "red", "No such option: --colour"),
    ],
)
def test_an_option_that_is_wrong(refusal: Refusal, option: str, value: str, words: str) -> None:
    assert words in refusal("demo", option, value)


def test_all_faults_come_at_once(refusal: Refusal) -> None:
    line = refusal("demo", "--size", "0x0", "--seconds", "0", "--fps", "0")
    assert all(option in line for option in ("--size", "--seconds", "--fps"))


def test_a_size_for_a_file(refusal: Refusal, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", 3, codec="mpeg4", b_frames=0)
    assert "Leave one of --size and --source out" in refusal("demo", "--source", clip, "--size", "64x48")


@pytest.mark.parametrize("folder", ["file/out", "file", "file/deep/er", "/proc/edgerun/out"])
def test_a_folder_that_cannot_be_made(refusal: Refusal, tmp_path: Path, folder: str) -> None:
    """Root may write anywhere, but not below a file, nor in /proc."""
    (tmp_path / "file").write_text("a file")
    assert f"--out {folder}: can't make this folder" in refusal("demo", *SMALL, "--out", folder)


def test_a_folder_where_the_files_cannot_be_written(refusal: Refusal, tmp_path: Path) -> None:
    for name in ("overlay.mp4", "report.json", "report.html"):
        (tmp_path / name / "out" / name).mkdir(parents=True)
        assert f"{name}: is a folder" in refusal("demo", *SMALL, "--out", tmp_path / name / "out")


def test_folders_that_were_made_for_nothing_are_removed(refusal: Refusal) -> None:
    refusal("demo", "--source", "missing.mp4", "--out", "a/b/c")


def test_a_package_that_was_altered(refusal: Refusal, tmp_path: Path) -> None:
    package = tmp_path / "package"
    shutil.copytree(builtin_package(MODEL), package)
    graph = package / "fp32.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    assert f"{graph}: sha256 is" in refusal("demo", *SMALL, "--model", package)
    graph.unlink()
    assert f"{graph}: listed in SHA256SUMS but missing" in refusal("demo", *SMALL, "--model", package)


@pytest.mark.parametrize("arguments", [("bogus",), ("demo", "extra"), ("serve", "--grpc")])
def test_a_command_that_there_is_not(refusal: Refusal, arguments: tuple[str, ...]) -> None:
    assert "See `edgerun --help`." in refusal(*arguments)


def test_the_version_and_the_help() -> None:
    version, helped, bare = run("--version"), run("--help"), run()
    assert (version.returncode, version.stdout) == (0, f"{__version__}\n")
    assert helped.returncode == bare.returncode == 0
    assert "not a medical device" in " ".join(helped.stdout.split())
    assert "demo" in bare.stdout
    assert not helped.stderr + bare.stderr


def test_a_profile_of_another_processor_is_refused() -> None:
    other = "cpu-x86" if platform.machine() == "aarch64" else "cpu-arm"
    ended = run("serve", "--grpc", "127.0.0.1:0", "--profile", other)
    assert ended.returncode == 2
    assert f"profile {other} is for" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
