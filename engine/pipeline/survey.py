"""The survey of a video: the times of its frames and its scenes, found by decoding it once."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Any, Self

from ..contract.errors import MediaError
from ..media.damage import Repair
from ..media.frame import Frame, FrameReader
from .repeats import steps
from .scenes import CutDetector
from .timeline import Slot, Timeline, slots_over

_DAMAGE_S = 1  # seconds around a part that its reading may take in


@dataclass(frozen=True)
class Survey:
    """The times of the frames that a network sees, in seconds, and the numbers of those that begin a new scene.

    `repeats` has the times of the frames that repeat one of them, by its number, and `stills` the numbers of those that
    stand still up to the last of their repetitions.
    """

    pts: tuple[Fraction, ...]
    end: Fraction
    cuts: tuple[int, ...]
    seekable: bool = True  # whether a part can be found by its time (`FrameReader.is_seekable`)
    warnings: tuple[str, ...] = ()  # of the reader
    repairs: tuple[Repair, ...] = ()  # of damage that the reader has found
    repeats: Mapping[int, tuple[Fraction, ...]] = field(default_factory=dict)
    stills: frozenset[int] = frozenset()
    loses_alpha: bool = False  # frames that were not opaque have been

    @property
    def scenes(self) -> list[range]:
        """The numbers of the frames of each scene."""
        return [range(first, stop) for first, stop in pairwise((0, *self.cuts, len(self.pts)))]

    @property
    def frame_count(self) -> int:
        """The number of frames of the video, the repetitions included."""
        return len(self.pts) + sum(map(len, self.repeats.values()))

    @property
    def repeat_counts(self) -> tuple[int, int]:
        """The numbers of repetitions to interpolate over, and of those in stills."""
        still = sum(len(self.repeats.get(number, ())) for number in self.stills)
        return sum(map(len, self.repeats.values())) - still, still

    def is_seekable(self, low: Fraction, high: Fraction) -> bool:
        """Return whether reading a part, by its times in seconds, may begin within the video.

        Not where the reader cannot find it by its time, and not near damage: what the decoder makes of it depends on
        what it has decoded before.
        """
        spans = ((one.start_s, one.traces_until_s or one.end_s) for one in self.repairs)
        return self.seekable and all(high + _DAMAGE_S < start or low - _DAMAGE_S > end for start, end in spans)

    def count_of(self, number: int) -> int:
        """Return how many frames of the video one that a network sees stands for."""
        return 1 + len(self.repeats.get(number, ()))

    def slots(self, timeline: Timeline) -> list[list[Slot]]:
        """Return the output frames that follow each frame, up to the next one."""
        return [
            slots_over(timeline, (first, *self.repeats.get(number, ())), second, number in self.stills)
            for number, (first, second) in enumerate(pairwise((*self.pts, self.end)))
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return the survey as a dictionary for JSON."""
        return {
            "pts": [str(pts) for pts in self.pts],
            "end": str(self.end),
            "cuts": list(self.cuts),
            "seekable": self.seekable,
            "warnings": list(self.warnings),
            "repairs": [repair.as_dict() for repair in self.repairs],
            "repeats": {number: [str(pts) for pts in times] for number, times in self.repeats.items()},
            "stills": sorted(self.stills),
            "loses_alpha": self.loses_alpha,
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
            tuple(Repair(**repair) for repair in values["repairs"]),
            {int(number): tuple(map(Fraction, times)) for number, times in values["repeats"].items()},
            frozenset(map(int, values["stills"])),
            bool(values["loses_alpha"]),
        )


def survey(reader: FrameReader, detector: CutDetector, dedup: bool = False) -> Survey:
    """Decode a video and return its survey, with `dedup` with its repetitions. Raises MediaError without any frame."""
    pts: list[Fraction] = []
    cuts, stills = [], []
    repeats: dict[int, tuple[Fraction, ...]] = {}
    end = Fraction(0)

    def timed() -> Iterator[Frame]:
        nonlocal end
        for frame in reader:
            end = frame.pts + frame.duration
            yield frame

    for number, step in enumerate(steps(timed(), detector, dedup)):
        pts.append(step.frame.pts)
        if step.starts_scene:
            cuts.append(number)
        if step.repeats:
            repeats[number] = step.repeats
        if step.is_still:
            stills.append(number)
    if not pts:
        raise MediaError("The video holds no frames: choose another, or repair it.")
    found = reader.is_seekable, tuple(reader.warnings), tuple(reader.repairs)
    return Survey(tuple(pts), end, tuple(cuts), *found, repeats, frozenset(stills))
