"""Samples drawn on a device are those of `ClipSampler`, and their motion is that of the flows of whole frames."""

from pathlib import Path

import numpy as np
import pytest
import torch
from stvsr.engine.contract.errors import RequestError
from stvsr.training.clips import cached_clip
from stvsr.training.data import ClipSampler, Sampling
from stvsr.training.device_data import DeviceClips, DeviceSampler
from stvsr.training.motion_cache import OFFSETS, SHRINK, cached_motion, prepare_motion
from stvsr.training.networks.base import Network
from stvsr.training.networks.videoinr_s import VideoINRS

from tests.support.paths import SAMPLE
from tests.support.toy_networks import TINY_PAIR, TOYS, ToyNetwork


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def bee(cache: Path) -> np.ndarray:
    return cached_clip(SAMPLE, cache)


@pytest.fixture(scope="module")
def flows(cache: Path, bee: np.ndarray) -> np.ndarray:
    return cached_motion(SAMPLE, cache)


def both(
    clips: list[np.ndarray], network: Network, sampling: Sampling, flows: list[np.ndarray] | None = None
) -> tuple[ClipSampler, DeviceSampler]:
    stored = DeviceClips(clips, "cpu", flows)
    return ClipSampler(clips, network, sampling, 3), DeviceSampler(ClipSampler(clips, network, sampling, 3), stored)


@pytest.mark.parametrize("scales", [(4.0, 4.0), (1.5, 4.0)])
def test_pairs_are_those_of_the_clip_sampler(bee: np.ndarray, scales: tuple[float, float]) -> None:
    other = np.ascontiguousarray(bee[:20, :120, :136])  # a second clip of another size
    clips, device = both([bee, other], VideoINRS(TINY_PAIR), Sampling(patch=16, batch=12, scales=scales))
    for step in range(3):
        expected, batch = clips.batch(step), device.batch(step)
        assert expected.time is not None
        assert batch.time is not None
        torch.testing.assert_close(batch.time, expected.time)
        torch.testing.assert_close(batch.truth, expected.truth)
        # Rounding to 8 bits may differ by one step where float32 and float64 disagree about a half.
        difference = (batch.frames - expected.frames).abs()
        assert difference.max() <= 1.01 / 255
        assert (difference > 1e-6).float().mean() < 0.01


@pytest.mark.parametrize("kind", [kind for kind in TOYS if "flows" not in kind])
def test_every_kind_of_window_without_flows_is_drawn(bee: np.ndarray, kind: str) -> None:
    clips, device = both([bee], ToyNetwork(*TOYS[kind]), Sampling(patch=16, batch=6))
    expected, batch = clips.batch(0), device.batch(0)
    torch.testing.assert_close(batch.truth, expected.truth)
    assert (batch.frames - expected.frames).abs().max() <= 1.01 / 255
    assert (batch.time is None) == (expected.time is None)
    if batch.time is not None and expected.time is not None:
        torch.testing.assert_close(batch.time, expected.time)


@pytest.mark.parametrize("scales", [(4.0, 4.0), (2.0, 3.0)])
def test_motion_warps_the_input_frames_onto_the_truth(
    bee: np.ndarray, flows: np.ndarray, scales: tuple[float, float]
) -> None:
    _, device = both([bee], VideoINRS(TINY_PAIR), Sampling(patch=16, batch=24, scales=scales), [flows])
    unwarped, warped = [], []
    for step in range(6):
        batch = device.batch(step)
        assert batch.motion is not None
        assert batch.time is not None
        assert batch.motion.shape == (24, 2, 6, 16, 16)
        t = batch.time[:, 1].view(-1, 1, 1, 1)
        small = torch.nn.functional.interpolate(batch.truth[:, 1], (16, 16), mode="area")
        motion, first = batch.motion[:, 1], batch.frames[:, 0]
        ys, xs = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
        x, y = xs + t[:, 0] * motion[:, 0], ys + t[:, 0] * motion[:, 1]
        grid = torch.stack([(2 * x + 1) / 16 - 1, (2 * y + 1) / 16 - 1], -1)
        moved = torch.nn.functional.grid_sample(first, grid, padding_mode="border", align_corners=False)
        inner = motion[:, 4:5].bool() & (x > 0)[:, None] & (x < 15)[:, None] & (y > 0)[:, None] & (y < 15)[:, None]
        moving = inner & (motion[:, :2].norm(dim=1, keepdim=True) * t > 0.5)
        unwarped.append((first - small).abs().mean(1, keepdim=True)[moving])
        warped.append((moved - small).abs().mean(1, keepdim=True)[moving])
    assert len(torch.cat(unwarped)) > 200
    assert torch.cat(warped).mean() < 0.8 * torch.cat(unwarped).mean()


def test_motion_agrees_with_the_teacher(bee: np.ndarray, flows: np.ndarray) -> None:
    clips, device = both([bee], VideoINRS(TINY_PAIR), Sampling(patch=24, batch=16), [flows])
    errors, lengths = [], []
    for step in range(4):
        expected, actual = clips.batch(step).motion, device.batch(step).motion
        assert expected is not None
        assert actual is not None
        known = (expected[:, :, 4:] > 0.99) & (actual[:, :, 4:] > 0.99)
        assert ((expected[:, :, 4:] > 0.5) == (actual[:, :, 4:] > 0.5)).float().mean() > 0.9
        for part in range(2):
            here = known[:, :, part]
            distance = (expected - actual)[:, :, 2 * part : 2 * part + 2].norm(dim=2)
            errors.append(distance[here])
            lengths.append(expected[:, :, 2 * part : 2 * part + 2].norm(dim=2)[here])
    # Flows of crops and of whole frames differ; directions and scale must not.
    assert torch.cat(errors).median() < 0.35 * torch.cat(lengths).median()


def test_flows_are_computed_once(cache: Path, bee: np.ndarray, flows: np.ndarray) -> None:
    height, width = (side // SHRINK for side in bee.shape[1:3])
    assert flows.shape == (len(bee), len(OFFSETS), 2, height, width)
    assert not flows[0, OFFSETS.index(-1)].any(), "no frame before the first"
    assert flows[0, OFFSETS.index(1)].any()
    (again,) = prepare_motion([SAMPLE], cache, workers=2)
    assert isinstance(again, np.memmap)
    assert np.array_equal(again, flows)


def test_a_sample_that_does_not_exist_is_refused(bee: np.ndarray) -> None:
    with pytest.raises(RequestError, match="choose a multiple"):
        DeviceSampler(ClipSampler([bee], VideoINRS(TINY_PAIR), Sampling(patch=17), 0), DeviceClips([bee], "cpu"))
