"""Optical flow: the official Farneback flow, frames of any size, and a missing OpenCV."""

import sys

import numpy as np
import pytest
from stvsr import BackendError
from stvsr.engine.pipeline import flow
from stvsr.engine.pipeline.flow import optical_flow
from stvsr.training.resize import imresize

from tests.support.paths import ORACLES


def test_farneback_equals_the_official_flow() -> None:
    with np.load(ORACLES / "stinet_farneback.npz") as oracle:
        frames = oracle["frames_rgb_u8"].transpose(0, 3, 1, 2).astype(np.float32) / 255
        for i in range(3):
            for direction, (first, second) in {"f": (i, i + 1), "b": (i + 1, i)}.items():
                actual = optical_flow(frames[first], frames[second], "farneback")
                assert np.abs(actual.transpose(1, 2, 0) - oracle[f"{direction}{i}"]).max() < 1e-4


@pytest.mark.parametrize("method", ["farneback", "dis"])
@pytest.mark.parametrize("size", [(4, 4), (7, 90), (40, 50)])
def test_flow_measures_motion_at_any_size(method: str, size: tuple[int, int]) -> None:
    """The second frame shows the scene 2 px further left; in the small frames the motion cannot be measured."""
    coarse = np.random.default_rng(0).random((3, 30, 60))
    scene = imresize(coarse.transpose(1, 2, 0), (120, 240)).clip(0, 1).transpose(2, 0, 1).astype(np.float32)
    first, second = (scene[:, 8 : 8 + size[0], x : x + size[1]] for x in (12, 10))
    actual = optical_flow(first, second, method)
    assert actual.shape == (2, *size)
    assert np.isfinite(actual).all()
    if min(size) >= 40:
        assert abs(np.median(actual[0]) - 2) < 0.3
        assert abs(np.median(actual[1])) < 0.3


def test_flow_without_opencv_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    flow._opencv.cache_clear()
    first, second = np.zeros((2, 3, 20, 20), np.float32)
    with pytest.raises(BackendError, match=r'pip install "stvsr\[flow\]"'):
        optical_flow(first, second, "dis")
    flow._opencv.cache_clear()
