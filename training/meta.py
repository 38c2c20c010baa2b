"""Meta-transfer learning of Ada-VSR: random degradation tasks, the inner loop and the outer gradient.

Gupta et al., "Ada-VSR", ACM Multimedia 2021, algorithm 1 and equations 3 to 9. Model-agnostic meta-learning is from
Finn et al., ICML 2017. Where the paper leaves a choice open:

- Its algorithm tests the adapted weights on the task that they adapted to; its equations 7 to 9 test them on another
  task. Adaptation to a clip is the former, so that is the default of `make_sample`.
- Where three frames are averaged at the ends of a video, the first and last frame are repeated.
- Losses are means over tasks, where the paper has sums.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad, grad_and_value

from .adapt.blur import random_kernel, shrink
from .networks.adavsr import task_loss
from .networks.cascade import AdaVSR, weights_of

SCALE = 4
Weights = Mapping[str, Tensor]
Loss = Callable[[Weights], Tensor]


class Videos(NamedTuple):
    """One video at the three sizes of a task. The slow version keeps N of T frames, T = 2N - 1."""

    slow_small: Tensor  # (B, N, 3, h, w)
    small: Tensor  # (B, T, 3, h, w)
    large: Tensor  # (B, T, 3, 4h, 4w)


class Sample(NamedTuple):
    """The videos that weights adapt to, and the videos that test them. `train.large` is `test.slow_small`."""

    train: Videos
    test: Videos


@dataclass(frozen=True)
class Task:
    """One degradation: a blur kernel, and every second frame, either as it is or averaged with its neighbours."""

    kernel: Tensor  # (side, side)
    averaged: bool

    def videos(self, large: Tensor) -> Videos:
        """Degrade a video in space, then in time. (B, T, 3, H, W) in [0, 1], T odd, H and W multiples of 4"""
        small = shrink(large, self.kernel, SCALE)
        return Videos(self.slow(small), small, large)

    def slow(self, video: Tensor) -> Tensor:
        """Return every second frame, or the mean of it and its neighbours. (B, 2N - 1, ...) -> (B, N, ...)"""
        if not self.averaged:
            return video[:, ::2]
        padded = torch.cat((video[:, :1], video, video[:, -1:]), 1)
        return (padded[:, :-2:2] + padded[:, 1:-1:2] + padded[:, 2::2]) / 3


def random_task(random: np.random.Generator) -> Task:
    """Draw a kernel from `random_kernel`, and one of the two ways to drop frames with equal chances."""
    return Task(random_kernel(random), bool(random.integers(2)))


def make_sample(large: Tensor, task: Task, test_task: Task | None = None) -> Sample:
    """Degrade a video to a sample of `task`, which is tested on `test_task`, or on `task` itself by default.

    `large` is (B, T, 3, H, W) in [0, 1], T = 4n + 1, H and W multiples of 16. The input videos of the network are
    rounded to 8 bits, as in a file.
    """
    test = (test_task or task).videos(large)
    test = test._replace(slow_small=_round_to_8_bits(test.slow_small))
    clip = test.slow_small if test_task is None else _round_to_8_bits(task.videos(large).slow_small)
    return Sample(task.videos(clip), test)


def loss_function(network: AdaVSR, videos: Videos) -> Loss:
    """Return the loss L of equation 4 as a function of the weights, by their names in the network's state dict."""

    def loss(weights: Weights) -> Tensor:
        temporal, spatial = (
            partial(functional_call, getattr(network, part), weights_of(part, weights))
            for part in ("temporal", "spatial")
        )
        return task_loss(temporal, spatial, *videos)

    return loss


def inner_loop(loss: Loss, weights: Weights, rate: float, steps: int, first_order: bool = False) -> Weights:
    """Take steps of gradient descent (equations 5 and 6) and return the new weights.

    The steps are differentiable; with `first_order` their gradients count as constants.
    """
    for _ in range(steps):
        gradients = grad(loss)(dict(weights))
        weights = {k: w - rate * (gradients[k].detach() if first_order else gradients[k]) for k, w in weights.items()}
    return weights


def meta_gradient(
    network: AdaVSR, weights: Weights, samples: Iterable[Sample], rate: float, steps: int, first_order: bool = False
) -> tuple[dict[str, Tensor], float]:
    """Return the gradient of equations 8 and 9 at `weights`, and the loss of equation 7, the mean after adaptation."""
    gradients: dict[str, Tensor] = {name: torch.zeros_like(value) for name, value in weights.items()}
    total, count = 0.0, 0
    for sample in samples:
        train_loss, test_loss = loss_function(network, sample.train), loss_function(network, sample.test)

        def adapted_loss(weights: Weights, train_loss: Loss = train_loss, test_loss: Loss = test_loss) -> Tensor:
            return test_loss(inner_loop(train_loss, weights, rate, steps, first_order))

        sample_gradients, loss = grad_and_value(adapted_loss)(dict(weights))
        gradients = {name: value + sample_gradients[name] for name, value in gradients.items()}
        total, count = total + float(loss), count + 1
    return {name: value / count for name, value in gradients.items()}, total / count


def _round_to_8_bits(video: Tensor) -> Tensor:
    return (video.clamp(0, 1) * 255).round() / 255
