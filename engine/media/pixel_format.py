"""Pixel formats: the planar layouts that the color conversion works on, and repacking into them."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import av
import numpy as np

from ..contract.errors import MediaError

_PLANAR = re.compile(r"(yuv[aj]?4[0-4][0-4]p|gray|gbra?p)(\d+)?(le|be)?")
_SUBSAMPLED = {(1, 1): "444", (2, 1): "422", (2, 2): "420", (1, 2): "440", (4, 1): "411", (4, 4): "410"}


@dataclass(frozen=True)
class PlanarLayout:
    """The layout of a planar pixel format: one plane per channel; chroma may be subsampled.

    A plane of alpha, of the size of luma, follows those of the colors.
    """

    kind: Literal["yuv", "gray", "gbr"]
    bits: int
    dtype: np.dtype
    subsampling: tuple[int, int]  # luma samples per chroma sample, (x, y)
    alpha: bool = False

    @property
    def channels(self) -> int:
        """The number of planes of colors."""
        return 1 if self.kind == "gray" else 3


@lru_cache
def planar_layout(pix_fmt: str) -> PlanarLayout | None:
    """Return the layout of a planar pixel format, or None for a format of any other kind."""
    match = _PLANAR.fullmatch(pix_fmt)
    if match is None:
        return None
    format = av.VideoFormat(pix_fmt, 16, 16)
    bits = format.components[0].bits
    dtype = np.dtype(np.uint8) if bits <= 8 else np.dtype(">u2" if match[3] == "be" else "<u2")
    if pix_fmt.startswith("gray"):
        return PlanarLayout("gray", bits, dtype, (1, 1))
    if pix_fmt.startswith("gbr"):
        return PlanarLayout("gbr", bits, dtype, (1, 1), has_alpha(pix_fmt))
    return PlanarLayout("yuv", bits, dtype, chroma_subsampling(format), has_alpha(pix_fmt))


@lru_cache
def planar_format(pix_fmt: str) -> str:
    """Return the planar pixel format that stores the same samples; of gray with alpha, that of the gray samples.

    Raises MediaError if FFmpeg has no such pixel format.
    """
    if planar_layout(pix_fmt) is not None:
        return pix_fmt
    format = video_format(pix_fmt)
    bits = max((component.bits for component in format.components), default=8)
    alpha = "a" if has_alpha(pix_fmt) else ""
    if format.is_rgb or format.has_palette or format.is_bayer:
        return f"gbr{alpha}p" if bits <= 8 else f"gbr{alpha}p16le"
    if len([component for component in format.components if not component.is_alpha]) == 1:
        return "gray" if bits <= 8 else "gray16le"
    name = f"yuv{alpha}{_SUBSAMPLED.get(chroma_subsampling(format), '444')}p"
    return name if bits <= 8 else f"{name}{bits}le"


@lru_cache
def video_format(pix_fmt: str) -> av.VideoFormat:
    """Return FFmpeg's description of a pixel format. Raises MediaError if there is none."""
    try:
        return av.VideoFormat(pix_fmt, 16, 16)
    except ValueError:
        raise MediaError(
            f"FFmpeg has no pixel format '{pix_fmt}': choose one such as yuv420p or yuv420p10le."
        ) from None


def has_alpha(pix_fmt: str) -> bool:
    """Return whether a pixel format stores alpha; a palette may."""
    format = video_format(pix_fmt)
    return format.has_palette or any(component.is_alpha for component in format.components)


def chroma_subsampling(format: av.VideoFormat) -> tuple[int, int]:
    """Return the luma samples per chroma sample of a pixel format, (x, y); (1, 1) without chroma."""
    return 16 // (format.chroma_width(16) or 16), 16 // (format.chroma_height(16) or 16)


def is_rgb(pix_fmt: str) -> bool:
    """Return whether a pixel format stores RGB, for which no YUV matrix applies."""
    return planar_format(pix_fmt).startswith("gbr")


def repack(frame: av.VideoFrame, pix_fmt: str) -> av.VideoFrame:
    """Return the same samples in another layout, without a matrix or scaling.

    This runs on one thread: with several, FFmpeg's scaler sometimes leaves wrong samples where the parts of a frame
    meet.
    """
    return frame.reformat(format=pix_fmt, threads=1)
