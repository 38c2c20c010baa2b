"""The steps of learning: an optimizer lowers the error on examples of the clip, over the weights that are selected.

Frames between those of a clip have larger errors than its own, as their motion is uncertain. The squared error of both
teaches a network to be smooth; by the ratio of errors, each frame counts for as much.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from ..inference import run_network
from ..networks.base import Network
from .protocol import Clock, Losses, OnStep
from .selection import Adapts, merge, select

# "squared": mean squared differences, of the authors of self-supervised adaptation; "absolute": mean absolute ones, of
# Ada-VSR; "ratio": the mean of the logarithms of each output frame's mean absolute difference
Loss = Literal["squared", "absolute", "ratio"]

_LEAST_ERROR = 1e-5  # in [0, 1]; a smaller one teaches nothing
_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}


@dataclass(frozen=True)
class Example:
    """The inputs of a network and their target.

    `size` is the size (H, W) of the output if inputs are padded; the target is its upper left part.
    """

    inputs: list[Tensor]  # frames (B, N, 3, h, w) in [0, 1], then flows and time if the network takes them
    target: Tensor  # (B, M, 3, H, W) in [0, 1]
    size: tuple[int, int] | None = None

    def output(self, network: Network) -> Tensor:
        """Return what a network makes of the inputs, as large as the target and on the network's device."""
        device, (H, W) = next(network.parameters()).device, self.target.shape[-2:]
        return run_network(network, [x.to(device) for x in self.inputs], self.size or (H, W))[..., :H, :W]


class Examples(Protocol):
    """A source of training examples."""

    def batch(self, count: int) -> Example:
        """Draw a batch of `count` examples."""


@dataclass(frozen=True)
class Learning:
    """The settings of `learn`: the weights that are adapted, the optimizer with its rate, and the batch of a step."""

    rate: float
    adapts: Adapts = "all"
    batch: int = 4
    optimizer: Literal["adam", "sgd"] = "adam"
    loss: Loss = "ratio"


def learn(
    network: Network, examples: Examples, learning: Learning, clock: Clock, on_step: OnStep | None = None
) -> tuple[float, ...]:
    """Train a network in place until the budget is used up, at least one step.

    Returns the mean error of each step. Raises AdaptationError if the losses diverge.
    """
    learned = select(network, learning.adapts)
    optimizer = _OPTIMIZERS[learning.optimizer](learned, learning.rate)
    losses = Losses()
    while True:
        example = examples.batch(learning.batch)
        with parametrize.cached():  # a layer that is used at several scales is updated once
            output = example.output(network)
        difference = output - example.target.to(output)
        errors = (difference.square() if learning.loss == "squared" else difference.abs()).mean((0, 2, 3, 4))
        loss = errors.clamp(min=_LEAST_ERROR).log().mean() if learning.loss == "ratio" else errors.mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        clock.steps += 1
        losses.add(float(errors.detach().mean()))
        if on_step:
            on_step(clock, losses.values[-1])
        if clock.done():
            merge(network)
            return tuple(losses.values)
