"""Names of image files: folders, patterns and single images; what is odd among them is found by name."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from stvsr.engine.contract.errors import MediaError
from stvsr.engine.media.image_files import find_images, is_images, read_pattern, stem_of
from stvsr.engine.media.reader import open_reader

from tests.support.media import sample_frames, write_png


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def names(path: Path) -> list[str]:
    return [file.name for file in find_images(path).files]


def test_names_are_in_natural_order_and_superscripts_are_no_numbers(tmp_path: Path) -> None:
    folder = touch(tmp_path / "f", "b10.png", "b9.png", "B8.PNG", "²1.png", "x²3.png", "٣.png", ".hidden.png", "n.txt")
    assert names(folder) == ["B8.PNG", "b9.png", "b10.png", "x²3.png", "²1.png", "٣.png"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["1.png", "3.png"], "2.png is missing among the images in"),
        (["a_007.png", "a_008.png", "a_011.png"], "a_009.png, a_010.png are missing"),
        (["9.png", "10.png", "12.png"], "11.png is missing"),
        (["shot2_1.png", "shot2_4.png"], "shot2_2.png, shot2_3.png are missing"),
        (["1.png", "100.png"], "2.png, 3.png, 4.png, 5.png, 6.png and 93 more are missing"),
        (["a1.png", "a2.png", "cover.png"], "several kinds of names (a1.png, cover.png)"),
        (["1.png", "2.png", "3.png"], None),
        (["000.png", "001.png"], None),
        (["a.png", "b.png", "z.png"], None),
        (["take1_frame2.png", "take2_frame2.png"], None),
        (["only.png"], None),
    ],
)
def test_gaps_are_named(tmp_path: Path, files: list[str], words: str | None) -> None:
    warnings = find_images(touch(tmp_path / "f", *files)).warnings
    assert [words in warning for warning in warnings] == [True] if words else warnings == ()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["1.png", "2.jpg", "3.png"], r"several kinds \(2 PNG, 1 JPEG\), among them 2\.jpg"),
        (["1.tif", "2.webp"], "several kinds"),
        (["01.png", "1.png"], r"01\.png and 1\.png have the same number"),
        (["notes.txt"], "contains no images"),
    ],
)
def test_folders_that_are_no_sequence_are_refused(tmp_path: Path, files: list[str], words: str) -> None:
    with pytest.raises(MediaError, match=words):
        find_images(touch(tmp_path / "f", *files))


def test_several_suffixes_of_one_kind_are_no_mixture(tmp_path: Path) -> None:
    assert names(touch(tmp_path / "f", "1.jpg", "2.JPEG", "3.jpeg")) == ["1.jpg", "2.JPEG", "3.jpeg"]


def test_a_pattern_names_its_images(tmp_path: Path) -> None:
    folder = touch(tmp_path / "f", "a_00001.png", "a_00002.png", "a_00004.png", "a_5.png", "b_00001.png", "a_1x.png")
    found = find_images(folder / "a_%05d.png")
    assert [file.name for file in found.files] == ["a_00001.png", "a_00002.png", "a_00004.png"]
    assert [warning.split(" is ")[0] for warning in found.warnings] == ["a_00003.png"]
    assert names(folder / "a_%d.png") == ["a_00001.png", "a_00002.png", "a_00004.png", "a_5.png"]
    assert stem_of(folder / "a_%05d.png") == "a"
    assert stem_of(folder / "%05d.png") == "f"
    assert stem_of(folder) == "f"
    assert stem_of(folder / "a_00001.png") == "a_00001"
    with pytest.raises(MediaError, match=r"No image is named as .*c_%05d\.png"):
        find_images(folder / "c_%05d.png")
    with pytest.raises(MediaError, match="write one number"):
        read_pattern(folder / "a_%d_%d.png")


def test_a_file_of_the_name_of_a_pattern_is_that_file(tmp_path: Path) -> None:
    folder = touch(tmp_path / "100%done", "a%d.png", "50%%1.png", "50%2.png")
    assert read_pattern(folder / "a%d.png") is None
    assert names(folder / "a%d.png") == ["a%d.png"]
    assert names(folder / "50%%%d.png") == ["50%2.png"]
    assert not is_images(folder / "clip%d.mp4")


def test_images_of_another_size_are_found_before_work_begins(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    for number, width in enumerate((32, 32, 30)):
        write_png(folder / f"{number}.png", sample_frames(1, (width, 24), "rgb24")[0])
    with pytest.raises(MediaError, match=r"2\.png is 30x24, but the first image is 32x24"):
        open_reader(folder, fps=Fraction(24))


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(100)])
def test_a_file_that_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(MediaError, match=r"a\.png"):
        open_reader(tmp_path / "a.png")


def test_an_animated_webp_is_named_as_such(tmp_path: Path) -> None:
    head = b"RIFF\x40\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0\x1f\0\0\x17\0\0ANIM\x06\0\0\0" + bytes(40)
    (tmp_path / "a.webp").write_bytes(head)
    with pytest.raises(MediaError, match=r"a\.webp is an animated WebP"):
        open_reader(tmp_path / "a.webp")


def test_a_single_image_needs_no_rate(tmp_path: Path) -> None:
    write_png(tmp_path / "photo.png", sample_frames(1, (32, 24), "rgb24")[0])
    with open_reader(tmp_path / "photo.png") as reader:
        (frame,) = reader
        assert reader.info.frames == 1
        assert frame.rgb.dtype == np.float32
    with pytest.raises(MediaError, match=r"%d\.png is a pattern of images, which has no frame rate"):
        open_reader(tmp_path / "%d.png")
