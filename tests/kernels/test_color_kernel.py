"""YUV 4:2:0 and RGB on a GPU, against the conversions on a CPU and against the oracle."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import av
import numpy as np
import pytest
from stvsr.engine.media.color import fill
from stvsr.engine.media.color import to_rgb as to_rgb_on_cpu
from stvsr.engine.media.tags import BT709, BT2020_NCL, LUMA_WEIGHTS, SMPTE170M, Coding
from stvsr.kernels import reference
from stvsr.kernels.color import PIX_FMTS, from_rgb, to_rgb

from tests.support.cuda_cpu import everywhere, on_cpu

Run = Callable[..., Any]
CODINGS = [Coding(matrix, full) for matrix in (SMPTE170M, BT709, BT2020_NCL) for full in (False, True)]
SIZES = [(22, 38), (13, 67), (1, 1)]
PLANAR = {"yuv420p": 8, "yuv420p10le": 10}
BITS = {"yuv420p": 8, "nv12": 8, "yuv420p10le": 10, "p010le": 10}


def random_codes(size: tuple[int, int], bits: int, seed: int = 3) -> list[np.ndarray]:
    rng, dtype = np.random.default_rng(seed), np.uint8 if bits == 8 else np.uint16
    half = ((size[0] + 1) // 2, (size[1] + 1) // 2)
    return [rng.integers(0, 2**bits, shape).astype(dtype) for shape in (size, half, half)]


def stored(codes: Sequence[np.ndarray], pix_fmt: str) -> list[np.ndarray]:
    """Arrange codes as a format does."""
    if pix_fmt in PLANAR:
        return list(codes)
    shift = 6 if pix_fmt == "p010le" else 0
    luma, blue, red = (plane << shift for plane in codes)
    return [luma, np.stack([blue, red], axis=-1).reshape(len(blue), -1)]


def rows_of(frame: av.VideoFrame, index: int, dtype: type) -> np.ndarray:
    plane = frame.planes[index]
    rows = np.frombuffer(plane, dtype).reshape(plane.height, plane.line_size // np.dtype(dtype).itemsize)
    return rows[:, : plane.width]


def frame_of(codes: Sequence[np.ndarray], pix_fmt: str) -> av.VideoFrame:
    frame = av.VideoFrame(codes[0].shape[1], codes[0].shape[0], pix_fmt)
    for index, plane in enumerate(codes):
        rows_of(frame, index, plane.dtype.type)[:] = plane
    return frame


def decode(run: Run, planes: Sequence[np.ndarray], pix_fmt: str, size: tuple[int, int], coding: Coding, dtype: type):
    def on_device(*planes: Any) -> Any:
        return to_rgb(planes, pix_fmt, size, LUMA_WEIGHTS[coding.matrix], coding.full_range, dtype)

    return run(on_device, *planes)


@everywhere
@pytest.mark.parametrize("coding", CODINGS, ids=str)
@pytest.mark.parametrize("pix_fmt", PLANAR)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_to_rgb_is_what_the_cpu_makes(run: Run, size: tuple[int, int], pix_fmt: str, coding: Coding) -> None:
    bits = PLANAR[pix_fmt]
    codes = random_codes(size, bits)
    rgb = decode(run, codes, pix_fmt, size, coding, np.float32)
    expected = reference.yuv420_to_rgb(codes, LUMA_WEIGHTS[coding.matrix], coding.full_range, bits)
    assert rgb.dtype == np.float32
    np.testing.assert_allclose(rgb, to_rgb_on_cpu(frame_of(codes, pix_fmt), coding), rtol=0, atol=2e-6)
    np.testing.assert_allclose(rgb, expected, rtol=0, atol=2e-6)
    # In half precision, the last rounding is all that is lost.
    half = decode(run, codes, pix_fmt, size, coding, np.float16)
    error, plain = np.abs(half - expected), np.abs(expected.astype(np.float16) - expected)
    assert half.dtype == np.float16
    assert error.max() <= 2 * plain.max() + 2e-6, np.percentile(error, [50, 99, 100])


@everywhere
@pytest.mark.parametrize("pix_fmt", ["nv12", "p010le"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_alternating_chroma_holds_the_same(run: Run, size: tuple[int, int], pix_fmt: str) -> None:
    codes, coding = random_codes(size, BITS[pix_fmt]), CODINGS[0]
    planar = "yuv420p" if pix_fmt == "nv12" else "yuv420p10le"
    expected = decode(run, codes, planar, size, coding, np.float32)
    assert np.array_equal(decode(run, stored(codes, pix_fmt), pix_fmt, size, coding, np.float32), expected)

    rgb = np.random.default_rng(4).random((3, *size), np.float32)
    weights = LUMA_WEIGHTS[coding.matrix]
    made, expected = (run(from_rgb, rgb, name, weights, coding.full_range) for name in (pix_fmt, planar))
    for plane, other in zip(made, stored(expected, pix_fmt), strict=True):
        assert np.array_equal(plane, other)


@everywhere
@pytest.mark.parametrize("coding", CODINGS, ids=str)
@pytest.mark.parametrize("pix_fmt", PLANAR)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_from_rgb_is_what_the_cpu_makes(run: Run, size: tuple[int, int], pix_fmt: str, coding: Coding) -> None:
    bits, weights = PLANAR[pix_fmt], LUMA_WEIGHTS[coding.matrix]
    fine = np.random.default_rng(5).integers(0, 65536, (3, *size), np.uint16)
    made = run(from_rgb, (fine / 65535).astype(np.float32), pix_fmt, weights, coding.full_range)
    frame = av.VideoFrame(size[1], size[0], pix_fmt)
    fill(frame, fine, coding)
    exact = reference.rgb_to_yuv420(fine / 65535, weights, coding.full_range, bits)
    for index, (plane, code) in enumerate(zip(made, exact, strict=True)):
        assert np.abs(plane - code.clip(0, 2**bits - 1)).max() <= 0.5 + 1e-3
        # float32 decides otherwise only where the code lies half-way between two.
        decided = np.abs(np.abs(code - np.floor(code)) - 0.5) > 1e-3
        assert decided.mean() > 0.95
        assert np.array_equal(plane[decided], rows_of(frame, index, plane.dtype.type)[decided])


@everywhere
@pytest.mark.parametrize("pix_fmt", PLANAR)
def test_from_rgb_takes_half_precision_and_clips(run: Run, pix_fmt: str) -> None:
    rgb = np.random.default_rng(6).uniform(-0.3, 1.3, (3, 15, 37)).astype(np.float16)
    rgb[:, 3, 5] = np.nan
    made = run(from_rgb, rgb, pix_fmt, LUMA_WEIGHTS[BT709], False)
    exact = reference.rgb_to_yuv420(np.nan_to_num(rgb), LUMA_WEIGHTS[BT709], False, PLANAR[pix_fmt])
    for plane, code in zip(made, exact, strict=True):
        assert np.abs(plane - code).max() <= 0.5 + 1e-3


@everywhere
@pytest.mark.parametrize("pix_fmt", PLANAR)
def test_dither_keeps_the_mean_of_what_lies_between_codes(run: Run, pix_fmt: str) -> None:
    bits, weights = PLANAR[pix_fmt], LUMA_WEIGHTS[BT709]
    rgb = np.full((3, 24, 48), 0.3712, np.float32)
    rgb[0] += 0.0003
    exact = reference.rgb_to_yuv420(rgb, weights, False, bits)
    for plane, code in zip(run(from_rgb, rgb, pix_fmt, weights, False, dither=True), exact, strict=True):
        noise = reference.bayer_thresholds(*plane.shape)
        assert np.array_equal(plane, np.rint(code + noise))
        assert abs(plane[:8, :8].mean() - code[0, 0]) <= 1 / 128 + 1e-6
    for plane, code in zip(run(from_rgb, rgb, pix_fmt, weights, False), exact, strict=True):
        assert (plane == np.rint(code)).all(), "dither is off by default"


@everywhere
@pytest.mark.parametrize("pix_fmt", PIX_FMTS)
def test_rows_may_be_longer_than_the_picture(run: Run, pix_fmt: str) -> None:
    size, coding = (9, 21), CODINGS[3]
    planes = stored(random_codes(size, BITS[pix_fmt]), pix_fmt)
    padded = [np.pad(plane, ((0, 0), (0, pad)), constant_values=77) for plane, pad in zip(planes, (11, 6, 6))]  # noqa: B905
    results = [decode(run, each, pix_fmt, size, coding, np.float32) for each in (planes, padded)]
    assert np.array_equal(*results)


@everywhere
@pytest.mark.parametrize(("pix_fmt", "coding"), [*product(PIX_FMTS, CODINGS)], ids=str)
def test_there_and_back(run: Run, pix_fmt: str, coding: Coding) -> None:
    """A picture without detail in its chroma comes back as it was."""
    bits, weights = BITS[pix_fmt], LUMA_WEIGHTS[coding.matrix]
    luma = np.linspace(0.35, 0.65, 17 * 23).reshape(17, 23)
    rgb = (luma + np.array([0.1, -0.05, -0.08])[:, None, None]).astype(np.float32)
    planes = run(from_rgb, rgb, pix_fmt, weights, coding.full_range)
    back = decode(run, planes, pix_fmt, (17, 23), coding, np.float32)
    assert np.abs(back - rgb).max() < 2 / 2**bits


def test_an_empty_picture_needs_no_launch() -> None:
    planes = [np.empty(shape, np.uint8) for shape in ((0, 6), (0, 3), (0, 3))]
    rgb = on_cpu(to_rgb, planes, "yuv420p", (0, 6), LUMA_WEIGHTS[BT709], False)
    assert rgb.shape == (3, 0, 6)
    assert [plane.shape for plane in on_cpu(from_rgb, rgb, "nv12", LUMA_WEIGHTS[BT709], False)] == [(0, 6), (0, 6)]


def test_what_does_not_fit_is_an_error() -> None:
    codes, weights = random_codes((8, 12), 8), LUMA_WEIGHTS[BT709]
    wrong: list[tuple[Sequence[np.ndarray], str, tuple[int, int]]] = [
        (codes, "yuv422p", (8, 12)),
        (codes, "nv12", (8, 12)),
        (codes, "yuv420p", (8, 14)),
        (codes, "yuv420p10le", (8, 12)),
        (codes[:2], "yuv420p", (8, 12)),
    ]
    for planes, pix_fmt, size in wrong:
        with pytest.raises(ValueError, match=pix_fmt):
            on_cpu(to_rgb, planes, pix_fmt, size, weights, False)
    with pytest.raises(ValueError, match="planar"):
        on_cpu(from_rgb, np.zeros((8, 12, 3), np.float32), "nv12", weights, False)
