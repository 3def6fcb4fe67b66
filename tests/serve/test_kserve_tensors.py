# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from edgerun.serve.kserve_tensors import (
    CONTENTS_FIELDS,
    DATATYPES,
    InvalidRequestError,
    bytes_elements,
    classification,
    plan_request,
    raw_bytes,
    write_input,
)
from edgerun.serve.kserve_wire import WireError, join_reply, join_stream_reply, split_request
from edgerun.tensor import TensorSpec

SHAPE = (2, 3)


def message(spec: TensorSpec) -> pb.ModelInferRequest:
    found = pb.ModelInferRequest(model_name="m")
    found.inputs.add(name=spec.name, datatype=DATATYPES[spec.dtype], shape=spec.shape)
    return found


@pytest.mark.parametrize("dtype", DATATYPES)
def test_raw_contents_of_every_fixed_size_type(dtype: str) -> None:
    spec = TensorSpec("x", dtype, SHAPE)
    values = (np.arange(6) % 2).astype(dtype).reshape(SHAPE)
    wire = memoryview(b"_" + values.tobytes())[1:]  # not aligned
    plan = plan_request(message(spec), [wire], [spec], [])
    array = np.full(SHAPE, 1, dtype)
    write_input(array, plan.inputs[0][1])
    np.testing.assert_array_equal(array, values)


@pytest.mark.parametrize("dtype", CONTENTS_FIELDS)
def test_typed_contents_of_every_type_that_has_them(dtype: str) -> None:
    spec = TensorSpec("x", dtype, SHAPE)
    values = (np.arange(6) % 2).astype(dtype).reshape(SHAPE)
    request = message(spec)
    getattr(request.inputs[0].contents, CONTENTS_FIELDS[dtype]).extend(values.reshape(-1).tolist())
    plan = plan_request(request, [], [spec], [])
    array = np.full(SHAPE, 1, dtype)
    write_input(array, plan.inputs[0][1])
    np.testing.assert_array_equal(array, values)


def test_float16_has_no_typed_contents() -> None:
    spec = TensorSpec("x", "float16", SHAPE)
    with pytest.raises(InvalidRequestError, match="FP16 has no typed contents; send raw_input_contents"):
        plan_request(message(spec), [], [spec], [])


def test_all_faults_come_at_once() -> None:
    spec = TensorSpec("x", "uint8", SHAPE)
    request = message(spec)
    request.inputs[0].datatype = "FP32"
    request.inputs.add(name="y")
    request.outputs.add(name="z")
    with pytest.raises(InvalidRequestError) as error:
        plan_request(request, [memoryview(b"123456")], [spec], [])
    for part in ("input 'y' is not", "1 entries for 2 inputs", "datatype is 'FP32'", "requested output 'z' is not"):
        assert part in str(error.value)


def test_raw_bool_holds_nothing_but_0_and_1() -> None:
    array = np.zeros(3, np.bool_)
    write_input(array, memoryview(b"\x00\x07\xff"))
    assert array.view(np.uint8).tolist() == [0, 1, 1]


def test_bytes_are_as_tritonclient_packs_them() -> None:
    elements = [b"", b"a", bytes(300)]
    packed = serialize_byte_tensor(np.array(elements, object)).item()
    assert raw_bytes(elements) == packed
    assert bytes_elements(packed) == elements
    assert deserialize_bytes_tensor(raw_bytes(elements)).tolist() == elements


@settings(derandomize=True, max_examples=200, deadline=None, database=None)
@given(st.binary(max_size=40))
def test_bytes_of_any_kind_are_read_or_refused(raw: bytes) -> None:
    try:
        elements = bytes_elements(raw)
    except InvalidRequestError:
        return
    assert raw_bytes(elements) == raw


def test_classification_is_stable_and_bounded() -> None:
    assert classification(np.array([[1.0, 3.0, 3.0]], np.float32), 9) == [b"3.000000:1", b"3.000000:2", b"1.000000:0"]


@settings(derandomize=True, max_examples=200, deadline=None, database=None)
@given(st.lists(st.binary(max_size=300), max_size=4), st.text(max_size=9), st.lists(st.integers(0), max_size=3))
def test_splitting_agrees_with_protobuf(tensors: list[bytes], name: str, sides: list[int]) -> None:
    whole = pb.ModelInferRequest(model_name=name, raw_input_contents=tensors, id="i")
    whole.inputs.add(name=name, shape=[side % (1 << 62) for side in sides])
    rest, raw = split_request(whole.SerializeToString())
    assert [bytes(view) for view in raw] == tensors
    del whole.raw_input_contents[:]
    assert pb.ModelInferRequest.FromString(rest) == whole


@settings(derandomize=True, max_examples=300, deadline=None, database=None)
@given(st.binary(max_size=60))
def test_bytes_of_any_kind_are_split_or_refused(wire: bytes) -> None:
    try:
        rest, raw = split_request(wire)
    except WireError:
        return
    assert len(rest) + sum(map(len, raw)) <= len(wire)


def test_joined_replies_are_protobufs() -> None:
    array = np.arange(300, dtype=np.float32).reshape(3, 100)
    head = pb.ModelInferResponse(model_name="m", id="7")
    reply = pb.ModelInferResponse.FromString(join_reply(head.SerializeToString(), [array.data, b"", b"x"]))
    assert list(reply.raw_output_contents) == [array.tobytes(), b"", b"x"]
    assert (reply.model_name, reply.id) == ("m", "7")
    stream = pb.ModelStreamInferResponse.FromString(
        join_stream_reply(head.SerializeToString(), [array.data, b"", b"x"])
    )
    assert stream.infer_response == reply
