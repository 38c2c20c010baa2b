"""Sampling, resizing and deformable convolution in plain PyTorch.

The operators run on any device and size, are differentiable, and export as standard ONNX operators. Positions are in
pixels, with 0 at the centre of the first pixel; x runs along columns, y along rows.
"""

import functools
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...engine.contract.resize import cubic_kernel

# What a read outside the features returns: `zeros` returns 0, `clamp` repeats the nearest edge pixel.
Border = Literal["zeros", "clamp"]
Rows = tuple[tuple[float, ...], ...]  # of a matrix
_PADDING_MODES = {"zeros": "zeros", "clamp": "border"}


def target_coordinates(n_in: int, n_out: int, device: torch.device | None = None) -> Tensor:
    """Return the centres of `n_out` target pixels that cover `n_in` input pixels.

    The result is `(n_out,)`, float32, in input pixels.
    """
    centre = torch.arange(n_out, device=device, dtype=torch.float64) + 0.5
    return (centre * n_in / n_out - 0.5).float()


def sample(features: Tensor, x: Tensor, y: Tensor, border: Border = "zeros") -> Tensor:
    """Sample features bilinearly at arbitrary positions.

    `features`: `(B, C, H, W)`; `x`, `y`: `(B, Hout, Wout)` in pixels. Returns `(B, C, Hout, Wout)` in the features'
    dtype.
    """
    # float16 rounds a position at column 1000 by half a pixel: compute positions and samples in float32 at least.
    dtype = torch.promote_types(x.dtype, torch.float32)
    height, width = features.shape[-2:]
    # With `align_corners=True` a map of one row or column would divide by zero.
    grid = torch.stack(((2 * x.to(dtype) + 1) / width - 1, (2 * y.to(dtype) + 1) / height - 1), dim=-1)
    padding_mode = _PADDING_MODES[border]
    return F.grid_sample(features.to(dtype), grid, "bilinear", padding_mode, align_corners=False).to(features.dtype)


def warp(features: Tensor, flow: Tensor, border: Border = "zeros") -> Tensor:
    """Warp features backwards: sample each output pixel at its own position plus its flow.

    `features`: `(B, C, H, W)`; `flow`: `(B, 2, H, W)`, (dx, dy) in pixels. Returns `(B, C, H, W)`.
    """
    height, width = flow.shape[-2:]
    dtype = torch.promote_types(flow.dtype, torch.float32)
    x = torch.arange(width, device=flow.device, dtype=dtype)[None, None, :] + flow[:, 0].to(dtype)
    y = torch.arange(height, device=flow.device, dtype=dtype)[None, :, None] + flow[:, 1].to(dtype)
    return sample(features, x, y, border)


def sample_nearest(features: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Take the nearest pixel at every crossing of the rows `y` and the columns `x`.

    Positions outside take the edge pixel. `features`: `(B, C, H, W)`; `y`: `(Hout,)`, `x`: `(Wout,)` in pixels.
    Returns `(B, C, Hout, Wout)`.
    """
    rows, columns = (nearest_index(p, n) for p, n in zip((y, x), features.shape[-2:], strict=True))
    return features.index_select(2, rows).index_select(3, columns)


def nearest_index(position: Tensor, size: int) -> Tensor:
    """Return the index of the pixel nearest to each position, clamped to `size` pixels. `(N,)` -> `(N,)` int64"""
    return position.round().clamp(0, size - 1).long()


def sample_bilinear(features: Tensor, y: Tensor, x: Tensor, border: Border = "clamp") -> Tensor:
    """Sample features bilinearly at every crossing of the rows `y` and the columns `x`, one axis after the other.

    `features`: `(B, C, H, W)`; `y`: `(Hout,)`, `x`: `(Wout,)` in pixels. Returns `(B, C, Hout, Wout)`.
    """
    for dim, position in ((2, y), (3, x)):
        last = features.shape[dim] - 1
        inside = position.clamp(0, last)
        low = inside.floor()
        weight = (inside - low).to(features.dtype)
        if border == "zeros":
            inner_weight = _inner_weight(position, features.shape[dim]).to(features.dtype)
            low_weight, high_weight = (1 - weight) * inner_weight, weight * inner_weight
        else:
            low_weight, high_weight = 1 - weight, weight
        column_shape = (-1, 1) if dim == 2 else (-1,)
        low_index = low.long()
        high_index = (low_index + 1).clamp(max=last)
        below = features.index_select(dim, low_index) * low_weight.view(column_shape)
        features = below + features.index_select(dim, high_index) * high_weight.view(column_shape)
    return features


def _inner_weight(position: Tensor, size: int) -> Tensor:
    """Return the weight, 0 to 1, of a bilinear sample that falls on pixels of [0, size) rather than on zeros."""
    overshoot = F.relu(-position) + F.relu(position - (size - 1))
    return F.relu(1 - overshoot)


def spacing(at: Tensor) -> Tensor:
    """Return the mean distance between target pixels in input pixels; 0 for a single one. `(N,)` -> `()`"""
    return (at[-1] - at[0]) / max(at.shape[0] - 1, 1)


def cubic_at(x: Tensor, at: Tensor, dim: int) -> Tensor:
    """Interpolate by cubic convolution (Keys 1981, a = -1/2) along `dim` at positions `(N,)` in cells.

    Taps beyond the ends take the edge pixel.
    """
    last = x.shape[dim] - 1
    low = at.floor()
    d = (at - low).view(-1, *[1] * (x.ndim - 1 - dim))
    taps = (
        ((-0.5 * d + 1.0) * d - 0.5) * d,
        (1.5 * d - 2.5) * d * d + 1.0,
        ((-1.5 * d + 2.0) * d + 0.5) * d,
        (0.5 * d - 0.5) * d * d,
    )
    low = low.long()
    parts = [x.index_select(dim, (low + k).clamp(0, last)) * tap for k, tap in zip((-1, 0, 1, 2), taps, strict=True)]
    return parts[0] + parts[1] + parts[2] + parts[3]


def cubic_at_phases(frames: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Interpolate as `cubic_at` does at the same phases of every pixel, by one matrix product.

    `y`: `(R,)`, `x`: `(C,)`, distances from the pixel's centre, from -0.5 to 0.5. `(B, C', H, W)` ->
    `(B, C', R, C, H, W)`, for `interleave_phases`
    """
    H, W = frames.shape[2:]
    rows, columns = (torch.arange(-2, n + 2, device=frames.device).clamp(0, n - 1) for n in (H, W))
    padded = frames.index_select(2, rows).index_select(3, columns)
    taps = torch.stack([padded[..., j : j + H, k : k + W] for j in range(5) for k in range(5)], 2)
    weights = (_cubic_taps(y)[:, None, :, None] * _cubic_taps(x)[:, None]).flatten(2).flatten(0, 1)  # (R * C, 25)
    return (weights @ taps.flatten(3)).view(*frames.shape[:2], y.shape[0], x.shape[0], H, W)


def interleave_phases(phases: Tensor) -> Tensor:
    """Arrange the phases of every pixel as a larger frame. `(B, C', R, C, H, W)` -> `(B, C', R * H, C * W)`"""
    B, channels, rows, columns, H, W = phases.shape
    return phases.permute(0, 1, 4, 2, 5, 3).reshape(B, channels, rows * H, columns * W)


def _cubic_taps(at: Tensor) -> Tensor:
    """Return the weights of pixels -2 to 2 at distances from the centre of pixel 0. `(N,)` -> `(N, 5)`"""
    d = (at[:, None] - torch.arange(-2, 3, device=at.device)).abs()
    near, far = (1.5 * d - 2.5) * d * d + 1.0, ((-0.5 * d + 2.5) * d - 4.0) * d + 2.0
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))


def upsample_cubic(x: Tensor, dim: int, factor: int) -> Tensor:
    """Enlarge one axis by a whole factor, by cubic convolution (Keys 1981, a = -1/2).

    Pixel centres lie half-way between edges, and the ends are mirrored with their edge pixels, as in MATLAB's imresize.
    `x` has a length of 2 or more along `dim`; the result has `factor` times that length.
    """
    padded = torch.cat((_mirrored(x, dim, 0, 2), x, _mirrored(x, dim, -2, None)), dim)
    length = x.shape[dim]
    phases = []
    for weights in cubic_phases(factor):
        first, *others = [w * padded.narrow(dim, j, length) for j, w in enumerate(weights) if w]
        phases.append(sum(others, first))
    return torch.stack(phases, dim + 1).flatten(dim, dim + 1)


def upsample_bicubic(x: Tensor, factor: int) -> Tensor:
    """Enlarge both axes as `upsample_cubic` does, by one convolution. `(B, C, H, W)` -> `(B, C, f * H, f * W)`"""
    B, C, H, W = x.shape
    x = torch.cat((_mirrored(x, 2, 0, 2), x, _mirrored(x, 2, -2, None)), 2)
    x = torch.cat((_mirrored(x, 3, 0, 2), x, _mirrored(x, 3, -2, None)), 3)
    phases = constant(cubic_phases(factor), x)
    weight = (phases[:, None, :, None] * phases[None, :, None, :]).view(factor * factor, 1, 5, 5)
    out = F.conv2d(x.reshape(B * C, 1, H + 4, W + 4), weight)
    return F.pixel_shuffle(out, factor).view(B, C, factor * H, factor * W)


def _mirrored(x: Tensor, dim: int, start: int, stop: int | None) -> Tensor:
    """Return the slice [start, stop) along `dim` in reverse order."""
    index = [slice(None)] * x.ndim
    index[dim] = slice(start, stop)
    return x[tuple(index)].flip(dim)


def cubic_phases(factor: int) -> Rows:
    """Return the weights of input pixels i - 2 to i + 2 in each of the `factor` output pixels inside pixel i."""
    centres = (np.arange(factor)[:, None] + 0.5) / factor - 0.5
    return tuple(map(tuple, cubic_kernel(centres - np.arange(-2, 3)).tolist()))


def constant(values: tuple[float, ...] | Rows, like: Tensor) -> Tensor:
    """Return numbers as a tensor of the dtype and on the device of another one.

    On a GPU they are copied once: a CUDA graph cannot copy from the host's memory.
    """
    stays = like.is_cuda and not torch.compiler.is_compiling()
    return (_stored if stays else _stored.__wrapped__)(values, like.dtype, like.device)


@functools.cache
def _stored(values: tuple[float, ...] | Rows, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)


def modulated_deform_conv2d(
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    offset_groups: int = 1,
) -> Tensor:
    """Apply a modulated deformable convolution (DCNv2): each kernel tap has its own offset and weight per pixel.

    `x`: `(B, C, H, W)`; `weight`: `(O, C, kh, kw)`; `bias`: `(O,)`. With G offset groups of C / G channels each, and
    K = kh * kw taps in row order:
    `offset`: `(B, 2 * G * K, Hout, Wout)` in pixels, the dy of a tap before its dx; `mask`: `(B, G * K, Hout, Wout)`.
    Returns `(B, O, Hout, Wout)`.

    An exported graph contains the operator as one `DeformConv` node, which `stvsr.export.translations` defines.
    """
    operator = _deform_conv2d_node if torch.compiler.is_exporting() else _deform_conv2d
    return operator(x, offset, mask, weight, bias, stride, padding, dilation, offset_groups)


def _deform_conv2d(
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: int,
    dilation: int,
    offset_groups: int,
) -> Tensor:
    """Sample all taps at once, then multiply by the weights as one matrix."""
    batch, channels = x.shape[:2]
    out_channels, _, kernel_h, kernel_w = weight.shape
    height, width = offset.shape[-2:]
    taps = kernel_h * kernel_w
    maps = batch * offset_groups
    dtype = torch.promote_types(offset.dtype, torch.float32)

    row = torch.arange(height, device=x.device, dtype=dtype) * stride - padding
    column = torch.arange(width, device=x.device, dtype=dtype) * stride - padding
    tap = torch.arange(taps, device=x.device)
    tap_y = (torch.div(tap, kernel_w, rounding_mode="floor") * dilation)[:, None, None]
    tap_x = (tap % kernel_w * dilation)[:, None, None]
    offset = offset.reshape(maps, taps, 2, height, width).to(dtype)
    y_position = offset[:, :, 0] + (tap_y + row[:, None])
    x_position = offset[:, :, 1] + (tap_x + column)

    groups = x.reshape(maps, channels // offset_groups, *x.shape[2:])
    positions_shape = (maps, taps * height, width)
    # (B * G, C / G, K * Hout, Wout)
    columns = sample(groups, x_position.reshape(positions_shape), y_position.reshape(positions_shape))
    columns = columns.view(batch, offset_groups, -1, taps, height * width)
    columns = columns * mask.reshape(batch, offset_groups, 1, taps, height * width)
    out = weight.reshape(out_channels, -1) @ columns.view(batch, channels * taps, height * width)
    if bias is not None:
        out = out + bias[:, None]
    return out.view(batch, out_channels, height, width)


# The same operator as one node of an exported graph.
_deform_conv2d_node = torch.library.custom_op("stvsr::deform_conv2d", _deform_conv2d, mutates_args=())


@_deform_conv2d_node.register_fake
def _(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, *_rest: object) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0], *offset.shape[-2:])
