"""The clip that is upscaled: a textured picture that moves under a disc that moves otherwise, made on the fly."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from ..contract.resize import resized

RATE = 24
_OCTAVES = (4, 16, 64)  # cells of the texture along its shorter side
_SHIFT = (1, 2)  # pixels that the picture moves in each frame, down and to the right
_CLIP_PX = 64_000_000  # of all frames of a clip
_LEAST_FRAMES, _MOST_FRAMES = 12, 240


def frames_of_clip(size: tuple[int, int]) -> int:
    """Return how many frames a clip of `size` (width, height) has: fewer of large ones."""
    return max(_LEAST_FRAMES, min(_MOST_FRAMES, _CLIP_PX // (size[0] * size[1])))


def synthetic_frames(size: tuple[int, int], count: int) -> Iterator[np.ndarray]:  # (H, W, 3) uint8
    """Yield frames of `size` (width, height): the same ones on every machine."""
    width, height = size
    random = np.random.default_rng(0)
    picture = np.full((3, height, width), 128, np.float32)
    for octave in _OCTAVES:
        cells = random.uniform(-1, 1, (3, octave, max(1, octave * width // height))).astype(np.float32)
        picture += 40 * resized(cells, (height, width))
    texture = np.clip(np.rint(picture), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    rows, columns = np.mgrid[:height, :width]
    radius = min(size) / 6
    for number in range(count):
        frame = np.roll(texture, (number * _SHIFT[0], number * _SHIFT[1]), (0, 1))
        centre = (height / 2, (width / 4 + 3 * number) % width)
        disc = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2
        frame[disc] = 255 - frame[disc] // 2
        yield frame


def write_synthetic_clip(path: Path, size: tuple[int, int]) -> Path:
    """Write the synthetic clip of `size` (width, height) to a file."""
    frames = synthetic_frames(size, frames_of_clip(size))
    pictures = (av.VideoFrame.from_ndarray(frame, format="rgb24") for frame in frames)
    return write_clip(path, (p.reformat(format="yuv420p", threads=1) for p in pictures), size, crf=18)


def write_clip(path: Path, pictures: Iterable[av.VideoFrame], size: tuple[int, int], crf: int) -> Path:
    """Write pictures of `size` (width, height) in yuv420p to a video in H.264, 24 frames a second."""
    with av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=RATE, options={"crf": str(crf), "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number, picture in enumerate(pictures):
            picture.pts, picture.time_base = number, Fraction(1, RATE)
            target.mux(stream.encode(picture))
        target.mux(stream.encode(None))
    return path
