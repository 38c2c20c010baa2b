"""The pipeline: a video in, an upscaled video out, decoded, inferred and encoded at once in constant memory."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..contract.bundle import Bundle, find_bundles
from ..contract.errors import MediaError
from ..contract.picture import Picture, PictureFormat
from ..contract.windows import InputFrame
from ..media.frame import Frame
from ..media.reader import open_reader
from ..media.writer import VideoWriter
from .chain import SceneRoutes, adapted_legs
from .request import Plan, UpscaleRequest, writer_options
from .scenes import CutDetector
from .timeline import Slot, with_durations
from .workers import Channel, Crew

INPUT_FRAMES = 2  # decoded frames that wait
SCENE_FRAMES = 48  # of a scene that are read to adapt to it
SCENE_BYTES = 1 << 29  # of a scene's frames that are held for that
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
    bundle: str  # of a chain both, with a + between
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
    adaptation: tuple[dict[str, Any], ...]  # what happened in it, of each scene or of all; empty without
    warnings: tuple[str, ...]  # what the output could not take over, what was not done as asked, and untrained weights

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

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Take out a wait for another stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds -= time.perf_counter() - start


@dataclass(frozen=True)
class Adaptation:
    """Bundles that were adapted to a video, each from one of the request's, and what is told of them.

    For each scene in order its own, or some for all; one that was not adapted means the original weights.
    """

    bundles: tuple[tuple[Bundle, ...], ...]
    records: tuple[dict[str, Any], ...]


def upscale(
    request: UpscaleRequest,
    on_progress: Callable[[Progress], None] | None = None,
    adaptation: Adaptation | None = None,
) -> Report:
    """Upscale one video; on any error, and on an interrupt, no output is left."""
    began = time.perf_counter()
    request.check()
    bundles = find_bundles(request.model)
    with ExitStack() as opened:
        reader = open_reader(request.input, fps=request.input_fps)
        opened.enter_context(reader)
        info = reader.info
        plan = request.plan(bundles, width=info.width, height=info.height, rate=info.rate, time_base=info.time_base)
        route = opened.enter_context(
            SceneRoutes(
                [adapted_legs(plan.legs, adapted) for adapted in adaptation.bundles] if adaptation else [plan.legs],
                backend=request.backend,
                device=request.device,
                tile=request.tile,
                threads=request.threads,
                flow=request.flow,
                precision=request.precision,
                library=request.library,
            )
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
        run = _Run(plan, CutDetector(request.scene_threshold), route, on_progress, info.frames)
        run.stream(reader, writer)
    seconds = time.perf_counter() - began
    untrained = (
        f"Bundle '{bundle.manifest.name}' holds random weights: measure with it, and look at the pictures of another."
        for bundle in bundles
        if bundle.manifest.training.get("untrained")
    )
    return Report(
        input=str(request.input),
        output=str(plan.output),
        bundle="+".join(bundle.manifest.name for bundle in bundles),
        fingerprint="+".join(bundle.fingerprint for bundle in bundles),
        device=route.device,
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
        peak_memory_bytes=peak_memory_bytes(),
        adaptation=adaptation.records if adaptation else (),
        warnings=(*untrained, *route.notes, *writer.warnings),
    )


def read_scenes(request: UpscaleRequest, most_frames: int = SCENE_FRAMES) -> Iterator[np.ndarray]:
    """Yield the scenes of a request's video as `upscale` cuts it, (N, 3, h, w) in [0, 1] each.

    Of a longer scene the first frames come, as many as are asked for and as `SCENE_BYTES` hold.
    """
    request.check()
    detector = CutDetector(request.scene_threshold)
    scene: list[np.ndarray] = []
    with open_reader(request.input, fps=request.input_fps) as reader:
        most = max(1, min(most_frames, SCENE_BYTES // (12 * reader.info.width * reader.info.height)))
        for frame in reader:
            if detector.is_cut(frame.rgb) and scene:
                yield np.stack(scene)
                scene = []
            if len(scene) < most:
                scene.append(frame.rgb)
    if scene:
        yield np.stack(scene)


class _Run:
    """One video's way through the three stages, and the counts of it."""

    def __init__(
        self,
        plan: Plan,
        detector: CutDetector,
        route: SceneRoutes,
        on_progress: Callable[[Progress], None] | None,
        total_in: int | None,
    ) -> None:
        self._plan, self._detector, self._route = plan, detector, route
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
            made: Channel[tuple[Picture, Fraction]] = Channel(crew, max(1, OUTPUT_BYTES // frame_bytes))
            crew.spawn("stvsr-decode", lambda: self._decode(reader, decoded))
            crew.spawn("stvsr-encode", lambda: self._encode(made, writer))
            self._infer(decoded, made, writer.picture_format)
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

    def _infer(
        self, decoded: Channel[Frame], made: Channel[tuple[Picture, Fraction]], wanted: PictureFormat | None
    ) -> None:
        waiting: deque[list[list[Slot]]] = deque()  # for each input frame and each of its results, where it goes
        results = self._route.pictures(self._inputs(decoded, waiting), wanted)
        while True:
            with self.inference.busy():
                frame = next(results, None)
            self._pass_by(waiting)
            if frame is None:
                break
            for slot in waiting[0].pop(0):
                made.put((frame, slot.pts))
            del frame  # its place is needed for the next one
            self._pass_by(waiting)

    def _inputs(self, decoded: Iterable[Frame], waiting: deque[list[list[Slot]]]) -> Iterator[InputFrame]:
        """Say of each frame, when the next one is here, which frames are wanted from it on; slots share a time's."""
        first: Frame | None = None
        for second in self._awaited(decoded):
            cut = self._detector.is_cut(second.rgb)
            if first is None:
                self.start_pts = second.pts
            else:
                if cut:
                    self.cuts.append(second.pts)
                yield self._input(first, second.pts, cut, waiting)
            first = second
        if first is None:
            raise MediaError("The video holds no frames: choose another, or repair it.")
        self.end_pts = first.pts + first.duration
        yield self._input(first, self.end_pts, True, waiting)

    def _input(self, frame: Frame, until: Fraction, last: bool, waiting: deque[list[list[Slot]]]) -> InputFrame:
        slots: dict[Fraction, list[Slot]] = {}
        for slot in self._plan.timeline.between(frame.pts, until):
            slots.setdefault(slot.time, []).append(slot)
        waiting.append(list(slots.values()))
        return InputFrame(frame.rgb, tuple(slots), last)

    def _awaited(self, decoded: Iterable[Frame]) -> Iterator[Frame]:
        frames = iter(decoded)
        while True:
            with self.inference.idle():
                frame = next(frames, None)
            if frame is None:
                return
            yield frame

    def _pass_by(self, waiting: deque[list[list[Slot]]]) -> None:
        """Count the input frames of which everything was made."""
        while waiting and not waiting[0]:
            waiting.popleft()
            self.frames_in += 1
            self._tell()

    def _encode(self, made: Channel[tuple[Picture, Fraction]], writer: VideoWriter) -> None:
        for rgb, pts, duration in with_durations(made, lambda: self.end_pts):
            with self.encoding.busy():
                writer.write(rgb, pts, duration)
            self.frames_out += 1

    def _tell(self) -> None:
        if self._on_progress is not None:
            self._on_progress(
                Progress(self.frames_in, self.frames_out, self._total_in, time.perf_counter() - self._began)
            )


def peak_memory_bytes() -> int | None:
    """Return the most memory that this process has held so far; None where the system does not say."""
    try:  # of this program alone: what getrusage says may be the parent's, from before this program was loaded
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        pass
    try:
        import resource
    except ImportError:  # Windows has none
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kibibytes on Linux
