"""The plugins: their tensors and attributes, the shape of their output, and the launch of their kernel.

Sizes are numbers, or TensorRT's expressions, which become numbers when an engine runs: both support +, -, * and //.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .....kernels import fusion_inputs, launcher
from .....kernels.deform_conv import DeformConv
from .....kernels.videoinr_decoder import DecoderWeights, decoder_launch
from .....kernels.warp import PLANAR_VARIANTS, planes_launch
from ....contract.errors import BackendError
from .ptx import Entry, entry

Shape = Sequence[Any]
Attributes = Mapping[str, Any]
Pair = NDArray[np.int32]  # (rows, columns)

NAMESPACE = "stvsr"
NODE_ATTRIBUTES = {"domain": NAMESPACE, "plugin_namespace": NAMESPACE, "plugin_version": "1"}  # of a plugin's ONNX node
FEATURES = "FP32|FP16"  # the type of features: either, the same for all features of a plugin
_MAX_SHARED_BYTES = 48 << 10  # for a kernel without an attribute that allows more
_FLOAT32_MAX = "3.402823466e+38f"


class Call(NamedTuple):
    """The compilation and the launch of a kernel.

    `integers` are parameters of the kernel; `head` is C++ that defines its remaining parameters.
    """

    defines: launcher.Defines
    launch: launcher.Launch
    integers: Mapping[str, Any]
    head: str = ""


class Kernel(NamedTuple):
    """A kernel for known shapes, whose arguments are the inputs, the integers and the output."""

    entry: Entry
    launch: launcher.Launch
    integers: tuple[Any, ...]


@dataclass(frozen=True)
class Plugin:
    """A plugin with one output, computed by one kernel of `kernels/SOURCE.cu`. Types are TensorRT's names."""

    name: str
    source: str
    function: str
    inputs: Mapping[str, str]  # name in the kernel -> type
    output: tuple[str, str]  # name in the kernel, type
    attributes: Mapping[str, Any]  # name -> Python type
    shape: Callable[[Sequence[Shape], Attributes], Shape]  # (shapes of the inputs, attributes) -> shape of the output
    call: Callable[[Sequence[Shape], Attributes, Any], Call]  # (shapes, attributes, NumPy dtype of the features)
    declared: Mapping[str, str] = field(default_factory=dict)  # inputs that the kernel lacks -> declaration in C++

    @property
    def types(self) -> str:
        """Types of the inputs and the output, in the format of TensorRT's `AutoTuneCombination`."""
        return ", ".join((*self.inputs.values(), self.output[1]))

    def kernel(self, shapes: Sequence[Shape], attributes: Attributes, dtype: Any) -> Kernel:
        """Return the kernel for inputs of these shapes. Raises BackendError if it cannot run inside an engine."""
        call = self.call(shapes, attributes, dtype)
        if call.launch.shared_bytes > _MAX_SHARED_BYTES:
            raise BackendError(
                f"The plugin {self.name} needs {call.launch.shared_bytes} bytes of shared memory, and plugins have"
                f" {_MAX_SHARED_BYTES}: compile without --plugins."
            )
        inputs = (self.declared.get(name, name) for name in self.inputs)
        parameters = (*inputs, *call.integers, self.output[0])
        source = entry(self.source, self.function, parameters, call.head, call.defines)
        return Kernel(source, call.launch, tuple(call.integers.values()))


class _Size:
    """A size as an argument of the kernels' launch functions, which round a / b up as -(-a // b)."""

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


def _launch(function: Callable[..., launcher.Launch], *arguments: Any) -> launcher.Launch:
    """Call a launch function of the kernels."""
    launch = function(*arguments)
    x, y, z = (size.value if isinstance(size, _Size) else size for size in launch.grid)
    return launch._replace(grid=(x, y, z))


def _deform_conv2d(shapes: Sequence[Shape], attributes: Attributes, dtype: Any) -> Call:
    x, _, offset = shapes[:3]
    plain = {key: tuple(map(int, value)) if np.ndim(value) else int(value) for key, value in attributes.items()}
    conv = DeformConv(**plain)  # type: ignore[arg-type]
    variant = conv.candidates(dtype)[0]
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
    integers |= {"run_channels": conv.run_channels, "steps": conv.packed_shape[1] // variant.depth}
    return Call(variant.defines(dtype), _launch(conv.launch, *sizes, dtype, variant), integers)


def _warp(shapes: Sequence[Shape], attributes: Attributes, dtype: Any) -> Call:
    (batch, channels, height, width), flows = shapes
    if attributes["border"] not in ("zeros", "clamp"):
        raise BackendError(f"Unknown border '{attributes['border']}': use zeros or clamp.")
    limit = float(attributes["grid_limit"])
    head = [f"const int clamped = {int(attributes['border'] == 'clamp')};"]
    for axis, size in (("y", "height"), ("x", "width")):  # the values that kernels.warp.axis computes on the host
        scale, shift = ("1.0f", "0.0f") if attributes["align_corners"] else (f"{size} / ({size} - 1.0f)", "-0.5f")
        low, high = f"-{_FLOAT32_MAX}", _FLOAT32_MAX
        if limit:
            margin = f"{(1 - limit) / 2!r}f * ({size} - 1.0f)"
            low, high = (f"({end}) * {axis}_scale + {axis}_shift" for end in (margin, f"{size} - 1.0f - {margin}"))
        head.append(f"const float {axis}_scale = {scale}, {axis}_shift = {shift};")
        head.append(f"const float {axis}_low = {low}, {axis}_high = {high};")
    integers = {"channels": channels, "height": height, "width": width}
    integers |= {"out_height": flows[2], "out_width": flows[3], "flow_count": flows[1] // 2}
    variant = next(variant for variant in PLANAR_VARIANTS if not variant.strips)
    launch = _launch(planes_launch, *(_Size(size) for size in (batch, channels, flows[2], flows[3])), variant)
    return Call(variant.defines(dtype), launch, integers, "\n".join(head))


def _fusion_inputs(shapes: Sequence[Shape], attributes: Attributes, dtype: Any) -> Call:
    (items, _, height, width), count = shapes[1], int(attributes["count"])
    variant = fusion_inputs.PLANAR_VARIANTS[0]
    launch = _launch(fusion_inputs.inputs_launch, _Size(items), count, _Size(height), _Size(width), variant)
    integers = {"count": count, "height": height, "width": width, "times": 1}
    return Call(variant.defines(dtype), launch, integers, "float* const base = nullptr;")


def _decoder(readings: int, rows_of: int, head: str = "") -> Callable[[Sequence[Shape], Attributes, Any], Call]:
    """Return the `call` of one of the decoder's kernels.

    Input `rows_of` has one element for each row of the target, and the next input one for each column. `readings` is
    passed to `kernels.videoinr_decoder.decoder_launch`.
    """

    def call(shapes: Sequence[Shape], attributes: Attributes, dtype: Any) -> Call:
        batch, height, width, _ = shapes[0]
        rows, columns = shapes[rows_of][0], shapes[rows_of + 1][0]
        official, factor = bool(attributes.get("official_sampling")), int(attributes.get("frame_upsample", 1))
        none = (None, None)
        weights = DecoderWeights(int(attributes["channels"]), official, factor, np.empty(0, dtype), none, none, none)
        integers = {"height": height, "width": width}
        integers |= {"factor": factor} if "frame_upsample" in attributes else {}
        integers |= {"target_height": rows, "target_width": columns}
        launch = _launch(decoder_launch, weights, _Size(batch), _Size(rows) * _Size(columns), readings)
        return Call(weights.defines, launch, integers, head)

    return call


_F, _F32, _I32 = FEATURES, "FP32", "INT32"
_DECODER = {"channels": int, "frame_upsample": int, "official_sampling": bool}

# Tensors and attributes of `kernels.deform_conv.DeformConv`. The graph packs x, (B, S, H, W, 8), and the weight.
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
# Tensors and attributes of `kernels.warp.warp` in the layout "nchw", with any number of flows. A grid_limit of 0 means
# no limit.
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
# Tensors of `kernels.fusion_inputs.fusion_inputs`, which are planes, at one time of each pair. `count` is the number of
# features of a frame. The blend is read from the inputs.
_FUSION_INPUTS = Plugin(
    "fusion_inputs",
    "fusion_inputs",
    "from_planes",
    dict(features=_F, motion=_F32, time=_F32),
    ("inputs", _F),
    dict(count=int),
    lambda shapes, attributes: (
        shapes[1][0],
        2 * int(attributes["count"]) + fusion_inputs.EXTRA,
        *(shapes[1][2], shapes[1][3]),
    ),
    _fusion_inputs,
)
# The three launches of `kernels.videoinr_decoder.decode`, over what `prepare` and `target_axis` compute. `channels` is
# the number of target features, `size` (2,) the height and width of the whole target.
_TARGET_FEATURES = Plugin(
    "target_features",
    "videoinr_decoder",
    "target_features",
    dict(
        mixed=_F, time=_F32, nearest_y=_I32, nearest_x=_I32, relative_y=_F32, relative_x=_F32, weights=_F, biases=_F32
    ),
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

PLUGINS = {
    plugin.name: plugin
    for plugin in (_DEFORM_CONV, _WARP, _FUSION_INPUTS, _TARGET_FEATURES, _TARGET_FLOWS, _TARGET_COLOURS)
}
