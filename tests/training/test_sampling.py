"""Training samples: the right frames at the right times for each kind of window."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from stvsr.engine.contract.errors import RequestError
from stvsr.engine.contract.manifest import FixedFactors, RunWindow, SlidingWindow
from stvsr.training.data import ClipSampler, Sampling
from stvsr.training.networks.base import Network
from stvsr.training.networks.motion import warp_pair
from stvsr.training.networks.videoinr_s import VideoINRS
from stvsr.training.resize import imresize

from tests.support.toy_networks import QUICK, TINY_PAIR, TOYS, ToyNetwork, brightness_flow, numbered_clip

Clip = NDArray[np.uint8]


@pytest.fixture(scope="module")
def pair() -> Network:
    return VideoINRS(TINY_PAIR)


@pytest.mark.parametrize("scales", [(4.0, 4.0), (1.0, 4.0)])
def test_a_batch_of_pairs_has_the_shapes_that_the_network_takes(
    clip: Clip, pair: Network, scales: tuple[float, float]
) -> None:
    batch = ClipSampler([clip], pair, Sampling(patch=24, batch=3, scales=scales), seed=1).batch(0)
    assert batch.frames.shape == (3, 2, 3, 24, 24)
    assert batch.time is not None
    assert batch.time.shape == batch.truth.shape[:2] == (3, 2)
    assert 0 <= batch.frames.min() <= batch.frames.max() <= 1
    assert set(batch.time[:, 0].tolist()) <= {0.0, 1.0}


def test_an_input_frame_is_the_downscaled_truth_of_its_time(clip: Clip, pair: Network) -> None:
    sampler = ClipSampler([clip], pair, Sampling(patch=24, batch=1), seed=5)
    for step in range(4):
        batch = sampler.batch(step)
        assert batch.time is not None
        end = int(batch.time[0, 0])
        small = imresize(batch.truth[0, 0].permute(1, 2, 0).numpy(), (24, 24))
        assert np.abs(small.clip(0, 1) - batch.frames[0, end].permute(1, 2, 0).numpy()).max() < 0.51 / 255 + 1e-4


def test_a_seed_determines_the_samples(clip: Clip, pair: Network) -> None:
    first, second = (ClipSampler([clip], pair, QUICK, seed=3).batch(0) for _ in range(2))
    assert torch.equal(first.truth, second.truth)


@pytest.mark.parametrize("kind", TOYS)
def test_each_kind_of_window_gets_its_frames_times_and_flows(kind: str) -> None:
    network = ToyNetwork(*TOYS[kind])
    sampler = ClipSampler([numbered_clip(40)], network, Sampling(patch=16, batch=32), seed=0, flow=brightness_flow)
    batch = sampler.batch(0)
    side, n = 16 * network.scale, network.window.frames
    assert batch.frames.shape == (32, n, 3, 16, 16)
    assert batch.truth.shape == (32, network.outputs, 3, side, side)
    small, true = ((255 / 2 * x).mean((2, 3, 4)) for x in (batch.frames, batch.truth))  # numbers of frames
    steps, times = true.diff(dim=1), batch.time
    if network.window.kind == "sliding":
        assert (small.diff(dim=1).abs() - 1).abs().max() < 1e-3
        torch.testing.assert_close(true[:, 0], small[:, n // 2])
    elif network.window.kind == "doubled":
        assert (steps.abs() - 1).abs().max() < 1e-3
        torch.testing.assert_close(small, true.unflatten(1, (n, 2)).mean(2))  # exposed over two
    else:
        torch.testing.assert_close(true[:, ::2], small)
        gaps = small.diff(dim=1)
        assert (gaps - gaps[:, :1]).abs().max() < 1e-3
        expected = (steps[:, ::2] / gaps).round(decimals=3)
        if isinstance(network.time, FixedFactors):
            assert times is None
            assert (expected == 0.5).all()
            assert set(gaps.abs().round().flatten().tolist()) == {2.0, 4.0}
        else:
            assert times is not None
            assert ((expected - times[:, None]).abs() < 2e-3).all()
            assert {3, 4, 6, 8, 9} >= set((12 * times).round().int().tolist()) > {6}
    for spec, flow in zip(network.flows, batch.flows, strict=True):
        for index, (a, b) in enumerate(spec.pairs):
            expected = 2 * (small[:, a] - small[:, b]) / 255
            torch.testing.assert_close(flow[:, index], expected.view(-1, 1, 1, 1).expand(-1, 2, 16, 16))


@pytest.mark.parametrize(
    ("network", "sampling", "message"),
    [
        (ToyNetwork(SlidingWindow(frames=41, padding="replicate")), QUICK, "No clip has 41 frames of 16 pixels"),
        (ToyNetwork(SlidingWindow(frames=3, padding="replicate"), 8), QUICK, "No clip has 3 frames of 128 pixels"),
        (
            ToyNetwork(SlidingWindow(frames=3, padding="replicate"), 4),
            Sampling(patch=18),
            "does not take patches of 18 pixels: choose a multiple of 4",
        ),
        (
            ToyNetwork(RunWindow(frames=3), 1, FixedFactors(factors=(2,))),
            Sampling(patch=16, gaps=((3, 1.0),)),
            "outputs frames between its inputs",
        ),
    ],
    ids=["too few frames", "too small", "wrong patch", "odd gap"],
)
def test_a_sample_that_does_not_exist_is_a_request_error(network: Network, sampling: Sampling, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        ClipSampler([numbered_clip(40)], network, sampling, seed=0)


def test_motion_targets_warp_the_input_frames_onto_the_truth(clip: Clip, pair: Network) -> None:
    sampler = ClipSampler([clip], pair, Sampling(patch=32, batch=4), seed=2)
    unwarped_errors, warped_errors = [], []
    for step in range(3):
        batch = sampler.batch(step)
        assert batch.time is not None
        assert batch.motion is not None
        t = batch.time[:, 1].view(-1, 1, 1, 1)
        small = torch.nn.functional.interpolate(batch.truth[:, 1], (32, 32), mode="area")
        first, second = batch.frames[:, 0], batch.frames[:, 1]
        unwarped_errors.append(((1 - t) * first + t * second - small).abs().mean())
        first, second = warp_pair(first, second, batch.motion[:, 1], t)
        warped_errors.append(((1 - t) * first + t * second - small).abs().mean())
    assert sum(warped_errors) < sum(unwarped_errors)
