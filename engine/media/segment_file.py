"""Segments of a video: files of encoded packets, and the video that is joined of them without encoding again.

A segment file is Matroska, which stores every codec; the times of its packets, exact and in the order of decoding, are
in the record `SegmentWriter.finished`.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from ..contract.errors import MediaError
from ..contract.picture import Picture, PictureFormat
from .damage import OnDamage
from .decoders import has_coded_alpha
from .destination import read_destination
from .encoder import Encoding
from .output_file import OutputFile
from .partfile import PartFile
from .probe import VideoInfo
from .video_stream import EncodedStream, align_end, codec_tag, copy_properties, stores_milliseconds
from .writer import VideoFile

_STEP = Fraction(1, 1000)  # seconds, between packets in a segment file, whose own times mean nothing


@dataclass(frozen=True)
class SegmentFile:
    """A finished segment: its file, and the ticks of its packets in the order of decoding."""

    path: Path
    ticks: tuple[int, ...]  # in the time base of the video

    @contextmanager
    def open(self) -> Iterator[tuple[VideoStream, Iterator[Packet]]]:
        """Yield the stream and its packets, whose times mean nothing. Raises MediaError if their number is wrong."""
        with av.open(f"file:{self.path}") as container:
            stream = container.streams.video[0]
            yield stream, self._packets(container.demux(stream))

    def _packets(self, packets: Iterator[Packet]) -> Iterator[Packet]:
        count = 0
        for packet in packets:
            if packet.size:
                count += 1
                if count <= len(self.ticks):
                    yield packet
        if count != len(self.ticks):
            raise MediaError(f"{self.path} is damaged: delete it and run again.")


class SegmentWriter(OutputFile):
    """Encodes the frames of a segment into a file; a context manager that leaves the file, or none after an error.

    The frames are encoded as `VideoWriter` does for the `encoding` and the source. A segment may have no frames: then
    no file is left. Raises MediaError as VideoWriter.
    """

    def __init__(
        self,
        path: Path,
        encoding: Encoding,
        *,
        source: VideoInfo,
        size: tuple[int, int],  # (width, height)
        rate: Fraction,
        time_base: Fraction,  # seconds, that of the output (`output_time_base`)
    ) -> None:
        self.path = path
        self._ticks: list[int] = []
        self._encoding, self._source, self._size = encoding, source, size
        self._rate, self._time_base = rate, time_base
        file = PartFile(path, source=None, overwrite=True)
        self._target = file.target
        super().__init__(file)

    @property
    def picture_format(self) -> PictureFormat | None:
        """The YUV format that `write` takes besides RGB; None if it takes only RGB."""
        return self._video.picture_format

    @property
    def has_alpha(self) -> bool:
        """Return whether `write` takes frames with alpha."""
        return self._video.has_alpha

    @property
    def finished(self) -> SegmentFile:
        """The record of the segment, after the `with` block."""
        return SegmentFile(self.path, tuple(self._ticks))

    def write(self, frame: Picture, pts: Fraction, duration: Fraction) -> None:
        """Encode a frame; see `VideoWriter.write`."""
        with self._file.media_errors():
            for packet in self._video.encode(frame, pts, duration):
                self._put(packet)

    def _open(self) -> None:
        self._output = av.open(self._target, "w", format="matroska")
        self._video = EncodedStream(
            self._output,
            self._encoding,
            path=self.path,
            source=self._source,
            size=self._size,
            rate=self._rate,
            time_base=self._time_base,
            warnings=[],
        )

    def _put(self, packet: Packet) -> None:
        assert self._output is not None
        assert packet.pts is not None
        self._ticks.append(packet.pts)
        packet.pts, packet.dts, packet.time_base = len(self._ticks), len(self._ticks), _STEP
        self._output.mux_one(packet)

    def _finish(self) -> None:
        assert self._output is not None
        if self._video.has_frames:
            for packet in self._video.finish():
                self._put(packet)
        self._output.close()

    def _publish(self) -> None:
        if self._ticks:
            self._file.publish()
        else:
            self._file.discard()


class JoinedVideo(VideoFile):
    """A video file of finished segments: packets are copied, and everything else comes from the source.

    `end` is the end of the video in seconds. The unfinished file is in `part_folder`, which is on the same file system,
    or beside the path. Raises MediaError as `VideoWriter`, or if the segments were encoded differently.
    """

    def __init__(
        self,
        path: Path,
        segments: Sequence[SegmentFile],
        *,
        source: VideoInfo,
        codec: str,  # FFmpeg's name of the encoder
        size: tuple[int, int],  # (width, height)
        rate: Fraction,
        time_base: Fraction,
        end: Fraction,
        overwrite: bool = False,
        on_damage: OnDamage = "stop",  # of the source's other streams
        part_folder: Path | None = None,
        warnings: Sequence[str] = (),  # of the encoding
    ) -> None:
        self._segments = [segment for segment in segments if segment.ticks]
        self._size, self._end_s = size, end
        if not self._segments:
            raise MediaError(f"No frame was computed for {path}: choose an input that has frames.")
        super().__init__(
            read_destination(path),
            source=source,
            codec=codec,
            rate=rate,
            time_base=time_base,
            overwrite=overwrite,
            on_damage=on_damage,
            part_folder=part_folder,
            warnings=warnings,
        )

    def write(self) -> None:
        """Copy the packets of all segments."""
        ticks = _growing(self._segments)
        shown = sorted(ticks)
        end = max(round(self._end_s / self._time_base), shown[-1] + 1)
        # The decoder returns frames this many packets late, and every packet is decoded before it is shown.
        delay = max(index - bisect_left(shown, tick) for index, tick in enumerate(ticks))
        step = max(1, (end - shown[0]) // len(shown))
        previous: Packet | None = None
        previous_dts: int | None = None
        with self._file.media_errors():
            for index, packet in enumerate(self._packets()):
                if previous is not None:
                    previous_dts = previous.dts
                    self._write_packet(previous)
                tick = ticks[index]
                position = bisect_left(shown, tick)
                packet.stream, packet.time_base = self._video, self._time_base
                packet.pts = tick
                packet.dts = shown[index - delay] if index >= delay else shown[0] - (delay - index) * step
                packet.duration = (shown[position + 1] if position + 1 < len(shown) else end) - tick
                previous = packet
            assert previous is not None
            if not stores_milliseconds(self.path):
                align_end(previous, shown[0], shown[0] - delay * step, previous_dts, end)
            self._last = previous

    def _add_video(self, output: OutputContainer, source: VideoInfo | None) -> None:
        with self._segments[0].open() as (template, _):
            self._extradata = template.codec_context.extradata
            stream = output.add_stream_from_template(template, opaque=True)
            assert isinstance(stream, VideoStream)
            stream.time_base, stream.codec_context.framerate = self._time_base, self._rate
            if (tag := codec_tag(template.codec_context.name, self.path)) is not None:
                stream.codec_tag = tag
            has_alpha = has_coded_alpha(template)
        self._video = stream
        if source is not None:
            copy_properties(stream, output, source, self.path, self._size, self.warnings)
        if has_alpha:
            stream.metadata["alpha_mode"] = "1"  # which the muxer does not know from packets

    def _last_packets(self) -> Iterator[Packet]:
        yield self._last

    def _video_end(self) -> Fraction:
        return self._end_s

    def _packets(self) -> Iterator[Packet]:
        """Yield the packets of all segments in order."""
        for segment in self._segments:
            with segment.open() as (stream, packets):
                if stream.codec_context.extradata != self._extradata:
                    raise MediaError(
                        f"{segment.path} was encoded differently from {self._segments[0].path}: delete the folder of"
                        " the segments and run again."
                    )
                yield from packets


def _growing(segments: Sequence[SegmentFile]) -> list[int]:
    """Return the ticks of all packets, where no frame of a segment is at the tick of one before or earlier."""
    ticks: list[int] = []
    latest: int | None = None
    for segment in segments:
        moved = {}
        for tick in sorted(segment.ticks):
            latest = moved[tick] = tick if latest is None else max(tick, latest + 1)
        ticks += [moved[tick] for tick in segment.ticks]
    return ticks
