"""Read the frames of a video file or an image folder at their own timestamps."""

import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from ..contract.errors import MediaError
from .color import to_rgb
from .decode import StreamDecoder
from .frame import Frame, FrameReader, checked_rate
from .images import ImageFolderReader
from .probe import VideoInfo, open_video, probe
from .tags import ColorTags, coding_of

_TIMES = {"rate", "variable_rate", "time_base", "start", "duration", "origin", "fragmented", "streams", "chapters"}
_MAX_STEP_BACK_S = 1  # a larger step back means that the clock of the timestamps has changed


class VideoReader(FrameReader):
    """Reads the frames of a video file; every iteration starts at the first frame.

    Timestamps are the stream's own, from the beginning of the earliest stream on; `input_fps` replaces them by a
    constant rate, for streams without useful ones. Where the clock of the file changes, as between joined recordings,
    the times go on. Raises MediaError for a damaged or truncated file, with the time of the damage, instead of a
    shorter video; also if the size changes.
    """

    def __init__(self, path: str | Path, *, input_fps: Fraction | None = None) -> None:
        self.path = Path(path)
        self.input_fps = None if input_fps is None else checked_rate(input_fps)
        self.info = probe(path)
        if self.input_fps is not None:
            self.info = _at_rate(self.info, self.input_fps)
        self._container: InputContainer | None = None
        self._decoder: StreamDecoder | None = None

    @property
    def warnings(self) -> list[str]:
        """Sentences on what an iteration has changed so far."""
        lost = 0 if self._decoder is None else self._decoder.lost_at_joints
        if not lost:
            return super().warnings
        return [*super().warnings, f"{lost} frames after a joint need others that are not there, and were left out."]

    def close(self) -> None:
        """Close the file; this ends a running iteration."""
        if self._container is not None:
            self._container.close()
            self._container = None

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames; timestamps increase, and each duration lasts until the next frame."""
        self.close()
        self._container, stream = open_video(self.path)
        stream.thread_type = "AUTO"
        previous: tuple[av.VideoFrame, Fraction] | None = None
        own_duration = Fraction(0)
        for decoded, pts, duration in self._timed(stream):
            if previous is not None:
                yield self._frame(*previous, pts - previous[1])
            previous, own_duration = (decoded, pts), duration
        if previous is None:
            raise MediaError(f"No frame of {self.path} can be decoded: copy or record the file again.")
        end = self._indexed_end(stream)
        yield self._frame(*previous, own_duration if end is None or end <= previous[1] else end - previous[1])
        self.close()

    def between(self, low: Fraction, high: Fraction, *, seek: bool = True) -> Iterator[Frame]:
        """Yield the frames of a part as `FrameReader.between`; reading starts at the keyframe before it.

        If the part cannot be found from there, the file is read from its beginning.
        """
        frames = self._from_keyframe(low) if seek and self.input_fps is None else iter(())
        first = next(frames, None)
        if first is None or first.pts != low:
            yield from super().between(low, high)
            return
        for frame in chain([first], frames):
            if frame.pts >= high:
                return
            yield frame

    def _from_keyframe(self, low: Fraction) -> Iterator[Frame]:
        """Yield the frames from `low` seconds on that can be decoded from the keyframe before, without any check."""
        self.close()
        self._container, stream = open_video(self.path)
        stream.thread_type = "AUTO"
        time_base, origin = self.info.time_base, self.info.origin
        previous: tuple[av.VideoFrame, Fraction] | None = None
        try:
            self._container.seek(math.floor((low + origin) / time_base), stream=stream)
            for decoded in self._container.decode(stream):
                if decoded.pts is None or decoded.pts * time_base < low + origin:
                    continue
                pts = decoded.pts * time_base - origin
                if previous is not None:
                    yield self._frame(*previous, pts - previous[1])
                previous = decoded, pts
        except av.error.FFmpegError:
            return  # a whole iteration finds the damage and names it
        if previous is not None:
            yield self._frame(*previous, (previous[0].duration or 1) * time_base)

    def _frame(self, decoded: av.VideoFrame, pts: Fraction, duration: Fraction) -> Frame:
        return Frame(tagged_rgb(decoded), pts, duration)

    def _timed(self, stream: VideoStream) -> Iterator[tuple[av.VideoFrame, Fraction, Fraction]]:
        """Yield each decoded frame with its timestamp and its own duration, in seconds on the stream's clock."""
        time_base = self.info.time_base
        period = max(1, round(1 / (self.info.rate * time_base)))  # ticks
        previous: int | None = None
        duration = period
        for index, decoded in enumerate(self._decode(stream)):
            if (decoded.width, decoded.height) != (self.info.width, self.info.height):
                raise MediaError(
                    f"{self.path} changes its size from {self.info.width}x{self.info.height} to {decoded.width}x"
                    f"{decoded.height} at frame {index}: cut it at that frame and upscale the parts separately."
                )
            if self.input_fps is not None:
                yield decoded, index / self.input_fps, 1 / self.input_fps
                continue
            ticks = decoded.pts
            if ticks is None:
                ticks = round(self.info.start / time_base) if previous is None else previous + duration
            if previous is not None and ticks <= previous:
                if (previous - ticks) * time_base > _MAX_STEP_BACK_S:
                    raise MediaError(
                        f"The timestamps of {self.path} fall from {float(previous * time_base):.3f} s to"
                        f" {float(ticks * time_base):.3f} s: cut it at that time, or remux it."
                    )
                ticks = previous + 1  # a repeated timestamp: the frame is kept for the shortest possible time
            previous, duration = ticks, decoded.duration or period
            yield decoded, ticks * time_base, duration * time_base

    def _decode(self, stream: VideoStream) -> Iterator[av.VideoFrame]:
        assert self._container is not None
        self._decoder = decoder = StreamDecoder(self._container, stream, self.info)
        self.joints = decoder.source.joints
        yield from decoder
        if self._indexed_end(stream) is None:  # with an index the decoder has found missing frames already
            decoder.check_declared_end()

    def _indexed_end(self, stream: VideoStream) -> Fraction | None:
        """Return the end of the frames in seconds if the file has an index of all frames, as MP4 files have."""
        if self.input_fps is not None or not self.info.container.startswith("mov") or not self.info.frames:
            return None
        if stream.duration is None or stream.time_base is None:
            return None
        return ((stream.start_time or 0) + stream.duration) * stream.time_base - self.info.origin


def open_reader(path: str | Path, *, fps: Fraction | None = None) -> VideoReader | ImageFolderReader:
    """Open a video file, or a folder of images at `fps` frames per second.

    A video file keeps its own timestamps unless `fps` replaces them. Raises MediaError if the input cannot be read, or
    if a folder comes without a rate.
    """
    if not Path(path).is_dir():
        return VideoReader(path, input_fps=fps)
    if fps is None:
        raise MediaError(f"{path} is a folder of images, which has no frame rate: choose one, such as 24.")
    return ImageFolderReader(path, fps)


def tagged_rgb(decoded: av.VideoFrame) -> np.ndarray:
    """Return the RGB of a frame, (3, H, W) float32 in [0, 1], by the color tags that it has."""
    tags = ColorTags(decoded.colorspace, decoded.color_primaries, decoded.color_trc, decoded.color_range)
    return to_rgb(decoded, coding_of(tags, decoded.height, decoded.format.name))


def describe(path: str | Path) -> dict[str, Any]:
    """Return the facts of a video file, or of a folder of images, which has no times, for printing and JSON.

    Raises MediaError if it cannot be read.
    """
    if not Path(path).is_dir():
        return probe(path).as_dict()
    with open_reader(path, fps=Fraction(1)) as reader:
        facts = reader.info.as_dict()
    return {name: value for name, value in facts.items() if name not in _TIMES}


def _at_rate(info: VideoInfo, rate: Fraction) -> VideoInfo:
    duration, zero = None if info.frames is None else info.frames / rate, Fraction(0)
    return replace(info, rate=rate, time_base=1 / rate, start=zero, duration=duration, variable_rate=False, origin=zero)
