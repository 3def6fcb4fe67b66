# SPDX-License-Identifier: Apache-2.0
"""A model as KServe's clients see it: metadata, configuration and index entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgerun.infer.engine import Engine, EngineSlot
from edgerun.kserve import grpc_service_pb2 as pb
from edgerun.serve.deployment import Deployment
from edgerun.serve.kserve_tensors import DATATYPES
from edgerun.tensor import TensorSpec

READY = "READY"


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A loaded model, the slots its unary runs may use, and how many more may wait for one."""

    name: str
    version: str
    engine_name: str
    engine: Engine
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    slots: Sequence[EngineSlot]
    max_waiting: int
    hang_timeout_s: float
    properties: Mapping[str, str] = field(default_factory=dict)

    @property
    def platform(self) -> str:
        """In Triton's manner: `onnxruntime_onnx`."""
        return f"{self.engine_name}_onnx"

    def goes_by(self, name: str, version: str) -> bool:
        """No version means any."""
        return name == self.name and version in ("", self.version)


def served_model(deployment: Deployment) -> ServedModel:
    """The model of a deployment. The order of its tensors is the manifest's."""
    package, profile = deployment.model.package, deployment.profile
    return ServedModel(
        name=package.name,
        version=package.version,
        engine_name=deployment.engine_name,
        engine=deployment.model.engine,
        inputs=package.inputs,
        outputs=package.outputs,
        slots=deployment.unary_slots,
        max_waiting=profile.queues.answers,
        hang_timeout_s=profile.worker.hang_timeout_ms / 1e3,
        properties={"graph": deployment.graph.id, "sha256": deployment.graph.sha256, "task": package.manifest.task},
    )


def metadata(model: ServedModel) -> pb.ModelMetadataResponse:
    return pb.ModelMetadataResponse(
        name=model.name,
        versions=[model.version],
        platform=model.platform,
        inputs=map(_tensor_metadata, model.inputs),
        outputs=map(_tensor_metadata, model.outputs),
        properties=model.properties,
    )


def config(model: ServedModel) -> pb.ModelConfigResponse:
    return pb.ModelConfigResponse(
        config=pb.ModelConfig(
            name=model.name,
            platform=model.platform,
            backend=model.engine_name,
            max_batch_size=0,
            input=[pb.ModelInput(name=s.name, data_type=_data_type(s), dims=s.shape) for s in model.inputs],
            output=[pb.ModelOutput(name=s.name, data_type=_data_type(s), dims=s.shape) for s in model.outputs],
            parameters={key: pb.ModelParameter(string_value=value) for key, value in model.properties.items()},
            model_transaction_policy=pb.ModelTransactionPolicy(decoupled=False),
        )
    )


def index(model: ServedModel) -> pb.RepositoryIndexResponse:
    entry = pb.RepositoryIndexResponse.ModelIndex(name=model.name, version=model.version, state=READY)
    return pb.RepositoryIndexResponse(models=[entry])


def _tensor_metadata(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=DATATYPES[spec.dtype], shape=spec.shape)


def _data_type(spec: TensorSpec) -> str:
    return f"TYPE_{DATATYPES[spec.dtype]}"
