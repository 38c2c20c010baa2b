"""What the kernels compute, in NumPy and double precision: slow, plain, and the truth that tests compare with.

Positions are in pixels with 0 at the centre of the first pixel.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

Array = NDArray[np.float64]


def bilinear(features: ArrayLike, y: ArrayLike, x: ArrayLike, border: Literal["zeros", "clamp"] = "zeros") -> Array:
    """Read features at any positions. (B, C, H, W), (B, Hout, Wout) twice -> (B, C, Hout, Wout)."""
    features, y, x = (np.asarray(value, np.float64) for value in (features, y, x))
    height, width = features.shape[-2:]
    if border == "clamp":
        y, x = y.clip(0, height - 1), x.clip(0, width - 1)
    # Zeros all around; what is further out than those is as zero as they are.
    padded = np.pad(features, ((0, 0), (0, 0), (1, 1), (1, 1)))
    y, x = (np.clip(value + 1, 0, size + 1) for value, size in ((y, height), (x, width)))
    top, left = np.minimum(y.astype(int), height), np.minimum(x.astype(int), width)
    down, right = (y - top)[:, None], (x - left)[:, None]
    item = np.arange(len(features))[:, None, None]

    def corner(dy: int, dx: int) -> Array:
        return np.moveaxis(padded[item, :, top + dy, left + dx], -1, 1)

    upper = corner(0, 0) * (1 - right) + corner(0, 1) * right
    return upper * (1 - down) + (corner(1, 0) * (1 - right) + corner(1, 1) * right) * down


def warp(
    features: ArrayLike,
    flows: ArrayLike,
    border: Literal["zeros", "clamp"] = "zeros",
    align_corners: bool = True,
    grid_limit: float | None = None,
) -> Array:
    """See `warp.warp`. (B, C, H, W), (B, 2 * F, Hout, Wout) -> (B, F * C, Hout, Wout)"""
    features, flows = np.asarray(features, np.float64), np.asarray(flows, np.float64)
    return np.concatenate(
        [
            bilinear(
                features,
                _read_at(np.arange(flows.shape[2])[:, None] + dy, features.shape[2], align_corners, grid_limit),
                _read_at(np.arange(flows.shape[3]) + dx, features.shape[3], align_corners, grid_limit),
                border,
            )
            for dx, dy in zip(flows[:, 0::2].swapaxes(0, 1), flows[:, 1::2].swapaxes(0, 1), strict=True)
        ],
        axis=1,
    )


def _read_at(position: Array, size: int, align_corners: bool, grid_limit: float | None) -> Array:
    if align_corners and grid_limit is None:
        return position
    grid = 2 * position / (size - 1) - 1
    if grid_limit is not None:
        grid = grid.clip(-grid_limit, grid_limit)
    return (grid + 1) / 2 * (size - 1) if align_corners else ((grid + 1) * size - 1) / 2


def deform_columns(
    x: ArrayLike,
    offset: ArrayLike,
    mask: ArrayLike,
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    offset_groups: int = 1,
) -> Array:
    """What a deformable convolution multiplies by its weight. -> (B, C, K, Hout, Wout); see `deform_conv`."""
    x, offset, mask = (np.asarray(value, np.float64) for value in (x, offset, mask))
    batch, channels = x.shape[:2]
    height, width = offset.shape[-2:]
    taps = kernel[0] * kernel[1]
    offset = offset.reshape(batch, offset_groups, taps, 2, height, width)
    mask = mask.reshape(batch, offset_groups, taps, height, width)
    row = np.arange(height)[:, None] * stride[0] - padding[0]
    column = np.arange(width) * stride[1] - padding[1]
    columns = np.empty((batch, channels, taps, height, width))
    size = channels // offset_groups
    for group in range(offset_groups):
        part = slice(group * size, (group + 1) * size)
        for tap in range(taps):
            y = row + tap // kernel[1] * dilation[0] + offset[:, group, tap, 0]
            place = column + tap % kernel[1] * dilation[1] + offset[:, group, tap, 1]
            columns[:, part, tap] = bilinear(x[:, part], y, place) * mask[:, group, tap, None]
    return columns


def deform_conv(
    x: ArrayLike,
    offset: ArrayLike,
    mask: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    offset_groups: int = 1,
) -> Array:
    """Deformable convolution, version 2; pairs are (rows, columns).

    x: (B, C, H, W); weight: (O, C / groups, kh, kw); bias: (O,); K = kh * kw taps, row by row.
    offset: (B, 2 * G * K, Hout, Wout) in pixels, dy of a tap before its dx; mask: (B, G * K, Hout, Wout).
    Returns (B, O, Hout, Wout).
    """
    weight = np.asarray(weight, np.float64)
    kernel = (weight.shape[2], weight.shape[3])
    columns = deform_columns(x, offset, mask, kernel, stride, padding, dilation, offset_groups)
    return multiply_columns(columns, weight, bias, groups)


def multiply_columns(columns: Array, weight: ArrayLike, bias: ArrayLike | None = None, groups: int = 1) -> Array:
    """(B, C, K, Hout, Wout), (O, C / groups, kh, kw), (O,) -> (B, O, Hout, Wout)"""
    weight = np.asarray(weight, np.float64)
    batch, channels, taps, height, width = columns.shape
    parts = columns.reshape(batch, groups, channels // groups * taps, height * width)
    out = weight.reshape(groups, len(weight) // groups, -1) @ parts
    out = out.reshape(batch, len(weight), height, width)
    return out if bias is None else out + np.asarray(bias, np.float64)[:, None, None]


def chroma_at_luma(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    """4:2:0 chroma at every pixel, linearly; it lies left of and between rows. (h, w) -> (height, width) float64."""
    y, x = np.arange(height) / 2 - 0.25, np.arange(width) / 2
    rows = _linear(plane.astype(np.float64), np.clip(y, 0, plane.shape[0] - 1))
    return _linear(rows.T, np.clip(x, 0, plane.shape[1] - 1)).T


def _linear(rows: np.ndarray, place: np.ndarray) -> np.ndarray:
    low = np.floor(place).astype(int)
    share = (place - low)[:, None]
    return rows[low] * (1 - share) + rows[np.minimum(low + 1, len(rows) - 1)] * share


def yuv420_to_rgb(
    yuv: Sequence[np.ndarray], luma_weights: tuple[float, float], full_range: bool, bits: int
) -> np.ndarray:
    """Codes of luma (H, W) and of blue's and red's chroma, each half as large, rounded up -> (3, H, W) in [0, 1].

    luma_weights: Kr and Kb, those of red and blue in luma. Returns float64.
    """
    kr, kb = luma_weights
    luma, chroma, black, grey = _code_scales(full_range, bits)
    y = (yuv[0].astype(np.float64) - black) / luma
    blue, red = ((chroma_at_luma(plane, *y.shape) - grey) / chroma for plane in yuv[1:])
    r, b = y + 2 * (1 - kr) * red, y + 2 * (1 - kb) * blue
    return np.clip(np.stack([r, (y - kr * r - kb * b) / (1 - kr - kb), b]), 0, 1)


def rgb_to_yuv420(
    rgb: np.ndarray, luma_weights: tuple[float, float], full_range: bool, bits: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(3, H, W), clipped to [0, 1] -> codes, not rounded, of luma (H, W) and of chroma, half as large, rounded up.

    A sample of chroma is the mean of two rows, and of three columns by 1/4, 1/2, 1/4; edges repeat. Returns float64.
    """
    kr, kb = luma_weights
    luma, chroma, black, grey = _code_scales(full_range, bits)
    r, g, b = np.clip(rgb.astype(np.float64), 0, 1)
    y = kr * r + (1 - kr - kb) * g + kb * b
    planes = [luma * y + black]
    for difference in ((b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))):
        height, width = difference.shape
        even = np.pad(difference, ((0, height % 2), (1, 1 + width % 2)), mode="edge")
        rows = (even[0::2] + even[1::2]) / 2
        columns = rows[:, 0:-2:2] / 4 + rows[:, 1:-1:2] / 2 + rows[:, 2::2] / 4
        planes.append(chroma * columns + grey)
    return planes[0], planes[1], planes[2]


def _code_scales(full_range: bool, bits: int) -> tuple[float, float, float, float]:
    """Codes of luma and of chroma per unit, the code of black and that of no colour."""
    if full_range:
        return 2**bits - 1, 2**bits - 1, 0, 2 ** (bits - 1)
    step = 2 ** (bits - 8)
    return 219 * step, 224 * step, 16 * step, 128 * step


def bayer_thresholds(height: int, width: int) -> np.ndarray:
    """An 8 x 8 ordered dither, evenly between -1/2 and 1/2, repeated. -> (height, width) float64"""
    ranks = np.zeros((1, 1))
    for _ in range(3):
        ranks = np.block([[4 * ranks, 4 * ranks + 2], [4 * ranks + 3, 4 * ranks + 1]])
    tile = (ranks + 0.5) / 64 - 0.5
    return tile[np.arange(height)[:, None] % 8, np.arange(width) % 8]


def blend_tiles(
    tiles: Iterable[tuple[np.ndarray, tuple[int, int], tuple[int, int, int, int]]], size: tuple[int, int]
) -> np.ndarray:
    """Weighted mean of tiles, 0 where there is none.

    tiles: (C, h, w), its top and left in the picture, and its feathers in pixels: top, bottom, left, right.
    Returns (C, *size) float64.
    """
    sums: np.ndarray | float = 0.0
    weights = np.zeros(size)
    for tile, (top, left), (*vertical, before, after) in tiles:
        _, height, width = tile.shape
        weight = np.outer(_ramp(height, vertical[0], vertical[1]), _ramp(width, before, after))
        rows, columns = np.arange(height) + top, np.arange(width) + left
        inside = np.ix_((rows >= 0) & (rows < size[0]), (columns >= 0) & (columns < size[1]))
        place = np.ix_(rows[inside[0].ravel()], columns[inside[1].ravel()])
        placed = np.zeros((len(tile), *size))
        placed[:, place[0], place[1]] = (tile.astype(np.float64) * weight)[:, inside[0], inside[1]]
        sums = sums + placed
        weights[place] += weight[inside]
    return np.divide(sums, weights, out=np.zeros_like(sums), where=weights > 0)


def _ramp(length: int, before: int, after: int) -> np.ndarray:
    place = np.arange(length) + 0.5
    return np.minimum(place / max(before, 1e-9), 1) * np.minimum((length - place) / max(after, 1e-9), 1)


class Axis(Protocol):
    """Rows or columns of a target: `stvsr.kernels.implicit.TargetAxis`."""

    position: np.ndarray  # (N,) in input pixels
    index: np.ndarray  # (N,) in target pixels
    nearest: np.ndarray  # (N,) input pixels
    size: np.floating  # of the whole target, in target pixels


def implicit_decode(
    weights: Mapping[str, np.ndarray],
    features: np.ndarray,
    time: np.ndarray,
    rows: Axis,
    columns: Axis,
    *,
    official_sampling: bool,
    frame_upsample: int,
    dtype: DTypeLike = np.float64,
) -> np.ndarray:
    """VideoINR's decoder, step by step as the paper says it, for one time per batch item.

    weights: of its three SIRENs, under their names in a checkpoint. features: (B, 3 * nf + 6, H, W), two frames last.
    time: (B,). dtype: of features, weights and every step; coordinates are float64. Returns (B, 3, Hout, Wout).
    """
    sirens = [_siren_layers(weights, name, dtype) for name in ("feat_imnet", "flow_imnet", "encode_imnet")]
    out = [
        _implicit_decode(sirens, item.astype(dtype), moment, rows, columns, official_sampling, frame_upsample)
        for item, moment in zip(features, time, strict=True)
    ]
    return np.stack(out)


def _implicit_decode(
    sirens: list[list[tuple[np.ndarray, np.ndarray]]],
    features: np.ndarray,
    moment: float,
    rows: Axis,
    columns: Axis,
    official: bool,
    factor: int,
) -> np.ndarray:
    border: Literal["zeros", "clamp"] = "zeros" if official else "clamp"
    dtype, shape = features.dtype, (len(rows.position), len(columns.position))
    here_y, here_x = np.meshgrid(rows.position.astype(np.float64), columns.position.astype(np.float64), indexing="ij")
    index_y, index_x = np.meshgrid(rows.index.astype(np.float64), columns.index.astype(np.float64), indexing="ij")
    encoded, frames = features[:-6], enlarge_bilinear(features[-6:], factor)
    time = np.full((1, *shape), moment, dtype)

    way = 2 * np.stack([here_y - rows.nearest[:, None], here_x - columns.nearest])
    nearest = features[:, rows.nearest[:, None], columns.nearest]
    target = siren(np.concatenate([nearest, way.astype(dtype), time]), sirens[0])

    def on_frames(place: np.ndarray) -> np.ndarray:
        return (place + 0.5) * factor - 0.5

    found = [_read(encoded, here_y, here_x, border)]
    found.append(_read(frames, on_frames(here_y), on_frames(here_x), border))
    flows = siren(np.concatenate([target, *found, time]), sirens[1]).astype(np.float64)

    readings: list[list[np.ndarray]] = [[], [], []]
    for flow_x, flow_y in (flows[:2], flows[2:]):
        y, x = index_y + flow_y, index_x + flow_x
        if official:
            y, x = (_off_centre(place, float(axis.size)) for place, axis in ((y, rows), (x, columns)))
        shares = (_share_inside(y, float(rows.size)) * _share_inside(x, float(columns.size))) if official else 1.0
        there = _read(target, y - index_y[0, 0], x - index_x[0, 0], "clamp")
        readings[0].append((there * shares).astype(dtype))
        y, x = (
            (place + 0.5) * (length / float(axis.size)) - 0.5
            for place, axis, length in ((y, rows, features.shape[1]), (x, columns, features.shape[2]))
        )
        readings[1].append(_read(encoded, y, x, border))
        readings[2].append(_read(frames, on_frames(y), on_frames(x), border))
    return siren(np.concatenate([*(part for pair in readings for part in pair), time]), sirens[2])


def siren(x: np.ndarray, layers: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Layers sin(30 (W x + b)), the last one without sine; every step in the type of x. (in, ...) -> (out, ...)"""
    shape = x.shape[1:]
    x = x.reshape(len(x), -1)
    for number, (weight, bias) in enumerate(layers):
        x = weight @ x + bias[:, None]
        if number + 1 < len(layers):
            x = np.sin(x.dtype.type(30) * x)
    return x.reshape(-1, *shape)


def _siren_layers(
    weights: Mapping[str, np.ndarray], name: str, dtype: DTypeLike
) -> list[tuple[np.ndarray, np.ndarray]]:
    last = max(int(key.split(".")[2]) for key in weights if key.startswith(f"{name}.net."))
    stems = [f"{name}.net.{i}.linear" for i in range(last)] + [f"{name}.net.{last}"]
    return [(weights[f"{stem}.weight"].astype(dtype), weights[f"{stem}.bias"].astype(dtype)) for stem in stems]


def enlarge_bilinear(frames: np.ndarray, factor: int) -> np.ndarray:
    """(C, H, W) -> (C, factor * H, factor * W), edges repeated."""
    height, width = frames.shape[1:]
    y, x = ((np.arange(factor * n) + 0.5) / factor - 0.5 for n in (height, width))
    return _read(frames, *np.meshgrid(y, x, indexing="ij"), "clamp")


def _read(features: np.ndarray, y: np.ndarray, x: np.ndarray, border: Literal["zeros", "clamp"]) -> np.ndarray:
    """`bilinear` for one item, rounded to the features' type. (C, H, W) -> (C, Hout, Wout)"""
    return bilinear(features[None], y[None], x[None], border)[0].astype(features.dtype)


def _off_centre(place: np.ndarray, size: float) -> np.ndarray:
    """Official warping: from a grid whose corners are pixel centres to one whose corners are pixel corners."""
    edge = 1 - 1e-6
    return ((np.clip(2 * place / (size - 1) - 1, -edge, edge) + 1) * size - 1) / 2


def _share_inside(place: np.ndarray, size: float) -> np.ndarray:
    """Share of a bilinear reading that lies inside of [0, size)."""
    return np.maximum(1 - np.maximum(-place, 0) - np.maximum(place - (size - 1), 0), 0)
