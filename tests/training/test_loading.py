"""Batches that worker processes draw are those of the training process."""

import numpy as np
import pytest
import torch
from stvsr.training.data import ClipSampler
from stvsr.training.loading import BatchLoader
from stvsr.training.networks.videoinr_s import VideoINRS

from tests.support.toy_networks import QUICK, TINY_PAIR


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_draw_the_same_batches_in_order(clip: np.ndarray, workers: int) -> None:
    sampler = ClipSampler([clip], VideoINRS(TINY_PAIR), QUICK, seed=3)
    expected = list(BatchLoader(sampler, 2, 7, workers=0))
    loader = BatchLoader(sampler, 2, 7, workers=workers)
    batches = list(loader)
    assert len(batches) == len(expected) == 5
    for batch, other in zip(batches, expected, strict=True):
        assert torch.equal(batch.truth, other.truth)
        assert torch.equal(batch.frames, other.frames)
    assert loader.seconds > 0


def test_no_steps_give_no_batches(clip: np.ndarray) -> None:
    sampler = ClipSampler([clip], VideoINRS(TINY_PAIR), QUICK, seed=3)
    assert list(BatchLoader(sampler, 4, 4, workers=1)) == []
