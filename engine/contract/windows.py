"""How frames that stream by become the windows of a network: one generator for each kind of window.

Every generator reads input frames in order and gives windows whose wanted results, taken together, are one for each
input frame and each of its times, in order. No window reaches over a scene's end.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np

from .manifest import DoubledWindow, PairWindow, RunWindow, SlidingWindow, Window

_NOW = Fraction(0)


@dataclass(frozen=True)
class InputFrame:
    """A frame, the times from it to the next one at which results are wanted, and whether its scene ends with it."""

    rgb: np.ndarray  # (3, h, w) in [0, 1]
    times: tuple[Fraction, ...] = (_NOW,)  # in [0, 1), growing; 0 is the frame's own time
    last: bool = False


@dataclass(frozen=True)
class Wanted:
    """One result of a window: at `time` after the frame at `place`."""

    place: int
    time: Fraction


@dataclass(frozen=True)
class Feed:
    """What one run of a network is fed, and which of its results are wanted, in order."""

    frames: tuple[np.ndarray, ...]  # of (3, h, w) in [0, 1]
    wanted: tuple[Wanted, ...]


def one_scene(frames: Iterable[np.ndarray], times: tuple[Fraction, ...] = (_NOW,)) -> Iterator[InputFrame]:
    """Give frames (3, h, w) in [0, 1] that belong to one scene, with the same times wanted after each."""
    held: np.ndarray | None = None
    for frame in frames:
        if held is not None:
            yield InputFrame(held, times)
        held = frame
    if held is not None:
        yield InputFrame(held, times, last=True)


def feeds(window: Window, inputs: Iterable[InputFrame]) -> Iterator[Feed]:
    """Give the windows of a stream of frames, as a manifest's window says."""
    match window:
        case PairWindow():
            return _runs(inputs, 2)
        case RunWindow():
            return _runs(inputs, window.frames)
        case SlidingWindow():
            return _sliding(inputs, window)
        case DoubledWindow():
            return _doubled(inputs, window)


def _runs(inputs: Iterable[InputFrame], count: int) -> Iterator[Feed]:
    """Runs of `count` frames that share one frame with the next; a scene's last run reaches back to be as long."""
    held: list[InputFrame] = []  # frames whose results were not asked for yet
    before: list[InputFrame] = []  # the end of what was
    for frame in inputs:
        held.append(frame)
        if frame.last:
            frames = [*before, *held][-count:]
            first = len(frames) - len(held)
            frames += [frame] * (count - len(frames))
            # After the last frame of a scene nothing comes: it stays.
            wanted = [*_all(held[:-1], first), *(Wanted(first + len(held) - 1, _NOW) for _ in frame.times)]
            yield _feed(frames, wanted)
            held, before = [], []
        elif len(held) == count:
            yield _feed(held, _all(held[:-1], 0))
            held, before = held[-1:], held[:-1]


def _doubled(inputs: Iterable[InputFrame], window: DoubledWindow) -> Iterator[Feed]:
    """As many frames as the window says, and on both sides as many more as are in the scene and matter."""
    held: list[InputFrame] = []
    start = 0  # of `held`, the first frame whose results are wanted
    for frame in inputs:
        held.append(frame)
        stop = start + window.frames
        if frame.last:
            stop = len(held)
        elif len(held) < stop + window.overlap:
            continue
        frames = held if len(held) > 1 else held * 2  # a network interpolates between two at least
        yield _feed(frames, _all(held[start:stop], start))
        kept = max(0, stop - window.overlap)
        held, start = ([], 0) if frame.last else (held[kept:], stop - kept)


def _sliding(inputs: Iterable[InputFrame], window: SlidingWindow) -> Iterator[Feed]:
    """Every frame in the middle of a window once."""
    radius = window.frames // 2
    held: deque[InputFrame] = deque()
    first = centre = 0  # number in its scene of the first frame held, and of the next one to restore
    for frame in inputs:
        held.append(frame)
        newest = first + len(held) - 1
        while centre <= newest:
            last = newest if frame.last else None
            numbers = window_numbers(window, centre, last)
            if last is None and max(numbers) > newest:
                break
            frames = [held[number - first] for number in numbers]
            yield _feed(frames, [Wanted(radius, time) for time in held[centre - first].times])
            centre += 1
            while centre - first > 2 * radius:  # reflection reaches back as far
                held.popleft()
                first += 1
        if frame.last:
            held.clear()
            first = centre = 0


def window_numbers(window: SlidingWindow, centre: int, last: int | None) -> list[int]:
    """Return which frames of a scene stand in the window around frame `centre`; `last` is the scene's, if known.

    The paddings are those of the field's test code for windowed networks. In a scene that is too short for one, the
    nearest frame stands in.
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


def relay(
    inputs: Iterable[InputFrame], factor: int | None, passed: deque[tuple[tuple[Fraction, ...], bool]]
) -> Iterator[InputFrame]:
    """Ask the first of two networks for the frames that the second one is to see.

    With a `factor` the first multiplies the frame rate by it and leaves finer times to the second; without one it
    makes all. For each frame that it will give, `passed` gets what is left of the times, and whether its scene ends.
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
            passed.append((rest, frame.last and number == len(left) - 1))
        yield InputFrame(frame.rgb, times, frame.last)


def _all(frames: list[InputFrame], first: int) -> list[Wanted]:
    return [Wanted(first + i, time) for i, frame in enumerate(frames) for time in frame.times]


def _feed(frames: Iterable[InputFrame], wanted: Iterable[Wanted]) -> Feed:
    return Feed(tuple(frame.rgb for frame in frames), tuple(wanted))
