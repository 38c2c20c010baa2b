"""Describe a video file from its container's metadata and one decoded frame."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Stream
from av.video.stream import VideoStream

from ..contract.errors import MediaError
from ..contract.shortage import describe_shortage
from .boxes import edited_duration, top_level_boxes
from .color import to_rgba
from .decoders import decoder_of
from .decoding_order import is_reordered
from .hdr import HdrMetadata, read_hdr
from .metadata import readable
from .opening import not_piped, open_video, reason_of
from .options import ReadOptions
from .packets import clock_origin
from .pipes import is_pipe
from .pixel_format import has_alpha
from .side_data import side_data
from .tags import ColorTags, coding_of
from .time_map import TimeMap

_DEFAULT_RATE = Fraction(25)  # for containers without a frame rate, such as a single image
_MAX_RATE = 1000  # frames per second; a higher one is rather the clock of the timestamps
_ROUNDING_TICKS = 2  # by which stored timestamps are rounded
_MIN_STEPS, _MAX_STEPS, _MAX_EXCEPTIONS = 4, 10_000, 2  # from frame to frame, that show a regular rate


@dataclass(frozen=True)
class StreamInfo:
    """A stream other than the main video."""

    index: int
    kind: str  # audio, subtitle, data, attachment, or video (a second one, or a cover image)
    codec: str
    language: str | None
    title: str | None
    detail: str  # such as "48000 Hz stereo"
    sample_rate: int | None = None  # Hz, of audio


@dataclass(frozen=True)
class Chapter:
    """A named section of a video."""

    start: Fraction  # seconds
    end: Fraction  # seconds
    title: str | None


@dataclass(frozen=True)
class VideoInfo:
    """A video as it is stored, before any rotation for display."""

    path: str
    container: str
    codec: str
    pix_fmt: str
    bit_depth: int
    width: int
    height: int
    sample_aspect_ratio: Fraction
    rotation: int  # degrees counterclockwise by which a player turns the frames
    display_matrix: tuple[int, ...] | None  # 9 numbers: rotation and mirroring as stored
    interlaced: bool
    color: ColorTags
    rate: Fraction  # average frames per second
    variable_rate: bool | None  # None: unknown without reading the whole file
    time_base: Fraction  # seconds; every timestamp is a multiple
    start: Fraction  # seconds, of the first frame
    duration: Fraction | None  # seconds, of the video stream
    frames: int | None
    alpha: bool = False  # frames may be transparent
    streams: tuple[StreamInfo, ...] = ()
    chapters: tuple[Chapter, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    origin: Fraction = Fraction(0)  # seconds, the time of the file's own clock at which all other times begin
    stored_rate: Fraction | None = None  # frames per second in the file, if they are read at another rate
    fragmented: bool = False  # an MP4 file whose index lists a part of its frames
    hdr: HdrMetadata | None = None
    times: TimeMap | None = None  # of the part of the source that a reader passes on; None: all of it

    def as_dict(self) -> dict[str, Any]:
        """Return all fields for printing and JSON: fractions as text, one line for each stream and chapter."""
        facts = {name: str(value) if isinstance(value, Fraction) else value for name, value in vars(self).items()}
        del facts["times"]
        streams = [
            " ".join(str(part) for part in (s.index, s.kind, s.codec, s.detail, s.language, s.title) if part)
            for s in self.streams
        ]
        chapters = [f"{float(c.start):.3f} to {float(c.end):.3f} s {c.title or ''}".strip() for c in self.chapters]
        hdr = None if self.hdr is None else self.hdr.as_dict()
        return {**facts, "color": self.color.names(), "hdr": hdr, "streams": streams, "chapters": chapters}


def probe(path: str | Path) -> VideoInfo:
    """Return the description of a video file. Raises MediaError if it is missing, damaged or not a video."""
    container, stream = open_video(path)
    with container:
        frame = _first_frame(container, stream, path)
        time_base = Fraction(stream.time_base or frame.time_base or 1 / _DEFAULT_RATE)
        origin, first = clock_origin(container, stream), (frame.pts or 0) * time_base
        is_mov = container.format.name.startswith("mov")
        fragmented = is_mov and (is_pipe(path) or _is_fragmented(Path(path)))
        return VideoInfo(
            path=str(path),
            container=container.format.name,
            codec=stream.codec_context.codec.canonical_name,
            pix_fmt=frame.format.name,
            bit_depth=max(component.bits for component in frame.format.components),
            width=frame.width,
            height=frame.height,
            sample_aspect_ratio=Fraction(stream.sample_aspect_ratio or 1),
            rotation=frame.rotation,
            display_matrix=display_matrix(frame),
            interlaced=frame.interlaced_frame,
            color=ColorTags(frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range),
            rate=_rate(stream, (frame.duration or 0) * time_base),
            variable_rate=_variable_rate(stream),
            time_base=time_base,
            start=first - origin,
            alpha=_may_be_transparent(frame),
            duration=_declared_duration(container, stream, first, None if fragmented or not is_mov else Path(path)),
            frames=None if fragmented else stream.frames or None,
            streams=tuple(_stream_info(other) for other in container.streams if other.index != stream.index),
            chapters=tuple(_chapter(chapter) for chapter in moved_chapters(container, origin)),
            metadata={readable(key): readable(value) for key, value in container.metadata.items()},
            origin=origin,
            fragmented=fragmented,
            hdr=read_hdr(frame),
        )


def has_streams(info: VideoInfo) -> bool:
    """Return whether a source is a file or a pipe that may hold more than its video."""
    return info.container != "images" and (is_pipe(info.path) or Path(info.path).is_file())


def tagged_duration(stream: Stream) -> Fraction | None:
    """Return the duration in seconds from the DURATION tag that Matroska files have for each stream, or None."""
    try:
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds.strip("\0 "))
    except (KeyError, ValueError):
        return None


def codec_name(stream: Stream) -> str:
    """Return FFmpeg's name of a stream's codec, or "unknown"."""
    if stream.codec_context is not None:
        return stream.codec_context.codec.canonical_name
    return getattr(stream, "name", None) or "unknown"


def moved_chapters(container: InputContainer, origin: Fraction) -> list[dict[str, Any]]:
    """Return the chapters of a file as PyAV does, from `origin` on, a time in seconds of the file's clock."""
    chapters: list[dict[str, Any]] = [
        {**chapter, "time_base": Fraction(chapter["time_base"] or Fraction(1, av.time_base))}
        for chapter in container.chapters()
    ]
    if any(chapter["start"] * chapter["time_base"] < origin - 1 for chapter in chapters):
        return chapters  # they count from zero, whatever the clock of the streams is
    for chapter in chapters:
        shift = round(origin / chapter["time_base"])
        chapter["start"], chapter["end"] = max(0, chapter["start"] - shift), max(0, chapter["end"] - shift)
    return chapters


def _is_fragmented(path: Path) -> bool:
    """Return whether an MP4 file holds fragments. Raises MediaError for two files one after the other."""
    boxes = top_level_boxes(path)
    if boxes.count("ftyp") > 1 and boxes.count("moov") > 1:
        raise MediaError(
            f"{path} holds {boxes.count('moov')} files one after the other, of which only the first can be read: join"
            " the original files by 'ffmpeg -f concat' instead."
        )
    return "moof" in boxes


def _first_frame(container: InputContainer, stream: VideoStream, path: str | Path) -> av.VideoFrame:
    """Return the first frame that can be decoded."""
    reason = "it has none"
    decoder, _ = decoder_of(stream, ReadOptions())
    try:
        for packet in container.demux(stream):
            if is_reordered(stream):
                packet.pts = packet.dts
            try:
                for frame in decoder.decode(packet if packet.size else None):
                    return frame
            except BlockingIOError as error:  # when the decoder opens, and starts its threads
                raise MediaError(f"{path} cannot be decoded. {describe_shortage(error)}") from error
            except av.error.FFmpegError as error:  # a recording may start with frames that refer to earlier ones
                reason = reason_of(error)
    except av.error.FFmpegError as error:
        reason = reason_of(error)
    if is_pipe(path):
        raise not_piped(path, reason)
    raise MediaError(f"No frame of {path} can be decoded ({reason}): copy or record the file again.")


def _may_be_transparent(frame: av.VideoFrame) -> bool:
    """Return whether the frames of a video may be transparent, by its first one.

    Formats of animations, such as GIF, have alpha whether they use it or not; there the first frame decides.
    """
    name = frame.format.name
    if not has_alpha(name) or name.startswith(("yuva", "gbra")):
        return has_alpha(name)
    alpha = to_rgba(frame, coding_of(ColorTags(), frame.height, name))[1]
    return alpha is not None and bool(alpha.min() < 1)


def display_matrix(frame: av.VideoFrame) -> tuple[int, ...] | None:
    """Return the 9 numbers by which a frame is turned and mirrored when it is shown, or None."""
    matrix = side_data(frame).get(SideDataType.DISPLAYMATRIX)
    return None if matrix is None else tuple(np.frombuffer(matrix, np.int32).tolist())


def _declared_duration(
    container: InputContainer, stream: VideoStream, first: Fraction, indexed: Path | None
) -> Fraction | None:
    """Return the duration in seconds that the container declares for the video stream, which begins at `first`.

    `indexed` is an MP4 file whose index lists all frames. There the duration of the stream is that of its decoding,
    and may be longer than that of the frames, which the edit list has.
    """
    if stream.duration is not None and stream.time_base:
        stored = stream.duration * Fraction(stream.time_base)
        if indexed is not None and (edited := edited_duration(indexed, stream.id)) is not None:
            shown, unit = edited
            if 0 < shown < stored - unit:
                return shown
        return stored
    tagged = tagged_duration(stream)  # FFmpeg writes the end of the stream
    if tagged is not None:
        return tagged - first if tagged > first else tagged
    return None if container.duration is None else Fraction(container.duration, av.time_base)


def _rate(stream: VideoStream, first_s: Fraction) -> Fraction:
    """Return the average frames per second, for a first frame that lasts `first_s` seconds."""
    if (regular := _regular_rate(stream)) is not None:
        return regular
    declared = (stream.average_rate, stream.guessed_rate, stream.base_rate)
    rates = [Fraction(rate) for rate in declared if rate and not (rate > _MAX_RATE and rate * first_s > 2)]
    return rates[0] if rates else 1 / first_s if first_s else _DEFAULT_RATE


def _regular_rate(stream: VideoStream) -> Fraction | None:
    """Return the rate at which the index lists frames, with two exceptions at most; None if there is none.

    In fragmented MP4 files the first frame may last longer for the lead-in of the sound, or the last one for its end,
    which an average would count.
    """
    if not stream.container.format.name.startswith("mov") or not stream.time_base:
        return None
    ticks = sorted(entry.timestamp for entry in islice(stream.index_entries, _MAX_STEPS))
    steps = [after - before for before, after in pairwise(ticks)]
    if len(steps) < _MIN_STEPS:
        return None
    ((usual, count),) = Counter(steps).most_common(1)
    exceptions = sum(abs(step - usual) > _ROUNDING_TICKS for step in steps)
    if usual <= 0 or exceptions > _MAX_EXCEPTIONS or count < len(steps) - exceptions:
        return None
    return 1 / (usual * stream.time_base)


def _variable_rate(stream: VideoStream) -> bool | None:
    """Return whether the frame rate varies: by the index if it lists every frame, or else by the declared rates."""
    timestamps = [entry.timestamp for entry in stream.index_entries] if stream.frames else []
    if len(timestamps) >= max(2, stream.frames - 1):
        gaps = [later - earlier for earlier, later in pairwise(sorted(timestamps))]
        return max(gaps) - min(gaps) > _ROUNDING_TICKS
    if stream.average_rate and stream.base_rate == stream.average_rate:
        return False
    return None


def _stream_info(stream: Any) -> StreamInfo:
    context, detail, sample_rate = stream.codec_context, "", None
    if stream.type == "audio" and context is not None:
        sample_rate = context.rate
        detail = f"{sample_rate} Hz {context.layout.name}"
    elif stream.type == "video" and context is not None:
        detail = f"{context.width}x{context.height}"
    language, title = (_tag(stream.metadata, name) for name in ("language", "title"))
    return StreamInfo(stream.index, stream.type, codec_name(stream), language, title, detail, sample_rate)


def _chapter(chapter: Mapping[str, Any]) -> Chapter:
    time_base = chapter["time_base"]
    return Chapter(chapter["start"] * time_base, chapter["end"] * time_base, _tag(chapter["metadata"], "title"))


def _tag(metadata: Mapping[str, str], name: str) -> str | None:
    return readable(metadata[name]) if name in metadata else None
