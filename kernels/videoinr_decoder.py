"""VideoINR's decoder in three launches: features, flows and colours of every target pixel, at any size and time.

Everything that does not depend on the target is computed before the first launch: `pack` arranges the weights, once
per network; `target_axis` computes the positions, once per target size; `prepare` runs once per pair of frames. It
multiplies the features by the part of each SIREN's first layer that is linear in them, one matrix product over input
pixels instead of one over the more numerous target pixels, and enlarges the frames to the size at which they are read.
Between the launches only the target features and the flows are in device memory, no activations.

Chen et al., "VideoINR: Learning Video Implicit Neural Representation for Continuous Space-Time Super-Resolution",
CVPR 2022.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from . import launcher

_FIRST, _WIDE, _FRAMES = 64, 256, 6  # widths of the first layers and of the widest; channels of two frames
TIE_BIAS = np.float32(1e-3)  # input pixels; more than the rounding error of float32, so that ties go to the lower pixel
WHOLE_TOLERANCE = 1e-2  # target pixels; a size this close to a whole number is that number
# As in videoinr_siren.cuh: target pixels, threads and scratch bytes of a block; bytes of a `Corners`.
_TILE = {"float": (32, 128, 4096), "half": (64, 256, 10240)}
_CORNERS_BYTES = 32

VARIANTS: tuple[launcher.Defines, ...] = tuple(
    (("DTYPE", dtype), ("HALF", half), ("NF", "64"), ("OFFICIAL", official), ("ORDERED", ordered))
    for dtype, half, ordered in (("float", "0", "0"), ("half", "1", "1"), ("half", "1", "0"))
    for official in ("0", "1")
)


@dataclass(frozen=True)
class TargetAxis:
    """Rows or columns to decode: all of a target's, or a part of them."""

    position: Any  # (N,) float32 in input pixels, 0 at the centre of the first
    index: Any  # (N,) float32 in target pixels
    nearest: Any  # (N,) int32: the input pixel that each is decoded from
    relative: Any  # (N,) float32: position relative to that pixel, in halves of an input pixel
    size: np.float32  # target pixels of the whole target

    def to(self, asarray: Callable[[np.ndarray], Any]) -> "TargetAxis":
        """Return a copy with converted arrays: `axis.to(cupy.asarray)` is on the GPU."""
        arrays = {name: asarray(getattr(self, name)) for name in ("position", "index", "nearest", "relative")}
        return replace(self, **arrays)


def target_axis(position: np.ndarray, n_in: int, official_sampling: bool) -> TargetAxis:
    """Return the rows or columns at these positions of an input with `n_in` pixels along the axis.

    position: (N,) float, evenly spaced centres of target pixels, in input pixels. official_sampling: pick the nearest
    input pixel by the official code's float32 arithmetic instead of by the position.
    Raises ValueError for fewer than two positions.
    """
    if position.ndim != 1 or len(position) < 2:
        raise ValueError(f"positions of shape {position.shape} have no spacing; decode two rows and columns or more")
    one, two, half = np.float32(1), np.float32(2), np.float32(0.5)
    position = position.astype(np.float32)
    # Arrays of one element, so that every step rounds to float32 as it does in training.
    spacing = (position[-1:] - position[:1]) / np.float32(len(position) - 1)
    index = (position + half) / spacing - half
    size = np.float32(n_in) / spacing
    if official_sampling:
        # Between two pixels the official choice depends on float32 rounding: repeat the official steps one by one.
        pixel = one / np.where(np.abs(size - np.rint(size)) < WHOLE_TOLERANCE, np.rint(size), size)
        grid = (pixel - one) + two * pixel * np.rint(index)
        sampled = ((grid + one) * np.float32(n_in) - one) / two
    else:
        sampled = position - TIE_BIAS
    nearest = np.clip(np.rint(sampled), 0, n_in - 1).astype(np.int32)
    return TargetAxis(position, index, nearest, two * (position - nearest.astype(np.float32)), size[0])


@dataclass(frozen=True)
class DecoderWeights:
    """Weights of a decoder in the order in which the kernels read them, and its conventions.

    The three SIRENs are those of the target features, the flows and the colours. Each is a pair: the weights of its
    products other than `mix`, concatenated and flat, and its float32 biases.
    """

    nf: int
    official_sampling: bool
    frame_upsample: int
    mix: Any  # (3 * nf + 6, 256): first layers over input pixels, of features, flows and, for both moments, colours
    features: tuple[Any, Any]
    flows: tuple[Any, Any]
    colours: tuple[Any, Any]
    ordered: bool = False  # whether the matrices lie in the order in which half precision reads them fastest

    def to(self, asarray: Callable[[np.ndarray], Any]) -> "DecoderWeights":
        """Return a copy with converted arrays: `weights.to(cupy.asarray)` is on the GPU."""

        def converted(siren: tuple[Any, Any]) -> tuple[Any, Any]:
            return asarray(siren[0]), asarray(siren[1])

        return replace(
            self,
            mix=asarray(self.mix),
            features=converted(self.features),
            flows=converted(self.flows),
            colours=converted(self.colours),
        )

    @property
    def defines(self) -> launcher.Defines:
        """Defines of the kernels for these weights."""
        dtype = launcher.dtype_define(self.mix.dtype)
        half, official = str(int(dtype[1] == "half")), str(int(self.official_sampling))
        ordered = str(int(self.ordered))
        return (dtype, ("HALF", half), ("NF", str(self.nf)), ("OFFICIAL", official), ("ORDERED", ordered))


def pack(
    state: Mapping[str, np.ndarray],
    dtype: DTypeLike,
    *,
    official_sampling: bool,
    frame_upsample: int,
    ordered: bool | None = None,
) -> DecoderWeights:
    """Arrange the weights of a checkpoint, `feat_imnet.*`, `flow_imnet.*` and `encode_imnet.*`, for the kernels.

    dtype: float32 or float16, that of the features too. ordered: the order of `DecoderWeights.ordered`, which only half
    precision has; by default it has it. Raises ValueError for layers of other widths than VideoINR's.
    """
    nf = len(state["feat_imnet.net.3.bias"])
    widths = [
        [len(state[f"{name}.net.{i}.linear.bias"]) for i in range(count)]
        for name, count in (("feat_imnet", 3), ("flow_imnet", 3), ("encode_imnet", 4))
    ]
    if nf % 8 or not 0 < nf <= 256 or widths != [[64, 64, 256], [64, 64, 256], [64, 64, 256, 256]]:
        raise ValueError(
            f"the decoder's layers are {nf} and {widths} wide; the kernels take those of VideoINR, and up to 256 "
            "features in multiples of 8"
        )
    feat, flow, colour = (
        state[f"{name}.net.0.linear.weight"].T for name in ("feat_imnet", "flow_imnet", "encode_imnet")
    )
    encoded = 3 * nf
    no_frames = np.zeros((_FRAMES, _FIRST), feat.dtype)
    of_flows, *of_colours = (
        np.concatenate([weight[start : start + encoded], no_frames])
        for weight, start in ((flow, nf), (colour, 2 * nf), (colour, 2 * nf + encoded))
    )
    mix = np.concatenate([feat[: encoded + _FRAMES], of_flows, *of_colours], axis=1)
    # Inputs of the first product over target pixels: target features and frames, for the colours at both moments.
    flow_inputs = np.concatenate([flow[:nf], flow[nf + encoded :][:_FRAMES]])
    ordered = np.dtype(dtype) == np.float16 if ordered is None else ordered
    colour_inputs = np.concatenate([colour[: 2 * nf], colour[2 * nf + 2 * encoded :][: 2 * _FRAMES]])

    def siren(name: str, first: list[np.ndarray], inputs: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        sines = [key.split(".")[2] for key in state if key.startswith(f"{name}.net.") and key.endswith("linear.bias")]
        stems = [f"{name}.net.{i}.linear" for i in sorted(map(int, sines))] + [f"{name}.net.{len(sines)}"]
        products = [] if inputs is None else [inputs]
        products += [state[f"{stem}.weight"].T for stem in stems[1:]]
        biases = [state[f"{stems[0]}.bias"], *first, *(state[f"{stem}.bias"] for stem in stems[1:])]
        padded = [_padded(product).astype(dtype) for product in products]
        packed = np.concatenate([(_ordered(product) if ordered else product).ravel() for product in padded])
        return packed, np.concatenate([_padded(bias[None])[0] for bias in biases]).astype(np.float32)

    return DecoderWeights(
        nf,
        official_sampling,
        frame_upsample,
        np.ascontiguousarray(mix.astype(dtype)),
        siren("feat_imnet", [feat[-1], feat[-3], feat[-2]], None),
        siren("flow_imnet", [flow[-1]], flow_inputs),
        siren("encode_imnet", [colour[-1]], colour_inputs),
        ordered,
    )


def _padded(matrix: np.ndarray) -> np.ndarray:
    """Pad with zeros to a multiple of 16 columns, and of 16 rows if there is more than one."""
    rows, columns = (-n % 16 for n in matrix.shape)
    return np.pad(matrix, ((0, rows if len(matrix) > 1 else 0), (0, columns)))


def _ordered(matrix: np.ndarray) -> np.ndarray:
    """Reorder (K, N), multiples of 16, to (K / 16, N / 16, 256): `Right` of matrix_unit.cuh, thread by thread.

    Thread t of a warp has, of each of 4 parts of 8x8 (depth first), the elements at depth 2 * (t % 4), + 1 and column
    t / 4.
    """
    depth, columns = matrix.shape
    tiles = matrix.reshape(depth // 16, 2, 4, 2, columns // 16, 2, 8)
    return tiles.transpose(0, 4, 6, 2, 5, 1, 3).reshape(depth // 16, columns // 16, 256)


@dataclass(frozen=True)
class Prepared:
    """The kernels' inputs from a pair of frames, the same at every time and target size."""

    mixed: Any  # (B, H, W, 256): the features times `mix`
    frames: Any  # (B, f * H, f * W, 6), with f = frame_upsample


def prepare(features: Any, weights: DecoderWeights) -> Prepared:
    """Compute the part of the decoder that depends on input pixels alone.

    features: (B, 3 * nf + 6, H, W), of the weights' dtype and on their device; the last 6 channels are the frames.
    Raises ValueError for another shape or dtype.
    """
    if features.ndim != 4 or features.shape[1] != 3 * weights.nf + _FRAMES or features.dtype != weights.mix.dtype:
        raise ValueError(
            f"features of shape {features.shape} and {features.dtype} do not fit this decoder; "
            f"pass (B, {3 * weights.nf + _FRAMES}, H, W) of {weights.mix.dtype}"
        )
    pixels = features.transpose(0, 2, 3, 1).copy()
    frames = pixels[..., -_FRAMES:].astype(np.float32)
    for axis in (1, 2):
        frames = _enlarge(frames, axis, weights.frame_upsample)
    mixed = pixels.reshape(-1, features.shape[1]) @ weights.mix
    return Prepared(mixed.reshape(*pixels.shape[:3], 4 * _FIRST), frames.astype(features.dtype))


def _enlarge(frames: Any, axis: int, factor: int) -> Any:
    """Enlarge (B, H, W, 6) bilinearly along one axis; edges repeat."""
    shape = tuple(factor * n if i == axis else n for i, n in enumerate(frames.shape))
    out = launcher.empty(frames, shape)
    along, out_along = frames.swapaxes(0, axis), out.swapaxes(0, axis)
    for phase in range(factor):
        shift = (phase + 0.5) / factor - 0.5
        target = out_along[phase::factor]
        target[...] = along
        if shift < 0:
            target[1:] += (along[:-1] - along[1:]) * np.float32(-shift)
        else:
            target[:-1] += (along[1:] - along[:-1]) * np.float32(shift)
    return out


def decode(encoded: Prepared, weights: DecoderWeights, time: Any, rows: TargetAxis, columns: TargetAxis) -> Any:
    """Decode one frame per batch item.

    time: (B,) float32, 0 at the first frame and 1 at the second. All arrays are on one device.
    Returns (B, 3, Hout, Wout) of the weights' dtype, not clamped. Raises ValueError for other times.
    """
    batch, height, width, _ = encoded.mixed.shape
    if time.shape != (batch,) or time.dtype != np.float32:
        raise ValueError(f"times are {time.shape} {time.dtype}; pass one float32 for each of {batch} batch items")
    target_height, target_width = len(rows.position), len(columns.position)
    colours = launcher.empty(encoded.mixed, (batch, 3, target_height, target_width))
    if not batch:
        return colours
    target = launcher.empty(encoded.mixed, (batch, target_height, target_width, weights.nf))
    flows = launcher.empty(encoded.mixed, (batch, target_height, target_width, 4), np.float32)

    size, target_size = (np.int32(height), np.int32(width)), (np.int32(target_height), np.int32(target_width))
    factor = np.int32(weights.frame_upsample)

    def run(function: str, readings: int, *arguments: Any) -> None:
        launch = decoder_launch(weights, batch, target_height * target_width, readings)
        launcher.launch("videoinr_decoder", weights.defines, function, launch, *arguments)

    nearest = rows.nearest, columns.nearest, rows.relative, columns.relative
    run("target_features", 0, encoded.mixed, time, *nearest, *weights.features, target, *size, *target_size)
    maps = encoded.mixed, encoded.frames, target
    positions = rows.position, columns.position
    run("target_flows", 1, *maps, time, *positions, *weights.flows, flows, *size, factor, *target_size)
    inputs = *maps, flows, time, rows.index, columns.index, *weights.colours
    run("target_colours", 2, *inputs, colours, rows.size, columns.size, *size, factor, *target_size)
    return colours


def decoder_launch(weights: DecoderWeights, batch: int, target_pixels: int, readings: int) -> launcher.Launch:
    """Return the launch parameters of a kernel that reads the input at `readings` positions per target pixel."""
    dtype = weights.mix.dtype
    pixels, threads, scratch_bytes = _TILE[launcher.DTYPES[dtype]]
    inputs = -(-2 * (weights.nf + _FRAMES) // 16) * 16
    activation_bytes = pixels * (max(_WIDE, inputs) * dtype.itemsize + 16)
    shared_bytes = activation_bytes + scratch_bytes + readings * pixels * _CORNERS_BYTES
    return launcher.Launch((-(-target_pixels // pixels), batch, 1), (threads, 1, 1), shared_bytes)
