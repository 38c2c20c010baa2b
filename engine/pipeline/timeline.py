"""The timeline: the output frames between two input frames, at exact timestamps.

An output frame has a time in the gap between two input frames (0 at the first, below 1) and a timestamp. It is shown
until the next output frame, and the last one until the last input frame ends: durations sum to the input's at any rate.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple, TypeVar

from ..contract.errors import MediaError, RequestError

_Item = TypeVar("_Item")


class Slot(NamedTuple):
    """An output frame to compute: its time in the gap, in [0, 1), and its timestamp in seconds."""

    time: Fraction
    pts: Fraction


class Timeline:
    """Assigns output frames to a stream of input frames: `factor` for each input frame, or `fps` for each second.

    Call `between` for every two neighbours in order, and at the end for the last frame and the time at which it ends.
    Raises RequestError for a factor or a rate that is not positive.
    """

    def __init__(self, *, factor: int | None = None, fps: Fraction | None = None) -> None:
        if (factor is None) == (fps is None):
            raise RequestError("Choose either a time factor or a frame rate.")
        if factor is not None and factor < 1:
            raise RequestError(f"The time factor is {factor}: give a whole number from 1 on.")
        if fps is not None and fps <= 0:
            raise RequestError(f"The frame rate is {fps}: give a number above 0.")
        self.factor = factor
        self.fps = fps
        self._start: Fraction | None = None
        self._count = 0  # output frames so far: at a fixed rate the next one is at start + count / fps

    def between(self, first_pts: Fraction, second_pts: Fraction) -> list[Slot]:
        """Return the output frames from one input frame up to, and without, the next.

        Raises MediaError if the timestamps do not increase.
        """
        gap = second_pts - first_pts
        if gap <= 0:
            raise MediaError(
                f"A frame at {float(second_pts):.6f} s follows one at {float(first_pts):.6f} s: timestamps must"
                " increase; remux the video."
            )
        if self._start is None:
            self._start = first_pts
        if self.factor is not None:
            slots = [Slot(Fraction(j, self.factor), first_pts + gap * j / self.factor) for j in range(self.factor)]
        else:
            assert self.fps is not None
            end = math.ceil((second_pts - self._start) * self.fps)
            stamps = (self._start + n / self.fps for n in range(self._count, end))
            slots = [Slot((pts - first_pts) / gap, pts) for pts in stamps]
        self._count += len(slots)
        return slots


def slots_over(timeline: Timeline, times: Sequence[Fraction], until: Fraction, is_still: bool) -> list[Slot]:
    """Return the output frames from an input frame and its repetitions, at `times`, up to the next one at `until`.

    They have the timestamps that the repetitions would give them, and are at their own times in the whole gap, or all
    at the first frame if the picture is still.
    """
    slots = [slot for first, second in pairwise((*times, until)) for slot in timeline.between(first, second)]
    if is_still:
        return [Slot(Fraction(0), slot.pts) for slot in slots]
    if len(times) == 1:
        return slots
    return [Slot((slot.pts - times[0]) / (until - times[0]), slot.pts) for slot in slots]


def with_durations(
    stamped: Iterable[tuple[_Item, Fraction]], end_pts: Callable[[], Fraction]
) -> Iterator[tuple[_Item, Fraction, Fraction]]:
    """Yield (item, pts, duration): each item lasts until the next one, and the last until `end_pts()`."""
    previous: tuple[_Item, Fraction] | None = None
    for item, pts in stamped:
        if previous is not None:
            yield *previous, pts - previous[1]
        previous = (item, pts)
    if previous is not None:
        yield *previous, end_pts() - previous[1]


def common_time_base(*steps_s: Fraction) -> Fraction:
    """Return the largest time base, in seconds, of which every step is a multiple."""
    denominator = math.lcm(*(step.denominator for step in steps_s))
    return Fraction(math.gcd(*(int(step * denominator) for step in steps_s)), denominator)
