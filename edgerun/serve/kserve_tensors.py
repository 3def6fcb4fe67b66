# SPDX-License-Identifier: Apache-2.0
"""KServe's tensors and a model's: data types, contents typed and raw, and the whole check of a request.

Takes messages without importing their generated module, so that it can live beside another client's copy of it.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgerun.errors import EdgerunError
from edgerun.tensor import TensorSpec

if TYPE_CHECKING:
    from edgerun.kserve import grpc_service_pb2 as pb

Array: TypeAlias = NDArray[Any]
Content: TypeAlias = "memoryview | pb.InferTensorContents"

DATATYPES: Mapping[str, str] = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "float16": "FP16", "float32": "FP32", "float64": "FP64",
}  # fmt: skip
CONTENTS_FIELDS: Mapping[str, str] = {
    "bool": "bool_contents", "uint8": "uint_contents", "uint16": "uint_contents", "uint32": "uint_contents",
    "uint64": "uint64_contents", "int8": "int_contents", "int16": "int_contents", "int32": "int_contents",
    "int64": "int64_contents", "float32": "fp32_contents", "float64": "fp64_contents",
}  # fmt: skip
LENGTH = struct.Struct("<I")  # before each element of raw BYTES
MAX_SHOWN = 8  # of what a request holds, in an error message


class InvalidRequestError(EdgerunError):
    """A request that can't be run; all its faults are in the message."""


class SharedMemoryError(EdgerunError):
    """A request names a region of shared memory, which this server doesn't map."""


@dataclass(frozen=True, slots=True)
class OutputWanted:
    """One output of a reply. `classes` > 0 asks for that many of the largest values instead of the tensor."""

    spec: TensorSpec
    classes: int = 0


@dataclass(frozen=True, slots=True)
class InferPlan:
    """A valid request: where each input's values lie, and which outputs go back in which order."""

    inputs: Sequence[tuple[TensorSpec, Content]]
    outputs: tuple[OutputWanted, ...]
    timeout_us: int = 0


def plan_request(
    request: pb.ModelInferRequest,
    raw: Sequence[memoryview],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
) -> InferPlan:
    """Check a request against a model's tensors. `raw` stands for its raw_input_contents.

    Raises InvalidRequestError or SharedMemoryError. Typed values are checked when they are written.
    """
    _refuse_shared_memory(request)
    faults = [*_name_faults("input", [i.name for i in request.inputs], inputs), *_missing_faults(request, inputs)]
    faults += _content_faults(request, raw)
    by_name = {spec.name: spec for spec in inputs}
    pairs: list[tuple[TensorSpec, Content]] = []
    for index, tensor in enumerate(request.inputs):
        if (spec := by_name.get(tensor.name)) is None:
            continue
        content: Content = raw[index] if index < len(raw) else tensor.contents
        faults += _tensor_faults(tensor, spec, content)
        pairs.append((spec, content))
    wanted, output_faults = _outputs_wanted(request, outputs)
    timeout_us, timeout_faults = _timeout_us(request)
    if faults := faults + output_faults + timeout_faults:
        raise InvalidRequestError("; ".join(faults))
    return InferPlan(pairs, wanted, timeout_us)


def write_input(array: Array, content: Content) -> None:
    """Copy a planned input into `array`. Raises InvalidRequestError on a typed value outside the data type."""
    if isinstance(content, memoryview):
        flat = array.reshape(-1).view(np.uint8)
        flat[:] = np.frombuffer(content, np.uint8)
        if array.dtype == np.bool_:
            np.not_equal(flat, 0, out=array.reshape(-1))  # a bool holds 0 or 1, whatever came
        return
    values = getattr(content, CONTENTS_FIELDS[array.dtype.name])
    if array.dtype.kind in "iu" and array.dtype.itemsize < 4:
        _copy_narrow(array, np.fromiter(values, np.int64, len(values)))
    else:
        array.reshape(-1)[:] = np.fromiter(values, array.dtype, len(values))


def _copy_narrow(array: Array, values: Array) -> None:
    limits = np.iinfo(array.dtype)
    if int(values.min()) < limits.min or int(values.max()) > limits.max:
        raise InvalidRequestError(
            f"contents hold {values.min()} to {values.max()}; "
            f"expected {limits.min} to {limits.max} for {DATATYPES[array.dtype.name]}"
        )
    array.reshape(-1)[:] = values


def bytes_elements(raw: memoryview | bytes) -> list[bytes]:
    """The elements of a raw BYTES tensor. Raises InvalidRequestError when a length leads past the end."""
    view, at = memoryview(raw), 0
    elements: list[bytes] = []
    while at < len(view):
        end = at + LENGTH.size
        size = LENGTH.unpack_from(view, at)[0] if end <= len(view) else 0
        if end + size > len(view):
            raise InvalidRequestError(
                f"BYTES element {len(elements)} needs {LENGTH.size + size} bytes at {at}; there are {len(view) - at}"
            )
        elements.append(bytes(view[end : end + size]))
        at = end + size
    return elements


def raw_bytes(elements: Sequence[bytes]) -> bytes:
    """A raw BYTES tensor of `elements`."""
    return b"".join(part for element in elements for part in (LENGTH.pack(len(element)), element))


def classification(array: Array, classes: int) -> list[bytes]:
    """`value:index` of the largest values of a tensor, largest first; of equal ones the first."""
    flat = array.reshape(-1)
    order = np.argsort(-flat.astype(np.float64), kind="stable")[:classes]
    return [f"{float(flat[index]):f}:{index}".encode() for index in order]


def _refuse_shared_memory(request: pb.ModelInferRequest) -> None:
    for side, tensors in (("input", request.inputs), ("output", request.outputs)):
        for tensor in tensors:
            if "shared_memory_region" in tensor.parameters:
                raise SharedMemoryError(
                    f"{side} {_shown(tensor.name)} is in shared memory, which this server doesn't map; send bytes"
                )


def _name_faults(side: str, names: Sequence[str], specs: Sequence[TensorSpec]) -> Iterator[str]:
    known = {spec.name for spec in specs}
    if unknown := [name for name in dict.fromkeys(names) if name not in known]:
        shown = ", ".join(map(_shown, unknown[:MAX_SHOWN]))
        yield f"{side} {shown} is not the model's; expected {', '.join(sorted(known))}"
    for name, count in Counter(names).items():
        if count > 1 and name in known:
            yield f"{side} {name} came {count} times; expected once"


def _missing_faults(request: pb.ModelInferRequest, specs: Sequence[TensorSpec]) -> Iterator[str]:
    there = {tensor.name for tensor in request.inputs}
    for spec in specs:
        if spec.name not in there:
            yield f"input {spec.name} is missing; expected {_described(spec)}"


def _content_faults(request: pb.ModelInferRequest, raw: Sequence[memoryview]) -> Iterator[str]:
    if not raw:
        return
    if len(raw) != len(request.inputs):
        yield f"raw_input_contents has {len(raw)} entries for {len(request.inputs)} inputs; expected one for each"
    if both := [tensor.name for tensor in request.inputs if tensor.HasField("contents")]:
        shown = ", ".join(map(_shown, both[:MAX_SHOWN]))
        yield f"input {shown} has contents beside raw_input_contents; expected one of the two"


def _tensor_faults(tensor: pb.ModelInferRequest.InferInputTensor, spec: TensorSpec, content: Content) -> list[str]:
    datatype = DATATYPES[spec.dtype]
    faults = []
    if tensor.datatype != datatype:
        faults.append(f"input {spec.name}: datatype is {_shown(tensor.datatype)}; expected {datatype}")
    if tuple(tensor.shape) != spec.shape:
        sides = ", ".join(map(str, tensor.shape[:MAX_SHOWN])) + (", ..." if len(tensor.shape) > MAX_SHOWN else "")
        faults.append(f"input {spec.name}: shape is [{sides}]; expected {list(spec.shape)}")
    if faults:
        return faults  # the size would only repeat it
    if isinstance(content, memoryview):
        return [] if content.nbytes == spec.nbytes else [
            f"input {spec.name}: {content.nbytes} raw bytes; expected {spec.nbytes} for {_described(spec)}"
        ]  # fmt: skip
    return _typed_faults(spec, content)


def _typed_faults(spec: TensorSpec, content: pb.InferTensorContents) -> list[str]:
    field = CONTENTS_FIELDS.get(spec.dtype)
    there = {descriptor.name: len(values) for descriptor, values in content.ListFields()}
    if field is None:
        return [f"input {spec.name}: {DATATYPES[spec.dtype]} has no typed contents; send raw_input_contents"]
    expected = spec.nbytes // np.dtype(spec.dtype).itemsize
    if there == {field: expected}:
        return []
    found = ", ".join(f"{count} in {name}" for name, count in there.items()) or "nothing"
    return [f"input {spec.name}: contents hold {found}; expected {expected} in {field}, or raw_input_contents"]


def _outputs_wanted(
    request: pb.ModelInferRequest, specs: Sequence[TensorSpec]
) -> tuple[tuple[OutputWanted, ...], list[str]]:
    if not request.outputs:
        return tuple(OutputWanted(spec) for spec in specs), []
    faults = list(_name_faults("requested output", [tensor.name for tensor in request.outputs], specs))
    by_name = {spec.name: spec for spec in specs}
    wanted = []
    for tensor in request.outputs:
        classes, found = _integer(tensor.parameters, "classification")
        if found is not None and classes < 1:
            faults.append(f"requested output {_shown(tensor.name)}: classification = {found}; expected 1 or more")
        if tensor.name in by_name:
            wanted.append(OutputWanted(by_name[tensor.name], classes))
    return tuple(wanted), faults


def _timeout_us(request: pb.ModelInferRequest) -> tuple[int, list[str]]:
    timeout_us, found = _integer(request.parameters, "timeout")
    if found is not None and timeout_us < 0:
        return 0, [f"timeout = {found}; expected microseconds, 0 or more"]
    return timeout_us, []


def _integer(parameters: Mapping[str, pb.InferParameter], name: str) -> tuple[int, str | None]:
    """A parameter that may come as either integer type, and how it was found: -1 for what is no integer."""
    if name not in parameters:
        return 0, None
    parameter = parameters[name]
    kind = parameter.WhichOneof("parameter_choice")
    if kind == "int64_param":
        return parameter.int64_param, str(parameter.int64_param)
    if kind == "uint64_param":
        return parameter.uint64_param, str(parameter.uint64_param)
    return -1, f"a {kind or 'parameter without a value'}"


def _described(spec: TensorSpec) -> str:
    return f"{DATATYPES[spec.dtype]} {list(spec.shape)}"


def _shown(text: str) -> str:
    """A client's text, quoted and of bounded length."""
    return repr(text if len(text) <= 64 else text[:61] + "...")
