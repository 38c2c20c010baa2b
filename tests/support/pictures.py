"""Describe sources, and make clips and images with alpha, with PyAV alone."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from stvsr.engine.media.pixel_format import has_alpha, video_format
from stvsr.engine.media.probe import VideoInfo
from stvsr.engine.media.tags import ColorTags

from tests.support.media import write_png

RATE = Fraction(25)


def source_of(pix_fmt: str, **changes: Any) -> VideoInfo:
    """Describe a video of 64x48 px with frames of a pixel format, without a file."""
    facts: dict[str, Any] = {
        "path": "nowhere.mp4",
        "container": "mov",
        "codec": "h264",
        "pix_fmt": pix_fmt,
        "bit_depth": max(component.bits for component in video_format(pix_fmt).components),
        "width": 64,
        "height": 48,
        "sample_aspect_ratio": Fraction(1),
        "rotation": 0,
        "display_matrix": None,
        "interlaced": False,
        "color": ColorTags(),
        "rate": RATE,
        "variable_rate": False,
        "time_base": 1 / RATE,
        "start": Fraction(0),
        "duration": Fraction(1),
        "frames": 25,
        "alpha": has_alpha(pix_fmt),
    }
    return VideoInfo(**{**facts, **changes})


def half_transparent(count: int, size: tuple[int, int] = (64, 48)) -> list[np.ndarray]:
    """Return frames (h, w, 4) uint8: red that grows lighter, opaque on the left and hidden black on the right."""
    frames = []
    for number in range(count):
        frame = np.zeros((size[1], size[0], 4), np.uint8)
        frame[:, : size[0] // 2] = (200, 10 * number, 0, 255)
        frames.append(frame)
    return frames


def write_frames_rgba(path: Path, frames: list[np.ndarray], codec: str, pix_fmt: str, **options: str) -> Path:
    """Write frames (h, w, 4) uint8 with an encoder at 25 frames per second."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=RATE, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        for number, rgba in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(rgba, format="rgba").reformat(format=pix_fmt, threads=1)
            frame.pts, frame.time_base = number, 1 / RATE
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def write_images_rgba(folder: Path, frames: list[np.ndarray]) -> Path:
    """Write frames (h, w, 4) uint8 as 1.png and on."""
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames, 1):
        write_png(folder / f"{number}.png", av.VideoFrame.from_ndarray(frame, format="rgba"))
    return folder
