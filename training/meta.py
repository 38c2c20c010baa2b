"""Meta-transfer learning of Ada-VSR: tasks of unknown degradation, inner and outer loop.

Gupta et al., "Ada-VSR", ACM Multimedia 2021, algorithm 1 and equations 3 to 9; model-agnostic meta-learning is Finn et
al., ICML 2017. What the paper leaves open is chosen so:
- Its algorithm judges the weights adapted to a task on that task, its equations 7 to 9 on another. Adaptation to a clip
  is the former, which is what `sample_of` gives unless two tasks are named.
- Frames beyond a video's ends are those at its ends, where three are averaged.
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
    """One video at the three sizes of a task; of T frames N are kept, T = 2N - 1."""

    slow_small: Tensor  # (B, N, 3, h, w)
    small: Tensor  # (B, T, 3, h, w)
    large: Tensor  # (B, T, 3, 4h, 4w)


class Sample(NamedTuple):
    """What a task is learnt from and what it is judged by; the one's large video is the other's slow and small one."""

    train: Videos
    test: Videos


@dataclass(frozen=True)
class Task:
    """One degradation: a blur kernel, and alternate frames, each of which may be a mean of three."""

    kernel: Tensor  # (side, side)
    averaged: bool

    def videos(self, large: Tensor) -> Videos:
        """Degrade a video in space, then in time. (B, T, 3, H, W) in [0, 1], T odd, H and W multiples of 4"""
        small = shrink(large, self.kernel, SCALE)
        return Videos(self.slow(small), small, large)

    def slow(self, video: Tensor) -> Tensor:
        """Every second frame, or the mean of it and its neighbours. (B, 2N - 1, ...) -> (B, N, ...)"""
        if not self.averaged:
            return video[:, ::2]
        around = torch.cat((video[:, :1], video, video[:, -1:]), 1)
        return (around[:, :-2:2] + around[:, 1:-1:2] + around[:, 2::2]) / 3


def random_task(random: np.random.Generator) -> Task:
    """Any of the kernels of `random_kernel`, and either way to lose frames, equally likely."""
    return Task(random_kernel(random), bool(random.integers(2)))


def sample_of(large: Tensor, task: Task, judged: Task | None = None) -> Sample:
    """What ``task`` is learnt from, and what ``judged``, the same one unless it is named, is judged by.

    large: (B, T, 3, H, W) in [0, 1], T = 4n + 1, H and W multiples of 16. Seen videos have 8 bits.
    """
    test = (judged or task).videos(large)
    test = test._replace(slow_small=_eight_bits(test.slow_small))
    seen = test.slow_small if judged is None else _eight_bits(task.videos(large).slow_small)
    return Sample(task.videos(seen), test)


def loss_of(network: AdaVSR, videos: Videos) -> Loss:
    """L of equation 4 as a function of both modules' weights, which are named as in the network's state dict."""

    def loss(weights: Weights) -> Tensor:
        temporal, spatial = (
            partial(functional_call, getattr(network, part), weights_of(part, weights))
            for part in ("temporal", "spatial")
        )
        return task_loss(temporal, spatial, *videos)

    return loss


def inner_loop(loss: Loss, weights: Weights, rate: float, steps: int, first_order: bool = False) -> Weights:
    """Steps of gradient descent (equations 5 and 6), which gradients go through; with ``first_order`` around them."""
    for _ in range(steps):
        slopes = grad(loss)(dict(weights))
        weights = {k: w - rate * (slopes[k].detach() if first_order else slopes[k]) for k, w in weights.items()}
    return weights


def meta_gradient(
    network: AdaVSR, weights: Weights, samples: Iterable[Sample], rate: float, steps: int, first_order: bool = False
) -> tuple[dict[str, Tensor], float]:
    """The gradient of equations 8 and 9 at ``weights``, and the loss of equation 7: the mean after adaptation."""
    gradients: dict[str, Tensor] = {name: torch.zeros_like(value) for name, value in weights.items()}
    total, count = 0.0, 0
    for sample in samples:
        learnt, judged = loss_of(network, sample.train), loss_of(network, sample.test)

        def outer(weights: Weights, learnt: Loss = learnt, judged: Loss = judged) -> Tensor:
            return judged(inner_loop(learnt, weights, rate, steps, first_order))

        slopes, loss = grad_and_value(outer)(dict(weights))
        gradients = {name: value + slopes[name] for name, value in gradients.items()}
        total, count = total + float(loss), count + 1
    return {name: value / count for name, value in gradients.items()}, total / count


def _eight_bits(video: Tensor) -> Tensor:
    """Rounded to what a file holds."""
    return (video.clamp(0, 1) * 255).round() / 255
