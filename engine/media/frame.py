"""Decoded frames with their times, and the base class of the readers that yield them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..contract.closing import Closing
from ..contract.errors import MediaError
from .damage import Repair
from .packets import Joint
from .pipes import input_name
from .probe import VideoInfo

_MOST_JOINTS = 5  # that a warning lists


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame that is displayed from `pts` for `duration`."""

    rgb: np.ndarray  # (3, H, W) float32, gamma-coded RGB in [0, 1]
    pts: Fraction  # seconds after the beginning of the earliest stream
    duration: Fraction  # seconds until the next frame
    alpha: np.ndarray | None = None  # (H, W) float32 in [0, 1], straight; None: the frame is opaque


class FrameReader(Closing):
    """Base class of readers: a context manager that yields frames in presentation order."""

    info: VideoInfo
    path: Path

    @property
    def repairs(self) -> Sequence[Repair]:
        """The damage that an iteration has repaired so far."""
        return ()

    @property
    def joints(self) -> Sequence[Joint]:
        """The changes of the file's clock that an iteration has found so far."""
        return ()

    @property
    def is_seekable(self) -> bool:
        """True if a part is found by its times, as far as an iteration has come; else the file is read up to it."""
        return not self.joints

    @property
    def warnings(self) -> list[str]:
        """Sentences on what an iteration has changed so far."""
        if not self.joints:
            return []
        first, name = self.joints[0], input_name(self.path).replace("The standard", "the standard")
        times = ", ".join(f"{float(joint.time):.3f}" for joint in self.joints[:_MOST_JOINTS])
        more = f" and {len(self.joints) - _MOST_JOINTS} more times" if len(self.joints) > _MOST_JOINTS else ""
        return [
            f"The clock of {name} changes from {float(first.before):.3f} s to {float(first.after):.3f} s, as where"
            f" recordings are joined: the output goes on there, at {times} s{more}."
        ]

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

    def between(self, low: Fraction, high: Fraction, *, seek: bool = True) -> Iterator[Frame]:
        """Yield the frames with timestamps from `low`, which is that of a frame, up to and without `high`, in seconds.

        The last of them may have another duration than in a whole iteration. Without `seek` the file is read from its
        beginning, as it must be if its clock changes.
        """
        for frame in self:
            if frame.pts >= high:
                return
            if frame.pts >= low:
                yield frame


class WrappedReader(FrameReader):
    """Base class of readers that change the frames of another reader, which they close."""

    def __init__(self, reader: FrameReader) -> None:
        self.path, self.info, self._reader = reader.path, reader.info, reader

    @property
    def warnings(self) -> list[str]:
        """Sentences on what the other reader has changed so far."""
        return self._reader.warnings

    @property
    def repairs(self) -> Sequence[Repair]:
        """Damage that the other reader has repaired so far."""
        return self._reader.repairs

    @property
    def joints(self) -> Sequence[Joint]:
        """Changes of the file's clock that the other reader has found so far."""
        return self._reader.joints

    @property
    def is_seekable(self) -> bool:
        """True if the other reader finds a part by its times."""
        return self._reader.is_seekable

    def close(self) -> None:
        """Close the other reader."""
        self._reader.close()

    def interrupt(self) -> None:
        """End a wait for input; see `FrameReader.interrupt`."""
        self._reader.interrupt()


def checked_rate(rate: Fraction) -> Fraction:
    """Return a frame rate in frames per second; raises MediaError unless it is above 0."""
    if rate <= 0:
        raise MediaError(f"The frame rate {rate} is not above 0: choose one such as 24 or 30000/1001.")
    return Fraction(rate)
