"""Backward warping by flows: each output pixel is read bilinearly at the position that its flow points to."""

from typing import Any, Literal, NamedTuple

import numpy as np

from . import launcher, variants
from .launcher import Launch
from .strips import to_strips

# Values outside of the features: `zeros` reads 0, `clamp` repeats the nearest edge pixel.
Border = Literal["zeros", "clamp"]
Layout = Literal["nchw", "nhwc"]

_TILE = (32, 8)  # pixels of a block: columns, rows
_THREADS = 256
_VECTOR_BYTES = 16


class Variant(NamedTuple):
    """The parameters of NCHW warps in warp.cu, and which of its two functions computes them."""

    strips: int  # 1: `warp_strips`, after the features are put into strips; 0: `warp_planes`
    chunk: int  # channels of a block
    # Of `warp_planes` alone:
    unroll: int  # channels that a thread reads at once
    each: int  # neighbouring pixels that a thread reads
    blocks: int  # of a multiprocessor at once, at least

    def defines(self, dtype: Any) -> launcher.Defines:
        """Return the defines of the kernel for features of this dtype."""
        numbers = (("CHUNK", self.chunk), ("UNROLL", self.unroll), ("EACH", self.each), ("BLOCKS", self.blocks))
        return (launcher.dtype_define(dtype), *((name, str(value)) for name, value in numbers))


# The first one is used unless another is known to be faster on the card.
PLANAR_VARIANTS = (
    Variant(0, 32, 8, 1, 4),
    Variant(0, 16, 4, 1, 6),
    Variant(0, 64, 8, 1, 4),
    Variant(0, 16, 4, 2, 3),
    Variant(0, 32, 8, 2, 2),
    Variant(1, 16, 4, 1, 6),
    Variant(1, 64, 8, 1, 4),
)

VARIANTS: tuple[launcher.Defines, ...] = tuple(
    dict.fromkeys(variant.defines(dtype) for dtype in (np.float32, np.float16) for variant in PLANAR_VARIANTS)
)


class Axis(NamedTuple):
    """Mapping from positions of the output to those of the features: p * scale + shift, limited to [low, high].

    Everything but the scale is in pixels.
    """

    scale: np.float32
    shift: np.float32
    low: np.float32
    high: np.float32


def axis(size: int, align_corners: bool = True, grid_limit: float | None = None) -> Axis:
    """Return the mapping for features of `size` rows or columns; `warp` describes the other arguments.

    Raises ValueError for fewer than two with `align_corners=False`.
    """
    if not align_corners and size < 2:
        raise ValueError("align_corners=False needs features of two rows and two columns at least")
    scale, shift = (1.0, 0.0) if align_corners else (size / (size - 1), -0.5)
    low, high = -np.inf, np.inf
    if grid_limit is not None:
        low, high = (((1 + end) / 2 * (size - 1)) * scale + shift for end in (-grid_limit, grid_limit))
    return Axis(*(np.float32(value) for value in (scale, shift, low, high)))


def warp(
    features: Any,
    flows: Any,
    border: Border = "zeros",
    *,
    align_corners: bool = True,
    grid_limit: float | None = None,
    layout: Layout = "nchw",
    out: Any = None,
    variant: Variant | None = None,
) -> Any:
    """Warp features by one or more flows in one pass.

    Each output pixel is read at its own position plus its flow. `align_corners=False` reproduces networks that build
    their sampling grid from -1 to 1 between the centres of the first and last pixel, but sample it as if it ran from
    edge to edge: position p of n pixels is read at p * n / (n - 1) - 1/2. `grid_limit` clips such a grid to
    [-grid_limit, grid_limit].

    features: (B, C, H, W), float32 or float16. flows: (B, 2 * F, Hout, Wout) float32 in pixels, dx before dy.
    Returns (B, F * C, Hout, Wout) of the features' dtype, flow by flow: `out` if it is given, else a new array.
    Layout "nhwc": (B, H, W, C), (B, Hout, Wout, 2 * F) -> (B, Hout, Wout, F * C).
    variant: of the layout "nchw", by default that of the card.
    A NaN in a flow reads 0, or the first row or column with border "clamp".
    Raises ValueError for shapes or dtypes that do not match.
    """
    if layout not in ("nchw", "nhwc") or border not in ("zeros", "clamp"):
        raise ValueError(f"there is no layout {layout!r} or no border {border!r}; use nchw or nhwc, zeros or clamp")
    if features.ndim != 4 or flows.ndim != 4 or flows.dtype != np.float32:
        raise ValueError(
            f"features of shape {features.shape} and flows of shape {flows.shape} and {flows.dtype} cannot be warped; "
            "pass four axes each, and float32 flows"
        )
    planar = layout == "nchw"
    batch, channels, height, width = _as_nchw(features.shape, planar)
    flow_batch, components, out_height, out_width = _as_nchw(flows.shape, planar)
    if flow_batch != batch or components % 2 or not components:
        raise ValueError(f"flows of shape {flows.shape} do not fit features of shape {features.shape}")
    count = components // 2
    shape = (batch, count * channels, out_height, out_width)
    shape = shape if planar else (batch, out_height, out_width, count * channels)
    if out is None:
        out = launcher.empty(features, shape)
    elif out.shape != shape or out.dtype != features.dtype:
        raise ValueError(f"out must be of shape {shape} and {features.dtype}, not {out.shape} and {out.dtype}")
    if not out.size:
        return out
    if not features.size:
        raise ValueError(f"features of shape {features.shape} have no pixels to read")

    axes = (axis(height, align_corners, grid_limit), axis(width, align_corners, grid_limit))
    vector = _VECTOR_BYTES // features.dtype.itemsize
    if planar:
        variant = variant or variants.choose(
            variant_key(features.dtype, count), PLANAR_VARIANTS, launcher.card_of(features)
        )
        function = "warp_strips" if variant.strips else "warp_planes"
        geometry = planes_launch(batch, channels, out_height, out_width, variant)
        features = to_strips(features, channels, vector) if variant.strips else features
    else:
        variant = PLANAR_VARIANTS[0]
        vector = vector if channels % vector == 0 and launcher.is_aligned(features, out) else 1
        function = "warp_channels" if vector == 1 else "warp_channel_vectors"
        geometry = channels_launch(batch, channels // vector, out_height, out_width, count)
    sizes = (channels, height, width, out_height, out_width, count, border == "clamp")
    numbers = (*(np.int32(i) for i in sizes), *axes[0], *axes[1])
    launcher.launch("warp", variant.defines(features.dtype), function, geometry, features, flows, out, *numbers)
    return out


def variant_key(dtype: Any, flows: int) -> str:
    """Return the key of NCHW warps in the table of variants."""
    return f"warp {np.dtype(dtype)}, {'one flow' if flows == 1 else 'more flows'}"


def planes_launch(batch: int, channels: int, out_height: int, out_width: int, variant: Variant) -> Launch:
    """Return the launch parameters of `warp_planes` and `warp_strips`."""
    tiles = (-(-out_width // (_TILE[0] * variant.each)), -(-out_height // _TILE[1]))
    return Launch((*tiles, batch * -(-channels // variant.chunk)), (*_TILE, 1))


def channels_launch(batch: int, vectors: int, out_height: int, out_width: int, flows: int) -> Launch:
    """Return the launch parameters of `warp_channels` and `warp_channel_vectors`.

    vectors: how many a pixel of the features has. Raises ValueError if a flow has more than 2^32 - 256 to read.
    """
    items = out_height * out_width * vectors
    if items > 2**32 - _THREADS:
        raise ValueError(f"{items} values are too many to warp at once; use fewer channels or pixels")
    return Launch((-(-items // _THREADS), flows, batch), (_THREADS, 1, 1))


def _as_nchw(shape: tuple[int, ...], planar: bool) -> tuple[int, ...]:
    return shape if planar else (shape[0], shape[3], *shape[1:3])
