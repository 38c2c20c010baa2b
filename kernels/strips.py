"""Features in strips: planes of neighbouring channels side by side, which kernels read by vectors of 16 bytes.

A strip of NCHW features is a plane whose pixels hold its channels one after another. Threads whose pixels are
neighbours then read neighbouring packets, whether all channels move together (warping) or each group of them
(deformable convolutions); with all channels of a pixel side by side (NHWC) each thread of a group would read a cache
line of its own.
"""

from typing import Any

import numpy as np

from . import launcher

_THREADS = 256

VARIANTS: tuple[launcher.Defines, ...] = tuple(
    (("DTYPE", dtype), ("WIDTH", str(width))) for dtype, width in (("float", 4), ("float", 8), ("half", 8))
)


def strip_count(channels: int, run_channels: int, width: int) -> int:
    """Return the number of strips of these channels; each run of channels has strips of its own."""
    return channels // run_channels * -(-run_channels // width)


def to_strips(features: Any, run_channels: int, width: int) -> Any:
    """Put the channels of features side by side in strips.

    features: (B, C, H, W), float32 or float16, with C a multiple of `run_channels`. width: channels of a strip; the
    last one of a run is padded with zeros. Returns (B, S, H, W, width) of the features' dtype.
    """
    batch, channels, height, width_px = features.shape
    count = strip_count(channels, run_channels, width)
    strips = launcher.empty(features, (batch, count, height, width_px, width))
    if strips.size:
        launcher.launch(
            "strips",
            (launcher.dtype_define(features.dtype), ("WIDTH", str(width))),
            "to_strips",
            launcher.Launch((-(-height * width_px // _THREADS), count, batch), (_THREADS, 1, 1)),
            *(features, strips, np.int32(channels), np.int32(run_channels), np.int32(height * width_px)),
        )
    return strips
