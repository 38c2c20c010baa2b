"""Modulated deformable convolution (DCNv2), sampled and multiplied in one kernel.

Zhu et al., "Deformable ConvNets v2: More Deformable, Better Results", CVPR 2019, equation 1.
"""

import math
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from . import launcher, variants
from .launcher import Launch
from .strips import strip_count, to_strips

_STRIP = 8  # channels that are sampled at once: STRIP of deform_conv.cu
_DEPTH, _ROWS, _WIDE_ROWS = 64, 64, 128  # the packed weight is padded to multiples of these, so that all variants fit


class Variant(NamedTuple):
    """The parameters of the kernel in deform_conv.cu."""

    rows: int  # output channels of a block
    pixels: int  # of a block
    depth: int  # of a step
    stages: int  # tiles in shared memory
    threads: int  # of a block
    blocks: int  # of a multiprocessor at once, at least

    def defines(self, dtype: Any) -> launcher.Defines:
        """Return the defines of the kernel for features of this dtype."""
        return (launcher.dtype_define(dtype), *((name.upper(), str(value)) for name, value in self._asdict().items()))


_FLOAT = (
    Variant(64, 64, 16, 3, 128, 3),
    Variant(64, 64, 32, 2, 256, 2),
    Variant(64, 64, 32, 2, 128, 3),
    Variant(64, 128, 16, 2, 128, 2),
)
_HALF = (
    Variant(64, 128, 32, 3, 256, 2),
    Variant(64, 128, 64, 2, 256, 2),
    Variant(64, 64, 64, 2, 256, 2),
    Variant(64, 64, 32, 3, 128, 3),
)
_WIDE_HALF = (Variant(128, 64, 32, 3, 256, 2), Variant(128, 64, 32, 3, 128, 3), Variant(128, 128, 32, 3, 256, 1))

VARIANTS: tuple[launcher.Defines, ...] = tuple(
    variant.defines(dtype)
    for dtype, listed in ((np.float32, _FLOAT), (np.float16, (*_HALF, *_WIDE_HALF)))
    for variant in listed
)

Pair = tuple[int, int]


@dataclass(frozen=True)
class DeformConv:
    """A deformable convolution; pairs are (rows, columns).

    Raises ValueError for numbers that are not positive (`padding` and the channels may be 0), and for groups that do
    not divide their channels.
    """

    in_channels: int
    out_channels: int
    kernel: Pair = (3, 3)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    offset_groups: int = 1

    def __post_init__(self) -> None:
        may_be_zero = {"in_channels", "out_channels", "padding"}
        for field in fields(self):
            least = 0 if field.name in may_be_zero else 1
            value = getattr(self, field.name)
            if any(n < least for n in (value if isinstance(value, tuple) else (value,))):
                raise ValueError(f"{field.name} of a deformable convolution must be {least} or more, not {value}")
        if self.in_channels % self.groups or self.out_channels % self.groups or self.in_channels % self.offset_groups:
            raise ValueError(
                f"{self.groups} groups and {self.offset_groups} offset groups do not divide {self.in_channels} input "
                f"channels and {self.out_channels} output channels"
            )

    @property
    def taps(self) -> int:
        """Number of samples that each output pixel reads per channel."""
        return math.prod(self.kernel)

    @property
    def run_channels(self) -> int:
        """Number of consecutive channels that share their offsets and their group."""
        return math.gcd(self.in_channels // self.groups, self.in_channels // self.offset_groups)

    @property
    def strips(self) -> int:
        """Number of strips of the features; see `pack_features`."""
        return strip_count(self.in_channels, self.run_channels, _STRIP) if self.in_channels else 0

    def candidates(self, dtype: Any) -> tuple[Variant, ...]:
        """Return the variants of the kernel for features of this dtype; the first one is used unless another is known
        to be faster on the card.
        """
        if np.dtype(dtype) != np.float16:
            return _FLOAT
        return _HALF if self.out_channels // self.groups <= _ROWS else _WIDE_HALF

    def key(self, dtype: Any) -> str:
        """Return the key of this convolution in the table of variants."""
        wide = self.candidates(dtype) is _WIDE_HALF
        return f"deform_conv {np.dtype(dtype)}{', more than 64 rows' if wide else ''}"

    def out_size(self, height: int, width: int) -> Pair:
        """Return the rows and columns of the output for an input of this size."""
        rows, columns = (
            max((size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1, 0)
            for size, kernel, stride, padding, dilation in zip(
                (height, width), self.kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )
        return rows, columns

    def pack(self, weight: Any) -> Any:
        """Reorder a weight, in NumPy or CuPy, to the order in which the kernel reads it: once per network.

        weight: (O, C / groups, kh, kw), of the features' dtype. Returns (groups, depth, rows) of that dtype, padded
        with zeros. Raises ValueError for another shape.
        """
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel)
        if weight.shape != shape:
            raise ValueError(f"the weight must be of shape {shape}, not {weight.shape}")
        packed = np.zeros_like(weight, shape=self.packed_shape, order="C")
        if not weight.size:
            return packed
        rows, run = self.out_channels // self.groups, self.run_channels
        runs, padded = self.in_channels // self.groups // run, _round_up(run, _STRIP)
        by_depth = packed[:, : runs * self.taps * padded].reshape(self.groups, runs, self.taps, padded, -1)
        ordered = weight.reshape(self.groups, rows, runs, run, self.taps).transpose(0, 2, 4, 3, 1)
        by_depth[..., :run, :rows] = ordered
        return packed

    @property
    def packed_shape(self) -> tuple[int, int, int]:
        """Shape of the packed weight: groups, depth, rows."""
        rows = self.out_channels // self.groups
        rows = _round_up(rows, _ROWS if rows <= _ROWS else _WIDE_ROWS)
        return self.groups, _round_up(self.strips // self.groups * self.taps * _STRIP, _DEPTH), rows

    def pack_features(self, x: Any) -> Any:
        """Put the channels that are read at one position side by side, as the kernel reads them.

        x: (B, C, H, W), float32 or float16. Returns (B, S, H, W, 8) of its dtype: `strips` planes of 8 channels.
        """
        return to_strips(x, self.run_channels, _STRIP)

    def launch(self, batch: int, out_height: int, out_width: int, dtype: Any, variant: Variant) -> Launch:
        """Return the launch parameters for an output of this size."""
        size = np.dtype(dtype).itemsize
        # Rows in shared memory are padded by 16 bytes, so that neighbouring rows use different banks.
        gap = 16 // size
        tile = size * (variant.depth * (variant.rows + gap) + variant.pixels * (variant.depth + gap))
        sums = 4 * variant.rows * (variant.pixels + 4)
        grid = (-(-out_height * out_width // variant.pixels), self.packed_shape[2] // variant.rows, batch * self.groups)
        return Launch(grid, (variant.threads, 1, 1), max(variant.stages * tile, sums))

    def __call__(
        self,
        x: Any,
        offset: Any,
        mask: Any,
        packed: Any,
        bias: Any = None,
        out: Any = None,
        *,
        variant: Variant | None = None,
    ) -> Any:
        """Convolve; C = in_channels, O = out_channels, G = offset_groups, K = kh * kw taps, row by row.

        x: (B, C, H, W), float32 or float16, or what `pack_features` returns for it. offset: (B, 2 * G * K, Hout, Wout)
        float32, in pixels, dy of a tap before its dx. mask: (B, G * K, Hout, Wout) float32. packed: the weight from
        `pack`. bias: (O,); both of x's dtype. variant: by default that of the card. x is 0 outside of its borders. Sums
        are float32.
        Returns (B, O, Hout, Wout) of x's dtype: `out` if it is given, else a new array. Raises ValueError for shapes or
        dtypes that do not match.
        """
        in_strips = x.ndim == 5
        if (x.ndim, *x.shape[1:2], *x.shape[4:]) not in ((4, self.in_channels), (5, self.strips, _STRIP)):
            raise ValueError(
                f"x must be of shape (B, {self.in_channels}, H, W) or (B, {self.strips}, H, W, {_STRIP}), not {x.shape}"
            )
        batch, _, height, width = x.shape[:4]
        size = self.out_size(height, width)
        maps = self.offset_groups * self.taps
        shape = (batch, self.out_channels, *size)
        out = launcher.empty(x, shape) if out is None else out
        _check("offset", offset, (batch, 2 * maps, *size), np.float32)
        _check("mask", mask, (batch, maps, *size), np.float32)
        _check("packed", packed, self.packed_shape, x.dtype)
        _check("out", out, shape, x.dtype)
        if bias is not None:
            _check("bias", bias, (self.out_channels,), x.dtype)
        if not out.size:
            return out
        if not x.size:
            out[...] = 0 if bias is None else bias[:, None, None]
            return out

        variant = variant or variants.choose(self.key(x.dtype), self.candidates(x.dtype), launcher.card_of(x))
        x = x if in_strips else self.pack_features(x)
        x, packed = (array if launcher.is_aligned(array) else array.copy() for array in (x, packed))
        pairs = (*self.kernel, *self.stride, *self.padding, *self.dilation)
        steps = self.packed_shape[1] // variant.depth
        groups = (self.groups, self.offset_groups, self.run_channels)
        integers = (self.in_channels, height, width, *shape[1:], *pairs, *groups, steps)
        launcher.launch(
            "deform_conv",
            variant.defines(x.dtype),
            "deform_conv",
            self.launch(batch, *size, x.dtype, variant),
            *(x, offset, mask, packed, np.uintp(0) if bias is None else bias, out),
            *(np.int32(i) for i in integers),
        )
        return out


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _check(name: str, array: Any, shape: tuple[int, ...], dtype: Any) -> None:
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"{name} must be of shape {shape} and {np.dtype(dtype)}, not {array.shape} and {array.dtype}")
