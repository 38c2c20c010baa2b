"""Copy the audio, subtitles, attachments, chapters and metadata of a video file into an output."""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Discard, Disposition
from av.subtitles.stream import SubtitleStream

from ..contract.errors import MediaError
from .pipes import is_pipe
from .probe import codec_name, open_video
from .time_map import TimeMap

# By FFmpeg's name of the output format.
_AUDIO_CODECS = {"webm": "libopus"}  # all others: aac
_TEXT_CODECS = {"webm": "webvtt", "matroska": "subrip"}  # all others: mov_text
_TEXT_SUBTITLES = {"subrip", "srt", "ass", "ssa", "webvtt", "mov_text", "text"}
_AUDIO_BIT_RATE = 192_000  # of converted audio, bits per second
_EARLY_TEXT_S = 30  # subtitles may begin so long before the part in which they are shown
_ROUNDING_S = Fraction(1, 1000)  # of the time at which a part ends
_STALE_KEYS = re.compile(
    r"encoder|alpha_mode|DURATION|_STATISTICS.*|BPS|NUMBER_OF_.*|major_brand|minor_version|compatible_brands",
    re.IGNORECASE,
)

# FFmpeg's QuickTime muxer knows only the other ISO 639 code of these languages.
_QUICKTIME_LANGUAGES = {
    "deu": "ger", "fre": "fra", "nld": "dut", "ell": "gre", "zho": "chi", "cze": "ces", "isl": "ice", "rum": "ron",
    "slo": "slk", "sqi": "alb", "hye": "arm", "eus": "baq", "mya": "bur", "kat": "geo", "mkd": "mac", "msa": "may",
    "fas": "per", "bod": "tib", "cym": "wel", "swe": "sve", "nob": "nor", "nno": "nor",
}  # fmt: skip


class _Transfer(Protocol):
    """Turns the packets of one source stream into packets of an output stream."""

    def packets(self, packet: Any) -> Iterator[Packet]: ...


class CopiedStreams:
    """The streams of a source file other than its main video, copied packet by packet into an output.

    The source is opened a second time and read only as far as the output video has come. Streams that the output
    format does not support are converted (audio and text subtitles) or left out, each with a line in `warnings`. With
    `times` only the packets of a part are written, at their times in the output.
    """

    def __init__(self, path: Path, output: OutputContainer, warnings: list[str], times: TimeMap | None = None) -> None:
        self._source, video = open_video(path)
        self._output, self._times = output, times
        self._next: Any = None  # the packet that has been read but not written
        self._transfers: dict[int, _Transfer] = {}  # by the stream's index in the source
        chapters = self._source.chapters()
        for stream in self._source.streams:
            if stream.index == video.index and is_pipe(path):  # its packets limit how far the pipe is read
                self._transfers[stream.index] = _Nothing()
                continue
            if stream.type == "audio" and times is not None and times.slowness != 1:
                warnings.append(f"The audio stream {stream.index} was left out: it does not follow slow motion.")
            elif stream.index != video.index:
                transfer = _transfer(stream, output, warnings, has_chapters=bool(chapters))
                if transfer is not None:
                    self._transfers[stream.index] = transfer
                    continue
            if stream.type != "attachment":
                stream.discard = Discard.all
        output.set_chapters(chapters if times is None else times.chapters(chapters))
        output.metadata.update(lasting_metadata(self._source.metadata, output.format.name))
        streams = [self._source.streams[index] for index in self._transfers]
        if times is not None and not is_pipe(path):
            with suppress(av.error.FFmpegError):  # without an index all packets are read
                self._source.seek(max(0, int((times.origin - _EARLY_TEXT_S) * av.time_base)))
        self._packets = self._source.demux(streams) if streams else iter(())

    def copy_until(self, time: Fraction | None) -> None:
        """Write every packet up to a time in seconds, or all remaining packets for None.

        Raises MediaError if the source cannot be read.
        """
        while True:
            if self._next is None:
                try:
                    self._next = next(self._packets, None)
                except av.error.FFmpegError as error:
                    raise MediaError(
                        f"The audio or subtitles of {self._source.name} are damaged ({error.strerror}):"
                        " copy the file again, or remux it without them."
                    ) from error
                if self._next is not None and not self._move(self._next):
                    self._next = None
                    continue
            packet = self._next
            if packet is None:
                return
            if time is not None and packet.dts is not None and packet.dts * packet.time_base > time:
                return
            for output_packet in self._transfers[packet.stream.index].packets(packet):
                self._output.mux_one(output_packet)
            self._next = None

    def finish(self, end: Fraction) -> None:
        """Write what remains: all packets, or those of the part of the video, whose `end` is in seconds."""
        if self._times is None or self._times.until is None:
            self.copy_until(None)
            return
        self.copy_until(end - _ROUNDING_S)
        if self._next is None:
            return  # the source ends with the part
        for transfer in self._transfers.values():
            for packet in transfer.packets(Packet()):  # as at the end of a stream
                self._output.mux_one(packet)

    def _move(self, packet: Packet) -> bool:
        return self._times is None or self._times.move(packet, packet.stream.type == "subtitle")

    @property
    def is_empty(self) -> bool:
        """Return whether no stream is copied."""
        return all(isinstance(transfer, _Nothing) for transfer in self._transfers.values())

    def close(self) -> None:
        """Close the source file."""
        self._packets, self._next = iter(()), None
        self._source.close()


def lasting_metadata(metadata: Mapping[str, str], format: str) -> dict[str, str]:
    """Return the metadata that stays true after a new encoding, with the language codes of the output format."""
    lasting = {key: value for key, value in metadata.items() if not _STALE_KEYS.match(key)}
    if format == "mov" and lasting.get("language") in _QUICKTIME_LANGUAGES:
        lasting["language"] = _QUICKTIME_LANGUAGES[lasting["language"]]
    return lasting


def _transfer(stream: Any, output: OutputContainer, warnings: list[str], *, has_chapters: bool) -> _Transfer | None:
    """Return the transfer of a stream: a copy if the output format supports it, or else a conversion.

    Returns None, with a warning, for a stream that is left out.
    """
    format, name = output.format.name, codec_name(stream)
    label = f"{stream.type} stream {stream.index} ({name})"
    is_cover = bool(stream.disposition & Disposition.attached_pic)
    if stream.type == "data" and has_chapters:
        return None  # the text track of QuickTime chapters; the muxer writes one for the output
    if stream.type in ("audio", "subtitle", "attachment") or is_cover:
        try:
            if not (is_cover and format == "webm"):
                return _Copy(stream, output)
        except (ValueError, av.error.FFmpegError):
            pass  # the format does not support the codec
        try:
            if stream.type == "audio" and stream.codec_context is not None:
                codec = _AUDIO_CODECS.get(format, "aac")
                transfer: _Transfer = _AudioConversion(stream, output, codec)
                warnings.append(f"The {label} was converted to {codec}: {format} does not support {name}.")
                return transfer
            if stream.type == "subtitle" and name in _TEXT_SUBTITLES:
                codec = _TEXT_CODECS.get(format, "mov_text")
                transfer = _TextConversion(stream, output, codec)
                warnings.append(f"The {label} was converted to {codec}: {format} does not support {name}.")
                return transfer
        except (ValueError, av.error.FFmpegError) as error:
            warnings.append(f"The {label} was left out: it cannot be converted ({error}).")
            return None
    second_video = stream.type == "video" and not is_cover
    reason = "only one video stream is upscaled" if second_video else f"{format} does not support it"
    warnings.append(f"The {label} was left out: {reason}.")
    return None


def _copy_metadata(source: Any, target: Any, format: str) -> None:
    target.metadata.update(lasting_metadata(source.metadata, format))
    target.disposition = source.disposition


class _Nothing:
    """Writes nothing: the packets of the video that is upscaled."""

    def packets(self, packet: Any) -> Iterator[Packet]:
        yield from ()


class _Copy:
    """Writes packets unchanged."""

    def __init__(self, source: Any, output: OutputContainer) -> None:
        self._target = output.add_stream_from_template(source, opaque=True)
        _copy_metadata(source, self._target, output.format.name)
        self._last_dts: int | None = None

    def packets(self, packet: Any) -> Iterator[Packet]:
        if packet.dts is None and packet.pts is None:
            return  # the empty packet at the end of a stream
        if packet.dts is None:
            packet.dts = packet.pts
        if self._last_dts is not None and packet.dts <= self._last_dts:  # muxers require increasing timestamps
            packet.dts = self._last_dts + 1
            packet.pts = None if packet.pts is None else max(packet.pts, packet.dts)
        self._last_dts = packet.dts
        packet.stream = self._target
        yield packet


class _AudioConversion:
    """Decodes audio and encodes it with another codec."""

    def __init__(self, source: Any, output: OutputContainer, codec: str) -> None:
        rate = 48000 if codec == "libopus" else source.rate
        self._source = source
        target = output.add_stream(codec, rate=rate, layout=source.layout.name)
        assert isinstance(target, AudioStream)
        target.bit_rate = _AUDIO_BIT_RATE
        _copy_metadata(source, target, output.format.name)
        context = target.codec_context
        context.open()
        self._target = target
        self._resampler = AudioResampler(context.format, context.layout, rate, context.frame_size)

    def packets(self, packet: Any) -> Iterator[Packet]:
        flush = packet.dts is None and packet.size == 0
        frames = self._source.decode(None if flush else packet)
        for frame in [*frames, *([None] if flush else [])]:
            for resampled in self._resampler.resample(frame):
                yield from self._target.encode(resampled)
        if flush:
            yield from self._target.encode(None)


class _TextConversion:
    """Converts text subtitles to another format."""

    def __init__(self, source: Any, output: OutputContainer, codec: str) -> None:
        self._decoder = source.codec_context
        self._decoder.open()
        self._target = output.add_stream(codec)
        assert isinstance(self._target, SubtitleStream)
        self._encoder = self._target.codec_context
        self._encoder.subtitle_header = self._decoder.subtitle_header
        self._target.time_base = source.time_base
        self._encoder.time_base = source.time_base
        self._encoder.open()
        _copy_metadata(source, self._target, output.format.name)

    def packets(self, packet: Any) -> Iterator[Packet]:
        if packet.pts is None or not packet.size:
            return
        subtitles = self._decoder.decode2(packet)
        if subtitles is None or not len(subtitles):
            return
        encoded = self._encoder.encode_subtitle(subtitles)
        encoded.stream = self._target
        encoded.time_base = packet.time_base
        encoded.pts = encoded.dts = packet.pts
        encoded.duration = packet.duration
        encoded.is_keyframe = True
        yield encoded
