"""Segments give the windows of one run: the same frames in the same order, and the same outputs of them."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stvsr.engine.contract.manifest import DoubledWindow, PairWindow, RunWindow, SlidingWindow, Window
from stvsr.engine.contract.windows import InputFrame, split_windows
from stvsr.engine.pipeline.segments import Segment, segment_around, split_scene

TIMES = (Fraction(0), Fraction(1, 3))
WINDOWS: tuple[Window, ...] = (
    PairWindow(),
    *(RunWindow(frames=count) for count in (2, 3, 4, 7)),
    *(
        SlidingWindow(frames=n, padding=p)
        for n in (1, 3, 5, 7)
        for p in ("replicate", "reflection", "reflection_circle")
    ),
    *(DoubledWindow(frames=n, overlap=overlap) for n, overlap in ((1, 0), (4, 0), (4, 2), (8, 3), (3, 7))),
)


class Made(NamedTuple):
    """An output, and everything that its network sees."""

    frame: int
    time: Fraction
    window: tuple[int, ...]
    shown: int  # which frame of the window it is near


def made(window: Window, inputs: Iterable[InputFrame]) -> Iterator[Made]:
    """Yield the outputs of a stream of frames whose pixels are their numbers."""
    for one in split_windows(window, inputs):
        numbers = tuple(int(frame[0, 0, 0]) for frame in one.frames)
        for output in one.outputs:
            yield Made(numbers[output.index], output.time, numbers, output.index)


def picture(number: int) -> np.ndarray:
    return np.full((3, 1, 1), number, np.float32)


def inputs_of(segment: Segment, times: tuple[Fraction, ...]) -> Iterator[InputFrame]:
    for number in segment.inputs:
        last = segment.ends_scene and number == segment.inputs[-1]
        yield InputFrame(picture(number), times if number in segment.outputs else (), last)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@settings(max_examples=150, deadline=None)
@given(scene=st.tuples(st.integers(0, 5), st.integers(1, 60)), frames=st.integers(1, 30))
def test_segments_make_the_outputs_of_one_run(window: Window, scene: tuple[int, int], frames: int) -> None:
    numbers = range(scene[0], sum(scene))
    whole = (InputFrame(picture(n), TIMES, n == numbers[-1]) for n in numbers)
    expected = list(made(window, whole))
    actual = []
    for segment in split_scene(window, numbers, frames):
        assert segment.inputs.start in numbers
        assert segment.inputs[-1] in numbers
        actual += list(made(window, inputs_of(segment, TIMES)))
    assert actual == expected


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4), data=st.data())
def test_the_segment_around_a_frame_makes_its_outputs(window: Window, lengths: list[int], data: st.DataObject) -> None:
    """Whatever frame is asked for first, and without a look at frames that are far away."""
    count = sum(lengths)
    starts = {sum(lengths[:n]) for n in range(1, len(lengths))}
    whole = (InputFrame(picture(n), TIMES, n + 1 in {*starts, count}) for n in range(count))
    expected = list(made(window, whole))
    asked: list[int] = []

    def starts_scene(number: int) -> bool:
        assert 0 < number < count
        asked.append(number)
        return number in starts

    frame = data.draw(st.integers(0, count - 1))
    segment = segment_around(window, frame, count, starts_scene)
    assert frame in segment.outputs
    actual = list(made(window, inputs_of(segment, TIMES)))
    assert actual == expected[2 * segment.outputs.start : 2 * segment.outputs.stop]
    assert len(segment.outputs) <= (window.frames if isinstance(window, DoubledWindow | RunWindow) else 1)
    if not isinstance(window, DoubledWindow | RunWindow):
        assert all(abs(number - frame) <= 4 * 7 for number in asked)


@given(length=st.integers(1, 200), frames=st.integers(1, 50))
def test_segments_read_little_more_than_they_make(length: int, frames: int) -> None:
    window = SlidingWindow(frames=5, padding="replicate")
    segments = list(split_scene(window, range(length), frames))
    assert [n for segment in segments for n in segment.outputs] == list(range(length))
    assert all(len(segment.inputs) <= len(segment.outputs) + 16 for segment in segments)


def test_a_segment_has_frames() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        list(split_scene(PairWindow(), range(4), 0))
