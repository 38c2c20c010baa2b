"""The clip and the image files that several benchmarks share."""

from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from stvsr.engine.benchmark.clip import write_clip

SAMPLE = Path(__file__).parents[1] / "tests" / "data" / "sample_bee_240.mp4"


def make_clip(path: Path, width: int, height: int, frames: int) -> Path:
    """Write the sample clip at another size, repeated to `frames` frames, nearly lossless at 24 frames per second."""
    with av.open(str(SAMPLE)) as source:
        pictures = [
            f.reformat(width, height, "yuv420p", interpolation="BICUBIC", threads=1) for f in source.decode(video=0)
        ]
    return write_clip(path, islice(cycle(pictures), frames), (width, height), crf=8)


def write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a picture, (H, W, 3) RGB, as a PNG file."""
    encoder = av.CodecContext.create("png", "w")
    encoder.height, encoder.width, encoder.pix_fmt = *picture.shape[:2], "rgb24"
    encoder.time_base = Fraction(1)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
    path.write_bytes(b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)]))
