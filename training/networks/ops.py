"""Sampling operators in plain PyTorch: any device, any size, differentiable, and exported as standard ONNX operators.

Positions are in pixels with 0 at the centre of the first pixel, and x (columns) is apart from y (rows).
"""

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...engine.contract.resize import cubic_kernel

# Outside of the features: `zeros` reads 0 there, `clamp` repeats the nearest edge pixel.
Border = Literal["zeros", "clamp"]
_PADDING_MODES = {"zeros": "zeros", "clamp": "border"}


def target_coordinates(n_in: int, n_out: int, device: torch.device | None = None) -> Tensor:
    """Centres of n_out target pixels over n_in input pixels, in input pixels. -> (n_out,) float32."""
    centre = torch.arange(n_out, device=device, dtype=torch.float64) + 0.5
    return (centre * n_in / n_out - 0.5).float()


def sample(features: Tensor, x: Tensor, y: Tensor, border: Border = "zeros") -> Tensor:
    """Read features bilinearly at any positions.

    features: (B, C, H, W); x, y: (B, Hout, Wout) in pixels. Returns (B, C, Hout, Wout).
    """
    # Half a pixel is lost at column 1000 in half precision: positions, and so the sampling, take float32 at least.
    dtype = torch.promote_types(x.dtype, torch.float32)
    height, width = features.shape[-2:]
    # Corners are not aligned: this keeps a feature map of one row or one column well defined.
    grid = torch.stack(((2 * x.to(dtype) + 1) / width - 1, (2 * y.to(dtype) + 1) / height - 1), dim=-1)
    padding_mode = _PADDING_MODES[border]
    return F.grid_sample(features.to(dtype), grid, "bilinear", padding_mode, align_corners=False).to(features.dtype)


def warp(features: Tensor, flow: Tensor, border: Border = "zeros") -> Tensor:
    """Warp backwards: each output pixel is read at its own position plus its flow.

    features: (B, C, H, W); flow: (B, 2, H, W) in pixels (dx, dy). Returns (B, C, H, W).
    """
    height, width = flow.shape[-2:]
    dtype = torch.promote_types(flow.dtype, torch.float32)
    x = torch.arange(width, device=flow.device, dtype=dtype)[None, None, :] + flow[:, 0].to(dtype)
    y = torch.arange(height, device=flow.device, dtype=dtype)[None, :, None] + flow[:, 1].to(dtype)
    return sample(features, x, y, border)


def sample_nearest(features: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Pick the nearest feature at every crossing of rows y and columns x; positions outside take the edge.

    features: (B, C, H, W); y: (Hout,), x: (Wout,) in pixels. Returns (B, C, Hout, Wout).
    """
    rows, columns = (nearest_index(p, n) for p, n in zip((y, x), features.shape[-2:], strict=True))
    return features.index_select(2, rows).index_select(3, columns)


def nearest_index(position: Tensor, size: int) -> Tensor:
    """Index of the pixel that is nearest to each position, the edge where it is outside. (N,) -> (N,) int64."""
    return position.round().clamp(0, size - 1).long()


def sample_bilinear(features: Tensor, y: Tensor, x: Tensor, border: Border = "clamp") -> Tensor:
    """Read features bilinearly at every crossing of rows y and columns x.

    features: (B, C, H, W); y: (Hout,), x: (Wout,) in pixels. Returns (B, C, Hout, Wout).
    """
    for dim, position in ((2, y), (3, x)):
        last = features.shape[dim] - 1
        inside = position.clamp(0, last)
        low = inside.floor()
        share = (inside - low).to(features.dtype)
        if border == "zeros":
            inner_share = _inner_share(position, features.shape[dim]).to(features.dtype)
            low_share, high_share = (1 - share) * inner_share, share * inner_share
        else:
            low_share, high_share = 1 - share, share
        column_shape = (-1, 1) if dim == 2 else (-1,)
        low_index = low.long()
        high_index = (low_index + 1).clamp(max=last)
        features = features.index_select(dim, low_index) * low_share.view(column_shape) + features.index_select(
            dim, high_index
        ) * high_share.view(column_shape)
    return features


def _inner_share(position: Tensor, size: int) -> Tensor:
    """Weight, 0 to 1, that bilinear reading gives to pixels inside [0, size) rather than to the zeros outside."""
    overshoot = F.relu(-position) + F.relu(position - (size - 1))
    return F.relu(1 - overshoot)


def upsample_cubic(x: Tensor, dim: int, factor: int) -> Tensor:
    """Longer by a whole factor along one axis, by cubic convolution (Keys 1981, a = -1/2).

    Pixel centres are half-way between edges, and the ends are mirrored with their edge pixels, as MATLAB's imresize
    does. x: at least two long along ``dim``. Returns x's shape with ``factor`` times the length of ``dim``.
    """
    padded = torch.cat((_ends(x, dim, 0, 2), x, _ends(x, dim, -2, None)), dim)
    length = x.shape[dim]
    phases = []
    for weights in cubic_phases(factor):
        first, *others = [w * padded.narrow(dim, j, length) for j, w in enumerate(weights) if w]
        phases.append(sum(others, first))
    return torch.stack(phases, dim + 1).flatten(dim, dim + 1)


def upsample_bicubic(x: Tensor, factor: int) -> Tensor:
    """Both axes by `upsample_cubic`, as one convolution. (B, C, H, W) -> (B, C, factor * H, factor * W)"""
    B, C, H, W = x.shape
    x = torch.cat((_ends(x, 2, 0, 2), x, _ends(x, 2, -2, None)), 2)
    x = torch.cat((_ends(x, 3, 0, 2), x, _ends(x, 3, -2, None)), 3)
    phases = torch.tensor(cubic_phases(factor), dtype=x.dtype, device=x.device)
    weight = (phases[:, None, :, None] * phases[None, :, None, :]).view(factor * factor, 1, 5, 5)
    out = F.conv2d(x.reshape(B * C, 1, H + 4, W + 4), weight)
    return F.pixel_shuffle(out, factor).view(B, C, factor * H, factor * W)


def _ends(x: Tensor, dim: int, start: int, stop: int | None) -> Tensor:
    """Two slices of an end, mirrored."""
    where = [slice(None)] * x.ndim
    where[dim] = slice(start, stop)
    return x[tuple(where)].flip(dim)


def cubic_phases(factor: int) -> list[list[float]]:
    """Weights of input pixels i - 2 to i + 2 in each of the ``factor`` output pixels that pixel i becomes."""
    centres = (np.arange(factor)[:, None] + 0.5) / factor - 0.5
    return cubic_kernel(centres - np.arange(-2, 3)).tolist()


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
    """Deformable convolution, version 2: every tap k of offset group g reads at its own place, and is weighed.

    x: (B, C, H, W); weight: (O, C, kh, kw); bias: (O,); K = kh * kw taps, row by row.
    offset: (B, 2 * G * K, Hout, Wout) in pixels, dy of a tap before its dx; mask: (B, G * K, Hout, Wout).
    Returns (B, O, Hout, Wout). An export holds it as one `DeformConv`, for which it needs the translations of
    `stvsr.export.translations`.
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
    """One sampling of all taps, then one matrix product."""
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
    moved = offset.reshape(maps, taps, 2, height, width).to(dtype)
    y = moved[:, :, 0] + (tap_y + row[:, None])
    x_position = moved[:, :, 1] + (tap_x + column)

    # (B * G, C / G, K * Hout, Wout)
    groups = x.reshape(maps, channels // offset_groups, *x.shape[2:])
    places = (maps, taps * height, width)
    columns = sample(groups, x_position.reshape(places), y.reshape(places))
    columns = columns.view(batch, offset_groups, -1, taps, height * width)
    columns = columns * mask.reshape(batch, offset_groups, 1, taps, height * width)
    out = weight.reshape(out_channels, -1) @ columns.view(batch, channels * taps, height * width)
    if bias is not None:
        out = out + bias[:, None]
    return out.view(batch, out_channels, height, width)


# The same operator as one node of an exported graph.
@torch.library.custom_op("stvsr::deform_conv2d", mutates_args=())
def _deform_conv2d_node(
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
    return _deform_conv2d(x, offset, mask, weight, bias, stride, padding, dilation, offset_groups)


@_deform_conv2d_node.register_fake
def _(
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
    return x.new_empty(x.shape[0], weight.shape[0], *offset.shape[-2:])
