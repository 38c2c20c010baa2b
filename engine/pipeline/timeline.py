"""The timeline: which output frames belong between two input frames, at exact timestamps.

An output frame has a place in a gap between two input frames (0 at the first, under 1) and a timestamp; it is shown
until the next one, and the last until the last input frame ends: the durations sum to the input's, whatever the rate.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import NamedTuple, TypeVar

from ..contract.errors import MediaError, RequestError

_Item = TypeVar("_Item")


class Slot(NamedTuple):
    """One output frame to make: its place in the gap, in [0, 1), and its timestamp in seconds."""

    time: Fraction
    pts: Fraction


class Timeline:
    """Places output frames as input frames stream by: `factor` for each input frame, or `fps` for each second.

    Call `between` for every pair of neighbours in order, and for the last frame and the time at which it ends.
    """

    def __init__(self, *, factor: int | None = None, fps: Fraction | None = None) -> None:
        if (factor is None) == (fps is None):
            raise RequestError("Choose one of a time factor and a frame rate.")
        if factor is not None and factor < 1:
            raise RequestError(f"The time factor {factor} is no whole number from 1 on.")
        if fps is not None and fps <= 0:
            raise RequestError(f"The frame rate {fps} is not above 0.")
        self.factor = factor
        self.fps = fps
        self._start: Fraction | None = None
        self._made = 0  # output frames so far: at a fixed rate the next one is at start + made / fps

    def between(self, first_pts: Fraction, second_pts: Fraction) -> list[Slot]:
        """Return the output frames from one input frame on and before the next."""
        gap = second_pts - first_pts
        if gap <= 0:
            raise MediaError(
                f"A frame at {float(second_pts):.6f} s follows one at {float(first_pts):.6f} s: timestamps must grow;"
                " remux the video."
            )
        if self._start is None:
            self._start = first_pts
        if self.factor is not None:
            slots = [Slot(Fraction(j, self.factor), first_pts + gap * j / self.factor) for j in range(self.factor)]
        else:
            assert self.fps is not None
            end = math.ceil((second_pts - self._start) * self.fps)
            stamps = (self._start + n / self.fps for n in range(self._made, end))
            slots = [Slot((pts - first_pts) / gap, pts) for pts in stamps]
        self._made += len(slots)
        return slots


def with_durations(
    stamped: Iterable[tuple[_Item, Fraction]], end_pts: Callable[[], Fraction]
) -> Iterator[tuple[_Item, Fraction, Fraction]]:
    """Give each (item, pts) its duration, which the next one's pts tells; `end_pts` is asked when there is no next."""
    held: tuple[_Item, Fraction] | None = None
    for item, pts in stamped:
        if held is not None:
            yield *held, pts - held[1]
        held = (item, pts)
    if held is not None:
        yield *held, end_pts() - held[1]


def common_time_base(*steps_s: Fraction) -> Fraction:
    """Return the largest time base, in seconds, of which every step is a multiple."""
    denominator = math.lcm(*(step.denominator for step in steps_s))
    return Fraction(math.gcd(*(int(step * denominator) for step in steps_s)), denominator)
