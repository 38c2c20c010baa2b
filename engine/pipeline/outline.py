"""The outline of a video that is upscaled in segments: when each of them begins, known before the first is computed."""

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any, Self

from .timeline import Slot

if TYPE_CHECKING:  # the server reads outlines without PyAV and NumPy
    from .segments import Segment
    from .survey import Survey

# By FFmpeg's names of the codecs that players take in fragments of MP4: how many packets may come between that of a
# frame and those of frames that are shown before it, by the standard of the codec.
REORDERED = {"h264": 16, "hevc": 16, "av1": 0, "vp9": 0}


@dataclass(frozen=True)
class Outline:
    """The segments and frames of a video. Times are ticks in the time base of the output, or in that of the input."""

    time_base: Fraction  # seconds
    input_time_base: Fraction  # seconds
    codec: str  # by FFmpeg's name
    lengths: tuple[int, ...]  # input frames of each segment
    starts: tuple[int, ...]  # of the output frames of each segment, and the end of the last one
    delay: int  # by which all decoding is early, so that every frame is decoded before it is shown
    frames: Sequence[int] = field(repr=False)  # of the input, in its time base
    seekable: bool  # whether a frame of the input can be found by its time

    def as_dict(self) -> dict[str, Any]:
        """Return the outline as a dictionary for JSON."""
        bases = {"time_base": str(self.time_base), "input_time_base": str(self.input_time_base)}
        return {**vars(self), **bases, "frames": list(self.frames)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return the outline that `as_dict` returned."""
        return cls(
            time_base=Fraction(values["time_base"]),
            input_time_base=Fraction(values["input_time_base"]),
            codec=values["codec"],
            lengths=tuple(values["lengths"]),
            starts=tuple(values["starts"]),
            delay=values["delay"],
            frames=array("q", values["frames"]),
            seekable=values["seekable"],
        )


def outline(
    segments: Sequence["Segment"],
    surveyed: "Survey",
    slots: Sequence[Sequence[Slot]],
    *,
    codec: str,
    reordered: int,
    time_base: Fraction,
    input_time_base: Fraction,
) -> Outline:
    """Return the outline of segments; `slots` are the output frames that follow each input frame.

    At most `reordered` packets come between that of a frame and those of frames that are shown before it.
    """
    end = round(surveyed.end / time_base)
    times = [*(round(slot.pts / time_base) for after in slots for slot in after), end]
    delay = max((late - early for early, late in zip(times, times[reordered:] or [end], strict=False)), default=0)
    repeats = chain.from_iterable(surveyed.repeats.values())
    before = [0, *accumulate(len(after) for after in slots)]  # output frames before each input frame
    return Outline(
        time_base=time_base,
        input_time_base=input_time_base,
        codec=codec,
        lengths=tuple(len(segment.outputs) for segment in segments),
        starts=(*(times[before[segment.outputs.start]] for segment in segments), end),
        delay=delay,
        frames=array("q", sorted(math.floor(pts / input_time_base) for pts in [*surveyed.pts, *repeats])),
        seekable=surveyed.seekable,
    )
