"""The streams beside the picture: copied packet by packet, in step with the video, or converted where they must be."""

import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
from av.audio.resampler import AudioResampler
from av.stream import Discard, Disposition

from ..contract.errors import MediaError
from .probe import open_video

_AUDIO_CODECS = {"webm": "libopus"}  # elsewhere aac
_TEXT_CODECS = {"webm": "webvtt", "matroska": "subrip"}  # elsewhere mov_text
_TEXT_SUBTITLES = {"subrip", "srt", "ass", "ssa", "webvtt", "mov_text", "text"}
_AUDIO_BIT_RATE = 192_000  # of converted audio, bits per second
_STALE_TAGS = re.compile(
    r"encoder|DURATION|_STATISTICS.*|BPS|NUMBER_OF_.*|major_brand|minor_version|compatible_brands", re.IGNORECASE
)


# FFmpeg's muxer of QuickTime knows some languages by another of their codes alone.
_QUICKTIME_LANGUAGES = {
    "deu": "ger", "fre": "fra", "nld": "dut", "ell": "gre", "zho": "chi", "cze": "ces", "isl": "ice", "rum": "ron",
    "slo": "slk", "sqi": "alb", "hye": "arm", "eus": "baq", "mya": "bur", "kat": "geo", "mkd": "mac", "msa": "may",
    "fas": "per", "bod": "tib", "cym": "wel", "swe": "sve", "nob": "nor", "nno": "nor",
}  # fmt: skip


class _Way(Protocol):
    """One stream's way into the output."""

    def packets(self, packet: Any) -> Iterator[Any]: ...


class CopiedStreams:
    """Reads a video file a second time, for all but its pictures, only as far as the video has come."""

    def __init__(self, path: Path, output: Any, warnings: list[str]) -> None:
        self._source, picture = open_video(path)
        self._output = output
        self._pending: Any = None
        self._ways: dict[int, _Way] = {}
        chapters = self._source.chapters()
        for stream in self._source.streams:
            if stream.index != picture.index:
                way = _way(stream, output, warnings, bool(chapters))
                if way is not None:
                    self._ways[stream.index] = way
                    continue
            if stream.type != "attachment":
                stream.discard = Discard.all
        output.set_chapters(chapters)
        output.metadata.update(kept_tags(self._source.metadata, output.format.name))
        self.rates = [stream.rate for stream in self._source.streams.audio if stream.rate]
        self._packets = (
            self._source.demux([self._source.streams[index] for index in self._ways]) if self._ways else None
        )

    def pump(self, until: Fraction | None) -> None:
        """Write every packet up to a time in seconds; None: all the rest."""
        while self._packets is not None:
            if self._pending is None:
                try:
                    self._pending = next(self._packets, None)
                except av.error.FFmpegError as error:
                    name = self._source.name
                    raise MediaError(f"The audio or subtitles of {name} are damaged: {error.strerror}.") from error
            packet = self._pending
            if packet is None:
                self._packets = None
                return
            if until is not None and packet.dts is not None and packet.dts * packet.time_base > until:
                return
            for made in self._ways[packet.stream.index].packets(packet):
                self._output.mux_one(made)
            self._pending = None

    def close(self) -> None:
        """Close the file."""
        self._packets = self._pending = None
        self._source.close()


def kept_tags(tags: Mapping[str, str], format: str) -> dict[str, str]:
    """Return the metadata that stays true of another encoding, as the format writes it."""
    kept = {key: text for key, text in tags.items() if not _STALE_TAGS.match(key)}
    if format == "mov" and kept.get("language") in _QUICKTIME_LANGUAGES:
        kept["language"] = _QUICKTIME_LANGUAGES[kept["language"]]
    return kept


def _way(stream: Any, output: Any, warnings: list[str], chapters: bool) -> _Way | None:
    """Find how a stream gets into the output, or warn that it does not."""
    format, context = output.format.name, stream.codec_context
    name = context.codec.canonical_name if context is not None else getattr(stream, "name", None) or "unknown"
    label = f"{stream.type} stream {stream.index} ({name})"
    cover = bool(stream.disposition & Disposition.attached_pic)
    if stream.type == "data" and chapters:
        return None  # the text track of QuickTime chapters; the output gets its own
    if stream.type in ("audio", "subtitle", "attachment") or cover:
        try:
            if not (cover and format == "webm"):
                return _Copy(stream, output)
        except (ValueError, av.error.FFmpegError):
            pass
        try:
            if stream.type == "audio" and context is not None:
                codec = _AUDIO_CODECS.get(format, "aac")
                way: _Way = _ConvertedAudio(stream, output, codec)
                warnings.append(f"The {label} was converted to {codec}: {format} does not hold {name}.")
                return way
            if stream.type == "subtitle" and name in _TEXT_SUBTITLES:
                codec = _TEXT_CODECS.get(format, "mov_text")
                way = _ConvertedText(stream, output, codec)
                warnings.append(f"The {label} was converted to {codec}: {format} does not hold {name}.")
                return way
        except (ValueError, av.error.FFmpegError) as error:
            warnings.append(f"The {label} was left out: it cannot be converted ({error}).")
            return None
    reason = "only one video is upscaled" if stream.type == "video" and not cover else f"{format} does not hold it"
    warnings.append(f"The {label} was left out: {reason}.")
    return None


def _carry_over(source: Any, target: Any, format: str) -> None:
    target.metadata.update(kept_tags(source.metadata, format))
    target.disposition = source.disposition.value


class _Copy:
    """Packets as they are."""

    def __init__(self, source: Any, output: Any) -> None:
        self._target = output.add_stream_from_template(source, opaque=True)
        _carry_over(source, self._target, output.format.name)
        self._last_dts: int | None = None

    def packets(self, packet: Any) -> Iterator[Any]:
        if packet.dts is None and packet.pts is None:
            return  # the flush at the end
        if packet.dts is None:
            packet.dts = packet.pts
        if self._last_dts is not None and packet.dts <= self._last_dts:  # muxers refuse time that stands still
            packet.dts = self._last_dts + 1
            packet.pts = None if packet.pts is None else max(packet.pts, packet.dts)
        self._last_dts = packet.dts
        packet.stream = self._target
        yield packet


class _ConvertedAudio:
    """Audio decoded and encoded anew."""

    def __init__(self, source: Any, output: Any, codec: str) -> None:
        rate = 48000 if codec == "libopus" else source.rate
        self._source = source
        self._target = output.add_stream(codec, rate=rate, layout=source.layout.name)
        self._target.bit_rate = _AUDIO_BIT_RATE
        _carry_over(source, self._target, output.format.name)
        context = self._target.codec_context
        context.open()
        self._resampler = AudioResampler(context.format, context.layout, rate, context.frame_size)

    def packets(self, packet: Any) -> Iterator[Any]:
        flush = packet.dts is None and packet.size == 0
        frames = self._source.decode(None if flush else packet)
        for frame in [*frames, *([None] if flush else [])]:
            for piece in self._resampler.resample(frame):
                yield from self._target.encode(piece)
        if flush:
            yield from self._target.encode(None)


class _ConvertedText:
    """Text subtitles in another format."""

    def __init__(self, source: Any, output: Any, codec: str) -> None:
        self._decoder = source.codec_context
        self._decoder.open()
        self._target = output.add_stream(codec)
        self._encoder = self._target.codec_context
        self._encoder.subtitle_header = self._decoder.subtitle_header
        self._target.time_base = source.time_base
        self._encoder.time_base = source.time_base
        self._encoder.open()
        _carry_over(source, self._target, output.format.name)

    def packets(self, packet: Any) -> Iterator[Any]:
        if packet.pts is None or not packet.size:
            return
        subtitles = self._decoder.decode2(packet)
        if subtitles is None or not len(subtitles):
            return
        made = self._encoder.encode_subtitle(subtitles)
        made.stream = self._target
        made.time_base = packet.time_base
        made.pts = made.dts = packet.pts
        made.duration = packet.duration
        made.is_keyframe = True
        yield made
