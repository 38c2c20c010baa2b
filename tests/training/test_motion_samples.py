"""Batches that train motion alone: sizes, exact synthetic motion, and the mixture with other batches."""

import numpy as np
import pytest
import torch
from stvsr.training.data import Batch, ClipSampler, Sampling
from stvsr.training.motion_samples import MixedSampler, MotionSampler, synthetic_batch
from stvsr.training.networks.fourier_s import FourierS
from stvsr.training.networks.ops import warp
from torch import Tensor

SIDE = 64


@pytest.fixture
def still_batch() -> Batch:
    """Smooth stills, so that bilinear sampling hardly changes them."""
    coarse = torch.rand(6, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    stills = torch.nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic")
    times = torch.tensor([[0.0, 0.5], [1.0, 0.25], [0.0, 0.75]]).repeat(2, 1)
    return Batch(torch.stack([stills, stills], 1), stills[:, None].expand(-1, 2, -1, -1, -1), time=times)


def difference(image: Tensor, other: Tensor, where: Tensor) -> float:
    return float((image - other).abs().mean(1)[where].mean())


def test_synthetic_motion_warps_the_inputs_onto_the_truth(still_batch: Batch) -> None:
    warped, unwarped = [], []
    for seed in range(4):
        batch = synthetic_batch(still_batch, torch.Generator().manual_seed(seed))
        assert batch.time is not None
        assert batch.motion is not None
        for k in range(2):
            motion, truth, share = batch.motion[:, k], batch.truth[:, k], batch.time[:, k].view(-1, 1, 1, 1)
            for end, part in ((0, share), (1, 1 - share)):
                known = motion[:, 4 + end] > 0
                moved = warp(batch.frames[:, end], part * motion[:, 2 * end : 2 * end + 2], "clamp")
                warped.append(difference(moved, truth, known))
                unwarped.append(difference(batch.frames[:, end], truth, known))
    known_pairs = [pair for pair in zip(warped, unwarped, strict=True) if not np.isnan(pair[0])]
    assert len(known_pairs) >= 8
    warped_mean, unwarped_mean = np.mean(known_pairs, 0)
    assert unwarped_mean > 0.03, "the stills move"
    assert warped_mean < 0.25 * unwarped_mean  # what remains is covered in the input


def test_a_synthetic_frame_at_its_own_time_has_no_known_motion(still_batch: Batch) -> None:
    batch = synthetic_batch(still_batch, torch.Generator().manual_seed(1))
    assert batch.motion is not None
    assert torch.equal(batch.truth[0, 0], batch.frames[0, 0])
    assert not batch.motion[0, 0, [0, 1, 4]].any()
    assert torch.equal(batch.truth[1, 0], batch.frames[1, 1])
    assert not batch.motion[1, 0, [2, 3, 5]].any()


def clip() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (12, 140, 150, 3), dtype=np.uint8)


def test_every_second_batch_is_synthetic_and_all_have_the_size_of_the_inputs() -> None:
    sampling = Sampling(patch=32, batch=2, scales=(1.0, 3.0), gaps=((2, 1.0),))
    sampler = ClipSampler([clip()], FourierS(), sampling, seed=0)
    motion = MotionSampler(sampler, 0, 32)
    for step in range(4):
        batch, source = motion.batch(step), sampler.batch(step)
        assert batch.motion_only
        assert batch.truth.shape == batch.frames.shape == (2, 2, 3, 32, 32)
        assert torch.equal(batch.frames, source.frames) == (step % 2 == 1)
        again = motion.batch(step)
        assert torch.equal(again.frames, batch.frames)
        assert torch.equal(again.truth, batch.truth)


def test_every_third_batch_trains_motion_alone() -> None:
    sampling = Sampling(patch=32, batch=2, gaps=((2, 1.0),))
    sampler = ClipSampler([clip()], FourierS(), sampling, seed=0)
    mixed = MixedSampler(sampler, MotionSampler(sampler, 0, 32))
    assert [mixed.batch(step).motion_only for step in range(6)] == [False, False, True] * 2
