"""The inputs of Fourier-S's fusion in one launch: both warps, their blend, the motion, the visibility and the times.

As operators these are two warps and some twenty passes over maps of the input's size: slices, concatenations, the
blend. The motion is that of `stvsr.training.networks.motion`.
"""

from typing import Any

import numpy as np

from . import launcher, variants
from .strips import to_strips
from .warp import Variant

_TILE = (32, 8)  # pixels of a block: columns, rows
_VECTOR_BYTES = 16
_FRAMES, _MOTION = 6, 5  # channels of two frames, and of the motion
EXTRA = 16  # inputs that are not features: both warped frames, their blend, motion, visibility and times

# The first one is used unless another is known to be faster on the card.
PLANAR_VARIANTS = (
    Variant(0, 32, 8, 1, 4),
    Variant(0, 16, 8, 1, 3),
    Variant(0, 16, 4, 1, 4),
    Variant(0, 16, 4, 2, 2),
)
STRIP_VARIANTS = (Variant(1, 32, 8, 1, 4), Variant(1, 16, 8, 1, 3))

VARIANTS: tuple[launcher.Defines, ...] = tuple(
    dict.fromkeys(
        variant.defines(dtype) for dtype in (np.float32, np.float16) for variant in (*PLANAR_VARIANTS, *STRIP_VARIANTS)
    )
)


def candidates(features: int, dtype: Any) -> tuple[Variant, ...]:
    """Return the variants for so many features of a frame: strips hold 16 bytes of one frame's channels."""
    in_strips = features % (_VECTOR_BYTES // np.dtype(dtype).itemsize) == 0
    return (*PLANAR_VARIANTS, *STRIP_VARIANTS) if in_strips else PLANAR_VARIANTS


def fusion_inputs(features: Any, motion: Any, time: Any, variant: Variant | None = None) -> tuple[Any, Any]:
    """Warp a pair to one or more times, blend it, and arrange everything that the fusion reads.

    features: (B, 2F + 6, H, W), float32 or float16: the features of the first frame, those of the second, the first
    frame, and the second. motion: (B * K, 5, H, W) float32 in pixels, for each pair at its K times; time: (B * K,)
    float32, from 0 to 1. variant: by default that of the card.
    Returns the inputs (B * K, 2F + 16, H, W), of the features' dtype: the first frame's features and the frame, warped;
    the second's; the blend of both frames less 1/2; a tenth of the motion to both frames; the visibility of the first;
    the time, and 1 less the time. And the blend, (B * K, 3, H, W) float32.
    A NaN in the motion reads the first row or column. Raises ValueError for shapes or dtypes that do not match.
    """
    if features.ndim != 4 or features.shape[1] < _FRAMES or features.shape[1] % 2:
        raise ValueError(f"features of shape {features.shape} are not those of a pair; pass (B, 2F + 6, H, W)")
    batch, channels, height, width = features.shape
    items = len(time)
    if (
        motion.shape != (items, _MOTION, height, width)
        or time.shape != (items,)
        or (items % batch if batch else items)
        or not motion.dtype == time.dtype == np.float32
    ):
        raise ValueError(
            f"a motion of shape {motion.shape} and {motion.dtype} and times of shape {time.shape} and {time.dtype} do"
            f" not fit features of shape {features.shape}; pass (B * K, 5, H, W) and (B * K,) of float32"
        )
    count = (channels - _FRAMES) // 2
    inputs = launcher.empty(features, (items, 2 * count + EXTRA, height, width))
    base = launcher.empty(features, (items, 3, height, width), np.float32)
    if not base.size:
        return inputs, base
    variant = variant or variants.choose(
        variant_key(features.dtype), candidates(count, features.dtype), launcher.card_of(features)
    )
    if variant.strips:
        features = to_strips(features, channels, _VECTOR_BYTES // features.dtype.itemsize)
    launcher.launch(
        "fusion_inputs",
        variant.defines(features.dtype),
        "from_strips" if variant.strips else "from_planes",
        inputs_launch(items, count, height, width, variant),
        *(features, motion, time, inputs, base),
        *(np.int32(value) for value in (count, height, width, items // batch)),
    )
    return inputs, base


def variant_key(dtype: Any) -> str:
    """Return the key of the kernel in the table of variants."""
    return f"fusion_inputs {np.dtype(dtype)}"


def inputs_launch(items: int, features: int, height: int, width: int, variant: Variant) -> launcher.Launch:
    """Return the launch parameters for so many times and features of a frame."""
    tiles = (-(-width // (_TILE[0] * variant.each)), -(-height // _TILE[1]))
    return launcher.Launch((*tiles, items * (2 * -(-features // variant.chunk) + 1)), (*_TILE, 1))
