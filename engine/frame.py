"""One decoded picture with its place in time."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture, shown from `pts` for `duration`."""

    rgb: np.ndarray  # (3, H, W) float32, gamma-coded RGB in [0, 1]
    pts: Fraction  # seconds on the stream's own clock
    duration: Fraction  # seconds until the next frame
