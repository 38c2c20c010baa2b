"""Every kind of window requests each output once, in order, from frames of one scene."""

import json
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stvsr import InputFrame
from stvsr.engine.contract.manifest import DoubledWindow, PairWindow, RunWindow, SlidingWindow, Window
from stvsr.engine.contract.windows import WindowFrames, split_windows, window_numbers

from tests.support.paths import ORACLES

TABLE = json.loads((ORACLES / "metrics_resize.json").read_text())["generate_frame_indices"]
HALF = (Fraction(0), Fraction(1, 2))

runs = st.builds(lambda frames: RunWindow(frames=frames), st.integers(2, 5))
doubled = st.builds(
    lambda frames, overlap: DoubledWindow(frames=frames, overlap=overlap),
    st.integers(1, 5),
    st.integers(0, 4),
)
sliding = st.builds(
    lambda radius, padding: SlidingWindow(frames=2 * radius + 1, padding=padding),
    st.integers(0, 3),
    st.sampled_from(["replicate", "reflection", "reflection_circle"]),
)
scenes = st.lists(st.lists(st.sampled_from([(), HALF[:1], HALF, HALF[1:]]), min_size=1, max_size=12), max_size=4)


def stream(scenes: list[list[tuple[Fraction, ...]]]) -> list[InputFrame]:
    """Return frames whose pixels are (scene, number in the scene, scene length)."""
    return [
        InputFrame(np.array([s, i, len(scene)], np.float32).reshape(3, 1, 1), times, i == len(scene) - 1)
        for s, scene in enumerate(scenes)
        for i, times in enumerate(scene)
    ]


def numbers(item: WindowFrames) -> list[int]:
    """Return the frames' numbers in their scene, after checking that it is a single one."""
    assert len({int(frame[0, 0, 0]) for frame in item.frames}) == 1
    return [int(frame[1, 0, 0]) for frame in item.frames]


def computed(window: Window, frames: list[InputFrame]) -> list[tuple[int, Fraction]]:
    """Return (scene, time in the scene) of each output."""
    return [
        (int(item.frames[0][0, 0, 0]), numbers(item)[output.index] + output.time)
        for item in split_windows(window, iter(frames))
        for output in item.outputs
    ]


def requested(scenes: list[list[tuple[Fraction, ...]]], *, repeat_last: bool) -> list[tuple[int, Fraction]]:
    return [
        (s, Fraction(i) + (0 if repeat_last and i == len(scene) - 1 else time))
        for s, scene in enumerate(scenes)
        for i, times in enumerate(scene)
        for time in times
    ]


@given(window=runs | st.just(PairWindow()), scenes=scenes)
def test_runs_compute_every_time_once(window: RunWindow, scenes: list[list[tuple[Fraction, ...]]]) -> None:
    frames = stream(scenes)
    assert computed(window, frames) == requested(scenes, repeat_last=True)
    for item in split_windows(window, frames):
        actual, length = numbers(item), int(item.frames[0][2, 0, 0])
        assert len(actual) == window.frames
        # Neighbours; a scene that is too short repeats its last frame.
        assert actual == [min(n, length - 1) for n in range(actual[0], actual[0] + window.frames)]


@given(window=doubled, scenes=scenes)
def test_doubled_sequences_compute_every_time_once(
    window: DoubledWindow, scenes: list[list[tuple[Fraction, ...]]]
) -> None:
    frames = stream(scenes)
    assert computed(window, frames) == requested(scenes, repeat_last=False)
    for item in split_windows(window, frames):
        actual, length = numbers(item), int(item.frames[0][2, 0, 0])
        assert len(actual) <= window.frames + 3 * window.overlap + 1 or length == 1
        for output in item.outputs:
            # Outputs keep the overlap from ends that are not the scene's own.
            assert output.index >= window.overlap or actual[0] == 0
            assert output.index < len(actual) - window.overlap or actual[-1] == length - 1


@given(window=sliding, scenes=scenes)
def test_sliding_windows_restore_every_frame_once(
    window: SlidingWindow, scenes: list[list[tuple[Fraction, ...]]]
) -> None:
    frames = stream([[times[:1] for times in scene] for scene in scenes])
    centres = [item for item in split_windows(window, frames)]
    assert len(centres) == len(frames)
    for item, frame in zip(centres, frames, strict=True):
        assert item.frames[window.frames // 2] is frame.rgb
        assert len(item.outputs) == len(frame.times)
        last = int(frame.rgb[2, 0, 0]) - 1
        expected = window_numbers(window, int(frame.rgb[1, 0, 0]), last)
        assert numbers(item) == expected


def inputs_of_outputs(window: Window, frames: list[InputFrame | None]) -> list[tuple[list[int], int, Fraction]]:
    """Return, of each output, the numbers of the frames in its window, its index among them, and its time."""
    return [
        (numbers(item), output.index, output.time) for item in split_windows(window, frames) for output in item.outputs
    ]


@given(window=runs | st.just(PairWindow()) | sliding | doubled, scenes=scenes)
def test_a_scene_whose_end_is_known_later_has_the_same_windows(
    window: Window, scenes: list[list[tuple[Fraction, ...]]]
) -> None:
    frames = stream(scenes)
    live = [item for frame in frames for item in (replace(frame, last=False), *([None] if frame.last else []))]
    assert inputs_of_outputs(window, live) == inputs_of_outputs(window, list(frames))
    assert inputs_of_outputs(window, [*frames, None, None]) == inputs_of_outputs(window, list(frames))


@pytest.mark.parametrize("window", [PairWindow(), RunWindow(frames=4), SlidingWindow(frames=5, padding="replicate")])
def test_windows_wait_for_no_frame_beyond_their_own(window: Window) -> None:
    read = 0

    def live() -> Iterator[InputFrame | None]:
        nonlocal read
        for frame in stream([[HALF[:1]] * 20]):
            read += 1
            yield replace(frame, last=False)
        yield None

    for item in split_windows(window, live()):
        assert read == max(numbers(item)) + 1


@pytest.mark.parametrize("padding", ["replicate", "reflection", "reflection_circle"])
def test_padding_agrees_with_the_official_tests(
    padding: Literal["replicate", "reflection", "reflection_circle"],
) -> None:
    for case, expected in TABLE[padding].items():
        position, count = case.split(",")
        centre, length = map(int, position.split("/"))
        assert window_numbers(SlidingWindow(frames=int(count), padding=padding), centre, length - 1) == expected


def test_windows_of_a_long_scene_do_not_wait_for_its_end() -> None:
    """A window waits only for the next few frames, not for the end of the scene."""
    for window in (
        RunWindow(frames=4),
        SlidingWindow(frames=5, padding="reflection_circle"),
        DoubledWindow(frames=4, overlap=2),
    ):
        read = 0
        frames = iter(stream([[HALF[:1]] * 100]))

        def counted(frames: Iterator[InputFrame] = frames) -> Iterator[InputFrame]:
            nonlocal read
            for frame in frames:
                read += 1
                yield frame

        for item in split_windows(window, counted()):
            assert read - max(numbers(item)) <= 6
