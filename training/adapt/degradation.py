"""The degradation that a network learns to undo: how large frames became the frames of a clip."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..compression import compress
from ..resize import to_uint8
from .blur import kernel_moments
from .compression_estimation import lost_levels
from .correction import corrected
from .pseudo import Degrade, bicubic, blurring
from .sampling import LUMA


@dataclass(frozen=True, eq=False)
class Degradation:
    """Frames are shrunk by a blur kernel, or by bicubic resizing; then noise is added; then they are compressed."""

    kernel: Tensor | None = None  # (side, side), as `blur.shrink` takes it; None: bicubic resizing
    noise: float = 0.0  # standard deviation of white noise in red, green and blue, in grey levels of 255
    crf: int | None = None  # of x264; None: not compressed
    kernel_factor: int | None = None  # by which the kernel shrinks, see `blurring`; None: any

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of what differs from bicubic resizing: "blur", "noise", "compression"."""
        given = {"blur": self.kernel is not None, "noise": self.noise > 0, "compression": self.crf is not None}
        return tuple(name for name, is_given in given.items() if is_given)

    def degrader(self, seed: int = 0) -> Degrade:
        """Return the degradation as a function of frames (N, 3, H, W) in [0, 1] and a factor.

        Its noise is drawn from a generator of its own: the same seed and calls give the same frames. Compressed frames
        are N neighbours of one clip.
        """
        shrunk = bicubic if self.kernel is None else blurring(self.kernel, self.kernel_factor)
        if not self.noise and self.crf is None:
            return shrunk
        generator = torch.Generator().manual_seed(seed)

        def degrade(frames: Tensor, factor: int) -> Tensor:
            small = shrunk(frames, factor)
            if self.noise:
                noise = torch.randn(small.shape, generator=generator).to(small)
                small = small + noise * (self.noise / 255)
            return small if self.crf is None else _compressed(small, self.crf)

        return degrade

    def corrector(self) -> Degrade | None:
        """Return the function that takes most of the blur from the clip's frames (`corrected`), or None without blur.

        It leaves what is weaker than noise and what compression took away.
        """
        if self.kernel is None:
            return None
        kernel = self.kernel
        noise = math.hypot(self.noise * math.hypot(*LUMA), 0.0 if self.crf is None else lost_levels(self.crf))

        def correct(frames: Tensor, factor: int) -> Tensor:
            return corrected(frames, kernel, factor, noise)

        return correct

    def without_losses(self) -> "Degradation":
        """Return the part of the degradation that is linear: without noise and compression."""
        return replace(self, noise=0.0, crf=None)

    def record(self) -> dict[str, Any]:
        """Return the degradation as JSON values."""
        record: dict[str, Any] = {"parts": list(self.parts)}
        if self.kernel is not None:
            widths, angle = kernel_moments(self.kernel)
            record |= {"kernel_widths_px": [round(width, 3) for width in widths], "kernel_angle": round(angle, 3)}
        if self.noise:
            record["noise"] = round(self.noise, 2)
        if self.crf is not None:
            record["crf"] = self.crf
        return record


def _compressed(frames: Tensor, crf: int) -> Tensor:
    pictures: Sequence[np.ndarray] = [to_uint8(frame.permute(1, 2, 0).cpu().numpy()) for frame in frames.clamp(0, 1)]
    decoded = np.stack(list(compress(pictures, crf, preset="veryfast")))
    return torch.from_numpy(decoded).permute(0, 3, 1, 2).to(frames) / 255
