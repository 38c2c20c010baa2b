"""Segments: parts of a video that are upscaled separately and give exactly the frames of one run.

A segment makes the outputs of some neighbouring frames of one scene. The network also sees frames around them, so a
segment reads more frames than it makes outputs of: the ones that the windows of an undivided run would hold, and those
that make its windows begin at the same frames. No outputs are requested at these frames, so they cost nothing but their
decoding.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from ..contract.manifest import DoubledWindow, PairWindow, RunWindow, SlidingWindow, Window


@dataclass(frozen=True)
class Segment:
    """The frames of a segment, by their numbers in the video."""

    outputs: range  # frames whose outputs it makes
    inputs: range  # frames that it reads, all of one scene
    ends_scene: bool  # whether the last frame that it reads is the last of its scene


def split_scene(window: Window, scene: range, frames: int, first: int = 0) -> Iterator[Segment]:
    """Yield the segments of a scene in order, of about `frames` frames each; the first one has about `first`, if given.

    `scene` has the numbers of its frames in the video; the windows of a network decide at which of them a segment may
    begin. The segments are about equally long, because a short one at the end would cost a keyframe as well. Raises
    ValueError for fewer than one frame.
    """
    if frames < 1:
        raise ValueError(f"segments have at least one frame, not {frames}")
    step = _step(window)
    begin = min(scene.start + math.ceil(first / step) * step, scene.stop)
    count = max(1, math.floor((scene.stop - begin) / frames + 0.5))
    length = math.ceil((scene.stop - begin) / count / step) * step
    starts = [*([scene.start] if begin > scene.start else []), *range(begin, scene.stop, max(1, length))]
    for start, stop in pairwise([*starts, scene.stop]):
        yield _segment(window, scene, range(start, stop))


def segment_around(window: Window, frame: int, frames: int, starts_scene: Callable[[int], bool]) -> Segment:
    """Return the shortest segment that makes the outputs of a frame, in a video of so many `frames`.

    `starts_scene` returns whether a frame, by its number above 0, begins a scene. It is asked about frames nearby, and
    about all back to the beginning of the scene if the windows of the network are counted from there.
    """
    step = _step(window)
    before, _ = _context(window, 0)
    first = frame
    while first > (0 if step > 1 else max(0, frame - before)) and not starts_scene(first):
        first -= 1
    start = first + (frame - first) // step * step
    before, after = _context(window, start - first)
    most = start + step + before + 2 * after + 1  # an end of the scene beyond has no influence
    end = frame + 1
    while end < min(frames, most) and not starts_scene(end):
        end += 1
    return _segment(window, range(first, end), range(start, min(start + step, end)))


def _segment(window: Window, scene: range, outputs: range) -> Segment:
    """Return the segment of a scene that makes the outputs of some frames."""
    before, after = _context(window, outputs.start - scene.start)
    low, high = max(scene.start, outputs.start - before), outputs.stop + after
    # Near its end a scene's windows depend on where it ends.
    if scene.stop - high <= before + after:
        high = scene.stop
    return Segment(outputs, range(low, high), high == scene.stop)


def _step(window: Window) -> int:
    """Return the distance between frames at which windows begin."""
    match window:
        case RunWindow():
            return window.frames - 1
        case DoubledWindow():
            return window.frames
        case _:
            return 1


def _context(window: Window, start: int) -> tuple[int, int]:
    """Return how many frames before and after its own a segment reads that begins at frame `start` of its scene."""
    match window:
        case PairWindow():
            return 1, 1
        case RunWindow():
            return window.frames - 1, window.frames - 1
        case SlidingWindow():
            radius = window.frames // 2
            return 2 * radius, 2 * radius  # a window that is reflected at a scene's end reaches as far
        case DoubledWindow():
            pieces = math.ceil(window.overlap / window.frames)
            first = max(0, start - window.overlap) // window.frames * window.frames
            return start - max(0, first - pieces * window.frames), window.overlap
