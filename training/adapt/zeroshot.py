"""Zero-shot temporal super-resolution: a network learns from one clip alone to double its frame rate.

Zuckerman et al., "Across Scales & Across Dimensions: Temporal Super-Resolution using Deep Internal Learning", 2020. As
there, the learning rate follows Shocher et al., "Zero-Shot Super-Resolution using Deep Internal Learning", 2018.

Choices of this implementation:
- The network's batch normalization, which the paper does not have, takes its statistics from one batch of examples
  before the first step and keeps them, so that training and inference run the same network. Official training begins
  with the statistics of each batch, and freezes them later.
- Weights begin as in He et al. 2015, except that the first layer responds only to changes: the frames of a patch differ
  little compared to its brightness.
- The loss is the squared error over that of interpolation: 1 at first for every clip. It covers examples to their ends,
  where official training leaves out two frames: otherwise the network would fail at the ends of the clip, which the
  official code extends before it runs the network.
- The paper's rate falls when the loss no longer does, which takes hours. At the end of a budget it falls in any case.
"""

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from ...engine.contract.errors import AdaptationError
from ...engine.contract.resize import coarse_size
from ..checkpoint_files import read_checkpoint
from ..networks.base import Network
from ..networks.blocks import start_at_zero
from ..networks.dtsr import DeepTemporalSR
from ..networks.ops import upsample_cubic
from ..saving import save
from .adaptive_rate import AdaptiveRate
from .examples import Examples, Sources
from .protocol import Adapted, Budget, Clock, Losses, OnStep, Record
from .video_resize import resize_space

_NOISE = 1e-6  # added to the squared error of interpolation, so that still regions weigh little
_STATISTICS_BATCH = 8  # examples that the statistics of batch normalization are taken from
_COOLING = 0.3  # share of the budget, at its end, over which the rate falls to zero
_WARMUP_STEPS = 20
_LAST_LAYER = 0.2  # of the rate: the layer begins at zero, and Adam's first steps would carry it far too far


@dataclass(frozen=True)
class ZeroShot:
    """Trains a deep temporal super-resolution network (`dtsr`, `dtsr-s`) from scratch on the frames of one scene.

    It trains on frames 1 / `network.window.coarse` as high and wide. With a `checkpoint`, which is written every
    `checkpoint_every` steps and at the end, a run that was stopped is resumed, and a run with a larger budget continues
    one that was completed. `rate` is Adam's; at a few times as much, layers were observed to die.
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
        """Learn from examples cut from the frames; see `Method.adapt`. Only the network's configuration is used.

        The loss of a step is its squared error over that of cubic interpolation. Raises AdaptationError if the network
        is of another kind, the clip is too small or flat, the run diverges, or the checkpoint is of another run.
        """
        if not isinstance(network, DeepTemporalSR):
            raise AdaptationError(
                "Zero-shot learning is for networks that double the frame rate by 3-D convolution, not for"
                f" {type(network).__name__}: choose dtsr or dtsr-s."
            )
        coarse = network.config.coarse
        clip = resize_space(frames, coarse_size(frames.shape[-2:], coarse)).clamp(0, 1)
        examples = Examples(clip, self.sources)
        run = _Run(fresh_network(network, seed), self, budget, seed, self._fingerprint(network, clip, seed))
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
        losses = tuple(run.losses.values)
        return Adapted(weights, Record(self.name, run.clock.steps, run.clock.seconds, losses, details))

    def _fingerprint(self, network: Network, clip: Tensor, seed: int) -> str:
        """Return a digest of all that must be the same for a run to be resumed."""
        options = (network.config, asdict(self.sources), self.batch, self.rate, seed, tuple(clip.shape))
        return hashlib.sha256(repr(options).encode() + clip.cpu().numpy().tobytes()).hexdigest()


def fresh_network(network: DeepTemporalSR, seed: int) -> DeepTemporalSR:
    """Return an untrained network of the same configuration and device, which interpolates."""
    fresh = DeepTemporalSR(network.config)
    generator = torch.Generator().manual_seed(seed)
    layers = [layer for layer in fresh.children() if isinstance(layer, nn.Conv3d)]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)
    with torch.no_grad():
        layers[0].weight -= layers[0].weight.mean((1, 2, 3, 4), keepdim=True)
    start_at_zero(layers[-1])
    return fresh.to(next(network.parameters()).device).eval()


@torch.no_grad()
def take_statistics(network: DeepTemporalSR, frames: Tensor) -> None:
    """Set the statistics of batch normalization to those over `frames`, (B, T, 3, h, w)."""
    norms = [layer for layer in network.children() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    network.train()(frames)
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


class _ResumedClock(Clock):
    """A clock that continues from the steps and seconds of a stopped run."""

    def __init__(self, budget: Budget, steps: int = 0, seconds: float = 0.0) -> None:
        super().__init__(budget)
        self.steps, self._seconds_before = steps, seconds

    @property
    def seconds(self) -> float:
        """Seconds of learning, those of the stopped run included."""
        return super().seconds + self._seconds_before


class _Run:
    """One training run, from its start or its last checkpoint to the end of its budget."""

    def __init__(self, network: DeepTemporalSR, method: ZeroShot, budget: Budget, seed: int, fingerprint: str) -> None:
        self.network, self._method, self._fingerprint = network, method, fingerprint
        *layers, last = network.children()
        groups = [
            {"params": [weight for layer in layers for weight in layer.parameters()], "share": 1.0},
            {"params": list(last.parameters()), "share": _LAST_LAYER},
        ]
        self._optimizer = torch.optim.Adam(groups, method.rate)
        self._generator = torch.Generator().manual_seed(seed)
        self.rate, self.losses, self.clock = AdaptiveRate(method.rate), Losses(), _ResumedClock(budget)
        self._device = next(network.parameters()).device
        if method.checkpoint and method.checkpoint.exists():
            self._resume(method.checkpoint, budget)

    def learn(self, examples: Examples, on_step: OnStep | None) -> None:
        """Run steps of Adam until the budget or the rate is used up, at least one in a new run."""
        if not self.clock.steps:
            take_statistics(self.network, examples.draw(_STATISTICS_BATCH, self._generator)[0].to(self._device))
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
        ramp = min(1.0, (self.clock.steps + 1) / _WARMUP_STEPS, (1 - self.clock.fraction()) / _COOLING)
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate.rate * ramp * group["share"]
        inputs, targets = (x.to(self._device) for x in examples.draw(self._method.batch, self._generator))
        interpolation = (upsample_cubic(inputs, 1, 2) - targets).square().mean()
        error = (self.network(inputs) - targets).square().mean()
        loss = (error + _NOISE) / (interpolation + _NOISE)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        return float(loss.detach())

    def _save(self) -> None:
        if not (path := self._method.checkpoint):
            return
        state = {
            "stamp": self._fingerprint,
            "steps": self.clock.steps,
            "seconds": self.clock.seconds,
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "generator": self._generator.get_state(),
            "rate": self.rate.state(),
            "losses": self.losses.values,
        }
        save(state, path)

    def _resume(self, path: Path, budget: Budget) -> None:
        state = read_checkpoint(path)
        if not isinstance(state, dict) or state.get("stamp") != self._fingerprint:
            raise AdaptationError(
                f"{path} is a checkpoint of another clip, network, seed or option: name another file or remove it."
            )
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._generator.set_state(state["generator"])
        self.rate.restore(state["rate"])
        self.losses = Losses(state["losses"])
        self.clock = _ResumedClock(budget, state["steps"], state["seconds"])
