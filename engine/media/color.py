"""Convert between YUV planes and RGB.

The matrices are applied here, in float32 with rounding: swscale's fixed-point matrices are off by up to 2 codes at 8
bits and 4 codes at 10 bits. Chroma is sited at the left of its luma columns and between its luma rows, as in MPEG-2 and
later standards, and is interpolated linearly. The work is done in bands of rows, so that it takes little memory beside
the input and the output, whatever the size of the frame.
"""

from collections.abc import Iterator
from functools import lru_cache

import av
import numpy as np

from ..contract.picture import FULL_SCALE
from .pixel_format import PlanarLayout, planar_format, planar_layout, repack
from .tags import LUMA_WEIGHTS, Coding

_BAND_PX = 1 << 17  # float32 bands of three channels then fit in a core's cache
_GRAY_ALPHA = {"ya8": "u1", "ya16le": "<u2", "ya16be": ">u2"}  # the types of samples


def to_rgb(frame: av.VideoFrame, coding: Coding) -> np.ndarray:
    """Convert a decoded frame of any pixel format to RGB, (3, H, W) float32 in [0, 1]; alpha is left out."""
    return to_rgba(frame, coding)[0]


def to_rgba(frame: av.VideoFrame, coding: Coding) -> tuple[np.ndarray, np.ndarray | None]:
    """Convert a decoded frame of any pixel format to RGB, (3, H, W), and alpha, (H, W), both float32 in [0, 1].

    Alpha is straight: colors are not multiplied by it. It is None for a pixel format without alpha.
    """
    planar = planar_format(frame.format.name)
    alpha = _gray_alpha(frame) if frame.format.name in _GRAY_ALPHA else None
    if planar != frame.format.name:
        frame = repack(frame, planar)
    layout = _layout_of(frame)
    if layout.alpha:
        alpha = _plane_views(frame, layout)[-1] / np.float32(2**layout.bits - 1)
    return _planes_to_rgb(frame, layout, coding), alpha


def _planes_to_rgb(frame: av.VideoFrame, layout: PlanarLayout, coding: Coding) -> np.ndarray:
    height, width = frame.height, frame.width
    rgb = np.empty((3, height, width), np.float32)
    planes = _plane_views(frame, layout)
    matrix, offset = _decoding_matrix(coding, layout)
    for start, stop in _bands(height, width):
        out = rgb[:, start:stop]
        if layout.kind == "gbr":
            for channel, plane in zip((1, 2, 0), planes[:3], strict=True):
                out[channel] = plane[start:stop]
            out *= np.float32(1 / (2**layout.bits - 1))
            continue
        if layout.kind == "gray":
            out[:] = planes[0][start:stop] * matrix[0, 0] + offset[0, 0]
        else:
            yuv = np.empty((3, stop - start, width), np.float32)
            yuv[0] = planes[0][start:stop]
            yuv[1:] = _upsample(planes[1:3], layout.subsampling, start, stop, width)
            flat = rgb.reshape(3, -1)[:, start * width : stop * width]
            np.einsum("ij,jk->ik", matrix, yuv.reshape(3, -1), out=flat)  # BLAS would start threads of its own
            flat += offset
        np.clip(out, 0, 1, out=out)
    return rgb


def fill(frame: av.VideoFrame, rgb: np.ndarray, coding: Coding) -> None:
    """Write RGB, (3, H, W), or RGB and straight alpha, (4, H, W), uint16 in [0, 65535], into a planar frame.

    Samples are rounded to the bit depth of the frame. Without alpha a frame that stores it becomes opaque. A frame that
    is larger than the picture repeats its last column and row.
    """
    if rgb.shape[1:] != (frame.height, frame.width):
        rgb = np.pad(rgb, ((0, 0), (0, frame.height - rgb.shape[1]), (0, frame.width - rgb.shape[2])), mode="edge")
    layout = _layout_of(frame)
    _, height, width = rgb.shape
    planes = _plane_views(frame, layout)
    top = 2**layout.bits - 1
    if layout.alpha:
        planes[-1][...] = np.rint(rgb[3] * np.float32(top / FULL_SCALE)) if len(rgb) > 3 else top
    rgb = rgb[:3]
    matrix, offset = _encoding_matrix(coding, layout)
    sub_y = layout.subsampling[1]
    for start, stop in _bands(height, width):
        band = rgb[:, start:stop].astype(np.float32)
        if layout.kind == "gbr":
            band *= np.float32(top / FULL_SCALE)
            for channel, plane in zip((1, 2, 0), planes[:3], strict=True):
                plane[start:stop] = np.rint(band[channel])
            continue
        yuv = np.einsum("ij,jk->ik", matrix, band.reshape(3, -1))
        yuv += offset
        yuv = yuv.reshape(-1, stop - start, width)
        planes[0][start:stop] = np.clip(np.rint(yuv[0]), 0, top)
        if layout.kind == "yuv":
            chroma = np.clip(np.rint(_downsample(yuv[1:], layout.subsampling)), 0, top)
            rows = slice(start // sub_y, start // sub_y + chroma.shape[1])
            planes[1][rows], planes[2][rows] = chroma


def fill_planes(frame: av.VideoFrame, planes: tuple[np.ndarray, ...]) -> None:
    """Copy planes that have the pixel format of the frame into it.

    A frame that is larger than the planes repeats their last columns and rows.
    """
    views = _plane_views(frame, _layout_of(frame))
    for view, plane in zip(views, planes, strict=True):
        height, width = plane.shape
        view[:height, :width] = plane
        view[:height, width:] = plane[:, -1:]
        view[height:] = view[height - 1]


def _layout_of(frame: av.VideoFrame) -> PlanarLayout:
    layout = planar_layout(frame.format.name)
    assert layout is not None, f"{frame.format.name} is not planar"
    return layout


def _plane_views(frame: av.VideoFrame, layout: PlanarLayout) -> list[np.ndarray]:
    """Return views of a frame's planes, (h, w) each, with that of alpha at the end."""
    views = []
    for plane in frame.planes[: layout.channels + layout.alpha]:
        row_samples = abs(plane.line_size) // layout.dtype.itemsize
        rows = np.frombuffer(memoryview(plane), layout.dtype).reshape(plane.height, row_samples)
        views.append(rows[:: 1 if plane.line_size > 0 else -1, : plane.width])
    return views


def _gray_alpha(frame: av.VideoFrame) -> np.ndarray:
    """Return the alpha, (H, W) float32 in [0, 1], of a frame whose samples are pairs of gray and alpha."""
    dtype = np.dtype(_GRAY_ALPHA[frame.format.name])
    plane = frame.planes[0]
    rows = np.frombuffer(memoryview(plane), dtype).reshape(plane.height, -1)
    return rows[:, 1 : 2 * frame.width : 2] / np.float32(256**dtype.itemsize - 1)


def _bands(height: int, width: int) -> Iterator[tuple[int, int]]:
    """Yield the first row and the end of every band of rows."""
    rows = max(4, _BAND_PX // width // 4 * 4)  # a multiple of every chroma subsampling
    for start in range(0, height, rows):
        yield start, min(height, start + rows)


def _code_ranges(coding: Coding, bits: int) -> tuple[float, float, float, float]:
    """Return the codes per unit of luma and of chroma, the code of black, and the chroma code of neutral gray."""
    if coding.full_range:
        return 2**bits - 1, 2**bits - 1, 0, 2 ** (bits - 1)
    step = 2.0 ** (bits - 8)
    return 219 * step, 224 * step, 16 * step, 128 * step


def _yuv_matrix(matrix: int) -> np.ndarray:
    """Return the matrix from RGB to luma in [0, 1] and chroma in [-0.5, 0.5], (3, 3) float64."""
    kr, kb = LUMA_WEIGHTS[matrix]
    luma = np.array([kr, 1 - kr - kb, kb])
    blue, red = np.array([0, 0, 1.0]) - luma, np.array([1.0, 0, 0]) - luma
    return np.stack([luma, blue / (2 * (1 - kb)), red / (2 * (1 - kr))])


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """Return the inverse of a matrix (3, 3), without BLAS: where memory is short, BLAS ends the process."""
    first, second, third = matrix
    columns = np.stack([np.cross(second, third), np.cross(third, first), np.cross(first, second)], 1)
    return columns / (first * columns[:, 0]).sum()


@lru_cache
def _decoding_matrix(coding: Coding, layout: PlanarLayout) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrix (3, 3) and the offset (3, 1) from codes to RGB in [0, 1]; (1, 1) both for gray."""
    luma, chroma, black, neutral = _code_ranges(coding, layout.bits)
    matrix = _inverse(_yuv_matrix(coding.matrix)) / np.array([luma, chroma, chroma])
    offset = -(matrix * np.array([black, neutral, neutral])).sum(1, keepdims=True)
    if layout.kind == "gray":
        matrix, offset = np.full((1, 1), 1 / luma), np.full((1, 1), -black / luma)
    return matrix.astype(np.float32), offset.astype(np.float32)


@lru_cache
def _encoding_matrix(coding: Coding, layout: PlanarLayout) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrix (3, 3) and the offset (3, 1) from uint16 RGB to codes; (1, 3) and (1, 1) for gray."""
    luma, chroma, black, neutral = _code_ranges(coding, layout.bits)
    matrix = _yuv_matrix(coding.matrix) * np.array([[luma], [chroma], [chroma]]) / FULL_SCALE
    offset = np.array([[black], [neutral], [neutral]])
    return matrix[: layout.channels].astype(np.float32), offset[: layout.channels].astype(np.float32)


def _upsample(planes: list[np.ndarray], subsampling: tuple[int, int], start: int, stop: int, width: int) -> np.ndarray:
    """Return luma rows `start` to `stop` of both chroma planes at luma's size, (2, rows, width)."""
    sub_x, sub_y = subsampling
    if subsampling == (1, 1):
        return np.stack([plane[start:stop] for plane in planes])
    rows = np.arange(start // sub_y - 1, -(-stop // sub_y) + 1)  # with one more row on either side
    chroma = np.stack([plane.take(rows, axis=0, mode="clip") for plane in planes]).astype(np.float32)
    chroma = _interpolate(chroma, 1, sub_y, [(k + 0.5) / sub_y - 0.5 for k in range(sub_y)])[:, : stop - start]
    if sub_x == 1:
        return chroma
    chroma = np.concatenate([chroma[:, :, :1], chroma, chroma[:, :, -1:]], axis=2)
    return _interpolate(chroma, 2, sub_x, [k / sub_x for k in range(sub_x)])[:, :, :width]


def _interpolate(chroma: np.ndarray, axis: int, factor: int, shifts: list[float]) -> np.ndarray:
    """Return `factor` samples for each sample but the first and the last, at these shifts from it (in samples)."""
    if factor == 1:
        return chroma[:, 1:-1] if axis == 1 else chroma[:, :, 1:-1]
    count = chroma.shape[axis] - 2
    shape = list(chroma.shape)
    shape[axis] = count * factor
    out = np.empty(shape, np.float32)
    by_axis, out_by_axis = chroma.swapaxes(0, axis), out.swapaxes(0, axis)
    for phase, shift in enumerate(shifts):
        first = 0 if shift < 0 else 1
        weight = np.float32(shift % 1)
        left = by_axis[first : first + count]
        if weight == 0:
            out_by_axis[phase::factor] = left
        else:
            right = by_axis[first + 1 : first + 1 + count]
            out_by_axis[phase::factor] = left + (right - left) * weight
    return out


def _downsample(chroma: np.ndarray, subsampling: tuple[int, int]) -> np.ndarray:
    """Subsample chroma, (2, h, w) float32: the mean of each group of rows, a triangle about its first column."""
    sub_x, sub_y = subsampling
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
        radius = sub_x - 1
        right = count * sub_x + radius - chroma.shape[2]
        padded = np.pad(chroma, ((0, 0), (0, 0), (radius, right)), mode="edge")
        chroma = np.zeros((*chroma.shape[:2], count), np.float32)
        for k in range(-radius, radius + 1):
            weight = np.float32((sub_x - abs(k)) / sub_x**2)
            chroma += padded[:, :, radius + k : radius + k + count * sub_x : sub_x] * weight
    return chroma
