# SPDX-License-Identifier: Apache-2.0
"""What every engine promises, here and in a worker."""

from __future__ import annotations

import numpy as np
import pytest

from edgerun.infer.engine import Engine, EngineChoice, EngineSlot, FailureKind, RunError
from edgerun.infer.in_process import InProcessEngine
from edgerun.infer.select import engine_from_choice
from edgerun.infer.slot_memory import ALIGNMENT_BYTES, carve_slots
from edgerun.infer.worker import WorkerEngine
from edgerun.tensor import TensorSpec

X = TensorSpec("x", "float32", (1, 256, 256))
ROOT = TensorSpec("root", "float32", (1, 256, 256))
BYTES = TensorSpec("bytes", "uint8", (1, 256, 256))
Either = InProcessEngine | WorkerEngine


def run(engine: Engine, slot: EngineSlot) -> None:
    engine.submit(slot)
    engine.wait(slot, timeout_s=30)


def misuse(engine: Engine, slot: EngineSlot, call: str) -> FailureKind:
    with pytest.raises(RunError) as caught:
        getattr(engine, call)(slot)
    return caught.value.kind


def test_slots_have_the_graphs_specs_and_are_aligned_writable_and_apart(engine: Either) -> None:
    assert list(engine.inputs) == [X]
    assert list(engine.outputs) == [ROOT, BYTES]
    first, second = engine.slots(2)
    assert (first.index, second.index) == (0, 1)
    for slot in (first, second):
        for spec, array in zip((X, ROOT, BYTES), (*slot.inputs.values(), *slot.outputs.values()), strict=True):
            assert (array.shape, array.dtype) == (spec.shape, spec.numpy_dtype)
            assert array.flags.writeable
            assert array.ctypes.data % ALIGNMENT_BYTES == 0
    first.inputs["x"][:] = 5
    assert not second.inputs["x"].any()


def test_runs_end_in_any_order_of_waiting(engine: Either) -> None:
    slots = engine.slots(2)
    for slot in slots:
        slot.inputs["x"][:] = 9
        slot.outputs["root"][:] = -1
    engine.warm_up()
    for slot in slots:
        assert (slot.inputs["x"] == 9).all()  # warming up keeps the contents of slots
        assert (slot.outputs["root"] == -1).all()
        engine.submit(slot)
    for slot in reversed(slots):
        engine.wait(slot, timeout_s=30)
        assert (slot.outputs["root"] == 3).all()
        assert slot.run_ns > 0


def test_outputs_stay_where_they_are(engine: Either) -> None:
    slot, other = engine.slots(2)
    addresses = [array.ctypes.data for array in slot.outputs.values()]
    for _ in range(2):
        slot.inputs["x"][:] = 9
        run(engine, slot)
    assert [array.ctypes.data for array in slot.outputs.values()] == addresses
    assert (slot.outputs["root"] == 3).all()
    assert not other.outputs["root"].any()


def test_non_finite_output_fails_the_run_and_no_other(engine: Either) -> None:
    (slot,) = engine.slots(1)
    for value, is_finite in ((9, True), (9, True), (-1, False), (9, True)):
        slot.inputs["x"][:] = 9
        slot.inputs["x"][0, 5, 7] = value
        if is_finite:
            run(engine, slot)
            assert slot.outputs["root"].min() == 3
        else:
            with pytest.raises(RunError, match="root holds NaN or infinity") as caught:
                run(engine, slot)
            assert caught.value.kind is FailureKind.NON_FINITE


def test_misuse_is_told(engine: Either) -> None:
    with pytest.raises(ValueError, match="slots = 0; expected at least 1"):
        engine.slots(0)
    (slot,) = engine.slots(1)
    assert misuse(engine, slot, "wait") is FailureKind.MISUSE
    engine.submit(slot)
    assert misuse(engine, slot, "submit") is FailureKind.MISUSE
    assert misuse(engine, carve_slots([X], [ROOT, BYTES], 1)[0], "submit") is FailureKind.MISUSE
    engine.wait(slot, timeout_s=30)
    with pytest.raises(RunError, match="allocated already"):
        engine.slots(1)


def test_close_is_idempotent_and_outputs_stay_readable(engine: Either) -> None:
    (slot,) = engine.slots(1)
    slot.inputs["x"][:] = 9
    run(engine, slot)
    engine.close()
    engine.close()
    assert (slot.outputs["root"] == 3).all()
    assert misuse(engine, slot, "submit") is FailureKind.CLOSED
    with pytest.raises(RunError, match="closed"):
        engine.warm_up()


def test_random_inputs_match_numpy(choice: EngineChoice) -> None:
    if choice.engine == "null":
        pytest.skip("the null engine computes nothing")
    engine = engine_from_choice(choice)
    (slot,) = engine.slots(1)
    rng = np.random.default_rng(5)
    slot.inputs["x"][:] = rng.uniform(0, 255, X.shape)
    run(engine, slot)
    np.testing.assert_allclose(slot.outputs["root"], np.sqrt(slot.inputs["x"]), rtol=1e-5)
    np.testing.assert_array_equal(slot.outputs["bytes"], slot.inputs["x"].astype(np.uint8))
    engine.close()
