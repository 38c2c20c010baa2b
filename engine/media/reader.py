"""Read the frames of a video file or an image folder at their own timestamps."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from functools import cached_property
from itertools import chain, takewhile
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from ..contract.errors import MediaError
from .boxes import has_cut_index
from .color import to_rgb, to_rgba
from .damage import Repair, RepairLog, repair_sentences
from .decode import StreamDecoder
from .decoders import decoder_of
from .decoding_order import is_reordered
from .deinterlace import Timed
from .ends import indexed_end
from .fields import choose_fields
from .frame import Frame, FrameReader, checked_rate
from .image_files import is_images
from .images import open_images
from .lost_bytes import ends_within_packet
from .opening import open_video
from .options import Part, ReadOptions
from .packets import Joint, SourcePackets
from .part import PartReader
from .pipes import STANDARD, close_pipe, open_pipe
from .probe import VideoInfo, probe
from .tags import Coding, ColorTags, coding_of

_TIMES = {"rate", "variable_rate", "time_base", "start", "duration", "origin", "fragmented", "streams", "chapters"}
_EARLIER_S = (0, 2, 10, 30)  # seconds before a part at which reading is tried to begin, one after the other
_STANDARD_INPUT = Path("/dev/stdin")
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
        try:
            self._stored = probe(path)
            if self.input_fps is not None:
                self._stored = _at_rate(self._stored, self.input_fps)
            self._fields = choose_fields(self._stored, self._options)
        except BaseException:
            close_pipe(path)
            raise
        self.info = self._fields.info
        is_file = self.path.is_file()
        self._has_cut_index = self._stored.container.startswith("mov") and is_file and has_cut_index(self.path)
        self._ends_within_packet = self._stored.container == "mpegts" and ends_within_packet(path)
        self._container: InputContainer | None = None
        self._decoder: StreamDecoder | None = None
        self._decoder_warning: str | None = None
        self._log = RepairLog()
        self._joints: Sequence[Joint] = ()

    @property
    def warnings(self) -> list[str]:
        """Sentences on what an iteration has changed so far."""
        warnings = [*self._fields.warnings, *super().warnings]
        lost = 0 if self._decoder is None else self._decoder.lost_at_joints
        if lost:
            warnings.append(f"{lost} frames after a joint need others that are not there, and were left out.")
        if self._has_cut_index:
            warnings.append(
                f"The index of {self.path} is cut: streams that it lists last, such as audio, and metadata may be"
                " missing."
            )
        if self._ends_within_packet or (self._decoder is not None and self._decoder.is_broken_off):
            warnings.append(
                f"{self.path} ends within a packet, as a recording or a copy that was broken off: its last frames may"
                " be missing."
            )
        if self._decoder_warning is not None:
            warnings.append(self._decoder_warning)
        return [*warnings, *repair_sentences(self.repairs)]

    @property
    def repairs(self) -> list[Repair]:
        """The damage that the latest iteration has repaired so far."""
        return self._log.repairs

    @property
    def joints(self) -> Sequence[Joint]:
        """The changes of the file's clock that an iteration has found so far."""
        return self._joints

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
        stream = self._open()
        if (pipe := open_pipe(self.path)) is not None:
            pipe.forget()
        self._log = RepairLog()
        timed = self._timed(self._decode(stream))
        if (first := next(timed, None)) is None:
            raise MediaError(f"No frame of {self.path} can be decoded: copy or record the file again.")
        yield from self._frames(chain([first], timed), self._indexed_end(stream))
        self._close_container()

    def from_time(self, low: Fraction) -> Iterator[Frame]:
        """Yield the frames from a time on; see `FrameReader.from_time`. Reading starts at a keyframe before it.

        If the time cannot be found from there, the file is read from its beginning.
        """
        for earlier_s in _EARLIER_S if self._has_own_times and not self._changes_clock_before(low) else ():
            frames = self._from_keyframe(low, low - earlier_s, is_checked=True)
            if (first := next(frames, None)) is not None:
                yield from chain([first], frames)
                return
            if low - earlier_s <= self.info.start:
                break
        yield from super().from_time(low)

    def between(self, low: Fraction, high: Fraction, *, seek: bool = True) -> Iterator[Frame]:
        """Yield the frames of a part as `FrameReader.between`; reading starts at a keyframe before it.

        If the part cannot be found from there, the file is read from its beginning.
        """
        for earlier_s in _EARLIER_S if seek and self._has_own_times else ():
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

    @property
    def is_seekable(self) -> bool:
        """True if a part is found by its times; see `FrameReader.is_seekable`."""
        return super().is_seekable and self._has_own_times

    @cached_property
    def _has_own_times(self) -> bool:
        """True if the time of a frame is known without those before it."""
        if self.input_fps is not None:
            return False
        container, stream = open_video(self.path)
        with container:
            return not is_reordered(stream)

    def _close_container(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None

    def _changes_clock_before(self, time: Fraction) -> bool:
        """Return whether the clock of the file changes before a time, by its packets alone."""
        if self._stored.container.startswith("mov") and not self._stored.fragmented:
            return False
        container, stream = open_video(self.path)
        with container, suppress(av.error.FFmpegError):
            packets = SourcePackets(container, stream)
            for packet in packets:
                is_late = packet.pts is not None and packet.pts * packet.time_base > time
                if packets.joints or (is_late and packet.stream.index == stream.index):
                    break
            return bool(packets.joints)
        return False

    def _open(self) -> VideoStream:
        self._close_container()
        self._container, stream = open_video(self.path)
        stream.thread_type = "AUTO"
        if self._options.on_damage != "stop":  # with several threads damage would not be repaired twice in the same way
            stream.thread_type, stream.codec_context.thread_count = "NONE", 1
        return stream

    def _from_keyframe(self, low: Fraction, begin: Fraction, *, is_checked: bool = False) -> Iterator[Frame]:
        """Yield the frames from `low` seconds on, read from the keyframe before `begin`.

        Yield none if they may differ from those of a whole iteration: frames before them would be needed. With
        `is_checked` damage after the first of them is an error, up to the end of the file.
        """
        has_begun = False
        stream = self._open()
        assert self._container is not None
        context = self._fields.radius / self._stored.rate
        ticks = math.floor((begin - 2 * context + self._stored.origin) / self._stored.time_base)
        try:
            self._container.seek(ticks, stream=stream)
            timed = self._timed(self._decode_part(stream, is_checked))
            if (first := next(timed, None)) is None:
                return
            is_first = first[1] <= self._stored.start
            is_clean = self._options.on_damage == "stop" or (first[0].key_frame and not first[0].is_corrupt)
            if not is_first and (first[1] > low - context or not is_clean):
                return
            for frame in self._frames(chain([first], timed), self._indexed_end(stream) if is_checked else None):
                if frame.pts >= low:
                    has_begun = True
                    yield frame
        except (MediaError, av.error.FFmpegError):
            if is_checked and has_begun:
                raise
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
        rgb, alpha = to_rgba(decoded, _coding(decoded))
        return Frame(rgb, pts, duration, alpha)

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
        damage, context = self._options.on_damage, self._context(stream)
        self._decoder = decoder = StreamDecoder(
            self._container, stream, self._stored, damage, self._log, decoder=context
        )
        self._joints = decoder.source.joints
        yield from decoder
        if self._indexed_end(stream) is None:  # with an index the decoder has found missing frames already
            decoder.check_declared_end()

    def _context(self, stream: VideoStream) -> av.VideoCodecContext:
        """Return a decoder of the stream, and keep the warning about it."""
        context, self._decoder_warning = decoder_of(stream, self._options)
        return context

    def _decode_part(self, stream: VideoStream, is_checked: bool) -> Iterator[av.VideoFrame]:
        """Yield the frames from the present position on, up to one without a time."""
        assert self._container is not None
        damage, log = self._options.on_damage, self._log if is_checked else None
        context = self._context(stream)
        decoder = StreamDecoder(self._container, stream, self._stored, damage, log, is_part=True, decoder=context)
        yield from takewhile(lambda frame: frame.pts is not None, decoder)
        if is_checked:
            decoder.check_part_end()

    def _indexed_end(self, stream: VideoStream) -> Fraction | None:
        """Return the end of the frames in seconds if the file has an index of all frames, as MP4 files have."""
        if self.input_fps is not None or not self._stored.frames:
            return None
        declared = indexed_end(self._stored, stream)
        return None if declared is None else declared.time


def open_reader(
    path: str | Path,
    *,
    fps: Fraction | None = None,
    options: ReadOptions | None = None,
    part: Part | None = None,
) -> FrameReader:
    """Open a video, or image files at `fps` frames per second: a file, a folder, a pattern, or a pipe.

    A video keeps its own timestamps unless `fps` replaces them, and is read as `options` say. With a `part` the reader
    yields only its frames. Raises MediaError if the input cannot be read, or if a folder or a pattern comes without a
    rate.
    """
    if str(path) == STANDARD and _STANDARD_INPUT.is_file():  # redirected from a file, which can be read many times
        path = _STANDARD_INPUT
    reader = open_images(path, fps) if is_images(path) else VideoReader(path, input_fps=fps, options=options)
    if part is None:
        return reader
    try:
        return PartReader(reader, part)
    except BaseException:
        reader.close()
        raise


def tagged_rgb(decoded: av.VideoFrame) -> np.ndarray:
    """Return the RGB of a frame, (3, H, W) float32 in [0, 1], by the color tags that it has."""
    return to_rgb(decoded, _coding(decoded))


def _coding(decoded: av.VideoFrame) -> Coding:
    tags = ColorTags(decoded.colorspace, decoded.color_primaries, decoded.color_trc, decoded.color_range)
    return coding_of(tags, decoded.height, decoded.format.name)


def describe(path: str | Path) -> dict[str, Any]:
    """Return the facts of a video file, or of a folder of images, which has no times, for printing and JSON.

    Raises MediaError if it cannot be read.
    """
    if not is_images(path):
        return probe(path).as_dict()
    with open_reader(path, fps=Fraction(1)) as reader:
        facts = reader.info.as_dict()
    return {name: value for name, value in facts.items() if name not in _TIMES}


def _at_rate(info: VideoInfo, rate: Fraction) -> VideoInfo:
    duration, zero = None if info.frames is None else info.frames / rate, Fraction(0)
    return replace(info, rate=rate, time_base=1 / rate, start=zero, duration=duration, variable_rate=False, origin=zero)
