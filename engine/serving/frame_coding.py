"""Frames in the formats in which they come over HTTP, as arrays."""

import numpy as np

from ..contract.errors import RequestError
from ..contract.picture import FULL_SCALE
from ..media.png import bit_depth, decode_png, encode_png, png_to_rgb
from .frame_formats import FrameFormat


def decode_frame(data: bytes, frame_format: FrameFormat) -> tuple[np.ndarray, int]:
    """Return a frame as RGB, (3, h, w) uint8, uint16 or float32 in [0, 1], and the bits of its values.

    Raises RequestError, MediaError.
    """
    width, height = frame_format.width, frame_format.height
    if width is None or height is None:
        image = decode_png(data, "A frame")
        return png_to_rgb(image), bit_depth(image)
    if len(data) != frame_format.frame_bytes:
        raise RequestError(
            f"There are {len(data)} bytes, and a frame of {width}x{height} pixels in {frame_format.name} has"
            f" {frame_format.frame_bytes}: send one frame in each message."
        )
    bits = 8 if frame_format.name == "rgb24" else 16
    pixels = np.frombuffer(data, f"<u{bits // 8}").reshape(height, width, 3)
    return pixels.transpose(2, 0, 1).astype(f"u{bits // 8}"), bits


def encode_frame(frame: np.ndarray, frame_format: FrameFormat, bits: int) -> bytes:
    """Return a frame, (3, H, W) uint16, in a format; `bits` is the depth of a PNG image, up to 8 or up to 16."""
    if frame_format.name == "rgb24" or (frame_format.name == "png" and bits <= 8):
        pixels = _in_eight_bits(frame)
    else:
        pixels = frame.transpose(1, 2, 0)
    if frame_format.name == "png":
        return encode_png(pixels)
    return pixels.astype(f"<u{pixels.itemsize}", copy=False).tobytes()


def _in_eight_bits(frame: np.ndarray) -> np.ndarray:
    """Return a frame, (3, H, W) uint16, as (H, W, 3) uint8, rounded.

    It is done in 16 bits and a plane at a time, which touches less memory: with y = x + 128, (x + 128) // 257 is
    (y - y // 256) // 256.
    """
    pixels = np.empty((*frame.shape[1:], 3), np.uint8)
    for channel, plane in enumerate(frame):
        levels = np.minimum(plane, FULL_SCALE - 128)  # all above are white
        levels += 128
        levels -= levels >> 8
        levels >>= 8
        pixels[..., channel] = levels
    return pixels
