"""Read a folder of PNG images as a video, and write a frame as such an image."""

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from ..contract.errors import MediaError
from .color import to_rgb
from .frame import Frame, FrameReader, checked_rate
from .probe import VideoInfo
from .tags import FULL_RANGE, RGB, SMPTE170M, Coding, ColorTags


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
            bit_depth=max(component.bits for component in first.format.components),
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
            rgb = to_rgb(image, Coding(SMPTE170M, full_range=True))  # RGB ignores the matrix; gray needs the range
            yield Frame(rgb, index / self.info.rate, 1 / self.info.rate)


def encode_png(rgb: np.ndarray) -> bytes:
    """Return a PNG image with 8 bits of a frame (3, H, W) in [0, 1]."""
    pixels = np.rint(rgb * 255).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    encoder = av.CodecContext.create("png", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = frame.width, frame.height, "rgb24", Fraction(1)
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def _read_png(file: Path) -> av.VideoFrame:
    try:
        decoder = av.CodecContext.create("png", "r")
        decoder.thread_count = 1  # with frame threads the image would stay in the decoder
        images = decoder.decode(av.Packet(file.read_bytes()))
    except (av.error.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MediaError(f"{file} cannot be read ({reason}): export or copy it again.") from error
    if not images:
        raise MediaError(f"{file} contains no image: export or copy it again.")
    return images[0]
