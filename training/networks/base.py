"""The base of every network: frames in, frames out, and what a host must know to feed it."""

from typing import Any

from torch import Tensor, nn

from ...engine.contract.manifest import (
    ContinuousSpace,
    ContinuousTime,
    FixedFactors,
    FlowInput,
    SizeConstraint,
    Window,
)


class Network(nn.Module):
    """What training, export and the engine ask of a network.

    ``forward`` takes frames (B, N, 3, h, w), RGB in [0, 1], then each of ``flows`` as (B, P, 2, h, w), (dx, dy) in
    input pixels, then, if its time is continuous, a time (B,) from 0 to 1; it returns (B, M, 3, s * h, s * w), not
    clamped. M is 2N - 1 for a run, 1 for a sliding window and 2N for a doubled one. A network of a pair of frames has
    ``encode`` and ``decode`` in its place.
    """

    config: Any  # the frozen dataclass that it was built from
    window: Window
    space: ContinuousSpace | FixedFactors = FixedFactors(factors=(4,))
    time: ContinuousTime | FixedFactors = FixedFactors(factors=(1,))
    flows: tuple[FlowInput, ...] = ()
    size: SizeConstraint = SizeConstraint(minimum=2)  # input pixels
    halo_px: int | None = None  # input pixels around a tile that its middle depends on; None: it cannot be tiled

    ignored: tuple[str, ...] = ()  # beginnings of names that official checkpoints may hold and that nothing reads
    constants: tuple[str, ...] = ()  # names of what is the same in every checkpoint, and may be absent from one

    def aliases(self) -> dict[str, str]:
        """Other names that official checkpoints have for weights: other name -> name in the state dict."""
        return {}

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """Frames, flows and time -> frames."""
        raise NotImplementedError
