"""The base of every network: frames in, frames out, and what a host must know to feed it."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn


@dataclass(frozen=True)
class Window:
    """What one run of a network sees.

    pair     two frames, of which it makes frames at any times between them
    run      ``frames`` neighbours, to which it adds a frame in every gap: N become 2N - 1
    sliding  ``frames`` around the one that it restores; beyond the ends ``padding`` says which frames stand in
    doubled  any number of frames, each of which becomes two; those nearer than ``overlap`` to a cut end are not final.
             It is to see frames ``coarse`` times smaller, and back-projection makes what it makes agree with them
    """

    kind: Literal["pair", "run", "sliding", "doubled"]
    frames: int
    padding: Literal["replicate", "reflection", "reflection_circle"] | None = None
    overlap: int | None = None
    coarse: int | None = None


@dataclass(frozen=True)
class Fixed:
    """Only these factors, in space or in time."""

    factors: tuple[int, ...]


@dataclass(frozen=True)
class Continuous:
    """Any factor in space from minimum to maximum; in time any moment between two frames."""

    minimum: float = 0.0
    maximum: float = 1.0


@dataclass(frozen=True)
class FlowInput:
    """An input of optical flows: for each pair (from, to) of places in the window one flow, in this order."""

    name: str
    pairs: tuple[tuple[int, int], ...]
    method: Literal["farneback", "dis"] = "farneback"


class Network(nn.Module):
    """What training, export and the engine ask of a network.

    ``forward`` takes frames (B, N, 3, h, w), RGB in [0, 1], then each of ``flows`` as (B, P, 2, h, w), (dx, dy) in
    input pixels, then, if its time is continuous, a time (B,) from 0 to 1; it returns (B, M, 3, s * h, s * w), not
    clamped. M is 2N - 1 for a run, 1 for a sliding window and 2N for a doubled one. A network of a pair of frames has
    ``encode`` and ``decode`` in its place.
    """

    config: Any  # the frozen dataclass that it was built from
    window: Window
    space: Fixed | Continuous = Fixed((4,))
    time: Fixed | Continuous = Fixed((1,))
    flows: tuple[FlowInput, ...] = ()
    size_minimum = 2  # input pixels
    size_multiple = 1
    halo_px: int | None = None  # input pixels around a tile that its middle depends on; None: it cannot be tiled

    ignored: tuple[str, ...] = ()  # beginnings of names that official checkpoints may hold and that nothing reads
    constants: tuple[str, ...] = ()  # names of what is the same in every checkpoint, and may be absent from one

    def aliases(self) -> dict[str, str]:
        """Other names that official checkpoints have for weights: other name -> name in the state dict."""
        return {}

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """Frames, flows and time -> frames."""
        raise NotImplementedError
