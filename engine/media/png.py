"""PNG images in memory."""

from fractions import Fraction

import av
import numpy as np

from .color import to_rgb
from .images import decode_image
from .tags import SMPTE170M, Coding

_FASTEST = {"compression_level": "1", "pred": "up"}  # a fifth of the default's time, a fifth more bytes

# RGB ignores the matrix; gray needs the range.
_CODING = Coding(SMPTE170M, full_range=True)


def decode_png(data: bytes, name: str = "The image") -> av.VideoFrame:
    """Decode one image; `name` is its name in errors. Raises MediaError."""
    return decode_image(data, "png", name)


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
