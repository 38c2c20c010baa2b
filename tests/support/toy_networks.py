"""The smallest networks of every kind of window, and short runs of them, for tests of training."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stvsr.engine.contract.manifest import (
    ContinuousTime,
    DoubledWindow,
    FixedFactors,
    FlowInput,
    RunWindow,
    SizeConstraint,
    SlidingWindow,
    Window,
)
from stvsr.training.data import Sampling
from stvsr.training.networks.adavsr import SpatialModule, SpatialModuleConfig, TemporalModule, TemporalModuleConfig
from stvsr.training.networks.base import Network
from stvsr.training.networks.cascade import AdaVSR
from stvsr.training.networks.videoinr_s import VideoINRSConfig
from stvsr.training.run import Schedule, TrainingRun
from torch import Tensor, nn
from torch.nn import functional as F

from tests.support.paths import SAMPLE

TINY_PAIR = VideoINRSConfig(width=8, encoder_blocks=1, trunk_blocks=1, decoder_width=8)
TINY_TEMPORAL, TINY_SPATIAL = TemporalModuleConfig(width=2, blocks=1), SpatialModuleConfig(width=2, blocks=1)
QUICK = Sampling(patch=16, batch=2)


def tiny_adavsr() -> AdaVSR:
    """Return Ada-VSR with random weights: both modules do more than interpolate.

    The inputs of its rectifiers are far from 0, where their gradient jumps.
    """
    torch.manual_seed(0)
    network = AdaVSR(TemporalModule(TINY_TEMPORAL), SpatialModule(TINY_SPATIAL))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return network


class ToyNetwork(Network):
    """Mixes all inputs by one convolution, and enlarges the result by repetition.

    The convolution has two names in the state dict, and batch normalization adds buffers to it.
    """

    def __init__(
        self,
        window: Window,
        scale: int = 1,
        time: FixedFactors | ContinuousTime = FixedFactors(factors=(1,)),  # noqa: B008
        flows: tuple[FlowInput, ...] = (),
    ) -> None:
        super().__init__()
        self.window, self.space, self.time, self.flows = window, FixedFactors(factors=(scale,)), time, flows
        self.size = SizeConstraint(minimum=2, multiple_of=4 if scale > 1 else 1)
        self.scale = scale
        n = window.frames
        self.outputs = {"run": 2 * n - 1, "sliding": 1, "doubled": 2 * n}[window.kind]
        channels = 3 * n + sum(2 * len(f.pairs) for f in flows) + isinstance(time, ContinuousTime)
        self.norm = nn.BatchNorm2d(channels)
        self.mix = nn.Conv2d(channels, 3 * self.outputs, 3, padding=1)
        self.again = self.mix

    def forward(self, frames: Tensor, *others: Tensor) -> Tensor:
        B, _, _, h, w = frames.shape
        flows = others[: len(self.flows)]
        assert [f.shape for f in flows] == [(B, len(f.pairs), 2, h, w) for f in self.flows]
        planes = [frames.flatten(1, 2), *(f.flatten(1, 2) for f in flows)]
        if isinstance(self.time, ContinuousTime):
            planes.append(others[-1].view(B, 1, 1, 1).expand(B, 1, h, w))
        mixed = F.interpolate(self.mix(self.norm(torch.cat(planes, 1))), scale_factor=self.scale)
        return mixed.unflatten(1, (self.outputs, 3))


class RepeatNetwork(ToyNetwork):
    """Repeats every input frame until the next one."""

    def forward(self, frames: Tensor, *others: Tensor) -> Tensor:
        large = F.interpolate(frames.flatten(0, 1), scale_factor=self.scale).unflatten(0, frames.shape[:2])
        if self.window.kind == "sliding":
            return large[:, self.window.frames // 2 :][:, :1]
        twice = large.repeat_interleave(2, 1)
        return twice if self.window.kind == "doubled" else twice[:, :-1]


FLOWS = (
    FlowInput(name="there", pairs=((0, 1), (0, 2)), method="dis"),
    FlowInput(name="back", pairs=((1, 0),), method="dis"),
)
TOYS: dict[str, tuple] = {  # arguments of ToyNetwork
    "run": (RunWindow(frames=3), 4, FixedFactors(factors=(2,))),
    "run at a time": (RunWindow(frames=2), 2, ContinuousTime()),
    "run with flows": (RunWindow(frames=3), 2, FixedFactors(factors=(2,)), FLOWS),
    "sliding": (SlidingWindow(frames=5, padding="replicate"), 4),
    "sliding with flows": (SlidingWindow(frames=3, padding="replicate"), 4, FixedFactors(factors=(1,)), FLOWS),
    "doubled": (DoubledWindow(frames=4, overlap=1), 1, FixedFactors(factors=(2,))),
}


def brightness_flow(first: NDArray[np.uint8], second: NDArray[np.uint8], method: str) -> NDArray[np.float32]:
    """Return a constant flow, the difference in mean brightness, so that tests recognize its frames."""
    assert first.dtype == second.dtype == np.uint8
    assert method == "dis"
    return np.full((2, *first.shape[:2]), first.mean() / 255 - second.mean() / 255, np.float32)


def numbered_clip(count: int) -> NDArray[np.uint8]:
    """Return a clip whose frames are twice as bright as their numbers, so that means of two are whole."""
    return 2 * np.arange(count, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 96, 96, 3), np.uint8)


def quick_run(folder: Path, schedule: Schedule | None = None, **options: Any) -> TrainingRun:
    """Return a run on the sample clip."""
    return TrainingRun(SAMPLE.parent, folder, schedule=schedule or Schedule(), **{"sampling": QUICK, **options})
