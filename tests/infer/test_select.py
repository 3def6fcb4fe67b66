# SPDX-License-Identifier: Apache-2.0
"""The first available engine of an order, and loud refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgerun.device_profile import default_profile
from edgerun.errors import EngineError, ModelError
from edgerun.infer.engine import EngineChoice, NullPlan
from edgerun.infer.null import NullEngine
from edgerun.infer.openvino import OpenVinoEngine
from edgerun.infer.select import first_available, load_engine, load_engine_for
from edgerun.model_package import GraphFile
from edgerun.tensor import TensorSpec

X = TensorSpec("x", "uint8", (4,))
Y = TensorSpec("y", "float32", (2,))
CHOICE = EngineChoice("", null=NullPlan((X,), (Y,)))


@pytest.fixture
def without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenVinoEngine, "unavailable_reason", lambda: "openvino is not installed; install it")


@pytest.mark.usefixtures("without_openvino")
def test_unavailable_engines_are_passed_over_with_reasons() -> None:
    assert first_available(["openvino", "null"]) == ("null", ("openvino: openvino is not installed; install it",))


@pytest.mark.usefixtures("without_openvino")
def test_an_explicit_choice_fails_with_every_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NullEngine, "unavailable_reason", lambda: "no nulls today")
    with pytest.raises(EngineError, match=r"no engine of \[openvino, null\].*openvino is not.*null: no nulls today"):
        first_available(["openvino", "null"])


def test_unknown_engine() -> None:
    with pytest.raises(EngineError, match="engine = 'onnx'; expected one of openvino, onnxruntime, null"):
        first_available(["onnx"])


def test_specs_are_checked_against_the_manifest() -> None:
    loaded = load_engine(CHOICE, ["null"], [X], [Y])
    assert (loaded.name, loaded.passed_over) == ("null", ())
    loaded.engine.close()
    wrong = TensorSpec("y", "float32", (3,))
    with pytest.raises(ModelError) as caught:
        load_engine(CHOICE, ["null"], [TensorSpec("image", "uint8", (4,))], [wrong])
    assert str(caught.value) == (
        ": input x is in the graph, not in the manifest. input image: uint8[4] is in the manifest, not in the graph."
        " output y: float32[2] in the graph; expected y: float32[3]. Package the model again."
    )


def test_an_available_engine_that_cannot_load_is_no_reason_for_another() -> None:
    with pytest.raises(EngineError, match=r"gone\.onnx: no such graph"):
        load_engine(EngineChoice("", "gone.onnx", null=CHOICE.null), ["onnxruntime", "null"], [X], [Y])


def test_engine_for_a_profile(root_graph: str) -> None:
    x, root, cast = (
        TensorSpec(n, t, (1, 256, 256)) for n, t in (("x", "float32"), ("root", "float32"), ("bytes", "uint8"))
    )
    loaded = load_engine_for(default_profile(), GraphFile("fp32", Path(root_graph), ""), [x], [root, cast])
    assert loaded.name == "onnxruntime"
    loaded.engine.close()
