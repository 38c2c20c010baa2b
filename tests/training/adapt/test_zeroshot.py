"""Zero-shot learning: the start, reproducible runs, resumption, and better results than interpolation."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stvsr.engine.contract.errors import AdaptationError
from stvsr.training.adapt.coarse_to_fine import double_rate, upscale_time
from stvsr.training.adapt.examples import Sources
from stvsr.training.adapt.protocol import Budget, Clock
from stvsr.training.adapt.video_resize import back_project_time, expose, resize_space
from stvsr.training.adapt.zeroshot import ZeroShot, fresh_network, take_statistics
from stvsr.training.clips import read_clip
from stvsr.training.networks.dtsr import DeepTemporalSR, DeepTemporalSRConfig
from stvsr.training.networks.edvr import EDVR
from stvsr.training.networks.ops import upsample_cubic
from torch import Tensor

from tests.support.paths import SAMPLE
from tests.support.small_networks import SMALL_DTSR, noise_clip


def method(**options: Any) -> ZeroShot:
    return ZeroShot(sources=Sources(side=8, scales=(1.0, 0.73)), batch=2, **options)


@pytest.mark.parametrize("frames", [noise_clip(frames=7), noise_clip(height=6), torch.full((20, 3, 18, 24), 0.3)])
def test_clip_that_is_too_short_too_small_or_flat_is_refused(frames: Tensor) -> None:
    with pytest.raises(AdaptationError, match=r"longer or larger|Nothing changes"):
        ZeroShot().adapt(DeepTemporalSR(SMALL_DTSR), frames, Budget(steps=1))


def test_fresh_network_interpolates_and_its_layers_are_normalized() -> None:
    network, frames = fresh_network(DeepTemporalSR(SMALL_DTSR), seed=0), noise_clip(8)[None]
    take_statistics(network, frames)
    assert torch.equal(network(frames), upsample_cubic(frames, 1, 2))
    outputs = []
    for n in range(1, 8):
        network.get_submodule(f"L{n}_b").register_forward_hook(lambda *call: outputs.append(call[-1]))
    network(frames)
    assert len(outputs) == 7
    for out in outputs:
        torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(4), atol=1e-3, rtol=0)
        torch.testing.assert_close(out.std((0, 2, 3)), torch.ones(4), atol=1e-2, rtol=0)


def test_same_seed_gives_the_same_weights_and_the_network_is_not_changed() -> None:
    network = DeepTemporalSR(SMALL_DTSR)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    first, second, other = (method().adapt(network, noise_clip(), Budget(steps=3), seed) for seed in (1, 1, 2))
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())
    assert first.record.losses == second.record.losses
    assert first.record.steps == len(first.record.losses) == 3
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in before)
    assert not torch.equal(first.weights["L8.weight"], other.weights["L8.weight"])


class KilledError(Exception):
    pass


def test_killed_run_ends_at_the_same_weights_when_resumed(tmp_path: Path) -> None:
    network, steps = DeepTemporalSR(SMALL_DTSR), Budget(steps=9)
    whole = method().adapt(network, noise_clip(), steps)

    def kill(clock: Clock, loss: float) -> None:
        if clock.steps == 6:
            raise KilledError

    resumable = method(checkpoint=tmp_path / "run" / "last.pt", checkpoint_every=4)
    with pytest.raises(KilledError):
        resumable.adapt(network, noise_clip(), steps, on_step=kill)
    reported = []
    resumed = resumable.adapt(network, noise_clip(), steps, on_step=lambda clock, loss: reported.append(clock.steps))
    assert reported == [5, 6, 7, 8, 9]
    assert resumed.record.losses == whole.record.losses
    assert all(torch.equal(value, whole.weights[name]) for name, value in resumed.weights.items())

    again = resumable.adapt(network, noise_clip(), steps, on_step=lambda clock, loss: reported.append(clock.steps))
    assert len(reported) == 5
    assert all(torch.equal(value, whole.weights[name]) for name, value in again.weights.items())


def test_checkpoint_of_another_clip_is_refused(tmp_path: Path) -> None:
    resumable = method(checkpoint=tmp_path / "last.pt")
    resumable.adapt(DeepTemporalSR(SMALL_DTSR), noise_clip(), Budget(steps=1))
    with pytest.raises(AdaptationError, match="another clip"):
        resumable.adapt(DeepTemporalSR(SMALL_DTSR), noise_clip(seed=1), Budget(steps=2))


def test_budget_of_seconds_counts_those_of_the_stopped_run(tmp_path: Path) -> None:
    resumable = method(checkpoint=tmp_path / "last.pt")
    first = resumable.adapt(DeepTemporalSR(SMALL_DTSR), noise_clip(), Budget(seconds=0.2))
    assert first.record.seconds >= 0.2
    second = resumable.adapt(DeepTemporalSR(SMALL_DTSR), noise_clip(), Budget(seconds=0.2))
    assert second.record.steps == first.record.steps


def test_other_networks_are_refused() -> None:
    with pytest.raises(AdaptationError, match="choose dtsr or dtsr-s"):
        method().adapt(EDVR(), noise_clip(), Budget(steps=1))


def psnr(video: Tensor, truth: Tensor) -> float:
    return -10 * math.log10(float((video - truth).square().mean()))


def drifting_pattern(frames: int, size: int) -> Tensor:
    """Return a pattern with a period of 12 pixels that moves by one pixel a frame, always exposed. (T, 3, S, S)"""
    y, x = torch.meshgrid(*[torch.arange(size).float()] * 2, indexing="ij")
    times = torch.arange(8 * frames)[:, None, None] / 8
    wave = torch.sin(2 * math.pi / 12 * (x - times)) * torch.sin(2 * math.pi / 12 * (0.3 * x + 0.6 * y))
    return expose(0.5 + 0.4 * torch.tanh(2 * wave), 8)[:, None].expand(-1, 3, -1, -1).contiguous()


@pytest.mark.slow
def test_learned_motion_is_better_than_interpolation() -> None:
    """A clip at half its rate becomes the clip that the network learned from."""
    clip = drifting_pattern(48, 24)
    slow = expose(clip, 2)
    sources = Sources(side=12, scales=(1.0,), across_share=0)
    network = DeepTemporalSR(DeepTemporalSRConfig(width=12))
    adapted = ZeroShot(sources=sources).adapt(network, clip, Budget(steps=80))
    network.load_state_dict(adapted.weights)
    network.eval()
    with torch.no_grad():
        direct = network(slow[None])[0]
    cubic = upsample_cubic(slow[None], 1, 2)[0]
    assert np.mean(adapted.record.losses[-10:]) < 0.5
    assert psnr(direct, clip) > psnr(cubic, clip) + 2
    for end in (slice(0, 2), slice(-2, None)):
        assert psnr(direct[end], clip[end]) > psnr(cubic[end], clip[end])
    output = torch.stack(list(upscale_time(network, slow, 2)))
    assert psnr(output, clip) > psnr(back_project_time(cubic, slow), clip) + 2


@pytest.mark.slow
def test_unknown_rate_is_learned_better_than_interpolated() -> None:
    """The network learns from frames averaged in pairs alone; the wings of the bee beat."""
    full = [torch.from_numpy(frame) for frame in read_clip(SAMPLE)][:56]
    truth = resize_space(torch.stack(full).permute(0, 3, 1, 2) / 255, (90, 160)).clamp(0, 1)
    frames = expose(truth, 2)
    network = DeepTemporalSR(DeepTemporalSRConfig(width=32))
    adapted = ZeroShot().adapt(network, frames, Budget(steps=150))
    network.load_state_dict(adapted.weights)
    network.eval()
    direct = double_rate(network, frames, 160).detach()
    output = torch.stack(list(upscale_time(network, frames, 2)))
    cubic = upsample_cubic(frames[None], 1, 2)[0]
    assert psnr(direct, truth) > psnr(cubic, truth) + 0.05
    assert psnr(output, truth) > psnr(cubic, truth) + 0.3
