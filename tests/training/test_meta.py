"""Meta-transfer learning: degradation tasks, samples, and gradients through the inner loop."""

import numpy as np
import pytest
import torch
from stvsr.training.adapt.blur import gaussian_kernel, shrink
from stvsr.training.meta import (
    Sample,
    Task,
    Weights,
    inner_loop,
    loss_function,
    make_sample,
    meta_gradient,
    random_task,
)
from torch import Tensor
from torch.func import grad

from tests.support.toy_networks import tiny_adavsr

KERNEL = gaussian_kernel((2.5, 1.2), 0.5)
RATE, STEPS = 0.05, 3


def large_video(seed: int = 0, side: int = 32) -> Tensor:
    return torch.rand(1, 5, 3, side, side, generator=torch.Generator().manual_seed(seed))


def double(sample: Sample) -> Sample:
    """Return a sample in double precision."""
    return type(sample)(*(type(videos)(*(v.double() for v in videos)) for videos in sample))


def two_samples() -> list[Sample]:
    return [double(make_sample(large_video(seed), Task(KERNEL, bool(seed)))) for seed in (0, 1)]


def test_a_slow_video_has_every_second_frame_or_means_of_three() -> None:
    video = torch.arange(5.0).view(1, 5, 1, 1, 1) ** 2
    assert Task(KERNEL, averaged=False).slow(video).flatten().tolist() == [0, 4, 16]
    means = [(0 + 0 + 1) / 3, (1 + 4 + 9) / 3, (9 + 16 + 16) / 3]
    assert Task(KERNEL, averaged=True).slow(video).flatten().tolist() == pytest.approx(means)


def test_a_task_degrades_in_space_and_then_in_time() -> None:
    large, task = large_video(), Task(KERNEL, averaged=True)
    videos = task.videos(large)
    torch.testing.assert_close(videos.small, shrink(large, KERNEL, 4))
    torch.testing.assert_close(videos.slow_small, shrink(task.slow(large), KERNEL, 4))
    assert videos.large is large
    assert [v.shape[1:] for v in videos] == [(3, 3, 8, 8), (5, 3, 8, 8), (5, 3, 32, 32)]


def test_a_sample_trains_one_scale_below_its_test() -> None:
    large, task = large_video(), Task(KERNEL, averaged=False)
    sample = make_sample(large, task)
    assert torch.equal(sample.train.large, sample.test.slow_small)
    assert torch.equal((sample.train.large * 255).round() / 255, sample.train.large)
    assert [v.shape[1:] for v in sample.train] == [(2, 3, 2, 2), (3, 3, 2, 2), (3, 3, 8, 8)]
    torch.testing.assert_close(sample.train.small, shrink(sample.train.large, KERNEL, 4))
    other = Task(gaussian_kernel((1.2, 1.2), 0), averaged=True)
    across = make_sample(large, task, other)
    torch.testing.assert_close(across.train, sample.train)
    torch.testing.assert_close(across.test.small, other.videos(large).small)


def test_tasks_are_drawn_evenly_and_by_seed() -> None:
    random = np.random.default_rng(0)
    tasks = [random_task(random) for _ in range(400)]
    assert sum(task.averaged for task in tasks) == pytest.approx(200, abs=40)  # four standard deviations
    assert len({tuple(task.kernel[0].tolist()) for task in tasks}) == 400
    first, second = (random_task(np.random.default_rng(5)) for _ in range(2))
    assert torch.equal(first.kernel, second.kernel)
    assert first.averaged == second.averaged


def moved(weights: Weights, directions: Weights, distance: float) -> Weights:
    return {name: value + distance * directions[name] for name, value in weights.items()}


def test_second_order_gradients_equal_finite_differences() -> None:
    network, samples = tiny_adavsr().double(), two_samples()
    weights = {name: value.detach() for name, value in network.named_parameters()}
    gradients, loss = meta_gradient(network, weights, samples, RATE, STEPS)
    generator = torch.Generator().manual_seed(0)
    assert gradients.keys() == weights.keys()

    def adapted_loss(weights: Weights) -> float:
        """The mean loss after adaptation, without any gradient but the inner one."""
        losses = []
        for sample in samples:
            adapted = inner_loop(loss_function(network, sample.train), weights, RATE, STEPS)
            losses.append(loss_function(network, sample.test)(adapted).item())
        return float(np.mean(losses))

    assert adapted_loss(weights) == pytest.approx(loss, rel=1e-12)
    for part in ("temporal.", "spatial."):
        directions = {
            name: torch.randn(value.shape, generator=generator, dtype=torch.float64) * name.startswith(part)
            for name, value in weights.items()
        }
        e = 1e-7  # short, because the loss has kinks
        difference = (adapted_loss(moved(weights, directions, e)) - adapted_loss(moved(weights, directions, -e))) / (
            2 * e
        )
        slope = sum((gradients[name] * directions[name]).sum().item() for name in weights)
        assert slope == pytest.approx(difference, rel=1e-4)


def test_first_order_gradients_are_those_at_the_adapted_weights() -> None:
    network, samples = tiny_adavsr().double(), two_samples()
    weights = {name: value.detach() for name, value in network.named_parameters()}
    first, loss = meta_gradient(network, weights, samples, RATE, STEPS, first_order=True)
    second, same_loss = meta_gradient(network, weights, samples, RATE, STEPS)
    assert loss == pytest.approx(same_loss, rel=1e-12)
    parts = []
    for sample in samples:
        adapted = inner_loop(loss_function(network, sample.train), weights, RATE, STEPS)
        parts.append(grad(loss_function(network, sample.test))({name: w.detach() for name, w in adapted.items()}))
    for name, slope in first.items():
        torch.testing.assert_close(slope, (parts[0][name] + parts[1][name]) / 2, rtol=1e-9, atol=1e-12)
    distance = torch.stack([(first[name] - second[name]).square().sum() for name in first]).sum().sqrt()
    assert distance > 1e-3 * torch.stack([value.square().sum() for value in second.values()]).sum().sqrt()


def test_the_inner_loop_is_gradient_descent() -> None:
    network, (sample, _) = tiny_adavsr().double(), two_samples()
    loss = loss_function(network, sample.train)
    weights = {name: value.detach() for name, value in network.named_parameters()}
    descended = inner_loop(loss, weights, RATE, 4)
    optimizer = torch.optim.SGD(network.parameters(), RATE)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        value = loss(dict(network.named_parameters()))
        value.backward()
        optimizer.step()
        losses.append(value.item())
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(descended[name], parameter.detach())
    assert losses[-1] < losses[0]
