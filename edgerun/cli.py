# SPDX-License-Identifier: Apache-2.0
"""The command line: the only module that may import everything, and it does so only for the command that runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from edgerun import __version__
from edgerun.errors import ConfigError, EdgerunError

app = typer.Typer(
    help="Edge inference runtime for medical imaging. Research and education only; not a medical device.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# Newer versions of typer carry click in themselves, older ones import it; this one they all export.
USAGE_ERROR: type[Any] = typer.BadParameter.__mro__[1]

Model = Annotated[Path | None, typer.Option(help="A model package; default: polyp-seg-lite, which comes along.")]
Engine = Annotated[str | None, typer.Option(help="onnxruntime or openvino; default: the device profile's order.")]
Precision = Annotated[str | None, typer.Option(help="A graph of the package, e.g. fp32; default: the profile's.")]
Profile = Annotated[str | None, typer.Option(help="A device profile by name or path; default: this machine's.")]


@app.command()
def demo(
    source: Annotated[Path | None, typer.Option(help="A video file; default: a synthetic endoscopy scene.")] = None,
    size: Annotated[str | None, typer.Option(help="Of the synthetic scene, WIDTHxHEIGHT.")] = None,
    seconds: Annotated[float | None, typer.Option(help="How long to play; default: 10, or the whole file.")] = None,
    fps: Annotated[float | None, typer.Option(help="Pace; default: 30, or the file's own.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for overlay.mp4, report.json and report.html.")] = Path("demo-out"),
    seed: Annotated[int, typer.Option(help="Of the synthetic scene; the model never saw 1000 and above.")] = 1008,
    model: Model = None,
    engine: Engine = None,
    precision: Precision = None,
) -> None:
    """Find polyps in a moving picture, through the gRPC runtime, and show the latency of every stage."""
    from rich.console import Console

    from edgerun.clock import SystemClock
    from edgerun.demo.options import DemoOptions, parse_size
    from edgerun.demo.play import run_demo
    from edgerun.demo.report_terminal import print_report

    console = Console(highlight=False)
    options = DemoOptions(
        source=source,
        size=parse_size(size) if size is not None else None,
        seconds=seconds,
        fps=fps,
        out=out,
        seed=seed,
        model=model,
        engine=engine,
        precision=precision,
    )
    _hand_over_quickly()
    report = run_demo(options, SystemClock(), console)
    print_report(report, console)
    video = "overlay.mp4, " if report.native_video.recorded else ""
    console.print(f"Wrote {video}report.json and report.html to {out}", markup=False, soft_wrap=True)
    if report.interrupted:
        raise typer.Exit(130)


@app.command()
def serve(
    grpc: Annotated[str, typer.Option(help="HOST:PORT to listen on; port 0 takes any.")] = "127.0.0.1:8001",
    model: Model = None,
    profile: Profile = None,
    engine: Engine = None,
    precision: Precision = None,
    trace: Annotated[Path | None, typer.Option(help="Write a Chrome/Perfetto trace of the last frames here.")] = None,
) -> None:
    """Serve one model to gRPC clients until SIGINT or SIGTERM."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its faults come as exceptions; one line each is enough
    from edgerun.clock import SystemClock
    from edgerun.device_profile import default_profile, load_profile
    from edgerun.model_package import builtin_package, load_package
    from edgerun.profiling.trace import check_trace_path, write_trace
    from edgerun.serve.deployment import Deployment
    from edgerun.serve.server import run_server

    if trace is not None:
        check_trace_path(trace)

    _hand_over_quickly()
    clock = SystemClock()
    package = load_package(model or builtin_package("polyp-seg-lite"))
    device = load_profile(profile) if profile else default_profile()
    if misfit := device.misfit_reason():
        raise ConfigError(misfit)
    host = grpc.rpartition(":")[0]

    def ready(port: int) -> None:
        graph = deployment.graph.id
        print(f"edgerun {__version__} ready: {package.name} {package.version} {graph} grpc={host}:{port}", flush=True)

    with Deployment(package, device, clock, engine=engine, precision=precision) as deployment:
        run_server(deployment, grpc, clock, ready)
        if trace is not None:
            write_trace(deployment.spans.snapshot(), trace)


def _hand_over_quickly() -> None:
    """A thread that computes in Python lets a waiting one in after 0.5 ms instead of 5."""
    sys.setswitchinterval(0.0005)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


def main() -> None:
    """Exit codes: 0 done, 2 bad input or a fault edgerun can name (one line on stderr), 130 interrupted."""
    try:
        code = app(standalone_mode=False)
    except EdgerunError as error:
        _fail(str(error))
    except USAGE_ERROR as error:
        _fail(f"{error.format_message()} See `edgerun --help`.")
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    sys.exit(code)


def _fail(reason: str) -> NoReturn:
    print(f"edgerun: {reason}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
