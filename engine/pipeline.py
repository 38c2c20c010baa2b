"""The pipeline: a video in, an upscaled video out, decoded, inferred and encoded at once in constant memory."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from .bundle import find_bundle
from .crew import Channel, Crew
from .errors import MediaError
from .frame import Frame
from .reader import open_reader
from .request import Plan, UpscaleRequest, writer_options
from .scenes import CutDetector
from .timeline import Slot, with_durations
from .upscaler import Upscaler
from .writer import VideoWriter

INPUT_FRAMES = 2  # decoded frames that wait
OUTPUT_BYTES = 64 << 20  # of made frames that wait, and at least one: one of 8K takes 190 MiB


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    frames_in: int  # of which everything was made
    frames_out: int  # written
    total_in: int | None  # None: the container does not say
    seconds: float


@dataclass(frozen=True)
class Report:
    """What a run did."""

    input: str
    output: str
    bundle: str
    fingerprint: str  # the sha256 of the bundle's manifest
    device: str
    frames_in: int
    frames_out: int
    size_in: tuple[int, int]  # (width, height)
    size_out: tuple[int, int]
    rate_out: str  # a fraction, frames per second
    cuts_s: tuple[float, ...]  # timestamps of the first frames of new scenes
    duration_s: float
    seconds: float
    decode_seconds: float  # the three overlap
    inference_seconds: float
    encode_seconds: float
    fps: float  # output frames per second of running time
    peak_memory_bytes: int | None  # of the process so far; None where the system does not say
    warnings: tuple[str, ...]  # what the output could not take over

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON takes it."""
        return asdict(self)


class _Clock:
    """Sums the seconds that a stage is busy."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def busy(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start


def upscale(request: UpscaleRequest, on_progress: Callable[[Progress], None] | None = None) -> Report:
    """Upscale one video; on any error, and on an interrupt, no output is left."""
    began = time.perf_counter()
    request.check()
    bundle = find_bundle(request.model)
    with ExitStack() as opened:
        reader = open_reader(request.input, fps=request.input_fps)
        opened.enter_context(reader)
        info = reader.info
        plan = request.plan(bundle, width=info.width, height=info.height, rate=info.rate, time_base=info.time_base)
        upscaler = opened.enter_context(
            Upscaler(bundle, backend=request.backend, device=request.device, tile=request.tile, threads=request.threads)
        )
        writer = opened.enter_context(
            VideoWriter(
                plan.output,
                source=reader,
                size=plan.size,
                rate=plan.rate,
                time_base=plan.time_base,
                **writer_options(request),
            )
        )
        run = _Run(plan, CutDetector(request.scene_threshold), upscaler, on_progress, info.frames)
        run.stream(reader, writer)
    seconds = time.perf_counter() - began
    return Report(
        input=str(request.input),
        output=str(plan.output),
        bundle=bundle.manifest.name,
        fingerprint=bundle.fingerprint,
        device=upscaler.device,
        frames_in=run.frames_in,
        frames_out=run.frames_out,
        size_in=(info.width, info.height),
        size_out=plan.size,
        rate_out=str(plan.rate),
        cuts_s=tuple(float(pts) for pts in run.cuts),
        duration_s=float(run.end_pts - run.start_pts),
        seconds=seconds,
        decode_seconds=run.decoding.seconds,
        inference_seconds=run.inference.seconds,
        encode_seconds=run.encoding.seconds,
        fps=run.frames_out / seconds,
        peak_memory_bytes=_peak_memory_bytes(),
        warnings=tuple(writer.warnings),
    )


class _Run:
    """One video's way through the three stages, and the counts of it."""

    def __init__(
        self,
        plan: Plan,
        detector: CutDetector,
        upscaler: Upscaler,
        on_progress: Callable[[Progress], None] | None,
        total_in: int | None,
    ) -> None:
        self._plan, self._detector, self._upscaler = plan, detector, upscaler
        self._on_progress, self._total_in = on_progress, total_in
        self._began = time.perf_counter()
        self.decoding, self.inference, self.encoding = _Clock(), _Clock(), _Clock()
        self.frames_in = self.frames_out = 0
        self.cuts: list[Fraction] = []
        self.start_pts = self.end_pts = Fraction(0)

    def stream(self, reader: Iterable[Frame], writer: VideoWriter) -> None:
        """Decode and encode in threads of their own, and infer in this one."""
        frame_bytes = 3 * self._plan.size[0] * self._plan.size[1] * np.dtype(np.uint16).itemsize
        with Crew() as crew:
            decoded: Channel[Frame] = Channel(crew, INPUT_FRAMES)
            made: Channel[tuple[np.ndarray, Fraction]] = Channel(crew, max(1, OUTPUT_BYTES // frame_bytes))
            crew.spawn("stvsr-decode", lambda: self._decode(reader, decoded))
            crew.spawn("stvsr-encode", lambda: self._encode(made, writer))
            self._infer(decoded, made)
            made.close()
        self._tell()

    def _decode(self, reader: Iterable[Frame], decoded: Channel[Frame]) -> None:
        frames = iter(reader)
        while True:
            with self.decoding.busy():
                frame = next(frames, None)
            if frame is None:
                break
            decoded.put(frame)
        decoded.close()

    def _infer(self, decoded: Channel[Frame], made: Channel[tuple[np.ndarray, Fraction]]) -> None:
        timeline, first = self._plan.timeline, None
        for second in decoded:
            with self.inference.busy():
                cut = self._detector.is_cut(second.rgb)
            if first is None:
                self.start_pts = second.pts
            else:
                slots = timeline.between(first.pts, second.pts)
                if cut:
                    self.cuts.append(second.pts)
                    self._make(first, first, [Slot(Fraction(0), slot.pts) for slot in slots], made)
                else:
                    self._make(first, second, slots, made)
            first = second
        if first is None:
            raise MediaError("The video holds no frames: choose another, or repair it.")
        self.end_pts = first.pts + first.duration
        self._make(first, first, timeline.hold(first.pts, first.duration), made)

    def _make(self, first: Frame, second: Frame, slots: list[Slot], made: Channel[tuple[np.ndarray, Fraction]]) -> None:
        """Make the frames of one gap; slots at one time are one frame, shown again."""
        times = list(dict.fromkeys(slot.time for slot in slots))
        size = (self._plan.size[1], self._plan.size[0])
        frames = self._upscaler.frames(first.rgb, second.rgb, times, size) if times else iter(())
        for moment in times:
            with self.inference.busy():
                frame = next(frames)
            for slot in slots:
                if slot.time == moment:
                    made.put((frame, slot.pts))
            del frame  # its place is needed for the next one
        self.frames_in += 1
        self._tell()

    def _encode(self, made: Channel[tuple[np.ndarray, Fraction]], writer: VideoWriter) -> None:
        for rgb, pts, duration in with_durations(made, lambda: self.end_pts):
            with self.encoding.busy():
                writer.write(rgb, pts, duration)
            self.frames_out += 1

    def _tell(self) -> None:
        if self._on_progress is not None:
            self._on_progress(
                Progress(self.frames_in, self.frames_out, self._total_in, time.perf_counter() - self._began)
            )


def _peak_memory_bytes() -> int | None:
    try:
        import resource
    except ImportError:  # Windows has none
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kibibytes on Linux
