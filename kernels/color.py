"""Conversion of planar RGB to YUV 4:2:0 on a GPU, equal to that of `stvsr.engine.media.color` on a CPU.

Chroma samples lie at every second luma column and half-way between two luma rows, as in MPEG-2 and later.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

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


class Yuv420(NamedTuple):
    """A pixel format, one of `PIX_FMTS`, and the meaning of its codes.

    luma_weights: Kr and Kb, the weights of red and blue in luma. full_range: all codes are used, 0 to 2^bits - 1,
    instead of the limited range of video, 16 to 235 (luma) and 16 to 240 (chroma) at 8 bits.
    """

    pix_fmt: str
    luma_weights: tuple[float, float]
    full_range: bool

    @property
    def define(self) -> tuple[str, str]:
        """The define of yuv420.cuh for this format."""
        return ("SAMPLE_BYTES", str(_LAYOUTS[self.pix_fmt].dtype.itemsize))

    def planes(self, like: Any, size: tuple[int, int], batch: tuple[int, ...] = ()) -> tuple[Any, ...]:
        """Allocate planes on the device of `like`, for pictures of (height, width): luma, then chroma.

        Luma is (*batch, H, W); blue and red chroma are (*batch, h, w) each, or one plane (*batch, h, 2 * w) where they
        alternate, with h and w half of H and W, rounded up; uint8, or uint16 for 10 bits. Raises ValueError for a pixel
        format that is not one of `PIX_FMTS`.
        """
        if self.pix_fmt not in _LAYOUTS:
            raise ValueError(
                f"the pixel format '{self.pix_fmt}' is not one of {', '.join(PIX_FMTS)}; convert the frame first"
            )
        layout, (rows, columns) = _LAYOUTS[self.pix_fmt], ((n + 1) // 2 for n in size)
        chroma = [(rows, 2 * columns)] if layout.interleaved else 2 * [(rows, columns)]
        return tuple(launcher.empty(like, (*batch, *shape), layout.dtype) for shape in (size, *chroma))

    def arguments(self, planes: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments of a kernel for YUV420_PARAMETERS of yuv420.cuh."""
        layout, (height, width) = _LAYOUTS[self.pix_fmt], planes[0].shape[-2:]
        luma, chroma, black, grey = _scales(self.full_range, layout.bits)
        matrix = _matrix(self.luma_weights) * np.array([[luma], [chroma], [chroma]])
        # Interleaved chroma: both pointers are to the one plane, and red samples start one later.
        step, red_start = (2, 1) if layout.interleaved else (1, 0)
        integers = (height, width, step, red_start, layout.shift, 2**layout.bits - 1)
        return (
            *(planes[0], planes[1], planes[-1]),
            *(np.float32(value) for value in (*matrix.ravel(), black, grey, grey)),
            *(np.int32(value) for value in integers),
        )


def from_rgb(rgb: Any, pix_fmt: str, luma_weights: tuple[float, float], full_range: bool) -> tuple[Any, ...]:
    """Convert RGB to the planes of a pixel format; every code is rounded to the nearest.

    rgb: (3, H, W), float32 or float16, in [0, 1]; values outside are clipped, NaN becomes 0. The others are the fields
    of `Yuv420`, whose `planes` are returned.
    A chroma sample is the mean of two rows, and of three columns weighted by 1/4, 1/2, 1/4; edges repeat.
    Raises ValueError for another pixel format, shape or dtype.
    """
    if rgb.ndim != 3 or rgb.shape[0] != 3:
        raise ValueError(f"RGB of shape {rgb.shape} is not planar; pass (3, H, W)")
    coding, (height, width) = Yuv420(pix_fmt, luma_weights, full_range), rgb.shape[1:]
    planes = coding.planes(rgb, (height, width))
    if rgb.size:
        launcher.launch(
            "color",
            (launcher.dtype_define(rgb.dtype), coding.define),
            "rgb_to_yuv420",
            _launch((height + 1) // 2, (width + 1) // 2),
            *(rgb, *coding.arguments(planes)),
        )
    return planes


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
