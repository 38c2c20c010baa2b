"""Reading a folder of images as a video."""

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from ..contract.errors import MediaError
from .color import to_rgb
from .frame import Frame, FrameReader, checked_rate
from .probe import VideoInfo
from .tags import FULL_RANGE, RGB, SMPTE170M, Coding, ColorTags


class ImageFolderReader(FrameReader):
    """Reads the PNG images of a folder, in the natural order of their names, at a rate."""

    def __init__(self, folder: str | Path, rate: Fraction) -> None:
        self.path = Path(folder)
        if not self.path.is_dir():
            raise MediaError(f"{folder} is not a folder: choose one that holds PNG images.")
        rate = checked_rate(rate)
        self.files = sorted(
            (file for file in self.path.iterdir() if file.suffix.lower() == ".png" and not file.name.startswith(".")),
            key=lambda file: [int(part) if part.isdigit() else part.lower() for part in re.split(r"(\d+)", file.name)],
        )
        if not self.files:
            raise MediaError(f"{folder} holds no PNG images: choose another folder, or convert its images to PNG.")
        first = _read_png(self.files[0])
        pix_fmt = first.format.name
        self.info = VideoInfo(
            path=str(folder),
            container="images",
            codec="png",
            pix_fmt=pix_fmt,
            bit_depth=max(part.bits for part in first.format.components),
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
        """Yield the images."""
        for number, file in enumerate(self.files):
            picture = _read_png(file)
            if (picture.width, picture.height) != (self.info.width, self.info.height):
                raise MediaError(
                    f"{file} is {picture.width}x{picture.height}, where the first image is {self.info.width}x"
                    f"{self.info.height}: bring all images of the folder to one size."
                )
            rgb = to_rgb(picture, Coding(SMPTE170M, full_range=True))  # the matrix does not matter to RGB
            yield Frame(rgb, number / self.info.rate, 1 / self.info.rate)


def _read_png(file: Path) -> Any:
    try:
        decoder = av.CodecContext.create("png", "r")
        decoder.thread_count = 1  # frame threads would hold the picture back
        pictures = decoder.decode(av.Packet(file.read_bytes()))
        if pictures:
            return pictures[0]
    except (av.error.FFmpegError, OSError) as error:
        raise MediaError(
            f"{file} cannot be read ({getattr(error, 'strerror', None) or error}): make it again."
        ) from error
    raise MediaError(f"{file} holds no picture: make it again.")
