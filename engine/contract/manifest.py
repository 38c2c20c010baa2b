"""The format of a bundle's `manifest.json`, as frozen pydantic models that allow no other fields.

Sizes and halos are in input pixels, value ranges in the units of the network, and factors are output over input.
"""

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    import numpy as np

FORMAT = 1
Role = Literal["encoder", "refiner", "decoder", "integer_decoder", "network"]
_OPTIONAL_ROLES = {"refiner", "integer_decoder"}  # of a pair
Precision = Literal["fp32", "tf32", "fp16"]
Library = Literal["tensorrt", "tensorrt-rtx"]

_FILE = r"^[\w\-][\w\-.]*$"  # a bare file name: a bundle cannot point outside its folder
_SHA256 = r"^[0-9a-f]{64}$"
# Limits far above every network: a manifest that states more would take all memory.
LARGEST_PX, LARGEST_FACTOR, LARGEST_WINDOW, LARGEST_VALUE = 4096, 64, 1024, 1e6
_LEAST_RANGE = 1e-6

Integer = Annotated[int, Field(ge=-(2**63), lt=2**63)]  # as C++ hosts have them
Pixels = Annotated[int, Field(ge=1, le=LARGEST_PX)]
Factor = Annotated[int, Field(ge=1, le=LARGEST_FACTOR)]
Value = Annotated[float, Field(ge=-LARGEST_VALUE, le=LARGEST_VALUE)]


class _Frozen(BaseModel):
    """Base class of the format's objects: immutable, no unknown fields, no type conversion, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class TensorSpec(_Frozen):
    """One input or output of a graph.

    An axis is a fixed size, the name of a free axis ("height"), a name with a factor or divisor ("4*height",
    "width/2"), or, of an output, a product of two names ("factor_y*height"); see `engine/contract/axes.py`.
    """

    name: str
    dtype: str  # NumPy's name, such as "float32"
    axes: tuple[str | Integer, ...]


class Graph(_Frozen):
    """One ONNX graph of a bundle, in a file beside the manifest, with its inputs and outputs in order."""

    role: Role
    file: str = Field(pattern=_FILE)
    sha256: str = Field(pattern=_SHA256)  # of the file
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class EngineSpec(_Frozen):
    """Everything that determines the contents of an engine: its graph, sizes, precision, GPU and library."""

    role: Role
    graph_sha256: str = Field(pattern=_SHA256)  # of the graph that is compiled
    precision: Precision
    shapes: dict[str, tuple[Integer, Integer, Integer]]  # smallest, usual and largest size of each free axis
    target: str = Field(pattern=r"^sm\d+$")  # compute capability of the GPU, such as "sm89"
    library: Library
    version: str  # of the library
    lowering: Integer  # version of the passes from graph to engine
    refit: bool = False  # whether its weights can be replaced while it is open
    plugins: bool = False  # whether it contains stvsr's own kernels


class Engine(EngineSpec):
    """A graph compiled for one kind of GPU, in a file beside the manifest.

    Its inputs and outputs are those of the graph with the same role.
    """

    file: str = Field(pattern=_FILE)
    sha256: str = Field(pattern=_SHA256)  # of the file


class PairWindow(_Frozen):
    """Two neighbouring frames, between which the network computes frames at times from 0 to 1."""

    kind: Literal["pair"] = "pair"
    frames: Literal[2] = 2


class RunWindow(_Frozen):
    """N neighbouring frames, which become 2N - 1: the network adds one frame in every gap."""

    kind: Literal["run"] = "run"
    frames: int = Field(ge=2, le=LARGEST_WINDOW)  # N


class SlidingWindow(_Frozen):
    """An odd number of frames, of which the network restores the middle one.

    `padding` selects the frames that fill a window beyond the ends of a scene. In a scene a b c d e, the window of five
    frames around a is a a a b c with "replicate", c b a b c with "reflection", and e d a b c with "reflection_circle",
    which takes the nearest frames that the window does not contain already.
    """

    kind: Literal["sliding"] = "sliding"
    frames: int = Field(ge=1, le=LARGEST_WINDOW)
    padding: Literal["replicate", "reflection", "reflection_circle"]


class DoubledWindow(_Frozen):
    """Any number of frames, each of which becomes two of half its duration.

    A long sequence is cut into pieces of `frames` frames, with up to `overlap` more on both sides: outputs nearer than
    `overlap` frames to a cut are not final. With a `coarse`, a power of two, the network's input is `coarse` times
    smaller than the frames, and its output is enlarged and made consistent with the frames by back-projection
    (`engine/pipeline/back_projection.py`).
    """

    kind: Literal["doubled"] = "doubled"
    frames: int = Field(ge=1, le=LARGEST_WINDOW)
    overlap: int = Field(ge=0, le=LARGEST_WINDOW)  # frames
    coarse: Factor | None = None


Window = PairWindow | RunWindow | SlidingWindow | DoubledWindow


class FlowInput(_Frozen):
    """A graph input for optical flows (B, pairs, 2, h, w), with one flow for each pair (from, to) of window frames.

    At each pixel of frame `from`, the flow (dx, dy) points to the position of the same content in frame `to`.
    """

    name: str
    pairs: tuple[tuple[int, int], ...] = Field(min_length=1)  # frame numbers in the window, from 0
    method: Literal["farneback", "dis"] = "farneback"  # the method that the engine uses by default
    unit: Literal["input pixels"] = "input pixels"
    components: Literal["dx, dy"] = "dx, dy"


class ContinuousSpace(_Frozen):
    """Any space factor from `minimum` to `maximum`, independently for height and width."""

    kind: Literal["continuous"] = "continuous"
    minimum: float = Field(gt=0, le=LARGEST_FACTOR)
    maximum: float = Field(gt=0, le=LARGEST_FACTOR)

    def serves(self, size_px: int, target_px: int) -> bool:
        """Return whether an axis of `size_px` can become `target_px`; targets may exceed the range by half a pixel."""
        return self.minimum * size_px - 0.5 <= target_px <= self.maximum * size_px + 0.5

    def __str__(self) -> str:
        return f"x{self.minimum:g} to x{self.maximum:g}"


class ContinuousTime(_Frozen):
    """Any time between two frames."""

    kind: Literal["continuous"] = "continuous"

    def __str__(self) -> str:
        return "any"


class FixedFactors(_Frozen):
    """A list of factors, in space or in time, with nothing between them."""

    kind: Literal["fixed"] = "fixed"
    factors: tuple[Factor, ...] = Field(min_length=1)

    def serves(self, size_px: int, target_px: int) -> bool:
        """Return whether an axis of `size_px` can become `target_px`."""
        return any(target_px == factor * size_px for factor in self.factors)

    def __str__(self) -> str:
        return ", ".join(f"x{factor}" for factor in self.factors)


class SizeConstraint(_Frozen):
    """The heights and widths that a network accepts: multiples of `multiple_of` from `minimum` on, in input pixels."""

    minimum: Pixels = 1
    multiple_of: Pixels = 1

    def padded(self, size_px: int) -> int:
        """Return the smallest accepted size that is at least `size_px`."""
        return math.ceil(max(size_px, self.minimum) / self.multiple_of) * self.multiple_of

    def pad(self, frame: "np.ndarray") -> "np.ndarray":  # (..., h, w) -> (..., h', w')
        """Repeat the last row and column of a frame up to the next accepted size; the top left corner stays."""
        import numpy as np  # the server reads manifests, and needs no NumPy

        h, w = frame.shape[-2:]
        rows, columns = self.padded(h) - h, self.padded(w) - w
        if not rows and not columns:
            return frame
        return np.pad(frame, [(0, 0)] * (frame.ndim - 2) + [(0, rows), (0, columns)], mode="edge")


class Architecture(_Frozen):
    """The name of a network in stvsr's registry, and the fields of its configuration dataclass."""

    name: str
    config: dict[str, Any]


class PrecisionLoss(_Frozen):
    """The difference between output frames in a lower precision and in float32, in shares of the value range.

    It was measured when the bundle was exported, on frames of noise with edges and motion.
    """

    p999: float = Field(ge=0)  # the 99.9th percentile of the differences
    largest: float = Field(ge=0)


class Manifest(_Frozen):
    """The contents of `manifest.json`."""

    format: int = Field(ge=FORMAT, le=FORMAT)
    name: str  # of the bundle
    architecture: Architecture
    # For a pair window an encoder and a decoder, and optionally a refiner between them, which computes what depends on
    # the time, and a faster decoder for integer space factors; else one network.
    graphs: tuple[Graph, ...]
    engines: tuple[Engine, ...] = ()
    window: Window = Field(discriminator="kind")  # the frames of one run of the network
    flows: tuple[FlowInput, ...] = ()
    space: ContinuousSpace | FixedFactors = Field(discriminator="kind")  # factors of height and width
    time: ContinuousTime | FixedFactors = Field(discriminator="kind")  # factors of the frame rate
    value_range: tuple[Value, Value]  # black and white, in the network's inputs and outputs
    channel_order: Literal["RGB"]
    size: SizeConstraint
    # Input pixels around a tile that affect its core; None: the network cannot be tiled.
    halo_px: int | None = Field(ge=0, le=LARGEST_PX)
    precisions: dict[Literal["tf32", "fp16"], PrecisionLoss] = {}
    training: dict[str, Any]  # how the weights were obtained: steps, parity with PyTorch, the record of an adaptation
    scores: dict[str, Any]  # results of `stvsr evaluate`
    licence: str  # of the weights

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        roles = sorted(graph.role for graph in self.graphs)
        pair = self.window.kind == "pair"
        expected = ["decoder", "encoder"] if pair else ["network"]
        if [role for role in roles if not (pair and role in _OPTIONAL_ROLES)] != expected or len({*roles}) < len(roles):
            raise ValueError(f"a window of kind '{self.window.kind}' takes the graphs {' and '.join(expected)}")
        if isinstance(self.window, SlidingWindow) and self.window.frames % 2 == 0:
            raise ValueError("a sliding window has an odd number of frames")
        if isinstance(self.window, DoubledWindow) and (coarse := self.window.coarse):
            if coarse & (coarse - 1):
                raise ValueError(f"the window's 'coarse' is a power of two (1, 2, 4, ...), not {coarse}")
            if self.space != FixedFactors(factors=(1,)):
                raise ValueError(f"the window's 'coarse' is for networks that keep the size, not for {self.space}")
        if not self._window_supports_time():
            raise ValueError(f"a window of kind '{self.window.kind}' does not support the time factors '{self.time}'")
        count = self.window.frames
        for flow in self.flows:
            if not all(0 <= number < count for pair in flow.pairs for number in pair):
                raise ValueError(f"the flows '{flow.name}' name frames outside the window of {count}")
        if isinstance(self.space, ContinuousSpace) and self.space.minimum > self.space.maximum:
            raise ValueError("the smallest space factor is larger than the largest")
        if self.value_range[1] - self.value_range[0] < _LEAST_RANGE:
            raise ValueError("the value range is empty")
        return self

    def tensors_of(self, role: Role) -> tuple[set[str], set[str]]:
        """Return the names of the inputs and of the outputs that the graph of a role has."""
        outputs = {graph.role: {spec.name for spec in graph.outputs} for graph in self.graphs}
        features = outputs.get("encoder", set())
        match role:
            case "encoder":
                return {"frames"}, features
            case "refiner":
                return {*features, "time"}, outputs[role]
            case "network":
                timed = {"time"} if isinstance(self.time, ContinuousTime) else set()
                return {"frames", *timed, *(flow.name for flow in self.flows)}, {"upscaled"}
            case _:
                return {*outputs.get("refiner", {*features, "time"}), "y", "x"}, {"frame"}

    def _window_supports_time(self) -> bool:
        match self.window.kind:
            case "pair":
                return True
            case "run":
                return isinstance(self.time, ContinuousTime) or self.time.factors == (2,)
            case "doubled":
                return isinstance(self.time, FixedFactors) and self.time.factors == (2,)
            case _:
                return isinstance(self.time, FixedFactors) and self.time.factors == (1,)
