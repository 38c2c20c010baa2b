"""Read the frames of a video file or an image folder at their own timestamps."""

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from ..contract.errors import MediaError
from .color import to_rgba
from .decode import StreamDecoder
from .decoders import decoder_of
from .frame import Frame, FrameReader, checked_rate
from .image_files import is_images
from .images import open_images
from .part import Part, PartReader
from .pipes import STANDARD, close_pipe, open_pipe
from .probe import VideoInfo, open_video, probe
from .tags import ColorTags, coding_of

_STANDARD_INPUT = Path("/dev/stdin")
_MAX_STEP_BACK_S = 1  # a larger step back means that the clock of the timestamps has changed


class VideoReader(FrameReader):
    """Reads the frames of a video file; every iteration starts at the first frame.

    Timestamps are the stream's own; `input_fps` replaces them by a constant rate, for streams without useful ones.
    Raises MediaError for a damaged or truncated file, with the time of the damage, instead of a shorter video; also if
    the size changes or the timestamps step back by more than a second.
    """

    def __init__(self, path: str | Path, *, input_fps: Fraction | None = None) -> None:
        self.path = Path(path)
        self.input_fps = None if input_fps is None else checked_rate(input_fps)
        try:
            self.info = probe(path)
        except BaseException:
            close_pipe(path)
            raise
        if self.input_fps is not None:
            self.info = _at_rate(self.info, self.input_fps)
        self._container: InputContainer | None = None
        self._whole = True  # the file is read from its beginning

    def close(self) -> None:
        """Close the file; this ends a running iteration."""
        self._close_container()
        close_pipe(self.path)

    def interrupt(self) -> None:
        """End a wait for input; see `FrameReader.interrupt`."""
        if (pipe := open_pipe(self.path)) is not None:
            pipe.interrupt()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames; timestamps increase, and each duration lasts until the next frame."""
        return self._frames(None)

    def from_time(self, low: Fraction) -> Iterator[Frame]:
        """Yield the frames from a time on; see `FrameReader.from_time`. Reading starts at the keyframe before it.

        If the time cannot be found from there, the file is read from its beginning.
        """
        frames = self._frames(low)
        try:
            first = next(frames, None)
        except MediaError:  # the frames after a keyframe may refer to others before it
            first = None
        if first is None:
            yield from super().from_time(low)
        else:
            yield from chain([first], frames)

    def _frames(self, low: Fraction | None) -> Iterator[Frame]:
        """Yield the frames with timestamps from `low` on, in seconds, or all of them for None.

        With `low` none are yielded if seeking misses it.
        """
        self._close_container()
        self._container, stream = open_video(self.path)
        if (pipe := open_pipe(self.path)) is not None:
            pipe.forget()
        if low is not None:
            with suppress(av.error.FFmpegError):
                self._container.seek(math.floor(low / self.info.time_base), stream=stream)
        previous: tuple[av.VideoFrame, Fraction] | None = None
        own_duration = Fraction(0)
        self._whole = low is None
        for number, (decoded, pts, duration) in enumerate(self._timed(stream)):
            if low is not None and number == 0 and low < pts != self.info.start:
                return
            if previous is not None and (low is None or previous[1] >= low):
                yield self._frame(*previous, pts - previous[1])
            previous, own_duration = (decoded, pts), duration
        if previous is None:
            raise MediaError(f"No frame of {self.path} can be decoded: copy or record the file again.")
        end = self._indexed_end(stream)
        if low is None or previous[1] >= low:
            yield self._frame(*previous, own_duration if end is None or end <= previous[1] else end - previous[1])
        self._close_container()

    def between(self, low: Fraction, high: Fraction) -> Iterator[Frame]:
        """Yield the frames of a part as `FrameReader.between`; reading starts at the keyframe before it.

        If the part cannot be found from there, the file is read from its beginning.
        """
        frames = self._from_keyframe(low)
        first = None if self.input_fps is not None else next(frames, None)
        if first is None or first.pts != low:
            yield from super().between(low, high)
            return
        for frame in chain([first], frames):
            if frame.pts >= high:
                return
            yield frame

    def _from_keyframe(self, low: Fraction) -> Iterator[Frame]:
        """Yield the frames from `low` seconds on that can be decoded from the keyframe before, without any check."""
        self._close_container()
        self._container, stream = open_video(self.path)
        decoder = decoder_of(stream)
        decoder.thread_type = "AUTO"
        time_base = self.info.time_base
        previous: tuple[av.VideoFrame, Fraction] | None = None
        try:
            self._container.seek(math.floor(low / time_base), stream=stream)
            packets = self._container.demux(stream)
            for decoded in (frame for packet in packets for frame in decoder.decode(packet if packet.size else None)):
                if decoded.pts is None or decoded.pts * time_base < low:
                    continue
                pts = decoded.pts * time_base
                if previous is not None:
                    yield self._frame(*previous, pts - previous[1])
                previous = decoded, pts
        except av.error.FFmpegError:
            return  # a whole iteration finds the damage and names it
        if previous is not None:
            yield self._frame(*previous, (previous[0].duration or 1) * time_base)

    def _frame(self, decoded: av.VideoFrame, pts: Fraction, duration: Fraction) -> Frame:
        tags = ColorTags(decoded.colorspace, decoded.color_primaries, decoded.color_trc, decoded.color_range)
        rgb, alpha = to_rgba(decoded, coding_of(tags, decoded.height, decoded.format.name))
        return Frame(rgb, pts, duration, alpha)

    def _close_container(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None

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
        decoder = StreamDecoder(self._container, stream, self.info, self._whole)
        yield from decoder
        if self._indexed_end(stream) is None:  # with an index the decoder has found missing frames already
            decoder.check_declared_end()

    def _indexed_end(self, stream: VideoStream) -> Fraction | None:
        """Return the end of the frames in seconds if the file has an index of all frames, as MP4 files have."""
        if self.input_fps is not None or not self.info.container.startswith("mov") or not stream.frames:
            return None
        if stream.duration is None or stream.time_base is None:
            return None
        return ((stream.start_time or 0) + stream.duration) * stream.time_base


def open_reader(path: str | Path, *, fps: Fraction | None = None, part: Part | None = None) -> FrameReader:
    """Open a video, or image files at `fps` frames per second: a file, a folder, a pattern, or a pipe.

    A video keeps its own timestamps unless `fps` replaces them. With a `part` the reader yields only its frames. Raises
    MediaError if the input cannot be read, or if a folder or a pattern comes without a rate.
    """
    if str(path) == STANDARD and _STANDARD_INPUT.is_file():  # redirected from a file, which can be read many times
        path = _STANDARD_INPUT
    reader = open_images(path, fps) if is_images(path) else VideoReader(path, input_fps=fps)
    if part is None:
        return reader
    try:
        return PartReader(reader, part)
    except BaseException:
        reader.close()
        raise


def _at_rate(info: VideoInfo, rate: Fraction) -> VideoInfo:
    duration = None if info.frames is None else info.frames / rate
    return replace(info, rate=rate, time_base=1 / rate, start=Fraction(0), duration=duration, variable_rate=False)
