# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgerun.errors import ModelError
from edgerun.model_package import MANIFEST, SUMS, builtin_package, load_package, parse_manifest, write_sums
from edgerun.tensor import TensorSpec

TOML = """
name = "tiny"
version = "1.2.3"
task = "segmentation"
family = "tiny"
license = "Apache-2.0"
modality = ["ES"]
body_part = ["COLON"]
provenance = { data = "none" }
inputs = [{ name = "image", dtype = "uint8", shape = [1, 3, 64, 96] }]
outputs = [{ name = "logits", dtype = "float32", shape = [1, 1, 16, 24] }]
preprocess = { fit = "stretch", filter = "area", layout = "planar", order = "rgb", pad_value = 0 }
postprocess = { kind = "segmentation", threshold = 0.5, min_region_fraction = 0.01 }
default = { deadline_ms = 40.0 }
graphs = { fp32 = "fp32.onnx", int8-cpu-x86 = "weights/int8.onnx" }
labels = [{ value = 1, name = "polyp", code = { scheme = "SCT", value = "41329004", meaning = "Polyp" } }]
"""
FILES = (MANIFEST, "fp32.onnx", "fp32.onnx.data", "weights/int8.onnx", "LICENSE", "report.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "tiny"
    (root / "weights").mkdir(parents=True)
    for name in FILES[1:]:
        (root / name).write_bytes(name.encode() * 3)
    (root / MANIFEST).write_text(TOML, encoding="utf-8")
    write_sums(root)
    return root


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_package(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def declare(folder: Path, old: str, new: str) -> None:
    assert old in TOML
    (folder / MANIFEST).write_text(TOML.replace(old, new), encoding="utf-8")
    write_sums(folder)


def test_what_was_declared_is_what_is_loaded(folder: Path) -> None:
    package = load_package(folder)
    assert (package.name, package.version, package.precisions) == ("tiny", "1.2.3", ("fp32", "int8-cpu-x86"))
    assert package.inputs == (TensorSpec("image", "uint8", (1, 3, 64, 96)),)
    assert package.outputs == (TensorSpec("logits", "float32", (1, 1, 16, 24)),)
    assert package.input_size == (64, 96)
    assert package.preprocess.fit == "stretch"
    assert package.postprocess.min_region_fraction == 0.01
    assert package.labels[0].code.value == "41329004"


def test_graph_by_precision(folder: Path) -> None:
    package = load_package(folder)
    graph = package.graph("int8-cpu-x86")
    assert graph.path.read_bytes() == b"weights/int8.onnx" * 3
    assert graph.sha256 == package.sums["weights/int8.onnx"]
    with pytest.raises(ModelError, match="no graph 'fp16'; it has fp32, int8-cpu-x86"):
        package.graph("fp16")


def test_sums_are_those_of_sha256sum(folder: Path) -> None:
    done = subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=folder, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0, -1])
def test_one_flipped_bit_names_the_file(folder: Path, name: str, place: int) -> None:
    raw = bytearray((folder / name).read_bytes())
    raw[place] ^= 1
    (folder / name).write_bytes(raw)
    assert name in refusal(folder)


def test_every_flipped_byte_of_the_sums_is_refused(folder: Path) -> None:
    intact = (folder / SUMS).read_bytes()
    for place in range(len(intact)):
        raw = bytearray(intact)
        raw[place] ^= 1
        (folder / SUMS).write_bytes(raw)
        refusal(folder)


def test_sums_that_are_not_text(folder: Path) -> None:
    (folder / SUMS).write_bytes(b"\xff\xfe\x00")
    assert "isn't text" in refusal(folder)


@pytest.mark.parametrize("line", ["", "abc  fp32.onnx", "0" * 64 + "  ../fp32.onnx", "0" * 64 + "  /etc/passwd"])
def test_a_malformed_sum_names_its_line(folder: Path, line: str) -> None:
    (folder / SUMS).write_text(f"{line}\n{(folder / SUMS).read_text()}")
    assert "line 1 is" in refusal(folder)


def test_a_file_listed_twice(folder: Path) -> None:
    text = (folder / SUMS).read_text()
    (folder / SUMS).write_text(text + text.splitlines()[0] + "\n")
    assert "twice" in refusal(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    message = refusal(folder)
    assert name in message
    assert "missing" in message


def test_missing_sums(folder: Path) -> None:
    (folder / SUMS).unlink()
    assert "SHA256SUMS: missing" in refusal(folder)


def test_missing_folder(tmp_path: Path) -> None:
    assert "no such folder" in refusal(tmp_path / "absent")


def test_a_graph_that_was_never_packed(folder: Path) -> None:
    (folder / "fp32.onnx").unlink()
    write_sums(folder)
    assert "graph fp32 of model.toml is missing" in refusal(folder)


@pytest.mark.parametrize("name", ["extra.onnx", "weights/extra", ".hidden"])
def test_an_unlisted_file_is_named(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")
    message = refusal(folder)
    assert name in message
    assert "not listed" in message


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('family = "tiny"', 'family = "tiny"\nfamilly = "typo"', "familly is not a known key"),
        ("pad_value = 0", "pad_valu = 0", "preprocess.pad_valu is not a known key"),
        ('fit = "stretch"', 'fit = "zoom"', "preprocess.fit = 'zoom'"),
        ("threshold = 0.5", "threshold = 1.5", "postprocess.threshold = 1.5"),
        ('version = "1.2.3"', "", "version is missing"),
        ('modality = ["ES"]', 'modality = ["endoscopy"]', "modality.0 = 'endoscopy'"),
        ("fp32 =", "fp31 =", "graphs.fp31"),
        ('"fp32.onnx"', '"../fp32.onnx"', "plain path inside"),
        ("shape = [1, 3, 64, 96]", "shape = [1, 3, 0, 96]", "inputs.0.shape.2 = 0"),
        ('name = "tiny"', 'name = "tiny" oops', "can't be read as TOML"),
    ],
)
def test_a_wrong_manifest_names_the_key(folder: Path, old: str, new: str, said: str) -> None:
    declare(folder, old, new)
    assert said in refusal(folder)


def test_all_faults_at_once(folder: Path) -> None:
    declare(folder, 'task = "segmentation"\nfamily = "tiny"', 'task = "detection"\nfamily = ""')
    message = refusal(folder)
    assert "task = 'detection'" in message
    assert "family = ''" in message


def test_label_values_differ(folder: Path) -> None:
    declare(
        folder, "labels = [", 'labels = [{ value = 1, name = "b", code = { scheme="a", value="b", meaning="c" } }, '
    )
    assert "labels has [1, 1]" in refusal(folder)


def test_no_builtin_package_by_that_name() -> None:
    for name in ("absent", "../models", ""):
        with pytest.raises(ModelError, match="built without its weights"):
            builtin_package(name)


def test_the_shipped_package_is_whole() -> None:
    try:
        path = builtin_package("polyp-seg-lite")
    except ModelError as error:
        pytest.skip(str(error))
    package = load_package(path)
    assert {"fp32", "int8-cpu-x86"} <= set(package.precisions)
    assert package.inputs == (TensorSpec("image", "uint8", (1, 3, 320, 320)),)


def test_the_declared_manifest_of_the_default_model_is_valid() -> None:
    declared = Path(__file__).parent.parent / "exporters" / "polyp_seg_lite" / "model.toml"
    assert parse_manifest(declared).name == "polyp-seg-lite"


def test_imports_nothing_heavy() -> None:
    code = "import sys, edgerun.model_package; print({'cv2', 'onnx', 'onnxruntime', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
