# SPDX-License-Identifier: Apache-2.0
"""What the parent and its worker say to each other: one datagram of a SOCK_SEQPACKET pair per message."""

from __future__ import annotations

import dataclasses
import enum
import json
import struct
from collections.abc import Sequence
from typing import Any

from edgerun.infer.engine import EngineChoice, NullPlan
from edgerun.tensor import TensorSpec

HEADER = struct.Struct("<BIQ")  # op, slot index (or count), nanoseconds
MAX_MESSAGE_BYTES = 1 << 16


class Op(enum.IntEnum):
    """Requests, then answers. Every request has exactly one answer, in order."""

    MAP = 1  # argument: count of slots
    WARM_UP = 2
    RUN = 3  # argument: slot index
    LOADED = 10  # text: the specs, as JSON; answers the start
    READY = 11  # answers MAP and WARM_UP
    DONE = 12  # answers RUN; argument: slot index, and its nanoseconds
    THREW = 20  # any request; text: why
    NON_FINITE = 21  # RUN; text: which output


def pack(op: Op, argument: int = 0, elapsed_ns: int = 0, text: str = "") -> bytes:
    return HEADER.pack(op, argument, elapsed_ns) + text.encode()[: MAX_MESSAGE_BYTES - HEADER.size]


def unpack(message: bytes) -> tuple[Op, int, int, str]:
    op, argument, elapsed_ns = HEADER.unpack_from(message)
    return Op(op), argument, elapsed_ns, message[HEADER.size :].decode(errors="replace")


def specs_to_json(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> str:
    return json.dumps([[dataclasses.asdict(spec) for spec in group] for group in (inputs, outputs)])


def specs_from_json(text: str) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    inputs, outputs = (tuple(_spec(item) for item in group) for group in json.loads(text))
    return inputs, outputs


def choice_to_json(choice: EngineChoice) -> dict[str, Any]:
    return dataclasses.asdict(choice)


def choice_from_json(fields: dict[str, Any]) -> EngineChoice:
    plan = fields["null"]
    return EngineChoice(**{**fields, "cpus": tuple(fields["cpus"]), "null": _plan(plan) if plan else None})


def _plan(fields: dict[str, Any]) -> NullPlan:
    specs = {key: tuple(_spec(item) for item in fields[key]) for key in ("inputs", "outputs")}
    runs = {key: tuple(fields[key]) for key in ("fail_on", "nan_on", "hang_on", "die_on")}
    return NullPlan(**{**fields, **specs, **runs})


def _spec(fields: dict[str, Any]) -> TensorSpec:
    return TensorSpec(fields["name"], fields["dtype"], tuple(fields["shape"]))
