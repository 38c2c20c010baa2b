"""The part of a video with the most motion, for a preview."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import takewhile

import numpy as np

from ..media.frame import Frame, FrameReader

_WHOLE_S = 60  # a video up to this length is read as a whole
_SAMPLES = 12  # moments of a longer one that are looked at
_SAMPLE_S = 1
_STEP_PX = 8  # every such pixel is compared


def liveliest(reader: FrameReader, seconds: Fraction) -> tuple[Fraction, Fraction]:
    """Return the start and the end, in seconds, of the part of about `seconds` in which most moves.

    Scene cuts do not count as motion. Of a video that is longer than a minute, or of unknown length, some moments are
    looked at.
    """
    duration = reader.info.duration
    if duration is not None and duration <= seconds:
        return reader.info.start, reader.info.start + duration
    if duration is None or duration <= _WHOLE_S:
        return _best_window(list(_changes(_until(reader.info.start + _WHOLE_S, reader))), seconds)
    best, most = reader.info.start, -1.0
    for number in range(_SAMPLES):
        low = reader.info.start + (duration - seconds) * Fraction(2 * number + 1, 2 * _SAMPLES)
        changes = list(_changes(_until(low + _SAMPLE_S, reader.from_time(low))))
        motion = float(np.median([change for _, _, change in changes])) if changes else 0.0
        if motion > most and changes:
            best, most = changes[0][0], motion
    return best, best + seconds


def _until(end: Fraction, frames: Iterable[Frame]) -> Iterator[Frame]:
    return takewhile(lambda frame: frame.pts < end, frames)


def _changes(frames: Iterable[Frame]) -> Iterator[tuple[Fraction, Fraction, float]]:
    """Yield the start and the end of each frame, and its mean change from the one before."""
    before: np.ndarray | None = None
    for frame in frames:
        sampled = frame.rgb[:, ::_STEP_PX, ::_STEP_PX]
        change = 0.0 if before is None else float(np.abs(sampled - before).mean())
        yield frame.pts, frame.pts + frame.duration, change
        before = sampled.copy()


def _best_window(changes: list[tuple[Fraction, Fraction, float]], seconds: Fraction) -> tuple[Fraction, Fraction]:
    """Return the window whose median change is the largest; a median passes over cuts."""
    starts = [start for start, _, _ in changes]
    values = np.array([change for _, _, change in changes])
    end = changes[-1][1]
    best, most = starts[0], -1.0
    stop = 0
    for index, start in enumerate(starts):
        if start + seconds > end and index:
            break
        while stop < len(starts) and starts[stop] < start + seconds:
            stop += 1
        motion = float(np.median(values[index + 1 : stop])) if stop > index + 1 else 0.0
        if motion > most:
            best, most = start, motion
    return best, min(end, best + seconds)
