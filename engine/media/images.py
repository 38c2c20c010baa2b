"""Read image files as videos, and describe them without decoding all of them."""

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from ..contract.errors import MediaError
from ..contract.files import read_file
from .color import to_rgba
from .frame import Frame, FrameReader, checked_rate
from .image_files import IMAGE_CODECS, find_images, is_images, read_pattern
from .image_kinds import HEAD_BYTES, has_more_pages, image_codec, is_animated_webp, tiff_fault
from .orientation import turn_upright
from .pixel_format import has_alpha, video_format
from .probe import VideoInfo, display_matrix
from .tags import FULL_RANGE, LIMITED_RANGE, RGB, SMPTE170M, Coding, ColorTags

SINGLE_RATE = Fraction(25)  # frames per second, of a single image, which needs no rate
LARGEST_IMAGE = 1 << 30  # bytes


class ImageHead(NamedTuple):
    """The size in px and the pixel format that an image file states."""

    width: int
    height: int
    pix_fmt: str


class ImageReader(FrameReader):
    """Reads image files at a frame rate: a folder in the natural order of names, a numbered pattern, or one image.

    Images are turned upright by their EXIF orientation. Missing images are reported in `warnings`. Raises MediaError
    for images of several kinds or sizes, which are found at once, and for files that cannot be read.
    """

    def __init__(self, path: str | Path, rate: Fraction) -> None:
        self.path = Path(path)
        rate = checked_rate(rate)
        found = find_images(path)
        self.files, self._found_warnings = found.files, list(found.warnings)
        heads = [image_head(file) for file in self.files]
        for file, head in zip(self.files, heads, strict=True):
            if (head.width, head.height) != (heads[0].width, heads[0].height):
                raise MediaError(
                    f"{file} is {head.width}x{head.height}, but the first image is {heads[0].width}x{heads[0].height}:"
                    " resize the images to one size."
                )
        first = read_image(self.files[0])
        if has_more_pages(_read(self.files[0])):
            self._found_warnings.append(f"{self.files[0]} holds several pages, of which the first is read alone.")
        formats = {head.pix_fmt for head in heads}
        size = (first.height, first.width) if first.rotation % 180 else (first.width, first.height)
        self.info = VideoInfo(
            path=str(path),
            container="images",
            codec=_codec(self.files[0], _read(self.files[0], HEAD_BYTES)),
            pix_fmt=first.format.name,
            bit_depth=max(component.bits for name in formats for component in video_format(name).components),
            width=size[0],
            height=size[1],
            sample_aspect_ratio=Fraction(1),
            rotation=0,
            display_matrix=None,
            interlaced=False,
            color=ColorTags(RGB, first.color_primaries, first.color_trc, FULL_RANGE),
            rate=rate,
            variable_rate=False,
            time_base=1 / rate,
            start=Fraction(0),
            duration=len(self.files) / rate,
            frames=len(self.files),
            alpha=any(map(has_alpha, formats)) and self._is_transparent_somewhere(),
        )

    @property
    def warnings(self) -> list[str]:
        """Sentences on images that are missing, and on pages that are not read."""
        return list(self._found_warnings)

    def __iter__(self) -> Iterator[Frame]:
        return self.between(Fraction(0), len(self.files) / self.info.rate)

    def from_time(self, low: Fraction) -> Iterator[Frame]:
        """Yield the frames from a time on; see `FrameReader.from_time`."""
        return self.between(low, len(self.files) / self.info.rate)

    def between(self, low: Fraction, high: Fraction, *, seek: bool = True) -> Iterator[Frame]:
        """Yield the frames of a part; see `FrameReader.between`."""
        rate = self.info.rate
        for index, file in enumerate(self.files):
            if not low <= index / rate < high:
                continue
            rgb, alpha = _upright(read_image(file))
            if rgb.shape[1:] != (self.info.height, self.info.width):
                raise MediaError(
                    f"{file} is {rgb.shape[2]}x{rgb.shape[1]}, but the first image is {self.info.width}x"
                    f"{self.info.height}: resize the images to one size."
                )
            yield Frame(rgb, index / rate, 1 / rate, alpha)

    def _is_transparent_somewhere(self) -> bool:
        """Return whether the first, the middle or the last image has a pixel that is not opaque."""
        count = len(self.files)
        for index in {0, count // 2, count - 1}:
            alpha = _upright(read_image(self.files[index]))[1]
            if alpha is not None and alpha.min() < 1:
                return True
        return False


def open_images(path: str | Path, rate: Fraction | None) -> ImageReader:
    """Open image files at a rate in frames per second, which a single image does not need."""
    if rate is None and Path(path).is_file() and is_images(path):
        rate = SINGLE_RATE
    if rate is None:
        kind = "a folder" if read_pattern(path) is None else "a pattern"
        raise MediaError(f"{path} is {kind} of images, which has no frame rate: choose one, such as 24.")
    return ImageReader(path, rate)


def image_head(file: Path) -> ImageHead:
    """Return what an image file states about itself. Raises MediaError if it cannot be read."""
    for size in (HEAD_BYTES, None):  # a TIFF may state its size at its end
        data = _read(file, size)
        decoder = _decoder(_codec(file, data))
        decoder.skip_frame = "ALL"  # decode the header alone
        with suppress(av.error.FFmpegError):  # the rest is missing
            decoder.decode(av.Packet(data))
        if decoder.width and decoder.height and decoder.pix_fmt:
            return ImageHead(decoder.width, decoder.height, decoder.pix_fmt)
    image = read_image(file)  # which says why it cannot be read
    return ImageHead(image.width, image.height, image.format.name)


def read_image(file: Path) -> av.VideoFrame:
    """Decode an image file. Raises MediaError if it cannot be read."""
    data = _read(file)
    return decode_image(data, _codec(file, data), str(file))


def decode_image(data: bytes, codec: str, name: str) -> av.VideoFrame:
    """Decode one image with a decoder of FFmpeg; `name` is its name in errors. Raises MediaError."""
    if fault := tiff_fault(data):
        raise MediaError(f"{name} cannot be read ({fault}): export it without compression, or by LZW or ZIP.")
    try:
        images = _decoder(codec).decode(av.Packet(data))
    except av.error.FFmpegError as error:
        if is_animated_webp(data):
            raise MediaError(f"{name} is an animated WebP, which FFmpeg does not decode: convert it to GIF.") from error
        raise MediaError(f"{name} cannot be read ({error.strerror}): export or copy it again.") from error
    if not images:
        raise MediaError(f"{name} contains no image: export or copy it again.")
    return images[0]


def _codec(file: Path, data: bytes) -> str:
    """Return the decoder of an image by its content, or else by its name."""
    return image_codec(data) or IMAGE_CODECS[file.suffix.lower()]


def _read(file: Path, head_bytes: int | None = None) -> bytes:
    try:
        return read_file(file, LARGEST_IMAGE, head_bytes)
    except OSError as error:
        raise MediaError(f"{file} cannot be read ({error.strerror}): export or copy it again.") from error


def _decoder(codec: str) -> av.VideoCodecContext:
    decoder = av.CodecContext.create(codec, "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.thread_count = 1  # with frame threads the image would stay in the decoder
    return decoder


def _upright(image: av.VideoFrame) -> tuple[np.ndarray, np.ndarray | None]:
    """Return an image as RGB and alpha, turned by its orientation."""
    # RGB ignores the matrix; images of YUV are BT.601, and of the full range unless they state another.
    rgb, alpha = to_rgba(image, Coding(SMPTE170M, full_range=image.color_range != LIMITED_RANGE))
    if (matrix := display_matrix(image)) is None:
        return rgb, alpha
    return turn_upright(rgb, matrix), None if alpha is None else turn_upright(alpha[None], matrix)[0]
