"""Make progressive frames of interlaced ones, by FFmpeg's filters, at exact times.

An interlaced frame is woven of two fields, the second of which was taken half a frame later. A deinterlacer makes a
frame of each field (double rate), or one frame of both (single rate).
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

import av
from av.filter import Graph

from ..contract.cpus import codec_threads
from ..contract.errors import MediaError
from .options import FILTERS
from .pixel_format import planar_format, repack

Timed = tuple[av.VideoFrame, Fraction, Fraction]  # a frame, its time and its own duration, both in seconds
FirstField = Literal["top", "bottom"]

LEAST_PX = 16  # FFmpeg's filters refuse frames of a few rows
PARITIES: dict[FirstField | None, str] = {"top": "tff", "bottom": "bff", None: "auto"}


class FilterChain:
    """A chain of FFmpeg's filters that make one or two frames of each."""

    def __init__(self, *filters: tuple[str, str]) -> None:
        self._filters = filters
        self._graph: Graph | None = None
        self._position = -1  # of the latest finished frame

    def push(self, frame: av.VideoFrame, number: int) -> Iterator[tuple[int, bool, av.VideoFrame]]:
        """Give the chain a frame; yield finished ones, each with its source's number and whether it is the second."""
        planar = planar_format(frame.format.name)
        given = frame if planar == frame.format.name else repack(frame, planar)
        if self._graph is None:
            self._graph = self._open(given)
        given.pts, given.time_base = number, Fraction(1)
        self._graph.vpush(given)
        yield from self._finished()

    def finish(self) -> Iterator[tuple[int, bool, av.VideoFrame]]:
        """Yield the frames that are left, as `push`."""
        if self._graph is not None:
            self._graph.vpush(None)
            yield from self._finished()

    def _open(self, frame: av.VideoFrame) -> Graph:
        graph = Graph()
        graph.threads = codec_threads()
        last = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1))
        try:
            for name, options in (*self._filters, ("buffersink", "")):
                following = graph.add(name, options)
                last.link_to(following)
                last = following
            graph.configure()
        except (ValueError, av.error.FFmpegError) as error:
            names = " and ".join(name for name, _ in self._filters)
            raise MediaError(
                f"FFmpeg's {names} cannot take frames of {frame.width}x{frame.height} {frame.format.name} ({error}):"
                " choose another method."
            ) from error
        return graph

    def _finished(self) -> Iterator[tuple[int, bool, av.VideoFrame]]:
        assert self._graph is not None
        while True:
            try:
                frame = self._graph.vpull()
            except (BlockingIOError, av.error.EOFError):
                return
            # Deinterlacers count times in halves, and some give no time to the last frame.
            halves = 0 if frame.pts is None or not frame.time_base else 2 * frame.pts * frame.time_base
            self._position = int(halves) if halves > self._position else self._position + 1
            yield self._position // 2, self._position % 2 == 1, frame


@dataclass
class _Pending:
    """A frame in the filters, its times, and what has been made of it."""

    number: int
    frame: av.VideoFrame
    pts: Fraction
    duration: Fraction
    made: av.VideoFrame | None = None  # the latest
    repeats: list[tuple[Fraction, Fraction]] = field(default_factory=list)


class FieldFilter:
    """Turns a stream of interlaced frames into one of progressive frames.

    filters: FFmpeg's filters with their options, one after the other. double: they make one frame of each field, else
    one of each frame. only_flagged: frames that are not flagged as interlaced pass as they are.
    """

    def __init__(self, *filters: tuple[str, str], double: bool, only_flagged: bool = False) -> None:
        self._filters, self._double, self._only_flagged = filters, double, only_flagged
        self.radius = len(filters)  # frames before and after one that decide what is made of it

    def frames(self, timed: Iterable[Timed]) -> Iterator[Timed]:
        """Yield the progressive frames of a stream.

        The second field is shown in the middle between its frame and the next one, or when half of the frame's own
        duration is over, if the next one comes later. A frame object that comes again is a repetition, for which the
        frame that was made of it last comes again.
        """
        chain = FilterChain(*self._filters)
        pending: deque[_Pending] = deque()
        count = 0
        for frame, pts, duration in timed:
            if pending:
                latest = pending[-1]
                if not latest.repeats:
                    latest.duration = min(latest.duration, pts - latest.pts)
                if frame is latest.frame:
                    latest.repeats.append((pts, duration))
                    continue
            pending.append(_Pending(count, frame, pts, duration))
            yield from self._shown(pending, chain.push(frame, count))
            count += 1
        yield from self._shown(pending, chain.finish())
        yield from self._repeated(pending, count)

    def _shown(self, pending: deque[_Pending], finished: Iterable[tuple[int, bool, av.VideoFrame]]) -> Iterator[Timed]:
        """Yield finished frames at their times."""
        for number, is_second, made in finished:
            yield from self._repeated(pending, number)
            one = pending[0]
            one.made = _tagged(made, one.frame)
            halved = self._double and (one.frame.interlaced_frame or not self._only_flagged)
            duration = one.duration / 2 if halved else one.duration
            yield one.made, one.pts + duration if is_second else one.pts, duration

    def _repeated(self, pending: deque[_Pending], number: int) -> Iterator[Timed]:
        """Drop the pending frames before one with a number, and yield their repetitions."""
        while pending and pending[0].number < number:
            one = pending.popleft()
            if one.made is not None:
                for pts, duration in one.repeats:
                    yield one.made, pts, duration


def deinterlacer(
    method: str, *, double: bool, first_field: FirstField | None = None, only_flagged: bool = False
) -> FieldFilter:
    """Return the filter of a method of `FILTERS`. `first_field` comes first in a frame; None: as its flag says."""
    mode = FILTERS[method][0 if double else 1]
    deint = "interlaced" if only_flagged else "all"
    options = f"mode={mode}:parity={PARITIES[first_field]}:deint={deint}"
    return FieldFilter((method, options), double=double, only_flagged=only_flagged)


def _tagged(made: av.VideoFrame, source: av.VideoFrame) -> av.VideoFrame:
    """Return a frame with the color tags of the one that it was made of."""
    made.colorspace, made.color_range = source.colorspace, source.color_range
    made.color_primaries, made.color_trc = source.color_primaries, source.color_trc
    return made
