"""Every kind of window: each result once, in order, of frames of one scene."""

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stvsr.engine.contract.manifest import DoubledWindow, PairWindow, RunWindow, SlidingWindow, Window
from stvsr.engine.contract.windows import Feed, InputFrame, feeds, window_numbers

from tests.support.paths import ORACLES

TABLE = json.loads((ORACLES / "metrics_resize.json").read_text())["generate_frame_indices"]
HALF = (Fraction(0), Fraction(1, 2))

runs = st.builds(lambda frames: RunWindow(kind="run", frames=frames), st.integers(2, 5))
doubled = st.builds(
    lambda frames, overlap: DoubledWindow(kind="doubled", frames=frames, overlap=overlap),
    st.integers(1, 5),
    st.integers(0, 4),
)
sliding = st.builds(
    lambda radius, padding: SlidingWindow(kind="sliding", frames=2 * radius + 1, padding=padding),
    st.integers(0, 3),
    st.sampled_from(["replicate", "reflection", "reflection_circle"]),
)
scenes = st.lists(st.lists(st.sampled_from([(), HALF[:1], HALF, HALF[1:]]), min_size=1, max_size=12), max_size=4)


def stream(scenes: list[list[tuple[Fraction, ...]]]) -> list[InputFrame]:
    """Frames whose pixels are (scene, number in the scene, scene length)."""
    return [
        InputFrame(np.array([s, i, len(scene)]).reshape(3, 1, 1), times, i == len(scene) - 1)
        for s, scene in enumerate(scenes)
        for i, times in enumerate(scene)
    ]


def numbers(feed: Feed) -> list[int]:
    """The frames' numbers in their scene, which is one."""
    assert len({int(frame[0, 0, 0]) for frame in feed.frames}) == 1
    return [int(frame[1, 0, 0]) for frame in feed.frames]


def made(window: Window, frames: list[InputFrame]) -> list[tuple[int, Fraction]]:
    """(scene, moment) of each result."""
    return [
        (int(feed.frames[0][0, 0, 0]), numbers(feed)[wanted.place] + wanted.time)
        for feed in feeds(window, iter(frames))
        for wanted in feed.wanted
    ]


def asked(scenes: list[list[tuple[Fraction, ...]]], *, hold: bool) -> list[tuple[int, Fraction]]:
    return [
        (s, Fraction(i) + (0 if hold and i == len(scene) - 1 else time))
        for s, scene in enumerate(scenes)
        for i, times in enumerate(scene)
        for time in times
    ]


@given(window=runs | st.just(PairWindow(kind="pair", frames=2)), scenes=scenes)
def test_runs_make_every_moment_once(window: RunWindow, scenes: list[list[tuple[Fraction, ...]]]) -> None:
    frames = stream(scenes)
    assert made(window, frames) == asked(scenes, hold=True)
    for feed in feeds(window, frames):
        found, length = numbers(feed), int(feed.frames[0][2, 0, 0])
        assert len(found) == window.frames
        # Neighbours, and at the end of a scene that is too short its last frame again.
        assert found == [min(n, length - 1) for n in range(found[0], found[0] + window.frames)]


@given(window=doubled, scenes=scenes)
def test_doubled_sequences_make_every_moment_once(
    window: DoubledWindow, scenes: list[list[tuple[Fraction, ...]]]
) -> None:
    frames = stream(scenes)
    assert made(window, frames) == asked(scenes, hold=False)
    for feed in feeds(window, frames):
        found, length = numbers(feed), int(feed.frames[0][2, 0, 0])
        assert len(found) <= window.frames + 3 * window.overlap + 1 or length == 1
        for wanted in feed.wanted:
            # Far enough from the ends, but for the scene's own.
            assert wanted.place >= window.overlap or found[0] == 0
            assert wanted.place < len(found) - window.overlap or found[-1] == length - 1


@given(window=sliding, scenes=scenes)
def test_sliding_windows_restore_every_frame_once(
    window: SlidingWindow, scenes: list[list[tuple[Fraction, ...]]]
) -> None:
    frames = stream([[times[:1] for times in scene] for scene in scenes])
    centres = [feed for feed in feeds(window, frames)]
    assert len(centres) == len(frames)
    for feed, frame in zip(centres, frames, strict=True):
        assert feed.frames[window.frames // 2] is frame.rgb
        assert len(feed.wanted) == len(frame.times)
        last = int(frame.rgb[2, 0, 0]) - 1
        expected = window_numbers(window, int(frame.rgb[1, 0, 0]), last)
        assert numbers(feed) == expected


@pytest.mark.parametrize("padding", ["replicate", "reflection", "reflection_circle"])
def test_padding_is_that_of_the_official_tests(padding: str) -> None:
    for case, expected in TABLE[padding].items():
        place, count = case.split(",")
        centre, length = map(int, place.split("/"))
        assert window_numbers(SlidingWindow(frames=int(count), padding=padding), centre, length - 1) == expected


def test_frames_of_a_long_scene_are_let_go() -> None:
    """A window needs the next frames only: none is held back until the scene ends."""
    for window in (
        RunWindow(kind="run", frames=4),
        SlidingWindow(kind="sliding", frames=5, padding="reflection_circle"),
        DoubledWindow(kind="doubled", frames=4, overlap=2),
    ):
        given_out = 0
        frames = iter(stream([[HALF[:1]] * 100]))

        def counted(frames=frames):
            nonlocal given_out
            for frame in frames:
                given_out += 1
                yield frame

        for feed in feeds(window, counted()):
            assert given_out - max(numbers(feed)) <= 6
