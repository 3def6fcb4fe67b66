# SPDX-License-Identifier: Apache-2.0
"""What the README tells a newcomer to type is there and works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.live_server import LiveServer

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_client_example_runs_against_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("python")
    with LiveServer() as server:
        example = code.replace("127.0.0.1:8001", server.address)
        assert example != code
        exec(compile(example, "README.md", "exec"), {"pictures": [bytes(1280 * 720 * 3)]})
    printed = capsys.readouterr().out
    assert re.search(r"^0 (\d+\.\d ms|dropped)", printed, flags=re.MULTILINE)
    assert "frames_in=1" in printed


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = {word for block in blocks("sh") for word in re.findall(r"\bmake ([a-z]+)", block)}
    assert {"demo", "test"} <= named
    assert named <= targets


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
