"""Oracles of the kernels in NumPy and double precision: slow and plain, the truth that tests compare with.

Positions are in pixels, with 0 at the centre of the first pixel.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .videoinr_decoder import TargetAxis

Array = NDArray[np.float64]


def bilinear(features: ArrayLike, y: ArrayLike, x: ArrayLike, border: Literal["zeros", "clamp"] = "zeros") -> Array:
    """Read features bilinearly at any positions.

    features: (B, C, H, W); y, x: (B, Hout, Wout). Returns (B, C, Hout, Wout).
    """
    features, y, x = (np.asarray(value, np.float64) for value in (features, y, x))
    height, width = features.shape[-2:]
    if border == "clamp":
        y, x = y.clip(0, height - 1), x.clip(0, width - 1)
    # One border of zeros suffices: positions further out read zero as well.
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
    """Warp as `warp.warp` does. (B, C, H, W), (B, 2 * F, Hout, Wout) -> (B, F * C, Hout, Wout)"""
    features, flows = np.asarray(features, np.float64), np.asarray(flows, np.float64)
    return np.concatenate(
        [
            bilinear(
                features,
                _position_read(np.arange(flows.shape[2])[:, None] + dy, features.shape[2], align_corners, grid_limit),
                _position_read(np.arange(flows.shape[3]) + dx, features.shape[3], align_corners, grid_limit),
                border,
            )
            for dx, dy in zip(flows[:, 0::2].swapaxes(0, 1), flows[:, 1::2].swapaxes(0, 1), strict=True)
        ],
        axis=1,
    )


def _position_read(position: Array, size: int, align_corners: bool, grid_limit: float | None) -> Array:
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
    """Sample the columns that a deformable convolution multiplies by its weight; arguments as in `deform_conv`.

    Returns (B, C, K, Hout, Wout).
    """
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
            sample_y = row + tap // kernel[1] * dilation[0] + offset[:, group, tap, 0]
            sample_x = column + tap % kernel[1] * dilation[1] + offset[:, group, tap, 1]
            columns[:, part, tap] = bilinear(x[:, part], sample_y, sample_x) * mask[:, group, tap, None]
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
    """Compute a modulated deformable convolution (DCNv2); pairs are (rows, columns).

    x: (B, C, H, W). weight: (O, C / groups, kh, kw). bias: (O,). G = offset_groups, K = kh * kw taps, row by row.
    offset: (B, 2 * G * K, Hout, Wout) in pixels, dy of a tap before its dx. mask: (B, G * K, Hout, Wout).
    Returns (B, O, Hout, Wout).
    """
    weight = np.asarray(weight, np.float64)
    kernel = (weight.shape[2], weight.shape[3])
    columns = deform_columns(x, offset, mask, kernel, stride, padding, dilation, offset_groups)
    return multiply_columns(columns, weight, bias, groups)


def multiply_columns(columns: Array, weight: ArrayLike, bias: ArrayLike | None = None, groups: int = 1) -> Array:
    """Multiply sampled columns by a weight and add a bias.

    columns: (B, C, K, Hout, Wout). weight: (O, C / groups, kh, kw). bias: (O,). Returns (B, O, Hout, Wout).
    """
    weight = np.asarray(weight, np.float64)
    batch, channels, taps, height, width = columns.shape
    parts = columns.reshape(batch, groups, channels // groups * taps, height * width)
    out = weight.reshape(groups, len(weight) // groups, -1) @ parts
    out = out.reshape(batch, len(weight), height, width)
    return out if bias is None else out + np.asarray(bias, np.float64)[:, None, None]


def rgb_to_yuv420(
    rgb: np.ndarray, luma_weights: tuple[float, float], full_range: bool, bits: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Convert RGB to codes that are not rounded yet; arguments as in `color.from_rgb`.

    rgb: (3, H, W), clipped to [0, 1]. Returns float64 luma (H, W), and blue and red chroma of half that size, rounded
    up. A chroma sample is the mean of two rows, and of three columns weighted by 1/4, 1/2, 1/4; edges repeat.
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
    """Return the codes per unit of luma and of chroma, the code of black, and the chroma code of grey."""
    if full_range:
        return 2**bits - 1, 2**bits - 1, 0, 2 ** (bits - 1)
    step = 2 ** (bits - 8)
    return 219 * step, 224 * step, 16 * step, 128 * step


def fusion_inputs(features: ArrayLike, motion: ArrayLike, time: ArrayLike) -> tuple[Array, Array]:
    """Compute the inputs of Fourier-S's fusion and the blend of both frames, as `fusion_inputs.fusion_inputs` does.

    (B, 2F + 6, H, W), (B * K, 5, H, W), (B * K,) -> (B * K, 2F + 16, H, W), (B * K, 3, H, W)
    """
    features, motion, time = (np.asarray(value, np.float64) for value in (features, motion, time))
    features = features.repeat(len(time) // len(features), axis=0)
    count = (features.shape[1] - 6) // 2
    t = time[:, None, None, None]
    flows = t * motion[:, 0:2], (1 - t) * motion[:, 2:4]
    warped = []
    for i, flow in enumerate(flows):
        of_frame = [features[:, i * count :][:, :count], features[:, 2 * count + 3 * i :][:, :3]]
        warped.append(warp(np.concatenate(of_frame, axis=1), flow, "clamp"))
    visible = 1 / (1 + np.exp(-motion[:, 4:]))
    near, far = (1 - t) * visible + 1e-4, t * (1 - visible) + 1e-4
    base = (near * warped[0][:, count:] + far * warped[1][:, count:]) / (near + far)
    times = np.broadcast_to(np.concatenate([t, 1 - t], axis=1), (len(time), 2, *base.shape[2:]))
    return np.concatenate([*warped, base - 0.5, 0.1 * motion[:, :4], visible, times], axis=1), base


def fourier_field(
    coefficients: ArrayLike,
    base: ArrayLike,
    frequency: ArrayLike,
    colour: ArrayLike,
    spread: float,
    y: ArrayLike,
    x: ArrayLike,
) -> Array:
    """Render the crossings of rows and columns of a Fourier field over its base.

    coefficients: (B, 2N, H, W), of the sines, then of the cosines; base: (B, 3, H, W); frequency: (2, N); colour:
    (3, N); y: (Hout,), x: (Wout,), evenly spaced, in input pixels. Returns (B, 3, Hout, Wout).
    """
    coefficients, base, frequency, colour, y, x = (
        np.asarray(array, np.float64) for array in (coefficients, base, frequency, colour, y, x)
    )
    cells = [(at[-1] - at[0]) / max(len(at) - 1, 1) for at in (y, x)]
    damping = np.exp(-0.5 * spread**2 * ((frequency[0] * cells[0]) ** 2 + (frequency[1] * cells[1]) ** 2))
    rows, columns = (np.clip(np.rint(at), 0, n - 1).astype(int) for at, n in zip((y, x), base.shape[2:], strict=True))
    angle = (frequency[0] * (y - rows)[:, None])[:, None] + frequency[1] * (x - columns)[:, None]  # (Hout, Wout, N)
    sines, cosines = np.split(coefficients[:, :, rows][..., columns], 2, axis=1)
    waves = np.einsum("bnyx,yxn->bnyx", sines, np.sin(angle)) + np.einsum("bnyx,yxn->bnyx", cosines, np.cos(angle))
    field = np.einsum("cn,bnyx->bcyx", colour * damping, waves)
    return field + _cubic_along(_cubic_along(base, y, 2), x, 3)


def _cubic_along(frames: Array, at: Array, axis: int) -> Array:
    """Interpolate along an axis at positions (N,), by cubic convolution (Keys 1981, a = -1/2); edges repeat."""
    total = 0.0
    for offset in range(-1, 3):
        pixel = np.floor(at) + offset
        d = np.abs(at - pixel)
        near, far = (1.5 * d - 2.5) * d * d + 1, ((-0.5 * d + 2.5) * d - 4) * d + 2
        weight = np.where(d <= 1, near, np.where(d < 2, far, 0))
        values = np.take(frames, np.clip(pixel, 0, frames.shape[axis] - 1).astype(int), axis)
        total = total + values * weight.reshape([-1 if i == axis else 1 for i in range(frames.ndim)])
    return np.asarray(total)


def videoinr_decode(
    weights: Mapping[str, np.ndarray],
    features: np.ndarray,
    time: np.ndarray,
    rows: TargetAxis,
    columns: TargetAxis,
    *,
    official_sampling: bool,
    frame_upsample: int,
    dtype: DTypeLike = np.float64,
) -> np.ndarray:
    """Decode one frame per batch item, step by step as the VideoINR paper describes it.

    weights: those of the three SIRENs, under their names in a checkpoint. features: (B, 3 * nf + 6, H, W); the last 6
    channels are two frames. time: (B,). dtype: of features, weights and every step; coordinates are float64.
    Returns (B, 3, Hout, Wout) of `dtype`.
    """
    sirens = [_siren_layers(weights, name, dtype) for name in ("feat_imnet", "flow_imnet", "encode_imnet")]
    out = [
        _videoinr_decode(sirens, item.astype(dtype), moment, rows, columns, official_sampling, frame_upsample)
        for item, moment in zip(features, time, strict=True)
    ]
    return np.stack(out)


def _videoinr_decode(
    sirens: list[list[tuple[np.ndarray, np.ndarray]]],
    features: np.ndarray,
    moment: float,
    rows: TargetAxis,
    columns: TargetAxis,
    official: bool,
    factor: int,
) -> np.ndarray:
    border: Literal["zeros", "clamp"] = "zeros" if official else "clamp"
    dtype, shape = features.dtype, (len(rows.position), len(columns.position))
    y, x = np.meshgrid(rows.position.astype(np.float64), columns.position.astype(np.float64), indexing="ij")
    index_y, index_x = np.meshgrid(rows.index.astype(np.float64), columns.index.astype(np.float64), indexing="ij")
    encoded, frames = features[:-6], enlarge_bilinear(features[-6:], factor)
    time = np.full((1, *shape), moment, dtype)

    relative = 2 * np.stack([y - rows.nearest[:, None], x - columns.nearest])
    nearest = features[:, rows.nearest[:, None], columns.nearest]
    target = siren(np.concatenate([nearest, relative.astype(dtype), time]), sirens[0])

    def on_frames(position: np.ndarray) -> np.ndarray:
        return (position + 0.5) * factor - 0.5

    inputs = [target, _read(encoded, y, x, border), _read(frames, on_frames(y), on_frames(x), border), time]
    flows = siren(np.concatenate(inputs), sirens[1]).astype(np.float64)

    readings: list[list[np.ndarray]] = [[], [], []]
    for flow_x, flow_y in (flows[:2], flows[2:]):
        moved_y, moved_x = index_y + flow_y, index_x + flow_x
        share: np.ndarray | float = 1.0
        if official:
            moved_y, moved_x = _off_centre(moved_y, float(rows.size)), _off_centre(moved_x, float(columns.size))
            share = _share_inside(moved_y, float(rows.size)) * _share_inside(moved_x, float(columns.size))
        moved_target = _read(target, moved_y - index_y[0, 0], moved_x - index_x[0, 0], "clamp")
        readings[0].append((moved_target * share).astype(dtype))
        input_y, input_x = (
            (position + 0.5) * (length / float(axis.size)) - 0.5
            for position, axis, length in ((moved_y, rows, features.shape[1]), (moved_x, columns, features.shape[2]))
        )
        readings[1].append(_read(encoded, input_y, input_x, border))
        readings[2].append(_read(frames, on_frames(input_y), on_frames(input_x), border))
    return siren(np.concatenate([*(part for pair in readings for part in pair), time]), sirens[2])


def siren(x: np.ndarray, layers: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Apply layers sin(30 (W x + b)), the last without the sine; every step in the dtype of x.

    x: (in, ...). layers: pairs of W (out, in) and b (out,). Returns (out, ...).
    """
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
    """Enlarge frames bilinearly; edges repeat. (C, H, W) -> (C, factor * H, factor * W)"""
    height, width = frames.shape[1:]
    y, x = ((np.arange(factor * n) + 0.5) / factor - 0.5 for n in (height, width))
    return _read(frames, *np.meshgrid(y, x, indexing="ij"), "clamp")


def _read(features: np.ndarray, y: np.ndarray, x: np.ndarray, border: Literal["zeros", "clamp"]) -> np.ndarray:
    """Apply `bilinear` to one item, rounded to the features' dtype. (C, H, W) -> (C, Hout, Wout)"""
    return bilinear(features[None], y[None], x[None], border)[0].astype(features.dtype)


def _off_centre(position: np.ndarray, size: float) -> np.ndarray:
    """Map a position as official warping does: its grid ends at pixel centres, but is read as if it ended at edges."""
    edge = 1 - 1e-6
    return ((np.clip(2 * position / (size - 1) - 1, -edge, edge) + 1) * size - 1) / 2


def _share_inside(position: np.ndarray, size: float) -> np.ndarray:
    """Return the share of a bilinear reading that is inside of [0, size)."""
    return np.maximum(1 - np.maximum(-position, 0) - np.maximum(position - (size - 1), 0), 0)
