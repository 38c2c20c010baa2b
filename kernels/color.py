"""Conversion of planar RGB to YUV 4:2:0 on a GPU, equal to that of `stvsr.engine.media.color` on a CPU.

Chroma samples lie at every second luma column and half-way between two luma rows, as in MPEG-2 and later.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from . import launcher

_BLOCK = (32, 8, 1)


@dataclass(frozen=True)
class _Layout:
    """Memory layout of a pixel format: the luma plane, then chroma."""

    bits: int
    shift: int  # left shift of a code within its sample
    interleaved: bool  # blue and red chroma alternate in one plane

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.uint8 if self.bits == 8 else np.uint16)


_LAYOUTS = {  # by FFmpeg's names
    "yuv420p": _Layout(8, 0, False),
    "nv12": _Layout(8, 0, True),
    "yuv420p10le": _Layout(10, 0, False),
    "p010le": _Layout(10, 6, True),
}
PIX_FMTS = tuple(_LAYOUTS)

VARIANTS: tuple[launcher.Defines, ...] = tuple(
    (("DTYPE", dtype), ("SAMPLE_BYTES", size)) for dtype in ("float", "half") for size in ("1", "2")
)


def from_rgb(rgb: Any, pix_fmt: str, luma_weights: tuple[float, float], full_range: bool) -> tuple[Any, ...]:
    """Convert RGB to the planes of a pixel format; every code is rounded to the nearest.

    rgb: (3, H, W), float32 or float16, in [0, 1]; values outside are clipped, NaN becomes 0. pix_fmt: one of
    `PIX_FMTS`. luma_weights: Kr and Kb, the weights of red and blue in luma. full_range: use all codes, 0 to
    2^bits - 1, instead of the limited range of video, 16 to 235 (luma) and 16 to 240 (chroma) at 8 bits.
    Returns luma (H, W) and either blue and red chroma, (h, w) each, or one plane (h, 2 * w) of interleaved chroma,
    where h and w are half of H and W, rounded up; uint8, or uint16 for 10 bits.
    A chroma sample is the mean of two rows, and of three columns weighted by 1/4, 1/2, 1/4; edges repeat.
    Raises ValueError for another pixel format, shape or dtype.
    """
    if rgb.ndim != 3 or rgb.shape[0] != 3:
        raise ValueError(f"RGB of shape {rgb.shape} is not planar; pass (3, H, W)")
    if pix_fmt not in _LAYOUTS:
        raise ValueError(f"the pixel format '{pix_fmt}' is not one of {', '.join(_LAYOUTS)}; convert the frame first")
    layout, (height, width) = _LAYOUTS[pix_fmt], rgb.shape[1:]
    planes = tuple(launcher.empty(rgb, shape, layout.dtype) for shape in _shapes(layout, height, width))
    if not rgb.size:
        return planes
    luma, chroma, black, grey = _scales(full_range, layout.bits)
    matrix = _matrix(luma_weights) * np.array([[luma], [chroma], [chroma]])
    coefficients = (*matrix.ravel(), black, grey, grey)
    # Interleaved chroma: both pointers are to the one plane, and red samples start one later.
    step, red_start = (2, 1) if layout.interleaved else (1, 0)
    pitches = [plane.shape[1] for plane in planes[:2]]
    integers = (height, width, *pitches, step, red_start, layout.shift, 2**layout.bits - 1)
    launcher.launch(
        "color",
        (launcher.dtype_define(rgb.dtype), ("SAMPLE_BYTES", str(layout.dtype.itemsize))),
        "rgb_to_yuv420",
        _launch((height + 1) // 2, (width + 1) // 2),
        *(planes[0], planes[1], planes[-1], rgb),
        *(np.float32(value) for value in coefficients),
        *(np.int32(value) for value in integers),
    )
    return planes


def _shapes(layout: _Layout, height: int, width: int) -> list[tuple[int, int]]:
    rows, columns = (height + 1) // 2, (width + 1) // 2
    chroma = [(rows, 2 * columns)] if layout.interleaved else 2 * [(rows, columns)]
    return [(height, width), *chroma]


def _matrix(luma_weights: tuple[float, float]) -> np.ndarray:
    """Return the matrix from RGB to luma in [0, 1] and to blue and red chroma in [-0.5, 0.5]. (3, 3) float64"""
    kr, kb = luma_weights
    luma = np.array([kr, 1 - kr - kb, kb])
    return np.stack([luma, (np.array([0, 0, 1]) - luma) / (2 - 2 * kb), (np.array([1, 0, 0]) - luma) / (2 - 2 * kr)])


def _scales(full_range: bool, bits: int) -> tuple[float, float, float, float]:
    """Return the codes per unit of luma and of chroma, the code of black, and the chroma code of grey."""
    if full_range:
        return 2**bits - 1, 2**bits - 1, 0, 2 ** (bits - 1)
    step = 2 ** (bits - 8)
    return 219 * step, 224 * step, 16 * step, 128 * step


def _launch(rows: int, columns: int) -> launcher.Launch:
    return launcher.Launch((-(-columns // _BLOCK[0]), -(-rows // _BLOCK[1]), 1), _BLOCK)
