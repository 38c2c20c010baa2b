"""The contents of a video file, a comparison of two of them, and runs that write such files."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from stvsr import Backend, UpscaleRequest

from tests.support.media import packets_of


def frames_of(path: Path) -> tuple[list[Fraction], np.ndarray]:
    """Return the times and the pictures of a video."""
    times, pictures = [], []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            assert frame.pts is not None
            assert frame.time_base is not None
            times.append(Fraction(frame.pts * frame.time_base))
            pictures.append(frame.to_ndarray())
    return times, np.stack(pictures)


def facts_of(path: Path) -> list[Any]:
    """Return what a file states about itself and its streams."""
    with av.open(str(path)) as container:
        streams = [
            (s.type, s.time_base, s.start_time, s.duration, s.frames, dict(s.metadata)) for s in container.streams
        ]
        video = container.streams.video[0]
        colors = (video.codec_context.color_primaries, video.codec_context.colorspace, video.sample_aspect_ratio)
        return [container.duration, colors, container.chapters(), *streams]


def assert_equal_files(actual: Path, expected: Path) -> None:
    """Assert that two files of a lossless encoder have equal frames, times and other streams."""
    assert facts_of(actual) == facts_of(expected)
    (actual_times, actual_frames), (times, frames) = frames_of(actual), frames_of(expected)
    assert actual_times == times
    np.testing.assert_array_equal(actual_frames, frames)
    for kind in ("audio", "subtitle"):
        assert packets_of(actual, kind) == packets_of(expected, kind)


def lossless_request(source: Path, output: Path, **options: Any) -> UpscaleRequest:
    """Return a request on the CPU whose output keeps every pixel."""
    fixed = {"backend": Backend(device="cpu"), "encoder_options": {"qp": "0"}}
    return UpscaleRequest(**{"input": source, "output": output, **fixed, **options})
