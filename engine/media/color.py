"""Colour: the conversions between YUV planes and RGB.

The matrices are applied here, in float32 with rounding: swscale's fixed-point ones err by up to 2 codes at 8 bits and
4 at 10. Chroma lies left of and between rows, as in MPEG-2 and later, and is interpolated linearly. Work goes in bands
of rows, so that memory beside the input and the output is small whatever the size of the picture.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import av
import numpy as np

from ..contract.errors import MediaError
from .tags import LUMA_WEIGHTS, Coding

_BAND_PX = 1 << 17  # float32 bands of three channels stay within a core's cache

_PLANAR = re.compile(r"(yuvj?4[0-4][0-4]p|gray|gbrp)(\d+)?(le|be)?")
_SUBSAMPLED = {(1, 1): "444", (2, 1): "422", (2, 2): "420", (1, 2): "440", (4, 1): "411", (4, 4): "410"}


@dataclass(frozen=True)
class _Layout:
    """A planar pixel format."""

    kind: str  # yuv, gray or gbr
    bits: int
    dtype: np.dtype
    sub: tuple[int, int]  # chroma subsampling (x, y)


@lru_cache
def _layout(pix_fmt: str) -> _Layout | None:
    """Return the layout of a format that is planar as needed here, else None."""
    match = _PLANAR.fullmatch(pix_fmt)
    if match is None:
        return None
    format = av.VideoFormat(pix_fmt, 16, 16)
    bits = format.components[0].bits
    dtype = np.dtype(np.uint8) if bits <= 8 else np.dtype(">u2" if match[3] == "be" else "<u2")
    kind = {"g": "gray" if match[1] == "gray" else "gbr", "y": "yuv"}[pix_fmt[0]]
    sub = (16 // format.chroma_width(16), 16 // format.chroma_height(16)) if kind == "yuv" else (1, 1)
    return _Layout(kind, bits, dtype, sub)


@lru_cache
def planar_format(pix_fmt: str) -> str:
    """Return the planar format that holds what the given one does, but for alpha."""
    if _layout(pix_fmt) is not None:
        return pix_fmt
    try:
        format = av.VideoFormat(pix_fmt, 16, 16)
    except ValueError:
        raise MediaError(f"There is no pixel format '{pix_fmt}': choose one such as yuv420p or yuv420p10le.") from None
    bits = max((part.bits for part in format.components), default=8)
    if format.is_rgb or format.has_palette or format.is_bayer:
        return "gbrp" if bits <= 8 else "gbrp16le"
    if len([part for part in format.components if not part.is_alpha]) == 1:
        return "gray" if bits <= 8 else "gray16le"
    sub = (16 // format.chroma_width(16), 16 // format.chroma_height(16))
    name = f"yuv{_SUBSAMPLED.get(sub, '444')}p"
    return name if bits <= 8 else f"{name}{bits}le"


def repacked(frame: av.VideoFrame, pix_fmt: str) -> av.VideoFrame:
    """Return the same samples in another layout: no matrix, no scaling.

    On one thread: the threads of FFmpeg's scaler now and then leave wrong samples where their parts of a picture meet.
    """
    return frame.reformat(format=pix_fmt, threads=1)


def is_rgb(pix_fmt: str) -> bool:
    """Say whether a format holds RGB, so that no matrix belongs to it."""
    return planar_format(pix_fmt).startswith("gbr")


def to_rgb(frame: av.VideoFrame, coding: Coding) -> np.ndarray:  # (3, H, W) float32 in [0, 1]
    """Convert a decoded picture of any pixel format."""
    planar = planar_format(frame.format.name)
    if planar != frame.format.name:
        frame = repacked(frame, planar)
    layout = _layout(planar)
    assert layout is not None
    height, width = frame.height, frame.width
    rgb = np.empty((3, height, width), np.float32)
    planes = [_plane(frame, index, layout.dtype) for index in range(1 if layout.kind == "gray" else 3)]
    matrix, offset = _decoding(coding, layout)
    for start, stop in _bands(height, width):
        out = rgb[:, start:stop]
        if layout.kind == "gbr":
            for channel, plane in zip((1, 2, 0), planes, strict=True):
                out[channel] = plane[start:stop]
            out *= np.float32(1 / (2**layout.bits - 1))
            continue
        if layout.kind == "gray":
            out[:] = planes[0][start:stop] * matrix[0, 0] + offset[0, 0]
        else:
            yuv = np.empty((3, stop - start, width), np.float32)
            yuv[0] = planes[0][start:stop]
            yuv[1:] = _upsampled(planes[1:], layout.sub, start, stop, width)
            flat = rgb.reshape(3, -1)[:, start * width : stop * width]
            np.einsum("ij,jk->ik", matrix, yuv.reshape(3, -1), out=flat)  # BLAS would start threads of its own
            flat += offset
        np.clip(out, 0, 1, out=out)
    return rgb


def fill(frame: av.VideoFrame, rgb: np.ndarray, coding: Coding) -> None:  # (3, H, W) uint16 in [0, 65535]
    """Write RGB into the planes of a picture of a planar pixel format, rounding to its depth."""
    layout = _layout(frame.format.name)
    assert layout is not None, f"{frame.format.name} is not planar"
    _, height, width = rgb.shape
    planes = [_plane(frame, index, layout.dtype) for index in range(1 if layout.kind == "gray" else 3)]
    top = 2**layout.bits - 1
    matrix, offset = _encoding(coding, layout)
    sub_y = layout.sub[1]
    for start, stop in _bands(height, width):
        band = rgb[:, start:stop].astype(np.float32)
        if layout.kind == "gbr":
            band *= np.float32(top / 65535)
            for channel, plane in zip((1, 2, 0), planes, strict=True):
                plane[start:stop] = np.rint(band[channel])
            continue
        yuv = np.einsum("ij,jk->ik", matrix, band.reshape(3, -1))
        yuv += offset
        yuv = yuv.reshape(-1, stop - start, width)
        planes[0][start:stop] = np.clip(np.rint(yuv[0]), 0, top)
        if layout.kind == "yuv":
            chroma = np.clip(np.rint(_downsampled(yuv[1:], layout.sub)), 0, top)
            rows = slice(start // sub_y, start // sub_y + chroma.shape[1])
            planes[1][rows], planes[2][rows] = chroma


def fill_planes(frame: av.VideoFrame, planes: tuple[np.ndarray, ...]) -> None:
    """Write planes that are in a picture's own format already."""
    layout = _layout(frame.format.name)
    assert layout is not None, f"{frame.format.name} is not planar"
    for index, plane in enumerate(planes):
        _plane(frame, index, layout.dtype)[...] = plane


def _plane(frame: av.VideoFrame, index: int, dtype: np.dtype) -> np.ndarray:  # (h, w), a view
    plane = frame.planes[index]
    rows = np.frombuffer(memoryview(plane), dtype).reshape(plane.height, abs(plane.line_size) // dtype.itemsize)
    return rows[:: 1 if plane.line_size > 0 else -1, : plane.width]


def _bands(height: int, width: int) -> Iterator[tuple[int, int]]:
    rows = max(4, _BAND_PX // width // 4 * 4)  # a multiple of every chroma subsampling
    for start in range(0, height, rows):
        yield start, min(height, start + rows)


def _scales(coding: Coding, bits: int) -> tuple[float, float, float, float]:
    """Return luma's and chroma's codes per unit, black's code and that of no colour."""
    if coding.full_range:
        return 2**bits - 1, 2**bits - 1, 0, 2 ** (bits - 1)
    step = 2.0 ** (bits - 8)
    return 219 * step, 224 * step, 16 * step, 128 * step


def _from_rgb(matrix: int) -> np.ndarray:  # (3, 3) float64: luma in [0, 1], chroma in [-0.5, 0.5]
    kr, kb = LUMA_WEIGHTS[matrix]
    luma = np.array([kr, 1 - kr - kb, kb])
    blue, red = np.array([0, 0, 1.0]) - luma, np.array([1.0, 0, 0]) - luma
    return np.stack([luma, blue / (2 * (1 - kb)), red / (2 * (1 - kr))])


@lru_cache
def _decoding(coding: Coding, layout: _Layout) -> tuple[np.ndarray, np.ndarray]:  # (3, 3), (3, 1): codes -> RGB
    luma, chroma, black, grey = _scales(coding, layout.bits)
    matrix = np.linalg.inv(_from_rgb(coding.matrix)) / np.array([luma, chroma, chroma])
    offset = -matrix @ np.array([[black], [grey], [grey]])
    if layout.kind == "gray":
        matrix, offset = np.full((1, 1), 1 / luma), np.full((1, 1), -black / luma)
    return matrix.astype(np.float32), offset.astype(np.float32)


@lru_cache
def _encoding(coding: Coding, layout: _Layout) -> tuple[np.ndarray, np.ndarray]:  # uint16 RGB -> codes
    luma, chroma, black, grey = _scales(coding, layout.bits)
    matrix = _from_rgb(coding.matrix) * np.array([[luma], [chroma], [chroma]]) / 65535
    offset = np.array([[black], [grey], [grey]])
    count = 1 if layout.kind == "gray" else 3
    return matrix[:count].astype(np.float32), offset[:count].astype(np.float32)


def _upsampled(planes: list[np.ndarray], sub: tuple[int, int], start: int, stop: int, width: int) -> np.ndarray:
    """Return rows start..stop of both chroma planes at luma's size, (2, rows, width)."""
    sub_x, sub_y = sub
    if sub == (1, 1):
        return np.stack([plane[start:stop] for plane in planes])
    rows = np.arange(start // sub_y - 1, -(-stop // sub_y) + 1)  # one more on either side
    chroma = np.stack([plane.take(rows, axis=0, mode="clip") for plane in planes]).astype(np.float32)
    chroma = _stretched(chroma, 1, sub_y, [(k + 0.5) / sub_y - 0.5 for k in range(sub_y)])[:, : stop - start]
    if sub_x == 1:
        return chroma
    chroma = np.concatenate([chroma[:, :, :1], chroma, chroma[:, :, -1:]], axis=2)
    return _stretched(chroma, 2, sub_x, [k / sub_x for k in range(sub_x)])[:, :, :width]


def _stretched(chroma: np.ndarray, axis: int, factor: int, shifts: list[float]) -> np.ndarray:
    """Make `factor` samples of each but the first and the last, shifted by as many samples."""
    if factor == 1:
        return chroma[:, 1:-1] if axis == 1 else chroma[:, :, 1:-1]
    count = chroma.shape[axis] - 2
    shape = list(chroma.shape)
    shape[axis] = count * factor
    out = np.empty(shape, np.float32)
    by_axis, out_by_axis = chroma.swapaxes(0, axis), out.swapaxes(0, axis)
    for phase, shift in enumerate(shifts):
        first = 0 if shift < 0 else 1
        share = np.float32(shift % 1)
        left = by_axis[first : first + count]
        if share == 0:
            out_by_axis[phase::factor] = left
        else:
            right = by_axis[first + 1 : first + 1 + count]
            out_by_axis[phase::factor] = left + (right - left) * share
    return out


def _downsampled(chroma: np.ndarray, sub: tuple[int, int]) -> np.ndarray:  # (2, h, w) float32
    """Average rows in groups, and columns with a triangle about each group's first."""
    sub_x, sub_y = sub
    if sub_y > 1:
        missing = -chroma.shape[1] % sub_y
        if missing:
            chroma = np.concatenate([chroma] + [chroma[:, -1:]] * missing, axis=1)
        total = chroma[:, 0::sub_y].copy()
        for row in range(1, sub_y):
            total += chroma[:, row::sub_y]
        chroma = total * np.float32(1 / sub_y)
    if sub_x > 1:
        count = -(-chroma.shape[2] // sub_x)
        reach = sub_x - 1
        right = count * sub_x + reach - chroma.shape[2]
        padded = np.pad(chroma, ((0, 0), (0, 0), (reach, right)), mode="edge")
        chroma = np.zeros((*chroma.shape[:2], count), np.float32)
        for k in range(-reach, reach + 1):
            weight = np.float32((sub_x - abs(k)) / sub_x**2)
            chroma += padded[:, :, reach + k : reach + k + count * sub_x : sub_x] * weight
    return chroma
