"""Compression by real encoders keeps the number, order and size of frames."""

import numpy as np
import pytest
from stvsr.engine.contract.metrics import psnr
from stvsr.training.clips import read_clip
from stvsr.training.compression import Codec, compress

from tests.support.paths import SAMPLE


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_higher_crf_loses_more(codec: Codec) -> None:
    frames = [frame[:91, :159] for frame in read_clip(SAMPLE)][:30]  # odd sizes
    quality = []
    for crf in (18, 30, 38):
        decoded = list(compress(iter(frames), crf, codec))
        assert [frame.shape for frame in decoded] == [frame.shape for frame in frames]
        quality.append(np.mean([psnr(a, b) for a, b in zip(decoded, frames, strict=True)]))
    assert quality[0] > quality[1] + 3 > quality[2] + 5


def test_frames_keep_their_order() -> None:
    """B frames are encoded out of order; grey levels tell which frame comes back."""
    levels = [20, 200, 60, 160, 100, 220, 40, 180]
    frames = [np.full((32, 48, 3), level, np.uint8) for level in levels]
    assert [round(float(frame.mean()) / 20) * 20 for frame in compress(frames, 18)] == levels


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_the_same_frames_give_the_same_result(codec: Codec) -> None:
    frames = [frame[:34, :60] for frame in read_clip(SAMPLE)][1::3]
    first, *others = (np.stack(list(compress(frames, 20, codec))) for _ in range(5))
    assert all(np.array_equal(first, other) for other in others)


def test_no_frames_give_no_frames() -> None:
    assert list(compress([], 23)) == []
