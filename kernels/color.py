"""Conversions between YUV 4:2:0 and planar RGB on a GPU, as `stvsr.engine.color` does them on a CPU.

Chroma lies left of and between rows, as in MPEG-2 and later, and is interpolated linearly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from . import launcher as module

_BLOCK = (32, 8, 1)


@dataclass(frozen=True)
class _Layout:
    """How a pixel format stores a picture: luma's plane, then chroma's."""

    bits: int
    shift: int  # of a code within its sample
    alternating: bool  # blue and red chroma in one plane, sample by sample

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

VARIANTS: tuple[module.Defines, ...] = tuple(
    (("DTYPE", dtype), ("SAMPLE_BYTES", size)) for dtype in ("float", "half") for size in ("1", "2")
)


def to_rgb(
    planes: Sequence[Any],
    pix_fmt: str,
    size: tuple[int, int],
    luma_weights: tuple[float, float],
    full_range: bool,
    dtype: DTypeLike = np.float32,
) -> Any:
    """Convert a picture to RGB.

    planes: of a format of `PIX_FMTS`: luma (H, W) and chroma, two of (h, w) or one of (h, 2 * w) for alternating
    samples, where h and w are half of H and W, rounded up; uint8, or uint16 for 10 bits; rows may be longer than that.
    size: (H, W). luma_weights: Kr and Kb, those of red and blue in luma. dtype: float32 or float16. Returns (3, H, W)
    in [0, 1]. Raises ValueError for planes that are not of this format and size.
    """
    layout = _checked(planes, pix_fmt, size)
    rgb = module.empty(planes[0], (3, *size), dtype)
    if not rgb.size:
        return rgb
    luma, chroma, black, grey = _scales(full_range, layout.bits)
    matrix = np.linalg.inv(_from_rgb(luma_weights)) / np.array([luma, chroma, chroma])
    offset = -matrix @ np.array([black, grey, grey])
    defines = _defines(dtype, layout)
    launch = _launch((size[0] + 1) // 2, size[1])
    module.launch("color", defines, "yuv420_to_rgb", launch, *_arguments(rgb, planes, layout, matrix, offset))
    return rgb


def from_rgb(
    rgb: Any, pix_fmt: str, luma_weights: tuple[float, float], full_range: bool, dither: bool = False
) -> tuple[Any, ...]:
    """Convert RGB to a picture, every code rounded to the nearest.

    rgb: (3, H, W), float32 or float16, clipped to [0, 1], NaN to 0. pix_fmt, luma_weights and what returns: as `to_rgb`
    takes them. dither: add ordered noise of one code before rounding, so that gradients show no steps.
    """
    if rgb.ndim != 3 or rgb.shape[0] != 3:
        raise ValueError(f"RGB of shape {rgb.shape} is not planar; hand over (3, H, W)")
    layout, (height, width) = _layout(pix_fmt), rgb.shape[1:]
    planes = tuple(module.empty(rgb, shape, layout.dtype) for shape in _shapes(layout, (height, width)))
    if not rgb.size:
        return planes
    luma, chroma, black, grey = _scales(full_range, layout.bits)
    matrix = _from_rgb(luma_weights) * np.array([[luma], [chroma], [chroma]])
    offset = np.array([black, grey, grey])
    defines = _defines(rgb.dtype, layout)
    arguments = *_arguments(rgb, planes, layout, matrix, offset), np.int32(2**layout.bits - 1), np.int32(dither)
    launch = _launch((height + 1) // 2, (width + 1) // 2)
    module.launch("color", defines, "rgb_to_yuv420", launch, *arguments)
    return planes


def _layout(pix_fmt: str) -> _Layout:
    if pix_fmt not in _LAYOUTS:
        raise ValueError(f"the pixel format '{pix_fmt}' is not one of {', '.join(_LAYOUTS)}; convert the picture first")
    return _LAYOUTS[pix_fmt]


def _shapes(layout: _Layout, size: tuple[int, int]) -> list[tuple[int, int]]:
    height, width = ((n + 1) // 2 for n in size)
    return [size, (height, 2 * width)] if layout.alternating else [size, (height, width), (height, width)]


def _checked(planes: Sequence[Any], pix_fmt: str, size: tuple[int, int]) -> _Layout:
    layout = _layout(pix_fmt)
    shapes = _shapes(layout, size)
    fits = len(planes) == len(shapes) and all(
        plane.ndim == 2 and plane.shape[0] == rows and plane.shape[1] >= columns and plane.dtype == layout.dtype
        for plane, (rows, columns) in zip(planes, shapes, strict=True)
    )
    if not fits or (not layout.alternating and planes[1].shape != planes[2].shape):
        given = ", ".join(f"{plane.shape} {plane.dtype}" for plane in planes)
        raise ValueError(f"a picture of {pix_fmt} has planes of {shapes} {layout.dtype}, not {given}")
    return layout


def _from_rgb(luma_weights: tuple[float, float]) -> np.ndarray:  # (3, 3): luma in [0, 1], chroma in [-0.5, 0.5]
    kr, kb = luma_weights
    luma = np.array([kr, 1 - kr - kb, kb])
    return np.stack([luma, (np.array([0, 0, 1]) - luma) / (2 - 2 * kb), (np.array([1, 0, 0]) - luma) / (2 - 2 * kr)])


def _scales(full_range: bool, bits: int) -> tuple[float, float, float, float]:
    """Return luma's and chroma's codes per unit, black's code and that of no colour."""
    if full_range:
        return 2**bits - 1, 2**bits - 1, 0, 2 ** (bits - 1)
    step = 2 ** (bits - 8)
    return 219 * step, 224 * step, 16 * step, 128 * step


def _defines(dtype: DTypeLike, layout: _Layout) -> module.Defines:
    return (module.dtype_define(dtype), ("SAMPLE_BYTES", str(layout.dtype.itemsize)))


def _arguments(rgb: Any, planes: Sequence[Any], layout: _Layout, matrix: np.ndarray, offset: np.ndarray) -> list[Any]:
    coefficients = [np.float32(value) for value in (*matrix.ravel(), *offset)]
    pitches = [np.int32(plane.shape[1]) for plane in planes[:2]]
    # Where samples alternate, both chroma pointers are that of their plane, and red's samples are one further on.
    step, red_start = (np.int32(2), np.int32(1)) if layout.alternating else (np.int32(1), np.int32(0))
    size = [np.int32(n) for n in rgb.shape[1:]]
    return [
        planes[0],
        planes[1],
        planes[-1],
        rgb,
        *coefficients,
        *size,
        *pitches,
        step,
        red_start,
        np.int32(layout.shift),
    ]


def _launch(rows: int, columns: int) -> module.Launch:
    return module.Launch((-(-columns // _BLOCK[0]), -(-rows // _BLOCK[1]), 1), _BLOCK)
