# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx", reason="exporters need onnx: pip install edgerun[exporters]")
pytest.importorskip("tomli_w", reason="exporters need tomli-w: pip install edgerun[exporters]")

import numpy as np
import onnx
from onnx import helper

from edgerun.errors import ModelError
from edgerun.model_package import Manifest, builtin_package, load_package, parse_manifest
from exporters import package as package_module
from exporters.calibrate import CalibrationTable
from exporters.package import write_package
from exporters.polyp_seg_lite.card import model_card

DECLARED = Path(__file__).parent.parent.parent / "exporters" / "polyp_seg_lite" / "model.toml"


@pytest.fixture
def manifest() -> Manifest:
    return parse_manifest(DECLARED).model_copy(update={"graphs": {"fp32": "fp32.onnx"}})


def graph() -> onnx.ModelProto:
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    return helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [out]))


def write(folder: Path, manifest: Manifest, licence: str = "none") -> None:
    table = CalibrationTable("minmax", 1, {"x": (0.0, 1.0)})
    write_package(folder, manifest, {"fp32": graph()}, table, {"dice": 0.5}, "# Card\n", licence)


def test_what_is_written_is_what_is_loaded(tmp_path: Path, manifest: Manifest) -> None:
    write(tmp_path / "models" / "tiny", manifest)
    loaded = load_package(tmp_path / "models" / "tiny")
    assert loaded.manifest == manifest
    assert onnx.load(loaded.graph("fp32").path) == graph()
    names = {"model.toml", "fp32.onnx", "calibration.json", "report.json", "MODEL_CARD.md", "LICENSE"}
    assert set(loaded.sums) == names
    assert [p.name for p in (tmp_path / "models").iterdir()] == ["tiny"]


def test_an_old_package_is_replaced_whole(tmp_path: Path, manifest: Manifest) -> None:
    write(tmp_path / "tiny", manifest, "old")
    (tmp_path / "tiny" / "stray").write_text("left by someone")
    write(tmp_path / "tiny", manifest, "new")
    assert load_package(tmp_path / "tiny").path.joinpath("LICENSE").read_text() == "new"


def test_a_package_too_big_to_ship_leaves_the_old_one(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "tiny", manifest, "old")
    monkeypatch.setattr(package_module, "MAX_BYTES", 100)
    with pytest.raises(ModelError, match="at most 100 fit"):
        write(tmp_path / "tiny", manifest, "new")
    assert (tmp_path / "tiny" / "LICENSE").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["tiny"]


@pytest.fixture
def shipped() -> Path:
    try:
        return builtin_package("polyp-seg-lite")
    except ModelError as error:
        pytest.skip(str(error))


def test_the_shipped_card_is_written_from_the_shipped_report(shipped: Path) -> None:
    report: dict[str, Any] = json.loads((shipped / "report.json").read_text())
    assert (shipped / "MODEL_CARD.md").read_text() == model_card(report)
    assert report["gates"]["is_accurate"]
    assert "not a medical device" in (shipped / "MODEL_CARD.md").read_text().lower()


def test_the_shipped_graphs_tell_nothing_of_the_machine_that_made_them(shipped: Path) -> None:
    for path in shipped.glob("*.onnx"):
        assert not re.search(rb"/(home|root|work|tmp|usr)/", path.read_bytes()), path.name


def test_the_shipped_int8_graph_begins_with_the_normalisation(shipped: Path) -> None:
    int8 = onnx.load(load_package(shipped).graph("int8-cpu-x86").path).graph
    values = {i.name: onnx.numpy_helper.to_array(i) for i in int8.initializer}
    assert int8.node[0].op_type == "DequantizeLinear"
    assert values[int8.node[0].input[1]] == np.float32(1 / 128)
    assert values[int8.node[0].input[2]] == 128
