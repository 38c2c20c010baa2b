"""Zero-shot temporal super-resolution: a network learns from one clip alone to double its rate.

Zuckerman et al., "Across Scales & Across Dimensions: Temporal Super-Resolution using Deep Internal Learning", 2020.
The learning rate follows Shocher et al., "Zero-Shot Super-Resolution using Deep Internal Learning", 2018, as there.

Choices of ours:
- The network's batch normalization, which the paper does not have, takes its statistics from one batch of examples
  before the first step and keeps them, so that the network that trains is the one that serves: official training
  begins with those of each batch, and freezes them later.
- Weights begin as He et al. 2015 have it, but the first layer's answer nothing where nothing changes: moments differ
  little beside what a patch's brightness is.
- The loss is the squared error over that of interpolation: 1 at first, whatever the clip. It judges examples to their
  ends, where official training leaves out two frames: the network would fail at the ends of the clip, which the
  official code prolongs before it runs the network.
- The paper's rate falls when the loss no longer does, which takes hours. At the end of a budget it falls in any case.
"""

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ...engine.contract.errors import AdaptationError
from ...engine.contract.resize import coarse_size
from ..networks.base import Network
from ..networks.dtsr import DeepTemporalSR, start_at_zero
from ..networks.ops import upsample_cubic
from ..saving import save
from .examples import Examples, Sources
from .protocol import Adapted, Budget, Clock, Losses, OnStep, Record
from .video_resize import resize_space

_NOISE = 1e-6  # added to the squared error of interpolation, so that what does not move weighs little
_NORMALIZED = 8  # examples whose statistics are taken
_COOLING = 0.3  # of the budget, at its end: the rate falls to nothing
_WARMING = 20  # steps in which the rate rises
_LAST_LAYER = 0.2  # of the rate: it begins at zero, and Adam's first steps would carry it far beyond what is missing


class AdaptiveRate:
    """A learning rate that is divided by ten when the loss has ceased to fall.

    Every ``every`` steps, a line is fitted to the last ``window`` losses since the rate changed. Where it falls by
    less than ``ratio`` standard errors of its slope, the fall is not told from chance. The rate is spent when it has
    come to ``final``.
    """

    def __init__(
        self, rate: float, final: float = 1e-6, every: int = 60, window: int = 256, ratio: float = 1.5
    ) -> None:
        self.rate, self.final = rate, final
        self._every, self._window, self._ratio = every, window, ratio
        self._losses: list[float] = []

    @property
    def spent(self) -> bool:
        """Whether training is over."""
        return self.rate <= self.final * 1.001

    def add(self, loss: float) -> None:
        """Count one more step."""
        self._losses.append(loss)
        if len(self._losses) >= self._window and len(self._losses) % self._every == 0:
            recent = self._losses[-self._window :]
            (slope, _), covariance = np.polyfit(np.arange(len(recent)), recent, 1, cov=True)
            if -slope < self._ratio * covariance[0, 0] ** 0.5:
                self.rate /= 10
                self._losses = []

    def state(self) -> dict[str, Any]:
        """What `restore` takes."""
        return {"rate": self.rate, "losses": self._losses}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where another stood."""
        self.rate, self._losses = state["rate"], list(state["losses"])


@dataclass(frozen=True)
class ZeroShot:
    """Trains a network of deep temporal super-resolution (`dtsr`, `dtsr-s`) from scratch on the frames of one scene.

    It trains on frames 1 / ``network.window.coarse`` as high and wide. With a ``checkpoint`` a run that was stopped
    goes on from its last one, written every ``checkpoint_every`` steps and at the end, and a run with a larger budget
    from the end of another. ``rate`` is Adam's; at a few times as much layers were seen to die.
    """

    sources: Sources = field(default_factory=Sources)
    batch: int = 4
    rate: float = 5e-4
    checkpoint: Path | None = None
    checkpoint_every: int = 50

    name: ClassVar[str] = "zero-shot"

    def adapt(
        self, network: Network, frames: Tensor, budget: Budget, seed: int = 0, on_step: OnStep | None = None
    ) -> Adapted:
        """Learn from examples of the frames; see `Method`. Of the network its configuration alone is used.

        A step's loss is its squared error over that of cubic interpolation. Raises AdaptationError.
        """
        if not isinstance(network, DeepTemporalSR):
            raise AdaptationError(
                f"zero-shot learning is for networks that double the frame rate by 3-D convolution, not for"
                f" {type(network).__name__}: take dtsr or dtsr-s"
            )
        coarse = network.config.coarse
        clip = resize_space(frames, coarse_size(frames.shape[-2:], coarse)).clamp(0, 1)
        examples = Examples(clip, self.sources)
        run = _Run(fresh(network, seed), self, budget, seed, self._stamp(network, clip, seed))
        run.learn(examples, on_step)
        details = {
            "rate": self.rate,
            "final_rate": run.rate.rate,
            "coarse": coarse,
            "batch": self.batch,
            "side": examples.side,
            "frames": len(frames),
            "seed": seed,
        }
        weights = {name: value.detach().cpu() for name, value in run.network.state_dict().items()}
        return Adapted(weights, Record(self.name, run.clock.steps, run.clock.seconds, tuple(run.losses.seen), details))

    def _stamp(self, network: Network, clip: Tensor, seed: int) -> str:
        """What must be the same for a run to go on."""
        options = (network.config, asdict(self.sources), self.batch, self.rate, seed, tuple(clip.shape))
        return hashlib.sha256(repr(options).encode() + clip.cpu().numpy().tobytes()).hexdigest()


def fresh(network: DeepTemporalSR, seed: int) -> DeepTemporalSR:
    """A network of the same configuration and device before training: it interpolates."""
    made = DeepTemporalSR(network.config)
    generator = torch.Generator().manual_seed(seed)
    layers = [layer for layer in made.children() if isinstance(layer, nn.Conv3d)]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)
    with torch.no_grad():
        layers[0].weight -= layers[0].weight.mean((1, 2, 3, 4), keepdim=True)
    start_at_zero(layers[-1])
    return made.to(next(network.parameters()).device).eval()


@torch.no_grad()
def take_statistics(network: DeepTemporalSR, frames: Tensor) -> None:
    """Set what batch normalization subtracts and divides by to its values over these frames, (B, T, 3, h, w)."""
    norms = [layer for layer in network.children() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    network.train()(frames)
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


class _Resumed(Clock):
    """A clock that goes on where another stood."""

    def __init__(self, budget: Budget, steps: int = 0, seconds: float = 0.0) -> None:
        super().__init__(budget)
        self.steps, self._before = steps, seconds

    @property
    def seconds(self) -> float:
        """Seconds of learning, those before included."""
        return super().seconds + self._before


class _Run:
    """One training, from its start or its last checkpoint to the end of its budget."""

    def __init__(self, network: DeepTemporalSR, method: ZeroShot, budget: Budget, seed: int, stamp: str) -> None:
        self.network, self._method, self._stamp = network, method, stamp
        *layers, last = network.children()
        groups = [
            {"params": [weight for layer in layers for weight in layer.parameters()], "share": 1.0},
            {"params": list(last.parameters()), "share": _LAST_LAYER},
        ]
        self._optimizer = torch.optim.Adam(groups, method.rate)
        self._generator = torch.Generator().manual_seed(seed)
        self.rate, self.losses, self.clock = AdaptiveRate(method.rate), Losses(), _Resumed(budget)
        self._device = next(network.parameters()).device
        if method.checkpoint and method.checkpoint.exists():
            self._resume(method.checkpoint, budget)

    def learn(self, examples: Examples, on_step: OnStep | None) -> None:
        """Steps of Adam until the budget or the rate is spent, one at least of a run that was not begun."""
        if not self.clock.steps:
            take_statistics(self.network, examples.draw(_NORMALIZED, self._generator)[0].to(self._device))
        while not (self.clock.steps and (self.clock.done() or self.rate.spent)):
            loss = self._step(examples)
            self.clock.steps += 1
            self.losses.add(loss)
            self.rate.add(loss)
            if on_step:
                on_step(self.clock, loss)
            if self.clock.steps % self._method.checkpoint_every == 0:
                self._save()
        self._save()

    def _step(self, examples: Examples) -> float:
        warmth = min(1.0, (self.clock.steps + 1) / _WARMING, (1 - self.clock.fraction()) / _COOLING)
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate.rate * warmth * group["share"]
        seen, truth = (x.to(self._device) for x in examples.draw(self._method.batch, self._generator))
        interpolation = (upsample_cubic(seen, 1, 2) - truth).square().mean()
        error = (self.network(seen) - truth).square().mean()
        loss = (error + _NOISE) / (interpolation + _NOISE)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        return float(loss.detach())

    def _save(self) -> None:
        if not (path := self._method.checkpoint):
            return
        state = {
            "stamp": self._stamp,
            "steps": self.clock.steps,
            "seconds": self.clock.seconds,
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "generator": self._generator.get_state(),
            "rate": self.rate.state(),
            "losses": self.losses.seen,
        }
        save(state, path)

    def _resume(self, path: Path, budget: Budget) -> None:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or state.get("stamp") != self._stamp:
            raise AdaptationError(
                f"{path} is a checkpoint of another clip, network, seed or option: name another file or remove it"
            )
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._generator.set_state(state["generator"])
        self.rate.restore(state["rate"])
        self.losses = Losses(state["losses"])
        self.clock = _Resumed(budget, state["steps"], state["seconds"])
