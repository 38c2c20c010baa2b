"""A part of a video, and slow motion: a reader that passes on only some frames, at times that begin anew."""

import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

from ..contract.errors import MediaError
from .frame import Frame, FrameReader, WrappedReader
from .options import Part
from .pipes import input_name, is_pipe
from .time_map import TimeMap

_ROUNDING_S = Fraction(1, 2000)  # times are typed with three decimals


class PartReader(WrappedReader):
    """Reads a part of what another reader reads, which it closes.

    The first frame of a part with a `start` is shown at 0 s. Raises MediaError if the part has no frames, or if it does
    not begin at the beginning of a pipe.
    """

    def __init__(self, reader: FrameReader, part: Part) -> None:
        super().__init__(reader)
        self._part = part
        info = reader.info
        self._end = None if part.end is None else part.end - _ROUNDING_S
        origin = info.start if part.start is None else self._first_from(part.start)
        length = self._length(origin)
        is_cut = part.end is not None or part.frames is not None
        length_frames = None if length is None else math.ceil(length * info.rate)
        times = TimeMap(
            origin,
            info.start if part.start is None else Fraction(0),
            part.slowness,
            origin + length if is_cut and length is not None else None,
            seekable=part.start is not None and not reader.joints,
        )
        self._times = times
        self.info = replace(
            info,
            rate=info.rate / part.slowness,
            time_base=info.time_base * part.slowness,
            start=times.shown(origin),
            duration=None if length is None else length * part.slowness,
            frames=info.frames if not is_cut and part.start is None else length_frames,
            times=times,
        )

    def __iter__(self) -> Iterator[Frame]:
        part = self._part
        frames = iter(self._reader) if part.start is None else self._reader.from_time(self._times.origin)
        count = 0
        for frame in frames:
            if self._end is not None and frame.pts >= self._end:
                break
            yield self._shown(frame)
            count += 1
            if count == part.frames:
                break
        if not count:
            raise MediaError(f"{self.path} has no frame in the part that was chosen: choose a later end.")

    def between(self, low: Fraction, high: Fraction, *, seek: bool = True) -> Iterator[Frame]:
        """Yield the frames of a part of the part; see `FrameReader.between`."""
        for frame in self._reader.between(self._times.original(low), self._times.original(high), seek=seek):
            yield self._shown(frame)

    def _shown(self, frame: Frame) -> Frame:
        duration = frame.duration
        if self._end is not None and frame.pts + duration > self._end + 1 / self._reader.info.rate:
            duration = self._end + _ROUNDING_S - frame.pts  # of a still picture that the part ends in
        return replace(frame, pts=self._times.shown(frame.pts), duration=duration * self._part.slowness)

    def _first_from(self, start: Fraction) -> Fraction:
        """Return the timestamp of the first frame from a time on, in seconds from the beginning of the video."""
        if is_pipe(self.path):
            raise MediaError(
                f"{input_name(self.path)} is a pipe, of which no beginning can be skipped: leave out the start, or save"
                " it to a file first."
            )
        first = next(self._reader.from_time(start - _ROUNDING_S), None)
        if first is None:
            raise MediaError(f"{self.path} has no frame from {float(start):g} s on: choose an earlier start.")
        return first.pts

    def _length(self, origin: Fraction) -> Fraction | None:
        """Return the length of the part in seconds of the source; None if it is not known beforehand."""
        info, part = self._reader.info, self._part
        lengths = []
        if info.duration is not None:
            lengths.append(info.start + info.duration - origin)
        if self._end is not None:
            lengths.append(self._end - origin)
        if part.frames is not None:
            lengths.append(part.frames / info.rate)
        return max(Fraction(0), min(lengths)) if lengths else None
