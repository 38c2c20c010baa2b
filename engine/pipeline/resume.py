"""A run that can be resumed: the video is upscaled in segments, which are kept until the output is complete."""

import hashlib
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from threading import Event
from typing import Any

import av

from ..backends.options import with_refit
from ..contract.bundle import Bundle, file_sha256, find_bundles
from ..contract.closing import Closing
from ..contract.errors import MediaError, RequestError
from ..contract.manifest import Window
from ..media.alpha import AlphaReader
from ..media.damage import Repair
from ..media.destination import CONTAINERS
from ..media.encoder import Encoding, choose_encoding
from ..media.image_files import find_images
from ..media.pipes import input_name, is_pipe
from ..media.pixel_format import has_alpha
from ..media.segment_file import JoinedVideo
from ..media.video_stream import output_time_base
from .adaptation import Adapting
from .chain import SceneChains
from .notes import alpha_warnings, untrained_warnings, warn_before
from .outline import REORDERED, Outline, outline
from .plan import Pass, Plan, adapted_passes
from .pool import UpscalerPool
from .report import Progress, Report
from .request import UpscaleRequest
from .run import open_input
from .run_files import RunFiles
from .scenes import CutDetector
from .segmented_run import SegmentedRun
from .segments import Segment, split_scene
from .store import SegmentStore
from .stored_adaptation import StoredAdaptation
from .survey import Survey, survey

SEGMENT_S = 2  # seconds of input in a segment, approximately
FIRST_FRAMES = 12  # of the first segment, so that a preview can begin early
_FIRST_SHARE = 4  # a first scene of fewer times as many frames is not cut for it, because that costs a keyframe
_LEAST_FRAMES = 8  # of a segment
_WITHOUT_EFFECT = frozenset({"threads", "waiting", "time_limit_s", "url", "timeout_s"})  # fields of Backend, on frames
_RATE_OPTIONS = frozenset({"b", "b:v", "maxrate", "minrate", "bufsize", "pass"})


def upscale_resumable(
    request: UpscaleRequest,
    on_progress: Callable[[Progress], None] | None = None,
    segment_frames: int | None = None,
    cancel: Event | None = None,
    pool: UpscalerPool | None = None,
    store: str | None = None,
    on_warning: Callable[[str], None] | None = None,
    adapting: Adapting | None = None,
) -> Report:
    """Upscale one video as `upscale` does, so that the same call goes on after it was stopped.

    Finished segments of about two seconds, or of `segment_frames` input frames, are kept in the folder `.NAME.stvsr`
    beside the output, or in a folder in `store`, which is deleted when the output is complete. `store`, and the input
    and the output of the request, are paths or addresses such as s3://bucket/folder/clip.mp4. `cancel` and `on_warning`
    are those of `upscale`, and with a `pool` its open upscalers are used. A chain of bundles, and a network that passes
    over the frames several times, has scenes as its segments. With `adapting` the bundles are adapted to the video, or
    to each of its scenes, and what was learned is kept with the segments.

    Raises a StvsrError as `upscale`, and RequestError if the folder belongs to another run or if the encoder is given a
    bit rate, which has no meaning for segments.
    """
    began = time.perf_counter()
    with SegmentedVideo(request, segment_frames, pool, on_progress, cancel, store, adapting) as video:
        warn_before(video.early_warnings, on_warning)
        for number in range(len(video.segments)):
            video.compute(number)
        video.join()
        return video.report(time.perf_counter() - began)


class SegmentedVideo(Closing):
    """A video that is upscaled in segments, in any order and by any number of processes, and then joined.

    Every process that opens the same request finds the same segments, and those that others have finished in the store.
    The arguments are those of `upscale_resumable`, and so are the errors.
    """

    def __init__(
        self,
        request: UpscaleRequest,
        segment_frames: int | None = None,
        pool: UpscalerPool | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        cancel: Event | None = None,
        store: str | None = None,
        adapting: Adapting | None = None,
    ) -> None:
        if is_pipe(request.input):
            raise RequestError(
                f"A run that can be resumed reads its input again. {input_name(request.input)} is a pipe: save it to a"
                " file first."
            )
        if rates := _RATE_OPTIONS & (request.encoder_options or {}).keys():
            raise RequestError(
                f"Segments have no common bit rate: leave out '{min(rates)}', or give a quality by --crf."
            )
        self._pool, self._on_progress, self._cancel, self._adapting = pool, on_progress, cancel, adapting
        self.request = request
        self._bundles = find_bundles(request.model)
        self._run: SegmentedRun | None = None
        self.adaptation: StoredAdaptation | None = None
        self._records: tuple[dict[str, Any], ...] = ()  # of the adaptation
        self._computing = 0  # the number of the segment that is computed
        self._warnings: list[str] = []  # of the joined video
        self._repairs: list[Repair] = []  # of its other streams
        self._frames_out = 0
        self._output = ""  # where the joined video is
        with ExitStack() as opened:
            self._files = opened.enter_context(RunFiles(request, store))
            with self._files.named_errors():
                self._open(opened, self._files.request, segment_frames)
            self._opened = opened.pop_all()

    def outline(self) -> Outline:
        """Return the times of the segments."""
        codec = av.Codec(self._encoding.codec, "w").canonical_name
        return outline(
            self.segments,
            self.survey,
            self._slots,
            codec=codec,
            reordered=REORDERED.get(codec, 0),
            time_base=output_time_base(self.plan.output, self.plan.time_base),
            input_time_base=self._reader.info.time_base,
        )

    @property
    def early_warnings(self) -> tuple[str, ...]:
        """Sentences of the report that are known before any work."""
        return (*untrained_warnings(self._bundles), *self._reader.warnings, *self._encoding.notes)

    def learn(self, unit: int) -> None:
        """Learn a unit of the adaptation that was asked for (`AdaptSettings.unit_of`), unless it is in the store."""
        assert self.adaptation is not None
        with self._files.named_errors():
            self.adaptation.learn(unit)

    def compute(self, number: int) -> None:
        """Compute a segment, unless it is in the store."""
        with self._files.named_errors():
            run, self._computing = self._open_run(), number
            run.finish(
                number,
                self.segments[number],
                self.store,
                self._reader,
                self._encoding,
                lambda: self._weights_of(number),
            )

    def join(self) -> None:
        """Write the output of all segments, and delete the store. Segments that are missing are computed first."""
        files = []
        for number in range(len(self.segments)):
            file = self.store.finished(number, self._weights_of(number))
            if file is None:
                self.compute(number)
                file = self.store.finished(number, self._weights_of(number))
            if file is None:
                raise MediaError(f"Segment {number} in {self.store.folder} is damaged or was deleted: run again.")
            files.append(file)
        with self._files.named_errors():
            joined = JoinedVideo(
                self.plan.output,
                files,
                source=self._reader.info,
                codec=self._encoding.codec,
                size=self.plan.size,
                rate=self.plan.rate,
                time_base=self.plan.time_base,
                end=self.survey.end,
                overwrite=self.request.overwrite,
                on_damage=self.request.on_damage,
                # With the parts, nothing is left of a run that is killed.
                part_folder=None if self._files.copies_output else self.store.path(0).parent,
                warnings=self._encoding.notes,
            )
            with joined:
                joined.write()
            self._output = self._files.publish(self.plan.output)
        self._frames_out = sum(len(file.ticks) for file in files)
        self._warnings += joined.warnings
        self._repairs += joined.repairs
        if self.adaptation is not None:
            self._records = self.adaptation.records()
        self.store.remove()

    def report(self, seconds: float) -> Report:
        """Return the report of the joined video, which took some seconds; the busy times are those of this process."""
        run = self._open_run()
        lost = alpha_warnings(self.survey.loses_alpha, self.plan)
        warnings = (*untrained_warnings(self._bundles), *run.warnings, *self._warnings, *lost)
        repairs = (*self.survey.repairs, *self._repairs)
        report = run.report(self.request, self._bundles, self._reader.info, seconds, self._records, warnings, repairs)
        count = self._frames_out
        return replace(
            report, output=self._output, frames_in=self.survey.frame_count, frames_out=count, fps=count / seconds
        )

    def close(self) -> None:
        """Close the video and its upscalers."""
        self._opened.close()

    def _open(self, opened: ExitStack, request: UpscaleRequest, segment_frames: int | None) -> None:
        """Open the input and the store, and plan the segments; the paths of the request are of this machine."""
        request.check()
        reader = opened.enter_context(open_input(request))
        info = reader.info
        self.plan = replace(request, overwrite=True).plan(self._bundles, info)
        if not self.plan.destination.is_segmented:
            raise RequestError(
                f"A run that can be resumed writes a video file ({', '.join(CONTAINERS)}), and"
                f" {self.plan.destination.name} is none: choose such an output, or leave out --resume."
            )
        self._files.check_output(self.plan.output)
        self._encoding = choose_encoding(
            self.plan.destination.suffix,
            self.plan.size,
            info,
            codec=request.codec,
            crf=request.crf,
            pix_fmt=request.pix_fmt,
            options=request.encoder_options,
        )
        self._reader = AlphaReader(reader, has_alpha(self._encoding.pix_fmt))
        frames = segment_frames or max(_LEAST_FRAMES, round(SEGMENT_S * info.rate))
        first = 0 if segment_frames else FIRST_FRAMES
        identity = _identity(request, self._bundles, self.plan, self._encoding, frames, first)
        identity["adaptation"] = None if self._adapting is None else self._adapting.settings.identity()
        self.store = SegmentStore(self._files.parts(self.plan.output), identity)
        if self.store.survey is None:
            surveyed = survey(self._reader, CutDetector(request.scene_threshold), request.dedup)
            self.store.begin(replace(surveyed, loses_alpha=self._reader.is_lost))
        assert self.store.survey is not None
        self.survey = self.store.survey
        self.segments = _segments(self.plan, self.survey, frames, first)
        self._slots = self.survey.slots(self.plan.timeline)
        if self._adapting is not None:
            scenes = len(self.survey.scenes)
            adaptation = StoredAdaptation(self.store, self._adapting, request, scenes, self._cancel)
            self.adaptation = opened.enter_context(adaptation)

    def scene_of(self, number: int) -> int:
        """Return the number of the scene that a segment is part of."""
        return bisect_right(self.survey.cuts, self.segments[number].outputs.start)

    def _weights_of(self, number: int) -> str | None:
        """Return the version of the adapted weights of a segment; None if it has the original ones."""
        return None if self.adaptation is None else self.adaptation.version(self._unit_of(number))

    def _passes_of_segment(self, _: int) -> Sequence[Pass]:
        """Return the passes of the segment that is computed, which is part of one scene."""
        adaptation = self.adaptation
        bundles = () if adaptation is None else adaptation.bundles(self._unit_of(self._computing))
        return adapted_passes(self.plan.passes, bundles)

    def _unit_of(self, number: int) -> int:
        assert self.adaptation is not None
        return self.adaptation.unit_of(self.scene_of(number))

    def _open_run(self) -> SegmentedRun:
        if self._run is None:
            request = self.request
            chains = SceneChains(
                self.plan.passes,
                request.backend if self.adaptation is None else with_refit(request.backend),
                request.inference,
                pool=self._pool,
                passes_of=self._passes_of_segment,
            )
            self._opened.enter_context(chains)
            self._run = SegmentedRun(self.plan, chains, self._on_progress, self.survey, self._slots, self._cancel)
            self._run.size_out = self._encoding.size
        return self._run


def _segments(plan: Plan, surveyed: Survey, frames: int, first: int) -> list[Segment]:
    """Return the segments of a video: of a single pass by its window, else its scenes.

    The first segment has about `first` frames, if its scene is long enough for that to cost little.
    """
    last = plan.passes[-1]
    if len(plan.passes) > 1 or last.coarse:
        return [Segment(scene, scene, True) for scene in surveyed.scenes]
    window: Window = last.bundle.manifest.window
    start, *others = surveyed.scenes
    begun = split_scene(window, start, frames, first if len(start) >= _FIRST_SHARE * first else 0)
    return [*begun, *(segment for scene in others for segment in split_scene(window, scene, frames))]


def _identity(
    request: UpscaleRequest, bundles: tuple[Bundle, ...], plan: Plan, encoding: Encoding, frames: int, first: int
) -> dict[str, Any]:
    """Return everything that determines the frames of a run and their encoding, as JSON values by name."""
    return {
        "input": _content(Path(request.input)),
        "input rate": str(request.input_rate),
        "part": None if request.part is None else {name: str(value) for name, value in asdict(request.part).items()},
        "bundle": [bundle.fingerprint for bundle in bundles],
        "size": list(plan.size),
        "time factor or rate": [str(plan.timeline.factor), str(plan.timeline.fps)],
        "scene threshold": request.scene_threshold,
        "reading": asdict(request.read_options),
        "repeated frames": request.dedup,
        "optical flow": request.flow,
        "tile": request.tile,
        "preset": request.preset,
        "backend": {k: v for k, v in asdict(request.backend).items() if k not in _WITHOUT_EFFECT},
        "encoding": [encoding.codec, encoding.pix_fmt, dict(encoding.options)],
        "segment length": [frames, first],
        "version of the encoders": av.__version__,
    }


def _content(path: Path) -> str:
    """Return a digest of a file, or of the images that a path means."""
    if path.is_file():
        return file_sha256(path)
    digest = hashlib.sha256()
    for file in find_images(path).files:
        digest.update(f"{file.name}\0{file_sha256(file)}\n".encode())
    return digest.hexdigest()
