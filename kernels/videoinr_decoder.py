"""VideoINR's decoder in three launches: an implicit function of place and time, evaluated where it is sampled.

Before the first launch the host prepares, once for each network, its weights (`pack`), once for each target size, the
positions (`target_axis`), and once for each pair of frames, what depends on input pixels alone (`prepare`): the part of
each SIREN's first layer that is linear in the features, which costs one matrix product over input pixels instead of
one over target pixels, and the frames at the size at which they are read. No launch leaves more in memory than it
answers: target features, flows and the frame.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from . import launcher as module

_FIRST, _WIDE, _FRAMES = 64, 256, 6  # widths of the first layers and the widest; channels of two frames
TIE_BIAS = np.float32(1e-3)  # input pixels; more than float32 errs by, so that ties go to the lower pixel
WHOLE = 1e-2  # target pixels; a size this near to a whole number is one
# As implicit.cu has them: target pixels, threads and bytes of scratch of a block, and bytes of one place that is read.
_TILE = {"float": (32, 128, 4096), "half": (64, 256, 10240)}
_CORNERS_BYTES = 32

VARIANTS: tuple[module.Defines, ...] = tuple(
    (("DTYPE", dtype), ("HALF", half), ("NF", "64"), ("OFFICIAL", official))
    for dtype, half in (("float", "0"), ("half", "1"))
    for official in ("0", "1")
)


@dataclass(frozen=True)
class TargetAxis:
    """Rows or columns to be decoded; they may be a part of a whole target."""

    position: Any  # (N,) float32 in input pixels, 0 at the centre of the first
    index: Any  # (N,) float32 in target pixels
    nearest: Any  # (N,) int32, the input pixel that each is decoded from
    way: Any  # (N,) float32 from there, in halves of an input pixel
    size: np.float32  # target pixels of the whole target

    def on(self, asarray: Callable[[np.ndarray], Any]) -> "TargetAxis":
        """Return it with its arrays elsewhere: `axis.on(cupy.asarray)`."""
        arrays = {name: asarray(getattr(self, name)) for name in ("position", "index", "nearest", "way")}
        return replace(self, **arrays)


def target_axis(position: np.ndarray, n_in: int, official_sampling: bool) -> TargetAxis:
    """Two target pixel centres or more, evenly spaced, (N,), in input pixels, of which there are n_in.

    Raises ValueError for fewer than two.
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
        # The official pick hangs on how float32 rounds, so the official steps are taken one by one.
        pixel = one / np.where(np.abs(size - np.rint(size)) < WHOLE, np.rint(size), size)
        grid = (pixel - one) + two * pixel * np.rint(index)
        wanted = ((grid + one) * np.float32(n_in) - one) / two
    else:
        wanted = position - TIE_BIAS
    nearest = np.clip(np.rint(wanted), 0, n_in - 1).astype(np.int32)
    return TargetAxis(position, index, nearest, two * (position - nearest.astype(np.float32)), size[0])


@dataclass(frozen=True)
class DecoderWeights:
    """A decoder's weights as the kernels read them, and its conventions."""

    nf: int
    official_sampling: bool
    frame_upsample: int
    mix: Any  # (3 * nf + 6, 256): first layers of the features', flows' and, twice, the colours' SIREN
    features: tuple[Any, Any]  # weights of the further products, one after the other; float32 biases
    flows: tuple[Any, Any]
    colours: tuple[Any, Any]

    def on(self, asarray: Callable[[np.ndarray], Any]) -> "DecoderWeights":
        """Return it with its arrays elsewhere: `weights.on(cupy.asarray)`."""

        def there(siren: tuple[Any, Any]) -> tuple[Any, Any]:
            return asarray(siren[0]), asarray(siren[1])

        return replace(
            self,
            mix=asarray(self.mix),
            features=there(self.features),
            flows=there(self.flows),
            colours=there(self.colours),
        )

    @property
    def defines(self) -> module.Defines:
        """What the kernels are compiled with."""
        dtype = module.dtype_define(self.mix.dtype)
        half, official = str(int(dtype[1] == "half")), str(int(self.official_sampling))
        return (dtype, ("HALF", half), ("NF", str(self.nf)), ("OFFICIAL", official))


def pack(
    state: Mapping[str, np.ndarray], dtype: DTypeLike, *, official_sampling: bool, frame_upsample: int
) -> DecoderWeights:
    """Arrange a checkpoint's weights: feat_imnet, flow_imnet and encode_imnet, under their names there.

    dtype: float32 or float16, that of the features too. Raises ValueError for widths that the kernels do not have.
    """
    nf = len(state["feat_imnet.net.3.bias"])
    widths = [
        [len(state[f"{name}.net.{i}.linear.bias"]) for i in range(count)]
        for name, count in (("feat_imnet", 3), ("flow_imnet", 3), ("encode_imnet", 4))
    ]
    if nf % 8 or not 0 < nf <= 256 or widths != [[64, 64, 256], [64, 64, 256], [64, 64, 256, 256]]:
        raise ValueError(f"the decoder's layers are {nf} and {widths} wide; the kernels take VideoINR's, nf % 8 == 0")
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
    # Activations of the flows' first product: target features and frames; of the colours', each of both moments.
    flow_inputs = np.concatenate([flow[:nf], flow[nf + encoded :][:_FRAMES]])
    colour_inputs = np.concatenate([colour[: 2 * nf], colour[2 * nf + 2 * encoded :][: 2 * _FRAMES]])

    def siren(name: str, first: list[np.ndarray], inputs: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        sines = [key.split(".")[2] for key in state if key.startswith(f"{name}.net.") and key.endswith("linear.bias")]
        stems = [f"{name}.net.{i}.linear" for i in sorted(map(int, sines))] + [f"{name}.net.{len(sines)}"]
        products = [] if inputs is None else [inputs]
        products += [state[f"{stem}.weight"].T for stem in stems[1:]]
        biases = [state[f"{stems[0]}.bias"], *first, *(state[f"{stem}.bias"] for stem in stems[1:])]
        packed = np.concatenate([_padded(product).astype(dtype).ravel() for product in products])
        return packed, np.concatenate([_padded(bias[None])[0] for bias in biases]).astype(np.float32)

    return DecoderWeights(
        nf,
        official_sampling,
        frame_upsample,
        np.ascontiguousarray(mix.astype(dtype)),
        siren("feat_imnet", [feat[-1], feat[-3], feat[-2]], None),
        siren("flow_imnet", [flow[-1]], flow_inputs),
        siren("encode_imnet", [colour[-1]], colour_inputs),
    )


def _padded(matrix: np.ndarray) -> np.ndarray:
    """Zeros up to a multiple of 16 columns, and of rows where there is more than one."""
    rows, columns = (-n % 16 for n in matrix.shape)
    return np.pad(matrix, ((0, rows if len(matrix) > 1 else 0), (0, columns)))


@dataclass(frozen=True)
class Prepared:
    """What the kernels read of one encoding, at any time and target size."""

    mixed: Any  # (B, H, W, 256)
    frames: Any  # (B, f * H, f * W, 6)


def prepare(features: Any, weights: DecoderWeights) -> Prepared:
    """Do what depends on input pixels alone.

    features: (B, 3 * nf + 6, H, W), of the weights' dtype and place, the frames last. Raises ValueError for others.
    """
    if features.ndim != 4 or features.shape[1] != 3 * weights.nf + _FRAMES or features.dtype != weights.mix.dtype:
        raise ValueError(
            f"features of shape {features.shape} and {features.dtype} are not for this decoder: "
            f"it takes (B, {3 * weights.nf + _FRAMES}, H, W) of {weights.mix.dtype}"
        )
    pixels = features.transpose(0, 2, 3, 1).copy()
    frames = pixels[..., -_FRAMES:].astype(np.float32)
    for axis in (1, 2):
        frames = _enlarged(frames, axis, weights.frame_upsample)
    mixed = pixels.reshape(-1, features.shape[1]) @ weights.mix
    return Prepared(mixed.reshape(*pixels.shape[:3], 4 * _FIRST), frames.astype(features.dtype))


def _enlarged(frames: Any, axis: int, factor: int) -> Any:
    """Bilinear, edges repeated, along one axis of (B, H, W, 6)."""
    shape = tuple(factor * n if i == axis else n for i, n in enumerate(frames.shape))
    out = module.empty(frames, shape)
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
    """Decode a frame at one time per batch item.

    time: (B,) float32, 0 and 1 at the frames. All arrays lie in one place. Returns (B, 3, Hout, Wout) of the weights'
    dtype, not clamped.
    """
    batch, height, width, _ = encoded.mixed.shape
    if time.shape != (batch,) or time.dtype != np.float32:
        raise ValueError(f"times are {time.shape} {time.dtype}; hand over one float32 for each of {batch} batch items")
    target_height, target_width = len(rows.position), len(columns.position)
    colours = module.empty(encoded.mixed, (batch, 3, target_height, target_width))
    if not batch:
        return colours
    target = module.empty(encoded.mixed, (batch, target_height, target_width, weights.nf))
    flows = module.empty(encoded.mixed, (batch, target_height, target_width, 4), np.float32)

    size, target_size = (np.int32(height), np.int32(width)), (np.int32(target_height), np.int32(target_width))
    factor = np.int32(weights.frame_upsample)

    def run(function: str, readings: int, *arguments: Any) -> None:
        launch = launch_of(weights, batch, target_height * target_width, readings)
        module.launch("videoinr_decoder", weights.defines, function, launch, *arguments)

    where = rows.nearest, columns.nearest, rows.way, columns.way
    run("target_features", 0, encoded.mixed, time, *where, *weights.features, target, *size, *target_size)
    maps = encoded.mixed, encoded.frames, target
    places = rows.position, columns.position
    run("target_flows", 1, *maps, time, *places, *weights.flows, flows, *size, factor, *target_size)
    places = rows.index, columns.index
    whole = rows.size, columns.size
    inputs = *maps, flows, time, *places, *weights.colours
    run("target_colours", 2, *inputs, colours, *whole, *size, factor, *target_size)
    return colours


def launch_of(weights: DecoderWeights, batch: int, target_pixels: int, readings: int) -> module.Launch:
    """Launch parameters of a kernel that reads the input at so many places for each target pixel."""
    dtype = weights.mix.dtype
    pixels, threads, scratch_bytes = _TILE[module.DTYPES[dtype]]
    inputs = -(-2 * (weights.nf + _FRAMES) // 16) * 16
    activation_bytes = pixels * (max(_WIDE, inputs) * dtype.itemsize + 16)
    shared_bytes = activation_bytes + scratch_bytes + readings * pixels * _CORNERS_BYTES
    return module.Launch((-(-target_pixels // pixels), batch, 1), (threads, 1, 1), shared_bytes)
