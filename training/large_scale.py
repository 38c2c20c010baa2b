"""Large-scale training of Ada-VSR's modules, each by itself (Gupta et al. 2021, equations 1 and 2).

F is trained at the size at which it runs, before S: on frames that bicubic resizing has made four times smaller. Each
step draws by its own seed, so that a run that was stopped goes on as if it had not been.
"""

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .data import Batch, ClipSampler, Sampling, shrunk
from .networks.adavsr import TemporalModule
from .networks.base import Network
from .trainer import Trainer, made_frames

Clips = list[NDArray[np.uint8]]


class StepSampler(ClipSampler):
    """Draws the batch of step ``step``, then of the next, whatever was drawn before."""

    def __init__(self, clips: Clips, network: Network, sampling: Sampling, seed: int, step: int) -> None:
        super().__init__(clips, network, sampling, seed)
        self.seed, self.step = seed, step

    def batch(self) -> Batch:
        """As `ClipSampler.batch`."""
        self.random = np.random.default_rng((self.seed, self.step))
        self.step += 1
        return super().batch()


class ModuleTrainer(Trainer):
    """Trains F or S by its mean absolute error; F on clips made small, which it is judged on too."""

    def _sampler(self, clips: Clips) -> ClipSampler:
        return StepSampler(self._sized(clips), self.network, self.sampling, self.schedule.seed, self.step)

    def _loss(self, batch: Batch) -> Tensor:
        inputs, truth = [x.to(self.device) for x in batch.inputs], batch.truth.to(self.device)
        return F.l1_loss(made_frames(self.network, inputs, truth.shape[-2:]), truth)

    def validate(self, clips: Clips, scale: int = 4, windows: int = 4) -> dict[str, float]:
        """As `Trainer.validate`."""
        return super().validate(self._sized(clips), scale, windows)

    def _sized(self, clips: Clips) -> Clips:
        """Clips of the size at which the module meets them as its truth."""
        if not isinstance(self.network, TemporalModule):
            return clips
        return [small_clip(clip) for clip in clips]


def small_clip(clip: NDArray[np.uint8], factor: int = 4) -> NDArray[np.uint8]:
    """A clip made small by bicubic resizing, a frame at a time. (N, H, W, 3) -> (N, H // factor, W // factor, 3)"""
    height, width = (side // factor for side in clip.shape[1:3])
    return np.concatenate(
        [shrunk(frame[None, : height * factor, : width * factor] / np.float32(255), (height, width)) for frame in clip]
    )
