"""Detection of scene cuts."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from stvsr.engine.pipeline.scenes import CutDetector, difference, thumbnail

from tests.support.media import picture
from tests.support.paths import SAMPLE, SHARED

CLIPS = SHARED / "data"  # more real clips, beside a checkout that has them


def read(path: Path) -> Iterator[np.ndarray]:
    with av.open(path) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24", threads=1).transpose(2, 0, 1).astype(np.float32) / 255


@pytest.fixture(scope="module")
def bee() -> list[np.ndarray]:
    return list(read(SAMPLE))


def cuts(detector: CutDetector, frames: list[np.ndarray]) -> list[int]:
    return [i for i, frame in enumerate(frames) if detector.is_cut(frame)]


@pytest.mark.parametrize("stride", [1, 2])
def test_a_clip_without_cuts_has_none(bee: list[np.ndarray], stride: int) -> None:
    assert cuts(CutDetector(), bee[::stride]) == []


def test_cuts_are_detected_at_their_frames(bee: list[np.ndarray]) -> None:
    other = [picture(1), np.roll(picture(1), 3, 2), np.roll(picture(1), 6, 2)]
    assert cuts(CutDetector(), bee[:4] + other + bee[4:8] + [picture(2)]) == [4, 7, 11]


def test_a_fast_pan_is_not_a_cut() -> None:
    wide = picture(3, (136, 1000))
    assert cuts(CutDetector(), [wide[:, :, i : i + 240] for i in range(0, 600, 20)]) == []


@pytest.mark.parametrize("threshold", [0, None])
def test_without_a_threshold_there_are_no_cuts(bee: list[np.ndarray], threshold: float | None) -> None:
    assert cuts(CutDetector(threshold), [bee[0], picture(1), bee[1]]) == []


def test_dimming_light_is_not_a_cut(bee: list[np.ndarray]) -> None:
    assert cuts(CutDetector(), [bee[0], bee[1] * 0.9, bee[2] * 0.8, bee[3]]) == []


@pytest.mark.parametrize("shape", [(1, 1), (3, 70), (16, 16), (482, 360), (1080, 1920), (2160, 40)])
def test_any_frame_size_is_compared(shape: tuple[int, int]) -> None:
    first, second = picture(1, shape), picture(2, shape)
    assert max(thumbnail(first).shape[1:]) <= 96
    assert difference(thumbnail(first), thumbnail(first)) == pytest.approx(0, abs=1e-3)
    assert 0 <= difference(thumbnail(first), thumbnail(second)) <= 1


def test_flat_frames_without_texture_are_not_cut() -> None:
    black, white = np.zeros((2, 3, 90, 160), np.float32)
    white += 1
    assert difference(thumbnail(black), thumbnail(white)) == 0  # flat frames may be blended as well as repeated


def test_real_clips_are_cut_only_between_clips() -> None:
    paths = sorted(CLIPS.glob("val/*.mp4"))
    if not paths:
        pytest.skip("the folder shared/data with real clips is not beside the checkout")
    ends = []
    for path in paths:
        frames = list(read(path))
        ends.append((frames[0], frames[-1]))
        for stride in (1, 2):
            assert cuts(CutDetector(), frames[::stride]) == [], f"{path.name} at stride {stride}"
    for (_, last), (first, _) in itertools.permutations(ends, 2):
        assert cuts(CutDetector(), [last, first]) == [1]


DARK = (1.0, 0.25, 0.12, 0.06)


def darkened(frames: list[np.ndarray], factor: float) -> list[np.ndarray]:
    """Return the frames with a share of their light, rounded to 8 bits."""
    return [(np.rint(frame * factor * 255) / 255).astype(np.float32) for frame in frames]


def moving(seed: int, count: int) -> list[np.ndarray]:
    """Return frames of a picture that moves by four pixels a frame."""
    wide = picture(seed, (136, 240 + 4 * count))
    return [wide[:, :, 4 * n : 4 * n + 240] for n in range(count)]


@pytest.mark.parametrize("factor", DARK)
def test_cuts_in_the_dark_are_detected_at_their_frames(bee: list[np.ndarray], factor: float) -> None:
    frames = [*bee[:6:2], *moving(1, 4), *bee[6:12:2], *moving(2, 4), *moving(8, 3)]
    assert cuts(CutDetector(), darkened(frames, factor)) == [3, 7, 10, 14]


@pytest.mark.parametrize("factor", DARK)
def test_motion_in_the_dark_is_not_a_cut(bee: list[np.ndarray], factor: float) -> None:
    for frames in (bee[::2], moving(3, 20)):
        assert cuts(CutDetector(), darkened(frames, factor)) == []


@pytest.mark.parametrize("factor", [1.0, 0.12])
@pytest.mark.parametrize("length", [6, 24])
@pytest.mark.parametrize("level", [0.0, 1.0], ids=["black", "white"])
def test_no_step_of_a_fade_is_a_cut(bee: list[np.ndarray], factor: float, length: int, level: float) -> None:
    for source in (bee, moving(4, length + 1)):
        frames = [
            frame * (1 - n / length) * factor + level * factor * n / length
            for n, frame in zip(range(length + 1), source, strict=False)
        ]
        still = [np.full_like(frames[0], level * factor)] * 3
        faded = darkened([*frames, *still], 1)
        assert cuts(CutDetector(), faded) == []
        assert cuts(CutDetector(), faded[::-1]) == []


def test_a_cut_from_black_is_a_cut(bee: list[np.ndarray]) -> None:
    black = np.zeros_like(bee[0])
    assert cuts(CutDetector(), [black, black, bee[0], bee[1]]) == [2]


@pytest.mark.parametrize("factor", DARK)
def test_a_slow_dissolve_is_not_a_cut(bee: list[np.ndarray], factor: float) -> None:
    other = moving(6, 25)
    frames = [bee[n] * (1 - n / 24) + other[n] * (n / 24) for n in range(25)]
    assert cuts(CutDetector(), darkened(frames, factor)) == []


def test_light_that_doubles_without_saturation_is_not_a_cut(bee: list[np.ndarray]) -> None:
    frames = [frame * 0.4 for frame in bee[:8]]
    frames[3:5] = [frame * 2 for frame in frames[3:5]]
    assert cuts(CutDetector(), frames) == []


def test_noise_in_the_dark_is_not_a_cut() -> None:
    rng = np.random.default_rng(5)
    frames = [np.clip(0.03 + rng.normal(0, 2 / 255, (3, 180, 320)), 0, 1).astype(np.float32) for _ in range(12)]
    assert cuts(CutDetector(), darkened(frames, 1)) == []


def test_a_difference_that_is_certainly_below_the_least_is_not_computed(bee: list[np.ndarray]) -> None:
    first, second = thumbnail(bee[0]), thumbnail(bee[1])
    assert 0 < difference(first, second) < 0.38
    assert difference(first, second, 0.9) == 0
    assert difference(first, thumbnail(picture(1)), 0.38) == difference(first, thumbnail(picture(1)))
