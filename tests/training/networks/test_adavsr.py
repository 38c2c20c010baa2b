"""Ada-VSR's modules: initial output, convolutions over planes, halo, losses, and second-order gradients."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from stvsr.engine.contract.manifest import FixedFactors
from stvsr.training.networks.adavsr import (
    ADAVSR_SPATIAL_S,
    ADAVSR_TEMPORAL_S,
    ProfileBlock,
    SpatialModule,
    SpatialModuleConfig,
    TemporalModule,
    TemporalModuleConfig,
    cubic_middles,
    enlarge_video,
    spatial_loss,
    task_loss,
)
from stvsr.training.networks.base import Network
from stvsr.training.networks.ops import upsample_bicubic
from torch import Tensor
from torch.func import functional_call, grad

from tests.support.compare import assert_close_to_range
from tests.support.networks import untrained_parameters

ModuleConfig = TemporalModuleConfig | SpatialModuleConfig
Weights = dict[str, dict[str, Tensor]]  # of the temporal and the spatial module

TINY_TEMPORAL, TINY_SPATIAL = TemporalModuleConfig(width=4, blocks=2), SpatialModuleConfig(width=4, blocks=1)
TINY: list[tuple[Callable[[Any], Network], ModuleConfig, int]] = [
    (TemporalModule, TINY_TEMPORAL, 4),
    (SpatialModule, TINY_SPATIAL, 3),
]


def perturbed(build: Callable[[Any], Network], config: ModuleConfig) -> Network:
    """Return a module whose output is no longer its initial interpolation."""
    torch.manual_seed(0)
    module = build(config)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module


@torch.no_grad()
def test_untrained_modules_interpolate() -> None:
    frames = torch.rand(2, 3, 3, 7, 10)
    doubled = TemporalModule(ADAVSR_TEMPORAL_S)(frames)
    assert torch.equal(doubled[:, ::2], frames)
    first, second, third = frames.unbind(1)
    torch.testing.assert_close(doubled[:, 1], (9 * (first + second) - first - third) / 16)
    large = SpatialModule(ADAVSR_SPATIAL_S)(frames)
    torch.testing.assert_close(large, upsample_bicubic(second, 4)[:, None])


def test_cubic_middles_interpolate_cubics_exactly_and_average_two_frames() -> None:
    ramp = torch.arange(6.0).view(1, 6, 1, 1, 1)
    middles = cubic_middles(ramp**3).flatten()
    torch.testing.assert_close(middles[1:-1], torch.tensor([1.5, 2.5, 3.5]) ** 3)
    assert cubic_middles(ramp[:, 2:4]).item() == 2.5


@pytest.mark.parametrize(("build", "config", "frames"), TINY)
def test_modules_accept_any_batch_and_size_and_every_parameter_has_a_gradient(
    build: Callable[[Any], Network], config: ModuleConfig, frames: int
) -> None:
    module = perturbed(build, config)
    assert isinstance(module.space, FixedFactors)
    scale = module.space.factors[0]
    out = module(torch.rand(2, frames, 3, 5, 9))
    assert out.shape == (2, 2 * frames - 1 if build is TemporalModule else 1, 3, 5 * scale, 9 * scale)
    out.square().mean().backward()
    assert untrained_parameters(module) == []


@torch.no_grad()
def test_profile_block_convolves_planes() -> None:
    torch.manual_seed(0)
    block, x = ProfileBlock(3), torch.randn(2, 4, 3, 5, 7)
    # Each plane as an image: (B * rows, C, T, W), (B * columns, C, T, H), (B * T, C, H, W).
    over_tx = block.temporal(x.permute(0, 3, 2, 1, 4).flatten(0, 1)).unflatten(0, (2, 5)).permute(0, 3, 2, 1, 4)
    over_ty = block.temporal(x.permute(0, 4, 2, 1, 3).flatten(0, 1)).unflatten(0, (2, 7)).permute(0, 3, 2, 4, 1)
    over_yx = block.spatial(x.flatten(0, 1)).unflatten(0, (2, 4))
    fused = block.fuse(torch.cat((over_yx, over_tx, over_ty), 2).relu().flatten(0, 1)).unflatten(0, (2, 4))
    assert_close_to_range(block(x) - x, fused, mean=1e-6, max=1e-5)


@pytest.mark.parametrize(("build", "config", "frames"), TINY)
@torch.no_grad()
def test_pixels_beyond_the_halo_do_not_affect_the_output(
    build: Callable[[Any], Network], config: ModuleConfig, frames: int
) -> None:
    module = perturbed(build, config).double()
    video = torch.rand(1, frames, 3, 4, 40).double()
    assert isinstance(module.space, FixedFactors)
    assert module.halo_px is not None
    scale, halo = module.space.factors[0], module.halo_px
    error = (module(video[..., 10:]) - module(video)[..., 10 * scale :]).abs().amax((0, 1, 2, 3))
    # The halo is at most one pixel larger than necessary.
    assert error[halo * scale :].max() < 1e-12 < 1e-9 < error[(halo - 2) * scale :].max()


@torch.no_grad()
def test_enlarge_video_applies_the_module_to_every_window() -> None:
    module, video = perturbed(SpatialModule, TINY_SPATIAL), torch.rand(2, 4, 3, 5, 6)
    out = enlarge_video(module, video)
    for t, window in enumerate(((0, 0, 1), (0, 1, 2), (1, 2, 3), (2, 3, 3))):
        torch.testing.assert_close(out[:, t], module(video[:, window])[:, 0])


def test_losses_are_mean_absolute_errors() -> None:
    def repeat(windows: Tensor) -> Tensor:  # as spatial module: the middle frame, every pixel 16 times
        return windows[:, 1:2].repeat_interleave(4, 3).repeat_interleave(4, 4)

    def hold(frames: Tensor) -> Tensor:  # as temporal module: every frame twice, the last once
        return frames.repeat_interleave(2, 1)[:, :-1]

    slow = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1, 1).expand(1, 2, 3, 2, 2)
    small = torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1, 1).expand(1, 3, 3, 2, 2)
    large = torch.tensor([0.0, 0.5, 0.4]).view(1, 3, 1, 1, 1).expand(1, 3, 3, 8, 8)
    # Output 0 .5 1 for the truth 0 .5 .4.
    assert spatial_loss(repeat, small, large).item() == pytest.approx(0.6 / 3)
    # Output 0 0 1 of the temporal module for the truth 0 .5 1, then of the spatial module for 0 .5 .4.
    assert task_loss(hold, repeat, slow, small, large).item() == pytest.approx(0.5 / 3 + (0.5 + 0.6) / 3)


def test_gradients_pass_through_an_inner_gradient_step() -> None:
    temporal, spatial = (perturbed(build, config).double() for build, config, _ in TINY)
    weights: Weights = {"f": dict(temporal.named_parameters()), "s": dict(spatial.named_parameters())}
    generator = torch.Generator().manual_seed(1)
    shapes = ((1, 2, 3, 4, 4), (1, 3, 3, 4, 4), (1, 3, 3, 16, 16))
    videos = [torch.rand(shape, generator=generator, dtype=torch.float64) for shape in shapes]

    def loss(w: Weights) -> Tensor:
        return task_loss(
            lambda x: functional_call(temporal, w["f"], (x,)), lambda x: functional_call(spatial, w["s"], (x,)), *videos
        )

    def adapted(w: Weights) -> Tensor:
        """Return the loss after one step of gradient descent with rate 0.1."""
        steps = grad(loss)(w)
        return loss({part: {k: v - 0.1 * steps[part][k] for k, v in w[part].items()} for part in w})

    meta = grad(adapted)(weights)
    for part, name in (("f", "blocks.0.temporal.weight"), ("s", "trunk.0.conv1.weight")):
        direction = torch.randn(weights[part][name].shape, generator=generator, dtype=torch.float64)
        losses = [
            adapted({**weights, part: {**weights[part], name: weights[part][name] + e * direction}})
            for e in (1e-6, -1e-6)
        ]
        slope = ((losses[0] - losses[1]) / 2e-6).item()
        assert slope == pytest.approx((meta[part][name] * direction).sum().item(), rel=1e-4, abs=1e-9)
