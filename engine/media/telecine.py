"""Undo telecine, which makes video of 30 frames a second of a film of 24: a film frame lasts 3 fields, and the next 2.

FFmpeg puts the fields of each film frame together again. Of five frames one is then a repetition, which is left out,
and the other four are shown for equal times, as in the film.
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


def _film_frames(cycle: list[Timed], before: np.ndarray | None, end: Fraction) -> Iterator[Timed]:
    """Yield the frames of a cycle that ends at a time, without its repetition if it has one."""
    pictures = [luma(frame) for frame, _, _ in cycle]
    earlier = [before, *pictures[:-1]]
    changes = [np.inf if one is None else _change(one, two) for one, two in zip(earlier, pictures, strict=True)]
    least, second = sorted(changes)[:2] if len(cycle) == CYCLE else (np.inf, np.inf)
    if least > max(_STILL, _STANDS_OUT * second):
        yield from cycle
        return
    start = cycle[0][1]
    step = (end - start) / (CYCLE - 1)
    del cycle[changes.index(least)]
    for number, (frame, _, _) in enumerate(cycle):
        yield frame, start + number * step, step


def _change(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean change of the block that changes most, in levels of 256."""
    if first.shape != second.shape:
        return np.inf
    change = np.abs(first - second)
    rows, columns = (max(1, size // _BLOCK_PX) for size in change.shape)
    height, width = (min(_BLOCK_PX, size) for size in change.shape)
    blocks = change[: rows * height, : columns * width].reshape(rows, height, columns, width)
    return float(blocks.mean((1, 3)).max())
