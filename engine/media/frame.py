"""One decoded picture with its place in time, and what reads such pictures."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..contract.closing import Closing
from ..contract.errors import MediaError
from .probe import VideoInfo


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture, shown from `pts` for `duration`."""

    rgb: np.ndarray  # (3, H, W) float32, gamma-coded RGB in [0, 1]
    pts: Fraction  # seconds on the stream's own clock
    duration: Fraction  # seconds until the next frame


class FrameReader(Closing):
    """What readers share; a context manager that yields frames in presentation order."""

    info: VideoInfo
    path: Path

    def close(self) -> None:
        """Let go of the file."""

    def __iter__(self) -> Iterator[Frame]:
        raise NotImplementedError


def checked_rate(rate: Fraction) -> Fraction:
    """Refuse what is no frame rate."""
    if rate <= 0:
        raise MediaError(f"The frame rate {rate} is not above 0.")
    return Fraction(rate)
