# SPDX-License-Identifier: Apache-2.0
"""KServe ModelInfer against the least that gRPC and the engine cost: `python -m benchmarks.serving [--json FILE]`.

Two ratios of one run, in interleaved rounds; a ratio is the median over the rounds of edgerun's percentile over the
baseline's. Every server is a process of its own; the client is a raw asyncio stub, so protobuf on its side isn't timed.

- transport: 300 kB in and out with the null engine, over a unary asyncio echo of the same bytes (goal <= 1.3, p50)
- end to end: the default model, FP32, ONNX Runtime with one thread, over bare `session.run` in this process, which
  stands idle while the server runs (goal <= 1.06 p50, <= 1.15 p99; p99 needs a quiet machine)
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc
import numpy as np
import onnxruntime
from rich.console import Console
from rich.table import Table

from edgerun.clock import SystemClock
from edgerun.infer.engine import EngineChoice, NullPlan
from edgerun.infer.worker import WorkerEngine
from edgerun.kserve import grpc_service_pb2 as pb
from edgerun.model_package import builtin_package, load_package
from edgerun.serve.allocator import keep_freed_memory
from edgerun.serve.kserve_model import ServedModel
from edgerun.serve.kserve_service import add_kserve
from edgerun.tensor import TensorSpec

Call = Callable[[], Awaitable[object]]

MODEL = "polyp-seg-lite"
SIDE = 320
NULL_INPUTS = (TensorSpec("input", "uint8", (1, 3, SIDE, SIDE)),)  # 307200 bytes
NULL_OUTPUTS = (TensorSpec("output", "uint8", (1, 3, SIDE, SIDE)),)
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
INFER = "/inference.GRPCInferenceService/ModelInfer"
ECHO = "/benchmarks.Echo/Echo"
WARM_UP = 30


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    percentile: int
    edgerun_ms: float
    baseline_ms: float
    ratio: float
    goal: float


def main() -> None:
    parser = argparse.ArgumentParser(description="edgerun's unary serving against bare gRPC and bare ONNX Runtime")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--calls", type=int, default=40, help="of each side in a round")
    parser.add_argument("--serve", choices=("echo", "null"), help=argparse.SUPPRESS)  # what the child processes do
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve))
        return
    load = os.getloadavg()[0]
    rows = asyncio.run(measure(options.rounds, options.calls))
    machine = f"{cpu()}; {os.cpu_count()} CPUs, load {load:.1f} at the start; grpcio {grpc.__version__}"
    show(rows, machine)
    if options.json:
        options.json.write_text(
            json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=1) + "\n"
        )


async def measure(rounds: int, calls: int) -> list[Row]:
    return [*await transport(rounds, calls), *await end_to_end(rounds, calls)]


async def transport(rounds: int, calls: int) -> list[Row]:
    """ModelInfer of the null engine over an echo of its request."""
    wire = request("null", NULL_INPUTS[0])
    child = [sys.executable, "-m", "benchmarks.serving", "--serve"]
    with process([*child, "echo"]) as echo_at, process([*child, "null"]) as null_at:
        async with (
            grpc.aio.insecure_channel(echo_at, OPTIONS) as echo,
            grpc.aio.insecure_channel(null_at, OPTIONS) as null,
        ):
            ours, theirs = stub(null, INFER), stub(echo, ECHO)
            pairs = await interleaved(lambda: ours(wire), lambda: theirs(wire), rounds, calls)
    return [row("transport: null engine, 300 kB", pairs, 50, 1.3)]


async def end_to_end(rounds: int, calls: int) -> list[Row]:
    """ModelInfer of the default model over bare `session.run`."""
    package = load_package(builtin_package(MODEL))
    session = bare_session(str(package.graph("fp32").path))
    wire = request(MODEL, package.inputs[0])
    feed = {package.inputs[0].name: pixels(package.inputs[0])}

    async def bare() -> object:
        return session.run(None, feed)

    command = [sys.executable, "-m", "edgerun", "serve", "--grpc", "127.0.0.1:0"]
    with process([*command, "--engine", "onnxruntime", "--precision", "fp32"]) as address:
        async with grpc.aio.insecure_channel(address, OPTIONS) as channel:
            ours = stub(channel, INFER)
            pairs = await interleaved(lambda: ours(wire), bare, rounds, calls)
    name = f"end to end: {MODEL} fp32, one thread"
    return [row(name, pairs, 50, 1.06), row(name, pairs, 99, 1.15)]


def stub(channel: grpc.aio.Channel, method: str) -> Callable[[bytes], Awaitable[object]]:
    """Sends and returns bytes as they are."""
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
    return call


def bare_session(graph: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


async def interleaved(ours: Call, theirs: Call, rounds: int, calls: int) -> list[tuple[list[int], list[int]]]:
    """The nanoseconds of each call, (ours, theirs) of each round."""
    for call in (ours, theirs):
        await timed(call, WARM_UP)
    return [(await timed(ours, calls), await timed(theirs, calls)) for _ in range(rounds)]


async def timed(call: Call, count: int) -> list[int]:
    found = []
    for _ in range(count):
        start = time.perf_counter_ns()
        await call()
        found.append(time.perf_counter_ns() - start)
    return found


def row(name: str, pairs: list[tuple[list[int], list[int]]], percentile: int, goal: float) -> Row:
    sides = [tuple(float(np.percentile(side, percentile)) for side in pair) for pair in pairs]
    ours, theirs = (statistics.median(side) / 1e6 for side in zip(*sides, strict=True))
    ratio = statistics.median(our / their for our, their in sides)
    return Row(name, percentile, ours, theirs, ratio, goal)


def request(model: str, spec: TensorSpec) -> bytes:
    message = pb.ModelInferRequest(model_name=model, raw_input_contents=[pixels(spec).tobytes()])
    message.inputs.add(name=spec.name, datatype="UINT8", shape=spec.shape)
    return message.SerializeToString()


def pixels(spec: TensorSpec) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(1).integers(0, 256, spec.shape, np.uint8)


@contextmanager
def process(command: list[str]) -> Iterator[str]:
    """A server; gives its HOST:PORT."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            line = child.stdout.readline()
            found = re.search(r"grpc=(\S+)", line)
            if found is None:
                raise SystemExit(f"{' '.join(command)}: didn't start; it said {line!r}")
            yield found[1]
        finally:
            child.terminate()


async def serve(what: str) -> None:
    """The child's part: an echo, or KServe with the null engine in a worker, until SIGTERM."""
    server = grpc.aio.server(options=OPTIONS)
    if what == "echo":
        echo: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(_echo)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("benchmarks.Echo", {"Echo": echo}),))
    else:
        keep_freed_memory()  # as edgerun's own server does
        add_kserve(server, null_model(), SystemClock())
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"grpc=127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


async def _echo(wire: bytes, _: object) -> bytes:
    return wire


def null_model() -> ServedModel:
    engine = WorkerEngine(EngineChoice("null", null=NullPlan(NULL_INPUTS, NULL_OUTPUTS)))
    slots = engine.slots(2)
    engine.warm_up()
    return ServedModel("null", "1", "null", engine, NULL_INPUTS, NULL_OUTPUTS, slots, 32, 2.0)


def show(rows: list[Row], machine: str) -> None:
    table = Table("what", "percentile", "edgerun ms", "baseline ms", "ratio", "goal", title=machine)
    for found in rows:
        numbers = (f"{found.edgerun_ms:.3f}", f"{found.baseline_ms:.3f}", f"{found.ratio:.3f}", f"<= {found.goal:g}")
        table.add_row(found.name, f"p{found.percentile}", *numbers)
    Console(width=120).print(table)


def cpu() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
