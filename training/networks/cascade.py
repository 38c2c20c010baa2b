"""Both modules of Ada-VSR as one network, which adapts as one."""

from collections.abc import Mapping

from torch import Tensor

from ...engine.contract.manifest import FixedFactors, RunWindow
from .adavsr import SpatialModule, TemporalModule, enlarge_video
from .base import Network


class AdaVSR(Network):
    """S after F (Gupta et al. 2021): a run of N frames -> 2N - 1 frames, four times as large.

    Its weights are those of the modules, under ``temporal.`` and ``spatial.``.
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
        """(B, N, 3, h, w) in [0, 1], N of 2 or more -> (B, 2N - 1, 3, 4h, 4w), not clamped."""
        return enlarge_video(self.spatial, self.temporal(frames))


def weights_of(part: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of one module, "temporal" or "spatial", under the names that it has for them."""
    return {name.removeprefix(f"{part}."): value for name, value in weights.items() if name.startswith(f"{part}.")}
