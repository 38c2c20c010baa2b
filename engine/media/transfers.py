"""Transfers: how the packets of one stream of a source become packets of a stream of an output."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import av
from av.container import OutputContainer
from av.packet import Packet
from av.subtitles.stream import SubtitleStream

from .audio import SoundEncoder, complete_layout
from .metadata import lasting_metadata
from .probe import codec_name

# Names of image files in Matroska, by FFmpeg's name of the codec.
_COVERS = {
    "mjpeg": ("cover.jpg", "image/jpeg"),
    "png": ("cover.png", "image/png"),
    "bmp": ("cover.bmp", "image/bmp"),
    "gif": ("cover.gif", "image/gif"),
    "webp": ("cover.webp", "image/webp"),
    "tiff": ("cover.tiff", "image/tiff"),
}


class Transfer:
    """Turns the packets of one stream of a source into packets of a stream of an output.

    Constructors raise ValueError or av.error.FFmpegError if the output does not take the stream.
    """

    def packets(self, packet: Any) -> Iterator[Packet]:
        """Yield the packets of the output for one of the source; the last one of the source is empty."""
        return self._turned(packet)

    def sample(self) -> Iterator[Packet]:
        """Yield a few packets that show a muxer what is to come; nothing else can be written afterwards."""
        return self._sample()

    @property
    def fault(self) -> str | None:
        """A sentence part on the loss so far, such as packets that cannot be decoded; None without any."""
        return None

    @property
    def undecoded(self) -> list[tuple[Fraction, Fraction]]:
        """The times of packets that cannot be decoded: begin and end, in seconds."""
        return []

    def _turned(self, packet: Any) -> Iterator[Packet]:
        raise NotImplementedError

    def _sample(self) -> Iterator[Packet]:
        yield from ()


class Copy(Transfer):
    """Writes packets unchanged. `first` has the first ones."""

    def __init__(self, source: Any, output: OutputContainer, first: Sequence[Packet]) -> None:
        self._first = first
        self._target = output.add_stream_from_template(source, opaque=True)
        if source.type == "audio" and source.codec_context is not None:
            self._target.codec_context.layout = complete_layout(source.codec_context.layout)
        copy_metadata(source, self._target, output.format.name)

    def _turned(self, packet: Any) -> Iterator[Packet]:
        if packet.size:
            packet.stream = self._target
            yield packet

    def _sample(self) -> Iterator[Packet]:
        for packet in self._first:
            copy = av.Packet(bytes(packet))
            copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
            copy.time_base, copy.is_keyframe, copy.stream = packet.time_base, packet.is_keyframe, self._target
            for side_data in packet.iter_sidedata():
                copy.set_sidedata(side_data)
            yield copy


class CoverAttachment(Transfer):
    """Stores a cover as an attachment, which is how Matroska stores pictures. `first` has its packet."""

    def __init__(self, source: Any, output: OutputContainer, first: Sequence[Packet]) -> None:
        codec = codec_name(source)
        if codec not in _COVERS or not first:
            raise ValueError(f"Matroska has no pictures in {codec}")
        name, mime_type = _COVERS[codec]
        tags = source.metadata
        output.add_attachment(tags.get("filename", name), tags.get("mimetype", mime_type), bytes(first[0]))

    def _turned(self, packet: Any) -> Iterator[Packet]:
        yield from ()


class AudioConversion(Transfer):
    """Decodes audio and encodes it with another codec."""

    def __init__(self, source: Any, output: OutputContainer, codec: str, layout: str) -> None:
        context = source.codec_context
        if not context.is_open:
            context.layout = complete_layout(context.layout)
        self._source = source
        self._encoder = SoundEncoder(output, codec, rate=context.sample_rate, layout=layout)
        self._undecoded: list[tuple[Fraction, Fraction]] = []
        copy_metadata(source, self._encoder.stream, output.format.name)

    @property
    def undecoded(self) -> list[tuple[Fraction, Fraction]]:
        """The times of packets that cannot be decoded."""
        return self._undecoded

    @property
    def fault(self) -> str | None:
        """A sentence part on the loss so far, such as packets that cannot be decoded; None without any."""
        if not self._undecoded:
            return None
        first = float(self._undecoded[0][0])
        return f"{len(self._undecoded)} of its packets cannot be decoded, the first at {first:.3f} s"

    def _turned(self, packet: Any) -> Iterator[Packet]:
        is_last = not packet.size and packet.dts is None
        try:
            frames = self._source.decode(None if is_last else packet)
        except av.error.FFmpegError:
            start = (packet.pts or 0) * packet.time_base
            self._undecoded.append((start, start + (packet.duration or 0) * packet.time_base))
            frames = []
        for frame in frames:
            yield from self._encoder.encode(frame)
        if is_last:
            yield from self._encoder.finish()

    def _sample(self) -> Iterator[Packet]:
        return self._encoder.silence()


class TextConversion(Transfer):
    """Converts text subtitles to another format."""

    def __init__(self, source: Any, output: OutputContainer, codec: str) -> None:
        self._decoder = source.codec_context
        self._decoder.open(strict=False)
        self._target = output.add_stream(codec)
        assert isinstance(self._target, SubtitleStream)
        self._encoder = self._target.codec_context
        self._encoder.subtitle_header = self._decoder.subtitle_header
        self._target.time_base = source.time_base
        self._encoder.time_base = source.time_base
        self._encoder.open()
        copy_metadata(source, self._target, output.format.name)

    def _turned(self, packet: Any) -> Iterator[Packet]:
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


def copy_metadata(source: Any, target: Any, format: str) -> None:
    """Copy the metadata that stay true, and the disposition, of a source's stream to one of an output format."""
    target.metadata.update(lasting_metadata(source.metadata, format))
    target.disposition = source.disposition
