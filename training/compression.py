"""Video compression as a degradation: frames through a real x264 or x265 encoder and back."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Literal

import av
import numpy as np
from numpy.typing import NDArray

Codec = Literal["libx264", "libx265"]
_BLOCK_PX = 16  # frames are padded to whole macroblocks
_RATE = Fraction(24)  # frames per second; the encoders' rate control by CRF hardly depends on it


def compress(
    frames: Iterable[NDArray[np.uint8]], crf: int, codec: Codec = "libx264", preset: str = "medium"
) -> Iterator[NDArray[np.uint8]]:
    """Encode frames (h, w, 3), RGB, as one clip in 4:2:0 at a constant rate factor, and yield the decoded frames.

    As many frames come out as go in, in order, with P and B frames as the encoder chooses them; it reads some 40 frames
    ahead. Frames are padded to whole macroblocks, and cut to their size again.
    """
    decoder = av.VideoCodecContext.create("h264" if codec == "libx264" else "hevc", "r")
    size: tuple[int, int] | None = None
    for packet, size in _packets(frames, crf, codec, preset):
        yield from _decoded(decoder, packet, size)
    if size is not None:
        yield from _decoded(decoder, None, size)


def compressed_bits(
    frames: Iterable[NDArray[np.uint8]], crf: int, codec: Codec = "libx264", preset: str = "medium"
) -> int:
    """Return how many bits the packets of frames (h, w, 3) have that are encoded as `compress` does."""
    return sum(8 * packet.size for packet, _ in _packets(frames, crf, codec, preset))


def _packets(
    frames: Iterable[NDArray[np.uint8]], crf: int, codec: Codec, preset: str
) -> Iterator[tuple[av.Packet, tuple[int, int]]]:
    """Yield the packets of an encoded clip, and the size (h, w) of its frames."""
    encoder: av.VideoCodecContext | None = None
    size: tuple[int, int] = 0, 0
    for number, frame in enumerate(frames):
        if encoder is None:
            size = frame.shape[0], frame.shape[1]
            encoder = _encoder(codec, size, crf, preset)
        padded = np.pad(frame, [(0, -n % _BLOCK_PX) for n in frame.shape[:2]] + [(0, 0)], mode="edge")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24")
        picture = picture.reformat(format="yuv420p", threads=1)
        picture.pts, picture.time_base = number, 1 / _RATE
        for packet in encoder.encode(picture):
            yield packet, size
    if encoder is not None:
        for packet in encoder.encode(None):
            yield packet, size


def _encoder(codec: Codec, size: tuple[int, int], crf: int, preset: str) -> av.VideoCodecContext:
    encoder = av.VideoCodecContext.create(codec, "w")
    height, width = (n + -n % _BLOCK_PX for n in size)
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.framerate, encoder.time_base = _RATE, 1 / _RATE
    encoder.thread_count = 1
    # Without its assembly: with it, x264's macroblock tree gives another output from run to run on frames this small.
    encoder.options = {"crf": str(crf), "preset": preset, "x264-params": "no-asm=1"}
    if codec == "libx265":
        encoder.options = {"preset": preset, "x265-params": f"crf={crf}:log-level=error"}
    return encoder


def _decoded(
    decoder: av.VideoCodecContext, packet: av.Packet | None, size: tuple[int, int]
) -> Iterator[NDArray[np.uint8]]:
    height, width = size
    for frame in decoder.decode(packet):
        rgb = frame.to_ndarray(format="rgb24", threads=1).astype(np.uint8, copy=False)
        yield rgb[:height, :width]
