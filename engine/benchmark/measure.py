"""The measurements of one case, in a process of its own: the main function of that process, and its passes.

1. Open the graphs, and compute frames for a while: the first frame's cost, and the warm-up.
2. Streams: frames in memory to frames in memory, as many streams at a time as the case states.
3. Requests: one window after another in each stream, each awaited before the next one.
4. Of one stream without a batch: a whole run from file to file, and a shorter one with its stages one after another.
"""

import itertools
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np

from ..backends.nvml import GpuMeter
from ..backends.options import Backend
from ..backends.stages import STAGES, StageClock
from ..contract.bundle import find_bundles
from ..contract.errors import MediaError, StvsrError
from ..contract.interrupts import catch_signals
from ..contract.manifest import Window
from ..contract.shortage import describe_shortage
from ..contract.windows import InputFrame, one_scene
from ..media.reader import open_reader
from ..pipeline.chain import Chain
from ..pipeline.plan import plan_passes
from ..pipeline.pool import UpscalerPool
from ..pipeline.report import Report, peak_memory_bytes
from ..pipeline.request import UpscaleRequest
from ..pipeline.run import upscale
from .results import Case, Percentiles

FIGURES, DONE, FAILED = "figures", "done", "failed"  # kinds of the messages of a case's process

_FRAMES, _FRAME_BYTES = 16, 256 << 20  # input frames in memory, at most
_LEAST_INPUTS = 3  # frames of a whole run: the last one of a scene is computed once, for all of its times
_SAMPLE_S = 0.02  # between readings of the GPU's memory


@dataclass(frozen=True)
class Job:
    """A case, and what its process needs besides."""

    case: Case
    model: str  # the bundle, by its name or folder, or the chain
    backend: Backend
    clip: Path
    folder: Path  # for the outputs of whole runs
    seconds: float  # the length of each measurement; one that needs a window takes longer if the window does


def serve(connection: Connection, backend: Backend) -> None:
    """Measure the job that comes over a connection, and send its figures as soon as each is known."""
    catch_signals()
    with suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        job: Job = connection.recv()
        try:
            for figures in measure(job):
                connection.send((FIGURES, figures))
        except Exception as error:
            connection.send((FAILED, describe(error)))
        else:
            connection.send((DONE, None))


def describe(error: Exception) -> str:
    """Return what ended a case, in a sentence."""
    if isinstance(error, StvsrError):
        return str(error)
    return describe_shortage(error) or f"{type(error).__name__}: {error}"


def measure(job: Job) -> Iterator[dict[str, Any]]:
    """Yield fields of `Figures` as they are measured. Raises a StvsrError for a case that cannot be computed."""
    meter = _meter(job.case)
    with _DeviceMemory(meter) as memory:
        for figures in _measure(job, meter):
            yield {**figures, "peak_memory_bytes": peak_memory_bytes(), **memory.figures()}


def _measure(job: Job, meter: GpuMeter) -> Iterator[dict[str, Any]]:
    """Yield the figures but for memory."""
    case, clock = job.case, StageClock()
    (width, height), (out_width, out_height) = case.size_in, case.size_out
    frames = _read_frames(job.clip, width, height)
    with ExitStack() as opened:
        began = time.perf_counter()
        bundles = find_bundles(job.model)
        passes = plan_passes(bundles, (height, width), (out_height, out_width), case.factor)
        pool = opened.enter_context(UpscalerPool(len(passes), case.batch, clock))
        chain = opened.enter_context(Chain(passes, job.backend, pool=pool))
        yield {"open_seconds": round(time.perf_counter() - began, 3)}
        load = _Load(chain, frames, passes[0].bundle.manifest.window, case)
        warm_up = load.stream(job.seconds / 2, whole_windows=False)
        yield {
            "first_frame_seconds": round(warm_up.first_s, 3),
            "warm_up_seconds": round(warm_up.seconds, 3),
            "warm_up_frames": warm_up.frames,
        }
        joules = meter.joules()
        streams = load.stream(job.seconds)
        yield {"fps": round(streams.fps, 3), "frames": streams.frames, **_energy(joules, meter, streams.computed)}
        requests = load.request(job.seconds)
        yield {
            "request_ms": Percentiles.of(requests),
            "frames_per_request": load.outputs_per_window,
            "warnings": tuple(dict.fromkeys(chain.warnings)),
        }
        if case.concurrency == 1 and case.batch == 1:
            yield from _whole_runs(job, pool, clock, streams.fps)


@dataclass
class _Stream:
    """The frames that were computed in a time."""

    frames: int = 0
    computed: int = 0  # with those that were pending at the end
    seconds: float = 0.0  # from the beginning to the last frame
    first_s: float = 0.0  # to the first frame
    fps: float = field(init=False, default=0.0)


class _Load:
    """Streams and requests that a chain of open graphs computes."""

    def __init__(self, chain: Chain, frames: Sequence[np.ndarray], window: Window, case: Case) -> None:
        self._chain, self._frames, self._window, self._case = chain, frames, window, case
        self._times = tuple(Fraction(part, case.factor) for part in range(case.factor))
        # A run shares its last frame with the next one.
        advance = {"pair": 1, "run": window.frames - 1, "sliding": 1, "doubled": window.frames}[window.kind]
        self.outputs_per_window = advance * case.factor
        self._advance = advance

    def stream(self, seconds: float, *, whole_windows: bool = True) -> _Stream:
        """Compute frames for a time, in whole windows and at least one, and return the counts of all streams."""
        multiple = self.outputs_per_window if whole_windows else 1
        parts = self._in_threads(lambda number, began: self._stream_one(number, began, began + seconds, multiple))
        total = _Stream(
            sum(part.frames for part in parts),
            sum(part.computed for part in parts),
            max(part.seconds for part in parts),
            min(part.first_s for part in parts),
        )
        total.fps = sum(part.frames / part.seconds for part in parts)
        return total

    def request(self, seconds: float) -> list[float]:
        """Return the milliseconds of each request, made in a time or until each stream has made one."""
        return [ms for part in self._in_threads(lambda n, began: self._request_one(n, began + seconds)) for ms in part]

    def _in_threads(self, work: Callable[[int, float], Any]) -> list[Any]:
        began = time.perf_counter()
        with ThreadPoolExecutor(self._case.concurrency, "stvsr-stream") as threads:
            return [done.result() for done in [threads.submit(work, n, began) for n in range(self._case.concurrency)]]

    def _stream_one(self, number: int, began: float, until: float, multiple: int) -> _Stream:
        done, ended = _Stream(), False
        inputs = itertools.takewhile(lambda _: not ended, self._endless(number))
        for _ in self._chain.frames(one_scene(inputs, self._times)):
            done.computed += 1
            if ended:
                continue
            done.frames += 1
            done.seconds = time.perf_counter() - began
            done.first_s = done.first_s or done.seconds
            ended = began + done.seconds >= until and done.frames % multiple == 0
            if ended and self._chain.device == "cpu":  # another device, which has copies under way, is drained
                break
        return done

    def _request_one(self, number: int, until: float) -> list[float]:
        """Compute windows one after another; each is a scene of its own."""
        milliseconds: list[float] = []
        frames = self._endless(number)
        while not milliseconds or time.perf_counter() < until:
            inputs = self._window_inputs([next(frames) for _ in range(self._window.frames)])
            start = time.perf_counter()
            for _ in self._chain.frames(inputs):
                pass
            milliseconds.append(1e3 * (time.perf_counter() - start))
        return milliseconds

    def _window_inputs(self, frames: Sequence[np.ndarray]) -> list[InputFrame]:
        """Return the inputs of a scene of one window: of its first frames, or of its middle one, outputs are asked."""
        first = len(frames) // 2 if self._window.kind == "sliding" else 0
        asked = range(first, first + self._advance)
        return [
            InputFrame(frame, self._times if index in asked else (), last=index == len(frames) - 1)
            for index, frame in enumerate(frames)
        ]

    def _endless(self, number: int) -> Iterator[np.ndarray]:
        """Yield the frames forwards and backwards without an end, for each stream from another one on."""
        there_and_back = [*self._frames, *self._frames[-2:0:-1]]
        return itertools.islice(itertools.cycle(there_and_back), number, None)


def _whole_runs(job: Job, pool: UpscalerPool, clock: StageClock, fps: float) -> Iterator[dict[str, Any]]:
    """Yield the figures of a run from file to file, and of one whose stages do not overlap on the device."""
    frames = max(_LEAST_INPUTS, round(job.seconds * fps / job.case.factor))
    report = _run(job, pool, frames)
    yield {"whole_fps": round(report.fps, 3), "whole_frames": report.frames_out}
    if "," in job.case.device:  # whose stages overlap with those of each other
        return
    clock.running = True
    report = _run(job, pool, max(_LEAST_INPUTS, frames // 2))
    clock.running = False
    on_device: dict[str, float] = {stage: clock.seconds[stage] for stage in STAGES}
    other = max(0.0, report.inference_seconds - sum(on_device.values()))
    seconds = {"decode": report.decode_seconds, **on_device, "other": other, "encode": report.encode_seconds}
    yield {"stages_ms": {stage: round(1e3 * busy / report.frames_out, 3) for stage, busy in seconds.items()}}


def _run(job: Job, pool: UpscalerPool, frames: int) -> Report:
    """Upscale the first frames of the clip into a file, which is deleted."""
    output = job.folder / "out.mp4"
    request = UpscaleRequest(
        input=job.clip,
        output=output,
        size=job.case.size_out,
        time_factor=job.case.factor,
        frames=frames,
        model=job.model,
        backend=job.backend,
    )
    try:
        return upscale(request, pool=pool)
    finally:
        output.unlink(missing_ok=True)


def _read_frames(clip: Path, width: int, height: int) -> list[np.ndarray]:
    """Return the first frames of a clip, (3, h, w) in [0, 1]."""
    most = max(2, min(_FRAMES, _FRAME_BYTES // (12 * width * height)))
    with open_reader(clip) as reader:
        frames = [frame.rgb for frame in itertools.islice(reader, most)]
    if len(frames) < 2:
        raise MediaError(f"The clip {clip.name} has fewer than two frames: name a longer one by --clip.")
    return frames


def _meter(case: Case) -> GpuMeter:
    one_gpu = re.fullmatch(r"cuda:(\d+)", case.device)
    return GpuMeter(int(one_gpu[1]) if one_gpu else None)


def _energy(before: float | None, meter: GpuMeter, frames: int) -> dict[str, float]:
    """Return the energy of each frame since `before`, if the GPU counts it."""
    now = meter.joules()
    return {} if before is None or now is None else {"joules_per_frame": round((now - before) / frames, 4)}


class _DeviceMemory:
    """The most memory of a GPU that was in use during a block, above what was in use before it."""

    def __init__(self, meter: GpuMeter) -> None:
        self._meter, self._ended = meter, Event()
        self._before = self._most = meter.used_bytes()
        self._thread = Thread(target=self._watch, name="stvsr-memory", daemon=True)

    def __enter__(self) -> "_DeviceMemory":
        if self._before is not None:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        if self._before is not None:
            self._thread.join()

    def figures(self) -> dict[str, int]:
        """Return the field of `Figures`, if the GPU states its memory."""
        if self._before is None or self._most is None:
            return {}
        return {"device_memory_bytes": self._most - self._before}

    def _watch(self) -> None:
        while not self._ended.wait(_SAMPLE_S):
            self._most = max(self._most or 0, self._meter.used_bytes() or 0)
