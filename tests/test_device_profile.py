# SPDX-License-Identifier: Apache-2.0
"""Every shipped profile loads; every fault of a broken one is told, in one go."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator

from edgerun import device_profile
from edgerun.device_profile import (
    SCHEMA_FILE,
    DeviceProfile,
    EngineName,
    default_profile,
    load_profile,
    parse_profile,
    profile_paths,
    schema_text,
    toml_content,
)
from edgerun.errors import ConfigError
from edgerun.infer.select import ENGINES

FOLDER = Path(__file__).parents[1] / "firmware_configs"
SHIPPED = sorted(FOLDER.glob("*.toml"))
REWRITE = "import edgerun.device_profile as p; open('firmware_configs/profile.schema.json', 'w').write(p.schema_text())"


@pytest.fixture
def content() -> dict[str, Any]:
    return toml_content(FOLDER / "cpu-x86.toml")


def faults(content: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_profile(content, "cpu-x86.toml")
    return str(caught.value).splitlines()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.stem))
def test_shipped_profile_loads_and_fits_the_schema(path: Path) -> None:
    profile = load_profile(path)
    assert profile == load_profile(path.stem)
    assert profile.name == path.stem
    schema = json.loads((FOLDER / SCHEMA_FILE).read_text())
    Draft202012Validator(schema).validate(toml_content(path))


def test_all_files_are_shipped() -> None:
    assert sorted(profile_paths()) == [path.stem for path in SHIPPED] != []


def test_schema_is_up_to_date() -> None:
    assert (FOLDER / SCHEMA_FILE).read_text() == schema_text(), f'python -c "{REWRITE}"'


def test_engines_are_those_that_exist() -> None:
    assert get_args(EngineName) == ENGINES


def test_profile_of_the_machine() -> None:
    assert default_profile("x86_64").name == "cpu-x86"
    assert default_profile("aarch64").name == "cpu-arm"
    with pytest.raises(ConfigError, match="machine riscv64: no default profile; expected x86_64"):
        default_profile("riscv64")


def test_misfit() -> None:
    profile = default_profile("x86_64")
    assert profile.misfit_reason("AMD64") is None
    assert profile.misfit_reason("aarch64") == (
        "profile cpu-x86 is for x86_64; this is aarch64. Choose another profile."
    )


def test_preferences(content: dict[str, Any]) -> None:
    profile = parse_profile(content, "a.toml")
    assert profile.precision_for(["fp32", "int8-cpu-arm"]) == "fp32"
    assert profile.precision_for(["fp32", "int8-cpu-x86"]) == "int8-cpu-x86"
    assert profile.engines_for("int8-cpu-x86") == ("openvino", "onnxruntime")
    with pytest.raises(ConfigError, match="runs int8-cpu-x86, fp32; the package has fp16"):
        profile.precision_for(["fp16"])
    with pytest.raises(ConfigError, match="no precision fp16; expected one of int8-cpu-x86, fp32"):
        profile.engines_for("fp16")


def test_all_faults_at_once(content: dict[str, Any]) -> None:
    content["threads"]["infer"] = 0
    content["threads"]["decoed"] = content["threads"].pop("decode")
    content["worker"]["hang_timeout_ms"] = "100"
    content["precisions"][0]["engines"] = ["onnx"]
    content["precisions"][1]["name"] = "int4"
    content["limits"]["max_width"] = 4096.5
    content["worker"]["cpus"] = [True]
    content["zoom"] = 1
    del content["queues"]
    assert faults(content) == [
        "cpu-x86.toml: limits.max_width = 4096.5; expected 16 to 65535. Set the longest side to accept, in pixels.",
        'cpu-x86.toml: precisions[0].engines[0] = "onnx"; expected one of openvino, onnxruntime, null.',
        (
            'cpu-x86.toml: precisions[1].name = "int4"; expected text like ^(fp32|fp16|int8-[a-z0-9-]+)$. '
            "Name a graph: NAME.onnx in the package."
        ),
        "cpu-x86.toml: queues is missing; expected a table.",
        "cpu-x86.toml: threads.decode is missing; expected 1 to 256. Set the number of cores to use.",
        "cpu-x86.toml: threads.decoed is not a key. Did you mean decode?",
        "cpu-x86.toml: threads.infer = 0; expected 1 to 256. Set the number of cores to use.",
        "cpu-x86.toml: worker.cpus[0] = true; expected 0 to 4095. Set the index of a CPU.",
        'cpu-x86.toml: worker.hang_timeout_ms = "100"; expected 1 to 600000. Set a time in milliseconds.',
        (
            "cpu-x86.toml: zoom is not a key. Known here: name, arch, precisions, threads, slots, queues, "
            "limits, worker."
        ),
    ]


def test_precisions_are_there_and_once(content: dict[str, Any]) -> None:
    content["precisions"].append(content["precisions"][0])
    assert faults(content) == [
        "cpu-x86.toml: precisions: int8-cpu-x86 is there twice; expected each precision once. Remove one."
    ]
    content["precisions"] = []
    assert faults(content) == [
        "cpu-x86.toml: precisions = []; expected a list of at least one. Add a [[precisions]] table."
    ]


def test_dates_and_infinities_are_faults_too(content: dict[str, Any]) -> None:
    content["arch"] = datetime.date(2026, 1, 1)
    content["limits"]["max_streams"] = float("inf")
    assert [line.split(";")[0] for line in faults(content)] == [
        'cpu-x86.toml: arch = "2026-01-01"',
        "cpu-x86.toml: limits.max_streams = Infinity",
    ]


def test_profile_is_frozen() -> None:
    profile: Any = default_profile("x86_64")
    with pytest.raises(ValueError, match="frozen"):
        profile.threads.infer = 3


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"profile cpu-mips: not shipped; expected one of cpu-arm, cpu-x86"):
        load_profile("cpu-mips")
    with pytest.raises(ConfigError, match="not shipped"):
        load_profile("../cpu-x86")
    with pytest.raises(ConfigError, match=r"a\.toml: can't be read: No such file"):
        load_profile(tmp_path / "a.toml")
    (tmp_path / "a.toml").write_text("name = ?")
    with pytest.raises(ConfigError, match=r"a\.toml: not TOML: .*line 1"):
        load_profile(tmp_path / "a.toml")


def test_the_package_is_searched_before_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed, checkout = tmp_path / "edgerun" / "firmware_configs", tmp_path / "firmware_configs"
    monkeypatch.setattr(device_profile, "CONFIG_FOLDERS", (installed, checkout))
    assert profile_paths() == {}
    for folder in (checkout, installed):
        folder.mkdir(parents=True)
        (folder / "cpu-x86.toml").write_text((FOLDER / "cpu-x86.toml").read_text())
        assert profile_paths() == {"cpu-x86": folder / "cpu-x86.toml"}
        assert isinstance(load_profile("cpu-x86"), DeviceProfile)
