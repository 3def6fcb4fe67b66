# SPDX-License-Identifier: Apache-2.0
"""Where the tensors of slots lie: one block of memory, carved the same way by everyone who maps it."""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from edgerun.infer.engine import Tensor
from edgerun.tensor import TensorSpec

ALIGNMENT_BYTES = 64  # a cache line, and the widest vector load


class ArraySlot:
    """A slot whose tensors are NumPy arrays over memory that never moves."""

    __slots__ = ("index", "inputs", "outputs", "run_ns")

    def __init__(self, index: int, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
        self.index = index
        self.inputs = inputs
        self.outputs = outputs
        self.run_ns = 0


def _padded(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def slot_bytes(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> int:
    """The room that one slot takes, each tensor padded to ALIGNMENT_BYTES."""
    return sum(_padded(spec.nbytes) for spec in (*inputs, *outputs))


def block_bytes(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], count: int) -> int:
    """The room that `count` slots take. Raises ValueError on none."""
    if count < 1:
        raise ValueError(f"slots = {count}; expected at least 1")
    return count * slot_bytes(inputs, outputs)


def anonymous_block(nbytes: int) -> memoryview:
    """Private zeroed memory, page-aligned."""
    return memoryview(mmap.mmap(-1, max(nbytes, 1)))


def shared_block(fd: int, nbytes: int) -> memoryview:
    """The memory behind `fd`, with its page tables filled now rather than in the first run."""
    flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
    return memoryview(mmap.mmap(fd, max(nbytes, 1), flags=flags))


def carve_slots(
    inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], count: int, memory: memoryview | None = None
) -> tuple[ArraySlot, ...]:
    """Cut `memory` (own memory if None) into `count` slots. The arrays keep it alive."""
    room = slot_bytes(inputs, outputs)
    block = anonymous_block(block_bytes(inputs, outputs, count)) if memory is None else memory
    return tuple(_carve_slot(index, inputs, outputs, block, index * room) for index in range(count))


def _carve_slot(
    index: int, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], block: memoryview, offset: int
) -> ArraySlot:
    groups: list[dict[str, Tensor]] = []
    for specs in (inputs, outputs):
        arrays: dict[str, Tensor] = {}
        for spec in specs:
            arrays[spec.name] = np.ndarray(spec.shape, np.dtype(spec.dtype), block, offset)
            offset += _padded(spec.nbytes)
        groups.append(arrays)
    return ArraySlot(index, MappingProxyType(groups[0]), MappingProxyType(groups[1]))
