"""A run that can be resumed: the video is upscaled in segments, which are kept until the output is complete."""

import hashlib
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from threading import Event
from typing import Any

import av

from ..contract.bundle import Bundle, file_sha256, find_bundles
from ..contract.errors import RequestError
from ..contract.manifest import Window
from ..contract.windows import InputFrame
from ..media.encoder import Encoding, choose_encoding
from ..media.frame import Frame, FrameReader
from ..media.reader import open_reader
from ..media.segment_file import JoinedVideo, SegmentFile, SegmentWriter
from .chain import SceneChains
from .plan import Plan
from .pool import UpscalerPool
from .report import Progress, Report
from .request import UpscaleRequest
from .run import Run, untrained_warnings
from .scenes import CutDetector
from .segments import Segment, split_scene
from .store import SegmentStore
from .survey import Survey, survey
from .timeline import Slot

SEGMENT_S = 2  # seconds of input in a segment, approximately
_LEAST_FRAMES = 8  # of a segment
_RATE_OPTIONS = frozenset({"b", "b:v", "maxrate", "minrate", "bufsize", "pass"})


def upscale_resumable(
    request: UpscaleRequest,
    on_progress: Callable[[Progress], None] | None = None,
    segment_frames: int | None = None,
    cancel: Event | None = None,
    pool: UpscalerPool | None = None,
) -> Report:
    """Upscale one video as `upscale` does, so that the same call goes on after it was stopped.

    Finished segments of about two seconds, or of `segment_frames` input frames, are kept in the folder `.NAME.stvsr`
    beside the output, which is deleted when the output is complete. `cancel` is that of `upscale`, and with a `pool`
    its open upscalers are used. A chain of bundles, and a network that passes over the frames several times, has scenes
    as its segments.

    Raises a StvsrError as `upscale`, and RequestError if the folder belongs to another run or if the encoder is given a
    bit rate, which has no meaning for segments.
    """
    began = time.perf_counter()
    if request.output is not None:
        _check_output(request, Path(request.output))
    request.check()
    if rates := _RATE_OPTIONS & (request.encoder_options or {}).keys():
        raise RequestError(f"Segments have no common bit rate: leave out '{min(rates)}', or give a quality by --crf.")
    bundles = find_bundles(request.model)
    with ExitStack() as opened:
        reader = opened.enter_context(open_reader(request.input, fps=request.input_fps))
        info = reader.info
        plan = replace(request, overwrite=True).plan(
            bundles, width=info.width, height=info.height, rate=info.rate, time_base=info.time_base
        )
        _check_output(request, plan.output)
        encoding = choose_encoding(
            plan.output.suffix.lower(),
            plan.size,
            info.bit_depth,
            codec=request.codec,
            crf=request.crf,
            pix_fmt=request.pix_fmt,
            options=request.encoder_options,
        )
        frames = segment_frames or max(_LEAST_FRAMES, round(SEGMENT_S * info.rate))
        store = SegmentStore(_store_folder(plan.output), _identity(request, bundles, plan, encoding, frames))
        if store.survey is None:
            store.begin(survey(reader, CutDetector(request.scene_threshold)))
        assert store.survey is not None
        segments = _segments(plan, store.survey, frames)
        chains = opened.enter_context(
            SceneChains([plan.passes], request.backend, tile=request.tile, flow=request.flow, pool=pool)
        )
        run = _SegmentedRun(plan, chains, on_progress, store.survey, cancel)
        files = [run.finish(number, segment, store, reader, encoding) for number, segment in enumerate(segments)]
        joined = JoinedVideo(
            plan.output,
            files,
            source=info,
            size=plan.size,
            time_base=plan.time_base,
            end=store.survey.end,
            overwrite=request.overwrite,
        )
        with joined:
            joined.write()
        store.remove()
    warnings = (*untrained_warnings(bundles), *chains.warnings, *joined.warnings)
    return run.report(request, bundles, info, time.perf_counter() - began, (), warnings)


def is_finished(request: UpscaleRequest) -> bool:
    """Return whether the output of a request exists, and need not be made again."""
    return request.output is not None and Path(request.output).exists() and not request.overwrite


def _check_output(request: UpscaleRequest, output: Path) -> None:
    """Raise RequestError if the output exists and may not be replaced.

    The store of a run that was killed just after it wrote this output is deleted.
    """
    if is_finished(replace(request, output=output)):
        shutil.rmtree(_store_folder(output), ignore_errors=True)
        raise RequestError(f"{output} exists already: choose another output, or pass --overwrite.")


def _store_folder(output: Path) -> Path:
    return output.with_name(f".{output.name}.stvsr")


def _segments(plan: Plan, surveyed: Survey, frames: int) -> list[Segment]:
    """Return the segments of a video: of a single pass by its window, else its scenes."""
    (*others, last) = plan.passes
    if others or last.coarse:
        return [Segment(scene, scene, True) for scene in surveyed.scenes]
    window: Window = last.bundle.manifest.window
    return [segment for scene in surveyed.scenes for segment in split_scene(window, scene, frames)]


def _identity(
    request: UpscaleRequest, bundles: tuple[Bundle, ...], plan: Plan, encoding: Encoding, frames: int
) -> dict[str, Any]:
    """Return everything that determines the frames of a run and their encoding, as JSON values by name."""
    return {
        "input": _content(Path(request.input)),
        "input rate": str(request.input_fps),
        "bundle": [bundle.fingerprint for bundle in bundles],
        "size": list(plan.size),
        "time factor or rate": [plan.timeline.factor, str(plan.timeline.fps)],
        "scene threshold": request.scene_threshold,
        "optical flow": request.flow,
        "tile": request.tile,
        "backend": {k: v for k, v in asdict(request.backend).items() if k != "threads"},
        "encoding": [encoding.codec, encoding.pix_fmt, dict(encoding.options)],
        "segment length": frames,
        "version of the encoders": av.__version__,
    }


def _content(path: Path) -> str:
    """Return a digest of a file, or of the images in a folder."""
    if path.is_file():
        return file_sha256(path)
    digest = hashlib.sha256()
    for file in sorted(path.glob("*.png")):
        digest.update(f"{file.name}\0{file_sha256(file)}\n".encode())
    return digest.hexdigest()


class _SegmentedRun(Run):
    """A run that computes one segment after another, with the times and cuts of a survey."""

    def __init__(
        self,
        plan: Plan,
        chains: SceneChains,
        on_progress: Callable[[Progress], None] | None,
        surveyed: Survey,
        cancel: Event | None,
    ) -> None:
        super().__init__(plan, CutDetector(None), chains, on_progress, len(surveyed.pts), cancel)
        self._survey = surveyed
        self._slots = surveyed.slots(plan.timeline)
        self._segment = Segment(range(0), range(0), False)
        self.start_pts, self.cuts = surveyed.pts[0], [surveyed.pts[cut] for cut in surveyed.cuts]

    def finish(
        self, number: int, segment: Segment, store: SegmentStore, reader: FrameReader, encoding: Encoding
    ) -> SegmentFile:
        """Return a segment's file: from the store, or computed and added to it."""
        self._segment = segment
        self.end_pts = self._next_slot(segment.outputs.stop)
        if (stored := store.finished(number)) is not None:
            self.frames_in += len(segment.outputs)
            self.frames_out += len(stored.ticks)
            self._report_progress()
            return stored
        pts = (*self._survey.pts, self._survey.end)
        frames = reader.between(pts[segment.inputs.start], pts[segment.inputs.stop])
        writer = SegmentWriter(
            store.path(number),
            encoding,
            source=reader.info,
            size=self._plan.size,
            rate=self._plan.rate,
            time_base=self._plan.time_base,
        )
        with writer:
            self.stream(frames, writer)
        store.add(number, writer.finished)
        return writer.finished

    def _inputs(self, decoded: Iterable[Frame], pending: deque[list[list[Slot]]]) -> Iterator[InputFrame]:
        segment = self._segment
        for number, frame in zip(segment.inputs, self._awaited(decoded), strict=True):
            last = segment.ends_scene and number == segment.inputs[-1]
            if number in segment.outputs:
                yield self._input_at(frame, self._slots[number], last, pending)
            else:
                yield InputFrame(frame.rgb, (), last)

    def _next_slot(self, number: int) -> Fraction:
        """Return the time of the first output frame that belongs to frame `number` or a later one, or the end."""
        return next((slot.pts for slots in self._slots[number:] for slot in slots), self._survey.end)
