"""Images by their content: orientations, names that are wrong, animations, pages, and what FFmpeg does not decode."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from stvsr.engine.contract.errors import MediaError
from stvsr.engine.media.image_files import is_images
from stvsr.engine.media.image_kinds import image_codec
from stvsr.engine.media.images import image_head, read_image
from stvsr.engine.media.reader import open_reader

from tests.support.media import sample_frames

SIZE = (32, 24)
# By the number of EXIF, a stored picture as it is shown.
SHOWN = {
    1: lambda rgb: rgb,
    2: lambda rgb: rgb[:, :, ::-1],
    3: lambda rgb: rgb[:, ::-1, ::-1],
    4: lambda rgb: rgb[:, ::-1],
    5: lambda rgb: rgb.swapaxes(1, 2),
    6: lambda rgb: rgb.swapaxes(1, 2)[:, :, ::-1],
    7: lambda rgb: rgb.swapaxes(1, 2)[:, ::-1, ::-1],
    8: lambda rgb: rgb.swapaxes(1, 2)[:, ::-1],
}


def encoded(codec: str, pix_fmt: str) -> bytes:
    context = av.CodecContext.create(codec, "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height = SIZE
    context.pix_fmt, context.time_base = pix_fmt, Fraction(1, 25)
    frame = sample_frames(1, SIZE, pix_fmt)[0]
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


def fields(*entries: tuple[int, int], following: int = 0) -> bytes:
    """Return a page of TIFF with short fields."""
    body = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in entries)
    return struct.pack("<H", len(entries)) + body + struct.pack("<I", following)


def exif(orientation: int) -> bytes:
    data = b"Exif\0\0II*\0\x08\0\0\0" + fields((0x112, orientation))
    return b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data


def tiff(compression: int = 1, orientation: int = 1, following: int = 0) -> bytes:
    """Return a gray TIFF of a gradient; its pixels come first."""
    width, height = SIZE
    pixels = bytes(range(width)) * height
    entries = [
        (256, width), (257, height), (258, 8), (259, compression), (262, 1), (273, 8), (274, orientation), (277, 1),
        (278, height), (279, len(pixels)),
    ]  # fmt: skip
    start = 8 + len(pixels)
    return b"II*\0" + struct.pack("<I", start) + pixels + fields(*entries, following=following)


@pytest.mark.parametrize("orientation", SHOWN)
def test_every_orientation_of_exif_is_turned_upright(tmp_path: Path, orientation: int) -> None:
    plain = encoded("mjpeg", "yuvj444p")
    (tmp_path / "plain.jpg").write_bytes(plain)
    (tmp_path / "turned.jpg").write_bytes(plain[:2] + exif(orientation) + plain[2:])
    with open_reader(tmp_path / "plain.jpg") as first, open_reader(tmp_path / "turned.jpg") as second:
        (one,), (other,) = first, second
        expected = SHOWN[orientation](one.rgb)
        assert (second.info.height, second.info.width) == expected.shape[1:]
        np.testing.assert_array_equal(other.rgb, expected)


@pytest.mark.parametrize("orientation", [2, 5])
def test_videos_of_photographs_with_exif_are_read(tmp_path: Path, orientation: int) -> None:
    plain = encoded("mjpeg", "yuvj420p")
    with av.open(str(tmp_path / "clip.avi"), "w") as output:
        stream = output.add_stream("mjpeg", rate=25, width=SIZE[0], height=SIZE[1])
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt = "yuvj420p"
        for number in range(3):
            packet = av.Packet(plain[:2] + exif(orientation) + plain[2:])
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 25)
            output.mux(packet)
    with open_reader(tmp_path / "clip.avi") as reader:
        assert len(list(reader)) == 3
        assert reader.info.display_matrix is not None


@pytest.mark.parametrize("name", ["photo.png", "photo.webp", "photo.tif"])
def test_an_image_is_read_whatever_its_name_is(tmp_path: Path, name: str) -> None:
    data = encoded("mjpeg", "yuvj420p")
    for path in (tmp_path / name, tmp_path / "photo.jpg"):
        path.write_bytes(data)
    assert image_codec(data) == "mjpeg"
    assert image_head(tmp_path / name) == image_head(tmp_path / "photo.jpg")
    with open_reader(tmp_path / name) as reader, open_reader(tmp_path / "photo.jpg") as expected:
        assert reader.info.codec == "mjpeg"
        np.testing.assert_array_equal(next(iter(reader)).rgb, next(iter(expected)).rgb)


def test_an_animated_png_is_a_video_by_any_name(tmp_path: Path) -> None:
    path = tmp_path / "anim.png"
    with av.open(str(path), "w", format="apng") as output:
        stream = output.add_stream("apng", rate=25, width=SIZE[0], height=SIZE[1])
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt = "rgb24"
        for number, frame in enumerate(sample_frames(3, SIZE, "rgb24")):
            frame.pts = number
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    assert not is_images(path)
    with open_reader(path) as reader:
        assert len(list(reader)) == 3
    plain = tmp_path / "plain.png"
    plain.write_bytes(encoded("png", "rgb24"))
    assert is_images(plain)


def test_pages_that_are_not_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "scan.tif"
    path.write_bytes(tiff())
    with open_reader(path) as reader:
        assert reader.warnings == []
    path.write_bytes(tiff(following=8))
    with open_reader(path) as reader:
        assert len(list(reader)) == 1
        assert reader.warnings == [f"{path} holds several pages, of which the first is read alone."]


def test_pixels_that_ffmpeg_makes_black_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "photo.tif"
    path.write_bytes(tiff())
    assert read_image(path).to_ndarray(format="gray")[0].tolist() == list(range(SIZE[0]))
    path.write_bytes(tiff(compression=7))
    with pytest.raises(MediaError, match=r"photo\.tif cannot be read .*JPEG.*LZW"):
        read_image(path)


@pytest.mark.parametrize("data", [b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", b"\x89PNG\r\n\x1a\n"])
def test_damaged_images_are_sentences(tmp_path: Path, data: bytes) -> None:
    for name in ("x.tif", "x.png"):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(MediaError, match=r"cannot be read|contains no image"):
            open_reader(tmp_path / name)
