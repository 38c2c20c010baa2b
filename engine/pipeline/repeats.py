"""Repeated frames: found in a stream, and left out of the network's inputs, which then interpolates over them.

Animation shows a drawing for two or three frames, a screen is recorded more often than it changes, and a film becomes
video by repetition. Between two such frames nothing moves, and then everything jumps. Without the repetitions the
network sees the pictures that differ, and the output frames, whose times stay as they are, move evenly.

A picture that stands still for longer is no repetition but a pause: it stays as long as it lasts.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ..media.frame import Frame
from .scenes import CutDetector

LONGEST_S = Fraction(1, 4)  # from a frame to the next that differs; more is a pause

_BLOCK_PX = 16
_EXACT = 0.75 / 255  # mean change of a block that compression leaves in a repetition
_SHARE = 0.2  # of the latest change: animation that was compressed strongly changes by a tenth in a repetition
_MOST = 10 / 255  # beyond which a change is never a repetition


@dataclass(frozen=True, eq=False)
class Step:
    """A frame that the network sees, and the repetitions of it that the network does not see."""

    frame: Frame
    starts_scene: bool
    repeats: tuple[Fraction, ...] = ()  # their times, in seconds
    is_still: bool = False  # the picture stands still up to the last of them

    @property
    def count(self) -> int:
        """The number of frames of the video that it stands for."""
        return 1 + len(self.repeats)


class RepeatDetector:
    """Detects the frames of a stream that repeat an earlier one, exactly or but for compression."""

    def __init__(self) -> None:
        self._latest = 0.0  # the change from one picture to the next that differs

    def is_repeat(self, first: np.ndarray, second: np.ndarray) -> bool:  # (3, h, w) in [0, 1]
        """Return whether a frame shows the picture of an earlier one."""
        change = block_change(first, second)
        if change <= max(_EXACT, min(_MOST, _SHARE * self._latest)):
            return True
        self._latest = change
        return False

    def begin_scene(self) -> None:
        """Forget the changes of the scene before."""
        self._latest = 0.0


def block_change(first: np.ndarray, second: np.ndarray) -> float:  # (3, h, w) in [0, 1]
    """Return the mean change of the block of 16x16 pixels, in one channel, that changes most."""
    if first is second:
        return 0.0
    height, width = (min(_BLOCK_PX, size) for size in first.shape[1:])
    rows, columns = first.shape[1] // height, first.shape[2] // width
    most = 0.0
    # Rows and columns that fill no block count with the last one. Bands of blocks stay in a core's cache.
    for row in range(rows):
        stop = (row + 1) * height if row < rows - 1 else first.shape[1]
        change = np.abs(first[:, row * height : stop] - second[:, row * height : stop]).mean(axis=1)  # (3, w)
        sums = np.add.reduceat(change, np.arange(columns) * width, axis=1)
        sizes = np.full(columns, width)
        sizes[-1] = first.shape[2] - (columns - 1) * width
        most = max(most, float((sums / sizes).max()))
    return most


def steps(frames: Iterable[Frame], detector: CutDetector, dedup: bool) -> Iterator[Step]:
    """Yield the frames of a stream, with `dedup` without those that repeat the one before, and find the cuts."""
    if not dedup:
        first = True
        for frame in frames:
            yield Step(frame, detector.is_cut(frame.rgb) and not first)
            first = False
        return
    yield from _Merger(detector).steps(frames)


class _Merger:
    """Merges each frame with its repetitions."""

    def __init__(self, detector: CutDetector) -> None:
        self._cuts, self._repeats = detector, RepeatDetector()
        self._first: Frame | None = None  # the frame that is repeated
        self._starts_scene = False
        self._times: list[Fraction] = []  # of its repetitions
        self._last: Frame | None = None  # the latest of them
        self._is_still = False

    def steps(self, frames: Iterable[Frame]) -> Iterator[Step]:
        for frame in frames:
            is_cut = self._cuts.is_cut(frame.rgb)
            if self._first is None:
                self._begin(frame, False, False)
            elif not is_cut and self._repeats.is_repeat(self._first.rgb, frame.rgb):
                yield from self._repeated(frame)
            else:
                if is_cut:
                    self._repeats.begin_scene()
                yield from self._ended(frame.pts)
                self._begin(frame, is_cut, False)
        if self._first is not None:
            last = self._last or self._first
            yield from self._ended(last.pts + last.duration)

    def _begin(self, frame: Frame, starts_scene: bool, is_still: bool) -> None:
        self._first, self._starts_scene, self._is_still = frame, starts_scene, is_still
        self._times, self._last = [], None

    def _repeated(self, frame: Frame) -> Iterator[Step]:
        """Take a repetition. A pause is passed on in parts, so that memory and delay stay bounded."""
        assert self._first is not None
        if frame.pts - self._first.pts >= LONGEST_S:
            yield Step(self._first, self._starts_scene, tuple(self._times), True)
            self._begin(frame, False, True)
        else:
            self._times.append(frame.pts)
            self._last = frame

    def _ended(self, until: Fraction) -> Iterator[Step]:
        """Yield the frame and its repetitions, after which another picture follows at `until` seconds."""
        assert self._first is not None
        pause = self._is_still or until - self._first.pts > LONGEST_S
        if self._last is None or not pause:
            yield Step(self._first, self._starts_scene, tuple(self._times))
            return
        # The motion begins where the pause ends: at its last frame.
        yield Step(self._first, self._starts_scene, tuple(self._times[:-1]), True)
        yield Step(self._last, False)
