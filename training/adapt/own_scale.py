"""Measures of restored frames at their own scale, without any truth: noise, ringing, and the power of fine structure.

Undoing a blur that the clip has brings fine structure back, and edges ring more as it does. Where the clip does not
have the blur, fine structure was there before, and becomes stronger than natural pictures have it.
"""

from dataclasses import asdict, dataclass

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from .blur_estimation import PATCH_PX, mean_spectrum
from .noise_estimation import flat_noise
from .sampling import grey_levels

_COARSE, _FINE = (0.06, 0.12), (0.12, 0.3)  # cycles a pixel of the large frames


@dataclass(frozen=True)
class Looks:
    """Measures of restored frames at their own scale.

    `noise`: standard deviation of the finest structure in the flattest blocks, in grey levels. `ringing`: mean excess
    over the range of the surrounding pixels of the input, over the mean of that range. `fine_db`: power of fine
    structure over that of coarse structure, in dB.
    """

    noise: float
    ringing: float
    fine_db: float

    def record(self) -> dict[str, float]:
        """Return the measures as JSON values."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def looks_of(restored: Tensor, inputs: Tensor) -> Looks | None:
    """Measure restored frames, (N, 3, H, W) in [0, 1], and the inputs that they were restored from, (N, 3, h, w).

    H and W are a multiple of h and w. Returns None for frames that are too small to be measured.
    """
    if min(restored.shape[-2:]) < PATCH_PX:
        return None
    noise = flat_noise(grey_levels(restored))
    return Looks(noise, _ringing(restored, inputs.to(restored)), fine_structure_db(restored))


def fine_structure_db(frames: Tensor) -> float:
    """Return the power of fine structure over that of coarse structure, in dB, of frames (N, 3, H, W)."""
    power = mean_spectrum(frames)
    frequency = np.hypot(np.fft.fftfreq(PATCH_PX)[:, None], np.fft.rfftfreq(PATCH_PX)[None])
    coarse, fine = (float(power[(frequency >= low) & (frequency < high)].mean()) for low, high in (_COARSE, _FINE))
    return float(10 * np.log10((fine + 1e-12) / (coarse + 1e-12)))


def _ringing(large: Tensor, small: Tensor) -> float:
    scale = large.shape[-1] // small.shape[-1]
    padded = F.pad(small, (1, 1, 1, 1), mode="replicate")
    highest, lowest = F.max_pool2d(padded, 3, 1), -F.max_pool2d(-padded, 3, 1)
    spread = float((highest - lowest).mean())
    above, below = (F.interpolate(bound, scale_factor=scale, mode="nearest") for bound in (highest, lowest))
    excess = (large - above).clamp(min=0) + (below - large).clamp(min=0)
    return float(excess.mean()) / max(spread, 1e-3)
