# SPDX-License-Identifier: Apache-2.0
"""The model package: a folder with a manifest, graphs and the checksums of both. Verified whenever it is loaded."""

from __future__ import annotations

import hashlib
import importlib.resources
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgerun.errors import ModelError
from edgerun.tensor import TensorSpec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MANIFEST = "model.toml"
SUMS = "SHA256SUMS"
GraphId = Literal["fp32", "fp16", "int8-cpu-x86", "int8-cpu-arm", "int8-tensorrt"]
_SUM_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")
_CHUNK_BYTES = 1 << 20


def _inside_folder(name: str) -> str:
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name or str(path) != name:
        raise ValueError("must be a plain path inside the package folder")
    return name


FileName = Annotated[str, AfterValidator(_inside_folder)]
DicomCode = Annotated[str, Field(pattern=r"^[A-Z0-9_ ]{1,16}$")]  # PS3.5 6.2: value representation CS


class _Declared(BaseModel):
    """A table of the manifest: unread keys are typos, so they are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Tensor(_Declared):
    """One input or output of every graph of the package."""

    name: str = Field(min_length=1)
    dtype: Literal["uint8", "int8", "float16", "float32", "int32", "int64"]
    shape: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(strict=False)]

    @property
    def spec(self) -> TensorSpec:
        return TensorSpec(self.name, self.dtype, self.shape)


class Preprocess(_Declared):
    """How a picture becomes the model's uint8 input. The normalisation is inside the graph."""

    fit: Literal["stretch", "letterbox"]
    filter: Literal["area", "bilinear"]
    layout: Literal["planar", "interleaved"]
    order: Literal["rgb", "bgr"]
    pad_value: int = Field(default=0, ge=0, le=255)


class Postprocess(_Declared):
    """How logits become regions. `threshold` is a probability; `min_region_fraction` a share of the grid."""

    kind: Literal["segmentation"]
    threshold: float = Field(default=0.5, gt=0, lt=1)
    min_region_fraction: float = Field(default=0.0, ge=0, lt=1)


class Code(_Declared):
    """A coded concept as DICOM carries it: (value, scheme, meaning)."""

    scheme: str = Field(min_length=1, max_length=16)
    value: str = Field(min_length=1)
    meaning: str = Field(min_length=1, max_length=64)


class Label(_Declared):
    """What a value of the mask stands for."""

    value: int = Field(ge=1, le=65535)
    name: str = Field(min_length=1)
    code: Code


class Defaults(_Declared):
    """What a stream gets that asks for nothing else."""

    deadline_ms: float = Field(gt=0)


class Manifest(_Declared):
    """`model.toml`."""

    name: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    version: str = Field(pattern=r"^\d+\.\d+\.\d+([-+].+)?$")
    task: Literal["segmentation"]
    family: str = Field(min_length=1)
    license: str = Field(min_length=1)
    modality: Annotated[tuple[DicomCode, ...], Field(min_length=1, strict=False)]
    body_part: Annotated[tuple[DicomCode, ...], Field(min_length=1, strict=False)]
    provenance: Mapping[str, str]
    inputs: Annotated[tuple[Tensor, ...], Field(min_length=1, strict=False)]
    outputs: Annotated[tuple[Tensor, ...], Field(min_length=1, strict=False)]
    preprocess: Preprocess
    postprocess: Postprocess
    labels: Annotated[tuple[Label, ...], Field(min_length=1, strict=False)]
    graphs: Annotated[Mapping[GraphId, FileName], Field(min_length=1)]
    default: Defaults

    @model_validator(mode="after")
    def _names_are_unique(self) -> Manifest:
        for what, found in (
            ("labels", [label.value for label in self.labels]),
            ("inputs", [tensor.name for tensor in self.inputs]),
            ("outputs", [tensor.name for tensor in self.outputs]),
        ):
            if len(set(found)) != len(found):
                raise ValueError(f"{what} has {found}; each must differ")
        return self


@dataclass(frozen=True, slots=True)
class GraphFile:
    """A graph on disk. Load it from `path`; `sha256` was true when the package was loaded."""

    id: str
    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class ModelPackage:
    """A package whose every file was verified."""

    path: Path
    manifest: Manifest
    sums: Mapping[str, str]  # file name -> sha256

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def version(self) -> str:
        return self.manifest.version

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return tuple(t.spec for t in self.manifest.inputs)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return tuple(t.spec for t in self.manifest.outputs)

    @property
    def input_size(self) -> tuple[int, int]:
        """Rows and columns of the first input, a picture of three channels."""
        shape = self.manifest.inputs[0].shape
        planar = self.manifest.preprocess.layout == "planar"
        return (shape[2], shape[3]) if planar else (shape[1], shape[2])

    @property
    def preprocess(self) -> Preprocess:
        return self.manifest.preprocess

    @property
    def postprocess(self) -> Postprocess:
        return self.manifest.postprocess

    @property
    def labels(self) -> tuple[Label, ...]:
        return self.manifest.labels

    @property
    def precisions(self) -> tuple[str, ...]:
        return tuple(self.manifest.graphs)

    def graph(self, precision: str) -> GraphFile:
        """The graph for `precision`, e.g. "int8-cpu-x86". Raises ModelError with the ones there are."""
        graphs = {str(name): file for name, file in self.manifest.graphs.items()}
        file = graphs.get(precision)
        if file is None:
            there = ", ".join(graphs)
            raise ModelError(f"{self.path}: has no graph {precision!r}; it has {there}. Ask for one of them.")
        return GraphFile(precision, self.path / file, self.sums[file])


def load_package(path: Path | str) -> ModelPackage:
    """Read and verify a package. Raises ModelError on the first file that isn't as its checksum says."""
    folder = Path(path)
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder; expected a model package. Correct the path.")
    sums = _read_sums(folder)
    _verify(folder, sums)
    manifest = parse_manifest(folder / MANIFEST)
    for graph, file in manifest.graphs.items():
        if file not in sums:
            raise ModelError(f"{folder / file}: graph {graph} of {MANIFEST} is missing. {_RESTORE}")
    return ModelPackage(folder, manifest, sums)


def parse_manifest(path: Path) -> Manifest:
    """Read a manifest on its own. Raises ModelError with all its faults."""
    try:
        return Manifest.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: can't be read as TOML: {error}. Build the package again.") from None
    except ValidationError as error:
        raise ModelError(f"{path}: {'; '.join(map(_fault, error.errors()))}. Build the package again.") from None


def builtin_package(name: str) -> Path:
    """The folder of a package that came with edgerun. Raises ModelError when this wheel has none by that name."""
    folder = Path(str(importlib.resources.files("edgerun"))) / "models" / name
    if not _PACKAGE_NAME.fullmatch(name) or not (folder / SUMS).is_file():
        raise ModelError(
            f"model {name!r}: not in this installation, which was built without its weights or under another name. "
            "Install edgerun's released wheel, or give the path of a model package."
        )
    return folder


def write_sums(folder: Path) -> None:
    """Write `SHA256SUMS` over every other file in `folder`, in the format of sha256sum."""
    lines = [f"{sha256_of(folder / name)}  {name}\n" for name in sorted(_files(folder))]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


_PACKAGE_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_RESTORE = "Copy the package again from where it was built."


def _files(folder: Path) -> Iterator[str]:
    """Every file in the package but its checksums, as listed in them."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if name != SUMS and not path.is_dir():
            yield name


def _read_sums(folder: Path) -> dict[str, str]:
    path = folder / SUMS
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")
    except FileNotFoundError:
        raise ModelError(f"{path}: missing; without it nothing in the package can be trusted. {_RESTORE}") from None
    except UnicodeDecodeError:
        raise ModelError(f"{path}: isn't text; expected lines of `<sha256>  <file>`. {_RESTORE}") from None
    if lines.pop():
        raise ModelError(f"{path}: its last line has no end; it was cut off. {_RESTORE}")
    sums = dict(_sum(path, number, line) for number, line in enumerate(lines, 1))
    if len(sums) != len(lines) or MANIFEST not in sums:
        raise ModelError(f"{path}: lists a file twice or lacks {MANIFEST}. {_RESTORE}")
    return sums


def _sum(path: Path, number: int, line: str) -> tuple[str, str]:
    match = _SUM_LINE.fullmatch(line)
    try:
        if match is None:
            raise ValueError
        return _inside_folder(match[2]), match[1]
    except ValueError:
        raise ModelError(f"{path}: line {number} is {line!r}; expected `<sha256>  <file>`. {_RESTORE}") from None


def _verify(folder: Path, sums: Mapping[str, str]) -> None:
    there = set(_files(folder))
    if absent := sorted(sums.keys() - there):
        raise ModelError(f"{folder / absent[0]}: listed in {SUMS} but missing. {_RESTORE}")
    if extra := sorted(there - sums.keys()):
        raise ModelError(f"{folder / extra[0]}: not listed in {SUMS}. Remove it, or build the package again.")
    for name, expected in sums.items():
        found = sha256_of(folder / name)
        if found != expected:
            raise ModelError(
                f"{folder / name}: sha256 is {found[:12]}..., expected {expected[:12]}...; the file was altered. "
                f"{_RESTORE}"
            )


def _fault(error: Mapping[str, Any]) -> str:
    """One fault as `key = found: what was expected`."""
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return f"{key} is missing"
    if error["type"] == "extra_forbidden":
        return f"{key} is not a known key"
    return f"{key} = {error['input']!r}: {error['msg']}" if key else str(error["msg"])
