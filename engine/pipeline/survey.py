"""The survey of a video: the times of its frames and its scenes, found by decoding it once."""

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any, Self

from ..contract.errors import MediaError
from ..media.frame import FrameReader
from .scenes import CutDetector
from .timeline import Slot, Timeline


@dataclass(frozen=True)
class Survey:
    """The times of a video's frames, in seconds, and the numbers of the frames that begin a new scene."""

    pts: tuple[Fraction, ...]
    end: Fraction
    cuts: tuple[int, ...]
    seekable: bool = True  # whether a part can be found by its time; not where the clock of the file changes
    warnings: tuple[str, ...] = ()  # of the reader

    @property
    def scenes(self) -> list[range]:
        """The numbers of the frames of each scene."""
        return [range(first, stop) for first, stop in pairwise((0, *self.cuts, len(self.pts)))]

    def slots(self, timeline: Timeline) -> list[list[Slot]]:
        """Return the output frames that follow each frame, up to the next one."""
        return [timeline.between(first, second) for first, second in pairwise((*self.pts, self.end))]

    def as_dict(self) -> dict[str, Any]:
        """Return the survey as a dictionary for JSON."""
        return {
            "pts": [str(pts) for pts in self.pts],
            "end": str(self.end),
            "cuts": list(self.cuts),
            "seekable": self.seekable,
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return the survey that `as_dict` returned. Raises KeyError, TypeError or ValueError for anything else."""
        return cls(
            tuple(Fraction(p) for p in values["pts"]),
            Fraction(values["end"]),
            tuple(map(int, values["cuts"])),
            bool(values["seekable"]),
            tuple(map(str, values["warnings"])),
        )


def survey(reader: FrameReader, detector: CutDetector) -> Survey:
    """Decode a video and return its survey. Raises MediaError if it has no frames."""
    pts: list[Fraction] = []
    cuts = []
    end = Fraction(0)
    for number, frame in enumerate(reader):
        if detector.is_cut(frame.rgb) and number:
            cuts.append(number)
        pts.append(frame.pts)
        end = frame.pts + frame.duration
    if not pts:
        raise MediaError("The video holds no frames: choose another, or repair it.")
    return Survey(tuple(pts), end, tuple(cuts), not reader.joints, tuple(reader.warnings))
