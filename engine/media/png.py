"""PNG images in memory."""

import struct
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

from ..contract.errors import MediaError
from .color import to_rgb
from .tags import SMPTE170M, Coding

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">8sI4sII")  # signature, length and type of the first chunk, width and height
_CHUNK = struct.Struct(">I4s")  # length and type; the data and a checksum of four bytes follow
_FASTEST = {"compression_level": "1", "pred": "up"}  # a fifth of the default's time, a fifth more bytes

# RGB ignores the matrix; gray needs the range.
_CODING = Coding(SMPTE170M, full_range=True)


def decode_png(data: bytes, name: str = "The image") -> av.VideoFrame:
    """Decode one image; `name` is its name in errors. Raises MediaError."""
    try:
        decoder = av.CodecContext.create("png", "r")
        decoder.thread_count = 1  # with frame threads the image would stay in the decoder
        images = decoder.decode(av.Packet(data))
    except av.error.FFmpegError as error:
        raise MediaError(f"{name} cannot be read ({error.strerror}): export or copy it again.") from error
    if not images:
        raise MediaError(f"{name} contains no image: export or copy it again.")
    return images[0]


def png_to_rgb(image: av.VideoFrame) -> np.ndarray:
    """Return a decoded image as RGB, (3, H, W) float32 in [0, 1]."""
    return to_rgb(image, _CODING)


def bit_depth(image: av.VideoFrame) -> int:
    """Return the bits of each channel of a decoded image."""
    return max(component.bits for component in image.format.components)


def encode_png(frame: np.ndarray) -> bytes:
    """Return a frame as a PNG image, compressed quickly: (H, W, 3) RGB, uint8 or uint16."""
    encoder = av.CodecContext.create("png", "w")
    encoder.thread_count, encoder.options = 1, _FASTEST
    encoder.height, encoder.width, encoder.time_base = *frame.shape[:2], Fraction(1)
    encoder.pix_fmt = "rgb24" if frame.dtype == np.uint8 else "rgb48be"
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), encoder.pix_fmt)
    return b"".join(bytes(packet) for packet in [*encoder.encode(picture), *encoder.encode(None)])


def png_size(data: bytes) -> tuple[int, int]:
    """Return the width and height in an image's header. Raises MediaError for what is no PNG image."""
    if len(data) >= _HEADER.size:
        signature, _, kind, width, height = _HEADER.unpack_from(data)
        if signature == _SIGNATURE and kind == b"IHDR":
            return width, height
    raise MediaError("A frame is no PNG image: send PNG files, or name the format of raw frames.")


def split_pngs(data: bytes) -> Iterator[bytes]:
    """Yield the images of PNG files that follow each other. Raises MediaError for anything else."""
    start = 0
    while start < len(data):
        png_size(data[start : start + _HEADER.size])
        end, kind = start + len(_SIGNATURE), b""
        while kind != b"IEND":
            if end + _CHUNK.size > len(data):
                raise MediaError("The last PNG image is not complete: send all of it.")
            length, kind = _CHUNK.unpack_from(data, end)
            end += _CHUNK.size + length + 4
        if end > len(data):
            raise MediaError("The last PNG image is not complete: send all of it.")
        yield data[start:end]
        start = end
