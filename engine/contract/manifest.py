"""What a bundle's `manifest.json` says: frozen pydantic models, one field for each of the format's."""

import math
from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

FORMAT = 1
Role = Literal["encoder", "decoder", "network"]
Precision = Literal["fp32", "fp16"]
Library = Literal["tensorrt", "tensorrt-rtx"]


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


class Recipe(_Frozen):
    """All that an engine is built from and for."""

    role: Role
    graph_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    precision: Precision
    shapes: dict[str, tuple[int, int, int]]  # smallest, usual and largest size of each free axis
    target: str = Field(pattern=r"^sm\d+$")  # compute capability
    library: Library
    version: str  # of the library
    lowering: int  # of the passes between graph and engine
    refit: bool = False  # whether its weights can be replaced while it is open
    plugins: bool = False  # whether it holds stvsr's own kernels


class Engine(Recipe):
    """A graph compiled for one GPU, in a file beside the manifest; inputs and outputs are the graph's."""

    file: str = Field(pattern=r"^[\w\-][\w\-.]*$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class PairWindow(_Frozen):
    """Two frames, of which the network makes frames at times 0 to 1."""

    kind: Literal["pair"] = "pair"
    frames: Literal[2] = 2


class RunWindow(_Frozen):
    """Neighbouring frames, to which the network adds one in every gap: N become 2N - 1."""

    kind: Literal["run"] = "run"
    frames: int = Field(ge=2)


class SlidingWindow(_Frozen):
    """An odd number of frames around the one that the network restores; `padding` stands in beyond the ends.

    Of the frames a b c d e, restored around a with two on each side, "replicate" sees a a a b c, "reflection"
    c b a b c, and "reflection_circle" the next that the window does not hold: e d a b c.
    """

    kind: Literal["sliding"] = "sliding"
    frames: int = Field(ge=1)
    padding: Literal["replicate", "reflection", "reflection_circle"]


class DoubledWindow(_Frozen):
    """Any number of frames, each of which becomes two of half its duration.

    `frames` is how many are fed at once; results nearer than `overlap` frames to an end where the sequence was cut are
    not final. With a `coarse`, a power of two, the network is to see frames so many times smaller, and what it makes is
    enlarged and made to agree with its input by back-projection (`engine/back_projection.py`).
    """

    kind: Literal["doubled"] = "doubled"
    frames: int = Field(ge=1)
    overlap: int = Field(ge=0)
    coarse: PositiveInt | None = None


Window = PairWindow | RunWindow | SlidingWindow | DoubledWindow


class FlowInput(_Frozen):
    """An input of a graph that takes optical flows, (B, pairs, 2, h, w): one for each (from, to) of the window.

    A flow says for each pixel of one frame where it lies in the other: (dx, dy) in input pixels.
    """

    name: str
    pairs: tuple[tuple[int, int], ...] = Field(min_length=1)
    method: Literal["farneback", "dis"] = "farneback"
    unit: Literal["input pixels"] = "input pixels"
    components: Literal["dx, dy"] = "dx, dy"


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
    """Any time between two frames."""

    kind: Literal["continuous"] = "continuous"

    def __str__(self) -> str:
        return "any"


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
    """The frame sizes that a network takes, in input pixels."""

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
    engines: tuple[Engine, ...] = ()
    window: Window = Field(discriminator="kind")
    flows: tuple[FlowInput, ...] = ()
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
        needed = ["decoder", "encoder"] if self.window.kind == "pair" else ["network"]
        if roles != needed:
            raise ValueError(f"a window of kind '{self.window.kind}' takes the graphs {' and '.join(needed)}")
        if isinstance(self.window, SlidingWindow) and self.window.frames % 2 == 0:
            raise ValueError("a sliding window has an odd number of frames")
        if isinstance(self.window, DoubledWindow) and (coarse := self.window.coarse):
            if coarse & (coarse - 1):
                raise ValueError(f"frames are made 1, 2, 4, ... times smaller, not {coarse}")
            if self.space != FixedFactors(factors=(1,)):
                raise ValueError(f"back-projection is for networks that keep the size, not for {self.space}")
        if not self._time_suits():
            raise ValueError(f"a window of kind '{self.window.kind}' does not make frames in time by {self.time}")
        places = self.window.frames
        for flow in self.flows:
            if not all(0 <= place < places for pair in flow.pairs for place in pair):
                raise ValueError(f"the flows '{flow.name}' name frames outside the window of {places}")
        if isinstance(self.space, ContinuousSpace) and self.space.minimum > self.space.maximum:
            raise ValueError("the smallest space factor is larger than the largest")
        if self.value_range[0] >= self.value_range[1]:
            raise ValueError("the value range is empty")
        return self

    def _time_suits(self) -> bool:
        match self.window.kind:
            case "pair":
                return True
            case "run":
                return isinstance(self.time, ContinuousTime) or self.time.factors == (2,)
            case "doubled":
                return isinstance(self.time, FixedFactors) and self.time.factors == (2,)
            case _:
                return isinstance(self.time, FixedFactors) and self.time.factors == (1,)
