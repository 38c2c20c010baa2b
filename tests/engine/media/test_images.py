"""Image folders read as videos."""

import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from stvsr.engine.contract.errors import MediaError
from stvsr.engine.media.images import ImageReader
from stvsr.engine.media.reader import open_reader

from tests.support.media import NTSC, make_folder, sample_frames, truncate, write_png
from tests.support.paths import SAMPLE


def test_images_are_read_in_natural_order_at_the_rate(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", 3)
    shutil.copy(SAMPLE, folder / "notes.txt")
    with open_reader(folder, fps=NTSC) as reader:
        assert isinstance(reader, ImageReader)
        assert [file.name for file in reader.files] == ["frame9.png", "frame10.png", "frame11.png"]
        frames = list(reader)
    assert [(f.pts, f.duration) for f in frames] == [(n / NTSC, 1 / NTSC) for n in range(3)]
    expected = sample_frames(1, (32, 24), "rgb24")[0].to_ndarray().transpose(2, 0, 1) / 255
    assert np.allclose(frames[0].rgb, expected, atol=1e-6)


@pytest.mark.parametrize(("pix_fmt", "bits"), [("rgba", 8), ("rgb48be", 16), ("gray", 8), ("gray16be", 16), ("ya8", 8)])
def test_pixel_formats_of_png(tmp_path: Path, pix_fmt: str, bits: int) -> None:
    reader = open_reader(make_folder(tmp_path / "images", 1, pix_fmt=pix_fmt), fps=Fraction(24))
    assert reader.info.bit_depth == bits
    (frame,) = reader
    assert frame.rgb.shape == (3, 24, 32)
    if "gray" in pix_fmt:
        assert np.array_equal(frame.rgb[0], frame.rgb[2])


def test_folder_without_a_rate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no frame rate"):
        open_reader(make_folder(tmp_path / "images"))


def test_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no images"):
        open_reader(tmp_path, fps=Fraction(24))


def test_images_of_different_sizes_are_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", 2)
    write_png(folder / "frame10.png", sample_frames(1, (30, 24), "rgb24")[0])
    with pytest.raises(MediaError, match=r"frame10\.png is 30x24"):
        list(open_reader(folder, fps=Fraction(24)))


def test_damaged_image_is_named(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", 2)
    truncate(folder / "frame10.png", folder / "frame10.png", 0.02)
    with pytest.raises(MediaError, match=r"frame10\.png"):
        list(open_reader(folder, fps=Fraction(24)))
