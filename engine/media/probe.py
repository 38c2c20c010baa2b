"""What a video file holds: one decoded frame and the container's own words, nothing that takes long."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition

from ..contract.errors import MediaError
from .tags import ColorTags

_DEFAULT_RATE = Fraction(25)  # where a container tells none, as of a single picture


@dataclass(frozen=True)
class StreamInfo:
    """A stream beside the picture."""

    index: int
    kind: str  # audio, subtitle, data, attachment, video (a second one, or a cover)
    codec: str
    language: str | None
    title: str | None
    detail: str  # such as "48000 Hz stereo"


@dataclass(frozen=True)
class Chapter:
    """A named part of a video."""

    start: Fraction  # seconds
    end: Fraction
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
    rotation: int  # degrees counterclockwise that a player turns the picture by
    display_matrix: tuple[int, ...] | None  # 9 numbers: the rotation and mirroring as stored
    interlaced: bool
    color: ColorTags
    rate: Fraction  # average frames per second
    variable_rate: bool | None  # None: cannot be told without reading everything
    time_base: Fraction  # seconds; every timestamp is a multiple
    start: Fraction  # seconds, of the first frame
    duration: Fraction | None  # seconds, of the pictures
    frames: int | None
    streams: tuple[StreamInfo, ...] = ()
    chapters: tuple[Chapter, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return all of it for people and JSON: fractions as text, streams and chapters as lines."""
        facts = {name: str(value) if isinstance(value, Fraction) else value for name, value in vars(self).items()}
        streams = [
            " ".join(str(part) for part in (s.index, s.kind, s.codec, s.detail, s.language, s.title) if part)
            for s in self.streams
        ]
        chapters = [f"{float(c.start):.3f} to {float(c.end):.3f} s {c.title or ''}".strip() for c in self.chapters]
        return {**facts, "color": self.color.names(), "streams": streams, "chapters": chapters}


def probe(path: str | Path) -> VideoInfo:
    """Read what a video file holds."""
    container, stream = open_video(path)
    with container:
        frame = first_frame(container, stream, path)
        time_base = stream.time_base or frame.time_base or 1 / _DEFAULT_RATE
        context = stream.codec_context
        matrix = frame.side_data.get(SideDataType.DISPLAYMATRIX)
        return VideoInfo(
            path=str(path),
            container=container.format.name,
            codec=context.codec.canonical_name,
            pix_fmt=frame.format.name,
            bit_depth=max(part.bits for part in frame.format.components),
            width=frame.width,
            height=frame.height,
            sample_aspect_ratio=Fraction(stream.sample_aspect_ratio or 1),
            rotation=frame.rotation,
            display_matrix=None if matrix is None else tuple(np.frombuffer(matrix, np.int32).tolist()),
            interlaced=frame.interlaced_frame,
            color=ColorTags(frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range),
            rate=_rate(stream),
            variable_rate=_variable_rate(stream),
            time_base=time_base,
            start=(frame.pts or 0) * time_base,
            duration=declared_duration(container, stream),
            frames=stream.frames or None,
            streams=tuple(_summary(other) for other in container.streams if other.index != stream.index),
            chapters=tuple(_chapter(chapter) for chapter in container.chapters()),
            metadata=dict(container.metadata),
        )


def open_video(path: str | Path) -> tuple[Any, Any]:
    """Return a file's container and its video stream, or say why there is none; the caller closes it."""
    path = Path(path)
    if not path.exists():
        raise MediaError(f"{path} does not exist: check the path.")
    if path.is_dir():
        raise MediaError(f"{path} is a folder: choose a video file, or a folder of PNG images with a frame rate.")
    try:
        if path.stat().st_size == 0:
            raise MediaError(f"{path} is empty: copy or download it again.")
        with path.open("rb") as file:
            head = file.read(12)
        container = av.open(str(path), metadata_errors="replace")
    except PermissionError:
        raise MediaError(f"{path} may not be read: change its permissions.") from None
    except (av.error.FFmpegError, OSError) as error:
        if head[4:8] == b"ftyp":
            raise MediaError(
                f"{path} is cut short or damaged (no index can be read): copy or record it again."
            ) from error
        raise MediaError(f"{path} is not a video that can be read ({_reason(error)}): choose another file.") from error
    try:
        return container, _video_stream(container, path)
    except MediaError:
        container.close()
        raise


def _video_stream(container: Any, path: Path) -> Any:
    pictures = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not pictures:
        raise MediaError(f"{path} has no video stream: choose a file that has pictures.")
    stream = next((stream for stream in pictures if stream.disposition & Disposition.default), pictures[0])
    if stream.codec_context is None:
        raise MediaError(f"No decoder is there for the video of {path}: convert it to H.264 or another common codec.")
    return stream


def first_frame(container: Any, stream: Any, path: str | Path) -> Any:
    """Decode up to the first picture."""
    reason = "it has none"
    try:
        for packet in container.demux(stream):
            try:
                for frame in packet.decode():
                    return frame
            except av.error.FFmpegError as error:  # a recording may start amid pictures that need earlier ones
                reason = _reason(error)
    except av.error.FFmpegError as error:
        reason = _reason(error)
    raise MediaError(f"No picture of {path} can be decoded ({reason}): the file is damaged; copy or record it again.")


def declared_duration(container: Any, stream: Any) -> Fraction | None:
    """Return how long the container says that the pictures are, in seconds."""
    if stream.duration is not None and stream.time_base is not None:
        return stream.duration * stream.time_base
    tagged = own_duration(stream)
    if tagged is not None:
        return tagged
    return None if container.duration is None else Fraction(container.duration, av.time_base)


def own_duration(stream: Any) -> Fraction | None:
    """Return the duration in seconds that a Matroska file notes of one stream."""
    try:
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds.strip("\0 "))
    except (KeyError, ValueError):
        return None


def _rate(stream: Any) -> Fraction:
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate:
            return Fraction(rate)
    return _DEFAULT_RATE


def _variable_rate(stream: Any) -> bool | None:
    """Tell by the index, where the container has a full one, else by the rates that it notes."""
    stamps = [entry.timestamp for entry in stream.index_entries] if stream.frames else []
    if len(stamps) >= max(2, stream.frames - 1):
        gaps = [later - earlier for earlier, later in pairwise(sorted(stamps))]
        return max(gaps) - min(gaps) > 2  # ticks: stored times are rounded
    if stream.average_rate and stream.base_rate == stream.average_rate:
        return False
    return None


def _summary(stream: Any) -> StreamInfo:
    context, kind, detail = stream.codec_context, stream.type, ""
    if kind == "audio" and context is not None:
        detail = f"{context.rate} Hz {context.layout.name}"
    elif kind == "video" and context is not None:
        detail = f"{context.width}x{context.height}"
    codec = context.codec.canonical_name if context is not None else getattr(stream, "name", None) or "unknown"
    tags = stream.metadata
    return StreamInfo(stream.index, kind, codec, tags.get("language"), tags.get("title"), detail)


def _chapter(chapter: Mapping[str, Any]) -> Chapter:
    time_base = chapter["time_base"]
    return Chapter(chapter["start"] * time_base, chapter["end"] * time_base, chapter["metadata"].get("title"))


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)
