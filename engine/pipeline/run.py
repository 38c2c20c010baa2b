"""The run: a video in, an upscaled video out. Decoding, inference and encoding overlap, in constant memory."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from threading import Event
from typing import Any, Protocol

import numpy as np

from ..backends.options import with_refit
from ..contract.bundle import Bundle, find_bundles
from ..contract.errors import CancelledError, MediaError, NonFiniteError
from ..contract.picture import Picture, PictureFormat
from ..contract.shortage import is_memory_short
from ..contract.windows import InputFrame
from ..media.alpha import AlphaReader
from ..media.damage import Repair
from ..media.frame import Frame, FrameReader
from ..media.image_writer import ImageWriter
from ..media.probe import VideoInfo
from ..media.reader import open_reader
from ..media.writer import VideoWriter
from .adaptation import SceneAdaptation
from .alpha import pictures_with_alpha
from .chain import SceneChains
from .notes import alpha_warnings, untrained_warnings, warn_before
from .plan import Pass, Plan, adapted_passes
from .pool import UpscalerPool
from .repeats import Step, steps
from .report import Progress, Report, peak_memory_bytes
from .request import UpscaleRequest
from .scenes import CutDetector
from .timeline import Slot, slots_over, with_durations
from .workers import Channel, WorkerGroup

INPUT_FRAMES = 2  # decoded frames in the queue
OUTPUT_BYTES = 64 << 20  # memory for computed frames in the queue, at least one: a frame of 8K takes 190 MiB


def upscale(
    request: UpscaleRequest,
    on_progress: Callable[[Progress], None] | None = None,
    adaptation: SceneAdaptation | None = None,
    cancel: Event | None = None,
    on_warning: Callable[[str], None] | None = None,
    pool: UpscalerPool | None = None,
) -> Report:
    """Upscale one video, and return the report.

    The output takes its name when it is complete; an error or an interrupt leaves no file. `on_progress` is called
    whenever an input frame is finished, and `on_warning` with each warning of the report that is known before any work.
    Setting `cancel`, in any thread, ends the run with CancelledError before the next frame. With a `pool` its open
    upscalers are used. `adaptation` has the bundles of each scene, for which the run waits. Raises a StvsrError for a
    request, video, bundle or backend that cannot be served.
    """
    began = time.perf_counter()
    request.check()
    bundles = find_bundles(request.model)
    with ExitStack() as opened:
        reader = opened.enter_context(open_input(request))
        info = reader.info
        plan = request.plan(bundles, info)

        def passes_of(scene: int) -> Sequence[Pass]:
            bundles_of_scene = () if adaptation is None else adaptation.bundles_of(scene, cancel)
            return adapted_passes(plan.passes, bundles_of_scene)

        backend = request.backend if adaptation is None else with_refit(request.backend)
        chains = opened.enter_context(
            SceneChains(plan.passes, backend, request.inference, pool=pool, passes_of=passes_of)
        )
        writer = open_writer(request, plan, info)
        opened.enter_context(writer)
        warn_before((*untrained_warnings(bundles), *reader.warnings, *writer.warnings), on_warning)
        detector = CutDetector(request.scene_threshold)
        run = Run(plan, detector, chains, on_progress, info.frames, cancel, dedup=request.dedup)
        run.size_out = writer.coded_size
        frames = AlphaReader(reader, writer.has_alpha)
        run.stream(frames, writer)
        lost = alpha_warnings(frames.is_lost, plan)
    warnings = (*untrained_warnings(bundles), *reader.warnings, *chains.warnings, *writer.warnings, *lost)
    records = () if adaptation is None else tuple(adaptation.records)
    repairs = (*reader.repairs, *writer.repairs)
    return run.report(request, bundles, info, time.perf_counter() - began, records, warnings, repairs)


def open_input(request: UpscaleRequest) -> FrameReader:
    """Open the input of a request. Raises MediaError."""
    return open_reader(request.input, fps=request.input_rate, options=request.read_options, part=request.part)


def open_writer(request: UpscaleRequest, plan: Plan, info: VideoInfo) -> VideoWriter | ImageWriter:
    """Open the output of a plan. Raises MediaError."""
    options: dict[str, Any] = {
        "source": info,
        "size": plan.size,
        "codec": request.codec,
        "crf": request.crf,
        "encoder_options": request.encoder_options,
        "pix_fmt": request.pix_fmt,
        "overwrite": request.overwrite,
    }
    if plan.destination.kind in ("image", "images"):
        return ImageWriter(plan.destination.name, **options)
    return VideoWriter(
        plan.destination.name,
        rate=plan.rate,
        time_base=plan.time_base,
        on_damage=request.on_damage,
        pipe_format=request.format,
        **options,
    )


class FrameWriter(Protocol):
    """The receiver of a run's frames: `VideoWriter`, `ImageWriter`, or `SegmentWriter` for a part of them."""

    @property
    def has_alpha(self) -> bool:
        """Return whether `write` takes frames with alpha."""

    @property
    def picture_format(self) -> PictureFormat | None:
        """The YUV format that `write` takes besides RGB; None if it takes only RGB."""

    def write(self, frame: Picture, pts: Fraction, duration: Fraction) -> None:
        """Write a frame that is displayed from `pts` for `duration`, in seconds."""


class Clock:
    """Sums the seconds that a stage is busy."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Count the time of the block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Subtract the time of the block, a wait for another stage within a busy block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds -= time.perf_counter() - start


class Run:
    """The three stages of one run, and their counts."""

    def __init__(
        self,
        plan: Plan,
        detector: CutDetector,
        chains: SceneChains,
        on_progress: Callable[[Progress], None] | None,
        total_in: int | None,
        cancel: Event | None = None,
        *,
        dedup: bool = False,
    ) -> None:
        self._cancel, self._dedup = cancel, dedup
        self._plan, self._detector, self._chains = plan, detector, chains
        self._on_progress, self._total_in = on_progress, total_in
        self._began = time.perf_counter()
        self.decoding, self.inference, self.encoding = Clock(), Clock(), Clock()
        self.frames_in = self.frames_out = 0
        self._counts: deque[int] = deque()  # of the frames of the video that each pending frame stands for
        self.repeated_frames = self.still_frames = 0
        self.cuts: list[Fraction] = []
        self.size_out = plan.size  # (width, height) of the frames in the output
        self.start_pts = self.end_pts = Fraction(0)

    def stream(self, reader: Iterable[Frame], writer: FrameWriter) -> None:
        """Decode and encode in threads of their own, and infer in the calling thread.

        Raises MemoryError if memory is short already: libraries that find none in the middle may end the process.
        """
        if is_memory_short():
            raise MemoryError
        frame_bytes = 3 * self._plan.size[0] * self._plan.size[1] * np.dtype(np.uint16).itemsize
        with WorkerGroup() as workers:
            decoded: Channel[Frame] = Channel(workers, INPUT_FRAMES)
            computed: Channel[tuple[Picture, Fraction]] = Channel(workers, max(1, OUTPUT_BYTES // frame_bytes))
            workers.spawn("stvsr-decode", lambda: self._decode(reader, decoded))
            workers.spawn("stvsr-encode", lambda: self._encode(computed, writer))
            try:
                self._infer(decoded, computed, writer)
            except BaseException:
                if isinstance(reader, FrameReader):
                    reader.interrupt()  # or the group would wait for a thread that waits for a pipe
                raise
            computed.close()
        self._report_progress()

    def report(
        self,
        request: UpscaleRequest,
        bundles: tuple[Bundle, ...],
        info: VideoInfo,
        seconds: float,
        adaptation: tuple[dict[str, object], ...],
        warnings: tuple[str, ...],
        repairs: Iterable[Repair] = (),
    ) -> Report:
        """Return the report of the finished run."""
        return Report(
            input=str(request.input),
            output=self._plan.destination.name,
            bundle="+".join(bundle.manifest.name for bundle in bundles),
            fingerprint="+".join(bundle.fingerprint for bundle in bundles),
            device=self._chains.device,
            backend=self._chains.backend,
            precision=self._chains.precision,
            preset=request.preset,
            frames_in=self.frames_in,
            frames_out=self.frames_out,
            repeated_frames=self.repeated_frames,
            still_frames=self.still_frames,
            size_in=(info.width, info.height),
            size_out=self.size_out,
            rate_out=str(self._plan.rate),
            cuts_s=tuple(float(pts) for pts in self.cuts),
            duration_s=float(self.end_pts - self.start_pts),
            seconds=seconds,
            decode_seconds=self.decoding.seconds,
            inference_seconds=self.inference.seconds,
            encode_seconds=self.encoding.seconds,
            opening_seconds=self._chains.preparation.opening_seconds,
            first_run_seconds=self._chains.preparation.first_run_seconds,
            fps=self.frames_out / seconds,
            peak_memory_bytes=peak_memory_bytes(),
            adaptation=adaptation,
            repairs=tuple(repair.as_dict() for repair in repairs),
            warnings=warnings,
        )

    def _decode(self, reader: Iterable[Frame], decoded: Channel[Frame]) -> None:
        frames = iter(reader)
        while True:
            with self.decoding.busy():
                frame = next(frames, None)
            if frame is None:
                break
            decoded.put(frame)
        decoded.close()

    def _infer(
        self,
        decoded: Channel[Frame],
        computed: Channel[tuple[Picture, Fraction]],
        writer: FrameWriter,
    ) -> None:
        # For each input frame, and each of its distinct times, the slots that show the computed frame.
        pending: deque[list[list[Slot]]] = deque()
        inputs = self._inputs(decoded, pending)
        results: Iterator[Picture]
        if writer.has_alpha:
            results = pictures_with_alpha(self._chains, inputs)
        else:
            results = self._chains.pictures(inputs, writer.picture_format)
        while True:
            if self._cancel is not None and self._cancel.is_set():
                raise CancelledError(f"The run was cancelled after {self.frames_in} frames: start it again.")
            with self.inference.busy():
                try:
                    picture = next(results, None)
                except NonFiniteError as error:
                    raise NonFiniteError(f"{error} {self._next_time(pending)}".rstrip()) from error
            self._finish_inputs(pending)
            if picture is None:
                break
            for slot in pending[0].pop(0):
                computed.put((picture, slot.pts))
            del picture  # or its buffer would live until the next one
            self._finish_inputs(pending)

    def _next_time(self, pending: deque[list[list[Slot]]]) -> str:
        """Return a sentence about the time of the frame that is computed next."""
        pts = next((slots[0].pts for groups in pending for slots in groups if slots), None)
        return "" if pts is None else f"The frame is that at {float(pts):.3f} s."

    def _inputs(self, decoded: Iterable[Frame], pending: deque[list[list[Slot]]]) -> Iterator[InputFrame]:
        """Yield each frame, once its successor is known, with the times at which outputs are requested."""
        first: Step | None = None
        for second in steps(self._seen(decoded), self._detector, self._dedup):
            if first is None:
                self.start_pts = second.frame.pts
            else:
                if second.starts_scene:
                    self.cuts.append(second.frame.pts)
                yield self._input(first, second.frame.pts, second.starts_scene, pending)
            first = second
        if first is None:
            raise MediaError("The video holds no frames: choose another, or repair it.")
        yield self._input(first, self.end_pts, True, pending)

    def _seen(self, decoded: Iterable[Frame]) -> Iterator[Frame]:
        """Yield the decoded frames, and keep the end of the latest one."""
        for frame in self._awaited(decoded):
            self.end_pts = frame.pts + frame.duration
            yield frame

    def _input(self, step: Step, until: Fraction, last: bool, pending: deque[list[list[Slot]]]) -> InputFrame:
        if step.is_still:
            self.still_frames += len(step.repeats)
        else:
            self.repeated_frames += len(step.repeats)
        slots = slots_over(self._plan.timeline, (step.frame.pts, *step.repeats), until, step.is_still)
        return self._input_at(step.frame, slots, last, pending, step.count)

    def _input_at(
        self, frame: Frame, slots: list[Slot], last: bool, pending: deque[list[list[Slot]]], count: int = 1
    ) -> InputFrame:
        """Return a frame with the times of its slots, which wait in `pending` for their pictures.

        It stands for `count` frames of the video.
        """
        self._counts.append(count)
        by_time: dict[Fraction, list[Slot]] = {}
        for slot in slots:
            by_time.setdefault(slot.time, []).append(slot)
        pending.append(list(by_time.values()))
        return InputFrame(frame.rgb, tuple(by_time), last, frame.alpha)

    def _awaited(self, decoded: Iterable[Frame]) -> Iterator[Frame]:
        frames = iter(decoded)
        while True:
            with self.inference.idle():
                frame = next(frames, None)
            if frame is None:
                return
            yield frame

    def _finish_inputs(self, pending: deque[list[list[Slot]]]) -> None:
        """Count the input frames whose outputs are all computed."""
        while pending and not pending[0]:
            pending.popleft()
            self.frames_in += self._counts.popleft()
            self._report_progress()

    def _encode(self, computed: Channel[tuple[Picture, Fraction]], writer: FrameWriter) -> None:
        for picture, pts, duration in with_durations(computed, lambda: self.end_pts):
            with self.encoding.busy():
                writer.write(picture, pts, duration)
            self.frames_out += 1

    def _report_progress(self) -> None:
        if self._on_progress is not None:
            self._on_progress(
                Progress(self.frames_in, self.frames_out, self._total_in, time.perf_counter() - self._began, self.cuts)
            )
