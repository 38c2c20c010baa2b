"""The formats of frames that come over HTTP: PNG images, and raw RGB pixels."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ..contract.errors import RequestError
from ..media.png_files import png_size, split_pngs

FormatName = Literal["png", "rgb24", "rgb48le"]  # those of raw pixels are FFmpeg's


@dataclass(frozen=True)
class FrameFormat:
    """A format of frames. Raises RequestError for raw frames without a size, and for PNG images with one.

    name: "png"; or RGB pixels row by row, with 8 bits for a value ("rgb24") or 16, little endian ("rgb48le").
    width, height: of raw frames, in pixels.
    """

    name: FormatName
    width: int | None = None
    height: int | None = None

    def __post_init__(self) -> None:
        if self.name == "png" and (self.width is not None or self.height is not None):
            raise RequestError("PNG images state their own size: leave out width and height.")
        if self.name != "png" and (self.width is None or self.height is None):
            raise RequestError(f"Frames of {self.name} do not state their size: give width and height.")

    @property
    def query(self) -> dict[str, str]:
        """Return the format as options in an address."""
        values = {"format": self.name, "width": self.width, "height": self.height}
        return {name: str(value) for name, value in values.items() if value is not None}

    @property
    def frame_bytes(self) -> int | None:
        """Return the size of a raw frame; None for PNG images."""
        if self.width is None or self.height is None:
            return None
        return self.width * self.height * self.pixel_bytes

    @property
    def pixel_bytes(self) -> int:
        """Return the size of a pixel, at most."""
        return 3 if self.name == "rgb24" else 6

    def split(self, body: bytes) -> Iterator[bytes]:
        """Yield the frames in a body, in which they follow each other. Raises RequestError, MediaError."""
        size = self.frame_bytes
        if size is None:
            yield from split_pngs(body)
            return
        if len(body) % size:
            raise RequestError(
                f"There are {len(body)} bytes, and a frame of {self.width}x{self.height} pixels in {self.name} has"
                f" {size}: send whole frames."
            )
        yield from (body[start : start + size] for start in range(0, len(body), size))

    def size(self, data: bytes) -> tuple[int, int]:
        """Return the width and height of a frame. Raises MediaError for what is no PNG image."""
        if self.width is None or self.height is None:
            return png_size(data)
        return self.width, self.height
