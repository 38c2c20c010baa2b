"""The outline of a video that is upscaled in segments: when each of them begins, known before the first is computed."""

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import accumulate
from typing import Any, Self

from .segments import Segment
from .survey import Survey
from .timeline import Slot


@dataclass(frozen=True)
class Outline:
    """The segments and frames of a video. Times are ticks in its time base."""

    time_base: Fraction  # seconds
    codec: str  # by FFmpeg's name
    lengths: tuple[int, ...]  # input frames of each segment
    starts: tuple[int, ...]  # of the output frames of each segment, and the end of the last one
    delay: int  # no frame has to be decoded more than this before it is shown
    frames: Sequence[int] = field(repr=False)  # of the input

    def as_dict(self) -> dict[str, Any]:
        """Return the outline as a dictionary for JSON."""
        return {**vars(self), "time_base": str(self.time_base), "frames": list(self.frames)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return the outline that `as_dict` returned."""
        return cls(
            time_base=Fraction(values["time_base"]),
            codec=values["codec"],
            lengths=tuple(values["lengths"]),
            starts=tuple(values["starts"]),
            delay=values["delay"],
            frames=array("q", values["frames"]),
        )


def outline(
    segments: Sequence[Segment],
    surveyed: Survey,
    slots: Sequence[Sequence[Slot]],
    *,
    time_base: Fraction,
    codec: str,
    reordered: int,
) -> Outline:
    """Return the outline of segments; `slots` are the output frames that follow each input frame.

    At most `reordered` packets come between that of a frame and those of frames that are shown before it.
    """
    end = round(surveyed.end / time_base)
    times = [*(round(slot.pts / time_base) for after in slots for slot in after), end]
    delay = max((late - early for early, late in zip(times, times[reordered:] or [end], strict=False)), default=0)
    before = [0, *accumulate(len(after) for after in slots)]  # output frames before each input frame
    return Outline(
        time_base,
        codec,
        tuple(len(segment.outputs) for segment in segments),
        (*(times[before[segment.outputs.start]] for segment in segments), end),
        delay,
        array("q", (math.floor(pts / time_base) for pts in surveyed.pts)),
    )
