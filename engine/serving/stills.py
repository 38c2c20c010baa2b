"""Single frames of a job as PNG images. These functions are called in the process that reads videos of clients."""

from fractions import Fraction

import numpy as np

from ..contract.errors import MediaError
from ..media.fragments import JoinedPart, SegmentPart, decode_frame
from ..media.png import encode_png
from ..media.reader import tagged_rgb
from ..pipeline.request import UpscaleRequest
from ..pipeline.run import open_input


def input_still(request: UpscaleRequest, low: Fraction, high: Fraction, seek: bool) -> bytes:
    """Return the first frame of a request's video from `low` up to `high` seconds. Raises MediaError if there is none.

    `seek` is that of `FrameReader.between`.
    """
    with open_input(request) as reader:
        for frame in reader.between(low, high, seek=seek):
            return _png(frame.rgb)
    raise MediaError("The video has no frame at this time: choose another.")


def output_still(source: SegmentPart | JoinedPart, tick: int) -> bytes:
    """Return the frame of a part that is shown at a tick. Raises MediaError if the part or the frame is not there."""
    try:
        with source.open() as part:
            return _png(tagged_rgb(decode_frame(part, tick)))
    except (OSError, ValueError) as error:
        raise MediaError("The part of the video is not there: choose another.") from error


def _png(rgb: np.ndarray) -> bytes:
    """Return a PNG image of a frame, (3, H, W) in [0, 1]."""
    return encode_png(np.rint(rgb.transpose(1, 2, 0) * 255).clip(0, 255).astype(np.uint8))
