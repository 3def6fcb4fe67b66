# SPDX-License-Identifier: Apache-2.0
"""`edgerun demo`: one stream from a source to an overlay, client and server in processes of their own.

The order of things: check everything that can be checked, render the scene, start the server, then let the clock
run. Nothing is written under its final name before the run has ended.
"""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import FrameType

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from edgerun.answer import Answer, DropReason
from edgerun.client import Encoding, StreamInfo, VideoStream, coded_video
from edgerun.clock import Clock
from edgerun.decode.video import VideoDecoder
from edgerun.demo.options import SYNTHETIC_FPS, SYNTHETIC_SECONDS, SYNTHETIC_SIZE, DemoOptions
from edgerun.demo.progress import PlayProgress, RenderProgress
from edgerun.demo.report import DemoRecorder, DemoReport, ModelFacts, SourceFacts, write_json
from edgerun.demo.report_html import write_html
from edgerun.demo.server_process import ServerProcess
from edgerun.demo.truth import Truth
from edgerun.demo.video_lane import LatestAnnotation, VideoLane
from edgerun.errors import SinkError
from edgerun.frame import Frame
from edgerun.infer.select import first_available
from edgerun.model_package import ModelPackage, builtin_package, load_package
from edgerun.overlay.compose import OverlayStyle
from edgerun.profiling.machine import machine_fingerprint
from edgerun.profiling.memory import MemorySampler
from edgerun.result import Segmentation
from edgerun.sink.recording import Recording, check_writable
from edgerun.source import Packet, Source
from edgerun.source.coded_scene import CodedSceneSource
from edgerun.source.file import FileSource
from edgerun.source.synthetic import SyntheticScene

DEFAULT_MODEL = "polyp-seg-lite"
LAST_ANSWERS_S = 30.0
OVERLAY, REPORT, PAGE = "overlay.mp4", "report.json", "report.html"
NAP_NS = 100_000_000
PACKAGES = ("av", "grpcio", "numpy", "onnxruntime", "opencv-python-headless", "openvino", "protobuf")


@dataclass(frozen=True, slots=True)
class Show:
    """What is played, and what is known to be true of it."""

    source: Source
    kind: str
    name: str
    truth: Truth | None


def run_demo(options: DemoOptions, clock: Clock, console: Console) -> DemoReport:
    """Play, and write overlay.mp4, report.json and report.html. Raises EdgerunError; Ctrl-C ends a run in order."""
    with ExitStack() as stack:
        stack.callback(_remove_if_empty, make_folder(options.out))
        package = checked_package(options)
        report = _play(options, package, clock, console)
        _write_report(report, options.out)
    return report


def _play(options: DemoOptions, package: ModelPackage, clock: Clock, console: Console) -> DemoReport:
    with ExitStack() as stack:
        show = open_show(options, console)
        stack.callback(show.source.close)
        console.print("[dim]starting the server and its inference worker ...[/dim]")
        server = stack.enter_context(ServerProcess(_server_arguments(options, package)))
        sampler = MemorySampler(clock, root_name="client")
        sampler.name(server.pid, "server")
        stack.enter_context(sampler)
        run = Run(options, show, package, clock, console)
        gc.collect()
        gc.freeze()  # what is there by now stays: no collection looks at it while pictures flow
        run.play(server.address)
        gc.unfreeze()
        sampler.close()
        return run.report(sampler)


def _write_report(report: DemoReport, out: Path) -> None:
    try:
        write_json(report, out / REPORT)
        write_html(report, out / PAGE)
    except OSError as error:
        raise SinkError(f"--out {out}: the report can't be written ({error.strerror}). Free some space.") from error


def make_folder(out: Path) -> list[Path]:
    """Make `out` and check that it can be written. Returns the folders that were not there before, deepest first."""
    made: list[Path] = []
    try:
        made += [folder for folder in (out, *out.parents) if not folder.exists()]
        out.mkdir(parents=True, exist_ok=True)
        for name in (OVERLAY, REPORT, PAGE):
            check_writable(out / name)
    except OSError as error:
        _remove_if_empty(made)
        raise SinkError(f"--out {out}: can't make this folder ({error.strerror}). Choose another one.") from error
    except SinkError:
        _remove_if_empty(made)
        raise
    return made


def _remove_if_empty(folders: list[Path]) -> None:
    """A run that wrote nothing leaves no folder behind either."""
    for folder in folders:
        with suppress(OSError):  # not empty, or never made
            folder.rmdir()


def checked_package(options: DemoOptions) -> ModelPackage:
    """The package, verified. Raises what the server would raise, but before a scene is rendered."""
    package = load_package(options.model or builtin_package(DEFAULT_MODEL))
    if options.precision:
        package.graph(options.precision)
    if options.engine:
        first_available((options.engine,))
    return package


def open_show(options: DemoOptions, console: Console) -> Show:
    """The file, or the synthetic scene rendered and coded before the clock starts."""
    if options.source is not None:
        return Show(FileSource(options.source, fps=options.fps), "file", options.source.name, None)
    width, height = options.size or SYNTHETIC_SIZE
    fps = options.fps or SYNTHETIC_FPS
    count = max(1, round((options.seconds or SYNTHETIC_SECONDS) * fps))
    scene = SyntheticScene(width, height, fps=fps, seed=options.seed)
    truth = Truth(width, height)
    with RenderProgress(console, count) as progress:
        source = CodedSceneSource(
            _images(scene, count, truth, progress), width, height, Fraction(fps).limit_denominator(1000)
        )
    return Show(source, "synthetic", f"synthetic scene, seed {options.seed}", truth)


def _images(scene: SyntheticScene, count: int, truth: Truth, progress: RenderProgress) -> Iterator[NDArray[np.uint8]]:
    for index, frame in enumerate(scene.frames(count, threads=2)):
        truth.add(index, frame.mask)
        progress.advance()
        yield frame.image


def _server_arguments(options: DemoOptions, package: ModelPackage) -> list[str]:
    arguments = ["--model", str(package.path)]
    if options.engine:
        arguments += ["--engine", options.engine]
    if options.precision:
        arguments += ["--precision", options.precision]
    return arguments


class Run:
    """One playing of a show. The main thread paces, decodes and composites; answers come on the client's thread."""

    def __init__(self, options: DemoOptions, show: Show, package: ModelPackage, clock: Clock, console: Console) -> None:
        self._options = options
        self._show = show
        self._package = package
        self._clock = clock
        self._annotations = LatestAnnotation()
        self._recorder = DemoRecorder(clock)
        self._progress = PlayProgress(console)
        self._found: dict[int, Segmentation] = {}
        self._info: StreamInfo | None = None
        self._restarts = 0
        self._recorded = 0
        self._recording_note: str | None = None
        self._interrupted = False

    def play(self, address: str) -> None:
        form = self._show.source.format
        with (
            self._until_interrupted(),
            Recording(self._options.out / OVERLAY, form.width, form.height, form.fps) as recording,
        ):
            self._recorder = DemoRecorder(self._clock)
            self._play_on(address, coded_video(form.codec, form.extradata), recording)

    def _play_on(self, address: str, encoding: Encoding, recording: Recording) -> None:
        style = OverlayStyle(label_names={label.value: label.name for label in self._package.labels})
        lane = VideoLane(recording, self._annotations, self._recorder, self._clock, style)
        try:
            with self._stream(address, encoding) as stream, self._progress:
                self._info = stream.info
                self._play_packets(stream, lane)
                stream.finish(LAST_ANSWERS_S)
                self._restarts = stream.worker_restarts
            lane.finish()
        except BaseException:
            lane.discard()
            raise
        self._recorded, self._recording_note = lane.recorded, lane.recording_note

    def _stream(self, address: str, encoding: Encoding) -> VideoStream:
        return VideoStream(
            address, self._package.name, encoding, self._on_answer, policy=self._options.policy, clock=self._clock
        )

    def _play_packets(self, stream: VideoStream, lane: VideoLane) -> None:
        decoder = VideoDecoder(self._show.source.format)
        start = self._clock.now_ns()
        for packet in self._show.source:
            if self._ends_before(packet):
                break
            self._wait_until(start + packet.due_ns)
            if self._interrupted:
                break
            self._send(stream, packet)
            for outcome in decoder.decode(packet):
                self._show_frame(outcome, lane)
        for outcome in decoder.flush():
            self._show_frame(outcome, lane)

    def _wait_until(self, due_ns: int) -> None:
        """In naps: Ctrl-C must not wait for a packet that is due in ten seconds."""
        while not self._interrupted and (now := self._clock.now_ns()) < due_ns:
            self._clock.sleep_until(min(due_ns, now + NAP_NS))

    def _ends_before(self, packet: Packet) -> bool:
        seconds = self._options.seconds
        return seconds is not None and packet.due_ns >= seconds * 1e9

    def _send(self, stream: VideoStream, packet: Packet) -> None:
        captured = self._clock.now_ns()
        self._recorder.frame_in(packet.unit_id, captured)
        self._progress.frame_in()
        if not stream.send(packet.unit_id, packet.data, capture_ns=captured, key=packet.is_key):
            self._account(Answer(packet.unit_id, captured, 0, {}, reason=DropReason.OVERLOAD))

    def _show_frame(self, outcome: object, lane: VideoLane) -> None:
        if isinstance(outcome, Frame):
            lane.show(outcome)

    def _on_answer(self, answer: Answer[Segmentation]) -> None:
        """On the client's thread. The server's clock is not ours: only its durations are used."""
        total = self._clock.now_ns() - answer.capture_ns
        stages = dict(answer.stage_ns)
        stages["transport"] = max(0, total - sum(stages.values()))
        stages["total"] = total
        self._annotations.offer(answer)
        if answer.result is not None and self._show.truth is not None:
            self._found[answer.frame_id] = answer.result
        self._account(replace(answer, age_ns=total, stage_ns=stages))

    def _account(self, answer: Answer[Segmentation]) -> None:
        self._recorder.answer(answer)
        self._progress.answered(answer)

    @contextmanager
    def _until_interrupted(self) -> Iterator[None]:
        """The first Ctrl-C (or SIGTERM) ends the run in order, with its report; the second one breaks it off."""

        def on_signal(number: int, frame: FrameType | None) -> None:
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, action in before.items():
                signal.signal(number, action)

    def report(self, sampler: MemorySampler) -> DemoReport:
        source, form = self._show.source, self._show.source.format
        cut = source.truncated
        facts = SourceFacts(
            kind=self._show.kind,
            path_name=self._show.name,
            width=form.width,
            height=form.height,
            fps=round(float(form.fps), 3),
            frames=self._recorder.frames_in,
            truncated=cut is not None,
            truncation=str(cut) if cut is not None else None,
        )
        return self._recorder.report(
            facts,
            self._model_facts(),
            machine_fingerprint(PACKAGES),
            memory=sampler.record(),
            accuracy=self._show.truth.score(self._found) if self._show.truth else None,
            worker_restarts=self._restarts,
            interrupted=self._interrupted,
            recorded=self._recorded,
            recording=self._recording_note,
        )

    def _model_facts(self) -> ModelFacts:
        assert self._info is not None
        info = self._info
        graphs = (self._package.graph(name) for name in self._package.precisions)
        graph = next((g.path.name for g in graphs if g.sha256 == info.model_sha256), "")
        return ModelFacts(info.model, info.model_version, info.precision, info.engine, info.model_sha256, graph)
