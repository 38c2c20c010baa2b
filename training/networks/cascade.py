"""Both modules of Ada-VSR as one network, so that they adapt together.

Gupta et al., "Ada-VSR: Adaptive Video Super-Resolution with Meta-Learning", ACM Multimedia 2021; `adavsr.py` defines
the modules.
"""

from collections.abc import Mapping

from torch import Tensor

from ...engine.contract.manifest import FixedFactors, RunWindow
from .adavsr import SpatialModule, TemporalModule, enlarge_video
from .base import Network


class AdaVSR(Network):
    """The spatial module applied to the output of the temporal module.

    A run of N frames becomes 2N - 1 frames of four times the size. The state dict contains the modules' weights, with
    the prefixes `temporal.` and `spatial.`.
    """

    window = RunWindow(frames=4)
    space = FixedFactors(factors=(4,))
    time = FixedFactors(factors=(2,))

    def __init__(self, temporal: TemporalModule, spatial: SpatialModule) -> None:
        super().__init__()
        self.temporal, self.spatial = temporal, spatial
        self.config = (temporal.config, spatial.config)
        assert temporal.halo_px is not None
        assert spatial.halo_px is not None
        self.halo_px = temporal.halo_px + spatial.halo_px

    def forward(self, frames: Tensor) -> Tensor:
        """`(B, N, 3, h, w)` in [0, 1], N >= 2 -> `(B, 2N - 1, 3, 4h, 4w)`, not clamped"""
        return enlarge_video(self.spatial, self.temporal(frames))


def weights_of(part: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of one module, "temporal" or "spatial", without its prefix."""
    return {name.removeprefix(f"{part}."): value for name, value in weights.items() if name.startswith(f"{part}.")}
