"""Large-scale training of Ada-VSR's modules, each on its own (Gupta et al. 2021, equations 1 and 2).

The temporal module F trains at the size at which it later runs, before the spatial module S: on frames that bicubic
resizing has made four times smaller.
"""

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .compressed_clips import small_clip
from .data import Batch, ClipSampler
from .inference import run_network
from .networks.adavsr import TemporalModule
from .trainer import Trainer

Clips = list[NDArray[np.uint8]]


class ModuleTrainer(Trainer):
    """Trains F or S by its mean absolute error; F trains and is validated on downscaled clips."""

    draws_on_device = False

    def _sampler(self, clips: Clips) -> ClipSampler:
        run = self.run
        return ClipSampler(self._resized(clips), self.network, run.sampling, run.schedule.seed)

    def _loss(self, batch: Batch, auxiliary: Tensor) -> Tensor:
        return F.l1_loss(run_network(self.network, batch.inputs, batch.truth.shape[-2:]), batch.truth)

    def validate(self, clips: Clips) -> dict[str, float]:
        """Return the scores of the averaged weights as `Trainer.validate` does."""
        return super().validate(self._resized(clips))

    def _resized(self, clips: Clips) -> Clips:
        """Return clips at the size of the module's output."""
        if not isinstance(self.network, TemporalModule):
            return clips
        return [small_clip(clip) for clip in clips]
