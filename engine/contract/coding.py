"""The compression of a video, as far as its stream states it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StreamCoding:
    """The compression of a video stream.

    `bits_per_pixel` counts all bits of the stream over all pixels of its frames. `quantiser` is the mean over blocks
    and frames on the scale of H.264, 0 to 51; None if the decoder does not state it.
    """

    codec: str  # FFmpeg's name of the decoder's codec, such as h264
    bits_per_pixel: float
    quantiser: float | None = None
