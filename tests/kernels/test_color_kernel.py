"""RGB to YUV 4:2:0 on a GPU, against the conversion on a CPU and against the oracle."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import av
import numpy as np
import pytest
from stvsr.engine.media.color import fill, to_rgb
from stvsr.engine.media.tags import BT709, BT2020_NCL, LUMA_WEIGHTS, SMPTE170M, Coding
from stvsr.kernels import reference
from stvsr.kernels.color import PIX_FMTS, from_rgb

from tests.support.cuda_cpu import everywhere, on_cpu

Run = Callable[..., Any]
CODINGS = [Coding(matrix, full) for matrix in (SMPTE170M, BT709, BT2020_NCL) for full in (False, True)]
SIZES = [(22, 38), (13, 67), (1, 1)]
PLANAR = {"yuv420p": 8, "yuv420p10le": 10}
BITS = {"yuv420p": 8, "nv12": 8, "yuv420p10le": 10, "p010le": 10}


def interleaved(codes: Sequence[np.ndarray], pix_fmt: str) -> list[np.ndarray]:
    """Arrange planar codes as nv12 and p010le do."""
    shift = 6 if pix_fmt == "p010le" else 0
    luma, blue, red = (plane << shift for plane in codes)
    return [luma, np.stack([blue, red], axis=-1).reshape(len(blue), -1)]


def planar(planes: Sequence[np.ndarray], pix_fmt: str) -> list[np.ndarray]:
    """Return the codes of any pixel format as luma, blue and red."""
    if pix_fmt in PLANAR:
        return list(planes)
    luma, chroma = (plane >> (6 if pix_fmt == "p010le" else 0) for plane in planes)
    return [luma, chroma[:, 0::2], chroma[:, 1::2]]


def rows_of(frame: av.VideoFrame, index: int, dtype: Any) -> np.ndarray:
    plane = frame.planes[index]
    rows = np.frombuffer(memoryview(plane), dtype).reshape(plane.height, plane.line_size // np.dtype(dtype).itemsize)
    return rows[:, : plane.width]


def frame_of(codes: Sequence[np.ndarray], pix_fmt: str) -> av.VideoFrame:
    frame = av.VideoFrame(codes[0].shape[1], codes[0].shape[0], pix_fmt)
    for index, plane in enumerate(codes):
        rows_of(frame, index, plane.dtype.type)[:] = plane
    return frame


@everywhere
@pytest.mark.parametrize("pix_fmt", ["nv12", "p010le"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_interleaved_chroma_has_the_codes_of_planar_chroma(run: Run, size: tuple[int, int], pix_fmt: str) -> None:
    coding, planar_format = CODINGS[0], "yuv420p" if pix_fmt == "nv12" else "yuv420p10le"
    rgb = np.random.default_rng(4).random((3, *size), np.float32)
    weights = LUMA_WEIGHTS[coding.matrix]
    actual, expected = (run(from_rgb, rgb, name, weights, coding.full_range) for name in (pix_fmt, planar_format))
    for plane, other in zip(actual, interleaved(expected, pix_fmt), strict=True):
        assert np.array_equal(plane, other)


@everywhere
@pytest.mark.parametrize("coding", CODINGS, ids=str)
@pytest.mark.parametrize("pix_fmt", PLANAR)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_from_rgb_equals_the_conversion_on_the_cpu(
    run: Run, size: tuple[int, int], pix_fmt: str, coding: Coding
) -> None:
    bits, weights = PLANAR[pix_fmt], LUMA_WEIGHTS[coding.matrix]
    fine = np.random.default_rng(5).integers(0, 65536, (3, *size), np.uint16)
    planes = run(from_rgb, (fine / 65535).astype(np.float32), pix_fmt, weights, coding.full_range)
    frame = av.VideoFrame(size[1], size[0], pix_fmt)
    fill(frame, fine, coding)
    exact = reference.rgb_to_yuv420(fine / 65535, weights, coding.full_range, bits)
    for index, (plane, code) in enumerate(zip(planes, exact, strict=True)):
        assert np.abs(plane - code.clip(0, 2**bits - 1)).max() <= 0.5 + 1e-3
        # float32 may round the other way only if the code is half-way between two.
        decided = np.abs(np.abs(code - np.floor(code)) - 0.5) > 1e-3
        assert decided.mean() > 0.95
        assert np.array_equal(plane[decided], rows_of(frame, index, plane.dtype.type)[decided])


@everywhere
@pytest.mark.parametrize("pix_fmt", PLANAR)
def test_from_rgb_takes_half_precision_and_clips(run: Run, pix_fmt: str) -> None:
    rgb = np.random.default_rng(6).uniform(-0.3, 1.3, (3, 15, 37)).astype(np.float16)
    rgb[:, 3, 5] = np.nan
    planes = run(from_rgb, rgb, pix_fmt, LUMA_WEIGHTS[BT709], False)
    exact = reference.rgb_to_yuv420(np.nan_to_num(rgb), LUMA_WEIGHTS[BT709], False, PLANAR[pix_fmt])
    for plane, code in zip(planes, exact, strict=True):
        assert np.abs(plane - code).max() <= 0.5 + 1e-3


@everywhere
@pytest.mark.parametrize(("pix_fmt", "coding"), [*product(PIX_FMTS, CODINGS)], ids=str)
def test_the_cpu_decodes_the_planes_to_the_same_rgb(run: Run, pix_fmt: str, coding: Coding) -> None:
    """The frame has no detail in its chroma, so that subsampling loses nothing."""
    bits, weights = BITS[pix_fmt], LUMA_WEIGHTS[coding.matrix]
    luma = np.linspace(0.35, 0.65, 17 * 23).reshape(17, 23)
    rgb = (luma + np.array([0.1, -0.05, -0.08])[:, None, None]).astype(np.float32)
    planes = run(from_rgb, rgb, pix_fmt, weights, coding.full_range)
    frame = frame_of(planar(planes, pix_fmt), "yuv420p" if bits == 8 else "yuv420p10le")
    assert np.abs(to_rgb(frame, coding) - rgb).max() < 2 / 2**bits


def test_an_empty_frame_needs_no_launch() -> None:
    rgb = np.empty((3, 0, 6), np.float32)
    assert [plane.shape for plane in on_cpu(from_rgb, rgb, "nv12", LUMA_WEIGHTS[BT709], False)] == [(0, 6), (0, 6)]


def test_unsupported_formats_and_shapes_are_refused() -> None:
    weights = LUMA_WEIGHTS[BT709]
    with pytest.raises(ValueError, match="yuv422p"):
        on_cpu(from_rgb, np.zeros((3, 8, 12), np.float32), "yuv422p", weights, False)
    with pytest.raises(ValueError, match="planar"):
        on_cpu(from_rgb, np.zeros((8, 12, 3), np.float32), "nv12", weights, False)
    with pytest.raises(ValueError, match="float16"):
        on_cpu(from_rgb, np.zeros((3, 8, 12), np.float64), "nv12", weights, False)
