"""Pictures: the types and value ranges of frames, and the conversions between them.

The engine computes on float32 frames (3, h, w), RGB in [0, 1]. It returns uint16 frames (3, H, W), in which 65535 is
white, or the planes of a YUV format.
"""

from dataclasses import dataclass

import numpy as np

from .errors import NonFiniteError, RequestError

# (3, H, W) uint16, 65535 is white; or the planes of a picture in the requested format.
Picture = np.ndarray | tuple[np.ndarray, ...]
FULL_SCALE = 65535


@dataclass(frozen=True)
class PictureFormat:
    """The YUV format of an output picture; a device that cannot produce it returns RGB instead."""

    pix_fmt: str  # FFmpeg's name
    luma_weights: tuple[float, float]  # Kr and Kb of ITU-T H.273
    full_range: bool


def to_uint16(frame: np.ndarray, low: float, high: float, out: np.ndarray | None = None) -> np.ndarray:
    """Return a frame as uint16, rounded and clipped: `low` becomes 0 and `high` 65535.

    With `out`, (3, h, w) uint16, it is written there.
    """
    scaled = (frame - np.float32(low) if low else frame) * np.float32(FULL_SCALE / (high - low))
    np.clip(np.rint(scaled, out=scaled), 0, FULL_SCALE, out=scaled)
    if out is None:
        return scaled.astype(np.uint16)
    out[...] = scaled
    return out


def check_finite(frame: np.ndarray) -> None:
    """Raise NonFiniteError if a frame holds NaN or infinity."""
    with np.errstate(all="ignore"):
        suspicious = not np.isfinite(frame.sum(dtype=np.float32))  # a finite sum has only finite terms
    if suspicious and not np.isfinite(frame).all():
        raise NonFiniteError("A frame holds values that are not finite numbers.")


def to_float(frame: np.ndarray) -> np.ndarray:
    """Return a uint16 frame as float32 in [0, 1]."""
    return frame.astype(np.float32) / np.float32(FULL_SCALE)


def as_frame(frame: np.ndarray) -> np.ndarray:  # (3, h, w) -> (3, h, w) float32 in [0, 1]
    """Return a caller's frame as float32 in [0, 1].

    Takes floating-point values in [0, 1], and uint8 and uint16 values, of which the largest of the type is white: the
    frames that the engine returns can be fed to it again. Raises RequestError for another shape, type or range.
    """
    if frame.ndim != 3 or frame.shape[0] != 3 or not frame.size:
        raise RequestError(f"A frame has the shape (3, height, width), RGB, and not {frame.shape}: transpose it.")
    if frame.dtype in (np.uint8, np.uint16):
        return frame.astype(np.float32) / np.float32(np.iinfo(frame.dtype).max)
    if frame.dtype.kind != "f":
        raise RequestError(f"A frame holds values of {frame.dtype}: give floats in [0, 1], uint8 or uint16.")
    least, most = float(frame.min()), float(frame.max())
    if not (least >= 0 and most <= 1):  # NaN fails too
        raise RequestError(f"A frame holds values from {least:g} to {most:g}: scale floats to [0, 1] and clip them.")
    return frame.astype(np.float32, copy=False)
