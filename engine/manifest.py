"""What a bundle's `manifest.json` says: frozen pydantic models, one field for each of the format's."""

import math
from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

FORMAT = 1
Role = Literal["encoder", "decoder", "network"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class TensorSpec(_Frozen):
    """One input or output of a graph; an axis is a fixed size or the name of a free one, such as "B" or "h"."""

    name: str
    dtype: str
    axes: tuple[str | int, ...]


class Graph(_Frozen):
    """One graph of a bundle, beside the manifest, and what it takes and gives."""

    role: Role
    file: str = Field(pattern=r"^[\w\-][\w\-.]*$")  # a bare name: a bundle cannot point outside its folder
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Window(_Frozen):
    """The frames that one run of the network sees: a pair, of which it makes frames at times 0 to 1."""

    kind: Literal["pair"]
    frames: Literal[2]


class ContinuousSpace(_Frozen):
    """Any factor from `minimum` to `maximum`, each axis for itself."""

    kind: Literal["continuous"] = "continuous"
    minimum: float = Field(gt=0)
    maximum: float = Field(gt=0)

    def serves(self, size_px: int, target_px: int) -> bool:
        """Whether an axis of `size_px` can become `target_px`; a target within half a pixel of the range counts."""
        return self.minimum * size_px - 0.5 <= target_px <= self.maximum * size_px + 0.5

    def __str__(self) -> str:
        return f"x{self.minimum:g} to x{self.maximum:g}"


class ContinuousTime(_Frozen):
    """Any time between the two frames of a window."""

    kind: Literal["continuous"] = "continuous"


class FixedFactors(_Frozen):
    """Only these factors, in space or in time."""

    kind: Literal["fixed"] = "fixed"
    factors: tuple[PositiveInt, ...] = Field(min_length=1)

    def serves(self, size_px: int, target_px: int) -> bool:
        """Whether an axis of `size_px` can become `target_px`."""
        return any(target_px == factor * size_px for factor in self.factors)

    def __str__(self) -> str:
        return ", ".join(f"x{factor}" for factor in self.factors)


class SizeConstraint(_Frozen):
    """The sizes a network takes, in input pixels: the one place that pads and crops."""

    minimum: PositiveInt = 1
    multiple_of: PositiveInt = 1

    def padded(self, size_px: int) -> int:
        """Return the least size that the network takes and that holds `size_px`."""
        return math.ceil(max(size_px, self.minimum) / self.multiple_of) * self.multiple_of

    def pad(self, frame: np.ndarray) -> np.ndarray:  # (..., h, w) -> (..., h', w')
        """Repeat the last row and column until the network takes the frame; the origin stays where it is."""
        h, w = frame.shape[-2:]
        rows, columns = self.padded(h) - h, self.padded(w) - w
        if not rows and not columns:
            return frame
        return np.pad(frame, [(0, 0)] * (frame.ndim - 2) + [(0, rows), (0, columns)], mode="edge")

    def crop(self, frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:  # (..., h', w') -> (..., h, w)
        """Take the padding off a result; `size` is (h, w) of what was padded, times the result's factor."""
        return frame[..., : size[0], : size[1]]


class Architecture(_Frozen):
    """The network's name among stvsr's networks, and the dataclass that configured it."""

    name: str
    config: dict[str, Any]


class Manifest(_Frozen):
    """What `manifest.json` says; every field of the format is here and no other is allowed."""

    format: Literal[1]  # FORMAT
    name: str
    architecture: Architecture
    graphs: tuple[Graph, ...]
    window: Window
    space: ContinuousSpace | FixedFactors = Field(discriminator="kind")
    time: ContinuousTime | FixedFactors = Field(discriminator="kind")
    value_range: tuple[float, float]
    channel_order: Literal["RGB"]
    size: SizeConstraint
    halo_px: int | None = Field(ge=0)  # input pixels; None: this network cannot be tiled
    training: dict[str, Any]
    scores: dict[str, Any]
    licence: str

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        roles = sorted(graph.role for graph in self.graphs)
        if roles not in (["decoder", "encoder"], ["network"]):
            raise ValueError("a bundle has one graph 'network', or one 'encoder' and one 'decoder'")
        if isinstance(self.space, ContinuousSpace) and self.space.minimum > self.space.maximum:
            raise ValueError("the smallest space factor is larger than the largest")
        if self.value_range[0] >= self.value_range[1]:
            raise ValueError("the value range is empty")
        return self
