"""Internal learning: training pairs, the steps of the paper, and refused networks and clips."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from stvsr.engine.contract.errors import AdaptationError
from stvsr.engine.contract.manifest import DoubledWindow, FixedFactors, FlowInput, SlidingWindow, Window
from stvsr.training.adapt.blur import gaussian_kernel, shrink
from stvsr.training.adapt.internal import FREE_FACTORS, ClipPairs, InternalLearning
from stvsr.training.adapt.protocol import Budget
from stvsr.training.adapt.pseudo import blurring
from stvsr.training.networks.adavsr import (
    SpatialModule,
    SpatialModuleConfig,
    TemporalModule,
    TemporalModuleConfig,
    enlarge_video,
)
from stvsr.training.networks.base import Network
from stvsr.training.networks.cascade import AdaVSR, weights_of
from torch import Tensor, nn

from tests.support.small_networks import small_networks

KERNEL = gaussian_kernel((2.5, 1.2), 0.5)
BLUR = blurring(KERNEL)


def small_adavsr() -> AdaVSR:
    torch.manual_seed(0)
    network = AdaVSR(
        TemporalModule(TemporalModuleConfig(width=4, blocks=1)), SpatialModule(SpatialModuleConfig(width=4, blocks=1))
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def moving_stripes(frames: int = 9, height: int = 32, width: int = 48) -> Tensor:
    """Return a pattern that moves by half a pixel a frame, (N, 3, h, w)."""
    t, y, x = torch.meshgrid(*(torch.arange(float(n)) for n in (frames, height, width)), indexing="ij")
    waves = [0.5 + 0.4 * torch.sin(0.25 * (x - 0.5 * t) + 0.1 * k * y) for k in range(3)]
    return torch.stack(waves, 1)


def test_adavsr_runs_both_modules_as_one_network() -> None:
    network, frames = small_adavsr(), torch.rand(2, 3, 3, 6, 8)
    with torch.no_grad():
        output = network(frames)
        assert output.shape == (2, 5, 3, 24, 32)
        torch.testing.assert_close(output, enlarge_video(network.spatial, network.temporal(frames)))
    parts = {part: weights_of(part, network.state_dict()) for part in ("temporal", "spatial")}
    assert parts["temporal"].keys() == network.temporal.state_dict().keys()
    assert parts["spatial"].keys() == network.spatial.state_dict().keys()
    assert sum(map(len, parts.values())) == len(network.state_dict())


def test_step_descends_the_gradient_of_equation_10() -> None:
    network, clip = small_adavsr(), moving_stripes(frames=7)
    adapted = InternalLearning(BLUR, rate=0.3, patch_px=64).adapt(network, clip, Budget(steps=1))
    degraded = shrink(clip, KERNEL, 4)[::2]  # the whole clip, as it is no larger than the patch
    loss = (network(degraded[None])[0] - clip).abs().mean()
    slopes = torch.autograd.grad(loss, list(network.parameters()))
    for (name, weight), slope in zip(network.named_parameters(), slopes, strict=True):
        torch.testing.assert_close(adapted.weights[name], weight - 0.3 * slope)
        assert slope.abs().max() > 0
    assert adapted.record.losses == (pytest.approx(loss.item()),)


def test_loss_on_the_clip_falls_and_the_network_is_not_changed() -> None:
    network, clip = small_adavsr(), moving_stripes()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    reported = []
    method = InternalLearning(BLUR, rate=0.1, patch_px=8)
    first, second = (
        method.adapt(network, clip, Budget(steps=40), seed, lambda clock, loss: reported.append((clock.steps, loss)))
        for seed in (3, 3)
    )
    record = first.record
    assert (record.method, record.steps, len(record.losses)) == ("internal", 40, 40)
    assert reported[:40] == [*enumerate(record.losses, 1)]
    assert np.mean(record.losses[-5:]) < 0.9 * np.mean(record.losses[:5])
    assert record.details["factors"] == [4]
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in before)
    other = method.adapt(network, clip, Budget(steps=40), 4).weights
    assert any(not torch.equal(first.weights[name], other[name]) for name in before)
    # The loss is of the whole clip, not of the crops that were learned from.
    degraded = shrink(clip, KERNEL, 4)[None, ::2]
    with torch.no_grad():
        untouched = F.l1_loss(network(degraded)[0], clip)
        network.load_state_dict(first.weights)
        assert F.l1_loss(network(degraded)[0], clip) < 0.9 * untouched


def test_adam_replaces_gradient_descent() -> None:
    adapted = InternalLearning(BLUR, 1e-3, "adam", patch_px=8).adapt(small_adavsr(), moving_stripes(), Budget(steps=1))
    steps = torch.cat([(adapted.weights[name] - value).flatten() for name, value in small_adavsr().named_parameters()])
    assert (steps.abs() > 0.9e-3).float().mean() > 0.9  # its first step is as long as its rate, whatever the gradient
    assert steps.abs().max() < 1.1e-3


def test_budget_of_seconds_ends() -> None:
    record = InternalLearning(BLUR, patch_px=8).adapt(small_adavsr(), moving_stripes(), Budget(seconds=0.3)).record
    assert 1 <= record.steps == len(record.losses)
    assert record.seconds < 5


def numbered_frames(frames: int, side: int = 32) -> Tensor:
    """Return a clip whose frame n has the value n."""
    return torch.arange(float(frames)).view(-1, 1, 1, 1).expand(frames, 3, side, side)


@pytest.mark.parametrize(("length", "count"), [(9, 4), (7, 4), (6, 3), (3, 2)])
def test_run_takes_every_second_frame_and_its_targets_are_all(length: int, count: int) -> None:
    for seed in range(5):
        drawn = ClipPairs(small_adavsr(), numbered_frames(length) / 9, 4, BLUR, seed=seed).batch(2)
        inputs, targets = drawn.inputs[0], drawn.target
        assert inputs.shape == (2, count, 3, 4, 4)
        assert targets.shape == (2, 2 * count - 1, 3, 16, 16)
        torch.testing.assert_close(inputs.mean((2, 3, 4)), targets[:, ::2].mean((2, 3, 4)))
        torch.testing.assert_close(targets.diff(dim=1), torch.full_like(targets[:, 1:], 1 / 9))


def test_single_module_learns_its_own_part() -> None:
    temporal, spatial = small_adavsr().temporal, small_adavsr().spatial
    drawn = ClipPairs(temporal, numbered_frames(9) / 9, 4).batch(1)
    assert (drawn.inputs[0].shape, drawn.target.shape) == ((1, 4, 3, 4, 4), (1, 7, 3, 4, 4))
    assert torch.equal(drawn.inputs[0], drawn.target[:, ::2])
    drawn = ClipPairs(spatial, numbered_frames(9) / 9, 4, BLUR).batch(1)
    assert (drawn.inputs[0].shape, drawn.target.shape) == ((1, 3, 3, 4, 4), (1, 1, 3, 16, 16))
    torch.testing.assert_close(drawn.inputs[0][:, 1].mean(), drawn.target.mean())
    for network, factors in ((temporal, [1]), (spatial, [4])):
        adapted = InternalLearning(BLUR, patch_px=4).adapt(network, moving_stripes(), Budget(steps=2))
        assert adapted.weights.keys() == network.state_dict().keys()
        assert adapted.record.details["factors"] == factors


def test_network_of_any_scale_learns_at_random_factors() -> None:
    """One input at its own time and the frame between are the targets; crops that are too small are padded."""
    network = small_networks()["fourier-s"].eval()
    pairs = ClipPairs(network, numbered_frames(5, side=80) / 9, 32)
    assert pairs.factors == [2, 3, 4]
    seen = set()
    for _ in range(12):
        example = pairs.batch(1)
        frames, times = example.inputs
        assert frames.shape == (1, 2, 3, 32, 32)
        assert example.size is not None
        factor = example.size[0] // 32
        assert example.target.shape == (1, 2, 3, *[factor * min(32, 80 // factor)] * 2)
        own = frames[0, int(times[0, 0])].mean()
        torch.testing.assert_close(example.target.mean((2, 3, 4))[0], torch.stack([own, frames.mean()]))
        assert times[0, 1] == 0.5
        seen.add((factor, float(times[0, 0])))
        assert example.output(network).shape == example.target.shape
    assert {factor for factor, _ in seen} == set(FREE_FACTORS)
    assert {time for _, time in seen} == {0.0, 1.0}


class Other(Network):
    """A network that internal learning does not support."""

    def __init__(self, window: Window, time: FixedFactors, flows: tuple[FlowInput, ...] = ()) -> None:
        super().__init__()
        self.window, self.time, self.flows = window, time, flows
        self.gain = nn.Parameter(torch.ones(()))


@pytest.mark.parametrize(
    ("network", "frames", "words"),
    [
        (Other(DoubledWindow(frames=4, overlap=1), FixedFactors(factors=(2,))), numbered_frames(9), "Other is not"),
        (
            Other(
                SlidingWindow(frames=3, padding="replicate"),
                FixedFactors(factors=(1,)),
                (FlowInput(name="flow", pairs=((0, 1),)),),
            ),
            numbered_frames(9) / 9,
            "takes optical flow: pass a function",
        ),
        (small_adavsr(), numbered_frames(2), "3 frames or more, and the clip has 2"),
        (small_adavsr().spatial, numbered_frames(2), "3 frames or more, and the clip has 2"),
        (
            small_adavsr(),
            numbered_frames(9, side=7),
            "Frames of 7x7 pixels are too small for AdaVSR after they are shrunk 4 times",
        ),
    ],
)
def test_unsupported_networks_and_clips_are_refused(network: Network, frames: Tensor, words: str) -> None:
    with pytest.raises(AdaptationError, match=words):
        InternalLearning(BLUR).adapt(network, frames, Budget(steps=1))


def test_diverging_run_is_refused() -> None:
    with pytest.raises(AdaptationError, match=r"diverged, as the loss .*: take a lower learning rate"):
        InternalLearning(BLUR, rate=1e30, patch_px=8).adapt(small_adavsr(), moving_stripes(), Budget(steps=20))
