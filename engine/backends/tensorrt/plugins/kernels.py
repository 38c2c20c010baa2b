"""What each plugin is: its tensors and attributes, the shape of its output, and the launch of its kernel.

Sizes are numbers, or expressions of TensorRT whose numbers are known when an engine runs: both know + - * and //.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .....kernels import launcher as module
from .....kernels.deform_conv import DeformConv
from .....kernels.videoinr_decoder import DecoderWeights, launch_of
from .....kernels.warp import CHUNK, launch_planes
from ....contract.errors import BackendError
from .ptx import Entry, entry

Shape = Sequence[Any]
Attributes = Mapping[str, Any]

NAMESPACE = "stvsr"
FEATURES = "FP32|FP16"  # the same of the two for all of a plugin's tensors of this kind
Pair = NDArray[np.int32]  # rows, columns
_SHARED_BYTES = 48 << 10  # that a kernel has without being allowed more
_FARTHEST = "3.402823466e+38f"


class Call(NamedTuple):
    """How a kernel is compiled and launched; `integers` are its own parameters, `head` is C++ that defines others."""

    defines: module.Defines
    launch: module.Launch
    integers: Mapping[str, Any]
    head: str = ""


class Kernel(NamedTuple):
    """A kernel whose arguments are the inputs, these integers, and the output."""

    entry: Entry
    launch: module.Launch
    integers: tuple[Any, ...]


@dataclass(frozen=True)
class Plugin:
    """A plugin of one output, over one kernel of `kernels/SOURCE.cu`; types are TensorRT's names."""

    name: str
    source: str
    function: str
    inputs: Mapping[str, str]  # the kernel's names -> types
    output: tuple[str, str]
    attributes: Mapping[str, Any]  # names -> types in Python
    shape: Callable[[Sequence[Shape], Attributes], Shape]  # of the output, from those of the inputs
    call: Callable[[Sequence[Shape], Attributes, Any], Call]  # for a NumPy type of the features
    declared: Mapping[str, str] = field(default_factory=dict)  # inputs that the kernel has not, in C++

    @property
    def types(self) -> str:
        """Types of inputs and output, as AutoTuneCombination takes them."""
        return ", ".join((*self.inputs.values(), self.output[1]))

    def kernel(self, shapes: Sequence[Shape], attributes: Attributes, dtype: Any) -> Kernel:
        """Return the kernel for inputs of these shapes; BackendError where a plugin cannot have it."""
        call = self.call(shapes, attributes, dtype)
        if call.launch.shared_bytes > _SHARED_BYTES:
            raise BackendError(
                f"The plugin {self.name} would need {call.launch.shared_bytes} bytes of shared memory and can have"
                f" {_SHARED_BYTES}: compile without plugins."
            )
        inputs = (self.declared.get(name, name) for name in self.inputs)
        made = entry(self.source, self.function, (*inputs, *call.integers, self.output[0]), call.head, call.defines)
        return Kernel(made, call.launch, tuple(call.integers.values()))


class _Size:
    """A size as the launch functions of the kernels take it: in them -(-a // b) is a / b, rounded up."""

    def __init__(self, value: Any, negative: bool = False) -> None:
        self.value, self.negative = value, negative

    def __neg__(self) -> "_Size":
        return _Size(self.value, not self.negative)

    def __mul__(self, other: Any) -> "_Size":
        if isinstance(other, _Size):
            return _Size(self.value * other.value, self.negative != other.negative)
        return _Size(self.value * other, self.negative)

    def __floordiv__(self, count: int) -> "_Size":
        return _Size((self.value + (count - 1 if self.negative else 0)) // count, self.negative)


def _launch(made_of: Callable[..., module.Launch], *arguments: Any, **grid: int) -> module.Launch:
    """Call a launch function of the kernels; `grid` says which of its sizes x, y, z are others here."""
    launch = made_of(*arguments)
    sizes = (size.value if isinstance(size, _Size) else size for size in launch.grid)
    x, y, z = (grid.get(axis, size) for axis, size in zip("xyz", sizes, strict=True))
    return launch._replace(grid=(x, y, z))


def _deform_conv2d(shapes: Sequence[Shape], attributes: Attributes, dtype: Any) -> Call:
    x, _, offset = shapes[:3]
    plain = {key: tuple(map(int, value)) if np.ndim(value) else int(value) for key, value in attributes.items()}
    conv = DeformConv(**plain)  # type: ignore[arg-type]
    # The weight is packed before its type is chosen: in blocks of rows as float32 has them.
    packed_rows = conv.row_blocks(np.float32) * conv.rows(np.float32)
    rows = conv.rows(dtype) if packed_rows % conv.rows(dtype) == 0 else conv.rows(np.float32)
    sizes = (_Size(x[0]), _Size(offset[2]), _Size(offset[3]))
    integers = {"channels": conv.in_channels, "height": x[2], "width": x[3]}
    integers |= {"out_channels": conv.out_channels, "out_height": offset[2], "out_width": offset[3]}
    for name, pair, ends in (
        ("kernel", conv.kernel, "hw"),
        ("stride", conv.stride, "yx"),
        ("padding", conv.padding, "yx"),
        ("dilation", conv.dilation, "yx"),
    ):
        integers |= {f"{name}_{end}": value for end, value in zip(ends, pair, strict=True)}
    integers |= {"groups": conv.groups, "offset_groups": conv.offset_groups}
    integers |= {"run_channels": conv.run_channels, "steps": conv.steps}
    defines = (module.dtype_define(dtype), ("ROWS", str(rows)))
    return Call(defines, _launch(conv.launch, *sizes, dtype, y=packed_rows // rows), integers)


def _warp(shapes: Sequence[Shape], attributes: Attributes, dtype: Any) -> Call:
    (batch, channels, height, width), flows = shapes
    if attributes["border"] not in ("zeros", "clamp"):
        raise BackendError(f"There is no border '{attributes['border']}': name zeros or clamp.")
    limit = float(attributes["grid_limit"])
    head = [f"const int chunk = {CHUNK}, clamped = {int(attributes['border'] == 'clamp')};"]
    for axis, size in (("y", "height"), ("x", "width")):  # what kernels.warp.axis computes on the host
        scale, shift = ("1.0f", "0.0f") if attributes["align_corners"] else (f"{size} / ({size} - 1.0f)", "-0.5f")
        low, high = f"-{_FARTHEST}", _FARTHEST
        if limit:
            margin = f"{(1 - limit) / 2!r}f * ({size} - 1.0f)"
            low, high = (f"({end}) * {axis}_scale + {axis}_shift" for end in (margin, f"{size} - 1.0f - {margin}"))
        head.append(f"const float {axis}_scale = {scale}, {axis}_shift = {shift};")
        head.append(f"const float {axis}_low = {low}, {axis}_high = {high};")
    integers = {"channels": channels, "height": height, "width": width}
    integers |= {"out_height": flows[2], "out_width": flows[3], "flow_count": flows[1] // 2}
    launch = _launch(launch_planes, *(_Size(size) for size in (batch, channels, flows[2], flows[3])))
    return Call((module.dtype_define(dtype),), launch, integers, "\n".join(head))


def _decoder(readings: int, rows_of: int, head: str = "") -> Callable[[Sequence[Shape], Attributes, Any], Call]:
    """One kernel of the decoder; input `rows_of` has an element for each row of the target, the next its columns."""

    def call(shapes: Sequence[Shape], attributes: Attributes, dtype: Any) -> Call:
        batch, height, width, _ = shapes[0]
        rows, columns = shapes[rows_of][0], shapes[rows_of + 1][0]
        official, factor = bool(attributes.get("official_sampling")), int(attributes.get("frame_upsample", 1))
        none = (None, None)
        weights = DecoderWeights(int(attributes["channels"]), official, factor, np.empty(0, dtype), none, none, none)
        integers = {"height": height, "width": width}
        integers |= {"factor": factor} if "frame_upsample" in attributes else {}
        integers |= {"target_height": rows, "target_width": columns}
        launch = _launch(launch_of, weights, _Size(batch), _Size(rows) * _Size(columns), readings)
        return Call(weights.defines, launch, integers, head)

    return call


_F, _F32, _I32 = FEATURES, "FP32", "INT32"
_DECODER = {"channels": int, "frame_upsample": int, "official_sampling": bool}

_DEFORM_CONV = Plugin(
    "deform_conv2d",
    "deform_conv",
    "deform_conv",
    dict(x=_F, weight=_F, offset=_F32, mask=_F32, bias=_F),
    ("out", _F),
    dict(
        **dict.fromkeys(("in_channels", "out_channels"), int),
        **dict.fromkeys(("kernel", "stride", "padding", "dilation"), Pair),
        **dict.fromkeys(("groups", "offset_groups"), int),
    ),
    lambda shapes, attributes: (shapes[0][0], int(attributes["out_channels"]), shapes[2][2], shapes[2][3]),
    _deform_conv2d,
)
_WARP = Plugin(
    "warp",
    "warp",
    "warp_planes",
    dict(features=_F, flows=_F32),
    ("out", _F),
    dict(border=str, align_corners=bool, grid_limit=float),
    lambda shapes, _: (shapes[0][0], shapes[1][1] // 2 * shapes[0][1], shapes[1][2], shapes[1][3]),
    _warp,
)
_TARGET_FEATURES = Plugin(
    "target_features",
    "videoinr_decoder",
    "target_features",
    dict(mixed=_F, time=_F32, nearest_y=_I32, nearest_x=_I32, way_y=_F32, way_x=_F32, weights=_F, biases=_F32),
    ("target", _F),
    dict(channels=int),
    lambda shapes, attributes: (shapes[0][0], shapes[2][0], shapes[3][0], int(attributes["channels"])),
    _decoder(0, 2),
)
_TARGET_FLOWS = Plugin(
    "target_flows",
    "videoinr_decoder",
    "target_flows",
    dict(mixed=_F, frames=_F, target=_F, time=_F32, position_y=_F32, position_x=_F32, weights=_F, biases=_F32),
    ("flows", _F32),
    _DECODER,
    lambda shapes, _: (shapes[0][0], shapes[4][0], shapes[5][0], 4),
    _decoder(1, 4),
)
_TARGET_COLOURS = Plugin(
    "target_colours",
    "videoinr_decoder",
    "target_colours",
    {
        **dict(mixed=_F, frames=_F, target=_F, flows=_F32, time=_F32),
        **dict(index_y=_F32, index_x=_F32, size=_F32, weights=_F, biases=_F32),
    },
    ("colours", _F),
    _DECODER,
    lambda shapes, _: (shapes[0][0], 3, shapes[5][0], shapes[6][0]),
    _decoder(2, 5, "const float size_y = size[0], size_x = size[1];"),
    dict(size="const float* __restrict__ size"),
)

# deform_conv2d: tensors and attributes of `DeformConv`; weight (groups, depth, rows) as `pack` orders it for float32.
# warp: those of `kernels.warp.warp` in layout "nchw", any number of flows; a grid_limit of 0 is none.
# The others: the launches of `kernels.implicit.decode` over what is prepared there; `channels` are those of the target
# features, `size` (2,) is rows and columns of the whole target.
PLUGINS = {plugin.name: plugin for plugin in (_DEFORM_CONV, _WARP, _TARGET_FEATURES, _TARGET_FLOWS, _TARGET_COLOURS)}
