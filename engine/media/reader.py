"""Read the frames of a video file or an image folder at their own timestamps."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import chain, takewhile
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from ..contract.errors import MediaError
from .color import to_rgb
from .damage import Repair, RepairLog, repair_sentences
from .decode import StreamDecoder
from .deinterlace import Timed
from .fields import choose_fields
from .frame import Frame, FrameReader, checked_rate
from .images import ImageFolderReader
from .options import ReadOptions
from .probe import VideoInfo, open_video, probe
from .tags import ColorTags, coding_of

_TIMES = {"rate", "variable_rate", "time_base", "start", "duration", "origin", "fragmented", "streams", "chapters"}
_EARLIER_S = (0, 2, 10, 30)  # seconds before a part at which reading is tried to begin, one after the other
_MAX_STEP_BACK_S = 1  # a larger step back means that the clock of the timestamps has changed


class VideoReader(FrameReader):
    """Reads the frames of a video file; every iteration starts at the first frame.

    Timestamps are the stream's own, from the beginning of the earliest stream on; `input_fps` replaces them by a
    constant rate, for streams without useful ones. Where the clock of the file changes, as between joined recordings,
    the times go on. Interlaced video becomes progressive, and damage is repaired, as `options` say; `info` describes
    the frames as they are read. Raises MediaError for a damaged or truncated file that is not repaired, with the time
    of the damage, instead of a shorter video; also if the size changes.
    """

    def __init__(
        self, path: str | Path, *, input_fps: Fraction | None = None, options: ReadOptions | None = None
    ) -> None:
        self.path = Path(path)
        self.input_fps = None if input_fps is None else checked_rate(input_fps)
        self._options = options or ReadOptions()
        self._stored = probe(path)
        if self.input_fps is not None:
            self._stored = _at_rate(self._stored, self.input_fps)
        self._fields = choose_fields(self._stored, self._options)
        self.info = self._fields.info
        self._container: InputContainer | None = None
        self._decoder: StreamDecoder | None = None
        self._log = RepairLog()

    @property
    def warnings(self) -> list[str]:
        """Sentences on what an iteration has changed so far."""
        warnings = [*self._fields.warnings, *super().warnings]
        lost = 0 if self._decoder is None else self._decoder.lost_at_joints
        if lost:
            warnings.append(f"{lost} frames after a joint need others that are not there, and were left out.")
        return [*warnings, *repair_sentences(self.repairs)]

    @property
    def repairs(self) -> list[Repair]:
        """The damage that the latest iteration has repaired so far."""
        return self._log.repairs

    def close(self) -> None:
        """Close the file; this ends a running iteration."""
        if self._container is not None:
            self._container.close()
            self._container = None

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames; timestamps increase, and each duration lasts until the next frame."""
        stream = self._open()
        self._log = RepairLog()
        timed = self._timed(self._decode(stream))
        if (first := next(timed, None)) is None:
            raise MediaError(f"No frame of {self.path} can be decoded: copy or record the file again.")
        yield from self._frames(chain([first], timed), self._indexed_end(stream))
        self.close()

    def between(self, low: Fraction, high: Fraction, *, seek: bool = True) -> Iterator[Frame]:
        """Yield the frames of a part as `FrameReader.between`; reading starts at a keyframe before it.

        If the part cannot be found from there, the file is read from its beginning.
        """
        for earlier_s in _EARLIER_S if seek and self.input_fps is None else ():
            frames = self._from_keyframe(low, low - earlier_s)
            first = next(frames, None)
            if first is not None and first.pts == low:
                for frame in chain([first], frames):
                    if frame.pts >= high:
                        return
                    yield frame
                return
            if low - earlier_s <= self.info.start:
                break
        yield from super().between(low, high)

    def _open(self) -> VideoStream:
        self.close()
        self._container, stream = open_video(self.path)
        stream.thread_type = "AUTO"
        if self._options.on_damage != "stop":  # with several threads damage would not be repaired twice in the same way
            stream.thread_type, stream.codec_context.thread_count = "NONE", 1
        return stream

    def _from_keyframe(self, low: Fraction, begin: Fraction) -> Iterator[Frame]:
        """Yield the frames from `low` seconds on, read from the keyframe before `begin`.

        Yield none if they may differ from those of a whole iteration: frames before them would be needed.
        """
        stream = self._open()
        assert self._container is not None
        context = self._fields.radius / self._stored.rate
        ticks = math.floor((begin - 2 * context + self._stored.origin) / self._stored.time_base)
        try:
            self._container.seek(ticks, stream=stream)
            timed = self._timed(self._decode_part(stream))
            if (first := next(timed, None)) is None:
                return
            is_first = first[1] <= self._stored.start
            is_clean = self._options.on_damage == "stop" or (first[0].key_frame and not first[0].is_corrupt)
            if not is_first and (first[1] > low - context or not is_clean):
                return
            for frame in self._frames(chain([first], timed), None):
                if frame.pts >= low:
                    yield frame
        except (MediaError, av.error.FFmpegError):
            return  # a whole iteration finds the damage and names it

    def _frames(self, timed: Iterator[Timed], end: Fraction | None) -> Iterator[Frame]:
        """Yield progressive frames, each of which lasts until the next one; `end` is that of the last one, if known."""
        previous: tuple[av.VideoFrame, Fraction] | None = None
        own_duration = Fraction(0)
        for decoded, pts, duration in self._fields.frames(timed):
            if previous is not None:
                yield self._frame(*previous, pts - previous[1])
            previous, own_duration = (decoded, pts), duration
        if previous is not None:
            yield self._frame(*previous, own_duration if end is None or end <= previous[1] else end - previous[1])

    def _frame(self, decoded: av.VideoFrame, pts: Fraction, duration: Fraction) -> Frame:
        return Frame(tagged_rgb(decoded), pts, duration)

    def _timed(self, decoded_frames: Iterable[av.VideoFrame]) -> Iterator[Timed]:
        """Yield each decoded frame with its timestamp and its own duration, in seconds on the stream's clock."""
        time_base = self._stored.time_base
        period = max(1, round(1 / (self._stored.rate * time_base)))  # ticks
        previous: int | None = None
        duration = period
        for index, decoded in enumerate(decoded_frames):
            if (decoded.width, decoded.height) != (self._stored.width, self._stored.height):
                raise MediaError(
                    f"{self.path} changes its size from {self._stored.width}x{self._stored.height} to {decoded.width}x"
                    f"{decoded.height} at frame {index}: cut it at that frame and upscale the parts separately."
                )
            if self.input_fps is not None:
                yield decoded, index / self.input_fps, 1 / self.input_fps
                continue
            ticks = decoded.pts
            if ticks is None:
                ticks = round(self._stored.start / time_base) if previous is None else previous + duration
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
        damage = self._options.on_damage
        self._decoder = decoder = StreamDecoder(self._container, stream, self._stored, damage, self._log)
        self.joints = decoder.source.joints
        yield from decoder
        if self._indexed_end(stream) is None:  # with an index the decoder has found missing frames already
            decoder.check_declared_end()

    def _decode_part(self, stream: VideoStream) -> Iterator[av.VideoFrame]:
        """Yield the frames from the present position on, up to one without a time."""
        assert self._container is not None
        decoder = StreamDecoder(self._container, stream, self._stored, self._options.on_damage, is_part=True)
        return takewhile(lambda frame: frame.pts is not None, decoder)

    def _indexed_end(self, stream: VideoStream) -> Fraction | None:
        """Return the end of the frames in seconds if the file has an index of all frames, as MP4 files have."""
        if self.input_fps is not None or not self._stored.container.startswith("mov") or not self._stored.frames:
            return None
        if stream.duration is None or stream.time_base is None:
            return None
        return ((stream.start_time or 0) + stream.duration) * stream.time_base - self._stored.origin


def open_reader(
    path: str | Path, *, fps: Fraction | None = None, options: ReadOptions | None = None
) -> VideoReader | ImageFolderReader:
    """Open a video file, or a folder of images at `fps` frames per second.

    A video file keeps its own timestamps unless `fps` replaces them, and is read as `options` say. Raises MediaError if
    the input cannot be read, or if a folder comes without a rate.
    """
    if not Path(path).is_dir():
        return VideoReader(path, input_fps=fps, options=options)
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
