"""Color conversion against the standards' formulas in float64, pixel formats and color tags."""

import av
import numpy as np
import pytest
from stvsr.engine.contract.errors import MediaError
from stvsr.engine.media.color import fill, to_rgb
from stvsr.engine.media.pixel_format import planar_format, repack
from stvsr.engine.media.tags import BT709, BT2020_NCL, SMPTE170M, Coding, ColorTags, coding_of

from tests.support.paths import SAMPLE

WEIGHTS = {SMPTE170M: (0.299, 0.114), BT709: (0.2126, 0.0722), BT2020_NCL: (0.2627, 0.0593)}
CODINGS = [Coding(matrix, full) for matrix in WEIGHTS for full in (False, True)]
H, W = 22, 38


def exact_rgb(yuv: np.ndarray, coding: Coding, bits: int) -> np.ndarray:
    """Return RGB in [0, 1] of YUV codes, (3, h, w) both."""
    kr, kb = WEIGHTS[coding.matrix]
    y, u, v = yuv.astype(np.float64)
    step = 2.0 ** (bits - 8)
    if coding.full_range:
        top = 2**bits - 1
        y, u, v = y / top, (u - 128 * step) / top, (v - 128 * step) / top
    else:
        y, u, v = (y / step - 16) / 219, (u / step - 128) / 224, (v / step - 128) / 224
    red, blue = y + 2 * (1 - kr) * v, y + 2 * (1 - kb) * u
    return np.stack([red, (y - kr * red - kb * blue) / (1 - kr - kb), blue])


def exact_yuv(rgb: np.ndarray, coding: Coding, bits: int) -> np.ndarray:
    """Return unrounded YUV codes of RGB in [0, 1], (3, h, w) both."""
    kr, kb = WEIGHTS[coding.matrix]
    red, green, blue = rgb
    y = kr * red + (1 - kr - kb) * green + kb * blue
    u, v = (blue - y) / (2 * (1 - kb)), (red - y) / (2 * (1 - kr))
    step = 2.0 ** (bits - 8)
    if coding.full_range:
        top = 2**bits - 1
        return np.stack([y * top, u * top + 128 * step, v * top + 128 * step])
    return np.stack([219 * y + 16, 224 * u + 128, 224 * v + 128]) * step


def planes(frame: av.VideoFrame, bits: int) -> list[np.ndarray]:
    dtype: np.dtype[np.unsignedinteger] = np.dtype("u1" if bits == 8 else "u2")
    return [
        np.frombuffer(memoryview(p), dtype).reshape(p.height, p.line_size // dtype.itemsize)[:, : p.width]
        for p in frame.planes
    ]


def frame_of(
    yuv: list[np.ndarray] | np.ndarray, pix_fmt: str, bits: int, size: tuple[int, int] = (W, H)
) -> av.VideoFrame:
    frame = av.VideoFrame(*size, pix_fmt)
    for target, source in zip(planes(frame, bits), yuv, strict=True):
        target[:] = source
    return frame


def random_rgb(height: int = H, width: int = W) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 65536, (3, height, width), np.uint16)


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("coding", CODINGS, ids=str)
class TestMatrices:
    def pix_fmt(self, bits: int, sampling: str = "444") -> str:
        return f"yuv{sampling}p" + ("" if bits == 8 else "10le")

    def test_from_rgb_rounds_to_the_nearest_code(self, coding: Coding, bits: int) -> None:
        rgb = random_rgb()
        frame = av.VideoFrame(W, H, self.pix_fmt(bits))
        fill(frame, rgb, coding)
        error = np.stack(planes(frame, bits)) - np.clip(exact_yuv(rgb / 65535, coding, bits), 0, 2**bits - 1)
        assert np.abs(error).max() < 0.501, np.percentile(np.abs(error), [50, 99, 100])
        assert np.abs(error.mean((1, 2))).max() < 0.05, "truncation would shift the mean by half a code"

    def test_to_rgb_is_exact(self, coding: Coding, bits: int) -> None:
        codes = np.random.default_rng(6).integers(0, 2**bits, (3, H, W))
        rgb = to_rgb(frame_of(codes, self.pix_fmt(bits), bits), coding)
        assert rgb.dtype == np.float32
        error = np.abs(rgb - np.clip(exact_rgb(codes, coding, bits), 0, 1)) * (2**bits - 1)
        assert error.max() < 0.01, np.percentile(error, [50, 99, 100])

    def test_round_trip_returns_the_same_codes(self, coding: Coding, bits: int) -> None:
        codes = np.rint(exact_yuv(random_rgb() / 65535, coding, bits)).clip(0, 2**bits - 1)
        in_gamut = np.all(np.abs(exact_rgb(codes, coding, bits) - 0.5) <= 0.5, axis=0)
        assert in_gamut.mean() > 0.8
        rgb = to_rgb(frame_of(codes, self.pix_fmt(bits), bits), coding)
        again = av.VideoFrame(W, H, self.pix_fmt(bits))
        fill(again, np.rint(rgb * 65535).astype(np.uint16), coding)
        assert np.array_equal(np.stack(planes(again, bits))[:, in_gamut], codes[:, in_gamut])

    @pytest.mark.parametrize("sampling", ["420", "422", "440"])
    def test_flat_frames_of_odd_sizes_are_exact(self, coding: Coding, bits: int, sampling: str) -> None:
        rgb = np.empty((3, 13, 17), np.uint16)
        rgb[:] = np.array([50000, 21000, 9000]).reshape(3, 1, 1)
        frame = av.VideoFrame(17, 13, self.pix_fmt(bits, sampling))
        fill(frame, rgb, coding)
        expected = np.rint(exact_yuv(rgb[:, :1, :1] / 65535, coding, bits)).ravel()
        for plane, code in zip(planes(frame, bits), expected, strict=True):
            assert (plane == code).all()
        back = to_rgb(frame, coding)
        exact = exact_rgb(expected.reshape(3, 1, 1), coding, bits)
        assert np.abs(back - exact).max() * (2**bits - 1) < 0.01


class TestChroma:
    def test_upsampling_is_linear_and_left_sited(self) -> None:
        coding = Coding(BT709, True)
        # Linear chroma stays linear through its sites, which are at even columns and between rows.
        cols, rows = np.arange(W // 2) * 4 + 60, np.arange(H // 2) * 4 + 70
        luma = np.full((H, W), 128)
        frame = frame_of([luma, np.tile(cols, (H // 2, 1)), np.tile(rows[:, None], (1, W // 2))], "yuv420p", 8)
        yuv = exact_yuv(to_rgb(frame, coding).astype(np.float64), coding, 8)
        assert np.allclose(yuv[1][:, : W - 1], (np.arange(W) * 2 + 60)[: W - 1], atol=0.01)
        assert np.allclose(yuv[2][1 : H - 1], (np.arange(H)[1 : H - 1, None] - 0.5) * 2 + 70, atol=0.01)

    def test_downsampling_is_left_sited(self) -> None:
        coding = Coding(BT709, True)
        yuv = np.stack([np.full((H, W), 128.0), np.tile(np.arange(W) * 2 + 90.0, (H, 1)), np.full((H, W), 120.0)])
        rgb = np.rint(exact_rgb(yuv, coding, 8) * 65535).astype(np.uint16)
        frame = av.VideoFrame(W, H, "yuv420p")
        fill(frame, rgb, coding)
        assert np.array_equal(planes(frame, 8)[1][:, 1:], np.tile(np.arange(0, W, 2) * 2 + 90, (H // 2, 1))[:, 1:])

    @pytest.mark.parametrize("pix_fmt", ["yuv411p", "yuv410p"])
    def test_subsampling_by_four_keeps_flat_frames(self, pix_fmt: str) -> None:
        rgb, coding = np.full((3, 21, 35), 30000, np.uint16), Coding(SMPTE170M, False)
        frame = av.VideoFrame(35, 21, pix_fmt)
        fill(frame, rgb, coding)
        assert np.allclose(to_rgb(frame, coding), 30000 / 65535, atol=0.5 / 219)

    def test_bands_do_not_change_the_result(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rgb, coding = random_rgb(61, 33), Coding(SMPTE170M, False)
        results = []
        for band_px in (1 << 20, 1):
            monkeypatch.setattr("stvsr.engine.media.color._BAND_PX", band_px)
            frame = av.VideoFrame(33, 61, "yuv420p")
            fill(frame, rgb, coding)
            results.append((*planes(frame, 8), to_rgb(frame, coding)))
        for whole, banded in zip(*results, strict=True):
            assert np.array_equal(whole, banded)


@pytest.mark.parametrize(
    ("pix_fmt", "planar"),
    [("nv12", "yuv420p"), ("p010le", "yuv420p10le"), ("yuyv422", "yuv422p"), ("gray", "gray")],
)
def test_repacking_keeps_the_samples(pix_fmt: str, planar: str) -> None:
    assert planar_format(pix_fmt) == planar
    coding, source = Coding(BT709, False), av.VideoFrame(W, H, planar)
    fill(source, random_rgb(), coding)
    assert np.array_equal(to_rgb(repack(source, pix_fmt), coding), to_rgb(source, coding))


@pytest.mark.parametrize(
    ("pix_fmt", "top"), [("rgb24", 255), ("rgba", 255), ("bgr0", 255), ("rgb48be", 65535), ("rgb48le", 65535)]
)
def test_rgb_formats_are_exact(pix_fmt: str, top: int) -> None:
    values = np.random.default_rng(1).integers(0, top + 1, (H, W, 3))
    frame = av.VideoFrame(W, H, "gbrp" if top == 255 else "gbrp16le")
    for plane, channel in zip(planes(frame, 8 if top == 255 else 16), (1, 2, 0), strict=True):
        plane[:] = values[..., channel]
    rgb = to_rgb(repack(frame, pix_fmt), Coding(BT709, True))
    assert np.allclose(rgb, values.transpose(2, 0, 1) / top, atol=1e-6)


class TestTags:
    @pytest.mark.parametrize(("height", "matrix"), [(576, SMPTE170M), (719, SMPTE170M), (720, BT709), (4320, BT709)])
    def test_untagged_frames_follow_the_convention(self, height: int, matrix: int) -> None:
        assert coding_of(ColorTags(), height, "yuv420p") == Coding(matrix, False)

    def test_tags_override_the_convention(self) -> None:
        assert coding_of(ColorTags(9, 9, 16, 2), 240, "yuv420p10le") == Coding(BT2020_NCL, True)
        assert coding_of(ColorTags(1, 1, 1, 1), 240, "yuv420p") == Coding(BT709, False)
        assert coding_of(ColorTags(), 240, "yuvj420p").full_range

    def test_unsupported_matrix_is_named(self) -> None:
        with pytest.raises(MediaError, match="YCgCo"):
            coding_of(ColorTags(matrix=8), 240, "yuv444p")

    def test_unknown_pixel_format_is_named(self) -> None:
        with pytest.raises(MediaError, match="yuv999p"):
            planar_format("yuv999p")


def test_sample_agrees_with_swscale() -> None:
    with av.open(str(SAMPLE)) as container:
        frame = next(container.decode(video=0))
    ours = to_rgb(frame, Coding(BT709, False))
    theirs = frame.to_ndarray(format="rgb24", threads=1).transpose(2, 0, 1) / 255
    assert np.abs(ours - theirs).mean() < 3 / 255  # swscale does not interpolate chroma
