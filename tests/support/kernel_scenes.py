"""Inputs of the kernels, and what plain half precision makes of them, for tests and the GPU benchmark."""

import numpy as np
from stvsr.kernels import reference
from stvsr.kernels.deform_conv import DeformConv
from stvsr.kernels.warp import Layout

GRID_LIMIT = 1 - 1e-6  # that of VideoINR

# Configurations that no official oracle covers: (size of the input, convolution).
DEFORM_CONVS = {
    "groups": ((5, 11), DeformConv(12, 10, padding=(1, 1), groups=2, offset_groups=3)),
    "one group per channel": ((9, 4), DeformConv(6, 6, padding=(1, 1), groups=6, offset_groups=2)),
    "rectangular": ((9, 14), DeformConv(20, 7, (1, 5), (2, 3), (0, 2), (1, 2), offset_groups=2)),
    "tall": ((12, 3), DeformConv(9, 3, (4, 2), (1, 2), (3, 1), (2, 1))),
    "more rows than a block": ((3, 7), DeformConv(8, 131, padding=(1, 1), offset_groups=4)),
    "wide groups": ((6, 13), DeformConv(80, 5, padding=(1, 1), offset_groups=2)),
    "two groups of one offset group": ((5, 9), DeformConv(56, 6, (2, 1), groups=2)),
    "one pixel": ((1, 1), DeformConv(3, 2, padding=(1, 1))),
}


def deform_conv_scene(conv: DeformConv, size: tuple[int, int], batch: int = 2) -> list[np.ndarray]:
    """Return x, offset, mask, weight and bias, float32; some offsets lead far outside."""
    random = np.random.default_rng(conv.in_channels)
    out, maps = conv.out_size(*size), conv.offset_groups * conv.taps
    offset = random.normal(0, 2, (batch, 2 * maps, *out))
    offset = np.where(random.random(offset.shape) < 0.05, offset * 1e5, offset)
    arrays = (
        random.standard_normal((batch, conv.in_channels, *size)),
        offset,
        random.random((batch, maps, *out)),
        random.standard_normal((conv.out_channels, conv.in_channels // conv.groups, *conv.kernel)) / 5,
        random.standard_normal(conv.out_channels),
    )
    return [array.astype(np.float32) for array in arrays]


def deform_conv_truth(
    conv: DeformConv,
    x: np.ndarray,
    offset: np.ndarray,
    mask: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
) -> np.ndarray:
    """Return the oracle's result. (B, O, Hout, Wout) float64"""
    geometry = (conv.stride, conv.padding, conv.dilation, conv.groups, conv.offset_groups)
    return reference.deform_conv(x, offset, mask, weight, bias, *geometry)


def deform_conv_in_plain_half(
    conv: DeformConv, x: np.ndarray, offset: np.ndarray, mask: np.ndarray, weight: np.ndarray, bias: np.ndarray
) -> np.ndarray:
    """Return the result of columns and sums that are rounded to half, and exact in between."""
    geometry = (conv.kernel, conv.stride, conv.padding, conv.dilation, conv.offset_groups)
    columns = reference.deform_columns(x, offset, mask, *geometry).astype(np.float16)
    return reference.multiply_columns(columns.astype(float), weight, bias, conv.groups).astype(np.float16)


def warp_scene(
    batch: int = 2,
    channels: int = 5,
    size: tuple[int, int] = (7, 13),
    out: tuple[int, int] | None = None,
    count: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Return features (B, C, *size) and flows (B, 2 * count, *out), float32; some flows lead far outside.

    `out` defaults to `size`.
    """
    random = np.random.default_rng(channels)
    features = random.standard_normal((batch, channels, *size)).astype(np.float32)
    flows = random.normal(0, 3, (batch, 2 * count, *(out or size))).astype(np.float32)
    far = random.random(flows.shape) < 0.05
    return features, np.where(far, flows * 1e4, flows)


def fusion_scene(
    features: int, size: tuple[int, int], batch: int = 2, times: int = 2, far: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Return the channels of pairs (B, 2F + 6, *size) and a motion (times, 5, *size), float32.

    With `far` some of the motion leads far outside.
    """
    random = np.random.default_rng(features)
    channels = random.standard_normal((batch, 2 * features + 6, *size)).astype(np.float32)
    motion = random.normal(0, 3, (times, 5, *size)).astype(np.float32)
    outside = (random.random(motion.shape) < 0.05) & (np.arange(5) < 4)[:, None, None]
    return channels, np.where(outside, motion * 1e4, motion) if far else motion


def to_layout(array: np.ndarray, layout: Layout) -> np.ndarray:
    """Return an "nchw" array in another layout."""
    return array if layout == "nchw" else np.ascontiguousarray(array.transpose(0, 2, 3, 1))


def from_layout(array: np.ndarray, layout: Layout) -> np.ndarray:
    """Return an array of some layout as "nchw"."""
    return array if layout == "nchw" else array.transpose(0, 3, 1, 2)
