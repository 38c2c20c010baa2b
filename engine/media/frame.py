"""Decoded frames with their times, and the base class of the readers that yield them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..contract.closing import Closing
from ..contract.errors import MediaError
from .probe import VideoInfo


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame that is displayed from `pts` for `duration`."""

    rgb: np.ndarray  # (3, H, W) float32, gamma-coded RGB in [0, 1]
    pts: Fraction  # seconds on the stream's own clock
    duration: Fraction  # seconds until the next frame
    alpha: np.ndarray | None = None  # (H, W) float32 in [0, 1], straight; None: the frame is opaque


class FrameReader(Closing):
    """Base class of readers: a context manager that yields frames in presentation order."""

    info: VideoInfo
    path: Path
    warnings: Sequence[str] = ()  # sentences about what is odd in the input

    def close(self) -> None:
        """Close the file."""

    def interrupt(self) -> None:
        """End a wait for input in another thread, as if the input had ended."""

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames."""
        raise NotImplementedError

    def from_time(self, low: Fraction) -> Iterator[Frame]:
        """Yield the frames with timestamps from `low` on, in seconds, checked as in a whole iteration."""
        return (frame for frame in self if frame.pts >= low)

    def between(self, low: Fraction, high: Fraction) -> Iterator[Frame]:
        """Yield the frames with timestamps from `low`, which is that of a frame, up to and without `high`, in seconds.

        The last of them may have another duration than in a whole iteration.
        """
        for frame in self:
            if frame.pts >= high:
                return
            if frame.pts >= low:
                yield frame


def checked_rate(rate: Fraction) -> Fraction:
    """Return a frame rate in frames per second; raises MediaError unless it is above 0."""
    if rate <= 0:
        raise MediaError(f"The frame rate {rate} is not above 0: choose one such as 24 or 30000/1001.")
    return Fraction(rate)
