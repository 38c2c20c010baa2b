"""The run of a video in segments: each is computed with the times and cuts of a survey."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import zip_longest
from threading import Event

from ..contract.errors import MediaError
from ..contract.windows import InputFrame
from ..media.encoder import Encoding
from ..media.frame import Frame, FrameReader
from ..media.segment_file import SegmentWriter
from ..media.video_stream import output_time_base
from .chain import SceneChains
from .plan import Plan
from .report import Progress
from .run import Run
from .scenes import CutDetector
from .segments import Segment
from .store import SegmentStore
from .survey import Survey
from .timeline import Slot

SLOW_PARTS = (
    "The parts of this video cannot be found by their times: its beginning is decoded again for each segment, which"
    " takes the longer the longer the video is. Remux it to avoid that."
)


class SegmentedRun(Run):
    """A run that computes one segment after another, with the times and cuts of a survey."""

    def __init__(
        self,
        plan: Plan,
        chains: SceneChains,
        on_progress: Callable[[Progress], None] | None,
        surveyed: Survey,
        slots: list[list[Slot]],  # that follow each frame
        cancel: Event | None,
    ) -> None:
        super().__init__(plan, CutDetector(None), chains, on_progress, surveyed.frame_count, cancel)
        self._survey, self._slots = surveyed, slots
        self._repeats = {pts for times in surveyed.repeats.values() for pts in times}
        self.repeated_frames, self.still_frames = surveyed.repeat_counts
        self._segment = Segment(range(0), range(0), False)
        self.start_pts, self.cuts = surveyed.pts[0], [surveyed.pts[cut] for cut in surveyed.cuts]

    def finish(
        self,
        number: int,
        segment: Segment,
        store: SegmentStore,
        reader: FrameReader,
        encoding: Encoding,
        weights: Callable[[], str | None],
    ) -> None:
        """Compute a segment and add it to the store, unless it is there.

        `weights` returns the version of the adapted weights, which may be another one after the segment was computed.
        """
        self._segment = segment
        self.end_pts = self._next_slot(segment.outputs.stop)
        if (stored := store.finished(number, weights())) is not None:
            self.frames_in += sum(map(self._survey.count_of, segment.outputs))
            self.frames_out += len(stored.ticks)
            self._report_progress()
            return
        pts = (*self._survey.pts, self._survey.end)
        low, high = pts[segment.inputs.start], pts[segment.inputs.stop]
        frames = reader.between(low, high, seek=self._survey.is_seekable(low, high))
        writer = SegmentWriter(
            store.path(number),
            encoding,
            source=reader.info,
            size=self._plan.size,
            rate=self._plan.rate,
            time_base=output_time_base(self._plan.output, self._plan.time_base),
        )
        with writer:
            self.stream(frames, writer)
        store.add(number, writer.finished, weights())

    @property
    def warnings(self) -> list[str]:
        """Sentences about what differs from the request."""
        return [*self._survey.warnings, *([] if self._survey.seekable else [SLOW_PARTS]), *self._chains.warnings]

    def _inputs(self, decoded: Iterable[Frame], pending: deque[list[list[Slot]]]) -> Iterator[InputFrame]:
        segment = self._segment
        frames = (frame for frame in self._awaited(decoded) if frame.pts not in self._repeats)
        for number, frame in zip_longest(segment.inputs, frames):
            if number is None or frame is None:
                raise MediaError(
                    f"The frames from {float(self._survey.pts[segment.inputs.start]):.3f} s on are other ones than"
                    " before: the video was changed, or cannot be read any more; restore it and run again."
                )
            last = segment.ends_scene and number == segment.inputs[-1]
            if number in segment.outputs:
                yield self._input_at(frame, self._slots[number], last, pending, self._survey.count_of(number))
            else:
                yield InputFrame(frame.rgb, (), last, frame.alpha)

    def _next_slot(self, number: int) -> Fraction:
        """Return the time of the first output frame that belongs to frame `number` or a later one, or the end."""
        return next((slot.pts for slots in self._slots[number:] for slot in slots), self._survey.end)
