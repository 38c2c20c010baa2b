"""Read a folder of PNG images as a video."""

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av

from ..contract.errors import MediaError
from ..contract.files import read_file
from .frame import Frame, FrameReader, checked_rate
from .png import bit_depth, decode_png, png_to_rgb
from .probe import VideoInfo
from .tags import FULL_RANGE, RGB, ColorTags

LARGEST_IMAGE = 1 << 30  # bytes


class ImageFolderReader(FrameReader):
    """Reads the PNG images of a folder at a frame rate, in the natural order of their names (frame9 before frame10).

    Raises MediaError if the folder or its images cannot be read, or if the images differ in size.
    """

    def __init__(self, folder: str | Path, rate: Fraction) -> None:
        self.path = Path(folder)
        if not self.path.is_dir():
            raise MediaError(f"{folder} is not a folder: choose a folder of PNG images.")
        rate = checked_rate(rate)
        self.files = sorted(
            (file for file in self.path.iterdir() if file.suffix.lower() == ".png" and not file.name.startswith(".")),
            key=lambda file: [int(part) if part.isdigit() else part.lower() for part in re.split(r"(\d+)", file.name)],
        )
        if not self.files:
            raise MediaError(f"{folder} contains no PNG images: choose another folder, or convert its images to PNG.")
        first = _read_png(self.files[0])
        self.info = VideoInfo(
            path=str(folder),
            container="images",
            codec="png",
            pix_fmt=first.format.name,
            bit_depth=bit_depth(first),
            width=first.width,
            height=first.height,
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
        )

    def __iter__(self) -> Iterator[Frame]:
        for index, file in enumerate(self.files):
            image = _read_png(file)
            if (image.width, image.height) != (self.info.width, self.info.height):
                raise MediaError(
                    f"{file} is {image.width}x{image.height}, but the first image is {self.info.width}x"
                    f"{self.info.height}: resize the images of the folder to one size."
                )
            yield Frame(png_to_rgb(image), index / self.info.rate, 1 / self.info.rate)


def _read_png(file: Path) -> av.VideoFrame:
    try:
        data = read_file(file, LARGEST_IMAGE)
    except OSError as error:
        raise MediaError(f"{file} cannot be read ({error.strerror}): export or copy it again.") from error
    return decode_png(data, str(file))
