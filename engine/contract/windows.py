"""Windows: how a stream of frames becomes the inputs of a network, with one generator for each kind of window.

Every generator reads input frames in order and yields windows. Together they request one output for each input frame
and each of its times, in order. No window crosses a scene cut. A scene ends with a frame that is its last one, or with
None after it, where its end is known only later: then no window waits for the frame after its own.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

import numpy as np

from .errors import RequestError
from .manifest import DoubledWindow, PairWindow, RunWindow, SlidingWindow, Window
from .picture import as_frame

_NOW = Fraction(0)


@dataclass(frozen=True)
class InputFrame:
    """A frame, the times from it to the next frame at which outputs are requested, and whether its scene ends with it.

    Raises RequestError for pixels that are not floating-point, (3, h, w): `one_scene` converts other frames.
    """

    rgb: np.ndarray  # (3, h, w) in [0, 1]
    times: tuple[Fraction, ...] = (_NOW,)  # in [0, 1), ascending; 0 is the frame's own time
    last: bool = False

    def __post_init__(self) -> None:
        if self.rgb.ndim != 3 or self.rgb.shape[0] != 3 or self.rgb.dtype.kind != "f":
            raise RequestError(
                f"An input frame is (3, h, w) of floats in [0, 1], and not {self.rgb.shape} of {self.rgb.dtype}: make"
                " input frames with one_scene, which converts uint8 and uint16."
            )


@dataclass(frozen=True)
class Output:
    """A requested output of a window: the frame at `time` in [0, 1) after the input frame with number `index`."""

    index: int
    time: Fraction


@dataclass(frozen=True)
class WindowFrames:
    """The input frames of one run of a network, and the requested outputs in order."""

    frames: tuple[np.ndarray, ...]  # of (3, h, w) in [0, 1]
    outputs: tuple[Output, ...]


def one_scene(frames: Iterable[np.ndarray], times: tuple[Fraction, ...] = (_NOW,)) -> Iterator[InputFrame]:
    """Yield the frames of one scene as input frames, with the same times requested after each.

    frames: (3, h, w), RGB: floats in [0, 1], or uint8 or uint16, of which the largest value is white.
    Raises RequestError for other frames.
    """
    previous: np.ndarray | None = None
    for frame in frames:
        current = as_frame(frame)
        if previous is not None:
            yield InputFrame(previous, times)
        previous = current
    if previous is not None:
        yield InputFrame(previous, times, last=True)


def mark_last(inputs: Iterable[InputFrame | None]) -> Iterator[InputFrame]:
    """Yield the frames of a stream, of which those before a None are the last ones of their scenes.

    Each frame is yielded when the next one is known.
    """
    previous: InputFrame | None = None
    for frame in inputs:
        if previous is not None:
            yield replace(previous, last=True) if frame is None else previous
        previous = frame
    if previous is not None:
        yield previous


def split_windows(window: Window, inputs: Iterable[InputFrame | None]) -> Iterator[WindowFrames]:
    """Yield the windows of a stream of frames, by the manifest's kind of window; None ends a scene."""
    match window:
        case PairWindow():
            return _runs(inputs, 2)
        case RunWindow():
            return _runs(inputs, window.frames)
        case SlidingWindow():
            return _sliding(inputs, window)
        case DoubledWindow():
            return _doubled(mark_last(inputs), window)


def _runs(inputs: Iterable[InputFrame | None], count: int) -> Iterator[WindowFrames]:
    """Yield runs of `count` frames; each shares one frame with the next, and a scene's last run reaches back."""
    pending: list[InputFrame] = []  # frames whose outputs are not requested yet
    before: list[InputFrame] = []  # the frames before them
    for frame in inputs:
        if frame is not None:
            pending.append(frame)
        if not pending:
            continue
        if frame is None or frame.last:
            last = pending[-1]
            frames = [*before, *pending][-count:]
            first = len(frames) - len(pending)
            frames += [last] * (count - len(frames))
            # No frame follows the last one of a scene: it is repeated at each of its times.
            outputs = [*_outputs(pending[:-1], first), *(Output(first + len(pending) - 1, _NOW) for _ in last.times)]
            yield _window_frames(frames, outputs)
            pending, before = [], []
        elif len(pending) == count:
            yield _window_frames(pending, _outputs(pending[:-1], 0))
            pending, before = pending[-1:], pending[:-1]


def _doubled(inputs: Iterable[InputFrame], window: DoubledWindow) -> Iterator[WindowFrames]:
    """Yield pieces of the scene, extended on both sides by up to `overlap` frames, which influence the outputs."""
    frames: list[InputFrame] = []
    start = 0  # the first frame of `frames` whose outputs are requested
    for frame in inputs:
        frames.append(frame)
        stop = start + window.frames
        if frame.last:
            stop = len(frames)
        elif len(frames) < stop + window.overlap:
            continue
        piece = frames if len(frames) > 1 else frames * 2  # a network interpolates between at least two frames
        yield _window_frames(piece, _outputs(frames[start:stop], start))
        kept = max(0, stop - window.overlap)
        frames, start = ([], 0) if frame.last else (frames[kept:], stop - kept)


def _sliding(inputs: Iterable[InputFrame | None], window: SlidingWindow) -> Iterator[WindowFrames]:
    """Yield a window around every frame."""
    radius = window.frames // 2
    frames: deque[InputFrame] = deque()
    first = centre = 0  # numbers in the scene: of frames[0], and of the next frame to restore
    for frame in inputs:
        if frame is not None:
            frames.append(frame)
        ended = frame is None or frame.last
        newest = first + len(frames) - 1
        while centre <= newest:
            last = newest if ended else None
            numbers = window_numbers(window, centre, last)
            if last is None and max(numbers) > newest:
                break
            outputs = [Output(radius, time) for time in frames[centre - first].times]
            yield _window_frames([frames[number - first] for number in numbers], outputs)
            centre += 1
            while centre - first > 2 * radius:  # reflection reaches back as far
                frames.popleft()
                first += 1
        if ended:
            frames.clear()
            first = centre = 0


def window_numbers(window: SlidingWindow, centre: int, last: int | None) -> list[int]:
    """Return the numbers, in their scene, of the frames in the window around frame `centre`.

    `last` is the number of the scene's last frame, None if it is not known yet. The paddings are those of the official
    test code of EDVR; a frame that a short scene lacks is replaced by the nearest.
    """
    radius, padding = window.frames // 2, window.padding
    numbers = []
    for number in range(centre - radius, centre + radius + 1):
        if number < 0:
            number = {"replicate": 0, "reflection": -number, "reflection_circle": centre + radius - number}[padding]
        elif last is not None and number > last:
            number = {
                "replicate": last,
                "reflection": 2 * last - number,
                "reflection_circle": centre - radius - (number - last),
            }[padding]
        numbers.append(max(0, number if last is None else min(number, last)))
    return numbers


def split_times(
    inputs: Iterable[InputFrame], factor: int | None, remaining: deque[tuple[tuple[Fraction, ...], bool]]
) -> Iterator[InputFrame]:
    """Yield the frames for the first of two networks, with the times that it makes.

    With a `factor` the first network multiplies the frame rate by it and leaves finer times to the second; with None it
    makes every time. For each frame that the first network returns, `remaining` receives the times that are left to the
    second one, and whether the scene ends with that frame.
    """
    for frame in inputs:
        if factor is None:
            times = frame.times or (_NOW,)
            left: list[tuple[Fraction, ...]] = [(_NOW,) if frame.times else ()] * len(times)
        else:
            times = tuple(Fraction(part, factor) for part in range(factor))
            left = [
                tuple((time - start) * factor for time in frame.times if start <= time < stop)
                for start, stop in pairwise((*times, Fraction(1)))
            ]
        for number, rest in enumerate(left):
            remaining.append((rest, frame.last and number == len(left) - 1))
        yield InputFrame(frame.rgb, times, frame.last)


def _outputs(frames: list[InputFrame], first: int) -> list[Output]:
    return [Output(first + i, time) for i, frame in enumerate(frames) for time in frame.times]


def _window_frames(frames: Iterable[InputFrame], outputs: Iterable[Output]) -> WindowFrames:
    return WindowFrames(tuple(frame.rgb for frame in frames), tuple(outputs))
