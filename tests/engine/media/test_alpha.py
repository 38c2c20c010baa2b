"""Alpha in and out: every pixel format that stores it, hidden colors, and the files that hold it."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from stvsr.engine.media.alpha import AlphaReader, fill_hidden
from stvsr.engine.media.color import fill, to_rgba
from stvsr.engine.media.image_writer import ImageWriter
from stvsr.engine.media.pixel_format import planar_format, repack
from stvsr.engine.media.probe import probe
from stvsr.engine.media.reader import open_reader
from stvsr.engine.media.tags import BT709, Coding
from stvsr.engine.media.writer import VideoWriter

from tests.support.pictures import RATE, half_transparent, write_frames_rgba, write_images_rgba

CODING = Coding(BT709, full_range=True)
FORMATS = ["yuva420p", "yuva444p10le", "yuva422p12le", "rgba", "bgra", "argb", "abgr", "gbrap", "rgba64le", "rgba64be"]


def ramp() -> np.ndarray:
    """Return RGB and alpha, (4, 16, 64) uint16, in which every alpha differs."""
    picture = np.full((4, 16, 64), 20000, np.uint16)
    picture[3] = np.linspace(0, 65535, 1024).reshape(16, 64)
    return picture


@pytest.mark.parametrize("pix_fmt", FORMATS)
def test_alpha_is_written_and_read_to_its_depth(pix_fmt: str) -> None:
    frame = av.VideoFrame(64, 16, planar_format(pix_fmt))
    picture = ramp()
    fill(frame, picture, CODING)
    rgb, alpha = to_rgba(repack(frame, pix_fmt), CODING)
    assert alpha is not None
    top = 2 ** frame.format.components[-1].bits - 1
    assert np.abs(alpha - picture[3] / 65535).max() <= 0.5 / top + 1e-6
    assert np.abs(rgb - 20000 / 65535).max() < 0.01, "colors are straight"
    assert to_rgba(repack(frame, "yuv420p"), CODING)[1] is None


@pytest.mark.parametrize(("pix_fmt", "dtype"), [("ya8", "u1"), ("ya16le", "<u2"), ("ya16be", ">u2")])
def test_gray_with_alpha(pix_fmt: str, dtype: str) -> None:
    top = np.iinfo(dtype).max
    frame = av.VideoFrame(5, 3, pix_fmt)
    samples = np.frombuffer(memoryview(frame.planes[0]), dtype).reshape(3, -1)
    plane = np.arange(30).reshape(3, 10) * (top // 30)
    buffer = np.zeros_like(samples)
    buffer[:, :10] = plane
    frame.planes[0].update(buffer.tobytes())
    rgb, alpha = to_rgba(frame, CODING)
    assert alpha is not None
    assert np.allclose(alpha, plane[:, 1::2] / top)
    assert np.allclose(rgb[0], plane[:, 0::2] / top, atol=1e-4)


def test_a_frame_without_alpha_is_written_opaque() -> None:
    frame = av.VideoFrame(64, 16, "yuva420p")
    fill(frame, ramp()[:3], CODING)
    assert to_rgba(frame, CODING)[1].min() == 1  # type: ignore[union-attr]


def test_hidden_pixels_take_the_color_of_visible_ones_around_them() -> None:
    rgb = np.zeros((3, 37, 53), np.float32)
    alpha = np.zeros((37, 53), np.float32)
    rgb[:, 4:30, 5:20] = np.array([0.8, 0.4, 0.1], np.float32)[:, None, None]
    alpha[4:30, 5:20] = 0.5
    filled = fill_hidden(rgb, alpha)
    assert np.allclose(filled, np.array([0.8, 0.4, 0.1])[:, None, None], atol=1e-5)
    visible = np.random.default_rng(0).random((3, 37, 53), np.float32)
    assert np.array_equal(fill_hidden(visible, alpha)[:, 4:30, 5:20], visible[:, 4:30, 5:20])
    for constant in (0, 1):
        assert fill_hidden(visible, np.full((37, 53), constant, np.float32)) is visible


def alphas(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the alpha (n, h, w) and the colors (n, 3, h, w) of a file."""
    with open_reader(path, fps=RATE if path.is_dir() else None) as reader:
        frames = list(reader)
        assert reader.info.alpha
    assert all(frame.alpha is not None for frame in frames)
    return np.stack([f.alpha for f in frames if f.alpha is not None]), np.stack([f.rgb for f in frames])


SOURCES = [
    ("vp9.webm", "libvpx-vp9", "yuva420p"),
    ("prores.mov", "prores_ks", "yuva444p10le"),
    ("ffv1.mkv", "ffv1", "bgra"),
    ("animation.apng", "apng", "rgba"),
    ("rle.mov", "qtrle", "argb"),
]


@pytest.mark.parametrize(("name", "codec", "pix_fmt"), SOURCES)
def test_sources_with_alpha_are_read(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    path = write_frames_rgba(tmp_path / name, half_transparent(3), codec, pix_fmt)
    alpha, colors = alphas(path)
    assert alpha.shape == (3, 48, 64)
    assert alpha[:, :, :28].min() > 250 / 255
    assert alpha[:, :, 36:].max() < 5 / 255
    assert np.abs(colors[:, 0, :, :28] - 200 / 255).max() < 0.03


@pytest.mark.parametrize("name", ["out.webm", "out.mov", "out.mkv", "out.gif", "out.apng", "out"])
def test_alpha_is_written_where_the_output_holds_it(tmp_path: Path, name: str) -> None:
    source = write_frames_rgba(tmp_path / "in.mkv", half_transparent(3), "ffv1", "bgra")
    output = tmp_path / name
    with open_reader(source) as reader:
        writer: VideoWriter | ImageWriter
        if name == "out":
            writer = ImageWriter(f"{output}/", source=reader.info, size=(64, 48))
        else:
            writer = VideoWriter(output, source=reader, size=(64, 48), rate=RATE, time_base=1 / RATE)
        with writer:
            assert writer.has_alpha
            assert writer.picture_format is None
            for frame in AlphaReader(reader, keep=True):
                assert frame.alpha is not None
                picture = np.rint(np.concatenate([frame.rgb, frame.alpha[None]]) * 65535).astype(np.uint16)
                writer.write(picture, frame.pts, frame.duration)
    alpha, colors = alphas(output)
    assert alpha[:, :, :28].min() > 250 / 255
    assert alpha[:, :, 36:].max() < 5 / 255
    assert np.abs(colors[:, 0, :, 4:28] - 200 / 255).max() < 0.03


def test_a_frame_that_loses_its_alpha_is_shown_over_black(tmp_path: Path) -> None:
    source = write_images_rgba(tmp_path / "in", half_transparent(2))
    with open_reader(source, fps=RATE) as reader:
        flat = AlphaReader(reader, keep=False)
        assert not flat.is_lost
        frames = list(flat)
        assert flat.is_lost
        assert [frame.pts for frame in flat.between(1 / RATE, 2 / RATE)] == [1 / RATE]
    assert all(frame.alpha is None for frame in frames)
    assert np.allclose(frames[0].rgb[0, :, :32], 200 / 255)
    assert frames[0].rgb[:, :, 32:].max() == 0


def test_opaque_images_of_rgba_count_as_opaque(tmp_path: Path) -> None:
    opaque = [frame | np.array([0, 0, 0, 255], np.uint8) for frame in half_transparent(3)]
    with open_reader(write_images_rgba(tmp_path / "opaque", opaque), fps=RATE) as reader:
        assert not reader.info.alpha
        flat = AlphaReader(reader, keep=False)
        assert len(list(flat)) == 3
        assert not flat.is_lost
    with open_reader(write_images_rgba(tmp_path / "mixed", [*opaque, *half_transparent(1)]), fps=RATE) as reader:
        assert reader.info.alpha
    gif = write_frames_rgba(tmp_path / "opaque.apng", opaque, "apng", "rgba")
    assert not probe(gif).alpha


def test_no_tag_of_alpha_is_left_without_alpha(tmp_path: Path) -> None:
    source = write_frames_rgba(tmp_path / "in.webm", half_transparent(2), "libvpx-vp9", "yuva420p")
    with open_reader(source) as reader:
        for pix_fmt, tag in (("yuv420p", None), ("yuva420p", "1")):
            path = tmp_path / f"{pix_fmt}.webm"
            with VideoWriter(
                path, source=reader, size=(64, 48), rate=RATE, time_base=1 / RATE, pix_fmt=pix_fmt
            ) as writer:
                writer.write(np.zeros((3, 48, 64), np.uint16), Fraction(0), 1 / RATE)
            with av.open(str(path)) as container:
                metadata = {key.lower(): value for key, value in container.streams.video[0].metadata.items()}
                assert metadata.get("alpha_mode") == tag
