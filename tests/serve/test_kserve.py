# SPDX-License-Identifier: Apache-2.0
"""KServe v2 as its clients see it: the real tritonclient against the real server in its own process.

tritonclient's messages are ours on the wire, so the checks of a request are also tested with them, in this process.
"""

from __future__ import annotations

import asyncio
import queue
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import InferenceServerException

from edgerun.infer.engine import EngineChoice
from edgerun.infer.select import engine_from_choice
from edgerun.model_package import builtin_package, load_package

MODEL = "polyp-seg-lite"
VERSION = load_package(builtin_package(MODEL)).version
SHAPE = (1, 3, 320, 320)
ENGINE, PRECISION = "onnxruntime", "fp32"
INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
Picture = NDArray[np.uint8]

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    command = [sys.executable, "-m", "edgerun", "serve", "--grpc", "127.0.0.1:0"]
    server = subprocess.Popen(
        [*command, "--engine", ENGINE, "--precision", PRECISION], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert server.stdout is not None
    found = re.search(r"grpc=(\S+)", server.stdout.readline())
    try:
        yield found[1] if found else ""
    finally:
        server.terminate()
        _, errors = server.communicate(timeout=20)
    assert found, errors
    assert server.returncode == 0
    assert "Traceback" not in errors


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address) as found:
        yield found


@pytest.fixture(scope="module")
def channel(address: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(address) as found:
        yield found


@pytest.fixture(scope="module")
def picture() -> Picture:
    return np.random.default_rng(4).integers(0, 256, SHAPE, np.uint8)


@pytest.fixture(scope="module")
def expected(picture: Picture) -> NDArray[np.float32]:
    """What the same graph gives in this process."""
    graph = load_package(builtin_package(MODEL)).graph(PRECISION)
    engine = engine_from_choice(EngineChoice(ENGINE, str(graph.path)))
    (slot,) = engine.slots(1)
    slot.inputs["image"][:] = picture
    engine.submit(slot)
    engine.wait(slot)
    result = np.array(slot.outputs["logits"])
    engine.close()
    return result


def as_input(picture: Picture) -> triton.InferInput:
    tensor = triton.InferInput("image", picture.shape, "UINT8")
    tensor.set_data_from_numpy(picture)
    return tensor


def request(picture: Picture, **fields: Any) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name=MODEL, raw_input_contents=[picture.tobytes()])
    message.inputs.add(name="image", datatype="UINT8", shape=picture.shape)
    message.MergeFrom(pb.ModelInferRequest(**fields))
    return message


def send(channel: grpc.Channel, message: pb.ModelInferRequest | bytes, **options: Any) -> pb.ModelInferResponse:
    wire = message if isinstance(message, bytes) else message.SerializeToString()
    call = call_of(channel, INFER)
    return pb.ModelInferResponse.FromString(call(wire, timeout=10, **options))


def refused(channel: grpc.Channel, message: pb.ModelInferRequest | bytes) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as error:
        send(channel, message)
    return error.value.code(), str(error.value.details())


# What a client asks first


def test_server_and_model_describe_themselves(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, VERSION)
    assert not client.is_model_ready(MODEL, "9")
    assert not client.is_model_ready("absent")
    assert set(client.get_server_metadata().extensions) == {
        "binary_tensor_data", "classification", "model_configuration", "statistics",
    }  # fmt: skip
    model = client.get_model_metadata(MODEL)
    assert [(t.name, t.datatype, tuple(t.shape)) for t in model.inputs] == [("image", "UINT8", SHAPE)]
    assert [(t.name, t.datatype, tuple(t.shape)) for t in model.outputs] == [("logits", "FP32", (1, 1, 80, 80))]
    assert model.platform == "onnxruntime_onnx"
    config = client.get_model_config(MODEL).config
    assert (config.max_batch_size, tuple(config.input[0].dims)) == (0, SHAPE)
    assert config.output[0].data_type == 11  # TYPE_FP32
    (entry,) = client.get_model_repository_index().models
    assert (entry.name, entry.version, entry.state) == (MODEL, VERSION, "READY")


def test_health_and_reflection(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", "inference.GRPCInferenceService", "edgerun.v1.StreamService"):
        reply = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
    # ServerReflectionRequest{list_services=7: ""}; the reply names each service
    call: Any = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    (reply,) = list(call(iter([b"\x3a\x00"]), timeout=10))
    assert b"inference.GRPCInferenceService" in reply


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.load_model(MODEL),
        lambda c: c.unload_model(MODEL),
        lambda c: c.register_system_shared_memory("a", "/a", 16),
        lambda c: c.get_cuda_shared_memory_status(),
        lambda c: c.get_trace_settings(),
        lambda c: c.update_log_settings({"log_info": True}),
    ],
)
def test_what_is_not_offered_says_so(client: triton.InferenceServerClient, call: Any) -> None:
    with pytest.raises(InferenceServerException, match="is not offered by edgerun") as error:
        call(client)
    assert error.value.status() == "StatusCode.UNIMPLEMENTED"


@pytest.mark.parametrize("call", ["get_model_metadata", "get_model_config", "get_inference_statistics"])
def test_a_model_that_is_not_here_is_not_found(client: triton.InferenceServerClient, call: str) -> None:
    for name, version in (("absent", ""), (MODEL, "7")):
        with pytest.raises(
            InferenceServerException, match=f"this server has polyp-seg-lite {re.escape(VERSION)}"
        ) as error:
            getattr(client, call)(name, version)
        assert error.value.status() == "StatusCode.NOT_FOUND"


# Results


def test_result_is_that_of_the_graph(
    client: triton.InferenceServerClient, picture: Picture, expected: NDArray[np.float32]
) -> None:
    result = client.infer(MODEL, [as_input(picture)], request_id="a-1", model_version=VERSION, priority=1)
    np.testing.assert_array_equal(result.as_numpy("logits"), expected)
    reply = result.get_response()
    assert (reply.id, reply.model_name, reply.model_version) == ("a-1", MODEL, VERSION)
    assert len(reply.raw_output_contents) == len(reply.outputs) == 1


def test_typed_contents_give_the_same(channel: grpc.Channel, picture: Picture, expected: NDArray[np.float32]) -> None:
    message = request(picture)
    del message.raw_input_contents[:]
    message.inputs[0].contents.uint_contents.extend(picture.reshape(-1).tolist())
    reply = send(channel, message)
    np.testing.assert_array_equal(np.frombuffer(reply.raw_output_contents[0], np.float32), expected.reshape(-1))


def test_classification_returns_the_largest_values(
    client: triton.InferenceServerClient, picture: Picture, expected: NDArray[np.float32]
) -> None:
    wanted = triton.InferRequestedOutput("logits", class_count=3)
    (best, second, third) = client.infer(MODEL, [as_input(picture)], outputs=[wanted]).as_numpy("logits")
    value, place = best.decode().split(":")
    assert int(place) == int(expected.argmax())
    assert float(value) == pytest.approx(float(expected.max()), abs=1e-6)
    assert float(second.decode().split(":")[0]) >= float(third.decode().split(":")[0])


def test_asyncio_client_runs_several_at_once(address: str, picture: Picture, expected: NDArray[np.float32]) -> None:
    async def run() -> list[Any]:
        async with triton_aio.InferenceServerClient(address) as client:
            return await asyncio.gather(
                *(client.infer(MODEL, [as_input(picture)], request_id=str(i)) for i in range(8))
            )

    results = asyncio.run(run())
    assert [result.get_response().id for result in results] == [str(i) for i in range(8)]
    for result in results:
        np.testing.assert_array_equal(result.as_numpy("logits"), expected)


def test_statistics_only_grow(client: triton.InferenceServerClient, channel: grpc.Channel, picture: Picture) -> None:
    before = client.get_inference_statistics(MODEL).model_stats[0]
    client.infer(MODEL, [as_input(picture)])
    refused(channel, request(picture, outputs=[{"name": "absent"}]))
    (after,) = client.get_inference_statistics().model_stats
    assert after.inference_count == before.inference_count + 1
    assert after.inference_stats.fail.count == before.inference_stats.fail.count + 1
    for stage in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        old, new = getattr(before.inference_stats, stage), getattr(after.inference_stats, stage)
        assert new.count == old.count + 1
        assert new.ns > old.ns
    assert after.last_inference > 1_700_000_000_000


# Streaming


def converse(
    address: str, requests: list[dict[str, Any]], headers: dict[str, str] | None = None
) -> list[tuple[Any, InferenceServerException | None]]:
    """Send all, then take one answer for each or until the stream breaks."""
    answers: queue.SimpleQueue[tuple[Any, InferenceServerException | None]] = queue.SimpleQueue()
    found: list[tuple[Any, InferenceServerException | None]] = []
    with triton.InferenceServerClient(address) as client:
        client.start_stream(lambda result, error: answers.put((result, error)), headers=headers)
        for fields in requests:
            client.async_stream_infer(**fields)
        while len(found) < len(requests):
            found.append(answers.get(timeout=10))
            if found[-1][1] is not None and headers:
                break
        client.stop_stream()
    return found


def test_stream_answers_in_order_and_keeps_going_after_a_fault(
    address: str, picture: Picture, expected: NDArray[np.float32]
) -> None:
    good = {"model_name": MODEL, "inputs": [as_input(picture)], "enable_empty_final_response": True}
    bad = {"model_name": "absent", "inputs": [as_input(picture)]}
    answers = converse(address, [{**(bad if i == 2 else good), "request_id": str(i)} for i in range(6)])
    for number, (result, error) in enumerate(answers):
        if number == 2:
            assert "'absent' is not served here" in str(error)
            continue
        assert result.get_response().id == str(number)
        assert result.get_response().parameters["triton_final_response"].bool_param
        np.testing.assert_array_equal(result.as_numpy("logits"), expected)


def test_stream_ends_with_a_status_when_asked(address: str, picture: Picture) -> None:
    good = {"model_name": MODEL, "inputs": [as_input(picture)]}
    answers = converse(address, [good, {**good, "model_name": "absent"}, good], {"triton_grpc_error": "true"})
    assert [error is None for _, error in answers] == [True, False]
    assert answers[1][1] is not None
    assert answers[1][1].status() == "StatusCode.NOT_FOUND"


def test_fault_in_a_stream_bears_the_id(channel: grpc.Channel, picture: Picture) -> None:
    bad = request(picture, id="seven", outputs=[{"name": "absent"}]).SerializeToString()
    call: Any = channel.stream_stream(STREAM)
    wires = call(iter([bad, b"\xff", bad]), timeout=10)
    replies = [pb.ModelStreamInferResponse.FromString(wire) for wire in wires]
    assert [reply.infer_response.id for reply in replies] == ["seven", "", "seven"]
    assert all(reply.error_message for reply in replies)


# Refusals


def changed(picture: Picture, **tensor: Any) -> pb.ModelInferRequest:
    message = request(picture)
    for name, value in tensor.items():
        if name == "shape":
            message.inputs[0].shape[:] = value
        else:
            setattr(message.inputs[0], name, value)
    return message


def both_contents(picture: Picture) -> pb.ModelInferRequest:
    message = request(picture)
    message.inputs[0].contents.uint_contents.append(1)
    return message


def typed(picture: Picture, field: str, values: list[Any]) -> pb.ModelInferRequest:
    message = request(picture)
    del message.raw_input_contents[:]
    getattr(message.inputs[0].contents, field).extend(values)
    return message


REFUSALS: dict[str, tuple[Callable[[Picture], pb.ModelInferRequest | bytes], str]] = {
    "name": (lambda p: changed(p, name="imag"), r"input 'imag' is not the model's; expected image; input image is mi"),
    "datatype": (lambda p: changed(p, datatype="FP32"), r"input image: datatype is 'FP32'; expected UINT8"),
    "bytes": (lambda p: changed(p, datatype="BYTES"), r"input image: datatype is 'BYTES'; expected UINT8"),
    "shape": (lambda p: changed(p, shape=[1, 3, 320]), r"shape is \[1, 3, 320\]; expected \[1, 3, 320, 320\]"),
    "negative shape": (lambda p: changed(p, shape=[-1, -3, 320, 320]), r"shape is \[-1, -3, 320, 320\]"),
    "huge shape": (lambda p: changed(p, shape=[1 << 62] * 4), r"shape is \[4611686018427387904"),
    "byte count": (lambda p: request(narrower(p)), r"shape is \[1, 3, 320, 319\]"),
    "lying shape": (lambda p: changed(narrower(p), shape=SHAPE), r"306240 raw bytes; expected 307200 for UINT8 \["),
    "no input": (lambda _: pb.ModelInferRequest(model_name=MODEL), r"input image is missing; expected UINT8 \[1, 3"),
    "twice": (lambda p: request(p, inputs=[{"name": "image"}]), r"input image came 2 times; .* 1 entries for 2 inputs"),
    "raw count": (lambda p: request(p, raw_input_contents=[b"x"]), r"raw_input_contents has 2 entries for 1 inputs"),
    "both": (both_contents, r"input 'image' has contents beside raw_input_contents; expected one"),
    "nothing": (lambda p: typed(p, "uint_contents", []), r"contents hold nothing; expected 307200 in uint_contents"),
    "too few": (lambda p: typed(p, "uint_contents", [1, 2]), r"contents hold 2 in uint_contents; expected 307200"),
    "wrong field": (lambda p: typed(p, "fp32_contents", [1.0]), r"contents hold 1 in fp32_contents; expected 307200"),
    "out of range": (lambda p: typed(p, "uint_contents", [256] * p.size), r"contents hold 256 to 256; expected 0 to 2"),
    "output": (lambda p: request(p, outputs=[{"name": "mask"}]), r"requested output 'mask' is not the model's; expec"),
    "output twice": (lambda p: request(p, outputs=[{"name": "logits"}] * 2), r"requested output logits came 2 times"),
    "timeout": (lambda p: request(p, parameters={"timeout": {"string_param": "1"}}), r"timeout = a string_param; exp"),
    "not a message": (lambda _: b"\x0a\xff", r"needs? .*|ends at byte|has no end"),
    "not text": (lambda _: b"\x0a\x01\xff", r"the bytes aren't a message of this call"),
    "too many fields": (lambda _: b"\x1a\x00" * 2000, r"more than 1024 fields"),
}  # fmt: skip


def call_of(channel: grpc.Channel, method: str) -> Any:
    """A stub that sends and returns bytes, whatever they are."""
    return channel.unary_unary(method)


def narrower(picture: Picture) -> Picture:
    return np.ascontiguousarray(picture[..., :319])


@pytest.mark.parametrize("case", REFUSALS)
def test_refusal_says_what_which_expected_found(channel: grpc.Channel, picture: Picture, case: str) -> None:
    build, message = REFUSALS[case]
    status, details = refused(channel, build(picture))
    assert status is grpc.StatusCode.INVALID_ARGUMENT
    assert re.search(message, details), details


def test_shared_memory_is_refused_as_not_offered(channel: grpc.Channel, picture: Picture) -> None:
    message = request(picture)
    message.inputs[0].parameters["shared_memory_region"].string_param = "region"
    status, details = refused(channel, message)
    assert (status, "which this server doesn't map" in details) == (grpc.StatusCode.UNIMPLEMENTED, True)


def test_unknown_version_is_not_found(channel: grpc.Channel, picture: Picture) -> None:
    status, details = refused(channel, request(picture, model_version="2"))
    assert status is grpc.StatusCode.NOT_FOUND
    assert details == f"version '2' of polyp-seg-lite is not served here; this server has polyp-seg-lite {VERSION}"


def test_message_over_the_limit_is_refused(address: str, channel: grpc.Channel, picture: Picture) -> None:
    status, _ = refused(channel, request(picture, raw_input_contents=[bytes(67_108_864)]))
    assert status is grpc.StatusCode.RESOURCE_EXHAUSTED


# Load


def test_more_than_may_wait_is_refused_and_the_rest_answered(
    channel: grpc.Channel, picture: Picture, expected: NDArray[np.float32]
) -> None:
    """2 slots and 32 places in the line; 60 at once."""
    wire = request(picture).SerializeToString()
    calls = [call_of(channel, INFER).future(wire, timeout=20) for _ in range(60)]
    codes = [call.code() for call in calls]
    assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert codes.count(grpc.StatusCode.OK) >= 34
    for call in calls:
        if call.code() is grpc.StatusCode.OK:
            reply = pb.ModelInferResponse.FromString(call.result())
            np.testing.assert_array_equal(np.frombuffer(reply.raw_output_contents[0], np.float32), expected.reshape(-1))


def test_timeout_and_cancellation_take_what_waits_out_of_the_line(
    client: triton.InferenceServerClient, channel: grpc.Channel, picture: Picture
) -> None:
    before = client.get_inference_statistics(MODEL).model_stats[0].inference_count
    wire = request(picture).SerializeToString()
    impatient = request(picture, parameters={"timeout": {"int64_param": 5000}}).SerializeToString()
    busy = [call_of(channel, INFER).future(wire, timeout=20) for _ in range(20)]
    expired = call_of(channel, INFER).future(impatient, timeout=20)
    cancelled = [call_of(channel, INFER).future(wire, timeout=20) for _ in range(10)]
    for call in cancelled:
        call.cancel()
    assert expired.code() is grpc.StatusCode.UNAVAILABLE
    assert "was over before a slot was free" in expired.details()
    assert [call.code() for call in busy] == [grpc.StatusCode.OK] * 20
    client.infer(MODEL, [as_input(picture)])
    after = client.get_inference_statistics(MODEL).model_stats[0].inference_count
    assert before + 21 <= after <= before + 25  # of the ten cancelled, few had begun


# Bytes of any kind


@settings(max_examples=150, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_random_bytes_get_a_status_and_harm_nothing(channel: grpc.Channel, data: st.DataObject) -> None:
    wire = data.draw(st.one_of(st.binary(max_size=200), damaged_requests()))
    call = call_of(channel, INFER)
    with pytest.raises(grpc.RpcError) as error:
        call(wire, timeout=5)
    assert error.value.code() in (
        grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["ModelMetadata", "ModelConfig", "ModelStatistics", "RepositoryIndex", "ServerLive"])
@settings(max_examples=20, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(wire=st.binary(max_size=40))
def test_random_bytes_to_the_other_calls(channel: grpc.Channel, name: str, wire: bytes) -> None:
    call = call_of(channel, f"/inference.GRPCInferenceService/{name}").future(wire, timeout=5)
    assert call.code() in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)


def test_the_server_is_well_after_all_this(
    client: triton.InferenceServerClient, picture: Picture, expected: NDArray[np.float32]
) -> None:
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda _: client.infer(MODEL, [as_input(picture)]), range(8)))
    for result in results:
        np.testing.assert_array_equal(result.as_numpy("logits"), expected)


texts = st.one_of(st.sampled_from(["", MODEL, "image", "logits", "UINT8", "BYTES"]), st.text(max_size=80))
parameters = st.dictionaries(
    st.one_of(st.sampled_from(["timeout", "classification", "shared_memory_region", "sequence_id"]), st.text()),
    st.one_of(
        st.builds(lambda v: pb.InferParameter(int64_param=v), st.integers(-(1 << 63), (1 << 63) - 1)),
        st.builds(lambda v: pb.InferParameter(uint64_param=v), st.integers(0, (1 << 64) - 1)),
        st.builds(lambda v: pb.InferParameter(string_param=v), st.text()),
        st.builds(pb.InferParameter),
    ),
    max_size=3,
)


@st.composite
def damaged_requests(draw: st.DrawFn) -> bytes:
    """A request with anything in any field; too small to be valid."""
    message = pb.ModelInferRequest(
        model_name=draw(st.sampled_from([MODEL, MODEL, "", "x"])), id=draw(st.text(max_size=20)),
        raw_input_contents=draw(st.lists(st.binary(max_size=60), max_size=3)),
    )  # fmt: skip
    for _ in range(draw(st.integers(0, 3))):
        tensor = message.inputs.add(name=draw(texts), datatype=draw(texts))
        tensor.shape.extend(draw(st.lists(st.integers(-(1 << 63), (1 << 63) - 1), max_size=5)))
        tensor.contents.bytes_contents.extend(draw(st.lists(st.binary(max_size=9), max_size=2)))
        for key, value in draw(parameters).items():
            tensor.parameters[key].CopyFrom(value)
    for _ in range(draw(st.integers(0, 2))):
        tensor = message.outputs.add(name=draw(texts))
        for key, value in draw(parameters).items():
            tensor.parameters[key].CopyFrom(value)
    for key, value in draw(parameters).items():
        message.parameters[key].CopyFrom(value)
    return bytes(message.SerializeToString())
