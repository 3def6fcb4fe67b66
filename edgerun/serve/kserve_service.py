# SPDX-License-Identifier: Apache-2.0
"""KServe v2 over gRPC, as tritonclient speaks it, for the model of one deployment.

Every message is parsed and serialised here rather than by grpc: tensors then cross in one copy each way, and bytes
that are no message get INVALID_ARGUMENT. Whatever is raised becomes a status in `status_of`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from edgerun import __version__
from edgerun.clock import Clock
from edgerun.errors import EdgerunError, EngineError
from edgerun.infer.engine import EngineSlot, FailureKind, RunError
from edgerun.kserve import grpc_service_pb2 as pb
from edgerun.serve.kserve_model import ServedModel, config, index, metadata
from edgerun.serve.kserve_statistics import Statistics, Total
from edgerun.serve.kserve_tensors import (
    DATATYPES,
    InferPlan,
    InvalidRequestError,
    OutputWanted,
    SharedMemoryError,
    classification,
    plan_request,
    raw_bytes,
    write_input,
)
from edgerun.serve.kserve_wire import Buffer, WireError, join_reply, join_stream_reply, split_request
from edgerun.serve.run_pool import ExpiredError, PoolFullError, RunPool

log = logging.getLogger(__name__)

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
Unary: TypeAlias = Callable[[bytes, Context], Awaitable[bytes]]
Answer: TypeAlias = Callable[[Any], Message]  # to the request of one call
Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"

DESCRIPTOR = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
SERVICE = DESCRIPTOR.full_name
EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration", "statistics")  # only what works
FINAL = pb.ModelInferResponse(parameters={"triton_final_response": pb.InferParameter(bool_param=True)})


class NotServedError(EdgerunError):
    """A model, or a version of it, that isn't here."""


class NotOfferedError(EdgerunError):
    """A call of the protocol that this server doesn't have."""


def status_of(error: Exception) -> tuple[grpc.StatusCode, str]:
    """The status and message for what went wrong; a fault of ours is logged and its text kept to ourselves."""
    match error:
        case NotServedError():
            return grpc.StatusCode.NOT_FOUND, str(error)
        case InvalidRequestError() | WireError():
            return grpc.StatusCode.INVALID_ARGUMENT, str(error)
        case DecodeError():
            return grpc.StatusCode.INVALID_ARGUMENT, "the bytes aren't a message of this call"
        case SharedMemoryError() | NotOfferedError():
            return grpc.StatusCode.UNIMPLEMENTED, str(error)
        case PoolFullError():
            return grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)
        case RunError(kind=FailureKind.THREW | FailureKind.NON_FINITE):
            return grpc.StatusCode.INTERNAL, str(error)
        case ExpiredError() | EngineError():
            return grpc.StatusCode.UNAVAILABLE, str(error)
    log.error("a KServe call failed", exc_info=error)
    return grpc.StatusCode.INTERNAL, "internal error; the server's log has it"


class KServeService:
    """The calls. `close` after the server has stopped and before the engine is closed."""

    def __init__(self, model: ServedModel, clock: Clock) -> None:
        self._model = model
        self._clock = clock
        self._statistics = Statistics()
        self._pool = RunPool(
            model.engine,
            model.slots,
            max_waiting=model.max_waiting,
            hang_timeout_s=model.hang_timeout_s,
            clock=clock,
        )

    def close(self) -> None:
        self._pool.close()

    def handlers(self) -> dict[str, Handler]:
        """A handler for every call of the protocol, by name."""
        answers = self._answers()
        handlers: dict[str, Handler] = {
            method.name: grpc.unary_unary_rpc_method_handler(
                _unary(GetMessageClass(method.input_type), answers.get(method.name) or _refusal(method.name))
            )
            for method in DESCRIPTOR.methods
        }
        handlers["ModelInfer"] = grpc.unary_unary_rpc_method_handler(self.infer)
        handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self.infer_stream)
        return handlers

    async def infer(self, wire: bytes, context: Context) -> bytes:
        try:
            return await self._infer(*_parsed(wire), context, is_stream=False)
        except Exception as error:  # noqa: BLE001  # the service's edge
            await context.abort(*status_of(error))

    async def infer_stream(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        """One request at a time, so replies are in order and a client that doesn't read is not read either."""
        ends_on_error = ("triton_grpc_error", "true") in tuple(context.invocation_metadata() or ())
        async for wire in requests:
            request = pb.ModelInferRequest()
            try:
                request, raw = _parsed(wire)
                reply = await self._infer(request, raw, context, is_stream=True)
            except Exception as error:  # noqa: BLE001  # the service's edge
                status, text = status_of(error)
                if ends_on_error:
                    await context.abort(status, text)
                reply = _in_band(request.id, text)
            yield reply

    async def _infer(
        self, request: pb.ModelInferRequest, raw: list[memoryview], context: Context, *, is_stream: bool
    ) -> bytes:
        self._require_served(request.model_name, request.model_version)
        received_ns = self._clock.now_ns()
        try:
            plan = plan_request(request, raw, self._model.inputs, self._model.outputs)
            head = self._reply_head(request.id, plan, is_stream=is_stream)
            join = join_stream_reply if is_stream else join_reply
            reply, times = await self._pool.run(
                lambda slot: _write(slot, plan),
                lambda slot: join(head, [_read(slot, wanted) for wanted in plan.outputs]),
                _deadline_ns(plan, context, received_ns),
            )
        except Exception:
            self._statistics.failed(self._clock.now_ns() - received_ns)
            raise
        self._statistics.succeeded(self._clock.now_ns() - received_ns, times, time.time_ns() // 1_000_000)
        return reply

    def _reply_head(self, request_id: str, plan: InferPlan, *, is_stream: bool) -> bytes:
        """The reply but for its tensors. A request has one reply, so it is final."""
        reply = pb.ModelInferResponse(
            model_name=self._model.name,
            model_version=self._model.version,
            id=request_id,
            outputs=map(_output, plan.outputs),
        )
        if is_stream:
            reply.MergeFrom(FINAL)
        return reply.SerializeToString()

    def _answers(self) -> Mapping[str, Answer]:
        return {
            "ServerLive": lambda _: pb.ServerLiveResponse(live=True),
            "ServerReady": lambda _: pb.ServerReadyResponse(ready=True),
            "ServerMetadata": lambda _: pb.ServerMetadataResponse(
                name="edgerun", version=__version__, extensions=EXTENSIONS
            ),
            "ModelReady": lambda r: pb.ModelReadyResponse(ready=self._model.goes_by(r.name, r.version)),
            "ModelMetadata": lambda r: metadata(self._require_served(r.name, r.version)),
            "ModelConfig": lambda r: config(self._require_served(r.name, r.version)),
            "ModelStatistics": self._model_statistics,
            "RepositoryIndex": lambda _: index(self._model),
        }

    def _require_served(self, name: str, version: str) -> ServedModel:
        model = self._model
        if model.goes_by(name, version):
            return model
        asked = f"model {name[:64]!r}" if name != model.name else f"version {version[:64]!r} of {name}"
        raise NotServedError(f"{asked} is not served here; this server has {model.name} {model.version}")

    def _model_statistics(self, request: pb.ModelStatisticsRequest) -> pb.ModelStatisticsResponse:
        if request.name:
            self._require_served(request.name, request.version)
        return pb.ModelStatisticsResponse(model_stats=[_statistics(self._model, self._statistics)])


def add_kserve(server: grpc.aio.Server, model: ServedModel, clock: Clock) -> KServeService:
    """Serve `model`; the caller closes what is returned. Starts the threads of its unary runs."""
    service = KServeService(model, clock)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, service.handlers()),))
    return service


def _unary(kind: type[Message], answer: Answer) -> Unary:
    async def call(wire: bytes, context: Context) -> bytes:
        try:
            return answer(kind.FromString(wire)).SerializeToString()
        except Exception as error:  # noqa: BLE001  # the service's edge
            await context.abort(*status_of(error))

    return call


def _refusal(name: str) -> Answer:
    def refuse(_: Message) -> NoReturn:
        raise NotOfferedError(f"{name} is not offered by edgerun {__version__}; ServerMetadata lists what is")

    return refuse


def _parsed(wire: bytes) -> tuple[pb.ModelInferRequest, list[memoryview]]:
    rest, raw = split_request(wire)
    return pb.ModelInferRequest.FromString(rest), raw


def _in_band(request_id: str, text: str) -> bytes:
    return pb.ModelStreamInferResponse(
        error_message=text, infer_response=pb.ModelInferResponse(id=request_id)
    ).SerializeToString()


def _deadline_ns(plan: InferPlan, context: Context, received_ns: int) -> int | None:
    """When the run must have begun: the earlier of the `timeout` parameter's end and the call's deadline."""
    ends = [received_ns + 1000 * plan.timeout_us] if plan.timeout_us else []
    left_s = context.time_remaining()
    if left_s is not None:
        ends.append(received_ns + round(left_s * 1e9))
    return min(ends, default=None)


def _write(slot: EngineSlot, plan: InferPlan) -> None:
    for spec, content in plan.inputs:
        write_input(slot.inputs[spec.name], content)


def _read(slot: EngineSlot, wanted: OutputWanted) -> Buffer:
    array = slot.outputs[wanted.spec.name]
    return raw_bytes(classification(array, wanted.classes)) if wanted.classes else array.data


def _output(wanted: OutputWanted) -> pb.ModelInferResponse.InferOutputTensor:
    spec = wanted.spec
    if wanted.classes:
        count = min(wanted.classes, math.prod(spec.shape))
        return pb.ModelInferResponse.InferOutputTensor(name=spec.name, datatype="BYTES", shape=[count])
    return pb.ModelInferResponse.InferOutputTensor(name=spec.name, datatype=DATATYPES[spec.dtype], shape=spec.shape)


def _statistics(model: ServedModel, found: Statistics) -> pb.ModelStatistics:
    runs = found.compute_infer.count
    computed = {name: _total(getattr(found, name)) for name in ("compute_input", "compute_infer", "compute_output")}
    return pb.ModelStatistics(
        name=model.name,
        version=model.version,
        last_inference=found.last_inference_ms,
        inference_count=runs,
        execution_count=runs,
        inference_stats=pb.InferStatistics(
            success=_total(found.success), fail=_total(found.fail), queue=_total(found.queue), **computed
        ),
        batch_stats=[pb.InferBatchStatistics(batch_size=1, **computed)] if runs else [],
    )


def _total(total: Total) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=total.count, ns=total.ns)
