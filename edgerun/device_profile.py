# SPDX-License-Identifier: Apache-2.0
"""What one kind of device can do and how edgerun uses it: firmware_configs/*.toml, read, checked and frozen."""

from __future__ import annotations

import difflib
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from edgerun.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = Path(__file__).parent
CONFIG_FOLDERS = (PACKAGE / "firmware_configs", PACKAGE.parent / "firmware_configs")  # in a wheel, in a checkout
PROFILE_OF_MACHINE = {"x86_64": "cpu-x86", "amd64": "cpu-x86", "aarch64": "cpu-arm", "arm64": "cpu-arm"}
SCHEMA_FILE = "profile.schema.json"

Cores = Annotated[int, Field(ge=1, le=256, description="Set the number of cores to use.")]
Milliseconds = Annotated[int, Field(ge=1, le=600_000, description="Set a time in milliseconds.")]
Count = Annotated[int, Field(ge=1, le=1024, description="Set how many may wait; each one costs its memory.")]
Pixels = Annotated[int, Field(ge=16, le=65_535, description="Set the longest side to accept, in pixels.")]
EngineName = Literal["openvino", "onnxruntime", "null"]


class _Table(BaseModel):
    # A field's description is also the repair in its error message.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Precision(_Table):
    """A graph of a model package that this device may run, and with what."""

    name: Annotated[
        str, Field(pattern=r"^(fp32|fp16|int8-[a-z0-9-]+)$", description="Name a graph: NAME.onnx in the package.")
    ]
    engines: Annotated[
        tuple[EngineName, ...],
        Field(min_length=1, description="List engines in order of preference; the first one installed runs."),
    ]


class Threads(_Table):
    infer: Cores
    decode: Cores


class Slots(_Table):
    engine: Annotated[int, Field(ge=1, le=128, description="Set how many runs may be queued in the engine.")]
    inbox: Count  # decoded frames of one stream that wait for the scheduler


class Queues(_Table):
    answers: Count  # answers of one stream that its client hasn't read yet


class Limits(_Table):
    max_width: Pixels
    max_height: Pixels
    max_message_bytes: Annotated[
        int, Field(ge=1 << 16, le=(1 << 31) - 1, description="Set the largest gRPC message to accept, in bytes.")
    ]
    max_streams: Annotated[int, Field(ge=1, le=64, description="Set how many streams may be open at once.")]


class Worker(_Table):
    """Supervision of the process that engines run in."""

    hang_timeout_ms: Milliseconds
    restart_backoff_ms: Milliseconds
    max_backoff_ms: Milliseconds = 5000
    cpus: Annotated[
        tuple[Annotated[int, Field(ge=0, le=4095, description="Set the index of a CPU.")], ...],
        Field(description="List the CPUs to pin the worker to; leave it out for any."),
    ] = ()


def _each_once(precisions: tuple[Precision, ...]) -> tuple[Precision, ...]:
    names = [precision.name for precision in precisions]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{', '.join(twice)} is there twice; expected each precision once. Remove one.")
    return precisions


class DeviceProfile(_Table):
    """A valid profile. `precisions` is in order of preference: the first that a model package has is used."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="Use the file's name without .toml.")]
    arch: Annotated[Literal["x86_64", "aarch64"], Field(description="Set what the kernel calls the processor.")]
    precisions: Annotated[
        tuple[Precision, ...],
        Field(min_length=1, description="Add a [[precisions]] table."),
        AfterValidator(_each_once),
    ]
    threads: Threads
    slots: Slots
    queues: Queues
    limits: Limits
    worker: Worker

    def engines_for(self, precision: str) -> tuple[str, ...]:
        """Engines in order of preference. Raises ConfigError for a precision this device doesn't run."""
        for candidate in self.precisions:
            if candidate.name == precision:
                return candidate.engines
        known = ", ".join(candidate.name for candidate in self.precisions)
        raise ConfigError(f"profile {self.name}: no precision {precision}; expected one of {known}")

    def precision_for(self, packaged: Sequence[str]) -> str:
        """The preferred precision of those in a model package. Raises ConfigError when there is none."""
        for candidate in self.precisions:
            if candidate.name in packaged:
                return candidate.name
        known = ", ".join(candidate.name for candidate in self.precisions)
        raise ConfigError(f"profile {self.name} runs {known}; the package has {', '.join(packaged) or 'no graph'}")

    def misfit_reason(self, machine: str | None = None) -> str | None:
        """None when this profile is for `machine` (this one if None), else why it isn't."""
        here = machine or platform.machine()
        if PROFILE_OF_MACHINE.get(here.lower()) == PROFILE_OF_MACHINE[self.arch]:
            return None
        return f"profile {self.name} is for {self.arch}; this is {here}. Choose another profile."


def profile_paths() -> dict[str, Path]:
    """Name to file of every shipped profile."""
    for folder in CONFIG_FOLDERS:
        if found := {path.stem: path for path in sorted(folder.glob("*.toml"))}:
            return found
    return {}


def default_profile(machine: str | None = None) -> DeviceProfile:
    """The plain CPU profile of `machine` (this one if None)."""
    here = machine or platform.machine()
    if here.lower() not in PROFILE_OF_MACHINE:
        raise ConfigError(f"machine {here}: no default profile; expected {', '.join(PROFILE_OF_MACHINE)}. Name one.")
    return load_profile(PROFILE_OF_MACHINE[here.lower()])


def load_profile(name_or_path: str | Path) -> DeviceProfile:
    """A shipped profile by name, or a file by its path. Raises ConfigError with one line per fault."""
    path = Path(name_or_path)
    if path.suffix != ".toml":
        shipped = profile_paths()
        if path.name not in shipped or path.name != str(name_or_path):
            known = ", ".join(shipped) or "none"
            raise ConfigError(f"profile {name_or_path}: not shipped; expected one of {known}, or a path to a .toml")
        path = shipped[path.name]
    return parse_profile(toml_content(path), path.name)


def parse_profile(content: Mapping[str, Any], file_name: str) -> DeviceProfile:
    """Check a parsed TOML file. Raises ConfigError with one line per fault."""
    try:
        # JSON mode: strict about 4 and "4", but a list may become a tuple.
        return DeviceProfile.model_validate_json(json.dumps(content, default=str))
    except ValidationError as error:
        lines = sorted({f"{file_name}: {_fault(fault)}" for fault in _innermost(error)})
        raise ConfigError("\n".join(lines)) from error


def toml_content(path: Path) -> dict[str, Any]:
    """The file as it stands. Raises ConfigError when it can't be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name}: not TOML: {error}") from error


def schema_text() -> str:
    """What firmware_configs/profile.schema.json holds."""
    return json.dumps(_schema(), indent=2) + "\n"


@cache
def _schema() -> dict[str, Any]:
    return DeviceProfile.model_json_schema()


def _innermost(error: ValidationError) -> list[Mapping[str, Any]]:
    # A list with a faulty item is reported as too short as well.
    faults = error.errors(include_url=False)
    outer = {fault["loc"][:length] for fault in faults for length in range(len(fault["loc"]))}
    return [dict(fault) for fault in faults if fault["loc"] not in outer]


def _fault(fault: Mapping[str, Any]) -> str:
    """One fault in a line: which key, what was found, what is expected, how to repair it."""
    loc = fault["loc"]
    key = _dotted(loc)
    if fault["type"] == "extra_forbidden":
        return _unread_key(key, str(loc[-1]), _schema_at(loc[:-1]))
    if fault["type"] == "value_error":
        return f"{key}: {fault['ctx']['error']}"
    place = _schema_at(loc)
    wanted = f"expected {_expected(place)}. {place.get('description', '')}".rstrip()
    if fault["type"] == "missing":
        return f"{key} is missing; {wanted}"
    return f"{key} = {json.dumps(fault['input'], default=str)}; {wanted}"


def _unread_key(key: str, name: str, table: Mapping[str, Any]) -> str:
    known = list(table.get("properties", {}))
    near = difflib.get_close_matches(name, known, 1)
    return f"{key} is not a key. " + (f"Did you mean {near[0]}?" if near else f"Known here: {', '.join(known)}.")


def _dotted(loc: Sequence[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")


def _schema_at(loc: Sequence[str | int]) -> dict[str, Any]:
    place = _schema()
    for part in loc:
        place = place.get("items", {}) if isinstance(part, int) else place.get("properties", {}).get(part, {})
        if "$ref" in place:
            place = _schema()["$defs"][place["$ref"].rsplit("/", 1)[1]]
    return place


def _expected(place: Mapping[str, Any]) -> str:
    if "minimum" in place:
        return f"{place['minimum']} to {place['maximum']}"
    if "enum" in place:
        return f"one of {', '.join(place['enum'])}"
    if "pattern" in place:
        return f"text like {place['pattern']}"
    if place.get("type") == "array":
        return "a list" if not place.get("minItems") else "a list of at least one"
    return "a table" if "properties" in place else str(place.get("type", "another value"))
