"""Modulated deformable convolution (DCNv2), sampled and multiplied in one kernel.

Zhu et al., "Deformable ConvNets v2: More Deformable, Better Results", CVPR 2019, equation 1.
"""

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from . import launcher
from .launcher import Launch

# The constants PIXELS, STRIP, DEPTH and THREADS of deform_conv.cu.
_PIXELS, _STRIP, _DEPTH, _THREADS = 64, 8, 32, 256

VARIANTS: tuple[launcher.Defines, ...] = (
    (("DTYPE", "float"), ("ROWS", "64")),
    (("DTYPE", "half"), ("ROWS", "64")),
    (("DTYPE", "half"), ("ROWS", "128")),
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

    def rows(self, dtype: Any) -> int:
        """Return the number of output channels that one block computes."""
        return 128 if np.dtype(dtype) == np.float16 and self.out_channels // self.groups > 64 else 64

    def row_blocks(self, dtype: Any) -> int:
        """Return the number of blocks that cover the output channels of a group."""
        return -(-self.out_channels // self.groups // self.rows(dtype))

    @property
    def steps(self) -> int:
        """Number of steps that a block takes, each over 32 rows of the packed weight."""
        if not self.in_channels:
            return 0
        runs = self.in_channels // self.groups // self.run_channels
        return -(-runs * self.taps * _round_up_to_strips(self.run_channels) // _DEPTH)

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

        weight: (O, C / groups, kh, kw), of the features' dtype. Returns (groups, 32 * steps, row_blocks * rows) of that
        dtype. Raises ValueError for another shape.
        """
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel)
        if weight.shape != shape:
            raise ValueError(f"the weight must be of shape {shape}, not {weight.shape}")
        packed = np.zeros_like(weight, shape=self._packed_shape(weight.dtype), order="C")
        if not weight.size:
            return packed
        rows, run = self.out_channels // self.groups, self.run_channels
        runs, padded = self.in_channels // self.groups // run, _round_up_to_strips(run)
        by_depth = packed[:, : runs * self.taps * padded].reshape(self.groups, runs, self.taps, padded, -1)
        ordered = weight.reshape(self.groups, rows, runs, run, self.taps).transpose(0, 2, 4, 3, 1)
        by_depth[..., :run, :rows] = ordered
        return packed

    def _packed_shape(self, dtype: Any) -> tuple[int, int, int]:
        return (self.groups, _DEPTH * self.steps, self.row_blocks(dtype) * self.rows(dtype))

    def defines(self, dtype: Any) -> launcher.Defines:
        """Return the defines of the kernel for features of this dtype."""
        return (launcher.dtype_define(dtype), ("ROWS", str(self.rows(dtype))))

    def launch(self, batch: int, out_height: int, out_width: int, dtype: Any) -> Launch:
        """Return the launch parameters for an output of this size."""
        size = np.dtype(dtype).itemsize
        # Rows in shared memory are padded by 16 bytes, so that neighbouring rows use different banks.
        gap = 16 // size
        columns = _DEPTH * (_PIXELS + gap) if size == 4 else _PIXELS * (_DEPTH + gap)
        tiles = 2 * size * (_DEPTH * (self.rows(dtype) + gap) + columns)
        sums = 4 * self.rows(dtype) * (_PIXELS + 4)
        grid = (-(-out_height * out_width // _PIXELS), self.row_blocks(dtype), batch * self.groups)
        return Launch(grid, (_THREADS, 1, 1), max(tiles, sums))

    def __call__(self, x: Any, offset: Any, mask: Any, packed: Any, bias: Any = None, out: Any = None) -> Any:
        """Convolve; C = in_channels, O = out_channels, G = offset_groups, K = kh * kw taps, row by row.

        x: (B, C, H, W), float32 or float16. offset: (B, 2 * G * K, Hout, Wout) float32, in pixels, dy of a tap before
        its dx. mask: (B, G * K, Hout, Wout) float32. packed: the weight from `pack`. bias: (O,); both of x's dtype.
        x is 0 outside of its borders. Sums are float32.
        Returns (B, O, Hout, Wout) of x's dtype: `out` if it is given, else a new array. Raises ValueError for shapes or
        dtypes that do not match.
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f"x must be of shape (B, {self.in_channels}, H, W), not {x.shape}")
        batch, _, height, width = x.shape
        size = self.out_size(height, width)
        maps = self.offset_groups * self.taps
        shape = (batch, self.out_channels, *size)
        out = launcher.empty(x, shape) if out is None else out
        _check("offset", offset, (batch, 2 * maps, *size), np.float32)
        _check("mask", mask, (batch, maps, *size), np.float32)
        _check("packed", packed, self._packed_shape(x.dtype), x.dtype)
        _check("out", out, shape, x.dtype)
        if bias is not None:
            _check("bias", bias, (self.out_channels,), x.dtype)
        if not out.size:
            return out
        if not x.size:
            out[...] = 0 if bias is None else bias[:, None, None]
            return out

        packed = packed if launcher.is_aligned(packed) else packed.copy()
        pairs = (*self.kernel, *self.stride, *self.padding, *self.dilation)
        integers = (*x.shape[1:], *shape[1:], *pairs, self.groups, self.offset_groups, self.run_channels, self.steps)
        launcher.launch(
            "deform_conv",
            self.defines(x.dtype),
            "deform_conv",
            self.launch(batch, *size, x.dtype),
            *(x, offset, mask, packed, np.uintp(0) if bias is None else bias, out),
            *(np.int32(i) for i in integers),
        )
        return out


def _round_up_to_strips(channels: int) -> int:
    return -(-channels // _STRIP) * _STRIP


def _check(name: str, array: Any, shape: tuple[int, ...], dtype: Any) -> None:
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"{name} must be of shape {shape} and {np.dtype(dtype)}, not {array.shape} and {array.dtype}")
