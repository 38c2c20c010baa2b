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
