"""Write a video file: encoded frames, and the source's other streams and metadata."""

import math
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
from av.container import OutputContainer
from av.packet import Packet

from ..contract.errors import MediaError
from ..contract.picture import Picture, PictureFormat
from .damage import OnDamage, Repair
from .encoder import CONTAINERS, choose_encoding
from .frame import FrameReader
from .hdr import hdr_warnings
from .metadata import timecode_at_rate
from .partfile import PartFile
from .probe import VideoInfo, probe
from .reader import open_reader
from .remux import CopiedStreams
from .video_stream import MILLISECONDS, EncodedStream, output_time_base, stores_milliseconds

Source = FrameReader | str | Path

_MAX_TIMESCALE = 2**31 - 1  # a signed 32-bit integer in FFmpeg


class OutputFile:
    """A file that is being written: a context manager that leaves the complete file, or no file after an error.

    Subclasses set what `_open` needs before they call this constructor, which calls it.
    """

    def __init__(self, file: PartFile) -> None:
        self._file = file
        self._output: OutputContainer | None = None
        try:
            with self._file.media_errors():
                self._open()
        except BaseException:
            self._abandon()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._abandon()
            return
        try:
            with self._file.media_errors():
                self._finish()
            self._publish()
        except BaseException:
            self._abandon()
            raise

    def _open(self) -> None:
        """Open the output, and set up its streams."""
        raise NotImplementedError

    def _finish(self) -> None:
        """Write what remains, and close the output."""
        raise NotImplementedError

    def _publish(self) -> None:
        """Give the finished file its name."""
        self._file.publish()

    def _abandon(self) -> None:
        """Close what is open and delete the unfinished file."""
        with suppress(Exception):
            if self._output is not None:
                self._output.close()
        self._file.discard()


class VideoFile(OutputFile):
    """A video file with the other streams of its source.

    The base class of the two ways to write one: `VideoWriter` encodes frames, `JoinedVideo` takes encoded segments.
    """

    def __init__(
        self,
        path: Path,
        *,
        source: VideoInfo | None,
        codec: str,  # FFmpeg's name of the encoder
        rate: Fraction,  # nominal frames per second
        time_base: Fraction,  # seconds
        overwrite: bool,
        on_damage: OnDamage = "stop",
        part_folder: Path | None = None,
    ) -> None:
        if path.suffix.lower() not in CONTAINERS:
            raise MediaError(f"{path} must end in one of {', '.join(CONTAINERS)}: choose one of these containers.")
        if stores_milliseconds(path) and rate > MILLISECONDS:
            raise MediaError(
                f"{path} cannot store {float(rate):g} frames per second, as Matroska counts milliseconds: choose .mp4."
            )
        self.path, self.codec = path, codec
        self.warnings: list[str] = []
        self._source, self._rate = source, rate
        self._time_base = output_time_base(path, time_base)
        self._on_damage = on_damage
        self._copied: CopiedStreams | None = None
        original = None if source is None else Path(source.path)
        super().__init__(PartFile(path, source=original, overwrite=overwrite, folder=part_folder))

    @property
    def repairs(self) -> list[Repair]:
        """Damage of the other streams that was repaired."""
        return [] if self._copied is None else self._copied.log.repairs

    def _add_video(self, output: OutputContainer, source: VideoInfo | None) -> None:
        """Add the video stream to the output."""
        raise NotImplementedError

    def _last_packets(self) -> Iterator[Packet]:
        """Yield the video packets that remain at the end."""
        raise NotImplementedError

    def _open(self) -> None:
        """Set up every stream, and write the header."""
        source = self._source
        scale = {"movie_timescale": str(_movie_timescale(source, self._time_base))}
        self._output = av.open(
            f"file:{self._file.part}", "w", container_options={} if stores_milliseconds(self.path) else scale
        )
        self._add_video(self._output, source)
        if source is not None:
            self.warnings += hdr_warnings(self.codec, source.color, source.hdr)
        if source is not None and Path(source.path).is_file():
            self._copied = CopiedStreams(source, self._output, self.warnings, self._on_damage)
        self._set_timecodes(self._output)
        self._output.start_encoding()  # a muxer that refuses the video does so now, and not after the last frame

    def _set_timecodes(self, output: OutputContainer) -> None:
        """Write the timecode of the source, if it has one, in frames of the output."""
        for tags in (output.metadata, *(stream.metadata for stream in output.streams)):
            if self._source is not None and "timecode" in tags:
                stored_rate = self._source.stored_rate or self._source.rate
                tags["timecode"] = timecode_at_rate(tags["timecode"], stored_rate, self._rate)

    def _write_packet(self, packet: Packet) -> None:
        """Write a video packet, after the packets of the other streams up to its time."""
        assert self._output is not None
        assert packet.dts is not None
        if self._copied is not None:
            self._copied.copy_until(packet.dts * self._time_base)
        self._output.mux_one(packet)

    def _finish(self) -> None:
        assert self._output is not None
        for packet in self._last_packets():
            self._write_packet(packet)
        if self._copied is not None:
            self._copied.finish()
            self._copied.close()
        self._output.close()

    def _abandon(self) -> None:
        with suppress(Exception):
            if self._copied is not None:
                self._copied.close()
        super()._abandon()


class VideoWriter(VideoFile):
    """Writes one video file of frames.

    Color tags, pixel aspect, rotation, metadata, chapters, audio and subtitles come from the source; `warnings` reports
    those that the container cannot store unchanged. Matroska and WebM round timestamps to milliseconds, and start at or
    after zero. Frames of odd sizes are written without chroma subsampling, unless the encoder takes them with it.

    Raises MediaError if the file cannot be written, if `path` exists and `overwrite` is false, if it is the source, or
    if the container or the encoder does not support a choice.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        source: Source | None,
        size: tuple[int, int],  # (width, height)
        rate: Fraction,  # nominal frames per second
        time_base: Fraction,  # seconds; timestamps are rounded to its multiples
        codec: str | None = None,
        crf: int | None = None,
        encoder_options: dict[str, str] | None = None,
        pix_fmt: str | None = None,
        overwrite: bool = False,
        on_damage: OnDamage = "stop",  # of the source's other streams
    ) -> None:
        info = _source_info(source, rate)
        self._encoding = choose_encoding(
            Path(path).suffix.lower(),
            size,
            info.bit_depth if info is not None else 8,
            codec=codec,
            crf=crf,
            pix_fmt=pix_fmt,
            options=encoder_options,
        )
        self.pix_fmt = self._encoding.pix_fmt
        self._size = size
        super().__init__(
            Path(path),
            source=info,
            codec=self._encoding.codec,
            rate=rate,
            time_base=time_base,
            overwrite=overwrite,
            on_damage=on_damage,
        )

    @property
    def picture_format(self) -> PictureFormat | None:
        """The YUV format that `write` takes besides RGB; None if it takes only RGB."""
        return self._video.picture_format

    def write(self, frame: Picture, pts: Fraction, duration: Fraction) -> None:
        """Encode a frame that is displayed from `pts` for `duration`, in seconds; its arrays may be reused afterwards.

        The frame is RGB, (3, H, W) uint16, of which 65535 is white, or the planes of `picture_format`. Raises
        MediaError if the file cannot be written, or unless `pts` is after that of the previous frame.
        """
        with self._file.media_errors():
            for packet in self._video.encode(frame, pts, duration):
                self._write_packet(packet)

    def _add_video(self, output: OutputContainer, source: VideoInfo | None) -> None:
        self._video = EncodedStream(
            output,
            self._encoding,
            path=self.path,
            source=source,
            size=self._size,
            rate=self._rate,
            time_base=self._time_base,
            warnings=self.warnings,
        )

    def _last_packets(self) -> Iterator[Packet]:
        return self._video.finish()


def _source_info(source: Source | None, rate: Fraction) -> VideoInfo | None:
    if source is None:
        return None
    if isinstance(source, str | Path):
        return open_reader(source, fps=rate).info if Path(source).is_dir() else probe(source)
    return source.info


def _movie_timescale(info: VideoInfo | None, time_base: Fraction) -> int:
    """Return ticks per second in which the times of the video and of the audio are whole numbers.

    MP4 edit lists use this scale: with its default, milliseconds, the first frame would move.
    """
    rates = [] if info is None else [stream.sample_rate for stream in info.streams if stream.sample_rate]
    ticks = time_base.denominator
    common = math.lcm(ticks, *rates)
    return common if common <= _MAX_TIMESCALE else ticks
