# SPDX-License-Identifier: Apache-2.0
"""A torch network -> an ONNX graph that takes camera bytes."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from edgerun.errors import ModelError
from edgerun.tensor import TensorSpec

OPSET = 17


class FromBytes(nn.Module):
    """The network behind the exact normalisation (x - 128) / 128: uint8 [B, 3, H, W] -> what the network gives."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        # Cast, Sub, Div stay three nodes: every engine takes them, and folding them into the first convolution
        # (Pad with 128, then a valid convolution) was exact but no faster.
        out: Tensor = self.network((image.float() - 128) / 128)
        return out


def onnx_from_torch(network: nn.Module, image: TensorSpec, logits: TensorSpec) -> onnx.ModelProto:
    """Export `network` (normalised float input) in evaluation mode, batch normalisation folded, names as given.

    Raises ModelError when the exporter gives another opset, other shapes, or leaves a batch normalisation.
    """
    module = FromBytes(network).eval()
    example = torch.zeros(image.shape, dtype=torch.uint8)
    with _quiet():
        program = torch.onnx.export(
            module, (example,), input_names=[image.name], output_names=[logits.name], opset_version=OPSET, dynamo=True
        )
    assert program is not None
    model = _without_notes(program.model_proto)
    _check(model, image, logits)
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch's exporter prints progress and warns about itself; its failures are exceptions."""
    logs = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


def _without_notes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop stack traces and source paths: they name the exporting machine and make builds differ."""
    graph = model.graph
    holders: list[Any] = [model, graph]
    for holder in (*holders, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del holder.metadata_props[:]
        holder.doc_string = ""
    return model


def _check(model: onnx.ModelProto, image: TensorSpec, logits: TensorSpec) -> None:
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if opset != OPSET:
        raise ModelError(f"export: opset is {opset}, expected {OPSET}. Install a torch that can export opset {OPSET}.")
    if any(node.op_type == "BatchNormalization" for node in model.graph.node):
        raise ModelError("export: a BatchNormalization was not folded. Put it right behind its convolution.")
    for value, spec in ((model.graph.input[0], image), (model.graph.output[0], logits)):
        found = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        if value.name != spec.name or found != spec.shape:
            raise ModelError(f"export: expected {spec}, found {value.name}{list(found)}. Correct the tensor specs.")
    onnx.checker.check_model(model, full_check=True)
