"""Undo telecine, which makes video of 30 frames a second of a film of 24: a film frame lasts 3 fields, and the next 2.

Hard telecine stores the fields as video frames. FFmpeg puts those of each film frame together again; of five frames
one is then a repetition, which is left out, and the other four are shown for equal times, as in the film. Soft telecine
stores the film frames, and flags those that last 3 fields; they are shown for equal times too.
"""

from collections.abc import Iterable, Iterator
from fractions import Fraction

import numpy as np

from .combing import luma
from .deinterlace import PARITIES, FieldFilter, FirstField, Timed

CYCLE = 5  # video frames of four film frames
PIX_FMTS = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "yuv411p", "yuv410p")  # FFmpeg's
_BLOCK_PX = 16  # rows and sampled columns whose mean change is compared
_STILL = 1.0  # levels of 256; less is the noise of compression
_STANDS_OUT = 0.5  # a repetition changes less than half as much as every other frame of its cycle


class InverseTelecine:
    """Turns a stream of telecined frames into one of film frames.

    Frames that were video before, and not film, have no fields that fit: they are deinterlaced, and none of them is
    left out. `start` is the time of the first frame of the stream, `period` the time between two frames, in seconds.
    """

    def __init__(self, first_field: FirstField | None, start: Fraction, period: Fraction) -> None:
        self._fields = FieldFilter(
            ("fieldmatch", f"order={PARITIES[first_field]}:combmatch=full"),
            ("bwdif", "mode=send_frame:deint=interlaced"),
            double=False,
        )
        self.radius = 2 * CYCLE + self._fields.radius
        self._start, self._period = start, period

    def frames(self, timed: Iterable[Timed]) -> Iterator[Timed]:
        """Yield the film frames of a stream."""
        cycle: list[Timed] = []
        before: np.ndarray | None = None  # luma of the frame before the cycle
        for one in self._fields.frames(timed):
            if cycle and self._number(one) != self._number(cycle[0]):
                yield from _film_frames(cycle, before, one[1])
                before, cycle = luma(cycle[-1][0]), []
            cycle.append(one)
        if cycle:
            yield from _film_frames(cycle, before, cycle[-1][1] + cycle[-1][2])

    def _number(self, one: Timed) -> int:
        """Return the number of a frame's cycle: by its time, so that reading may begin at any frame."""
        return round((one[1] - self._start) / self._period) // CYCLE


class EvenTimes:
    """Shows film frames, of which one lasts 3 fields and the next one 2 by their flags, for equal times."""

    radius = 1  # frames before and after one that decide when it is shown

    def frames(self, timed: Iterable[Timed]) -> Iterator[Timed]:
        """Yield each frame; one after a long duration and before a short one is shown amid its neighbours."""
        before: Fraction | None = None
        held: Timed | None = None
        for following in timed:
            if held is not None:
                yield _evened(before, held, following[1])
                before = held[1]
            held = following
        if held is not None:
            yield _evened(before, held, held[1] + held[2])


def _evened(before: Fraction | None, held: Timed, after: Fraction) -> Timed:
    """Return a frame amid its neighbours, at `before` and `after` seconds, if it follows a long one and is short."""
    frame, pts, duration = held
    if before is None or not is_pulldown(pts - before, after - pts):
        return held
    return frame, (before + after) / 2, duration


def is_pulldown(first: Fraction, second: Fraction) -> bool:
    """Return whether two durations, in seconds, are those of 3 fields and of 2."""
    return 0 < 1.4 * second < first < 1.6 * second


def _film_frames(cycle: list[Timed], before: np.ndarray | None, end: Fraction) -> Iterator[Timed]:
    """Yield the frames of a cycle that ends at a time, without its repetition if it has one."""
    repetition = _repetition(cycle, before)
    if repetition is None:
        yield from cycle
        return
    start = cycle[0][1]
    step = (end - start) / (CYCLE - 1)
    kept = [frame for number, (frame, _, _) in enumerate(cycle) if number != repetition]
    for number, frame in enumerate(kept):
        yield frame, start + number * step, step


def _repetition(cycle: list[Timed], before: np.ndarray | None) -> int | None:
    """Return the number of the frame in a cycle that repeats the one before it, or None if it has none."""
    if len(cycle) != CYCLE:
        return None
    pictures = [luma(frame) for frame, _, _ in cycle]
    earlier = [before, *pictures[:-1]]
    changes = [np.inf if one is None else _change(one, two) for one, two in zip(earlier, pictures, strict=True)]
    least, second = sorted(changes)[:2]
    return changes.index(least) if least <= max(_STILL, _STANDS_OUT * second) else None


def _change(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean change of the block that changes most, in levels of 256."""
    if first.shape != second.shape:
        return np.inf
    change = np.abs(first - second)
    rows, columns = (max(1, size // _BLOCK_PX) for size in change.shape)
    height, width = (min(_BLOCK_PX, size) for size in change.shape)
    blocks = change[: rows * height, : columns * width].reshape(rows, height, columns, width)
    return float(blocks.mean((1, 3)).max())
